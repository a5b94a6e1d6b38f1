"""What a connection remembers of its turns, and how it is put together again."""

import tracemalloc
from typing import Any

import orjson
import pytest

from agw_proxy.edge.chains import MAX_KEPT_BYTES, MAX_LANES, Begun, Chains, answered, items_of

Tree = dict[str, Any]

NONE = Begun(())


class Room:
    """All that is held."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.kept = 0

    def keep(self, size: int) -> None:
        """See ``Held``."""
        self.kept += size
        self.room -= size


def item(text: str) -> Tree:
    return {"type": "message", "role": "user", "content": text}


def said(tree: Tree) -> Any:
    """The request as it goes out."""
    return orjson.loads(orjson.dumps(tree))


def found(chains: Chains, tree: Tree) -> Begun:
    """What is known of its conversation."""
    begun = chains.begin(tree)
    assert begun is not None
    return begun


def test_a_turn_that_names_the_one_before_gets_its_words_in_front() -> None:
    chains = Chains(Room())
    first: Tree = {"input": "one"}
    begun = chains.begin(first)
    assert said(first) == {"input": "one"}
    chains.end("", "r1", begun, (b'{"a":1}',), there=False)
    second: Tree = {"input": [item("two")], "previous_response_id": "r1", "model": "m"}
    assert len(found(chains, second).items) == 3
    assert said(second) == {"input": [item("one"), {"a": 1}, item("two")], "model": "m"}


def test_what_its_upstream_knows_is_named_and_what_nobody_knows_is_left_alone() -> None:
    chains = Chains(Room())
    chains.end("", "r1", NONE, (b"1",), there=True)
    for known, count in (("r1", 2), ("r2", 1), (7, 1), (None, 1)):
        tree: Tree = {"input": "x", "previous_response_id": known}
        assert found(chains, tree) == Begun((b"1", *items_of("x"))[-count:], "r2" if known == "r2" else None)
        assert tree == {"input": "x", "previous_response_id": known}


def test_what_a_chain_goes_on_from_and_is_not_known_here_is_named_in_front_of_it() -> None:
    chains = Chains(Room())
    begun = chains.begin({"input": "one", "previous_response_id": "elsewhere"})
    chains.end("", "r1", begun, (b'{"a":1}',), there=False)
    second: Tree = {"input": "two", "previous_response_id": "r1"}
    begun = chains.begin(second)
    whole = [item("one"), {"a": 1}, item("two")]
    assert said(second) == {"input": whole, "previous_response_id": "elsewhere"}
    chains.end("", "r2", begun, (), there=True)
    third: Tree = {"input": "three", "previous_response_id": "r2"}
    assert found(chains, third) == Begun((*map(orjson.dumps, whole), *items_of("three")), "elsewhere")
    assert said(third) == {"input": "three", "previous_response_id": "r2"}


def test_a_turn_of_a_conversation_of_the_apis_is_that_ones() -> None:
    chains = Chains(Room())
    tree: Tree = {"input": "one", "conversation": "conv_1"}
    begun = chains.begin(tree)
    assert said(tree) == {"input": "one", "conversation": "conv_1"}
    chains.end("", "r1", begun, (b"1",), there=False)
    after: Tree = {"input": "two", "previous_response_id": "r1"}
    chains.begin(after)
    assert said(after) == {"input": "two", "previous_response_id": "r1"}


def test_each_lane_has_its_latest_and_a_new_lane_may_go_on_from_another() -> None:
    room = Room()
    chains = Chains(room)
    chains.end("a", "r1", NONE, (b"11",), there=False)
    chains.end("a", "r2", NONE, (b"2222",), there=False)
    assert room.kept == 4
    assert found(chains, {"previous_response_id": "r1"}).items == ()
    assert found(chains, {"previous_response_id": "r2"}) == Begun((b"2222",))
    for number in range(MAX_LANES):
        chains.end(str(number), f"n{number}", NONE, (b"3",), there=False)
    assert found(chains, {"previous_response_id": "r2"}).items == ()
    assert room.kept == MAX_LANES
    chains.forget("n1")
    chains.forget(None)
    assert room.kept == MAX_LANES - 1
    chains.clear()
    assert room.kept == 0
    chains.end("", "late", NONE, (b"1",), there=False)  # of a turn that was cut off when the connection ended
    assert room.kept == 0


@pytest.mark.parametrize(("size", "room"), [(MAX_KEPT_BYTES + 1, 1 << 30), (100, 99), (1, -5)])
def test_what_is_too_much_is_not_remembered(size: int, room: int) -> None:
    held = Room(room)
    chains = Chains(held)
    chains.end("", "r1", NONE, (b"x" * size,), there=False)
    assert held.kept == 0
    assert found(chains, {"previous_response_id": "r1"}).items == ()


def test_an_input_is_items_whatever_it_came_as() -> None:
    assert [orjson.loads(text) for text in items_of("x")] == [item("x")]
    assert items_of([1, {"a": None}]) == (b"1", b'{"a":null}')
    assert items_of(None) == items_of(7) == items_of({}) == ()


@pytest.mark.parametrize(
    ("native", "stored", "kinds"),
    [(True, True, ["reasoning", "function_call"]), (False, False, ["reasoning", "function_call"]), (True, False, ["function_call"])],
)  # fmt: skip
def test_thoughts_that_only_a_store_would_know_do_not_go_back(native: bool, stored: bool, kinds: list[str]) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
    made = answered([{"type": "reasoning", "id": "rs_1", "summary": []}, call, None], native=native, stored=stored)
    trees = [orjson.loads(text) for text in made]
    assert [tree["type"] for tree in trees] == kinds
    assert ("id" in trees[-1]) is (len(kinds) == 2)
    assert trees[-1]["call_id"] == "c"


def test_encrypted_thoughts_go_back_as_they_are() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    assert [orjson.loads(text) for text in answered([thought], native=True, stored=False)] == [thought]


def test_what_is_remembered_takes_hardly_more_memory_than_it_counts_for() -> None:
    said = [{"type": "message", "role": "user", "content": "x" * 100}] * 500
    tracemalloc.start()
    try:
        items = (*items_of(said), *answered(said, native=False, stored=True))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 2 * sum(map(len, items))
