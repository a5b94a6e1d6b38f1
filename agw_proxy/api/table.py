"""All endpoints, in the order in which the documentation shows them."""

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
