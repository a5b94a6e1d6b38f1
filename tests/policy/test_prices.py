"""Which price counts for a target, and that the shipped table says what it means to."""

import re

import pytest
from pydantic import TypeAdapter

from agw_proxy._hot.money import Tariff
from agw_proxy.config.allowances import Price
from agw_proxy.config.settings import Upstream
from agw_proxy.policy.prices import FREE, Prices, Row, is_near, shipped


def upstream(name: str, url: str) -> Upstream:
    return Upstream.model_validate({"name": name, "base_url": url})


UPSTREAMS = (
    upstream("openai", "https://api.openai.com/v1"),
    upstream("claude", "https://api.anthropic.com"),
    upstream("groq", "https://api.groq.com/openai/v1"),
    upstream("azure", "https://mine.openai.azure.com/openai/v1"),
    upstream("vertex", "https://us-central1-aiplatform.googleapis.com/v1"),
    upstream("bedrock", "https://bedrock-runtime.us-east-1.amazonaws.com"),
    upstream("balancer", "https://mine.eu-west-1.elb.amazonaws.com/v1"),
    upstream("router", "https://openrouter.ai/api/v1"),
    upstream("here", "http://127.0.0.1:11434/v1"),
    upstream("vllm", "http://10.1.2.3:8000/v1"),
    upstream("lmstudio", "http://lmstudio:1234/v1"),
    upstream("else", "https://models.example.com/v1"),
)


def prices(*own: dict[str, object]) -> Prices:
    return Prices(TypeAdapter(tuple[Price, ...]).validate_python(own), UPSTREAMS)


@pytest.mark.parametrize(
    ("where", "model", "dollars"),
    [
        ("openai", "gpt-4o-mini", (0.15, 0.075, 0.6)),
        ("openai", "gpt-4o-mini-2024-07-18", (0.15, 0.075, 0.6)),
        ("openai", "gpt-4o-2024-08-06", (2.5, 1.25, 10)),
        ("openai", "gpt-4.1-nano", (0.1, 0.025, 0.4)),
        ("openai", "gpt-5", (1.25, 0.125, 10)),
        ("openai", "o3-mini", (1.1, 0.55, 4.4)),
        ("openai", "text-embedding-3-small", (0.02, 0.02, 0)),
        ("openai", "o1-pro", (150, 150, 600)),
        ("claude", "claude-sonnet-4-5-20250929", (3, 0.3, 15)),
        ("claude", "claude-opus-4-20250514", (15, 1.5, 75)),
        ("claude", "claude-opus-4-5-20251101", (5, 0.5, 25)),
        ("claude", "claude-opus-4-8", (5, 0.5, 25)),
        ("claude", "claude-haiku-4-5", (1, 0.1, 5)),
        ("azure", "gpt-4o", (2.5, 1.25, 10)),
        ("vertex", "gemini-2.5-flash-lite", (0.1, 0.01, 0.4)),
        ("router", "anthropic/claude-sonnet-4.5", (3, 0.3, 15)),
        ("vertex", "claude-sonnet-4-5@20250929", (3, 0.3, 15)),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", (3, 0.3, 15)),
        ("bedrock", "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-20250514-v1:0", (15, 1.5, 75)),
        ("balancer", "gpt-4.1-mini", (0.4, 0.1, 1.6)),
        ("router", "openai/gpt-4o-mini", (0.15, 0.075, 0.6)),
        ("groq", "openai/gpt-oss-120b", (0.15, 0.075, 0.6)),
        ("vllm", "gpt-4o", (2.5, 1.25, 10)),
    ],
)
def test_well_known_models_cost_their_list_price(where: str, model: str, dollars: tuple[float, ...]) -> None:
    found = prices().of(where, model)
    assert found is not None
    assert (found.input, found.cached, found.output) == tuple(round(part * 1_000_000) for part in dollars)


@pytest.mark.parametrize(
    ("where", "model"), [("here", "gpt-4o"), ("vllm", "llama-3.1-8b-instant"), ("lmstudio", "qwen"), ("agw", "echo")]
)
def test_what_runs_nearby_costs_nothing(where: str, model: str) -> None:
    assert prices().of(where, model) == FREE


@pytest.mark.parametrize(
    ("where", "model"),
    # Open models cost what their host asks, and no two ask the same.
    [("else", "some-model"), ("else", "llama-3.1-8b-instant"), ("openai", "claude-sonnet-4-5"), ("groq", "gpt-4o")],
)
def test_what_nobody_has_priced_has_no_price(where: str, model: str) -> None:
    assert prices().of(where, model) is None


def test_the_own_table_is_stronger_and_its_first_match_counts() -> None:
    table = prices(
        {"model": "here/llama*", "input": "0.2", "output": 1, "max_output": 500},
        {"model": "gpt-4o", "input": 2, "cached": 1, "output": 8, "request": "0.001"},
        {"model": "openai/*", "image": "0.04", "minute": "0.006"},
    )
    assert table.of("here", "llama3") == Tariff(200_000, 200_000, 1_000_000, max_output=500)
    assert table.of("here", "qwen") == FREE
    assert table.of("azure", "gpt-4o") == Tariff(2_000_000, 1_000_000, 8_000_000, 1000)
    assert table.of("openai", "gpt-4o-mini") == Tariff(image=40_000, minute=6_000)


def test_the_shipped_table_is_read_only_where_some_upstream_needs_it() -> None:
    assert Prices((), [upstream("here", "http://localhost:1/v1")]).as_of == ""
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", prices().as_of)
    assert Prices((), ()).as_of == ""
    assert Prices(()).of("any", "gpt-4o") is not None


def test_no_row_of_the_shipped_table_is_out_of_reach() -> None:
    """A pattern that an earlier one covers would never count."""
    _, sections = shipped()
    for section in sections:
        seen: list[Row] = []
        for row in section.rows:
            text = row.pattern.patterns[0]
            example = text.replace("*", "")
            covered = [one.pattern.patterns[0] for one in seen if one.pattern.match(example)]
            assert covered == [], f"{text} is covered by {covered}"
            seen.append(row)


def test_output_never_costs_less_than_what_comes_from_the_cache() -> None:
    _, sections = shipped()
    for row in (row for section in sections for row in section.rows if row.tariff.output):
        tariff = row.tariff
        assert tariff.cached <= tariff.input <= tariff.output, row.pattern.patterns


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("192.168.1.9", True), ("fd00::1", True), ("ollama", True), ("host.docker.internal", True),
        ("8.8.8.8", False), ("api.openai.com", False), ("", False),
    ],
)  # fmt: skip
def test_near_is_this_machine_or_its_network(host: str, near: bool) -> None:
    assert is_near(host) is near


def test_answers_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agw_proxy.policy.prices.MAX_KEPT", 3)
    table = prices()
    for number in range(10):
        assert table.of("else", f"gpt-4o-{number}") is not None
        assert len(table._known) <= 3


def test_an_agent_costs_nothing_itself_however_it_is_called() -> None:
    prices = Prices((), ())
    assert prices.of("agents", "team/claude-sonnet-4-5") is FREE
