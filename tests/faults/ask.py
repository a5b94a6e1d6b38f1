"""Asking as applications do: the official SDKs, unmodified and without retries of their own."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import anthropic
import httpx2
import openai

from tests.faults.fault import Api
from tests.support.gateway import Gateway, Tree

PATIENCE_SECONDS = 20.0
TOKENS = 300  # the bound of an answer, which the reservation is made from


@dataclass
class Heard:
    """What an application knows in the end: ``whole`` is what it was given without an exception."""

    whole: bool = False
    text: str = ""
    error: Exception | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Of the answer, whatever became of it."""

    @property
    def status(self) -> int:
        """Of the answer; 200 where a stream had begun."""
        return int(getattr(self.error, "status_code", 200))

    @property
    def code(self) -> str:
        """The error's ``code``."""
        return str(getattr(self.error, "code", "") or "")


RAISED = (openai.APIError, anthropic.APIError, httpx2.HTTPError, json.JSONDecodeError)
"""All that the SDKs let out for a failed answer; anything else is a defect, and fails the test."""


def ask(gateway: Gateway, api: Api, model: str, extra: Tree, *, streamed: bool, headers: dict[str, str]) -> Heard:
    """One request with its answer read to the end."""
    heard = Heard()
    talk = {"chat": _chat, "responses": _responses, "messages": _messages}[api]
    hooks = {"response": [lambda response: heard.headers.update(response.headers)]}
    with httpx2.Client(follow_redirects=True, event_hooks=hooks) as wire:  # as the SDKs' own are
        try:
            for piece in talk(gateway, wire, model, extra, streamed, headers):
                heard.text += piece
            heard.whole = True
        except RAISED as error:
            heard.error = error
    return heard


def _openai(gateway: Gateway, wire: httpx2.Client, key: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_SECONDS, http_client=wire
    )


def _key(headers: dict[str, str]) -> str:
    return headers["authorization"].removeprefix("Bearer ")


def _chat(
    gateway: Gateway, wire: httpx2.Client, model: str, extra: Tree, streamed: bool, headers: dict[str, str]
) -> Iterator[str]:
    with _openai(gateway, wire, _key(headers)) as client:
        made = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Say hello"}],
            max_tokens=TOKENS,
            stream=streamed,
            extra_headers=headers,
            extra_body=extra,
        )
        if not isinstance(made, openai.Stream):
            yield made.choices[0].message.content or ""
            return
        with made:
            for chunk in made:
                yield "".join(choice.delta.content or "" for choice in chunk.choices)


def _responses(
    gateway: Gateway, wire: httpx2.Client, model: str, extra: Tree, streamed: bool, headers: dict[str, str]
) -> Iterator[str]:
    with _openai(gateway, wire, _key(headers)) as client:
        made = client.responses.create(
            model=model,
            input="Say hello",
            max_output_tokens=TOKENS,
            stream=streamed,
            extra_headers=headers,
            extra_body=extra,
        )
        if not isinstance(made, openai.Stream):
            yield made.output_text
            return
        with made:
            for told in made:
                if told.type == "response.output_text.delta":
                    yield told.delta


def _messages(
    gateway: Gateway, wire: httpx2.Client, model: str, extra: Tree, streamed: bool, headers: dict[str, str]
) -> Iterator[str]:
    with anthropic.Anthropic(
        base_url=gateway.url,
        api_key=None,
        auth_token=_key(headers),
        max_retries=0,
        timeout=PATIENCE_SECONDS,
        http_client=wire,
    ) as client:
        made = client.messages.create(
            model=model,
            messages=[{"role": "user", "content": "Say hello"}],
            max_tokens=TOKENS,
            stream=streamed,
            extra_headers=headers,
            extra_body=extra,
        )
        if not isinstance(made, anthropic.Stream):
            yield "".join(block.text for block in made.content if block.type == "text")
            return
        with made:
            for told in made:
                if told.type == "content_block_delta" and told.delta.type == "text_delta":
                    yield told.delta.text
