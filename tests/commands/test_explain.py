"""``agw explain`` against a scripted gateway and from a configuration."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from agw_proxy.commands.explain import counted, lines
from tests.commands.conftest import Run
from tests.commands.tiny import KEY, Tiny

Capture = pytest.CaptureFixture[str]
CONFIG = """\
upstreams:
  - {name: here, base_url: "http://127.0.0.1:9/v1", models: ["llama*"], max_concurrent: 4}
  - {name: away, base_url: "https://models.example.com/v1", models: ["big"]}
models: [{name: fast, targets: [{upstream: here, model: llama-1, weight: 2}, away/big], fallbacks: [here/llama-2]}]
prices: [{model: here/llama-1, input: 1, output: 2}]
keys:
  - {name: app, key: agw-explain-1f2e3d4c5b6a79880, limits: [{per: key, requests: 5, period: 1m}]}
  - {name: shut, key: agw-explain-2f2e3d4c5b6a79880, models: ["nothing"]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    return path


def offline(agw: Run, capsys: Capture, config: Path, *more: str) -> dict[str, Any]:
    assert agw("explain", "--config", str(config), *more) == 0
    told = json.loads(capsys.readouterr().out)
    assert isinstance(told, dict)
    return told


def test_the_running_gateway_is_asked(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.says("/explain?path=%2Fv1%2Fmessages&key=app", {"object": "explanation"})
    arguments = ("--model", "m", "--stream", "--max-tokens", "9", "--path", "/v1/messages", "--key-name", "app")
    assert agw("explain", "--url", gateway.url, "--key", KEY, *arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"object": "explanation"}
    asked = gateway.asked[0]
    assert (asked.method, asked.authorization) == ("POST", f"Bearer {KEY}")
    request = asked.body["request"]
    assert (request["model"], request["stream"], request["max_tokens"]) == ("m", True, 9)


def test_a_request_comes_from_a_file_or_standard_input(
    agw: Run, gateway: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.says("/explain", {})
    (tmp_path / "request.json").write_text('{"model":"a","input":"x"}')
    monkeypatch.setattr("sys.stdin", io.StringIO('{"model":"b"}'))
    for arguments in (("--file", "request.json"), ("--file", "-"), ("--file", "request.json", "--model", "c")):
        assert agw("explain", "--url", gateway.url, "--key", KEY, *arguments) == 0
    assert [asked.body["request"] for asked in gateway.asked] == [
        {"model": "a", "input": "x"}, {"model": "b"}, {"model": "c", "input": "x"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "why"),
    [((), "which model"), (("--file", "none.json"), "none.json"), (("--file", "list.json"), "expected a JSON object")],
)
def test_what_is_missing_is_named(
    agw: Run, capsys: Capture, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    (tmp_path / "list.json").write_text("[]")
    assert agw("explain", *arguments) == 1
    assert why in capsys.readouterr().err


def test_what_the_gateway_refuses_is_told(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.says("/explain", {"error": {"message": "not yours"}}, 403)
    assert agw("explain", "--url", gateway.url, "--key", KEY, "--model", "m") == 1
    assert "not yours" in capsys.readouterr().err


def test_without_a_gateway_the_configuration_tells(agw: Run, capsys: Capture, config: Path) -> None:
    told = offline(agw, capsys, config, "--model", "fast")
    assert (told["key"], told["outcome"], told["lane"]["lane"]) == ("app", "ok", "fast")
    assert told["limits"][0]["remaining"] == 5
    assert offline(agw, capsys, config, "--model", "fast", "--key-name", "shut")["outcome"]["status"] == 403


def test_a_configuration_or_key_that_is_not_there_is_said(agw: Run, capsys: Capture, config: Path) -> None:
    assert agw("explain", "--config", "none.yaml", "--model", "m") == 1
    assert "none.yaml" in capsys.readouterr().err
    assert agw("explain", "--config", str(config), "--model", "m", "--key-name", "other") == 1
    assert "no key 'other'" in capsys.readouterr().err


def test_people_get_it_in_lines(agw: Run, capsys: Capture, config: Path) -> None:
    told = offline(agw, capsys, config, "--model", "fast", "--max-tokens", "100")
    told["route"]["targets"][0] |= {"circuit": "open", "opens_in_ms": 1500}
    told["route"]["last_resort"] = "echo"
    told["limits"] += [
        {**told["limits"][0], "rule": "money", "unit": "micro_usd", "remaining": 1_500_000, "asks": 2, "passes": False}
    ]
    text = "\n".join(lines(told))
    for part in (
        "fast for key app (chat_completions)",
        "would be asked",
        "here/llama-1: weight 2, circuit open, again in 1.5 s, 0 under way, 0 of 4 places taken, 0 waiting, $1 / $2 a million",
        "3. here/llama-2 (fallback): circuit closed, 0 under way, 0 of 4 places taken, 0 waiting, free",
        "then echo",
        "ok keys.app/requests-per-key: 5 of 5 requests a 1m left, asks 1",
        "no money: $1.5 of $5e-06 a 1m left",
        "answer up to 100",
        "not looked up: no cache is configured",
    ):
        assert part in text
    refused = "\n".join(lines(offline(agw, capsys, config, "--model", "unknown")))
    assert "would be refused: 404 model_not_found" in refused
    unpriced = "\n".join(lines(offline(agw, capsys, config, "--model", "big")))
    assert "no price is known" in unpriced


def test_the_exact_count_stands_beside_the_estimate_where_there_is_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"plan": ["openai/gpt-4o"], "tokens": {"input": 3}}
    assert counted({"outcome": "ok"}, {}) == {"outcome": "ok"}
    monkeypatch.setattr("agw_proxy.policy.tokens.counting", lambda model: (len, model == "gpt-4o"))
    assert counted(told, {"a": 1})["tokens"] == {"input": 3, "input_exact": 8}
    assert counted({**told, "plan": ["own/llama"]}, {"a": 1})["tokens"] == {"input": 3}
