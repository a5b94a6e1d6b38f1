"""A provider that has a coding tool do one task: it first calls one of the tool's own tools, then tells what came of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from tests.dialects.schema_gemini import conforms
from tests.support.behaviours import answer
from tests.support.providers import FORMS, Scene, spoken_at
from tests.support.published import check_request
from tests.support.upstream import Behaviour, Exchange

Tree = dict[str, Any]
Wanted = Sequence[tuple[str, Tree]]
SAID = "The note says: "


def does_task(secret: str, wanted: Wanted, *, own: str) -> Behaviour:
    """Call the first of the ``wanted`` tools that is offered; once the ``secret`` has come back, say it.

    ``own``: the client's form. Requests in another one were written by the gateway, and are held to the published API.
    """

    async def behave(exchange: Exchange) -> None:
        request = exchange.request
        if request.path.endswith(("/count_tokens", ":countTokens")):
            await answer({"input_tokens": 10, "totalTokens": 10})(exchange)
            return
        spoken, tree = spoken_at(request.path), request.json
        if spoken != own:
            conforms(tree) if spoken == "gemini" else check_request(spoken, tree)
        offered = set(names(tree))
        if secret.encode() in request.body:
            scene = Scene(text=(SAID, secret))
        else:
            calls = tuple((name, arguments) for name, arguments in wanted if name in offered)[:1]
            scene = Scene(calls=calls, stop="tool") if calls else Scene(text=("All right.",))
        write, write_frames = FORMS[spoken]
        streamed = bool(tree.get("stream")) or "stream" in request.path.rpartition(":")[2]
        kind, data = (
            ("text/event-stream", write_frames(scene)) if streamed else ("application/json", orjson.dumps(write(scene)))
        )
        await answer(data, content_type=kind)(exchange)

    return behave


def names(tree: Tree) -> Iterator[str]:
    """The tools that a request offers, in any of the forms."""
    for tool in tree.get("tools") or ():
        told = tool.get("function", tool)
        if "name" in told:
            yield told["name"]
        yield from (entry["name"] for entry in tool.get("functionDeclarations") or ())
