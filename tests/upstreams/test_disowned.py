"""Requests that are relayed lose the thoughts of other models, and what is read of them fits their new bytes."""

import msgspec
import orjson

from agw_proxy._hot.peek import peek
from agw_proxy.edge.gemini import shaped
from agw_proxy.types import Call
from agw_proxy.upstreams.disowned import own_thoughts

THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "agw:chat:x"}
SAID = {"type": "text", "text": "Hello"}


def asked(**members: object) -> Call:
    body = orjson.dumps({"model": "claude-1", **members})
    return msgspec.structs.replace(CALL, body=body, seen=peek(body))


CALL = Call("POST", "/messages", "", [], b"", None, "req_1", form="messages")


async def test_what_is_read_of_the_body_is_read_anew() -> None:
    history = [{"role": "assistant", "content": [THOUGHT, SAID]}]
    own = await own_thoughts(asked(messages=history, stream=True), "claude-1")
    assert own is not None
    assert isinstance(own.body, bytes)
    assert orjson.loads(own.body)["messages"] == [{"role": "assistant", "content": [SAID]}]
    assert own.seen is not None
    assert (own.seen.model, own.seen.stream) == ("claude-1", True)
    assert own.seen.model_end <= len(own.body)


async def test_others_stay_the_very_same() -> None:
    assert await own_thoughts(asked(messages=[{"role": "user", "content": "q"}]), "claude-1") is None
    assert await own_thoughts(asked(messages="agw:"), "claude-1") is None
    streamed = msgspec.structs.replace(CALL, form=None, body=b'{"x":"agw:"}')
    assert await own_thoughts(streamed, "claude-1") is None


async def test_the_front_of_a_body_in_googles_form_stays() -> None:
    part = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "YWd3OmNoYXQ6eA=="}
    body = orjson.dumps({"contents": [{"role": "model", "parts": [part]}]})
    made = shaped("/v1beta/models/gemini-2.5-pro:generateContent", "", body)
    call = msgspec.structs.replace(CALL, form="gemini", body=made.body, front=made.front, seen=peek(made.body))
    own = await own_thoughts(call, "gemini-2.5-pro")
    assert own is not None
    assert isinstance(own.body, bytes)
    assert own.body[: own.front] == made.body[: made.front]
    assert orjson.loads(own.body)["contents"] == [
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}
    ]
