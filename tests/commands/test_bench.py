"""``agw bench`` against a scripted gateway: what it asks, what it counts, how it fails. No time is judged."""

import io
import json
import sys
from array import array
from typing import Any

import pytest

from agw_proxy import cli
from agw_proxy.commands.bench import percentiles
from tests.commands.tiny import KEY, Scripted, Tiny, delta

Capture = pytest.CaptureFixture[str]
CHAT = "/v1/chat/completions"
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "whole"}}]}


def bench(gateway: Tiny, *argv: str) -> int:
    short = ("--url", gateway.url, "--key", KEY, "--seconds", "0.3", "--connections", "2")
    return cli.main(["bench", *short, *argv])


def figures(capture: Capture) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(capture.readouterr().out)
    return tree


class OnlyOnce(dict[str, Scripted]):
    """Answers the first request well, and the later ones with ``after``."""

    def __init__(self, first: Scripted, after: Scripted) -> None:
        self._first: Scripted | None = first
        self._after = after

    def get(self, *_: object) -> Scripted:
        first, self._first = self._first, None
        return first or self._after


def test_answers_are_counted_and_timed(gateway: Tiny, capsys: Capture) -> None:
    gateway.says(CHAT, ANSWER)
    assert bench(gateway, "--json", "--model", "m") == 0
    found = figures(capsys)
    asked = gateway.asked[0]
    assert (asked.path, asked.authorization, asked.body["model"], asked.body["stream"]) == (
        CHAT,
        f"Bearer {KEY}",
        "m",
        False,
    )
    # One was asked before the load, and one a connection may be under way at the end.
    assert 0 < found["requests"] <= len(gateway.asked) - 1 <= found["requests"] + 2
    assert (found["failed"], found["errors"], found["connections"], found["stream"]) == (0, {}, 2, False)
    assert found["latency_ms"]["p50"] <= found["latency_ms"]["p90"] <= found["latency_ms"]["p99"]
    assert "ttft_ms" not in found


def test_streams_are_counted_by_event(gateway: Tiny, capsys: Capture) -> None:
    gateway.streams(delta("a"), delta("b"), delta("c"))
    assert bench(gateway, "--json", "--stream") == 0
    found = figures(capsys)
    assert gateway.asked[0].body["stream"] is True
    assert found["requests"] > 0
    assert 3 * found["requests"] <= found["events"] <= 3 * (found["requests"] + 2)
    assert found["ttft_ms"].keys() == found["inter_token_ms"].keys() == {"p50", "p90", "p99"}


def test_a_reader_gets_lines(gateway: Tiny, capsys: Capture) -> None:
    gateway.streams(delta("a"), delta("b"))
    assert bench(gateway, "--stream") == 0
    out, err = capsys.readouterr()
    starts = [line.split("  ")[0] for line in out.splitlines()[1:]]
    assert starts == ["requests", "events", "latency", "first token", "between tokens"]
    assert "streams on 2 connections" in out
    assert err == ""


def test_a_terminal_sees_the_progress_and_is_left_clean(gateway: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.says(CHAT, ANSWER)
    err = io.StringIO()
    monkeypatch.setattr(err, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr("agw_proxy.commands.bench.PROGRESS_SECONDS", 0.05)
    assert bench(gateway) == 0
    assert " answered" in err.getvalue()
    assert err.getvalue().endswith("\r\x1b[K")


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_refusal_is_told_before_any_load(gateway: Tiny, capsys: Capture) -> None:
    gateway.says(CHAT, {"error": {"message": "The model 'x' does not exist here."}}, 404)
    assert bench(gateway) == 1
    assert capsys.readouterr() == ("", "404: The model 'x' does not exist here.\n")
    assert len(gateway.asked) == 1


def test_no_gateway_is_told(capsys: Capture) -> None:
    with Tiny() as ended:
        pass
    assert bench(ended) == 1
    assert "no gateway listens at" in capsys.readouterr().err


def test_an_answer_that_breaks_off_at_once_is_told(gateway: Tiny, capsys: Capture) -> None:
    gateway.answers[CHAT] = Scripted(200, b"{", cut=True)
    assert bench(gateway) == 1
    assert "the answer broke off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("after", "stream", "kind"),
    [
        (Scripted(429, b"{}"), False, "status 429"),
        (Scripted(200, b"{}"), False, "no chat completion"),
        (Scripted(200, b'{"choices"', cut=True), False, "ClientPayloadError"),
        (Scripted(200, b'data: {"choices": []}\n\n'), True, "unfinished stream"),
        (Scripted(200, b"event: error\ndata: {}\n\n"), True, "error event"),
        (Scripted(200, b"data: " + b"x" * 600_000 + b"\n\n"), True, "LineTooLong"),
    ],
)
def test_failures_are_counted_by_kind_and_are_no_answers(
    gateway: Tiny, capsys: Capture, after: Scripted, stream: bool, kind: str
) -> None:
    gateway.answers = OnlyOnce(Scripted(200, json.dumps(ANSWER).encode()), after)
    assert bench(gateway, "--json", *(["--stream"] if stream else [])) == 1
    found = figures(capsys)
    assert found["requests"] == 0
    assert found["errors"] == {kind: found["failed"]}
    assert found["failed"] > 0
    assert found["latency_ms"] is None


def test_failures_are_named_to_a_reader(gateway: Tiny, capsys: Capture) -> None:
    gateway.answers = OnlyOnce(Scripted(200, json.dumps(ANSWER).encode()), Scripted(503))
    assert bench(gateway) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(": status 503")


@pytest.mark.parametrize(
    "argv",
    [("--connections", "0"), ("--connections", "1001"), ("--seconds", "0"), ("--seconds", "601"), ("--seconds", "x")],
)
def test_the_load_is_bounded(capsys: Capture, argv: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *argv])
    assert ended.value.code == 2
    assert f"argument {argv[0]}: expected" in capsys.readouterr().err


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles(array("d", [n / 1000 for n in range(1, 101)])) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert percentiles(array("d", [0.002])) == {"p50": 2.0, "p90": 2.0, "p99": 2.0}
    assert percentiles(array("d")) is None
