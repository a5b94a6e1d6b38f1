"""A request that goes on in its own form, without the thoughts that the upstream's model has not made."""

import msgspec

from agw_proxy._hot.peek import PeekError, peek
from agw_proxy.policy.affinity import sealed
from agw_proxy.types import Call
from agw_proxy.upstreams.asking import translating_ready

LOST = "foreign_reasoning"
DEEPEST = 254  # levels: the cleaned body has been written by orjson, which goes no deeper


async def own_thoughts(call: Call, model: str) -> Call | None:
    """The call as the upstream's ``model`` takes it; None: as it is."""
    body = call.body
    if call.form is None or not isinstance(body, bytes) or not sealed(body):
        return None
    await translating_ready()
    from agw_proxy.dialects.foreign import without_foreign  # noqa: PLC0415  it brings a dialect

    front = body[: call.front]
    own = without_foreign(call.form, b"{" + body[call.front :] if front else body, model)
    if own is None:
        return None
    if front:
        return msgspec.structs.replace(call, body=front + own[1:])
    try:
        return msgspec.structs.replace(call, body=own, seen=peek(own, DEEPEST))
    except PeekError:  # what the look into it has taken once it takes again
        return None
