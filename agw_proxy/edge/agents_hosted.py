"""The agents of a worker that runs them for others: they come in by its inbox, one connection a run, or with their clients.

By the inbox come the connections that a relaying worker lends, too (``visits``): what they ask for is this worker's in all
respects. Who else comes in is one of the gateway's own workers (``inboxes``): it has authenticated the caller, asked the
limits, and writes the Receipt. What a run asks models for is served here, on the account of the key that is named.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from agw_proxy._hot.peek import Peek
from agw_proxy._hot.route import RouteTable, Target
from agw_proxy.config.settings import Settings
from agw_proxy.edge.accounts import where
from agw_proxy.edge.agents import Agents, Make
from agw_proxy.edge.asking import SESSION
from agw_proxy.edge.server import Edge
from agw_proxy.edge.visits import Visits
from agw_proxy.edge.worker_link import WorkerLink
from agw_proxy.errors import CallerError, GatewayError, InternalError, ModelNotFound, UpstreamUnreachable
from agw_proxy.observe.log import Log
from agw_proxy.policy.keys import Keys
from agw_proxy.spans import Tracer, enter
from agw_proxy.tools.registry import Registry
from agw_proxy.types import Call, Caller, Reply, Stored
from agw_proxy.upstreams.agent_frames import (
    DATA,
    ERROR,
    HEAD,
    LAST,
    SENT,
    Frames,
    Known,
    Look,
    Sent,
    Wanted,
    first_of,
    frame,
    head_of,
    packed,
    raised,
)
from agw_proxy.upstreams.agents_apart import RETRY_AFTER_MS


class HostedAgents(Agents):
    """As ``Agents``, and runs them for other workers, from ``start`` on."""

    def __init__(
        self,
        link: WorkerLink,
        log: Log,
        make: Make,
        keys: Callable[[], Keys],
        registry: Callable[[], Registry],
        tracer: Tracer | None = None,
        on_change: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``keys``: those in force; ``registry``: makes that of the agents' tools; ``tracer``: None where nothing is traced."""
        super().__init__(lambda: log.events, make, registry, on_change)
        self._link, self._log, self._keys, self._tracer = link, log, keys, tracer
        self._runs: set[asyncio.Task[None]] = set()
        self._visits: Visits | None = None
        self._early: list[socket.socket] = []

    async def start(self, settings: Settings) -> bool:
        """See ``Agents``."""
        found = await super().start(settings)
        if (inboxes := self._link.inboxes) is not None:
            place = self._link.worker - self._link.first_apart
            inboxes.only_take()
            asyncio.get_running_loop().add_reader(inboxes.fileno(place), self._take, place)
        return found

    def attend(self, edge: Edge) -> None:
        """See ``Agents``: it has no clients of its own, but those that others lend."""
        self._visits = Visits(edge)
        for sock in self._early:
            self._visits.welcome(sock)
        self._early.clear()

    async def close(self) -> None:
        """See ``Agents``; the runs end, whoever waits for them."""
        for sock in self._early:
            sock.close()
        if self._visits is not None:
            self._visits.close()
        if (inboxes := self._link.inboxes) is not None:
            asyncio.get_running_loop().remove_reader(inboxes.fileno(self._link.worker - self._link.first_apart))
        for task in self._runs:
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)
        await super().close()

    def _take(self, place: int) -> None:
        """Serve whoever has come."""
        inboxes = self._link.inboxes
        loop = asyncio.get_running_loop()
        if inboxes is None:
            return
        try:
            while (sock := inboxes.take(place)) is not None:
                if sock.type == socket.SOCK_SEQPACKET:
                    self._welcome(sock)
                    continue
                task = loop.create_task(self._serve(sock))
                self._runs.add(task)
                task.add_done_callback(self._runs.discard)
        except EOFError:
            loop.remove_reader(inboxes.fileno(place))
            self._link.leave()
        except OSError:  # whoever it was sees the connection closed
            return

    def _welcome(self, sock: socket.socket) -> None:
        """Somebody lends connections from now on."""
        if self._visits is not None:
            self._visits.welcome(sock)
        else:
            self._early.append(sock)

    async def _serve(self, sock: socket.socket) -> None:
        """One connection: what is wanted first, then whatever comes first, its end or that nobody waits any more."""
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            _, data = await Frames(reader).next()
            wanted = first_of(data)
            if isinstance(wanted, Look):
                writer.write(frame(LAST, packed(self._known())))
                await writer.drain()
                return
            loop = asyncio.get_running_loop()
            run = loop.create_task(self._run(wanted, writer))
            gone = loop.create_task(reader.read(1))
            try:
                await asyncio.wait({run, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
                run.cancel()
                await asyncio.gather(run, gone, return_exceptions=True)
        except (EOFError, ConnectionError):
            return
        finally:
            writer.close()

    def _known(self) -> Known:
        upstream = self.upstream
        if upstream is None:
            return Known((), 0.0, tuple(self.states()))
        return Known(tuple(upstream.ids), upstream.longest_seconds, tuple(self.states()))

    async def _run(self, wanted: Wanted, writer: asyncio.StreamWriter) -> None:
        """One run, and its answer, to the last frame."""
        try:
            try:
                await self._answer(wanted, writer)
            except GatewayError as error:
                writer.write(frame(ERROR, packed(raised(error))))
            except ConnectionError:
                return
            except Exception as defect:  # noqa: BLE001  whoever waits is told, and the log
                self._log.events.error(
                    "gateway.defect", request_id=wanted.request_id, error=repr(defect), where=where(defect)
                )
                words = "The gateway failed; its log has the details under this request id."
                writer.write(frame(ERROR, packed(raised(InternalError(words)))))
            await writer.drain()
        except ConnectionError:
            return

    async def _answer(self, wanted: Wanted, writer: asyncio.StreamWriter) -> None:
        if self.upstream is None:
            raise ModelNotFound(f"There is no agent '{wanted.agent}' any more.")
        call = self._call(wanted)
        waited = 0
        told = False

        def on_wait(nanoseconds: int) -> None:
            nonlocal waited
            waited += nanoseconds

        def on_sent() -> None:
            nonlocal told
            if not told:
                told = True
                writer.write(frame(SENT, packed(Sent(waited))))

        call.on_wait, call.on_sent = on_wait, on_sent
        SESSION.set(wanted.counted)
        if self._tracer is not None and (span := self._tracer.within(wanted.traceparent)) is not None:
            enter(span)
        reply: Reply = await self.upstream.open(target_of(wanted.agent), call)
        try:
            head = head_of(reply.status, reply.headers, getattr(reply, "dropped", ()))
            writer.write(frame(HEAD, packed(head)))
            last = False
            while not last:
                data = await reply.read()
                last = reply.ended
                writer.write(frame(LAST if last else DATA, data))
                await writer.drain()
        finally:
            reply.close()

    def _call(self, wanted: Wanted) -> Call:
        """The call as the relaying worker had it. Raises UpstreamUnreachable where its key is unknown here: during a reload."""
        try:
            principal = self._keys().named(wanted.key) if wanted.key is not None else None
        except CallerError:
            raise UpstreamUnreachable(
                "The worker that runs this agent has another configuration at the moment. Try again.",
                retry_after_ms=RETRY_AFTER_MS,
            ) from None
        stored = None
        if wanted.stored is not None:
            identity, told, rebuilt, thread = wanted.stored
            stored = Stored(identity, told, _as_it_is if rebuilt else None, thread)
        return Call(
            wanted.method,
            wanted.path,
            "",
            [],
            wanted.body,
            None,
            wanted.request_id,
            caller=Caller(principal, wanted.session, wanted.trace, wanted.user, wanted.channel),
            stored=stored,
        )


def _as_it_is() -> tuple[bytes, Peek]:
    raise RuntimeError("an agent takes a request as the gateway has rebuilt it")


def target_of(agent: str) -> Target:
    """What leads to that agent."""
    route = RouteTable([("agents", ())], []).find(f"agents/{agent}")
    if route is None:
        raise ModelNotFound(f"There is no agent '{agent}' any more.")
    return route.targets[0]
