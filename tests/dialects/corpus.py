"""The golden corpus of translation: what is said in one form, and what becomes of it in each other one.

A file is a case: ``said`` is written by hand, a form each, ``made`` is what the translation makes of it, and ``by`` which
pairs of forms make it so. To add a case write its ``said``; ``python -m tests.dialects.corpus`` adds ``made`` to all files,
for a human to read before it is kept. The folder's README says by what questions, and which cases have been read so.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from agw_proxy.config.presets import Quirks
from agw_proxy.config.values import Spoken
from agw_proxy.conformance.frames import events
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import Shown, Untranslatable
from agw_proxy.dialects.sse import Events

Tree = dict[str, Any]

FOLDER = Path(__file__).parents[1] / "corpus" / "translation"
FORMS: tuple[Spoken, ...] = ("chat", "responses", "messages", "gemini")
QUIRKS = Quirks(max_tokens="max_completion_tokens")  # as OpenAI's own API has it
LINE = 140  # characters
NOW = 1_700_000_000
MODELS: dict[Spoken, str] = {
    "chat": "gpt-5",
    "responses": "gpt-5",
    "messages": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-pro",
}


def cases(kind: str) -> list[Path]:
    """The files of ``requests``, ``answers``, ``streams`` or ``errors``."""
    return sorted((FOLDER / kind).glob("*.json"))


def pairs(said: Tree) -> Iterator[tuple[Spoken, Spoken]]:
    """Each form that something is said in, with each other one."""
    for spoken in FORMS:
        if spoken in said:
            yield from ((spoken, form) for form in FORMS if form != spoken)


def made(kind: str, said: Tree) -> list[Tree]:
    """What becomes of it, the same only once."""
    found: list[Tree] = []
    for one, other in pairs(said):
        what = MAKERS[kind](one, other, said[one])
        for group in found:
            if group["what"] == what and group["by"][0].endswith(f">{other}"):
                group["by"].append(f"{one}>{other}")
                break
        else:
            found.append({"by": [f"{one}>{other}"], "what": what})
    return found


def request(caller: Spoken, upstream: Spoken, said: Tree) -> Tree:
    """A caller's request for an upstream."""
    given = {"model": "the-model", "stream": False, **said} if caller == "gemini" else {"model": "the-model", **said}
    try:
        read = translate.read_request(caller, orjson.dumps(given))
        written = translate.write_request(read, upstream, MODELS[upstream], QUIRKS)
    except Untranslatable as error:
        return {"refused": error.message}
    return {"dropped": list(written.dropped), "body": orjson.loads(written.body)}


def answer(upstream: Spoken, caller: Spoken, said: Tree) -> Tree:
    """An upstream's answer for a caller."""
    tree: Tree = orjson.loads(translate.answer(upstream, caller, orjson.dumps(said), shown()))
    return tree


def stream(upstream: Spoken, caller: Spoken, said: list[Any]) -> list[Any]:
    """Likewise, event by event."""
    incoming, reader, writer = Events(), translate.reader(upstream), translate.writer(caller, shown())
    out = b""
    for name, data in incoming.feed(wire(said)):
        for event in reader.read(name, data):
            out += writer.write(event)
    for event in reader.end():
        out += writer.write(event)
    return unwired(out)


def error(upstream: Spoken, caller: Spoken, said: list[Any]) -> Tree:
    """Likewise, of an error: its status and its body."""
    status, body = said
    tree: Tree = orjson.loads(translate.fault(upstream, caller, status, orjson.dumps(body), "req_1"))
    return tree


def shown() -> Shown:
    """For whom an answer is written."""
    return Shown("req_1", "the-model", NOW, include_usage=True)


def wire(said: list[Any]) -> bytes:
    """Events (name, and data in JSON or as it is) in bytes."""
    lines = [
        (f"event: {name}\n" if name else "", data if isinstance(data, str) else orjson.dumps(data).decode())
        for name, data in said
    ]
    return "".join(f"{name}data: {data}\n\n" for name, data in lines).encode()


def unwired(data: bytes) -> list[Any]:
    """The same, back."""
    return [
        [name, text.decode() if text == b"[DONE]" else orjson.loads(text)]
        for name, text in events(data.splitlines(keepends=True))
    ]


MAKERS: dict[str, Callable[[Spoken, Spoken, Any], Any]] = {
    "requests": request,
    "answers": answer,
    "streams": stream,
    "errors": error,
}


def main() -> int:
    """Write what is made of each case into its file."""
    for kind in MAKERS:
        for file in cases(kind):
            said = orjson.loads(file.read_bytes())["said"]
            whole = {"said": said, "made": made(kind, said)}
            file.write_text(told(whole) + "\n", encoding="utf-8")
    return 0


def told(value: object, indent: int = 0) -> str:
    """JSON for people: a line for what fits into one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= LINE or not isinstance(value, dict | list) or not value:
        return line
    inner, close = " " * (indent + 2), "\n" + " " * indent
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + told(item, indent + 2) for item in value) + close + "]"
    members = (f"{inner}{json.dumps(name)}: {told(item, indent + 2)}" for name, item in value.items())
    return "{\n" + ",\n".join(members) + close + "}"


if __name__ == "__main__":
    sys.exit(main())
