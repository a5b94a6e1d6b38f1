"""``agw doctor`` against a scripted gateway: what it prints, and what only a gateway that is wrong would do."""

import json
import socket

import pytest

from agw_proxy.commands import examining
from agw_proxy.commands.doctor import remarks, table
from agw_proxy.commands.examining import CHECKS, Examination, Finding, Outcome, compare
from agw_proxy.commands.running import Place
from agw_proxy.conformance.asking import FORMS, Form, check_error, fits
from agw_proxy.conformance.base import Broken
from tests.commands.conftest import Run
from tests.commands.tiny import KEY, Scripted, Tiny

Capture = pytest.CaptureFixture[str]
CHAT = "/v1/chat/completions"
STREAM = (
    b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"one"}}]}\n\n'
)


class Leaking(dict[str, Scripted]):
    """Answers of a gateway in which no exchange ever ends."""

    started = 0

    def get(self, path: str, default: Scripted | None = None) -> Scripted:  # type: ignore[override]
        if path == "/health/ready":
            return Scripted(body=json.dumps({"active": self.started}).encode())
        if path == CHAT:
            self.started += 1
        return super().get(path, default or Scripted(404))


def findings(gateway: Tiny, *, seconds: float = 5.0) -> dict[str, Finding]:
    place = Place(gateway.url, KEY)
    return {found.check: found for found in Examination(place, "m", "chat", seconds).run()}


def test_an_exchange_that_goes_on_after_its_client_has_left_is_broken(
    gateway: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "SETTLE_SECONDS", 0.1)
    gateway.answers = Leaking({CHAT: Scripted(body=STREAM, content_type="text/event-stream")})
    found = findings(gateway)["cancellation"]
    assert found.outcome == "broken"
    assert "exchanges are in flight" in found.detail


def test_a_connection_lost_in_an_answer_is_broken(gateway: Tiny) -> None:
    gateway.answers[CHAT] = Scripted(body=b'{"object":', cut=True)
    found = findings(gateway)["plain answer"]
    assert (found.outcome, found.detail) == ("broken", "the connection was lost in the middle of the answer")


def test_a_stream_that_is_none_is_broken(gateway: Tiny) -> None:
    gateway.answers[CHAT] = Scripted(body=b"{}", content_type="application/json; charset=utf-8")
    found = findings(gateway)["streamed answer"]
    assert found.detail == "expected a stream (text/event-stream), got application/json"


EVENTS = "text/event-stream"
DONE = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def test_where_a_stream_was_cut_is_named(gateway: Tiny) -> None:
    gateway.answers[CHAT] = Scripted(body=STREAM, content_type=EVENTS, cut=True)
    found = findings(gateway)["streamed answer"]
    assert found.detail.startswith("event 2 (end of the stream): expected `data: [DONE]`")
    assert found.detail.endswith("; the connection was lost there")
    assert found.fault is not None
    gateway.answers[CHAT] = Scripted(body=STREAM + DONE, content_type=EVENTS, cut=True)
    found = findings(gateway)["streamed answer"]
    assert (found.outcome, found.detail) == (
        "broken",
        "the connection was lost behind the last event, and not ended",
    )


@pytest.mark.parametrize("content_type", [EVENTS, "application/json"])
def test_an_answer_that_does_not_end_is_left(gateway: Tiny, monkeypatch: pytest.MonkeyPatch, content_type: str) -> None:
    monkeypatch.setattr(examining, "MOST_SILENCES", 0)
    gateway.answers[CHAT] = Scripted(body=b": ping\n\n" * 3, content_type=content_type, cut=True)
    found = findings(gateway)["streamed answer"]
    assert found.outcome == "failed"
    assert "does not end" in found.detail


def test_a_cancellation_that_nobody_could_see_is_none(gateway: Tiny) -> None:
    gateway.answers[CHAT] = Scripted(body=STREAM + DONE, content_type=EVENTS)
    found = findings(gateway)["cancellation"]
    assert (found.outcome, "does not tell" in found.detail) == ("skipped", True)
    gateway.says("/health/ready", {"active": 1})
    found = findings(gateway)["cancellation"]
    assert (found.outcome, "not seen in flight" in found.detail) == ("skipped", True)


def test_who_says_nothing_ends_it_with_2(agw: Run, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert agw("doctor", "--url", url, "--key", KEY, "--timeout", "0.2") == 2
    assert capsys.readouterr().err == f"{url} did not answer in time\n"


def test_what_is_no_gateway_is_said_and_ends_with_2(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    assert agw("doctor", "--url", gateway.url, "--key", KEY) == 2
    assert capsys.readouterr().err == f"{gateway.url} answered 404 to /health: this is not a gateway\n"


def test_a_missing_key_is_said_and_ends_with_2(agw: Run, gateway: Tiny, capsys: Capture) -> None:
    gateway.answers["/health"] = Scripted(body=b'{"version": "1"}')
    gateway.answers["/v1/models"] = Scripted(401)
    assert agw("doctor", "--url", gateway.url) == 2
    assert "wants a key, and no key was found" in capsys.readouterr().err


def all_of(outcome: Outcome, forms: tuple[Form, ...] = FORMS, detail: str = "") -> list[Finding]:
    return [Finding(form, check, outcome, detail, by_model=True) for form in forms for check in CHECKS]


def test_colours_are_for_terminals() -> None:
    found = all_of("ok", ("chat",))
    assert "\x1b[32mok       \x1b[0m" in "\n".join(table(found, colours=True))
    assert "\x1b" not in "\n".join(table(found, colours=False))


def test_what_a_model_says_cannot_command_a_terminal() -> None:
    text = "\n".join(remarks(all_of("refused", detail="400: \x1b[2Jgone\r\n"), colours=False))
    assert "\x1b" not in text
    assert "    400:  [2Jgone" in text


def test_a_refused_answer_is_a_failure_and_a_refused_wish_is_none() -> None:
    judged = compare(all_of("refused"))
    assert {found.check for found in judged if found.outcome == "failed"} == {"plain answer", "streamed answer"}
    assert {found.outcome for found in judged} == {"failed", "refused"}


def test_a_choice_of_the_gateways_is_not_held_against_it() -> None:
    wish = Finding("gemini", "structured output", "refused", "400: it cannot be said there", by_model=False)
    assert compare([*all_of("ok", ("chat",)), wish])[-1] == wish
    assert compare([*all_of("ok", ("chat",)), wish._replace(by_model=True)])[-1].outcome == "broken"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('{"city": "Oslo", "inhabitants": 7}', None),
        ("Oslo", "the answer is no JSON"),
        ('{"city": "Oslo"}', "the answer is no object with city and inhabitants alone"),
        ('{"city": "Oslo", "inhabitants": 7, "more": 1}', "the answer is no object with city and inhabitants alone"),
        ('{"city": "Oslo", "inhabitants": "7"}', "a member has another type"),
        ('{"city": "Oslo", "inhabitants": true}', "a member has another type"),
    ],
)
def test_what_fits_the_schema(text: str, wrong: str | None) -> None:
    assert fits(text) == wrong


@pytest.mark.parametrize(
    ("form", "tree"),
    [
        ("chat", None),
        ("chat", {"error": "no"}),
        ("chat", {"error": {"message": "no"}}),
        ("responses", {"error": {"message": "", "type": "x"}}),
        ("messages", {"error": {"message": "no", "type": "x"}}),
        ("gemini", {"error": {"code": 500, "message": "no", "status": "X"}}),
    ],
)
def test_errors_that_clients_cannot_read(form: Form, tree: object) -> None:
    with pytest.raises(Broken):
        check_error(form, 400, tree)
