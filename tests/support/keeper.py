"""A provider that keeps what it makes, for a scripted upstream: what another one has made is not found here."""

from itertools import count
from typing import Any

import orjson

from tests.support.behaviours import answer, failure, stream
from tests.support.providers import TEXT, THINKING, chat, message, message_frames, response, response_frames
from tests.support.upstream import Behaviour, Exchange, Recorded

Tree = dict[str, Any]


class Keeper:
    """Answers Responses, Messages, files, batches, vector stores and conversations; every id and signature has its name in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.made: set[str] = set()
        self._numbers = count(1)

    async def __call__(self, exchange: Exchange) -> None:
        """See ``Behaviour``."""
        await self._choose(exchange.request)(exchange)

    def _make(self, kind: str) -> str:
        made = f"{kind}_{self.name}{next(self._numbers)}"
        self.made.add(made)
        return made

    def _choose(self, request: Recorded) -> Behaviour:
        parts = request.path.removeprefix("/v1/").split("/")
        if parts == ["models"]:
            return answer({"object": "list", "data": []})
        if parts[0] != "chat" and (request.method != "POST" or len(parts) > 1):
            return self._about(request, parts)
        plain = "json" in (request.value("content-type") or "")
        asked = request.json if plain and request.body else {}
        if parts[0] in {"responses", "messages", "chat"}:
            return self._generate(parts[0], asked)
        wanted = [asked.get("input_file_id"), *_listed(asked.get("file_ids"))]
        if any(name is not None and name not in self.made for name in wanted):
            return failure(404, f"{self.name} has no such file", code="not_found")
        made: Tree = {"id": self._make(parts[0]), "object": parts[0]}
        if parts[0] == "batches":
            made["output_file_id"] = self._make("files")
        return answer(made)

    def _about(self, request: Recorded, parts: list[str]) -> Behaviour:
        if parts[1] not in self.made:
            return failure(404, f"{self.name} has no such thing", code="not_found")
        return answer({"id": parts[1], "object": parts[0], "deleted": request.method == "DELETE"})

    def _generate(self, kind: str, asked: Tree) -> Behaviour:
        before = asked.get("previous_response_id") or asked.get("conversation")
        before = before["id"] if isinstance(before, dict) else before
        files = [name for name in _file_ids(asked) if name not in self.made]
        if (before is not None and before not in self.made) or files:
            return failure(400, f"{self.name} has not made it", code="previous_response_not_found")
        seal = f"sealed by {self.name} {next(self._numbers)}".encode().hex()
        names = {b"resp_1": self._make("resp").encode(), b"c2lnbmVk": seal.encode()}
        streamed = bool(asked.get("stream"))
        if kind == "chat":
            made = orjson.dumps(chat(TEXT))
        elif kind == "messages":
            made = message_frames(THINKING) if streamed else orjson.dumps(message(THINKING))
        else:
            made = response_frames(THINKING) if streamed else orjson.dumps(response(THINKING))
        for old, new in names.items():
            made = made.replace(old, new)
        return stream([made]) if streamed else answer(made)


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _file_ids(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["file_id"]] if isinstance(value.get("file_id"), str) else []
        return own + [name for item in value.values() for name in _file_ids(item)]
    return [name for item in _listed(value) for name in _file_ids(item)]
