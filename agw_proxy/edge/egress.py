"""Which headers go to an upstream, and why: read off the very sets by which both lanes decide. Names only, never a value."""

from typing import get_args

from agw_proxy.config.values import Form
from agw_proxy.edge.headers import (
    CREDENTIALS,
    HOP_BY_HOP,
    KEPT_PREFIXES,
    MADE_ANEW,
    NETWORK,
    SIGNED_IN,
    TO_THE_GATEWAY,
)
from agw_proxy.edge.state import State
from agw_proxy.errors import ModelNotFound
from agw_proxy.policy.routes import shown
from agw_proxy.upstreams.crossing import Crossing
from agw_proxy.upstreams.http import HttpUpstream
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.translating import ADDED, OF_A_BODY, OF_A_DIALECT

Tree = dict[str, object]
Line = dict[str, str]

_OF_THE_CONNECTION = "Belongs to one connection, not to the request (RFC 9110 section 7.6.1)."
_OF_THE_GATEWAY = "Meant for this gateway."
_OF_THE_NETWORK = "Tells of the caller's network."
KEPT = (
    (HOP_BY_HOP, _OF_THE_CONNECTION),
    (CREDENTIALS, "The caller's credential, or whose account it is; the upstream is asked with the gateway's own."),
    (MADE_ANEW, "The caller's own ends here; what the upstream needs is made anew."),
    (TO_THE_GATEWAY, _OF_THE_GATEWAY),
    (SIGNED_IN, "A cookie, or a credential for a door in front of this gateway."),
    (NETWORK, _OF_THE_NETWORK),
)
PREFIXES = {
    "proxy-": _OF_THE_CONNECTION,
    "sec-websocket-": _OF_THE_CONNECTION,
    "x-agw-": _OF_THE_GATEWAY,
    "x-forwarded-": _OF_THE_NETWORK,
}
_FRAMING = (
    ("host", "The upstream's own name."),
    ("accept-encoding", "identity: usage and the end of the answer are read from its bytes."),
    ("x-request-id", "Names the exchange in both logs."),
    ("content-length", "Of the body as it is sent."),
    ("transfer-encoding", "Instead of content-length, where the caller has not said how long its body is."),
)
_SETTINGS = {
    "headers": "Under `headers` of this upstream.",
    "api_key": "The upstream's key (`api_key`).",
    "aws": "AWS Signature Version 4, with the credentials of `aws`.",
    "google": "An access token of the credentials of `google`.",
    "api_keys": "The upstream's key, one of its `api_keys`.",
}


def egress(state: State, name: str) -> Tree:
    """What goes to that upstream, and what never does. Raises ModelNotFound."""
    for service, _ in state.pairs():
        if service.upstream.name == name:
            return _egress(service)
    raise ModelNotFound(f"There is no upstream '{shown(name)}' over HTTP here. GET /upstreams lists them.")


def _egress(service: Service) -> Tree:
    upstream = service.upstream
    cloud = upstream.cloud if isinstance(upstream, HttpUpstream) else None
    sent = [_line("header", header, why, "gateway") for header, why in _FRAMING]
    sent += _configured(service)
    taken = {line["header"] for line in sent}
    passes = CREDENTIALS if service.auth == "passthrough" else frozenset()
    why = "auth: passthrough. Only where the gateway's key comes in x-agw-key, and never a key of the gateway's."
    sent += [_line("header", header, why, "caller") for header in sorted(passes - taken)]
    sent.append(_line("header", "*", "All else, as it came and in its order.", "caller"))
    never = [
        _line("header", header, why)
        for names, why in KEPT
        for header in sorted(names - taken - passes)
    ]  # fmt: skip
    never += [_line("prefix", prefix, PREFIXES[prefix]) for prefix in KEPT_PREFIXES]
    never += _never(cloud.always) if cloud is not None else []
    never.append({"named_by": "connection", "why": _OF_THE_CONNECTION})
    never.append({"value": "not UTF-8", "lane": "full", "why": "It could not be sent whole; the fast lane sends it."})
    told: Tree = {"object": "egress", "upstream": service.upstream.name, "sent": sent, "never": never}
    told["translated"] = _translated(service)
    told["wrapped"] = _wrapped(cloud.wrapping) if cloud is not None else None
    return told


def _wrapped(crossing: Crossing) -> Tree:
    """What comes on top for generations, which a cloud wants wrapped."""
    sent = [_line("header", header, why, "gateway") for header, why in crossing.added]
    sent += [_line("header", header, why, "caller") for header, why in crossing.passes]
    return {"sent": sent, "never": _never(crossing)}


def _never(crossing: Crossing) -> list[Line]:
    return [_line(kind, name, why) for kind, name, why in crossing.never]


def _configured(service: Service) -> list[Line]:
    """What the configuration puts in; a caller's own of that name ends here."""
    upstream = service.upstream
    sources = upstream.sources() if isinstance(upstream, HttpUpstream) else {}
    return [_line("header", header, _SETTINGS[setting], "configuration") for header, setting in sources.items()]


def _translated(service: Service) -> Tree | None:
    """What comes on top for requests in a form that the upstream does not speak; None: it speaks all."""
    forms = [form for form in get_args(Form) if form not in service.speaks]
    if not forms:
        return None
    spoken = service.into
    added = [header for header, _ in ADDED[spoken]]
    never = [_line("header", header, "Tells of the body as the caller wrote it.") for header in sorted(OF_A_BODY)]
    never += [_line("prefix", prefix, "Means something in the caller's own form only.") for prefix in OF_A_DIALECT]
    sent = [_line("header", header, f"The body is written anew, as {spoken}.", "gateway") for header in added]
    return {"forms": forms, "into": spoken, "sent": sent, "never": never}


def _line(kind: str, name: str, why: str, source: str | None = None) -> Line:
    return {kind: name, **({"from": source} if source is not None else {}), "why": why}
