"""Stands in for the full lane's connection while aiohttp is being imported: only the requests that need it wait for that."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from agw_proxy._hot.lane import Downstream
from agw_proxy.upstreams.asking import import_aiohttp

if TYPE_CHECKING:
    from agw_proxy.edge.exchange import Carried
    from agw_proxy.edge.full_lane import Connection
    from agw_proxy.edge.shell import Shell


def import_full_lane() -> None:
    """Import it; any thread may."""
    import_aiohttp()
    from agw_proxy.edge import full_server  # noqa: F401, PLC0415  at the first request that needs it
    from agw_proxy.upstreams import client  # noqa: F401, PLC0415  most such requests ask an upstream


class Arriving:
    """Has a ``Connection``'s face towards the lane; keeps what comes, and repeats it to the real one in order."""

    def __init__(self, shell: "Shell", downstream: Downstream) -> None:
        self._carried: Carried | None = None
        self._shell = shell
        self._downstream = downstream
        self.lost = False
        self._came: list[Callable[[Connection], None]] = []

    def expect(self, carried: "Carried | None") -> None:
        """See ``Connection``."""
        self._carried = carried

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``; no more than one portion comes, as nothing is read meanwhile."""
        self._came.append(lambda connection: connection.data_received(data))
        self._downstream.hold_reading(True)

    def body_broken(self) -> None:
        """See ``Connection``."""
        self._came.append(lambda connection: connection.body_broken())

    def pause_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._came.append(lambda connection: connection.pause_writing())

    def resume_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._came.append(lambda connection: connection.resume_writing())

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002  the lane's call
        """See ``asyncio.BaseProtocol``; the account is closed here, and what the fast lane took given back."""
        self.lost = True
        self._shell.left(self._downstream, self._downstream.began, self._carried)

    def give_way(self, connection: "Connection") -> None:
        """The real one is here."""
        connection.expect(self._carried)
        self._downstream.handler = connection
        self._downstream.hold_reading(False)
        for happened in self._came:
            happened(connection)

    def give_up(self) -> None:
        """There will be none."""
        if not self.lost:
            self._downstream.abort()
