"""``agw check`` and ``agw init``: what they print, what they return, and that no secret shows."""

import argparse
import hashlib
import io
import stat
from pathlib import Path

import pytest

from agw_proxy.commands import check, init
from agw_proxy.config.loader import load

CANARY = "canary7Q4x-0123456789"


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, with an environment that holds nothing of ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {})


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    check.add(subparsers)
    init.add(subparsers)
    args = parser.parse_args(argv)
    result: int = args.run(args)
    return result


def test_check_says_what_is_served_without_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(f"""
upstreams: [{{name: up, base_url: "https://api.example.com/v1/canary-path", api_key: {CANARY}, models: [a, b]}}]
models: [{{name: fast, targets: [{{upstream: up, model: a, weight: 3}}, up/b], fallbacks: [b]}}]
keys:
  - {{name: dev, key: {CANARY}-xyz, admin: true,
      limits: [{{per: key, requests: 600, burst: 60}}, {{per: key, concurrent: 50}}]}}
limits: [{{per: global, tokens: 5000, period: 1s, name: all}}]
agents: {{}}
""")
    assert run("check", "--config", str(config)) == 0
    out, err = capsys.readouterr()
    for part in (
        "up         api.example.com (openai, with a key), models a, b",
        "fast       weighted over up/a x3, up/b, then b",
        "dev        models *, admin",
        "per key: 600 requests in 60 s, burst 60",
        "per key: 50 requests at the same time",
        "all: per global: 5000 tokens in 1 s",
        "http://127.0.0.1:8080",
    ):
        assert part in out
    assert out.endswith("configuration is valid\n")
    assert (CANARY in out, "canary-path" in out, err) == (False, False, "")


def test_check_lists_all_problems_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text(f"server: {{prot: 1}}\nkeys: [{{name: k, key: {CANARY}}}]\nredis: {{}}\n")
    assert run("check") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "the configuration has 3 problems" in err
    assert "gateway.yaml:1: server.prot: unknown field; did you mean port?" in err
    assert CANARY not in err


def test_check_without_anything_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check") == 0
    out = capsys.readouterr().out
    assert "none (defaults and environment)" in out
    assert "a development key is generated" in out


@pytest.mark.parametrize(
    ("environ", "terminal", "coloured"),
    [({}, True, True), ({}, False, False), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, True, False)],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], terminal: bool, coloured: bool
) -> None:
    monkeypatch.setattr("os.environ", environ)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    assert check.paint("x", check.RED, stream) == ("\x1b[31mx\x1b[0m" if coloured else "x")


def test_init_writes_a_valid_private_file_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"OPENAI_API_KEY": CANARY, "OLLAMA_HOST": "0.0.0.0"}
    monkeypatch.setattr("os.environ", environ)
    assert run("init") == 0
    out = capsys.readouterr().out
    path = tmp_path / "gateway.yaml"
    text = path.read_text()
    key = next(line.strip() for line in out.splitlines() if line.strip().startswith("agw-"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "api_key: ${OPENAI_API_KEY}" in text
    assert (CANARY in text, CANARY in out, key in text) == (False, False, False)
    made = load(path, environ, tmp_path).settings
    assert [item.name for item in made.upstreams] == ["openai", "ollama"]
    assert made.keys[0].key_sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert [item.name for item in tmp_path.iterdir()] == ["gateway.yaml"]


def test_init_without_any_key_shows_an_example(tmp_path: Path) -> None:
    assert run("init", "sub.yaml") == 0
    assert load(tmp_path / "sub.yaml", {}, tmp_path).settings.upstreams == ()
    assert "#     api_key: ${OPENAI_API_KEY}" in (tmp_path / "sub.yaml").read_text()


def test_the_example_of_init_serves_without_its_comment_marks(tmp_path: Path) -> None:
    assert run("init") == 0
    path = tmp_path / "gateway.yaml"
    head, mark, rest = path.read_text().partition("# upstreams:\n")
    example, _, tail = rest.partition("\n\n")
    path.write_text(head + "\n".join(line.removeprefix("# ") for line in (mark + example).splitlines()) + "\n" + tail)
    made = load(path, {"OPENAI_API_KEY": "sk-x"}, tmp_path).settings
    assert [item.name for item in made.upstreams] == ["openai"]


def test_init_replaces_only_when_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text("mine")
    assert run("init") == 1
    assert "agw init --force gateway.yaml" in capsys.readouterr().err
    assert (tmp_path / "gateway.yaml").read_text() == "mine"
    assert run("init", "--force") == 0
    assert "keys:" in (tmp_path / "gateway.yaml").read_text()


def test_init_where_nothing_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", "no/such/folder/gateway.yaml") == 1
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("limits: [{per: key, tokens: 1, burst: 10000000}]", "2.2 years"),
        ("upstreams: [{name: own, base_url: 'https://127.0.0.1:1/v1', ca_file: none.pem}]", "none.pem"),
    ],
)
def test_check_refuses_what_only_a_start_would_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (tmp_path / "gateway.yaml").write_text(text + "\n")
    assert run("check") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "cannot be served" in err
    assert words in err


def test_check_names_the_agents_that_would_be_loaded_and_runs_nothing_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Sky", "Draft"):
        (tmp_path / "agents" / name).mkdir(parents=True)
        (tmp_path / "agents" / name / "agent.py").write_text("raise RuntimeError")
    config = tmp_path / "my.yaml"
    config.write_text("agents: {deny: [default/draft], overrides: [{name: default/sky, serve_as: team/sky}]}")
    assert run("check", "--config", str(config)) == 0
    out = capsys.readouterr().out
    assert f"team/sky   {tmp_path}/agents/Sky/agent.py" in out
    assert "default/draft left out: it is denied" in out
