"""Every metric in one table, what a Receipt adds to them, and how they are shown (Prometheus text, JSON).

Durations are recorded as whole microseconds and shown as seconds. Label values are bounded: model names are those that
are configured or that an upstream lists; every other counts under the pattern that it matched.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from agw_proxy._hot.meter import COUNTER, GAUGE, HISTOGRAM, TALLY, Family, Meter, Sample
from agw_proxy.types import Receipt

if TYPE_CHECKING:
    from prometheus_client import Metric

MAX_KNOWN_NAMES = 4096  # model names that may become label values of their own
REQUEST = ("endpoint", "model", "upstream", "status", "lane")
GEN_AI = ("gen_ai_operation_name", "gen_ai_request_model")
USED = ("requests", "errors", "input", "cached", "output", "cost", "unpriced")
"""What is counted by key, model and upstream: requests (and of those failed ones and ones without a price), tokens, micro-dollars."""
USAGE = "agw_usage"
COST = "agw_cost_usd_total"
COST_HELP = "US dollars by key and model, as the price tables have it."
MAX_KEY_BYTES = 63  # of a label; a longer name of a key is cut, and told apart by its hash
OPERATIONS = {
    "chat_completions": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "messages": "chat",
    "responses": "chat",
}
"""Of the GenAI conventions (``gen_ai.operation.name``), by endpoint."""


def _us(*seconds: float) -> tuple[int, ...]:
    return tuple(round(bound * 1_000_000) for bound in seconds)


LATENCY = _us(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
OWN = _us(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
GAPS = _us(0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 10)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)

# (family, help): the name without unit suffix tricks, as it is scraped
TABLE: tuple[tuple[Family, str], ...] = (
    (Family("agw_requests_total", COUNTER, REQUEST, (), 1024), "Exchanges by endpoint, model, upstream, status and lane."),
    (Family("agw_request_seconds", HISTOGRAM, REQUEST, LATENCY, 1024), "Duration of exchanges, from the head's last byte to the answer's."),
    (Family("agw_overhead_seconds", HISTOGRAM, ("lane",), OWN, 8), "The gateway's own share of an exchange's time until its first byte out."),
    (Family("agw_time_to_first_token_seconds", HISTOGRAM, ("model",), LATENCY), "Time to the first content event of a stream."),
    (Family("agw_inter_token_seconds", HISTOGRAM, ("model",), GAPS), "Mean gap between the content events of a stream."),
    (Family("agw_tokens_total", COUNTER, ("model", "direction"), (), 512), "Tokens as reported by upstreams."),
    (Family("agw_rate_limited_total", COUNTER, ("rule",)), "Requests refused by a limit."),
    (Family("agw_upstream_requests_total", COUNTER, ("upstream", "target", "outcome"), (), 1024), "Tries at targets, by outcome."),
    (Family("agw_retries_total", COUNTER, ("upstream", "outcome")), "Tries after the first of an exchange."),
    (Family("agw_hedges_total", COUNTER, ("outcome",), (), 8), "Second attempts for late answers: won, lost, failed, or denied by the budget."),
    (Family("agw_active_requests", GAUGE), "Exchanges in flight."),
    (Family("agw_active_streams", GAUGE), "Streams in flight."),
    (Family("agw_connections", GAUGE), "Open client connections."),
    (Family("agw_dropped_total", COUNTER, ("what",), (), 16), "What a full queue or a bound made the gateway drop."),
    (Family("agw_queue_depth", GAUGE, ("upstream",)), "Requests that wait for a place at an upstream (max_concurrent)."),
    (Family("agw_queue_seconds", HISTOGRAM, ("upstream",), LATENCY), "How long those waited that got a place."),
    (Family("agw_queue_refused_total", COUNTER, ("upstream", "why")), "Those that got none: the queue was full, or the wait too long (late)."),
    (Family("agw_adaptive_limit", GAUGE, ("upstream",)), "Places at an upstream of all workers, where they follow what it can do (adaptive)."),
    (Family("agw_shedding", GAUGE, ("cause",), (), 4), "Workers that refuse new requests, and why: lag, memory."),
    (Family("agw_shed_total", COUNTER, ("cause",), (), 5), "Requests refused because a worker had more than it can do: requests, lag, memory."),
    (Family("agw_loop_lag_seconds", HISTOGRAM, (), OWN), "How late a worker's loop was, looked at now and then."),
    (Family("agw_memory_bytes", GAUGE), "Resident memory of all workers."),
    (Family("agw_descriptors", GAUGE), "Open file descriptors of all workers."),
    (Family("agw_descriptors_limit", GAUGE), "How many they may have open."),
    (Family("agw_upstream_out", GAUGE, ("upstream",)), "1 while its probes have taken an upstream out."),
    (Family("agw_probes_total", COUNTER, ("upstream", "outcome")), "Probes of upstreams: good or bad."),
    (Family("agw_redis_up", GAUGE), "Workers that ask Redis; the others let the policies of its failure decide."),
    (Family("agw_nodes", GAUGE), "Gateways that share limits through Redis, as this one knows."),
    (Family("agw_redis_seconds", HISTOGRAM, (), OWN), "How long Redis took to answer."),
    (Family("agw_redis_failures_total", COUNTER, ("why",), (), 8), "Questions without an answer: late, unreachable, refused; or not asked (away)."),
    (Family("agw_cache_total", COUNTER, ("outcome",), (), 12), "Requests by what the cache did (hit, joined, miss ...), and answers stored, evicted, dropped."),
    (Family("agw_cache_bytes", GAUGE), "Bytes of answers kept in memory by all workers."),
    (Family("agw_leases_total", COUNTER, ("outcome",), (), 8), "Parts of shared limits: taken, refused, returned; no answer (away), no room here (no_place)."),
    (Family("agw_tool_seconds", HISTOGRAM, ("tool", "outcome"), LATENCY, 512), "Calls of the gateway's tools, by what became of them."),
    (Family("agw_agent_blocked_seconds_total", COUNTER, ("agent",), (), 256), "How long agents' code kept a loop from turning, 0.2 s and more at once."),
    (Family("agw_lane_total", COUNTER, ("lane", "reason"), (), 128), "Exchanges by lane, and why that lane."),
    (Family("agw_tracked_seconds", HISTOGRAM, ("name", "outcome"), LATENCY), "What agents' authors track (track): ok, failed, cancelled."),
    (Family("agw_helpers_total", COUNTER, ("helper", "name", "outcome")), "What authors' helpers (retry, timeout, rate_limit) had to do."),
    (Family(USAGE, TALLY, ("key", "model", "upstream"), (), 4096), "What keys have used; shown by GET /usage."),
    (Family("agw_build_info", GAUGE, ("version",), (), 4), "Always 1; the version is a label."),
    (Family("gen_ai_client_operation_duration_seconds", HISTOGRAM, GEN_AI, LATENCY), "GenAI semantic conventions: duration of operations."),
    (Family("gen_ai_client_token_usage", HISTOGRAM, (*GEN_AI, "gen_ai_token_type"), TOKENS, 512), "GenAI semantic conventions: tokens of operations."),
)  # fmt: skip
FAMILIES = tuple(family for family, _ in TABLE)
HELP = {family.name: text for family, text in TABLE}
IN_SECONDS = frozenset(family.name for family in FAMILIES if family.name.endswith(("_seconds", "_seconds_total")))


class Metrics:
    """The meter of this process with the names it knows."""

    def __init__(self, meter: Meter, version: str) -> None:
        """``version``: for ``agw_build_info``."""
        self.meter = meter
        self.known: frozenset[str] = frozenset()
        self._streams = meter.series("agw_active_streams")
        self._requests = meter.series("agw_active_requests")
        self._connections = meter.series("agw_connections")
        self._late = meter.series("agw_loop_lag_seconds")
        self._redis = meter.series("agw_redis_seconds")
        self._process = [meter.series(f"agw_{name}") for name in ("memory_bytes", "descriptors", "descriptors_limit")]
        self._process_then = [0, 0, 0]
        self._adapted: dict[str, int] = {}
        meter.add(meter.series("agw_build_info", (version,)), int(meter.worker == 0))  # workers are summed

    def know(self, names: Iterable[str]) -> None:
        """Models and targets (``upstream/model``) that may be label values: the first MAX_KNOWN_NAMES of them."""
        self.known = frozenset(islice(names, MAX_KNOWN_NAMES))

    def requests(self, step: int) -> None:
        """An exchange begins (1) or ends (-1)."""
        self.meter.add(self._requests, step)

    def streams(self, step: int) -> None:
        """A stream begins (1) or ends (-1)."""
        self.meter.add(self._streams, step)

    def connections(self, step: int) -> None:
        """A client connects (1) or goes (-1)."""
        self.meter.add(self._connections, step)

    def dropped(self, what: str, count: int = 1) -> None:
        """Something was dropped; ``what`` is from a closed set."""
        self.meter.add(self.meter.series("agw_dropped_total", (what,)), count)

    def hedged(self, outcome: str) -> None:
        """A second attempt has ended, or was not made; ``outcome`` is from a closed set."""
        self.meter.add(self.meter.series("agw_hedges_total", (outcome,)), 1)

    def queued(self, upstream: str, step: int) -> None:
        """A request begins (1) or ends (-1) to wait for a place at an upstream."""
        self.meter.add(self.meter.series("agw_queue_depth", (upstream,)), step)

    def waited(self, upstream: str, nanoseconds: int) -> None:
        """It got one, after so long."""
        self.meter.observe(self.meter.series("agw_queue_seconds", (upstream,)), nanoseconds // 1000)

    def turned_away(self, upstream: str, why: str) -> None:
        """It got none: the queue was ``full``, or the wait too long (``late``)."""
        self.meter.add(self.meter.series("agw_queue_refused_total", (upstream, why)), 1)

    def adapted(self, upstream: str, places: int) -> None:
        """An upstream has so many places now, in this worker; 0 where they do not follow any more."""
        step = places - self._adapted.get(upstream, 0)
        if step:
            self._adapted[upstream] = places
            self.meter.add(self.meter.series("agw_adaptive_limit", (upstream,)), step)

    def adapting(self, upstreams: Collection[str]) -> None:
        """Only these have places that follow what they can do."""
        for upstream in [name for name in self._adapted if name not in upstreams]:
            self.adapted(upstream, 0)

    def cached(self, outcome: str, count: int = 1) -> None:
        """What became of a request at the cache, or of an answer there; ``outcome`` is from a closed set."""
        self.meter.add(self.meter.series("agw_cache_total", (outcome,)), count)

    def cache_bytes(self, step: int) -> None:
        """So many bytes more are kept in memory, or less."""
        self.meter.add(self.meter.series("agw_cache_bytes"), step)

    def shed(self, cause: str) -> None:
        """A request was refused, since there is too much to do; ``cause`` is from a closed set."""
        self.meter.add(self.meter.series("agw_shed_total", (cause,)), 1)

    def shedding(self, cause: str | None, step: int) -> None:
        """All requests begin (1) or cease (-1) to be refused for this cause; None: for none."""
        if cause is not None:
            self.meter.add(self.meter.series("agw_shedding", (cause,)), step)

    def loop_late(self, nanoseconds: int) -> None:
        """The loop came to a call so much later than it should have."""
        self.meter.observe(self._late, nanoseconds // 1000)

    def process(self, memory: int, descriptors: int, limit: int) -> None:
        """What this process uses now: bytes of memory, open descriptors (-1: not known), how many of these it may."""
        for place, now in enumerate((memory, descriptors, limit)):
            known = max(now, 0)
            if known != self._process_then[place]:
                self.meter.add(self._process[place], known - self._process_then[place])
                self._process_then[place] = known

    def probed(self, upstream: str, *, good: bool) -> None:
        """An upstream was asked whether it is well."""
        self.meter.add(self.meter.series("agw_probes_total", (upstream, "good" if good else "bad")), 1)

    def taken_out(self, upstream: str, step: int) -> None:
        """An upstream is taken out (1) or brought back (-1)."""
        self.meter.add(self.meter.series("agw_upstream_out", (upstream,)), step)

    def agent_blocked(self, agent: str, seconds: float) -> None:
        """A step of an agent's code has kept the loop from turning for so long."""
        self.meter.add(self.meter.series("agw_agent_blocked_seconds_total", (agent,)), round(seconds * 1_000_000))

    def redis_up(self, step: int) -> None:
        """A worker can ask Redis (1), or no more (-1)."""
        self.meter.add(self.meter.series("agw_redis_up"), step)

    def redis_answered(self, nanoseconds: int) -> None:
        """It answered, after so long."""
        self.meter.observe(self._redis, nanoseconds // 1000)

    def redis_failed(self, why: str) -> None:
        """It did not; ``why`` is from a closed set."""
        self.meter.add(self.meter.series("agw_redis_failures_total", (why,)), 1)

    def nodes(self, step: int) -> None:
        """So many more gateways (or fewer) share limits."""
        self.meter.add(self.meter.series("agw_nodes"), step)

    def leased(self, outcome: str, count: int = 1) -> None:
        """Parts of limits were asked for, or given back; ``outcome`` is from a closed set."""
        self.meter.add(self.meter.series("agw_leases_total", (outcome,)), count)

    def tool_called(self, tool: str, outcome: str, nanoseconds: int) -> None:
        """A tool was called, for so long; ``tool`` is a configured one or ``other``, ``outcome`` from a closed set."""
        self.meter.observe(self.meter.series("agw_tool_seconds", (tool, outcome)), nanoseconds // 1000)

    def helped(self, helper: str, name: str, outcome: str) -> None:
        """A helper of an author's had to do something; ``helper`` and ``outcome`` are from closed sets."""
        self.meter.add(self.meter.series("agw_helpers_total", (helper, name, outcome)), 1)

    def tracked(self, name: str, outcome: str, nanoseconds: int) -> None:
        """What an author tracks took so long; ``outcome`` is from a closed set."""
        self.meter.observe(self.meter.series("agw_tracked_seconds", (name, outcome)), nanoseconds // 1000)

    def book(self, key: str, model: str, upstream: str) -> int:
        """The handle of what a key has used of a model (as it is labelled) at an upstream."""
        return self.meter.series(USAGE, (key_label(key), model, upstream))

    def account(self, receipt: Receipt, charged: tuple[int, int] | None = None) -> None:
        """Add one exchange. ``charged``: tokens of prompt and answer that it pays for; None: those that were told."""
        meter = self.meter
        model = receipt.model if receipt.model in self.known else receipt.model_label
        if receipt.key is not None and receipt.model_label != "none":
            failed = receipt.outcome != "ok"
            unpriced = receipt.cost < 0 and not failed
            read, written = charged or (receipt.prompt_tokens, receipt.completion_tokens)
            book = self.book(receipt.key, model, receipt.upstream)
            meter.tally(
                book, 1, int(failed), read, receipt.cached_tokens if read else 0, written, receipt.cost, int(unpriced)
            )
        labels = (receipt.endpoint, model, receipt.upstream, str(receipt.status), receipt.lane)
        microseconds = round(receipt.duration_ms * 1000)
        meter.add(meter.series("agw_requests_total", labels), 1)
        meter.observe(meter.series("agw_request_seconds", labels), microseconds)
        meter.observe(meter.series("agw_overhead_seconds", (receipt.lane,)), receipt.overhead_us)
        meter.add(meter.series("agw_lane_total", (receipt.lane, receipt.lane_reason or "taken")), 1)
        if receipt.cache is not None:
            self.cached(receipt.cache)
        if receipt.rule is not None:
            meter.add(meter.series("agw_rate_limited_total", (receipt.rule,)), 1)
        if receipt.ttft_ms is not None:
            meter.observe(meter.series("agw_time_to_first_token_seconds", (model,)), round(receipt.ttft_ms * 1000))
        if receipt.inter_token_ms is not None:
            meter.observe(meter.series("agw_inter_token_seconds", (model,)), round(receipt.inter_token_ms * 1000))
        operation = OPERATIONS.get(receipt.endpoint)
        if operation is not None and receipt.attempts:
            meter.observe(meter.series("gen_ai_client_operation_duration_seconds", (operation, model)), microseconds)
        for direction, kind, count in (
            ("input", "input", receipt.prompt_tokens),
            ("output", "output", receipt.completion_tokens),
        ):
            if count >= 0:
                meter.add(meter.series("agw_tokens_total", (model, direction)), count)
                if operation is not None:
                    meter.observe(meter.series("gen_ai_client_token_usage", (operation, model, kind)), count)
        for number, attempt in enumerate(receipt.trail):
            target = attempt.target if attempt.target in self.known else f"{attempt.upstream}/*"
            outcome = attempt.outcome
            meter.add(meter.series("agw_upstream_requests_total", (attempt.upstream, target, outcome)), 1)
            if number:
                meter.add(meter.series("agw_retries_total", (attempt.upstream, outcome)), 1)

    def text(self) -> bytes:
        """Prometheus text format 0.0.4."""
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415  5 MB that a sidecar without scrapes never needs
        from prometheus_client.registry import Collector  # noqa: PLC0415

        samples = self.meter.collect()

        class FromMeter(Collector):
            def collect(self) -> Iterator["Metric"]:
                yield from _families(samples)

        registry = CollectorRegistry(auto_describe=False)
        registry.register(FromMeter())
        return generate_latest(registry)

    def tree(self) -> Mapping[str, object]:
        """The same as a JSON tree: name -> list of {labels, value} or {labels, count, sum, buckets}."""
        result: dict[str, list[dict[str, object]]] = {}
        for sample in self.meter.collect():
            family = sample.family
            if _empty(sample) or family.kind == TALLY:
                continue
            scale = 1_000_000 if family.name in IN_SECONDS else 1
            entry: dict[str, object] = {"labels": dict(zip(family.labels, sample.labels, strict=True))}
            if family.kind == HISTOGRAM:
                bounds = [bound / scale for bound in family.bounds]
                entry |= {
                    "count": sample.value,
                    "sum": sample.total / scale,
                    "bounds": bounds,
                    "buckets": list(sample.buckets),
                }
            else:
                entry["value"] = sample.value / scale if scale > 1 else sample.value
            result.setdefault(family.name, []).append(entry)
        costs = _costs(self.meter.collect(USAGE))
        if costs:
            result[COST] = [
                {"labels": dict(zip(("model", "key"), who, strict=True)), "value": usd} for who, usd in costs.items()
            ]
        return result


def key_label(name: str) -> str:
    """The name of a key as usage has it: whole, or where it is longer than labels are, cut and with a hash behind it."""
    encoded = name.encode()
    if len(encoded) <= MAX_KEY_BYTES:
        return name
    mark = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: MAX_KEY_BYTES - 9].decode(errors='ignore')}~{mark}"


def _costs(samples: list[Sample]) -> dict[tuple[str, str], float]:
    """US dollars by model and key."""
    micro: dict[tuple[str, str], int] = {}
    for sample in samples:
        key, model, _ = sample.labels
        if sample.buckets[USED.index("cost")]:
            micro[model, key] = micro.get((model, key), 0) + sample.buckets[USED.index("cost")]
    return {who: amount / 1_000_000 for who, amount in micro.items()}


def _empty(sample: Sample) -> bool:
    """The ``other`` series of a family that nothing fell into is not shown."""
    return bool(sample.family.labels) and not sample.value and all(label == "other" for label in sample.labels)


def _families(samples: list[Sample]) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily  # noqa: PLC0415  as above

    by_name: dict[str, list[Sample]] = {family.name: [] for family in FAMILIES}
    for sample in samples:
        if not _empty(sample):
            by_name[sample.family.name].append(sample)
    for family in FAMILIES:
        name, labels = family.name, list(family.labels)
        if family.kind == TALLY:
            money = CounterMetricFamily(COST, COST_HELP, labels=["model", "key"])
            for who, usd in _costs(by_name[name]).items():
                money.add_metric(list(who), usd)
            yield money
            continue
        scale = 1_000_000 if name in IN_SECONDS else 1
        if family.kind == HISTOGRAM:
            histogram = HistogramMetricFamily(name, HELP[name], labels=labels)
            for sample in by_name[name]:
                count, buckets = 0, []
                for bound, number in zip((*family.bounds, None), sample.buckets, strict=True):
                    count += number
                    buckets.append(("+Inf" if bound is None else repr(float(bound / scale)), count))
                histogram.add_metric(list(sample.labels), buckets, sample.total / scale)
            yield histogram
            continue
        kind = CounterMetricFamily if family.kind == COUNTER else GaugeMetricFamily
        plain = kind(name, HELP[name], labels=labels)
        for sample in by_name[name]:
            plain.add_metric(list(sample.labels), sample.value / scale)
        yield plain
