"""The cache: the same request gets the same bytes, for nothing; and only what is a whole and good answer is kept."""

import itertools
import time
from collections.abc import Iterator

import pytest

from tests.support.behaviours import DONE, answer, event, failure, stream
from tests.support.client import Reply
from tests.support.fake_openai import chunk, completion, spoken, usage_event, words
from tests.support.gateway import Gateway, Tree, configuration, provider
from tests.support.upstream import Upstream

OTHER = "agw-bench-other-3c8f7e15d2a964b0"
NARROW = "agw-bench-narrow-71d3a0c6e98b524f"
THRIFTY = "agw-bench-thrifty-5e0b92d7c1f8436a"
FEW = "agw-bench-few-0d4a8e61b7c935f2"
NUMBERS = itertools.count()
CHOICE: Tree = {"index": 0, "message": {"role": "assistant", "content": "cut"}}
PER_REQUEST = {"x-request-id", "server-timing", "date", "age", "x-agw-cache", "connection", "transfer-encoding"}


def cached(url: str, **cache: object) -> Tree:
    # Calls are held up on purpose.
    patient = {"connect": "1s", "first_byte": "10s", "between_bytes": "10s", "total": "20s"}
    config = configuration(provider(url), cache={"ttl": "1h", **cache}, timeouts=patient)
    config["keys"] += [
        {"name": "other", "key": OTHER, "models": ["*"]},
        {"name": "narrow", "key": NARROW, "models": ["gpt-4o"]},
        {"name": "thrifty", "key": THRIFTY, "limits": [{"per": "key", "tokens": 100, "period": "1h"}]},
        {"name": "few", "key": FEW, "limits": [{"per": "key", "requests": 2, "period": "1h"}]},
    ]
    config["models"] = [{"name": "fresh", "targets": [{"upstream": "fake", "model": "gpt-4o"}], "cache": False}]
    return config


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(cached(shared_upstream.url)) as running:
        yield running


def fresh() -> list[Tree]:
    """A conversation that nobody has had."""
    return [{"role": "user", "content": f"question {next(NUMBERS)}"}]


def stable(reply: Reply) -> dict[str, str]:
    return {name.lower(): value for name, value in reply.headers if name.lower() not in PER_REQUEST}


@pytest.mark.parametrize("streamed", [False, True])
def test_the_same_request_gets_the_same_bytes_and_the_upstream_is_asked_once(
    gateway: Gateway, upstream: Upstream, streamed: bool
) -> None:
    asked = fresh()
    first = gateway.chat(messages=asked, stream=streamed)
    again = gateway.chat(messages=asked, stream=streamed)
    assert (first.status, first.value("x-agw-cache")) == (200, "miss")
    assert (again.status, again.value("x-agw-cache")) == (200, "hit")
    assert again.body == first.body != b""
    assert {**stable(again), "content-length": ""} == {**stable(first), "content-length": ""}
    assert again.request_id != first.request_id
    assert again.value("age") == "0"
    assert len(upstream.requests) == 1
    line = gateway.receipt(again.request_id)
    assert line["cache"] == "hit"
    assert "prompt_tokens" not in line
    assert line.get("attempts", 0) == 0


def test_a_stream_is_replayed_as_a_stream_and_a_whole_answer_as_one(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    for streamed in (True, False, True, False):
        reply = gateway.chat(messages=asked, stream=streamed)
        assert reply.value("content-type") == ("text/event-stream" if streamed else "application/json")
        assert reply.body.endswith(DONE) is streamed
    assert len(upstream.requests) == 2


def test_usage_is_told_to_those_who_ask_for_it(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    told = [gateway.chat(messages=asked, stream=True, stream_options={"include_usage": True}).body for _ in range(2)]
    untold = [gateway.chat(messages=asked, stream=True).body for _ in range(2)]
    assert told[0] == told[1]
    assert untold[0] == untold[1]
    assert (b'"usage":{' in told[0], b'"usage":{' in untold[0]) == (True, False)
    assert len(upstream.requests) == 2


def test_spelling_and_who_asks_do_not_count_and_everything_else_does(gateway: Gateway, upstream: Upstream) -> None:
    text = f"question {next(NUMBERS)}"
    same = [
        f'{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{text}"}}],"temperature":0}}',
        f'{{ "temperature": 0, "messages": [{{"content": "{text}", "role": "user"}}], "model": "gpt-4o-mini" }}',
        f'{{"model":"gpt-4o-mini","stream":false,"user":"u1","messages":[{{"role":"user","content":"{text}"}}],"temperature":0}}',
        f'{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"\\u0071{text[1:]}"}}],"temperature":0,"metadata":{{"a":"b"}}}}',
    ]
    told = [gateway.post("/v1/chat/completions", body.encode()).value("x-agw-cache") for body in same]
    assert told == ["miss", "hit", "hit", "hit"]
    others: list[Tree] = [
        {"temperature": 1},
        {"temperature": 0, "seed": 1},
        {"temperature": 0, "max_tokens": 3},
        {"temperature": 0, "model": "gpt-4o"},
    ]
    for members in others:
        reply = gateway.chat(**{"messages": [{"role": "user", "content": text}], **members})
        assert reply.value("x-agw-cache") == "miss", members
    assert len(upstream.requests) == 1 + len(others)


@pytest.mark.parametrize(
    "members",
    [
        {"store": True},
        {"web_search_options": {}},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "mystery"}]},
    ],
)
def test_what_has_effects_beside_its_answer_is_never_kept(gateway: Gateway, upstream: Upstream, members: Tree) -> None:
    asked = fresh()
    told = [gateway.chat(messages=asked, **members).value("x-agw-cache") for _ in range(2)]
    assert told == ["bypass", "bypass"]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("body", [b'{"model":"gpt-4o-mini","messages":[{"role":"user","role":"user"}]}'])
def test_a_member_named_twice_could_mean_two_things_and_is_kept_apart(
    gateway: Gateway, upstream: Upstream, body: bytes
) -> None:
    told = [gateway.post("/v1/chat/completions", body).value("x-agw-cache") for _ in range(2)]
    assert told == ["bypass", "bypass"]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    "behaviour",
    [
        failure(400),
        answer({"error": {"message": "no"}}),
        answer({**completion(), "choices": [{**CHOICE, "finish_reason": "length"}]}),
        answer(completion(), content_type="text/plain"),
        stream([*words()[:-1], chunk({}, "length"), DONE]),
        stream([*words()[:-1], chunk({}, "content_filter"), DONE]),
        stream(words()[:2], ending="fin"),
        stream([*words()[:2], event({"error": {"message": "later"}})]),
    ],
    ids=["400", "error in 200", "length", "text", "length in a stream", "filtered", "cut", "error in a stream"],
)
def test_only_whole_and_good_answers_are_kept(gateway: Gateway, upstream: Upstream, behaviour: object) -> None:
    asked = fresh()
    upstream.script(behaviour)  # type: ignore[arg-type]
    streamed = getattr(behaviour, "__qualname__", "").startswith("stream")
    gateway.chat(messages=asked, stream=streamed)
    assert gateway.chat(messages=asked, stream=streamed).value("x-agw-cache") == "miss"
    assert len(upstream.requests) == 2


def test_each_key_has_answers_of_its_own(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    told = [gateway.chat(messages=asked, key=key).value("x-agw-cache") for key in (gateway.key, OTHER, OTHER)]
    assert told == ["miss", "miss", "hit"]
    assert len(upstream.requests) == 2


def test_shared_answers_go_only_to_keys_that_may_use_the_model(shared_upstream: Upstream, upstream: Upstream) -> None:
    asked = fresh()
    with Gateway(cached(shared_upstream.url, scope="shared")) as gateway:
        told = [gateway.chat(messages=asked, key=key).value("x-agw-cache") for key in (gateway.key, OTHER, gateway.key)]
        assert told == ["miss", "hit", "hit"]
        refused = gateway.chat(messages=asked, key=NARROW)
        assert (refused.status, refused.value("x-agw-cache")) == (403, None)
    assert len(upstream.requests) == 1


def test_a_model_can_say_no_for_itself(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    for _ in range(2):
        assert gateway.chat(messages=asked, model="fresh").value("x-agw-cache") is None
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("headers", "told", "asked_upstream"),
    [
        ({"cache-control": "no-cache"}, ["hit", "miss", "hit"], 1),
        ({"x-agw-cache": "refresh"}, ["hit", "miss", "hit"], 1),
        ({"cache-control": "no-store"}, ["hit", "bypass", "hit"], 1),
        ({"x-agw-cache": "off"}, ["hit", "bypass", "hit"], 1),
        ({"cache-control": "max-age=0, private"}, ["hit", "miss", "hit"], 1),
        ({"cache-control": "max-age=1000"}, ["hit", "hit", "hit"], 0),
        ({"cache-control": "only-if-cached"}, ["hit", "hit", "hit"], 0),
        ({"x-agw-cache": "only"}, ["hit", "hit", "hit"], 0),
        ({"cache-control": "only-if-cached, no-store", "x-agw-cache": "only"}, ["hit", "hit", "hit"], 0),
    ],
)
def test_callers_have_a_say(
    gateway: Gateway, upstream: Upstream, headers: dict[str, str], told: list[str], asked_upstream: int
) -> None:
    asked = fresh()
    gateway.chat(messages=asked)
    upstream.reset()
    if "max-age=0" in str(headers):  # a second is the unit: what is younger than one is 0 old
        gateway.until(lambda: gateway.chat(messages=asked).value("age") not in {None, "0"}, "it does not age")
    replies = [gateway.chat(messages=asked, headers=more) for more in ({}, headers, {})]
    assert [reply.value("x-agw-cache") for reply in replies] == told
    assert len(upstream.requests) == asked_upstream


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"cache-control": "only-if-cached"}, False),
        ({"x-agw-cache": "only"}, False),
        ({"cache-control": "no-cache, only-if-cached"}, True),
        ({"cache-control": "only-if-cached, no-store"}, True),
    ],
)
def test_who_wants_a_kept_answer_only_is_told_that_there_is_none(
    gateway: Gateway, upstream: Upstream, headers: dict[str, str], kept: bool
) -> None:
    asked = fresh()
    if kept:
        assert gateway.chat(messages=asked).status == 200
        upstream.reset()
    reply = gateway.chat(messages=asked, headers=headers)
    assert (reply.status, reply.error["code"], reply.value("x-should-retry")) == (504, "not_cached", "false")
    assert upstream.requests == []


def test_another_word_in_our_header_is_an_error(gateway: Gateway) -> None:
    reply = gateway.chat(messages=fresh(), headers={"x-agw-cache": "please"})
    assert (reply.status, reply.error["param"]) == (400, "x-agw-cache")


def test_a_kept_answer_takes_no_tokens_and_counts_as_a_request(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    left = [
        gateway.chat(messages=asked, key=THRIFTY, max_tokens=20).value("x-ratelimit-remaining-tokens") for _ in range(3)
    ]
    assert left[1] == left[2] == str(100 - 18)
    asked = fresh()
    counted = [gateway.chat(messages=asked, key=FEW) for _ in range(3)]
    assert [reply.status for reply in counted] == [200, 200, 429]
    assert [reply.value("x-ratelimit-remaining-requests") for reply in counted] == ["1", "0", "0"]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    "headers", [{"x-agw-cache": "off"}, {"idempotency-key": "refused"}, {"x-agw-cache": "refresh"}]
)
def test_what_the_limits_refuse_is_nothing_to_the_cache(upstream: Upstream, headers: dict[str, str]) -> None:
    config = cached(upstream.url)
    config["keys"] = [{"name": "one", "key": FEW, "limits": [{"requests": 1, "period": "1h"}]}]
    with Gateway(config) as gateway:
        gateway.chat(key=FEW)
        refused = gateway.chat(key=FEW, headers=headers)
        assert (refused.status, refused.value("x-agw-cache")) == (429, None)
        assert "cache" not in gateway.receipt(refused.request_id)


def test_an_answer_expires(shared_upstream: Upstream, upstream: Upstream) -> None:
    asked = fresh()
    with Gateway(cached(shared_upstream.url, ttl="300ms")) as gateway:
        gateway.chat(messages=asked)
        begun = time.monotonic()
        gateway.until(lambda: gateway.chat(messages=asked).value("x-agw-cache") == "miss", "it never expires")
        assert time.monotonic() - begun >= 0.2


def test_the_least_used_goes_first_and_bytes_are_bounded(shared_upstream: Upstream, upstream: Upstream) -> None:
    long = completion("x" * 300_000)
    upstream.default = answer(long)
    with Gateway(cached(shared_upstream.url, max_mb=1)) as gateway:
        asked = [fresh() for _ in range(4)]
        for one in asked[:3]:
            gateway.chat(messages=one)
        assert gateway.chat(messages=asked[0]).value("x-agw-cache") == "hit"
        gateway.chat(messages=asked[3])  # takes the place of the second
        told = [gateway.chat(messages=one).value("x-agw-cache") for one in (asked[0], asked[3], asked[2], asked[1])]
        assert told == ["hit", "hit", "hit", "miss"]
        shown = gateway.get("/metrics", key=gateway.admin_key).json
        assert isinstance(shown, dict)
        text = gateway.get("/metrics/prometheus", key=gateway.admin_key).body.decode()
        size = next(float(line.split()[1]) for line in text.splitlines() if line.startswith("agw_cache_bytes "))
        assert 600_000 < size <= 1 << 20
        assert 'agw_cache_total{outcome="hit"} 4.0' in text
        assert 'agw_cache_total{outcome="stored"} 5.0' in text


def test_answers_over_the_bound_are_passed_on_and_not_kept(shared_upstream: Upstream, upstream: Upstream) -> None:
    upstream.default = answer(completion("x" * 5000))
    with Gateway(cached(shared_upstream.url, max_answer_kb=4)) as gateway:
        asked = fresh()
        replies = [gateway.chat(messages=asked) for _ in range(2)]
        assert [reply.value("x-agw-cache") for reply in replies] == ["miss", "miss"]
        assert replies[0].body == replies[1].body


@pytest.mark.parametrize(
    ("path", "body", "reply"),
    [
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a"}, None),
        (
            "/v1/completions",
            {"model": "gpt-4o", "prompt": "a"},
            answer({"choices": [{"text": "b", "finish_reason": "stop"}]}),
        ),
        ("/v1/moderations", {"input": "a"}, answer({"id": "modr-1", "results": []})),
        (
            "/v1/responses",
            {"model": "gpt-4o", "input": "a"},
            answer({"object": "response", "status": "completed", "error": None}),
        ),
    ],
)
def test_every_kind_of_answer_can_be_kept(
    gateway: Gateway, upstream: Upstream, path: str, body: Tree, reply: object
) -> None:
    if reply is not None:
        upstream.script(reply)  # type: ignore[arg-type]
    replies = [gateway.post(path, body) for _ in range(2)]
    assert [one.value("x-agw-cache") for one in replies] == ["miss", "hit"], replies[0].body
    assert replies[0].body == replies[1].body


@pytest.mark.parametrize(
    "member", [{"previous_response_id": "r"}, {"conversation": "c"}, {"background": True}, {"store": True}]
)
def test_responses_with_state_are_never_kept(gateway: Gateway, upstream: Upstream, member: Tree) -> None:
    upstream.script(answer({"object": "response", "status": "completed"}))
    reply = gateway.post("/v1/responses", {"model": "gpt-4o", "input": "a", **member})
    assert (reply.status, reply.value("x-agw-cache")) == (200, "bypass")


def test_a_reload_keeps_the_answers_unless_their_settings_change(shared_upstream: Upstream, upstream: Upstream) -> None:
    asked = fresh()
    with Gateway(cached(shared_upstream.url)) as gateway:
        gateway.chat(messages=asked)
        assert gateway.post("/security/refresh", key=gateway.admin_key).status == 200
        assert gateway.chat(messages=asked).value("x-agw-cache") == "hit"
        gateway.write(cached(shared_upstream.url, ttl="2h"))
        assert gateway.post("/security/refresh", key=gateway.admin_key).status == 200
        assert gateway.chat(messages=asked).value("x-agw-cache") == "miss"


def test_disk_keeps_answers_over_a_restart_and_for_all_workers(shared_upstream: Upstream, upstream: Upstream) -> None:
    asked = fresh()
    config = cached(shared_upstream.url, backend="disk")
    config["server"]["workers"] = 2
    with Gateway(config) as gateway:
        first = gateway.chat(messages=asked, stream=True)
        gateway.until(lambda: gateway.chat(messages=asked, stream=True).value("x-agw-cache") == "hit", "never kept")
        before = len(upstream.requests)
        gateway.stop()
        gateway.start()
        replies = [gateway.chat(messages=asked, stream=True) for _ in range(8)]
        assert {reply.value("x-agw-cache") for reply in replies} == {"hit"}
        assert {reply.body for reply in replies} == {first.body}
        assert len(upstream.requests) == before


def test_a_file_of_kept_answers_that_is_none_is_told_and_costs_nobody_an_answer(shared_upstream: Upstream) -> None:
    with Gateway(cached(shared_upstream.url, backend="disk")) as gateway:
        gateway.stop()
        folder = gateway.folder / "home" / "state" / "agw" / "cache"
        folder.mkdir(parents=True)
        (folder / "cache.db").write_bytes(b"no database" * 1000)
        gateway.start()
        replies = [gateway.chat(messages=fresh()) for _ in range(3)]
        assert [(reply.status, reply.value("x-agw-cache")) for reply in replies] == [(200, "miss")] * 3
        named = lambda: [line for line in gateway.logs() if line["event"] == "store.not_usable"]  # noqa: E731
        told = gateway.until(named, "nothing was told")
        assert [(line["level"], line["path"]) for line in told] == [("warning", str(folder))]
        assert "not a database" in str(told[0]["error"])


def test_a_usage_event_that_nobody_asked_for_stays_out_of_the_kept_stream(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    upstream.script(stream([b"".join([*spoken(usage=True)])]))
    replies = [gateway.chat(messages=asked, stream=True) for _ in range(2)]
    assert [reply.value("x-agw-cache") for reply in replies] == ["miss", "hit"]
    assert replies[0].body == replies[1].body
    assert usage_event() not in replies[0].body
    assert gateway.receipt(replies[0].request_id)["completion_tokens"] == 7
