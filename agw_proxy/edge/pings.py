"""What a heartbeat is made of, by the caller's form. Both lanes send them: ``edge.heartbeat`` and the compiled one."""

from collections.abc import Mapping

from agw_proxy.config.values import Form

COMMENT = b": ping\n\n"
PINGS: Mapping[Form, bytes] = {
    "chat": COMMENT,
    "responses": COMMENT,
    "messages": b'event: ping\ndata: {"type": "ping"}\n\n',
}
"""Google's SDKs take nothing but ``data`` lines: they get none."""
