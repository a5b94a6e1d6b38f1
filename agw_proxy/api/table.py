"""All endpoints, in the order in which the documentation shows them."""

from collections.abc import Sequence

from agw_proxy.api import (
    chat,
    docs,
    embeddings,
    explain,
    gemini,
    health,
    messages,
    models,
    openapi,
    passthrough,
    raw,
    realtime,
    responses,
    runs,
    sessions,
    usage,
)
from agw_proxy.api.admin import agents, egress, metrics, security, upstreams
from agw_proxy.api.endpoint import Endpoint
from agw_proxy.config.settings import Settings

ENDPOINTS: tuple[Endpoint, ...] = (
    *chat.ENDPOINTS,
    *embeddings.ENDPOINTS,
    *responses.ENDPOINTS,
    *messages.ENDPOINTS,
    *gemini.ENDPOINTS,
    *runs.ENDPOINTS,
    *realtime.ENDPOINTS,
    *models.ENDPOINTS,
    *passthrough.ENDPOINTS,
    *raw.ENDPOINTS,
    *sessions.ENDPOINTS,
    *health.ENDPOINTS,
    *openapi.ENDPOINTS,
    *docs.ENDPOINTS,
    *usage.ENDPOINTS,
    *explain.ENDPOINTS,
    *metrics.ENDPOINTS,
    *upstreams.ENDPOINTS,
    *egress.ENDPOINTS,
    *agents.ENDPOINTS,
    *security.ENDPOINTS,
)


def parted(settings: Settings) -> tuple[Sequence[Endpoint], Sequence[Endpoint], Sequence[Endpoint] | None]:
    """All endpoints that are served, those of the port, and those of the admins' own port; None where there is none."""
    scraped = settings.metrics.prometheus
    endpoints = [endpoint for endpoint in ENDPOINTS if scraped or endpoint.name != "metrics_prometheus"]
    if settings.server.admin_port is None:
        return endpoints, endpoints, None
    admin = [endpoint for endpoint in endpoints if endpoint.access in {"admin", "scrape"}]
    rest = [endpoint for endpoint in endpoints if endpoint not in admin]
    return endpoints, rest, [*admin, *(endpoint for endpoint in rest if endpoint.access == "open")]
