"""How an upstream fares, from its traffic: what ``GET /upstreams`` and readiness tell."""

from datetime import UTC, datetime

from agw_proxy._hot.circuit import Vitals
from agw_proxy.errors import CODES, UpstreamError

FAULTS = (None, *CODES)
"""By the number of a fault: 0 is none. All workers are of one program, so that they mean the same by it."""
NUMBERS = {code: number for number, code in enumerate(FAULTS) if code is not None}


class Health:
    """Counts and the last change of one upstream, as this process sees it. ``state``: unused, up or failing.

    ``vitals``: where all workers can read the last failure; None for what is asked in this process.
    """

    __slots__ = ("failures", "last_error", "requests", "since", "state", "vitals")

    def __init__(self) -> None:
        self.vitals: Vitals | None = None
        self.state = "unused"
        self.since: str | None = None
        self.last_error: str | None = None
        self.requests = 0
        self.failures = 0

    def worked(self) -> None:
        """A call was answered."""
        self.requests += 1
        self._turn("up")

    def failed(self, error: UpstreamError) -> None:
        """A call failed; a 4xx is an answer like any other and no failure of the upstream's."""
        if error.blameless or error.hurried:  # it was never asked, or not given its time
            return
        self.requests += 1
        if error.status < 500 and error.code == "upstream_rejected":
            self._turn("up")
            return
        self.failures += 1
        self.broke(error)
        self._turn("failing")

    def broke(self, error: UpstreamError) -> None:
        """The last failure is this one; of an answer that was counted as begun, nothing else changes."""
        self.last_error = error.code
        if self.vitals is not None:
            self.vitals.fault = NUMBERS[error.code]

    def _turn(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.since = datetime.now(UTC).isoformat(timespec="seconds")
