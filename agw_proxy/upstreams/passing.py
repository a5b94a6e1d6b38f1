"""A Reply that passes another one on: what those who look at answers on their way have in common."""

from agw_proxy.types import RawHeaders, Reply


class PassedOn:
    """All as the inner one has it; ``read`` and ``close`` are what the heirs add to."""

    def __init__(self, reply: Reply) -> None:
        """``reply``: the inner one, closed with this one."""
        self._reply = reply

    @property
    def status(self) -> int:
        """See ``types.Reply``."""
        return self._reply.status

    @property
    def headers(self) -> RawHeaders:
        """See ``types.Reply``."""
        return self._reply.headers

    @property
    def connect_ms(self) -> float:
        """See ``types.Reply``."""
        return self._reply.connect_ms

    @property
    def ended(self) -> bool:
        """See ``types.Reply``."""
        return self._reply.ended

    @property
    def began_ns(self) -> int:
        """See ``types.Reply``."""
        return self._reply.began_ns

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        return await self._reply.read(progress=progress)

    def close(self) -> None:
        """See ``types.Reply``."""
        self._reply.close()
