"""Settings of traces: where they are sent to, how many, and what they may tell."""

from urllib.parse import urlsplit

from pydantic import Field

from agw_proxy.config.resilience import Part
from agw_proxy.config.values import BaseURL, Headers, LongerThanZero, Name, Share

TRACES = "/v1/traces"
"""Where a collector takes traces (OTLP specification, section OTLP/HTTP request)."""


class Trace(Part):
    """Traces of requests, agents' runs and their tools, in OpenTelemetry's GenAI conventions."""

    endpoint: BaseURL | None = Field(
        None,
        description="A collector that takes OTLP over HTTP, e.g. `http://collector:4318`; without a path `/v1/traces` is "
        "added. null: nothing is sent.",
    )
    headers: Headers = Field(default_factory=dict, repr=False, description="Headers to send with it.")
    sample: Share = Field(
        1.0,
        description="The share of traces to record, 0 to 1, of requests without a `traceparent`; of the others those are "
        "recorded that it says are sampled.",
    )
    content: bool = Field(False, description="Whether spans tell messages, and what tools are given and give.")
    service: Name = Field("agw", description="The `service.name` that spans come from.")
    seconds: LongerThanZero = Field(10.0, description="How long the collector may take; then its spans are dropped.")

    @property
    def address(self) -> str:
        """Of the endpoint, with its path. Only where there is one."""
        endpoint = (self.endpoint or "").rstrip("/")
        return endpoint if urlsplit(endpoint).path else f"{endpoint}{TRACES}"
