"""The grammar of a stream of the Gemini API, for any test: ``check`` names the first frame that is against it."""

import json
from typing import Any

from tests.dialects.schema_gemini import conforms


def check(frames: Any) -> None:
    """``frames``: (event name, data) of a stream to a caller. A whole one ends in a finish, a broken one in an error.

    Raises AssertionError.
    """
    assert frames, "the stream is empty"
    named = set()
    for at, (name, data) in enumerate(frames):
        where = f"event {at}"
        assert name == "", f"{where} has an event line, which Google's SDKs take for data"
        assert b"\n" not in data, f"{where} has more than one line"
        tree = json.loads(data)
        last = at == len(frames) - 1
        if "error" in tree:
            assert list(tree) == ["error"], f"{where}: an error beside something else"
            assert data.startswith(b'{"error":'), f"{where}: the SDKs know an error by how it begins"
            assert last, f"{where}: something follows an error"
            conforms(tree, "ErrorBody", where)
            return
        conforms(tree, "Response", where)
        named.add((tree["modelVersion"], tree["responseId"]))
        assert len(named) == 1, f"{where}: another model or id"
        assert len(tree["candidates"]) == 1, f"{where}: several candidates"
        candidate = tree["candidates"][0]
        assert candidate["index"] == 0, f"{where}: index {candidate['index']}"
        assert candidate["content"]["role"] == "model", f"{where}: not the model's"
        assert ("finishReason" in candidate) == last, f"{where}: {'no finish' if last else 'a finish too early'}"
        assert last or "usageMetadata" not in tree, f"{where}: usage before the end"


def frames_of(written: Any) -> list[tuple[str, bytes]]:
    """The frames of the bytes that a Writer has written."""
    found = []
    for frame in written.split(b"\n\n")[:-1]:
        name, data = "", []
        for line in frame.split(b"\n"):
            field, _, value = line.partition(b": ")
            assert field in {b"event", b"data"}, f"a line that is neither event nor data: {line!r}"
            if field == b"event":
                name = value.decode()
            else:
                data.append(value)
        found.append((name, b"\n".join(data)))
    return found
