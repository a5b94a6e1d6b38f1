"""The compiled configuration that requests are decided by: immutable, replaced whole by a reload."""

import msgspec

from agw_proxy.config.settings import Settings
from agw_proxy.policy.keys import Keys
from agw_proxy.policy.routes import Routes
from agw_proxy.upstreams.attempts import Service


class State(msgspec.Struct, frozen=True):
    """One version of the policy. ``services`` are numbered as ``routes`` numbers upstreams."""

    settings: Settings
    keys: Keys
    routes: Routes
    services: tuple[Service, ...]
    scrape_digest: bytes | None
