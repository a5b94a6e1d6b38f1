"""``agw doctor`` against real gateways: the echo model passes in all dialects; of spoilt streams it names the first event."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson
import pytest

from agw_proxy.conformance.asking import FORMS
from agw_proxy.conformance.base import Frame
from tests.conformance.streams import changed, frames, renumbered, wire, without
from tests.e2e.test_translation import refuses, upstreams
from tests.support import providers
from tests.support.behaviours import answer, stream
from tests.support.gateway import APP_KEY, PACKAGE_ROOT, UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.providers import TEXT, TOOLS, Scene, plays
from tests.support.upstream import Behaviour, Exchange, Upstream

Spoil = Callable[[list[Frame]], list[Frame]]
CHECKS = 10
BEGUN = {"chat": 3, "responses": 5, "messages": 5, "gemini": 2}  # events until there is text
FITTING = Scene(text=('{"city": "Oslo", ', '"inhabitants": 700000}'))


class Ran(NamedTuple):
    """How a run has ended."""

    code: int
    out: str
    err: str

    @property
    def checks(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Of the JSON document, by dialect and check."""
        return {(found["dialect"], found["check"]): found for found in json.loads(self.out)["checks"]}

    @property
    def outcomes(self) -> set[str]:
        return {found["outcome"] for found in self.checks.values()}


def doctor(gateway: Gateway, *args: str, key: str | None = None) -> Ran:
    """Run the command as users do, with the key from the environment."""
    env = {"PATH": os.environ["PATH"], "HOME": str(gateway.folder), "PYTHONPATH": str(PACKAGE_ROOT)}
    env |= {"OPENAI_BASE_URL": f"{gateway.url}/v1", "OPENAI_API_KEY": key or gateway.key}
    env |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    command = [sys.executable, "-m", "agw_proxy", "doctor", *args]
    done = subprocess.run(command, env=env, cwd=gateway.folder, capture_output=True, text=True, timeout=50, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    both = provider(shared_upstream.url, "both", speaks=["chat", "messages"], models=["both-*"])
    with Gateway(configuration(*upstreams(shared_upstream.url), both)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(shared_upstream: Upstream) -> None:
    shared_upstream.reset()
    shared_upstream.default = capable()


def capable(spoil: Spoil | None = None, *, tools: Behaviour | None = None, tools_at: str = "") -> Behaviour:
    """A provider that can do all that is asked for, in its dialect.

    ``spoil``: what becomes of a streamed greeting. ``tools``: what is answered instead where a tool has to be called (in
    a path with ``tools_at``).
    """

    async def behave(exchange: Exchange) -> None:
        request = exchange.request
        form = form_of(request.path)
        tree = request.json
        body = request.body
        streamed = bool(tree.get("stream")) or "stream" in request.path.rpartition(":")[2]
        forced = b'"required"}' in body or any(name in tree for name in ("tool_choice", "toolConfig"))
        if 5 in (tree.get("messages"), tree.get("input"), tree.get("contents")):
            await refuses(form, 400)(exchange)
        elif forced and tools is not None and tools_at in request.path:
            await tools(exchange)
        elif forced:
            await plays(TOOLS)(exchange)
        elif b"inhabitants" in body:
            await plays(FITTING)(exchange)
        elif streamed and b"Count from 1" in body:
            begun = frames(form, TEXT)[: BEGUN[form]]
            await stream([wire([frame]) for frame in begun], ending="hang")(exchange)
        elif streamed and spoil is not None:
            await stream([wire([frame]) for frame in spoil(frames(form, TEXT))])(exchange)
        else:
            await plays(TEXT)(exchange)

    return behave


def form_of(path: str) -> str:
    ends = {"/chat/completions": "chat", "/responses": "responses", "/messages": "messages"}
    return next((form for end, form in ends.items() if path.endswith(end)), "gemini")


# --- what is well


def test_the_echo_model_passes_in_all_dialects(gateway: Gateway) -> None:
    ran = doctor(gateway, "--model", "agw/echo", "--json", "--strict")
    assert (ran.code, ran.outcomes, ran.err) == (0, {"ok"}, "")
    assert all(found["detail"] is None for found in ran.checks.values())  # parallel calls too
    assert len(ran.checks) == CHECKS * len(FORMS)
    tree = json.loads(ran.out)
    assert (tree["passed"], tree["model"], tree["url"]) == (True, "agw/echo", gateway.url)


@pytest.mark.parametrize("spoken", FORMS)
def test_a_provider_of_each_dialect_passes_in_all_dialects(
    gateway: Gateway, shared_upstream: Upstream, spoken: str
) -> None:
    ran = doctor(gateway, "--model", f"{spoken}-1", "--json")
    assert {name: found for name, found in ran.checks.items() if found["outcome"] != "ok" or found["detail"]} == {}
    assert ran.code == 0
    # Both results of the parallel calls, and that it has left in the middle, have come to the provider.
    asked = [request for request in shared_upstream.requests if b"12 degrees" in request.body]
    assert len(asked) == len(FORMS)
    assert all(b"14:05" in request.body for request in asked)
    left = [request for request in shared_upstream.requests if b"Count from 1" in request.body]
    assert len(left) == len(FORMS)
    for request in left:
        shared_upstream.wait_gone(request)


def test_the_table_is_for_people(gateway: Gateway) -> None:
    ran = doctor(gateway, "--model", "agw/echo", "--only", "gemini,chat")
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"agw/echo at {gateway.url} (agw ")
    assert lines[2].split() == ["chat", "gemini"]
    assert lines[3].split() == ["plain", "answer", "ok", "ok"]
    assert lines[12].split() == ["cancellation", "ok", "ok"]
    assert lines[-1].strip() == "20 ok: as the dialect has it"
    assert "\x1b" not in ran.out
    assert gateway.key not in ran.out + ran.err


# --- what is broken: form, what is spoilt, the event's number and name, what the fault says

SPOILT: list[tuple[str, Spoil, int, str, str]] = [
    (
        "chat",
        lambda found: changed(found, 1, "choices.0.delta.role", None),
        1,
        "chunk",
        "the first delta to say `role`",
    ),
    ("chat", lambda found: without(found, 5), 6, "chunk", "a `finish_reason` of choice 0 before the end"),
    ("chat", lambda found: found[:-1], 7, "end of the stream", "`data: [DONE]`"),
    ("responses", lambda found: without(found, 6), 6, "response.output_text.delta", "`sequence_number` 5"),
    (
        "responses",
        lambda found: renumbered(without(found, 10)),
        10,
        "response.completed",
        "response.output_item.done of item 0 before the end",
    ),
    ("messages", lambda found: [found[0], *found], 2, "message_start", "one message_start"),
    (
        "messages",
        lambda found: [*found[:4], found[2], *found[4:]],
        5,
        "content_block_start",
        "content_block_stop of block 0 before another begins",
    ),
    ("messages", lambda found: changed(found, 8, "usage", None), 8, "message_delta", "`usage` to be an object"),
    ("gemini", lambda found: changed(found, 2, "candidates.0.content.role", "user"), 2, "response", "content.role"),
    ("gemini", lambda found: [*found, found[-1]], 4, "response", "nothing after the end of the stream"),
]


@pytest.mark.parametrize(
    ("form", "spoil", "number", "name", "expected"),
    SPOILT,
    ids=[f"{form}-{number}-{name}" for form, _, number, name, _ in SPOILT],
)
def test_the_first_broken_event_of_a_stream_is_named(
    gateway: Gateway, shared_upstream: Upstream, form: str, spoil: Spoil, number: int, name: str, expected: str
) -> None:
    shared_upstream.default = capable(spoil)
    ran = doctor(gateway, "--model", f"{form}-1", "--only", form, "--json")
    assert ran.code == 1
    found = ran.checks.pop((form, "streamed answer"))
    assert found["outcome"] == "broken"
    event = found["event"]
    assert (event["number"], event["name"]) == (number, name)
    assert expected in event["expected"]
    assert ran.checks[form, "usage"]["outcome"] == "skipped"
    others = {check["outcome"] for check in ran.checks.values() if check["check"] not in {"usage", "streamed answer"}}
    assert others == {"ok"}


def test_the_broken_event_stands_last_in_what_is_printed_for_people(
    gateway: Gateway, shared_upstream: Upstream
) -> None:
    shared_upstream.default = capable(lambda found: [found[0], *found])
    ran = doctor(gateway, "--model", "messages-1", "--only", "messages")
    assert ran.code == 1
    assert (
        "broken: streamed answer (messages)\n"
        "    event 2 (message_start): expected one message_start, got a second one\n\n   8 ok"
    ) in ran.out
    assert "1 broken: not what clients of the dialect can read" in ran.out


def test_a_plain_answer_and_an_error_are_held_to_their_shapes(gateway: Gateway, shared_upstream: Upstream) -> None:
    usual = capable()

    async def odd(exchange: Exchange) -> None:
        tree = exchange.request.json
        if tree.get("messages") == 5:
            await answer({"message": "no"}, status=400)(exchange)
        elif tree.get("stream") or "tools" in tree:
            await usual(exchange)
        else:
            await answer({"object": "chat.completion", "choices": []})(exchange)

    shared_upstream.default = odd
    ran = doctor(gateway, "--model", "chat-1", "--only", "chat", "--json")
    assert ran.code == 1
    found = ran.checks["chat", "plain answer"]
    assert (found["outcome"], found["detail"]) == ("broken", "expected at least one choice, got []")
    assert ran.checks["chat", "tool calls"]["outcome"] == "ok"


def test_a_malformed_request_that_is_answered_is_broken(gateway: Gateway, shared_upstream: Upstream) -> None:
    shared_upstream.default = answer(providers.chat(TEXT))
    ran = doctor(gateway, "--model", "chat-1", "--only", "chat", "--json")
    found = ran.checks["chat", "malformed request"]
    assert (found["outcome"], found["detail"]) == ("broken", "a malformed request was answered 200, not 400")


# --- what the model does not do


@pytest.mark.parametrize("spoken", ["chat", "messages"])
def test_what_the_provider_refuses_is_no_failure_but_a_strict_one(
    gateway: Gateway, shared_upstream: Upstream, spoken: str
) -> None:
    shared_upstream.default = capable(tools=refuses(spoken, 400))
    ran = doctor(gateway, "--model", f"{spoken}-1", "--json")
    assert ran.code == 0
    for form in FORMS:
        found = ran.checks[form, "tool calls"]
        assert found["outcome"] == "refused"
        assert "told so by the provider" in found["detail"]
        assert ran.checks[form, "tool results"]["outcome"] == "skipped"
        assert ran.checks[form, "plain answer"]["outcome"] == "ok"
    assert doctor(gateway, "--model", f"{spoken}-1", "--only", "chat", "--strict").code == 1


def test_one_call_where_two_were_asked_for_is_said(gateway: Gateway, shared_upstream: Upstream) -> None:
    shared_upstream.default = capable(tools=plays(Scene(calls=TOOLS.calls[:1], stop="tool")))
    ran = doctor(gateway, "--model", "gemini-1", "--only", "chat,gemini")
    assert ran.code == 0
    assert (
        "ok: tool calls, tool calls streamed (chat, gemini)\n"
        "    one call, where two were asked for: the model calls one at a time\n"
    ) in ran.out


def test_a_tool_that_is_not_called_is_the_models_doing(gateway: Gateway, shared_upstream: Upstream) -> None:
    shared_upstream.default = capable(tools=plays(TEXT))
    ran = doctor(gateway, "--model", "chat-1", "--only", "chat,messages", "--json")
    assert ran.code == 0
    for form in ("chat", "messages"):
        found = ran.checks[form, "tool calls streamed"]
        assert (found["outcome"], found["detail"]) == ("refused", "no tool was called, though one had to be")


@pytest.mark.parametrize("tools", [refuses("messages", 400), plays(TEXT)], ids=["error", "ignored"])
def test_what_works_in_another_dialect_is_not_the_models_limit(
    gateway: Gateway, shared_upstream: Upstream, tools: Behaviour
) -> None:
    shared_upstream.default = capable(tools=tools, tools_at="/messages")
    ran = doctor(gateway, "--model", "both-1", "--only", "chat,messages", "--json")
    assert ran.code == 1
    assert ran.checks["chat", "tool calls"]["outcome"] == "ok"
    found = ran.checks["messages", "tool calls"]
    assert found["outcome"] == "broken"
    assert "not the model's limit: in chat it works" in found["detail"]


@pytest.mark.parametrize("status", [404, 429, 500])
def test_a_provider_that_fails_is_neither_refused_nor_broken(
    gateway: Gateway, shared_upstream: Upstream, status: int
) -> None:
    shared_upstream.default = refuses("chat", status)
    ran = doctor(gateway, "--model", "chat-1", "--only", "chat", "--json")
    assert ran.code == 1
    assert ran.checks["chat", "plain answer"]["outcome"] == "failed"
    assert UPSTREAM_KEY not in ran.out


def test_a_stream_that_breaks_off_has_failed(gateway: Gateway, shared_upstream: Upstream) -> None:
    usual = capable()

    async def cut(exchange: Exchange) -> None:
        if exchange.request.json.get("stream"):
            await stream([wire([frame]) for frame in frames("chat", TEXT)[:3]], ending="fin")(exchange)
        else:
            await usual(exchange)

    shared_upstream.default = cut
    for only in ("chat", "messages"):
        found = doctor(gateway, "--model", "chat-1", "--only", only, "--json").checks[only, "streamed answer"]
        assert (found["outcome"], found["detail"][:29]) == ("failed", "the stream ended in an error:")


def test_a_relayed_stream_that_breaks_off_has_failed(gateway: Gateway, shared_upstream: Upstream) -> None:
    shared_upstream.default = capable(lambda whole: whole[:-1])
    for only in ("messages", "responses"):
        found = doctor(gateway, "--model", f"{only}-1", "--only", only, "--json").checks[only, "streamed answer"]
        assert (found["outcome"], found["detail"][:29]) == ("failed", "the stream ended in an error:")


# --- nothing to examine


def test_usage_errors_end_with_2(gateway: Gateway) -> None:
    ran = doctor(gateway, "--only", "chat,soap")
    assert (ran.code, "expected some of chat,responses,messages,gemini, got 'soap'" in ran.err) == (2, True)
    assert doctor(gateway, "--timeout", "0").code == 2
    ran = doctor(gateway, "--key", "agw-unknown-9999")
    assert (ran.code, ran.err) == (2, f"{gateway.url} does not know the key\n")
    ran = doctor(gateway, "--url", "http://127.0.0.1:1", "--json")
    assert ran.code == 2
    assert orjson.loads(ran.out)["passed"] is False
    assert "no gateway listens" in orjson.loads(ran.out)["error"]


def test_a_model_that_is_not_there_has_failed(gateway: Gateway) -> None:
    ran = doctor(gateway, "--model", "nothing-like-it", "--only", "messages", "--json", key=APP_KEY)
    assert ran.code == 1
    assert ran.outcomes == {"failed", "skipped", "ok"}
    for check in ("plain answer", "streamed answer", "malformed request"):
        assert ran.checks["messages", check]["detail"].startswith("404: The model 'nothing-like-it'")
    assert ran.checks["messages", "unknown model"]["outcome"] == "ok"
    assert ran.checks["messages", "cancellation"]["detail"] == "needs an answer"
