"""How an upstream fares, from its traffic: what ``GET /upstreams`` and readiness tell."""

from datetime import UTC, datetime

from agw_proxy.errors import UpstreamError


class Health:
    """Counts and the last change of one upstream. ``state``: unused, up or failing."""

    __slots__ = ("failures", "last_error", "requests", "since", "state")

    def __init__(self) -> None:
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
        self.last_error = error.code
        self._turn("failing")

    def _turn(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.since = datetime.now(UTC).isoformat(timespec="seconds")
