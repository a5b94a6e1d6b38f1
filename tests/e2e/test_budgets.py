"""Budgets: reserved for the worst case, settled by what was used, kept over restarts, never crossed by much."""

import concurrent.futures
import signal

import pytest

from tests.support.behaviours import answer, stream
from tests.support.client import Reply
from tests.support.fake_openai import completion, spoken
from tests.support.gateway import ADMIN_KEY, Gateway, Tree, configuration, provider
from tests.support.upstream import Upstream, unreachable

KEY = "agw-budget-cy-5d2b90e7a41c38f6"
# A token of the prompt costs 1 micro-dollar, one of the answer 10; an answer may be of 1,000 tokens.
PRICE = {"model": "gpt-4o-mini", "input": 1, "output": 10, "max_output": 1000}
USED = {"prompt_tokens": 100, "completion_tokens": 90, "total_tokens": 190}  # 1,000 micro-dollars
SPENDING = {**completion(), "usage": USED}


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings(upstream: Upstream, lane: str, *budgets: Tree, workers: int = 1, **more: object) -> Tree:
    claude = provider(upstream.url, "claude", dialect="anthropic", models=["claude-*"])
    config = configuration(
        provider(upstream.url),
        {**claude, "base_url": upstream.url},
        server={"port": 0, "drain_seconds": 1, "body_seconds": 1, "lane": lane, "workers": workers},
        prices=[PRICE, {"model": "claude-*", "input": 1, "output": 10, "max_output": 1000}],
        **more,
    )
    config["keys"].append({"name": "cy", "key": KEY, "budgets": list(budgets)})
    upstream.reset()
    upstream.default = answer(SPENDING)
    return config


def refused(reply: Reply) -> None:
    assert reply.status == 429, reply.body
    assert (reply.error["type"], reply.error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert reply.value("x-agw-error") == "policy_budget_spent"
    assert reply.value("x-should-retry") == "false"


def test_a_budget_is_spent_by_what_calls_cost(upstream: Upstream, lane: str) -> None:
    with Gateway(settings(upstream, lane, {"usd": "0.0155", "period": "month"})) as gateway:
        for _ in range(5):
            reply = gateway.chat(key=KEY)
            assert reply.status == 200  # 10,000 and some are reserved for each, 1,000 are spent
            assert gateway.receipts(reply.request_id)[0]["cost"] == 1000
        late = gateway.chat(key=KEY)
        if late.status == 200:
            late = gateway.chat(key=KEY)
        refused(late)
        told = str(late.error["message"])
        assert "'keys.cy/budget-per-key-month'" in told
        assert "$0.0155 a month" in told
        assert "until 20" in told
        assert gateway.chat(key=KEY, max_tokens=200).status == 200, "a smaller one still fits"


def test_anthropics_clients_get_its_status_for_it(upstream: Upstream, lane: str) -> None:
    with Gateway(settings(upstream, lane, {"usd": "0.001"})) as gateway:
        body = {"model": "claude-x", "max_tokens": 900, "messages": [{"role": "user", "content": "hi"}]}
        reply = gateway.post("/v1/messages", body, key=KEY)
        assert reply.status == 402
        assert reply.error["type"] == "billing_error"
        assert reply.value("x-should-retry") == "false"
        assert upstream.requests == []


def test_a_model_without_a_price_is_refused_where_the_budget_says_so(upstream: Upstream, lane: str) -> None:
    strict = {"usd": 1, "unpriced": "refuse"}
    config = settings(upstream, lane, strict)
    config["upstreams"].append(provider("http://unpriced.example", "far", models=["mystery-*"]))
    with Gateway(config) as gateway:
        reply = gateway.chat(key=KEY, model="mystery-1")
        assert (reply.status, reply.error["code"]) == (403, "model_unpriced")
        assert gateway.chat(key=KEY, max_tokens=9).status == 200


def test_each_prompt_of_a_list_has_an_answer_to_pay_for(upstream: Upstream, lane: str) -> None:
    with Gateway(settings(upstream, lane, {"usd": "0.0155"})) as gateway:
        body = {"model": "gpt-4o-mini", "prompt": ["one", "two"], "max_tokens": 900}
        refused(gateway.post("/v1/completions", body, key=KEY))
        assert upstream.requests == []
        assert gateway.post("/v1/completions", {**body, "prompt": ["one"]}, key=KEY).status == 200


def test_tokens_are_counted_for_nothing(upstream: Upstream, lane: str) -> None:
    config = settings(upstream, lane, {"usd": 1})
    config["prices"][1]["request"] = "0.01"
    with Gateway(config) as gateway:
        body = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]}
        upstream.script(answer({"input_tokens": 500}))
        reply = gateway.post("/v1/messages/count_tokens", body, key=KEY)
        assert reply.status == 200
        assert gateway.receipts(reply.request_id)[0]["cost"] == 0
        told = gateway.get("/usage?group=key", key=KEY).json["total"]
        assert isinstance(told, dict)
        assert (told["requests"], told["cost_micro_usd"], told["unpriced"]) == (1, 0, 0)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_spent_outlives_the_gateway(upstream: Upstream, how: signal.Signals, workers: int) -> None:
    config = settings(upstream, "auto", {"usd": "0.0105", "period": "week"}, workers=workers)
    with Gateway(config) as gateway:
        reply = gateway.chat(key=KEY, max_tokens=900)
        assert reply.status == 200
        gateway.receipts(reply.request_id)
        refused(gateway.chat(key=KEY, max_tokens=980))
        gateway.stop(how)
        gateway.start()
        refused(gateway.chat(key=KEY, max_tokens=980))
        assert gateway.chat(key=KEY, max_tokens=800).status == 200


def test_streams_side_by_side_never_cross_it(upstream: Upstream, lane: str) -> None:
    """Each reserves for its longest answer, so all that are let in together fit."""
    usage = stream(spoken(usage=True))
    with Gateway(settings(upstream, lane, {"usd": "0.05", "period": "day"}, workers=2)) as gateway:
        upstream.default = usage
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(gateway.chat, key=KEY, stream=True, max_tokens=990) for _ in range(60)]
            replies = [item.result() for item in asked]
        good = [reply for reply in replies if reply.status == 200]
        spent = sum(gateway.receipts(reply.request_id)[0]["cost"] for reply in good)
        assert good
        assert {reply.status for reply in replies} <= {200, 429}
        assert spent <= 50_000


@pytest.mark.parametrize(("usd", "looked"), [("1000", False), ("0.5", True)])
def test_prompts_are_looked_at_unless_there_is_money_for_thousands_like_them(
    upstream: Upstream, usd: str, looked: bool
) -> None:
    """The last one has other words than those before, which an estimate by its size alone can't tell."""
    with Gateway(settings(upstream, "auto", {"usd": usd})) as gateway:

        def cost(text: str, told: bool = True) -> int:
            upstream.script(answer(SPENDING if told else {**completion(), "usage": None}))
            reply = gateway.chat(key=KEY, max_tokens=10, messages=[{"role": "user", "content": text}])
            receipt = gateway.receipts(reply.request_id)[0]
            assert (reply.status, receipt["lane"]) == (200, "fast")
            return int(receipt["cost"])

        for _ in range(20):
            assert cost("many words " * 180) == 1000
        answered = 10 * 10  # as long as it might be, where the upstream tells nothing
        assert (cost("12,34;" * 330, told=False) - answered > 150) is looked
        assert 90 <= cost("many words " * 180, told=False) - answered <= 110


def test_a_duration_rolls_and_a_team_shares(upstream: Upstream, lane: str) -> None:
    config = settings(upstream, lane, teams=[{"name": "red", "budgets": [{"usd": "0.0105", "period": "30d"}]}])
    other = "agw-budget-dee-5d2b90e7a41c38f6"
    config["keys"][-1]["team"] = "red"
    config["keys"].append({"name": "dee", "key": other, "team": "red"})
    with Gateway(config) as gateway:
        first = gateway.chat(key=KEY, max_tokens=900)
        gateway.receipts(first.request_id)
        late = gateway.chat(key=other, max_tokens=980)
        refused(late)
        assert "$0.0105 in 720h" in str(late.error["message"])


@pytest.mark.parametrize("workers", [1, 2])
def test_marks_are_told_once_to_the_log_and_the_webhook(upstream: Upstream, workers: int) -> None:
    budget = {"usd": "0.0101", "period": "month", "alerts": [0.35, 1.0]}
    with Upstream() as listener:
        listener.default = answer({})
        alerts = {"webhook": f"{listener.url}/hook", "headers": {"x-token": "webhook-token"}}
        with Gateway(settings(upstream, "auto", budget, workers=workers, alerts=alerts)) as gateway:
            for _ in range(9):
                reply = gateway.chat(key=KEY, max_tokens=100)
                assert reply.status == 200
                gateway.receipts(reply.request_id)
            refused(gateway.chat(key=KEY, max_tokens=900))
            listener.wait(2)
            gateway.until(
                lambda: [line["share"] for line in gateway.logs() if line["event"] == "budget.alert"] == [0.35, 1.0],
                "the log does not tell of both marks once",
            )
        sent = [request.json for request in listener.requests]
        assert [(tree["budget"], tree["share"], tree["key"]) for tree in sent] == [
            ("keys.cy/budget-per-key-month", 0.35, "cy"),
            ("keys.cy/budget-per-key-month", 1.0, "cy"),
        ]
        assert sent[0]["used_usd"] == 0.004
        assert {request.target for request in listener.requests} == {"/hook"}
        assert dict(listener.requests[0].headers)["x-token"] == "webhook-token"


def test_a_webhook_that_is_away_stops_nothing(upstream: Upstream) -> None:
    with unreachable() as nowhere:
        config = settings(upstream, "auto", {"usd": "0.01", "alerts": [0.1]}, alerts={"webhook": nowhere})
        with Gateway(config) as gateway:
            assert [gateway.chat(key=KEY, max_tokens=100).status for _ in range(3)] == [200, 200, 200]
            told = "agw_dropped_total"
            gateway.until(
                lambda: (
                    f'{told}{{what="alert"}} 1.0' in gateway.get("/metrics/prometheus", key=ADMIN_KEY).body.decode()
                ),
                "the alert was not counted as dropped",
                seconds=20,
            )


def test_counting_a_prompts_tokens_is_free(upstream: Upstream, lane: str) -> None:
    config = settings(upstream, lane, {"usd": "0.0001"})
    config["prices"] = [{"model": "*", "input": 1, "output": 10, "max_output": 1000, "request": 1}]
    with Gateway(config) as gateway:
        upstream.default = answer({"input_tokens": 4000})
        body = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]}
        found = [gateway.post("/v1/messages/count_tokens", body, key=KEY).status for _ in range(3)]
        assert found == [200, 200, 200]
        assert gateway.post("/v1/messages", body, key=KEY).status == 402
