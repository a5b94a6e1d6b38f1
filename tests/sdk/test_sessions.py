"""Runs in a session: what the model is given, who goes on, and what is kept of runs that end in some other way."""

from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    RunContextWrapper,
    function_tool,
    input_guardrail,
    output_guardrail,
)
from agents.memory import Session
from agents.testing import ModelStep, ScriptedModel, function_call

from agw_proxy.errors import GatewayError, GuardrailTripped
from agw_proxy.sdk.entry import CURRENT, Bounds, Run
from agw_proxy.sdk.sessions import Memory
from agw_proxy.sdk.turns import Book, Place, Talk, Turn
from agw_proxy.types import Caller
from tests.api.control import principal
from tests.sdk.agents_served import Served, said, used, weather, with_weather, words_of
from tests.sdk.test_runner import CLIENT_TOOL
from tests.sdk.test_turns import Pages, model, user

CALLER = Caller(principal(), session="s1")


class Shelf:
    """All books in memory, one for each place."""

    def __init__(self) -> None:
        self.books: dict[Place, Pages] = {}
        self.closed = False

    async def open(self, place: Place, *, alone: bool, begins: bool) -> Book:
        return self.books.setdefault(place, Pages())

    async def close(self) -> None:
        self.closed = True

    @property
    def book(self) -> Pages:
        (book,) = self.books.values()
        return book


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def given(scripted: ScriptedModel) -> list[str]:
    """What the model was given last, in short."""
    found: list[Any] = list(scripted.calls[-1].input)
    return [str(each.get("call_id") or each.get("content")) for each in found]


async def test_the_sdks_session_has_the_past_and_takes_what_is_new() -> None:
    talk = Talk(Pages(), [user("a"), model("b"), user("c")], whole=True, always=True)
    memory = Memory("s1", talk)
    assert isinstance(memory, Session)
    assert await memory.get_items() == [user("a"), model("b")]
    added: Any = [user("c"), model("d")]
    await memory.add_items(added)
    assert await memory.get_items(1) == [model("d")]
    assert await memory.get_items(0) == []
    assert await memory.pop_item() == model("d")
    assert talk.past == [user("a"), model("b")]
    await memory.clear_session()
    assert (await memory.get_items(), await memory.pop_item()) == ([], None)


async def test_the_next_run_is_given_all_that_was_said_and_done(shelf: Shelf) -> None:
    scripted = with_weather(*said("It rains.", "Indeed."))
    served = Served(Agent(name="helper", tools=[weather], model=scripted), books=shelf, caller=CALLER)
    assert words_of(await served.answer("one", "chat"), "chat") == "I look.\n\nIt rains."
    assert words_of(await served.answer("two", "messages"), "messages") == "Indeed."
    assert given(scripted) == ["one", "I look.", "call_1", "call_1", "It rains.", "two"]
    await served.upstream.close()
    assert (shelf.book.ended, shelf.book.left) == (2, 0)
    assert list(shelf.books) == [Place("key:test", "default/helper", "s1")]
    assert shelf.closed


async def test_a_result_goes_to_the_agent_that_has_asked_for_it(shelf: Shelf) -> None:
    mail = ModelStep([function_call("send_mail", {"to": "a"}, call_id="mail_1")], used(4, 4))
    expert_model = ScriptedModel([mail, *said("Sent.")])
    first_model = ScriptedModel([
        ModelStep([function_call("transfer_to_expert", "{}", call_id="hand_1")], used(3, 3)), *said("Hello again."),
    ])  # fmt: skip
    expert = Agent(name="expert", model=expert_model)
    served = Served(Agent(name="helper", handoffs=[expert], model=first_model), books=shelf, caller=CALLER)
    await served.answer("mail", tools=[CLIENT_TOOL])
    output = {"type": "function_call_output", "call_id": "mail_1", "output": "ok"}
    served.runner._carried._turns.clear()  # as at another worker, or after a restart
    assert words_of(await served.answer([output], tools=[CLIENT_TOOL]), "responses") == "Sent."
    assert given(expert_model)[-2:] == ["mail_1", "mail_1"]
    assert words_of(await served.answer("thanks"), "responses") == "Hello again."
    assert given(first_model) == ["mail", "hand_1", "hand_1", "mail_1", "mail_1", "Sent.", "thanks"]


async def test_own_results_beside_a_callers_call_are_kept_though_the_answer_is_guarded(shelf: Shelf) -> None:
    @output_guardrail
    async def fine(context: RunContextWrapper[Any], agent: Agent[Any], output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=False)

    both = [
        function_call("weather", {"city": "Rome"}, call_id="own_1"),
        function_call("send_mail", {"to": "A"}, call_id="mail_1"),
    ]
    scripted = ScriptedModel([ModelStep(both, used(1, 1)), *said("Done.")])
    agent = Agent(name="helper", tools=[weather], model=scripted, output_guardrails=[fine])
    served = Served(agent, books=shelf, caller=CALLER)
    await served.answer("go", tools=[CLIENT_TOOL])
    output = {"type": "function_call_output", "call_id": "mail_1", "output": "ok"}
    assert words_of(await served.answer([output], tools=[CLIENT_TOOL]), "responses") == "Done."
    assert sorted(given(scripted)) == sorted(["go", "own_1", "mail_1", "own_1", "mail_1"])


async def test_a_cut_answer_is_known_as_far_as_it_was_told(shelf: Shelf) -> None:
    scripted = with_weather(*said("Well?"))
    served = Served(Agent(name="helper", tools=[weather], model=scripted), Bounds(turns=1), books=shelf, caller=CALLER)
    assert words_of(await served.answer("one"), "responses") == "I look."
    assert words_of(await served.answer("two"), "responses") == "Well?"
    assert given(scripted) == ["one", "I look.", "two"]


async def test_what_fails_or_is_forbidden_leaves_nothing(shelf: Shelf) -> None:
    @input_guardrail(run_in_parallel=False)
    async def no_secrets(context: RunContextWrapper[Any], agent: Agent[Any], asked: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered="secret" in str(asked[-1]))

    @function_tool(failure_error_function=None)
    def breaks() -> str:
        raise OSError

    call = ModelStep([function_call("breaks", {}, call_id="own_1")], used(1, 1))
    scripted = ScriptedModel([*said("Hello."), call, *said("Yes.")])
    agent = Agent(name="helper", tools=[breaks], model=scripted, input_guardrails=[no_secrets])
    served = Served(agent, books=shelf, caller=CALLER)
    await served.answer("one")
    for words, kind in (("secret", GuardrailTripped), ("break", GatewayError)):
        with pytest.raises(kind):
            await served.answer(words)
    await served.answer("two")
    assert given(scripted) == ["one", "Hello.", "two"]
    await served.upstream.close()
    assert (shelf.book.ended, shelf.book.left) == (4, 2)


async def test_a_request_that_cannot_be_begun_leaves_the_session(shelf: Shelf) -> None:
    served = Served(Agent(name="helper", model=ScriptedModel(said("x")), output_type=int), books=shelf, caller=CALLER)
    with pytest.raises(GatewayError):
        await served.answer("one", text={"format": {"type": "json_object"}})
    assert shelf.book.ended == 1


async def test_a_session_that_cannot_be_read_is_left(shelf: Shelf) -> None:
    shelf.books[Place("key:test", "default/helper", "s1")] = book = Pages(Turn(b"{", b"[]", b""))
    served = Served(Agent(name="helper", model=ScriptedModel(said("x"))), books=shelf, caller=CALLER)
    with pytest.raises(ValueError, match="unexpected end"):
        await served.answer("one")
    assert book.ended == 1


async def test_an_agent_that_is_another_ones_model_is_in_no_session(shelf: Shelf) -> None:
    served = Served(Agent(name="helper", model=ScriptedModel(said("x"))), books=shelf, caller=CALLER)
    before = CURRENT.set(Run("req_outer", None, "default/outer"))
    try:
        await served.answer("one")
    finally:
        CURRENT.reset(before)
    assert shelf.books == {}


async def test_a_stream_is_kept_before_its_last_event_is_told(shelf: Shelf) -> None:
    served = Served(Agent(name="helper", model=ScriptedModel(said("x"))), books=shelf, caller=CALLER)
    opened = await served.open({"input": "one", "stream": True})
    taken = opened.first
    while b"response.completed" not in taken:
        assert not opened.reply.ended
        taken += await opened.reply.read()
    assert len(shelf.book.turns) == 1
    opened.reply.close()
