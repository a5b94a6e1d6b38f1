"""``agw chat`` against a scripted gateway: what it sends, what it prints, and how it fails."""

import io
import os
import sys
from pathlib import Path

import pytest

from agw_proxy.config import devkey
from tests.commands.conftest import Run
from tests.commands.tiny import KEY, Scripted, Tiny, delta

Capture = pytest.CaptureFixture[str]
CHAT = "/v1/chat/completions"


def keep_development_key(folder: Path) -> str:
    return devkey.ensure(folder / ".local" / "state" / "agw")


def test_a_streamed_answer_is_printed_and_ends_with_a_line_break(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.streams(delta("Hello"), delta(" there"), {"choices": [], "usage": {"total_tokens": 3}})
    assert agw("chat", "hi", "--url", gateway.url, "--key", KEY) == 0
    assert capsys.readouterr() == ("Hello there\n", "")
    asked = gateway.asked[0]
    assert (asked.method, asked.path, asked.authorization) == ("POST", CHAT, f"Bearer {KEY}")
    assert asked.body == {"model": "agw/echo", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def test_a_plain_answer_on_request(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.says(CHAT, {"choices": [{"message": {"role": "assistant", "content": "whole"}}]})
    assert agw("chat", "hi", "--url", gateway.url, "--key", KEY, "--no-stream", "--model", "m") == 0
    assert capsys.readouterr().out == "whole\n"
    assert (gateway.asked[0].body["stream"], gateway.asked[0].body["model"]) == (False, "m")


def test_the_question_comes_from_standard_input(
    agw: Run, gateway: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    gateway.streams(delta("ok"))
    monkeypatch.setattr("sys.stdin", io.StringIO("a long\nquestion"))
    assert agw("chat", "-", "--url", gateway.url, "--key", KEY) == 0
    assert gateway.asked[0].body["messages"][0]["content"] == "a long\nquestion"
    assert capsys.readouterr().out == "ok\n"


# --- which gateway, which key ---------------------------------------------------------------------------------------


def test_the_environment_names_address_and_key(agw: Run, gateway: Tiny, environ: dict[str, str]) -> None:
    environ |= {"OPENAI_BASE_URL": f"{gateway.url}/v1/", "OPENAI_API_KEY": "sk-of-a-hand-made-key"}
    gateway.streams()
    assert agw("chat", "hi") == 0
    assert (gateway.asked[0].path, gateway.asked[0].authorization) == (CHAT, "Bearer sk-of-a-hand-made-key")


def test_options_win_over_the_environment(agw: Run, gateway: Tiny, environ: dict[str, str]) -> None:
    environ |= {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_API_KEY": "agw-other"}
    gateway.streams()
    assert agw("chat", "hi", "--url", f"{gateway.url}/v1", "--key", KEY) == 0
    assert gateway.asked[0].authorization == f"Bearer {KEY}"


def test_a_providers_key_is_not_sent_to_a_gateway_that_it_was_not_named_for(
    agw: Run, gateway: Tiny, environ: dict[str, str], tmp_path: Path
) -> None:
    environ["OPENAI_API_KEY"] = "sk-a-real-key-of-a-provider"
    key = keep_development_key(tmp_path)
    gateway.streams()
    assert agw("chat", "hi", "--url", gateway.url) == 0
    assert gateway.asked[0].authorization == f"Bearer {key}"


def test_the_development_key_is_read_where_the_configuration_keeps_it(
    agw: Run, gateway: Tiny, environ: dict[str, str], tmp_path: Path
) -> None:
    environ["GATEWAY_SERVER__STATE_DIR"] = str(tmp_path / "mine")
    key = devkey.ensure(tmp_path / "mine")
    gateway.streams()
    assert agw("chat", "hi", "--url", gateway.url) == 0
    assert gateway.asked[0].authorization == f"Bearer {key}"


def test_the_development_key_stays_on_this_machine(environ: dict[str, str], tmp_path: Path) -> None:
    from agw_proxy.commands.running import find

    key = keep_development_key(tmp_path)
    keys = {
        url: find(url, None, environ).key for url in ("http://localhost:1", "http://[::1]:1", "https://example.com")
    }
    assert keys == {"http://localhost:1": key, "http://[::1]:1": key, "https://example.com": None}


def test_no_key_is_made_and_its_lack_is_explained(agw: Run, gateway: Tiny, tmp_path: Path, capsys: Capture) -> None:
    gateway.says(CHAT, {"error": {"message": "No API key came with the request."}}, 401)
    assert agw("chat", "hi", "--url", gateway.url) == 1
    assert gateway.asked[0].authorization is None
    assert "wants a key, and none was found" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- failures -------------------------------------------------------------------------------------------------------


def test_no_gateway_says_how_to_start_one(agw: Run, capsys: Capture) -> None:
    with Tiny() as ended:
        url = ended.url
    assert agw("chat", "hi", "--url", url) == 1
    assert capsys.readouterr() == ("", f"no gateway listens at {url}: start one with `agw serve`\n")


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://x", "http://", "http://x:99999", "http://a b", "http://x/\x00y"]
)
def test_an_address_that_is_none_is_refused(agw: Run, capsys: Capture, url: str) -> None:
    assert agw("chat", "hi", "--url", url) == 1
    assert "expected an address such as" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["with space", "line\nbreak", "\u00fcmlaut"])
def test_a_key_that_cannot_travel_is_refused_and_not_shown(agw: Run, capsys: Capture, key: str) -> None:
    assert agw("chat", "hi", "--key", key) == 1
    err = capsys.readouterr().err
    assert "cannot be sent" in err
    assert key not in err


def test_an_error_is_given_in_the_gateways_words(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.says(CHAT, {"error": {"message": "The model 'x' does not exist here.", "code": "model_not_found"}}, 404)
    assert agw("chat", "hi", "--url", gateway.url, "--key", KEY) == 1
    assert capsys.readouterr() == ("", "404: The model 'x' does not exist here.\n")


def test_what_is_no_gateway_is_told(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    assert agw("chat", "hi", "--url", gateway.url, "--key", KEY) == 1
    assert "answered 404 Not Found: is this a gateway?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "cut", "why"),
    [
        (b"", False, "the stream ended before its end"),
        (b"", True, "the stream ended before its end"),
        (b'event: error\ndata: {"error": {"message": "The upstream broke."}}\n\n', True, "The upstream broke."),
        (b"data: {not json\n\n", False, "not JSON"),
    ],
)
def test_a_broken_stream_never_looks_finished(
    agw: Run, gateway: Tiny, capsys: Capture, end: bytes, cut: bool, why: str
) -> None:
    gateway.streams(delta("half"), end=end, cut=cut)
    assert agw("chat", "hi", "--url", gateway.url, "--key", KEY) == 1
    out, err = capsys.readouterr()
    assert out == "half"
    assert why in err


def test_a_cut_plain_answer_is_a_failure(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.answers[CHAT] = Scripted(200, b'{"choices": [', cut=True)
    assert agw("chat", "hi", "--url", gateway.url, "--key", KEY, "--no-stream") == 1
    assert "the answer broke off" in capsys.readouterr().err


@pytest.mark.parametrize("content", [{}, [], {"choices": []}, {"choices": [{"message": None}]}])
def test_a_plain_answer_of_another_shape_is_a_failure(
    agw: Run, gateway: Tiny, capsys: Capture, content: object
) -> None:
    gateway.says(CHAT, content)
    assert agw("chat", "hi", "--url", gateway.url, "--key", KEY, "--no-stream") == 1
    assert "not a chat completion" in capsys.readouterr().err


@pytest.mark.parametrize(("terminal", "shown"), [(True, "red\ufffd[31m\tx\n\n"), (False, "red\x1b[31m\tx\n\n")])
def test_a_model_does_not_command_the_terminal(
    agw: Run, gateway: Tiny, monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: str
) -> None:
    gateway.streams(delta("red\x1b[31m\tx\n"))
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", out)
    assert agw("chat", "hi", "--url", gateway.url, "--key", KEY) == 0
    assert out.getvalue() == shown


def test_a_reader_that_has_enough_is_no_error(agw: Run, gateway: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.streams(delta("word"))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert agw("chat", "hi", "--url", gateway.url, "--key", KEY) == 0
