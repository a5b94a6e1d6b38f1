"""Anthropic's Messages: relayed as they come, errors in Anthropic's form; a stream has to end with ``message_stop``."""

from agw_proxy.api.endpoint import Relay
from agw_proxy.api.passthrough import relayed, with_others

PATH = "/v1/messages"
_RELAY = Relay("", needs_model=False, json_only=False, sse_usage=False, known_end=True, model_paths=frozenset({PATH}))

ENDPOINTS = with_others(relayed("POST", "messages", PATH, _RELAY, dialect="anthropic"))
