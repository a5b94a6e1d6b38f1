"""What the egress page says is what arrives: every header that a client could send, both lanes, relayed and translated."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.behaviours import answer
from tests.support.client import Reply
from tests.support.gateway import APP_KEY, UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.providers import SCENES, plays
from tests.support.published import ready
from tests.support.upstream import Exchange, Recorded, Upstream

Tree = dict[str, Any]
Field = tuple[str, str]

DIALECTS = {"chat": "openai", "responses": "openai", "messages": "anthropic", "gemini": "gemini"}
SECOND_KEY = "upstream-secret-second-51c0aa72e9"
TEAM = "blue-8d1f6c"
CREDENTIALS = ("x-agw-key", "authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Of a gateway key, the strongest first."""
NEVER = (
    "Cookie", "cookie2", "Set-Cookie", "OpenAI-Organization", "openai-project", "Keep-Alive", "Proxy-Connection",
    "proxy-authorization", "Proxy-Authenticate", "Proxy-Authentication-Info", "proxy-status", "TE", "Trailer",
    "HTTP2-Settings", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "x-forwarded-host", "X-FORWARDED-PROTO",
    "x-forwarded", "Forwarded-For", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "X-Original-Forwarded-For",
    "X-Agw-Upstream", "x-agw-cache", "x-agw-anything", "Idempotency-Key", "X-User-Id", "x-channel-id", "X-Session-Id",
    "Sec-WebSocket-Key", "sec-websocket-protocol", "X-Auth-Token", "Ocp-Apim-Subscription-Key", "Cf-Access-Jwt-Assertion",
    "X-Amz-Security-Token",
)  # fmt: skip
"""By this test's own knowledge: whatever the page says, none of these may arrive with the caller's value."""
PASSED = (
    "User-Agent", "accept", "Accept-Language", "traceparent", "tracestate", "baggage", "OpenAI-Beta", "anthropic-beta",
    "anthropic-version", "x-goog-user-project", "X-Stainless-Lang", "x-stainless-retry-count", "http-referer", "X-Title",
    "originator", "session_id", "x-codex-turn-state", "Origin", "Range", "if-none-match", "Cache-Control", "Pragma", "DNT",
    "Content-MD5", "digest", "Content-Language", "x-team", "X-Only", "x-cookie", "proxy", "x-forwarde", "cookies",
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(NEVER),
    st.sampled_from(PASSED),
    st.sampled_from(CREDENTIALS),
    st.sampled_from(("x-request-id", "Accept-Encoding", "Connection")),
    st.sampled_from(("x-agw-", "X-Forwarded-", "proxy-", "Sec-WebSocket-", "anthropic-", "x-goog-", "x-")).flatmap(
        lambda prefix: st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True).map(lambda rest: prefix + rest)
    ),
    st.from_regex(r"[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]{0,40}", fullmatch=True).map(lambda name: f"X{name}"),
)
TEXTS = st.one_of(
    st.from_regex(r"[!-~]([ -~]{0,30}[!-~])?", fullmatch=True),
    st.sampled_from(("", "Ünïcode".encode().decode("latin-1"), "latin \xfc", f"Bearer {APP_KEY}", APP_KEY)),
)
FIELDS = st.lists(st.tuples(NAMES, TEXTS, st.sampled_from((str, str.upper, str.title, str.lower))), max_size=14)
RAW = ("raw_get", "raw_post")
BODIES: dict[str, tuple[str, Tree]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    "responses": ("/v1/responses", {"input": "hi", "store": False}),
    "messages": ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}),
    "gemini": ("/v1beta/models/{}:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
}
numbers = itertools.count(1)


async def behave(exchange: Exchange) -> None:
    """A provider in all dialects, with files."""
    raw = exchange.request.path.endswith(("/files", "/models"))
    await (answer({"ok": True}) if raw else plays(SCENES["text"]))(exchange)


def entries(url: str) -> list[Tree]:
    """An upstream of each dialect, and one for each way in which it may be asked."""
    made = []
    for spoken, dialect in DIALECTS.items():
        base = f"{url}/v1beta" if spoken == "gemini" else f"{url}/v1"
        more = {"dialect": dialect, "speaks": [spoken], "base_url": base, "models": [f"{spoken}-*"]}
        made.append(provider(url, spoken, **more))
    headers = {"X-Team": TEAM, "x-forwarded-host": TEAM, "cookie": TEAM}
    made.append(provider(url, "extra", speaks=["chat"], models=["extra-*"], headers=headers))
    login = provider(url, "login", speaks=["chat"], models=["login-*"], auth="passthrough")
    bare = provider(url, "bare", speaks=["chat"], models=["bare-*"], auth="none")
    several = provider(url, "several", speaks=["chat"], models=["several-*"], api_keys=[UPSTREAM_KEY, SECOND_KEY])
    for entry in (login, bare, several):
        del entry["api_key"]
    return [*made, login, bare, several]


NAMED = (*DIALECTS, "extra", "login", "bare", "several")


class Running:
    """A gateway, its upstreams' other end, and the pages."""

    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway, self.upstream = gateway, upstream
        self.pages = {name: page(gateway, name) for name in NAMED}
        assert not any(secret in str(self.pages) for secret in (UPSTREAM_KEY, SECOND_KEY, APP_KEY, TEAM))


@pytest.fixture(scope="module", params=["auto", "full"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    ready()
    with Upstream(behave) as upstream:
        config = configuration(*entries(upstream.url))
        config["server"]["lane"] = request.param
        config["timeouts"] = {"total": "20s"}  # nothing is slow here but the machine
        with Gateway(config) as gateway:
            yield Running(gateway, upstream)


def page(gateway: Gateway, name: str) -> Tree:
    """What the gateway says of an upstream."""
    reply = gateway.get(f"/upstreams/{name}/egress", key=gateway.admin_key)
    assert reply.status == 200
    return dict(reply.json)


def send(gateway: Gateway, form: str, name: str, fields: list[Field]) -> Reply:
    """One request, its header lines as they are given."""
    if form in RAW:
        target, body = f"/passthrough/{name}/files", b"" if form == "raw_get" else b"\0bytes"
        method = form.removeprefix("raw_").upper()
    else:
        path, tree = BODIES[form]
        target, method = path.format(f"{name}-1"), "POST"
        body = orjson.dumps(tree if form == "gemini" else {"model": f"{name}-1", **tree})
    with gateway.connect() as connection:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {connection.host}"]
        lines += [f"{field}: {value}" for field, value in fields]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        connection.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return connection.reply(method)


def readable(value: str) -> bool:
    """The bytes are UTF-8."""
    try:
        value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return False
    return True


class Page:
    """The page, read as its reader would."""

    def __init__(self, told: Tree, *, translated: bool, wrapped: bool = False) -> None:
        parts = [told] + ([told["translated"]] if translated else []) + ([told["wrapped"]] if wrapped else [])
        never = [line for part in parts for line in part["never"]]
        self.ours = {
            line["header"]: line["from"] for part in parts for line in part["sent"] if line["from"] != "caller"
        }
        self.parts = [
            (
                {line["header"] for line in part["sent"] if line["from"] == "caller"},
                {line["header"] for line in part["never"] if "header" in line},
                tuple(line["prefix"] for line in part["never"] if "prefix" in line),
            )
            for part in parts
        ]
        assert "*" in self.parts[0][0]
        self.lists = {line["named_by"] for line in never if "named_by" in line}
        self.unreadable = {line.get("lane") for line in never if line.get("value") == "not UTF-8"}

    def passes(self, fields: list[Field]) -> list[Field]:
        """What of these crosses."""
        named = {
            token.strip().lower()
            for name, value in fields
            if name.lower() in self.lists
            for token in value.split(",")
        }  # fmt: skip
        return [(name, value) for name, value in fields if self._passes(name.lower(), value, named)]

    def _passes(self, name: str, value: str, named: set[str]) -> bool:
        if name in named or name in self.ours:
            return False
        if name in self.parts[0][0]:
            return APP_KEY not in value
        return all(
            name in callers or (name not in never and not name.startswith(prefixes))
            for callers, never, prefixes in self.parts
        )


def by_name(fields: list[Field]) -> dict[str, list[str]]:
    """Values in order, by name; its case means nothing, and aiohttp spells the names that it knows its own way."""
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(name.lower(), []).append(value)
    return found


def prepared(drawn: list[tuple[str, str, Any]], carrier: str) -> list[Field]:
    """Header lines that are a legal request of the key's holder."""
    fields: list[Field] = [
        ("Content-Type", "application/json"),
        (carrier, f"Bearer {APP_KEY}" if carrier == "authorization" else APP_KEY),
    ]
    strongest = CREDENTIALS.index(carrier)
    for raw, text, spell in drawn:
        name, value = spell(raw), text
        lower = name.lower()
        once = lower in CREDENTIALS or lower in {"idempotency-key", "user-agent"}
        if once and any(lower == taken.lower() for taken, _ in fields):
            continue  # two of them are refused
        if lower in CREDENTIALS and (CREDENTIALS.index(lower) < strongest or not readable(value)):
            continue  # it would be taken for the key
        if lower == "idempotency-key":
            value = f"once-{next(numbers)}"
        elif lower == "connection":
            value = "keep-alive, X-Only, traceparent ,x-api-key,X-Team"
        elif lower in {"x-agw-timeout", "upgrade"}:
            continue
        fields.append((name, value))
    return fields


def assert_page(gateway: Gateway, arrived: Recorded, name: str, fields: list[Field], **how: bool) -> None:
    """What has arrived of these at an upstream is what its page says. ``how``: see ``Page``."""
    told = Page(page(gateway, name), **how)
    names = Counter(field.lower() for field, _ in arrived.headers)
    assert all(names[field] <= 1 for field in told.ours)
    rest = [(field, value) for field, value in arrived.headers if field.lower() not in told.ours]
    assert by_name(rest) == by_name(told.passes(fields))
    assert_never(arrived, fields, name)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("form", [*BODIES, *RAW])
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=FIELDS, carrier=st.sampled_from(CREDENTIALS))
def test_what_arrives_is_what_the_page_says(
    running: Running, form: str, name: str, drawn: list[Any], carrier: str
) -> None:
    gateway, upstream, pages = running.gateway, running.upstream, running.pages
    fields = prepared(drawn, "x-agw-key" if name == "login" else carrier)
    upstream.reset()
    reply = send(gateway, form, name, fields)
    assert reply.status == 200, reply.body
    arrived = upstream.requests[-1]
    spoken = name if name in DIALECTS else "chat"
    told = Page(pages[name], translated=form in BODIES and form != spoken)
    assert_gateways_own(arrived, told, reply, upstream, name)
    rest = [(field, value) for field, value in arrived.headers if field.lower() not in told.ours]
    passed = told.passes(fields)
    assert told.unreadable == {"full"}
    whole = [field for field in passed if readable(field[1])]
    assert by_name(rest) in (by_name(passed), by_name(whole))
    assert_never(arrived, fields, name)


def assert_gateways_own(arrived: Recorded, told: Page, reply: Reply, upstream: Upstream, name: str) -> None:
    """Each of the gateway's own at most once, with the value that is the gateway's."""
    names = Counter(field.lower() for field, _ in arrived.headers)
    assert all(names[field] <= 1 for field in told.ours)
    assert arrived.value("host") == upstream.url.removeprefix("http://")
    assert arrived.value("accept-encoding") == "identity"
    assert arrived.value("x-request-id") == reply.request_id
    for field in (field for field, source in told.ours.items() if source == "configuration"):
        value = arrived.value(field)
        assert value is not None
        assert any(secret in value for secret in (UPSTREAM_KEY, SECOND_KEY, TEAM))
    keyed = {field for field, value in arrived.headers if UPSTREAM_KEY in value or SECOND_KEY in value}
    assert len(keyed) == (0 if name in {"login", "bare"} else 1)


def assert_never(arrived: Recorded, fields: list[Field], name: str) -> None:
    """Whatever any page says: the gateway's key, cookies, hop-by-hop headers and the like stay here."""
    lower = {field.lower() for field in NEVER}
    assert not any(APP_KEY in value for field, value in arrived.headers if field.lower() in {*lower, *CREDENTIALS})
    came = Counter((field.lower(), value) for field, value in fields if field.lower() in lower)
    there = Counter((field.lower(), value) for field, value in arrived.headers if value != TEAM)
    if name == "login":
        came = Counter({pair: count for pair, count in came.items() if not pair[0].startswith("openai-")})
    assert not came & there


@pytest.mark.parametrize("name", ["chat", "gemini"])
def test_a_header_in_two_spellings_arrives_twice(running: Running, name: str) -> None:
    fields = [*prepared([], "authorization"), ("X-Two", "1"), ("x-two", "2")]
    assert send(running.gateway, "chat", name, fields).status == 200
    assert running.upstream.requests[-1].values("x-two") == ["1", "2"]


def test_a_credential_in_two_spellings_arrives_twice(running: Running) -> None:
    fields = [*prepared([], "x-agw-key"), ("OpenAI-Project", "1"), ("openai-project", "2")]
    assert send(running.gateway, "chat", "login", fields).status == 200
    assert running.upstream.requests[-1].values("openai-project") == ["1", "2"]


def test_both_lanes_are_tried(running: Running, request: pytest.FixtureRequest) -> None:
    """An ordinary header in an ordinary request keeps no lane away."""
    gateway = running.gateway
    fields = [*prepared([("X-Title", "t", str), ("cookie", "c", str), ("proxy-x", "p", str)], "authorization")]
    for form, name in (("chat", "chat"), ("messages", "messages"), ("chat", "gemini")):
        reply = send(gateway, form, name, fields)
        fast = form == name and "auto" in request.node.name
        assert gateway.receipt(reply.request_id)["lane"] == ("fast" if fast else "full")


def test_the_page_is_for_admins_and_of_upstreams_that_are_there(running: Running) -> None:
    gateway, pages = running.gateway, running.pages
    assert gateway.get("/upstreams/chat/egress").status == 403
    assert gateway.get("/upstreams/chat/egress", key=None).status == 401
    for name in ("nobody", "agw"):
        reply = gateway.get(f"/upstreams/{name}/egress", key=gateway.admin_key)
        assert (reply.status, reply.value("x-agw-error")) == (404, "caller_model_not_found")
    sources = {line["header"]: line["from"] for line in pages["extra"]["sent"]}
    assert sources["x-team"] == sources["cookie"] == sources["authorization"] == "configuration"
    assert sources["host"] == "gateway"
    assert sources["*"] == "caller"
    assert {line["header"]: line["from"] for line in pages["login"]["sent"]}["authorization"] == "caller"
    assert "authorization" not in {line["header"] for line in pages["bare"]["sent"]}
    assert pages["messages"]["translated"]["forms"] == ["chat", "responses", "gemini", "completions"]
    assert not any(told["wrapped"] for told in pages.values())
