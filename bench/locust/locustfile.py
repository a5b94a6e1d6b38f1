"""Chat users for locust: plain and streamed, in the shape of the OpenAI API. README.md beside this file tells how to run it."""

import json
import os
import time

from locust import FastHttpUser, HttpUser, between, task  # type: ignore[import-not-found]  # locust has a venv of its own

PATH = "/v1/chat/completions"
MODEL = os.environ.get("BENCH_MODEL", "agw/echo")
KEY = os.environ.get("OPENAI_API_KEY", "")
QUESTION = "Say in one short sentence what a token bucket is."
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}


def body(*, stream: bool) -> str:
    """Give the request's JSON."""
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": stream})


class ChatUser(FastHttpUser):  # type: ignore[misc]  # its base is not installed where types are checked
    """Asks, waits for the whole answer, and thinks for a moment."""

    wait_time = between(0.0, 0.1)
    weight = 3

    @task  # type: ignore[untyped-decorator]  # likewise
    def chat(self) -> None:
        """One answer."""
        with self.client.post(
            PATH, data=body(stream=False), headers=HEADERS, name="chat", catch_response=True
        ) as answer:
            if answer.status_code == 200 and b'"choices"' not in answer.content:
                answer.failure("no chat completion")


class StreamingUser(HttpUser):  # type: ignore[misc]  # likewise
    """Asks for a stream, which only the slower client can read; first token and gaps are entries of their own."""

    wait_time = between(0.0, 0.1)
    weight = 1

    @task  # type: ignore[untyped-decorator]  # likewise
    def chat_stream(self) -> None:
        """One stream, read to its [DONE]."""
        begun = last = time.perf_counter()
        done = False
        first = True
        options = {"headers": HEADERS, "name": "chat stream", "stream": True, "catch_response": True}
        with self.client.post(PATH, data=body(stream=True), **options) as answer:
            if answer.status_code != 200:
                return
            for line in answer.iter_lines():
                if not line.startswith(b"data:"):
                    continue
                if line[5:].strip() == b"[DONE]":
                    done = True
                    continue
                now = time.perf_counter()
                self._entry("first token" if first else "between tokens", now - (begun if first else last))
                first, last = False, now
            if not done:
                answer.failure("the stream ended before its end")

    def _entry(self, name: str, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type="SSE", name=name, response_time=seconds * 1000, response_length=0, exception=None, context={}
        )
