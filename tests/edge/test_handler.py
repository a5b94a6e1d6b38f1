"""The way of a request: each step refuses in its own words, and whatever happens there is one receipt."""

import asyncio
import re
from pathlib import Path

import pytest

from agw_proxy.edge.accounts import where
from agw_proxy.edge.reading import look_into, target_of
from agw_proxy.errors import InvalidJSON, InvalidParameter
from tests.edge.inprocess import serving
from tests.support.behaviours import answer, silence
from tests.support.client import bearer
from tests.support.fake_openai import ANSWER
from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Tree, configuration, provider
from tests.support.upstream import Exchange, Upstream

SCRAPE_KEY = "agw-scrape-0123456789abcdef"
NARROW_KEY = "agw-narrow-0123456789abcdef"
MULTIPART = {"content-type": "multipart/form-data; boundary=xyz"}


@pytest.mark.parametrize(
    ("raw", "split"),
    [
        ("/v1/models", ("/v1/models", "")),
        ("/a?b=c?d", ("/a", "b=c?d")),
        ("http://host:1/v1/x?y", ("/v1/x", "y")),
        ("https://host", ("/", "")),
        ("*", ("*", "")),
        ("/http://x", ("/http://x", "")),
    ],
)
def test_a_target_is_split_in_either_form(raw: str, split: tuple[str, str]) -> None:
    assert target_of(raw) == split


def test_a_body_that_is_no_json_and_a_member_of_the_wrong_type_are_told_apart() -> None:
    with pytest.raises(InvalidJSON):
        look_into(b"{", 64)
    with pytest.raises(InvalidParameter) as caught:
        look_into(b'{"stream":"yes"}', 64)
    assert caught.value.param == "stream"
    with pytest.raises(InvalidJSON):
        look_into(b'{"a":' + b"[" * 10 + b"]" * 10 + b"}", 8)
    assert look_into(b'{"model":"m"}', 8).model == "m"


def test_a_defect_is_placed_without_its_values() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        fail("a value")
    assert re.fullmatch(r"test_handler\.py:\d+ fail", where(caught.value))
    assert where(ValueError("a value")) == "unknown"


def fail(value: str) -> float:
    return len(value) / 0


@pytest.fixture
def wide(upstream: Upstream) -> Tree:
    """Two upstreams, an admin, a key for one model, and a key to scrape with."""
    made = configuration(
        provider(upstream.url, models=["gpt-4o-mini"]),
        provider(upstream.url, "second", models=["gpt-4o"]),
        metrics={"key": SCRAPE_KEY},
    )
    made["keys"].append({"name": "narrow", "key": NARROW_KEY, "models": ["gpt-4o", "second/*"]})
    return made


@pytest.mark.both_loops
async def test_a_chat_comes_and_goes(wide: Tree, upstream: Upstream, tmp_path: Path) -> None:
    async with serving(wide, tmp_path) as running:
        reply = await running.chat(headers={"x-channel-id": "web"}, user="ann")
        assert (reply.status, reply.complete) == (200, True)
        line = await running.receipt()
    assert ANSWER.encode() in reply.body
    assert (line["request_id"], line["user"], line["channel"]) == (reply.request_id, "ann", "web")
    assert (line["outcome"], line["endpoint"], line["peer"]) == ("ok", "chat_completions", "127.0.0.1")
    assert upstream.last.value("authorization") == f"Bearer {UPSTREAM_KEY}"


@pytest.mark.both_loops
async def test_the_built_in_model_answers_plain_and_streamed(wide: Tree, upstream: Upstream, tmp_path: Path) -> None:
    async with serving(wide, tmp_path) as running:
        plain = await running.chat(model="agw/echo")
        streamed = await running.chat(model="agw/echo", stream=True)
        assert [line["outcome"] for line in running.receipts()] == ["ok", "ok"]
    assert b"Say hello" in plain.body
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    assert upstream.requests == []


@pytest.mark.both_loops
async def test_every_refusal_is_in_the_log_with_its_reason(wide: Tree, tmp_path: Path) -> None:
    async with serving(wide, tmp_path) as running:
        replies = [
            await running.chat(key=None),
            await running.chat(key="agw-nobody-0123456789abcdef"),
            await running.chat(model="nothing"),
            await running.chat(key=NARROW_KEY),
            await running.ask("POST", "/v1/chat/completions", b"{"),
            await running.ask("POST", "/v1/chat/completions", {"messages": []}),
            await running.ask("GET", "/nowhere"),
            await running.ask("DELETE", "/v1/models"),
            await running.ask("GET", "/upstreams"),
            await running.ask("GET", "/v1/models?" + "&".join(f"a{number}=1" for number in range(101))),
        ]
        outcomes = [line["outcome"] for line in running.receipts()]
        statuses = [line["status"] for line in running.receipts()]
    assert [reply.value("x-agw-error") for reply in replies] == outcomes
    assert [reply.status for reply in replies] == statuses
    assert outcomes == [
        "caller_key_missing",
        "caller_key_invalid",
        "caller_model_not_found",
        "policy_model_forbidden",
        "caller_invalid_json",
        "caller_missing_parameter",
        "caller_unknown_path",
        "caller_method_not_allowed",
        "policy_admin_only",
        "caller_invalid_request",
    ]


@pytest.mark.both_loops
async def test_the_scrape_key_scrapes_and_nothing_else(wide: Tree, tmp_path: Path) -> None:
    async with serving(wide, tmp_path) as running:
        statuses = [
            (await running.ask("GET", path, key=key)).status
            for path, key in (
                ("/metrics/prometheus", SCRAPE_KEY),
                ("/metrics/prometheus", ADMIN_KEY),
                ("/metrics/prometheus", APP_KEY),
                ("/metrics/prometheus", None),
                ("/upstreams", SCRAPE_KEY),
                ("/v1/models", SCRAPE_KEY),
            )
        ]
    assert statuses == [200, 200, 403, 401, 401, 401]


@pytest.mark.both_loops
async def test_a_path_without_a_model_goes_where_it_is_told(wide: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.default = answer({"id": "file-1"})
    async with serving(wide, tmp_path) as running:
        replies = [
            await running.ask("GET", "/v1/files/a%2Fb?limit=2"),
            await running.ask("GET", "/v1/files", headers={"x-agw-upstream": "second"}),
            await running.ask("GET", "/v1/files", headers={"x-agw-upstream": "nobody"}),
            await running.ask("GET", "/v1/files", key=NARROW_KEY),
            await running.ask("GET", "/v1/files", key=NARROW_KEY, headers={"x-agw-upstream": "second"}),
        ]
        lines = running.receipts()
    assert [reply.status for reply in replies] == [200, 200, 400, 403, 200]
    assert [line.get("upstream") for line in lines] == ["fake", "second", None, None, "second"]
    assert "fake/*" in str(replies[3].error["message"])
    assert upstream.requests[0].target == "/v1/files/a%2Fb?limit=2"
    assert upstream.last.value("x-agw-upstream") is None


async def slowly(exchange: Exchange) -> None:
    await answer({"id": "file-1", "size": len(exchange.request.body)})(exchange)


@pytest.mark.both_loops
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_is_streamed_through(wide: Tree, upstream: Upstream, chunked: bool, tmp_path: Path) -> None:
    upstream.default = slowly
    body = b"--xyz\r\n" + bytes(range(256)) * 8192 + b"\r\n--xyz--"
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    framing = {"transfer-encoding": "chunked", "content-length": ""} if chunked else {}
    async with serving(wide, tmp_path) as running:
        reply = await running.ask("POST", "/v1/files", framed, headers={**MULTIPART, **framing})
        line = await running.receipt()
        assert (await running.gateway._edges[0].load_full()).handler._bodies.held == 0
    assert (reply.status, reply.json["size"]) == (200, len(body))
    assert (line["outcome"], line["attempts"]) == ("ok", 1)
    assert upstream.last.body == body
    assert upstream.last.value("content-type") == MULTIPART["content-type"]
    assert (upstream.last.value("transfer-encoding") == "chunked") is chunked


@pytest.mark.both_loops
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_over_the_bound_is_413(wide: Tree, upstream: Upstream, chunked: bool, tmp_path: Path) -> None:
    wide["server"]["max_body_mb"] = 1
    body = b"x" * ((1 << 20) + 1)
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    framing = {"transfer-encoding": "chunked", "content-length": ""} if chunked else {}
    async with serving(wide, tmp_path) as running:
        reply = await running.ask("POST", "/v1/files", framed, headers={**MULTIPART, **framing})
        line = await running.receipt()
        assert running.gateway.upstreams()[0].failures == 0
    assert (reply.status, line["outcome"]) == (413, "caller_body_too_large")


@pytest.mark.both_loops
async def test_an_upload_that_stalls_is_the_callers_time_out(wide: Tree, tmp_path: Path) -> None:
    wide["server"]["body_seconds"] = 0.2
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {APP_KEY}\r\nContent-Length: 100\r\n\r\n--xyz"
    async with serving(wide, tmp_path) as running:
        reply = await running.send(head.encode())
        assert (reply.status, (await running.receipt())["outcome"]) == (408, "caller_timeout")


@pytest.mark.both_loops
async def test_head_is_answered_like_get_without_a_body(wide: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.default = answer(b"", headers=(("x-none", "1"),))
    async with serving(wide, tmp_path) as running:

        def both() -> list[tuple[int, bytes]]:
            found = []
            with running.connect() as connection:
                for path in ("/health", "/v1/models", "/v1/files"):
                    connection.send("HEAD", path, None, bearer(APP_KEY))
                    reply = connection.reply("HEAD")
                    found.append((reply.status, reply.body))
                connection.send("GET", "/health")
                found.append((connection.reply("GET").status, b""))
            return found

        assert await asyncio.to_thread(both) == [(200, b"")] * 4
    assert upstream.last.method == "HEAD"


@pytest.mark.both_loops
async def test_a_target_in_absolute_form_is_the_same_endpoint(wide: Tree, tmp_path: Path) -> None:
    request = (
        f"GET http://any.example/v1/models HTTP/1.1\r\nHost: any.example\r\nAuthorization: Bearer {APP_KEY}\r\n\r\n"
    )
    async with serving(wide, tmp_path) as running:
        assert (await running.send(request.encode())).status == 200
        assert (await running.receipt())["endpoint"] == "models"


@pytest.mark.both_loops
async def test_a_path_that_is_no_path_is_404(wide: Tree, tmp_path: Path) -> None:
    async with serving(wide, tmp_path) as running:
        for target in ("*", "//v1/models", "/v1/../upstreams", "/v1/%2e%2e/upstreams", "/V1/models"):
            reply = await running.send(f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert reply.status in {404, 405}, target


@pytest.mark.both_loops
async def test_a_defect_is_a_500_that_tells_the_caller_nothing(
    wide: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(wide, tmp_path) as running:

        def broken(_: object) -> None:
            raise RuntimeError("inner words")

        monkeypatch.setattr(running.gateway, "models", broken)
        reply = await running.ask("GET", "/v1/models")
        line = await running.receipt()
        told = running.log.trees("gateway.defect")
        running.log.lines.clear()
    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert b"inner words" not in reply.body
    assert line["outcome"] == "gateway_internal"
    assert [(entry["request_id"], entry["error"]) for entry in told] == [
        (reply.request_id, "RuntimeError('inner words')")
    ]


@pytest.mark.both_loops
async def test_limits_are_taken_given_back_and_told(wide: Tree, upstream: Upstream, tmp_path: Path) -> None:
    wide["limits"] = [{"per": "global", "concurrent": 1}, {"per": "key", "requests": 3, "period": "1h"}]
    upstream.script(silence())
    async with serving(wide, tmp_path) as running:
        waiting = asyncio.create_task(running.chat())
        await asyncio.to_thread(upstream.wait)
        refused = await running.chat()
        assert (refused.status, refused.value("x-agw-error")) == (429, "policy_rate_limited")
        waiting_reply = await waiting
        assert waiting_reply.status == 504
        assert waiting_reply.value("x-ratelimit-limit-requests") == "3"
        assert (await running.chat()).status == 200
        await running.receipt(3)
        assert [line.get("rule") for line in running.receipts()] == ["global/concurrent-per-global", None, None]


@pytest.mark.both_loops
async def test_an_endpoint_that_another_dialect_has_not_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    claude = provider(upstream.url, "claude", dialect="anthropic", models=["claude-1"])
    async with serving(configuration(claude), tmp_path) as running:
        reply = await running.ask("POST", "/v1/embeddings", {"model": "claude-1", "input": "x"})
    assert (reply.status, reply.error["param"]) == (400, "model")
    assert "anthropic" in str(reply.error["message"])


@pytest.mark.both_loops
async def test_passthrough_needs_the_gateways_key_beside_the_callers_own(upstream: Upstream, tmp_path: Path) -> None:
    through = provider(upstream.url, auth="passthrough", models=["gpt-4o-mini"])
    del through["api_key"]
    async with serving(configuration(through), tmp_path) as running:
        alone = await running.chat()
        both = await running.chat(key="own-login", headers={"x-agw-key": APP_KEY})
    assert (alone.status, alone.value("x-agw-error")) == (401, "caller_key_missing")
    assert "x-agw-key" in str(alone.error["message"])
    assert both.status == 200
    assert upstream.last.value("authorization") == "Bearer own-login"
