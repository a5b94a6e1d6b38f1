"""Values in memory: never more bytes than allowed, and what was used least lately has gone."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.store.memory import Memory

ROOM = 100
TTL = 10.0


@dataclass(frozen=True)
class Value:
    size: int


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 9), st.integers(1, 120)),
        st.tuples(st.just("get"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("charge"), st.integers(0, 9), st.integers(1, 60)),
        st.tuples(st.just("remove"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 6), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_it_is_a_list_in_order_of_use_cut_at_its_bound(steps: list[tuple[str, int, int]]) -> None:
    dropped: list[bytes] = []
    memory: Memory[Value] = Memory(ROOM, dropped=dropped.append)
    model: list[tuple[bytes, int, float]] = []  # key, bytes, due: the least used first
    now = 0.0

    def without(key: bytes) -> list[tuple[bytes, int, float]]:
        return [item for item in model if item[0] != key]

    def trim() -> list[tuple[bytes, int, float]]:
        kept = list(model)
        while sum(size for _, size, _ in kept) > ROOM:
            # The newest use is spared as long as there is something else, unless it alone is too much.
            place = 0 if len(kept) == 1 or kept[0][0] != protected else 1
            del kept[place]
        return kept

    for kind, number, size in steps:
        key = bytes([number])
        protected = key
        if kind == "wait":
            now += number
        elif kind == "set":
            model = without(key)
            assert memory.set(key, Value(size), TTL, now) is (size <= ROOM)
            if size <= ROOM:
                model = [*model, (key, size, now + TTL)]
                model = trim()
        elif kind == "get":
            found = next((item for item in model if item[0] == key and now < item[2]), None)
            value = memory.get(key, now)
            assert (value is not None) is (found is not None)
            model = without(key) + ([found] if found else [])
        elif kind == "charge":
            model = [(name, held + size * (name == key), due) for name, held, due in model]
            memory.charge(key, size, now)
            model = trim()
        else:
            memory.remove(key)
            model = without(key)
        assert memory.bytes <= ROOM
        assert memory.bytes == sum(held for _, held, _ in model) or any(due <= now for _, _, due in model)
        assert len(memory) <= 10
        assert all(memory.get(item, now) is None for item in dropped if item not in {name for name, _, _ in model})


def test_what_is_used_elsewhere_is_spared_once() -> None:
    used = {b"a"}

    def fresh(key: bytes) -> bool:
        found = key in used
        used.discard(key)
        return found

    memory: Memory[Value] = Memory(ROOM, fresh=fresh)
    for key in (b"a", b"b"):
        memory.set(key, Value(50), TTL, 0.0)
    memory.set(b"c", Value(50), TTL, 0.0)
    assert memory.get(b"a", 0.0) is not None
    assert memory.get(b"b", 0.0) is None
    memory.set(b"d", Value(50), TTL, 0.0)
    assert memory.evicted == 2


def test_everything_used_elsewhere_still_makes_room() -> None:
    memory: Memory[Value] = Memory(ROOM, fresh=lambda _: True)
    for number in range(20):
        memory.set(bytes([number]), Value(30), TTL, 0.0)
        assert memory.bytes <= ROOM
    assert memory.get(b"\x13", 0.0) is not None


def test_clearing_tells_of_each() -> None:
    dropped: list[bytes] = []
    memory: Memory[Value] = Memory(ROOM, dropped=dropped.append)
    for key in (b"a", b"b"):
        memory.set(key, Value(10), TTL, 0.0)
    memory.clear()
    assert (dropped, memory.bytes, len(memory)) == ([b"a", b"b"], 0, 0)
