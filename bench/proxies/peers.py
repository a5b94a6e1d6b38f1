"""All peers, in the order of the tables."""

from bench.proxies.gateways import AGW, AGW_TWO, LITELLM_PEER, PLAIN_AIOHTTP, PORTKEY, SMG_PEER
from bench.proxies.peer import Launch, Peer, Setting
from bench.proxies.references import ENVOY_PEER, HAPROXY, NGINX
from bench.proxies.scenarios import FAST


def _no_launch(_: Setting) -> Launch:
    raise AssertionError("the upstream runs already")


DIRECT = Peer(
    name="direct",
    title="direct, no proxy",
    speed=FAST,
    version=lambda: "-",
    missing=lambda: None,
    launch=_no_launch,
)
"""The load generator against the upstream, to show that neither is the limit."""

PEERS = (DIRECT, AGW, AGW_TWO, NGINX, HAPROXY, ENVOY_PEER, PLAIN_AIOHTTP, SMG_PEER, PORTKEY, LITELLM_PEER)
