"""Places go to those who wait, in order, once each, whatever becomes of them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.resilience import Adaptive
from agw_proxy.errors import UpstreamQueueFull
from agw_proxy.upstreams.queue import Places

LONG_SECONDS = 30.0


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.depth = 0
        self.waits: list[int] = []
        self.away: list[str] = []
        self.places: list[int] = []

    def queued(self, upstream: str, step: int) -> None:
        assert upstream == "u"
        self.depth += step

    def waited(self, upstream: str, nanoseconds: int) -> None:
        assert upstream == "u"
        self.waits.append(nanoseconds)

    def turned_away(self, upstream: str, why: str) -> None:
        assert upstream == "u"
        self.away.append(why)

    def adapted(self, upstream: str, places: int) -> None:
        assert upstream == "u"
        self.places.append(places)


def places(most: int = 1, size: int = 10, wait: float = LONG_SECONDS) -> tuple[Places, Heard]:
    heard = Heard()
    return Places("u", most=most, size=size, wait=wait, told=heard), heard


async def turn() -> None:
    """Let everybody run who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_go_in_the_order_of_asking() -> None:
    there, heard = places(most=1)
    assert there.take()
    order: list[int] = []

    async def one(number: int) -> None:
        await there.wait()
        order.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(4)]
    await turn()
    assert (order, there.waiting, heard.depth) == ([], 4, 4)
    for count in range(1, 5):
        there.give()
        await turn()
        assert order == list(range(count))
    there.give()
    await asyncio.gather(*tasks)
    assert (there.taken, there.waiting, heard.depth, len(heard.waits)) == (0, 0, 0, 4)


async def test_nobody_overtakes_who_waits() -> None:
    there, _ = places(most=1)
    assert there.take()
    waiting = asyncio.create_task(there.wait())
    await turn()
    there.give()
    assert not there.take()  # it is the waiting one's, which has not run yet
    await waiting
    there.give()
    assert there.take()


async def test_a_full_queue_says_so_at_once() -> None:
    there, heard = places(most=1, size=1, wait=LONG_SECONDS)
    assert there.take()
    waiting = asyncio.create_task(there.wait())
    await turn()
    with pytest.raises(UpstreamQueueFull, match="1 requests wait") as refused:
        await there.wait()
    assert (refused.value.status, refused.value.retry_after_ms, refused.value.blameless) == (503, 30_000, True)
    assert heard.away == ["full"]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (there.waiting, there.taken, heard.depth) == (0, 1, 0)


async def test_no_queue_at_all_is_a_bound_without_waiting() -> None:
    there, heard = places(most=1, size=0)
    assert there.take()
    with pytest.raises(UpstreamQueueFull, match="none may wait"):
        await there.wait()
    assert heard.away == ["full"]


async def test_a_long_wait_ends_and_leaves_the_queue() -> None:
    there, heard = places(most=1, wait=0.01)
    assert there.take()
    with pytest.raises(UpstreamQueueFull, match=r"within 0\.01 s"):
        await there.wait()
    assert (there.waiting, there.taken, heard.away, heard.waits) == (0, 1, ["late"], [])
    there.give()
    assert there.taken == 0


async def test_who_leaves_gives_the_turn_to_the_next() -> None:
    there, heard = places(most=1)
    assert there.take()
    first, second = asyncio.create_task(there.wait()), asyncio.create_task(there.wait())
    await turn()
    first.cancel()
    await turn()
    assert there.waiting == 1
    there.give()
    await second
    there.give()
    assert (there.taken, heard.depth) == (0, 0)


async def test_a_place_that_came_to_one_who_left_goes_on() -> None:
    there, heard = places(most=1)
    assert there.take()
    first, second = asyncio.create_task(there.wait()), asyncio.create_task(there.wait())
    await turn()
    there.give()  # it is the first one's now
    first.cancel()  # who never learns of it
    await second
    assert first.cancelled()
    there.give()
    assert (there.taken, there.waiting, heard.depth) == (0, 0, 0)


@given(
    most=st.integers(1, 3),
    size=st.integers(0, 3),
    steps=st.lists(st.tuples(st.sampled_from(["ask", "give", "leave", "run"]), st.integers(0, 7)), max_size=60),
)
def test_places_are_never_lost_and_never_too_many(most: int, size: int, steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        there, heard = places(most, size)
        held = 0
        tasks: list[asyncio.Task[None]] = []
        left: set[asyncio.Task[None]] = set()

        async def one() -> None:
            nonlocal held
            await there.wait()
            held += 1

        for what, number in steps:
            if what == "ask":
                tasks.append(asyncio.create_task(one()))
            elif what == "give" and held:
                held -= 1
                there.give()
            elif what == "leave" and tasks:
                task = tasks[number % len(tasks)]
                if task.cancel():
                    left.add(task)
            elif what == "run":
                await turn()
            assert held <= there.taken <= most
            assert there.waiting <= size + len(left)
        await turn()
        while held:
            held -= 1
            there.give()
            await turn()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (there.taken, there.waiting, heard.depth) == (0, 0, 0)

    asyncio.run(play())


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_new_bounds_count_those_who_have_a_place_by_the_old_ones(most: int) -> None:
    old, heard = places(most=3)
    assert [old.take() for _ in range(3)] == [True] * 3
    waiting = [asyncio.create_task(old.wait()) for _ in range(2)]
    await turn()
    new = Places("u", most=most, size=10, wait=LONG_SECONDS, told=heard, before=old)
    assert (old.taken, old.waiting) == (3, 2)  # made, but not in force: it may be refused yet
    waiting += [asyncio.create_task(new.wait()) for _ in range(2)]
    seen = []
    given = 0
    while True:
        await turn()
        seen.append(new.taken)
        if new.taken == 0:
            break
        (old if given % 2 else new).give()
        given += 1
    assert seen[0] == max(most, 3)
    assert max(seen[3:]) <= most
    assert given == 7
    assert (old.waiting, new.waiting, heard.depth, [task.done() for task in waiting]) == (0, 0, 0, [True] * 4)


async def test_new_places_go_to_those_who_wait() -> None:
    there, heard = places(most=1)
    assert there.take()
    tasks = [asyncio.create_task(there.wait()) for _ in range(3)]
    await turn()
    there.resize(3)
    await turn()
    assert [task.done() for task in tasks] == [True, True, False]
    assert (there.taken, there.waiting, heard.places) == (3, 1, [3])
    there.resize(1)
    for taken in (2, 1):
        there.give()
        await turn()
        assert (there.taken, there.waiting) == (taken, 1)
    there.give()
    await turn()
    assert (there.taken, there.waiting, tasks[2].done()) == (1, 0, True)
    there.give()
    assert there.taken == 0


def test_what_follows_is_carried_over_where_nothing_has_changed() -> None:
    settings = Adaptive(start=5)
    there = Places("u", most=10, size=1, wait=1.0).follow(settings)
    assert there.most == 5
    assert there.like(most=10, size=1, wait=1.0, adaptive=Adaptive(start=5))
    assert not there.like(most=10, size=1, wait=1.0, adaptive=Adaptive(start=6))
    assert not there.like(most=10, size=1, wait=1.0)
