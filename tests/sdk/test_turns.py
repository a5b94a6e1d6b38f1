"""Which of what was said comes before a request, and what of a turn is kept."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from agw_proxy.dialects.base import BlockStart, BlockStop, Part, Text, Thinking, ToolUse
from agw_proxy.sdk.turns import UNANSWERED, Talk, Turn, place_of, taken_apart

LOOKED = {
    "type": "function_call",
    "call_id": "own_1",
    "name": "look",
    "arguments": "{}",
    "id": "fc_1",
    "status": "completed",
}
SEEN = {"type": "function_call_output", "call_id": "own_1", "output": "rain"}
MAIL = {"type": "function_call", "call_id": "mail_1", "name": "mail", "arguments": "{}"}
SENT = {"type": "function_call_output", "call_id": "mail_1", "output": "sent"}


class Pages:
    """A book in memory."""

    def __init__(self, *turns: Turn) -> None:
        self.turns: Sequence[Turn] = turns
        self.ended = self.left = 0
        self.kept: list[int] = []

    async def keep(self, before: int, turns: Sequence[Turn]) -> None:
        self.kept.append(before)
        self.turns = (*self.turns[:before], *turns)

    async def leave(self) -> None:
        self.left += 1

    def end(self) -> None:
        self.ended += 1


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def model(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text}


def said(text: str) -> list[Any]:
    return [BlockStart(0, Thinking()), Part("hm"), BlockStop(), BlockStart(1, Text("")), Part(text), BlockStop()]


async def told(pages: Pages, items: Sequence[Any], words: str, made: Sequence[Any], **how: bool) -> Talk:
    """A request that is answered so."""
    talk = Talk(pages, items, whole=how.get("whole", False), always=how.get("always", True))
    talk.hear(said(words))
    calls = [item["call_id"] for item in made if item.get("name") == "mail"]
    talk.hear([event for call in calls for event in (BlockStart(2, ToolUse(call, "mail")), BlockStop())])
    await talk.keep(made, "clerk")
    return talk


@pytest.fixture
async def pages() -> Pages:
    """A turn with a call of the agent's own, and a short one."""
    made = Pages()
    await told(made, [user("one")], "I look.\n\nIt rains.", [model("I look."), LOOKED, SEEN, model("It rains.")])
    await told(made, [user("two")], "Yes.", [model("Yes.")])
    return made


KNOWN = [
    user("one"), model("I look."), {key: LOOKED[key] for key in ("type", "call_id", "name", "arguments")}, SEEN,
    model("It rains."), user("two"), model("Yes."),
]  # fmt: skip
HISTORY = [user("one"), model("I look. It rains."), user("two"), model("Yes.")]


async def test_what_is_new_comes_after_all_that_is_known(pages: Pages) -> None:
    talk = await told(pages, [{"role": "system", "content": "now"}, user("three")], "Well.", [model("Well.")])
    assert talk.past == [{"role": "system", "content": "now"}, *KNOWN]
    assert talk.fresh == [user("three")]
    assert pages.kept[-1] == 2
    assert orjson.loads(pages.turns[-1].asked) == [user("three")]


@pytest.mark.parametrize("whole", [False, True])
async def test_a_whole_history_is_known_however_it_is_cut(pages: Pages, whole: bool) -> None:
    parts = [{"type": "output_text", "text": "I look."}, {"type": "output_text", "text": "It rains."}]
    spelt = [
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"role": "assistant", "content": parts},
    ]
    talk = await told(pages, [*spelt, *HISTORY[2:], user("three")], "Well.", [model("Well.")], whole=whole)
    assert (talk.past, talk.fresh) == (KNOWN, [user("three")])
    assert pages.kept[-1] == 2


async def test_a_picture_is_the_same_however_it_is_spelt() -> None:
    pages = Pages()
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    await told(pages, [{"role": "user", "content": [picture]}], "A cat.", [LOOKED, SEEN, model("A cat.")])
    listed = {"detail": "auto", **picture}
    history = [{"role": "user", "content": [listed], "type": "message"}, model("A cat."), user("sure?")]
    assert SEEN in Talk(pages, history, whole=True, always=True).past


async def test_the_callers_history_is_the_truth(pages: Pages) -> None:
    changed = [*HISTORY[:2], user("else"), model("No."), user("three")]
    talk = await told(pages, changed, "Well.", [model("Well.")])
    assert talk.past == [*KNOWN[:5], user("else"), model("No.")]
    assert pages.kept[-1] == 1
    again = Talk(pages, [*changed, model("Well."), user("four")], whole=True, always=True)
    assert again.past == [*KNOWN[:5], user("else"), model("No."), user("three"), model("Well.")]
    window = Talk(pages, [user("three"), model("Well."), user("four")], whole=False, always=True)
    assert window.past == [user("three"), model("Well.")]
    assert Talk(pages, [user("four")], whole=True, always=True).past == []


async def test_a_callers_call_goes_on_with_its_agent_or_is_closed(pages: Pages) -> None:
    await told(pages, [user("mail")], "", [LOOKED, MAIL, SEEN])
    goes_on = Talk(pages, [SENT], whole=False, always=True)
    assert (goes_on.past[-4:], goes_on.fresh, goes_on.agent) == ([user("mail"), KNOWN[2], MAIL, SEEN], [SENT], "clerk")
    history = [*HISTORY, user("mail"), MAIL, SENT]
    assert Talk(pages, history, whole=False, always=True).past == goes_on.past
    left = Talk(pages, [user("never mind")], whole=False, always=True)
    assert left.past[-1] == {"type": "function_call_output", "call_id": "mail_1", "output": UNANSWERED}
    assert left.agent is None


async def test_thoughts_are_kept_where_they_can_be_read_again() -> None:
    pages = Pages()
    secret = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xyz"}
    plain = {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "Hm."}]}
    await told(pages, [user("one")], "Yes.", [secret, plain, model("Yes.")])
    assert orjson.loads(pages.turns[0].made) == [secret, model("Yes.")]


async def test_what_the_caller_knows_all_of_is_kept_where_it_must() -> None:
    pages = Pages()
    await told(pages, [user("one")], "Yes.", [model("Yes.")], whole=True, always=False)
    assert pages.kept == []
    history = [user("one"), model("Yes."), user("two")]
    await told(pages, history, "It rains.", [LOOKED, SEEN, model("It rains.")], whole=True, always=False)
    assert len(pages.turns) == 2
    history += [model("It rains."), user("three")]
    talk = await told(pages, history, "Yes.", [model("Yes.")], whole=True, always=False)
    assert SEEN in talk.past
    assert len(pages.turns) == 3


async def test_what_is_no_json_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    pages = Pages()
    await told(pages, [user("one")], "", [{"type": "function_call_output", "call_id": "a", "output": object()}])
    assert pages.kept == []
    assert "cannot be kept" in caplog.text


async def test_a_cut_answer_is_what_was_told(pages: Pages) -> None:
    talk = Talk(pages, [user("three")], whole=False, always=True)
    assert talk.told == []
    talk.hear(said("It ra"))
    assert talk.told == [model("It ra")]
    talk.end()
    assert pages.ended == 1


def test_turns_begin_where_a_caller_speaks_after_a_model() -> None:
    system, turns, fresh = taken_apart([user("a"), user("b"), model("x"), MAIL, SENT, model("y")])
    assert (system, [list(map(len, turn)) for turn in turns]) == ([], [[2, 2]])
    assert fresh == [SENT, model("y")]
    assert taken_apart([]) == ([], [], [])


def test_a_named_session_is_one_keys() -> None:
    assert place_of("app", "default/clerk", "s") != place_of("other", "default/clerk", "s")
