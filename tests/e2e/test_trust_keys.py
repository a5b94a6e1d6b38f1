"""What a key may reach, what never leaves with an answer, what is asked twice, and which configuration is in force."""

import asyncio
import contextlib
import io
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import orjson
import pytest
import yaml

from agw_proxy.app import Gateway as Application
from agw_proxy.config.loader import Loaded, load
from agw_proxy.observe.log import Log, LogWriter
from tests.support.behaviours import answer, event, failure, silence, stream
from tests.support.client import bearer, request
from tests.support.fake_openai import words
from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Behaviour, Upstream

MINI_KEY = "agw-bench-mini-7c52e90ab1f46d38"
SCRAPE_KEY = "agw-bench-scrape-1f0b8a63d79e42c5"
HEADER_SECRET = "header-secret-55f6a7c8903d1b2e"
ESCAPED_KEY = "".join(f"\\u{ord(letter):04x}" for letter in UPSTREAM_KEY).encode()
BLIND_SECONDS = 0.3  # how long a second reload may try to overtake the first


def base_configuration(url: str) -> Tree:
    """One gateway for most of this file."""
    config = configuration(
        provider(url, headers={"x-secret": HEADER_SECRET}),
        provider(url, "own", models=["own-*"], auth="passthrough", api_key=None),
        provider(url, "hurried", models=["hurry-*"], timeouts={"total": "500ms", "first_byte": "10s"}),
        provider(url, "patient", models=["wait-*"], timeouts={"total": "300ms", "first_byte": "10s"}),
        metrics={"key": SCRAPE_KEY},
    )
    config["upstreams"][2]["retries"] = {"attempts": 10, "base": "1ms", "max": "1ms"}
    config["upstreams"][3]["retries"] = {"attempts": 2, "base": "1ms", "max": "5s"}
    config["keys"].append({"name": "mini", "key": MINI_KEY, "models": ["gpt-4o-mini"]})
    return config


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(base_configuration(shared_upstream.url)) as running:
        yield running


@pytest.fixture
def reloading(gateway: Gateway, upstream: Upstream) -> Iterator[Gateway]:
    """The gateway; its first configuration is in force again afterwards."""
    yield gateway
    gateway.write(base_configuration(upstream.url))
    assert gateway.post("/security/refresh", key=ADMIN_KEY).status == 200


# -- what a key may reach


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files"),
        ("POST", "/v1/files"),
        ("DELETE", "/v1/files/x"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("DELETE", "/v1/responses"),
    ],
)
def test_a_model_in_the_body_opens_no_path_that_is_not_about_it(
    gateway: Gateway, upstream: Upstream, method: str, path: str
) -> None:
    for body in ({"model": "gpt-4o-mini"}, None):
        refused = request(gateway.url, method, path, body, bearer(MINI_KEY))
        assert refused.status == 403, refused.body
        assert refused.error["code"] == "model_forbidden"
    assert upstream.requests == []


def test_a_key_for_one_model_may_generate_with_it_on_a_relayed_path(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(answer({"id": "resp_1"}))
    reply = gateway.post("/v1/responses", {"model": "gpt-4o-mini", "input": "x"}, key=MINI_KEY)
    assert reply.status == 200
    assert reply.json == {"id": "resp_1"}
    assert gateway.post("/v1/responses", {"model": "gpt-4o", "input": "x"}, key=MINI_KEY).status == 403
    assert len(upstream.requests) == 1


def test_the_body_of_a_path_without_a_model_arrives_byte_for_byte(gateway: Gateway, upstream: Upstream) -> None:
    body = b'{ "model" : "fake/gpt-4o",\n\t"stream":true, "endpoint":"\\/v1\\/x", "n": 1.0 }\n'
    upstream.script(answer({"id": "batch_1"}))
    assert gateway.post("/v1/batches", body).status == 200
    assert upstream.last.body == body
    assert upstream.last.value("content-type") == "application/json"


@pytest.mark.parametrize("path", ["/metrics", "/metrics/prometheus"])
def test_two_credentials_on_a_scrape_are_400(gateway: Gateway, path: str) -> None:
    assert gateway.get(path, key=SCRAPE_KEY).status == 200
    for first, second in ((SCRAPE_KEY, "other"), (ADMIN_KEY, SCRAPE_KEY)):
        with gateway.connect() as connection:
            lines = f"authorization: Bearer {first}\r\nauthorization: Bearer {second}\r\n"
            connection.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
            assert connection.reply("GET").status == 400


# -- what never leaves


def quoting(secret: bytes) -> bytes:
    return b'{"error":{"message":"bad key ' + secret + b' here","type":"x","code":"y"}}'


def told_late(secret: bytes) -> Behaviour:
    """A stream whose error event comes alone, and that goes on."""
    return stream([*words()[:2], event(quoting(secret))], pace_ms=20, ending="hang")


def told_last(secret: bytes) -> Behaviour:
    """A stream whose error event comes together with its end."""
    return answer(b"".join([*words()[:2], event(quoting(secret))]), content_type="text/event-stream")


def told_in_pieces(secret: bytes) -> Behaviour:
    """A stream whose error event comes in several writes, some of which end within the secret."""
    return stream([*words()[:2], event(quoting(secret))], split=20, pace_ms=2, ending="hang")


KEY, HEADER = UPSTREAM_KEY.encode(), HEADER_SECRET.encode()
LEAKS: dict[str, tuple[Behaviour, bool]] = {
    "4xx": (answer(quoting(KEY), status=400), False),
    "4xx-escaped": (answer(quoting(ESCAPED_KEY), status=400), False),
    "4xx-header": (answer(quoting(HEADER), status=403), False),
    "401": (answer(quoting(KEY), status=401), False),
    "500": (answer(quoting(KEY), status=500), False),
    "first-event": (stream([event(quoting(KEY))]), True),
    "mid-stream": (told_late(KEY), True),
    "mid-stream-escaped": (told_late(ESCAPED_KEY), True),
    "mid-stream-header": (told_late(HEADER), True),
    "mid-stream-in-pieces": (told_in_pieces(KEY), True),
    "end-of-stream": (told_last(KEY), True),
    "end-of-stream-escaped": (told_last(ESCAPED_KEY), True),
}


@pytest.mark.parametrize(("behaviour", "streamed"), LEAKS.values(), ids=LEAKS.keys())
def test_what_the_upstream_is_sent_as_a_secret_never_comes_back(
    gateway: Gateway, upstream: Upstream, behaviour: Behaviour, streamed: bool
) -> None:
    upstream.default = behaviour
    reply = gateway.chat(stream=streamed)
    assert b"error" in reply.body
    shown = re.sub(r"\\u00([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), f"{reply.headers}{reply.body!r}")
    shown = shown.replace("\\", "")
    assert UPSTREAM_KEY not in shown
    assert HEADER_SECRET not in shown
    assert upstream.last.value("x-secret") == HEADER_SECRET
    assert upstream.last.value("authorization") == f"Bearer {UPSTREAM_KEY}"


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_the_gateways_own_key_is_not_taken_for_a_providers(gateway: Gateway, upstream: Upstream, header: str) -> None:
    for value in (APP_KEY, f"Bearer {APP_KEY}", f"bearer  {APP_KEY}", f"Bearer {ADMIN_KEY}"):
        assert gateway.chat(model="own-1", key=None, headers={"x-agw-key": APP_KEY, header: value}).status == 200
        assert APP_KEY not in str(upstream.last.headers)
        assert ADMIN_KEY not in str(upstream.last.headers)
    assert gateway.chat(model="own-1", key=None, headers={"x-agw-key": APP_KEY, header: "Bearer sk-own"}).status == 200
    assert upstream.last.value(header) == "Bearer sk-own"


# -- what is asked twice


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/batches"), ("DELETE", "/v1/files/x")])
def test_what_may_have_happened_is_not_repeated(gateway: Gateway, upstream: Upstream, method: str, path: str) -> None:
    upstream.script(failure(500))
    reply = request(gateway.url, method, path, {"model": "gpt-4o"} if method == "POST" else None, bearer(APP_KEY))
    assert reply.status == 502
    assert len(upstream.requests) == 1


def test_a_chat_is_repeated_after_a_500(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(failure(500))
    assert gateway.chat().status == 200
    assert len(upstream.requests) == 2


def test_a_first_byte_time_out_is_not_repeated_on_the_same_target(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(silence())
    assert gateway.chat().status == 504
    assert len(upstream.requests) == 1


def test_all_tries_together_keep_to_the_total_time(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = answer({"error": {"message": "scripted"}}, status=500, delay_ms=150)
    reply = gateway.chat(model="hurry-1")
    assert reply.status == 504
    assert reply.error["code"] == "upstream_timeout"
    assert len(upstream.requests) <= 4, "10 tries are allowed, 4 of 150 ms begin within 500 ms"


def test_no_try_begins_after_the_total_time(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(failure(503, headers=(("retry-after-ms", "600"),)))
    assert gateway.chat(model="wait-1").status in {503, 504}
    assert gateway.chat(model="wait-1").status == 200
    assert len(upstream.requests) == 2, "the first chat's second try would have begun 600 ms into its 300 ms"


@pytest.mark.parametrize(
    "model", ["gpt-4 o", "gpt-\u00fc\u2603", 'gpt-"x"', "gpt-a=1, b", "gpt-%41;\\", "gpt-\U0001f600"]
)
def test_a_failed_try_is_told_percent_encoded(gateway: Gateway, upstream: Upstream, model: str) -> None:
    upstream.script(failure(500))
    reply = gateway.chat(model=model)
    assert reply.status == 200
    assert upstream.last.json["model"] == model
    tries = reply.value("x-agw-attempts")
    assert tries is not None
    assert re.fullmatch(r"[!#-~]+, [!#-~]+", tries), "visible ASCII without quotes, a comma and a space between"
    targets, outcomes = zip(*(part.split("=") for part in tries.split(", ")), strict=True)
    assert [unquote(target) for target in targets] == [f"fake/{model}"] * 2
    assert outcomes == ("upstream_failed", "200")
    assert gateway.receipt(reply.request_id)["model"] == model
    upstream.default = failure(500)
    assert len((gateway.chat(model=model).value("x-agw-attempts") or "").split(", ")) == 3


# -- which configuration is in force


async def test_of_two_reloads_at_once_the_newer_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"

    def write(name: str) -> None:
        tree = configuration(provider("http://127.0.0.1:1"), keys=[{"name": name, "key": f"{APP_KEY}{name}"}])
        file.write_text(yaml.safe_dump(tree))
        file.chmod(0o600)

    was_read, may_go_on = threading.Event(), threading.Event()

    def read() -> Loaded:
        loaded = load(file, {}, tmp_path)
        if not was_read.is_set():
            was_read.set()
            assert may_go_on.wait(5)
        return loaded

    write("old")
    writer = LogWriter(io.StringIO())
    application = Application(load(file, {}, tmp_path), read, Log(writer), {})
    try:
        first = asyncio.create_task(application.reload())
        assert await asyncio.to_thread(was_read.wait, 5)
        write("new")
        second = asyncio.create_task(application.reload())
        await asyncio.wait({second}, timeout=BLIND_SECONDS)
        may_go_on.set()
        await asyncio.gather(first, second)
        assert [principal.name for principal in application.state.keys.principals] == ["new"]
    finally:
        may_go_on.set()
        writer.close()


def too_many_rules(config: Tree) -> None:
    config["keys"][0]["limits"] = [{"per": "key", "requests": 10 + number} for number in range(12)]
    config["limits"] = [{"per": "global", "requests": 100 + number} for number in range(8)]


def no_authorities(config: Tree) -> None:
    config["upstreams"][0]["ca_file"] = "/nonexistent/authorities.pem"


@pytest.mark.parametrize(("spoil", "reason"), [(too_many_rules, "16"), (no_authorities, "authorities.pem")])
def test_what_cannot_be_compiled_is_409_and_told(
    reloading: Gateway, upstream: Upstream, spoil: Callable[[Tree], None], reason: str
) -> None:
    before = reloading.get("/metrics", key=ADMIN_KEY).json["configuration"]
    assert isinstance(before, dict)
    bad = base_configuration(upstream.url)
    spoil(bad)
    reloading.write(bad)
    refused = reloading.post("/security/refresh", key=ADMIN_KEY)
    assert refused.status == 409, refused.body
    assert refused.error["code"] == "reload_failed"
    assert reason in str(refused.error["message"])
    after = reloading.get("/metrics", key=ADMIN_KEY).json["configuration"]
    assert isinstance(after, dict)
    assert after["version"] == before["version"]
    assert reason in str(after["last_error"])
    assert reloading.chat().status == 200


# -- what the log shows


def test_a_pretty_log_holds_no_control_characters_of_callers(upstream: Upstream) -> None:
    models = [
        "nope\n03:18:23  200  POST chat_completions  FORGED",
        "nope\x1b[31m",
        "nope\x9b31m",
        "nope\u2028a",
        "nope\u202ea",
    ]
    gateway = Gateway(configuration(provider(upstream.url, models=["gpt-*"]), log={"format": "pretty"}))
    with contextlib.ExitStack() as stack:
        stack.callback(gateway.__exit__)
        gateway.launch()
        found = gateway.until(lambda: re.search(r"http://127\.0\.0\.1:\d+", gateway.output), "no address was printed")
        assert found is not None
        gateway.url = found[0]
        replies = [gateway.chat(model=model) for model in models]
        replies.append(gateway.chat(headers={"content-type": "text/\x1b[31m\x07"}))
        replies.append(gateway.chat(model="gpt-\u202e4o"))
        last = gateway.get("/health", key=None)
        ids = {replies[-1].request_id, last.request_id}
        gateway.until(lambda: all(wanted in gateway.output for wanted in ids), "a line was not written")
        lines = gateway.output.split("\n")
    assert [reply.status for reply in replies[:-1]].count(200) == 0
    assert replies[-1].status == 200
    for reply in replies:
        about = [line for line in lines if reply.request_id in line]
        assert len(about) == 1, about
        assert about[0].isprintable(), about[0]
    assert not [line for line in lines if line.startswith("03:18:23") or not line.isprintable()]


def test_a_credential_in_bytes_of_no_encoding_is_no_defect(gateway: Gateway) -> None:
    body = orjson.dumps(chat_body(model="own-1"))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-agw-key: {APP_KEY}\r\nContent-Length: {len(body)}\r\n"
    with gateway.connect() as connection:
        connection.socket.sendall(head.encode() + b"x-api-key: a\xffb\r\n\r\n" + body)
        assert connection.reply().status < 500
