"""What the gateway decides is the same for translated requests: tries, fallbacks, hedges, limits, budgets, caches, counts."""

from collections.abc import Iterator

import pytest

from tests.e2e.test_translation import UPSTREAMS, upstreams
from tests.e2e.test_translation_faults import (
    ERRORS,
    FORMS_OF_CLIENTS,
    GEMINI,
    TERMINATORS,
    ask,
    begun,
    body_of,
    path_of,
)
from tests.support.behaviours import answer, failure, silence, stream
from tests.support.client import Reply
from tests.support.gateway import Gateway, Tree, configuration
from tests.support.providers import SCENES, plays, spoken_at
from tests.support.published import ready
from tests.support.upstream import Behaviour, Exchange, Upstream

FREE_KEY = "agw-six-free-0c81f5a7e2d9b463"
CAPPED_KEY = "agw-six-capped-6f1b70d2c59ea384"
FEW_KEY = "agw-six-few-27ca9e50d1b8f346"
PRICE = {"model": "*", "input": 1, "output": 10, "max_output": 1000}
BUDGET = {"usd": "0.0055", "on_end": "finish", "name": "small", "alerts": []}
LONG = 2000
AFTER = {"chat": "messages", "responses": "gemini", "messages": "chat", "gemini": "responses"}
"""Who answers after whom, in the models below."""


def config(url: str) -> Tree:
    models: list[Tree] = []
    for first, then in AFTER.items():
        targets = [f"{first}/{first}-1"]
        models.append({"name": f"from-{first}", "targets": targets, "fallbacks": [f"{then}/{then}-1"]})
        models.append({"name": f"safe-{first}", "targets": targets, "last_resort": "echo"})
        models.append({"name": f"kept-{first}", "targets": targets})
        both = [*targets, f"{then}/{then}-1"]
        hedge = {"after": "50ms", "budget": 1.0}
        models.append({"name": f"racing-{first}", "targets": both, "balance": "first", "hedge": hedge})
    made = configuration(
        *upstreams(url), models=models, cache={"ttl": "1h", "models": ["kept-*"]}, prices=[PRICE],
        timeouts={"connect": "1s", "first_byte": "5s", "between_bytes": "5s", "total": "20s"},
    )  # fmt: skip
    made["keys"] += [
        {"name": "free", "key": FREE_KEY, "fallbacks": True},
        {"name": "capped", "key": CAPPED_KEY, "budgets": [{**BUDGET, "per": "model"}]},
        {"name": "few", "key": FEW_KEY, "limits": [{"per": ["key", "model"], "tokens": 1_000_000, "period": "24h"}]},
    ]
    return made


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    ready()
    with Gateway(config(shared_upstream.url)) as running:
        yield running


def split(failing: str, behaviour: Behaviour) -> Behaviour:
    """An upstream where one dialect fails and the others answer."""
    good = plays(SCENES["text"])

    async def behave(exchange: Exchange) -> None:
        await (behaviour if spoken_at(exchange.request.path) == failing else good)(exchange)

    return behave


def in_form(reply: Reply, form: str, *, streamed: bool) -> bool:
    """It is the answer "Hello world" in the caller's form, and whole."""
    marks = {"chat": b"chat.completion", "responses": b"resp", "messages": b"message", "gemini": b"candidates"}
    ends = {"chat": b"[DONE]", "responses": b"response.completed", "messages": b"message_stop", "gemini": b"STOP"}
    whole = reply.complete and marks[form] in reply.body and (not streamed or ends[form] in reply.body)
    return whole and (b"wor" in reply.body)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("first", UPSTREAMS)
@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_another_dialects_target_takes_over(
    gateway: Gateway, upstream: Upstream, client: str, first: str, *, streamed: bool
) -> None:
    then = AFTER[first]
    upstream.default = split(first, failure(500))
    reply = ask(gateway, client, f"from-{first}", streamed=streamed)
    assert reply.status == 200, reply.body
    assert in_form(reply, client, streamed=streamed), reply.body
    assert reply.value("x-agw-attempts") == f"{first}/{first}-1=upstream_failed, {then}/{then}-1=200"
    assert [spoken_at(seen.path) for seen in upstream.requests] == [first, then]
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["target"], receipt["prompt_tokens"], receipt["completion_tokens"]) == (f"{then}/{then}-1", 21, 9)


@pytest.mark.parametrize("first", UPSTREAMS)
def test_a_stream_that_begins_with_an_error_is_taken_over(gateway: Gateway, upstream: Upstream, first: str) -> None:
    upstream.default = split(first, stream([ERRORS[first]]))
    for client in FORMS_OF_CLIENTS:
        reply = ask(gateway, client, f"from-{first}", streamed=True)
        assert (reply.status, reply.complete) == (200, True), reply.body
        assert in_form(reply, client, streamed=True)


@pytest.mark.parametrize("first", UPSTREAMS)
def test_nobody_takes_over_once_words_have_gone_out(gateway: Gateway, upstream: Upstream, first: str) -> None:
    upstream.default = split(first, stream(begun(first), ending="rst"))
    for number, client in enumerate(FORMS_OF_CLIENTS, 1):
        reply = ask(gateway, client, f"from-{first}", streamed=True)
        assert (reply.status, reply.complete, len(upstream.requests)) == (200, False, number)
        assert not any(word in reply.body for word in TERMINATORS)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("first", UPSTREAMS)
@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_the_last_resort_answers_in_the_callers_form(
    gateway: Gateway, upstream: Upstream, client: str, first: str, *, streamed: bool
) -> None:
    upstream.default = failure(500)
    reply = ask(gateway, client, f"safe-{first}", streamed=streamed)
    assert reply.status == 200, reply.body
    assert reply.value("x-agw-fallback") == "echo"
    assert reply.complete
    assert b"Say hello" in reply.body or b"Say" in reply.body
    ends = {"chat": b"[DONE]", "responses": b"response.completed", "messages": b"message_stop", "gemini": b"STOP"}
    assert not streamed or ends[client] in reply.body


@pytest.mark.parametrize("first", UPSTREAMS)
def test_a_spent_account_is_left_for_another(gateway: Gateway, upstream: Upstream, first: str) -> None:
    upstream.default = split(first, failure(429, "pay first", code="insufficient_quota"))
    for number, client in enumerate(FORMS_OF_CLIENTS, 1):
        reply = ask(gateway, client, f"from-{first}")
        assert reply.status == 200, reply.body
        assert len(upstream.requests) == 2 * number, (client, reply.value("x-agw-attempts"))


@pytest.mark.parametrize("first", UPSTREAMS)
def test_a_callers_own_fallbacks_may_speak_anything(gateway: Gateway, upstream: Upstream, first: str) -> None:
    upstream.default = split(first, failure(500))
    for client in FORMS_OF_CLIENTS:
        body = body_of(client, f"{first}-1", fallbacks=[f"{AFTER[first]}-2"])
        reply = gateway.post(path_of(client, f"{first}-1"), body, key=FREE_KEY)
        assert reply.status == 200, reply.body
        assert in_form(reply, client, streamed=False)
        assert all(b"fallbacks" not in seen.body for seen in upstream.requests)


@pytest.mark.parametrize("first", UPSTREAMS)
def test_a_hedge_may_speak_another_dialect(gateway: Gateway, upstream: Upstream, first: str) -> None:
    upstream.default = split(first, silence())
    for client in FORMS_OF_CLIENTS:
        reply = ask(gateway, client, f"racing-{first}", streamed=True)
        assert reply.status == 200, reply.body
        assert in_form(reply, client, streamed=True)
        then = AFTER[first]
        assert reply.value("x-agw-attempts") == f"{first}/{first}-1=hedged_lost, {then}/{then}-1=200"
        assert gateway.receipt(reply.request_id)["prompt_tokens"] == 21


@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_limits_count_what_a_relayed_request_would(gateway: Gateway, upstream: Upstream, client: str) -> None:
    upstream.default = plays(SCENES["text"])
    spent = {}
    for spoken in UPSTREAMS:
        for streamed in (False, True):
            path = path_of(client, f"{spoken}-7", streamed=streamed)
            body = body_of(client, f"{spoken}-7", streamed=streamed)
            reply = gateway.post(path, body, key=FEW_KEY, headers={"x-request-id": f"few-{client}-{spoken}-{streamed}"})
            assert reply.status == 200, reply.body
            line = gateway.receipt(reply.request_id)
            spent[spoken, streamed] = (
                line["prompt_tokens"],
                line["completion_tokens"],
                line["cached_tokens"],
                line["cost"],
            )
            assert line["finish_reason"], line
    assert set(spent.values()) == {spent["chat", False]}
    assert spent["chat", False][:3] == (21, 9, 8)


def long_stream(spoken: str) -> Behaviour:
    """A stream of LONG words of a token each, which has no end."""
    found = begun(spoken)
    word = found[-1].replace(b"Hel", b"a ")
    return stream([*found[:-1], *[word] * LONG], ending="hang")


ENDED = {"chat": b'"length"', "responses": b"response.incomplete", "messages": b"max_tokens", "gemini": b"MAX_TOKENS"}


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_a_budget_ends_a_translated_stream_well_formed(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str
) -> None:
    model = f"{spoken}-{client}"
    upstream.default = long_stream(spoken)
    path, body = path_of(client, model, streamed=True), body_of(client, model, streamed=True)
    if client == "messages":
        body["max_tokens"] = 4000
    reply = gateway.post(path, body, key=CAPPED_KEY)
    assert (reply.status, reply.complete) == (200, True), reply.body[-300:]
    assert ENDED[client] in reply.body[-3000:] if client != "responses" else ENDED[client] in reply.body
    assert b'"agw":{"reason":"budget","rule":"keys.capped/small"}' in reply.body
    upstream.wait_gone(upstream.requests[-1])
    line = gateway.receipt(reply.request_id)
    assert (line["outcome"], line["rule"]) == ("ok", "keys.capped/small")
    assert 500 <= line["completion_tokens"] <= 520


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_a_kept_answer_is_the_same_and_tells_what_was_dropped(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str
) -> None:
    upstream.default = plays(SCENES["text"])
    own: Tree = {"messages": {"top_k": 3}, "gemini": {"safetySettings": [{"category": "C", "threshold": "T"}]}}
    odd = own.get(client, {"metadata": {"a": "b"}})
    for streamed in (False, True):
        replies = [ask(gateway, client, f"kept-{spoken}", streamed=streamed, **odd) for _ in range(3)]
        assert [reply.value("x-agw-cache") for reply in replies] == ["miss", "hit", "hit"]
        assert {reply.body for reply in replies} == {replies[0].body}
        assert len({reply.value("x-agw-dropped") for reply in replies}) == 1
    assert len(upstream.requests) == 2
    lost = {("messages", "chat"), ("messages", "responses"), ("chat", "messages"), ("responses", "messages")}
    lost |= {("chat", "gemini"), ("responses", "gemini")}
    lost |= {("gemini", "chat"), ("gemini", "responses"), ("gemini", "messages")}
    assert (replies[0].value("x-agw-dropped") is not None) == ((client, spoken) in lost)


@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_an_idempotent_request_is_run_once(gateway: Gateway, upstream: Upstream, spoken: str) -> None:
    upstream.default = plays(SCENES["text"])
    for client in FORMS_OF_CLIENTS:
        before = len(upstream.requests)
        path, body = path_of(client, f"{spoken}-1", streamed=True), body_of(client, f"{spoken}-1", streamed=True)
        headers = {"Idempotency-Key": f"once-{client}-{spoken}"}
        first, again = (gateway.post(path, body, headers=headers) for _ in range(2))
        assert (first.status, again.status) == (200, 200), again.body
        assert first.body == again.body
        assert again.value("idempotent-replayed") == "true"
        assert len(upstream.requests) == before + 1


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_what_is_explained_is_what_happens(gateway: Gateway, upstream: Upstream, client: str, spoken: str) -> None:
    upstream.default = plays(SCENES["text"])
    model = f"from-{spoken}"
    path, body = path_of(client, model), body_of(client, model)
    asked = {"request": body, "path": path, "headers": {}}
    told = gateway.post("/explain", asked).json
    reply = gateway.post(path, body)
    line = gateway.receipt(reply.request_id)
    assert told["outcome"] == "ok", told
    assert told["model"] == model
    assert told["plan"] == [f"{spoken}/{spoken}-1", f"{AFTER[spoken]}/{AFTER[spoken]}-1"]
    assert told["lane"] == {"lane": line["lane"], "reason": line.get("lane_reason")}


def test_a_model_of_googles_is_explained_without_a_path(gateway: Gateway) -> None:
    told = gateway.post("/explain", {"request": body_of("chat", "gemini-1")})
    assert (told.status, told.json["endpoint"]) == (200, "chat_completions")


def test_tokens_are_counted_by_nobody_who_would_answer(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = failure(500)
    counts = {"gemini": f"{GEMINI}/from-gemini:countTokens", "messages": "/v1/messages/count_tokens"}
    for client, path in counts.items():
        body = body_of(client, f"from-{client}")
        body.pop("max_tokens", None)
        body.pop("stream", None)
        reply = gateway.post(path, body)
        assert reply.status == 502, reply.body
        assert {spoken_at(seen.path.removesuffix("/count_tokens")) for seen in upstream.requests} == {client}
        upstream.reset()
        upstream.default = failure(500)
        other = "chat"
        told = gateway.post(
            path.replace(f"from-{client}", f"{other}-1"),
            {**body, "model": f"{other}-1"} if client == "messages" else body,
        )
        assert told.status == 200, told.body
        assert upstream.requests == []


def test_sessions_and_users_are_known_in_each_form(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(SCENES["text"])
    for client in FORMS_OF_CLIENTS:
        headers = {"x-user-id": "ann", "x-session-id": "s-1", "x-request-id": f"user-{client}"}
        gateway.post(path_of(client, "messages-1"), body_of(client, "messages-1"), headers=headers)
        assert gateway.receipt(f"user-{client}")["user"] == "ann"
        assert "x-session-id" not in {name.lower() for name, _ in upstream.last.headers}


def test_fallbacks_alone_leave_an_empty_request(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = answer({"error": {"code": 400, "message": "nothing asked", "status": "X"}}, status=400)
    reply = gateway.post(f"{GEMINI}/gemini-1:generateContent", {"fallbacks": ["chat-1"]}, key=FREE_KEY)
    assert (reply.status, upstream.last.body) == (400, b"{}")
