"""A gateway as small as the commands need it: scripted answers over a real socket."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

KEY = "agw-" + "Zk3" * 14 + "Q"  # of the form that generated keys have


class Scripted(NamedTuple):
    """What a path answers. ``cut``: the length promises more than is sent."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    cut: bool = False


class Asked(NamedTuple):
    method: str
    path: str
    authorization: str | None
    body: Any


class Tiny:
    """``with Tiny() as gateway``: serves ``gateway.answers`` at ``gateway.url``, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Scripted] = {}
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: Any) -> None:
                outer.asked.append(Asked(self.command, self.path, self.headers["Authorization"], body))
                scripted = outer.answers.get(self.path, Scripted(404, b"nothing here", "text/plain"))
                self.send_response(scripted.status)
                self.send_header("Content-Type", scripted.content_type)
                self.send_header("Content-Length", str(len(scripted.body) + 100 * scripted.cut))
                self.end_headers()
                self.wfile.write(scripted.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it
                """Print nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that leaves early is no news, least of all on the standard error that a test looks at."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def says(self, path: str, content: object, status: int = 200) -> None:
        """Answer a path with JSON."""
        self.answers[path] = Scripted(status, json.dumps(content).encode())

    def streams(self, *events: object, end: bytes = b"data: [DONE]\n\n", cut: bool = False) -> None:
        """Answer chat requests with these events."""
        body = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + end
        self.answers["/v1/chat/completions"] = Scripted(200, body, "text/event-stream", cut)

    def is_well(self, *, ready: str = "ready") -> None:
        """Answer the health endpoints."""
        self.says("/health", {"status": "ok", "version": "9.8.7"})
        content = {"status": ready, "active": 3, "version": "9.8.7"}
        self.says("/health/ready", content, 200 if ready == "ready" else 503)


def delta(text: str) -> dict[str, object]:
    """A chunk of a chat stream."""
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
