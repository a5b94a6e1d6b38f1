"""``agw status`` against a scripted gateway."""

import json

import pytest

from tests.commands.conftest import Run
from tests.commands.tiny import KEY, Tiny

Capture = pytest.CaptureFixture[str]
UP = {
    "name": "openai", "state": "up", "dialect": "openai", "requests": 12, "failures": 0,
    "base_url": "https://api.openai.com/v1", "last_error": None,
}  # fmt: skip
DOWN = {**UP, "name": "local", "state": "failing", "last_error": "refused\x1b[31m" + "." * 100}


def upstreams(gateway: Tiny, *items: object, path: str = "/upstreams", more: str | None = None) -> None:
    gateway.says(path, {"object": "list", "data": items, "has_more": more is not None, "last_id": more})


def test_a_ready_gateway_shows_version_and_upstreams(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.is_well()
    upstreams(gateway, UP, DOWN)
    assert agw("status", "--url", gateway.url, "--key", KEY) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [f"agw 9.8.7 at {gateway.url}: ready, 3 in flight", ""]
    assert out[2].split() == ["name", "state", "dialect", "requests", "failures", "base", "url", "last", "error"]
    assert out[3].split() == ["openai", "up", "openai", "12", "0", "https://api.openai.com/v1", "-"]
    assert out[4].startswith("local   failing")
    assert out[4].endswith("...")
    assert "\x1b" not in out[4]
    assert out[3].index("up") == out[4].index("failing")


def test_a_draining_gateway_is_not_ready(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.is_well(ready="draining")
    upstreams(gateway)
    assert agw("status", "--url", gateway.url, "--key", KEY) == 1
    assert ": draining" in capsys.readouterr().out


def test_all_pages_are_read(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.is_well()
    upstreams(gateway, UP, more="a/b &c")
    upstreams(gateway, DOWN, path="/upstreams?after=a%2Fb%20%26c")
    assert agw("status", "--url", gateway.url, "--key", KEY, "--json") == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)["upstreams"]] == ["openai", "local"]


@pytest.mark.parametrize(("status", "why"), [(401, "not known"), (403, "no admin key"), (404, "server.admin_port")])
def test_without_the_right_key_the_rest_is_shown(
    agw: Run, gateway: Tiny, capsys: Capture, status: int, why: str
) -> None:
    gateway.is_well()
    gateway.says("/upstreams", {"error": {"message": "no"}}, status)
    assert agw("status", "--url", gateway.url, "--key", KEY) == 0
    out = capsys.readouterr().out
    assert "9.8.7" in out
    assert why in out


def test_without_any_key_the_upstreams_are_not_asked_for(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.is_well()
    assert agw("status", "--url", gateway.url, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["status"], found["active"], found["upstreams"]) == ("9.8.7", "ready", 3, None)
    assert [asked.path for asked in gateway.asked] == ["/health", "/health/ready"]


@pytest.mark.parametrize("content", [{}, [], "text"])
def test_what_is_no_gateway_is_told(agw: Run, gateway: Tiny, capsys: Capture, content: object) -> None:
    gateway.says("/health", content)
    assert agw("status", "--url", gateway.url) == 1
    assert "this is not a gateway" in capsys.readouterr().err


def test_no_gateway_is_told_as_text_and_as_json(agw: Run, capsys: Capture) -> None:
    with Tiny() as ended:
        url = ended.url
    assert agw("status", "--url", url) == 1
    assert capsys.readouterr().err == f"no gateway listens at {url}: start one with `agw serve`\n"
    assert agw("status", "--url", url, "--json") == 1
    assert json.loads(capsys.readouterr().out)["status"] == "unreachable"
