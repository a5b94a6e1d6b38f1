"""The exchanges in flight, of both lanes' making but the fast lane's own: each begins here once and ends here once."""

import asyncio
import contextlib
import functools
from collections.abc import Mapping

from agw_proxy._hot.lane import Downstream
from agw_proxy._hot.limit import Grant
from agw_proxy.edge import tracing
from agw_proxy.edge.exchange import Exchange, Within
from agw_proxy.edge.headers import request_id, trace_id
from agw_proxy.errors import Draining
from agw_proxy.observe.alerts import Alerts
from agw_proxy.observe.log import Log, now_text
from agw_proxy.observe.metrics import Metrics
from agw_proxy.spans import Tracer
from agw_proxy.types import Principal, Receipt

NO_HEADERS: Mapping[str, str] = {}


class Accounts:
    """Of one edge. ``draining``: it accepts nothing new."""

    def __init__(self, metrics: Metrics, log: Log, alerts: Alerts | None = None, tracer: Tracer | None = None) -> None:
        """``alerts``: who hears of budgets that come to their end. ``tracer``: None where nothing is traced."""
        self._alerts, self._tracer = alerts, tracer
        self.metrics = metrics
        self.log = log
        self.active: set[Exchange] = set()
        self.draining = False
        self._parked: set[Exchange] = set()
        self._idle: asyncio.Event | None = None

    async def idle(self, seconds: float) -> None:
        """Wait until nothing is in flight, for at most ``seconds``."""
        if not self.active:
            return
        self._idle = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def close(self) -> None:
        """Nothing is in flight any more: what was traced gets a moment to be sent."""
        if self._tracer is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._tracer.close)

    def begin(
        self, headers: Mapping[str, str], method: str, peer: str | None, within: Within | None = None
    ) -> Exchange:
        """Start the account of a request. ``headers``: found in any case. ``within``: where a run has made it."""
        exchange = Exchange(request_id(headers), method, peer)
        if within is not None:
            exchange.within, within.exchange = within, exchange
        exchange.trace_id = trace_id(headers)
        if self._tracer is not None:
            tracing.begin(self._tracer, exchange, headers)
        return self.enter(exchange)

    def begin_unparsed(self, downstream: Downstream, peer: str | None, started: int, reason: str) -> Exchange:
        """Start the account of what was no request, or not a whole one. ``reason``: why, in a word.

        All the time until now was spent waiting for the client.
        """
        sent, user, channel, trace = downstream.told
        exchange = Exchange(sent or request_id(NO_HEADERS), "POST" if downstream.endpoint else "-", peer)
        exchange.user, exchange.channel, exchange.trace_id, exchange.dialect = user, channel, trace, downstream.dialect
        exchange.waited = exchange.started - started
        exchange.started, exchange.endpoint, exchange.lane_reason = started, downstream.endpoint or "invalid", reason
        exchange.principal = downstream.principal
        return self.enter(exchange)

    def enter(self, exchange: Exchange) -> Exchange:
        """It is in flight from now on."""
        self.active.add(exchange)
        self.metrics.requests(1)
        return exchange

    def park(self, exchange: Exchange) -> None:
        """It only waits for its client's next words: a drain ends it at once, not after ``drain_seconds``."""
        if self.draining:
            exchange.end(Draining("This gateway is shutting down."))
        else:
            self._parked.add(exchange)

    def leave(self, exchange: Exchange) -> None:
        """It is at work, or over."""
        self._parked.discard(exchange)

    def end_parked(self) -> None:
        """The drain begins."""
        for exchange in list(self._parked):
            exchange.end(Draining("This gateway is shutting down."))

    def defect(self, exchange: Exchange, defect: Exception) -> None:
        """Tell the log of one of ours."""
        self.log.events.error("gateway.defect", request_id=exchange.request_id, error=repr(defect), where=where(defect))

    def finish(self, exchange: Exchange) -> None:
        """Settle, release, account: the first time only."""
        try:
            exchange.account(functools.partial(self._emit, exchange), now_text)
            if exchange.grant is not None and exchange.principal is not None and exchange.grant.crossed:
                self.alert(exchange.grant, exchange.principal, exchange.user)
        finally:
            exchange.release()
            exchange.forget_frames()
            if exchange in self.active:
                self.active.discard(exchange)
                self.metrics.requests(-1)
            if self._idle is not None and not self.active:
                self._idle.set()

    def alert(self, grant: Grant, principal: Principal, user: str | None) -> None:
        """An exchange has made counts reach marks of their rules."""
        if self._alerts is not None:
            self._alerts.crossed(grant, principal, user)

    def _emit(self, exchange: Exchange, receipt: Receipt) -> None:
        self.metrics.account(receipt, exchange.charged()[:2])
        self.log.receipt(receipt)
        tracing.end(exchange, receipt)


def where(defect: BaseException) -> str:
    """The innermost place of ours in a traceback, without values."""
    found = "unknown"
    trace = defect.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next
    return found
