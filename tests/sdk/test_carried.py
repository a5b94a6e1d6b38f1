"""What is carried from one request of a caller to the next, to whom, and how much."""

from typing import Any

from agw_proxy.sdk.carried import MAX_KEPT, MAX_TURN_BYTES, SECONDS, Carried

ME, OTHER = ("key:a", "default/x@1"), ("key:b", "default/x@1")
HISTORY: list[dict[str, Any]] = [{"type": "message", "role": "user", "content": "Hello"}]
OWN: list[dict[str, Any]] = [{"type": "function_call", "call_id": "own", "name": "look", "arguments": "{}"}]


def call(call_id: str = "c") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "mail", "arguments": "{}"}


def test_what_was_done_comes_back_before_the_call() -> None:
    carried = Carried()
    carried.keep(ME, ["c", "d"], HISTORY, OWN, "expert", 0.0)
    found = carried.restore(ME, [*HISTORY, call("c"), call("d")], 1.0)
    assert found == ([*HISTORY, *OWN, call("c"), call("d")], "expert")
    assert carried.restore(ME, [*HISTORY, call("c"), call("d")], 1.0) == found


def test_the_same_words_may_be_spelt_in_another_way() -> None:
    carried = Carried()
    carried.keep(ME, ["c"], HISTORY, OWN, "expert", 0.0)
    for content in ("Hello", [{"type": "input_text", "text": "Hello"}]):
        assert carried.restore(ME, [{"role": "user", "content": content}, call()], 1.0)[1] == "expert"


def test_it_is_for_the_same_caller_conversation_and_version_and_for_a_while() -> None:
    carried = Carried()
    carried.keep(ME, ["c"], HISTORY, OWN, "expert", 0.0)
    history = [*HISTORY, call()]
    elsewhere = [{"type": "message", "role": "user", "content": "Somebody else"}, call()]
    assert carried.restore(OTHER, history, 1.0) == (history, None)
    assert carried.restore(("key:a", "default/x@2"), history, 1.0) == (history, None)
    assert carried.restore(ME, elsewhere, 1.0) == (elsewhere, None)
    assert carried.restore(ME, [call()], 1.0) == ([call()], None)
    assert carried.restore(ME, history, SECONDS + 1) == (history, None)


def test_it_is_bounded() -> None:
    carried = Carried()
    carried.keep(ME, ["large"], HISTORY, [{"output": "x" * MAX_TURN_BYTES}], None, 0.0)
    carried.keep(ME, ["odd"], HISTORY, [{"output": object()}], None, 0.0)
    assert carried.restore(ME, [*HISTORY, call("large"), call("odd")], 0.0)[0] == [*HISTORY, call("large"), call("odd")]
    for number in range(MAX_KEPT + 1):
        carried.keep(ME, [f"c{number}"], HISTORY, OWN, "a", 0.0)
    assert carried.restore(ME, [*HISTORY, call("c0")], 0.0)[1] is None
    assert carried.restore(ME, [*HISTORY, call("c1")], 0.0)[1] == "a"
    carried.keep(ME, ["new"], HISTORY, OWN, "a", SECONDS + 1)
    assert carried.restore(ME, [*HISTORY, call("c1")], 0.0)[1] is None


def test_ids_that_come_again_carry_the_latest() -> None:
    carried = Carried()
    carried.keep(ME, ["c"], HISTORY, OWN, "first", 0.0)
    carried.keep(ME, ["c"], HISTORY, [], "second", 0.0)
    assert carried.restore(ME, [*HISTORY, call()], 0.0) == ([*HISTORY, call()], "second")
