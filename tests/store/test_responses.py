"""Responses and conversations in a file: whose they are, what goes on from what, how long, and how many."""

import asyncio
import itertools
from pathlib import Path

import orjson
import pytest

from agw_proxy.store import responses, responses_file
from agw_proxy.store.responses import CONVERSATION, RENEW_SECONDS, RESPONSE, Item, Responses, Turn, Wanted
from agw_proxy.store.responses_file import Missing, StoreAway, TooLong

ME, OTHER = "key:me", "key:other"
DAY = 86400.0
ALL = Wanted(100, ascending=True, after=None)
NUMBERS = itertools.count()


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(tmp_path: Path, clock: Clock) -> Responses:
    return Responses(tmp_path / "deep" / "responses.db", 8 << 20, 30 * DAY, clock)


def item(text: str, *, answered: bool = False) -> Item:
    return Item(text, orjson.dumps({"id": text}), answered)


def turn(what: str, before: str | None = None, *, upto: int = -1, size: int = 0) -> Turn:
    """A response that was asked with one item and has answered with another."""
    body = b'"' + b"x" * size + b'"'
    items = [item(f"in_{what}"), item(f"out_{what}", answered=True)]
    return Turn(what, before, upto, body, items)


async def keep(kept: Responses, made: Turn, owner: str = ME, conversation: str | None = None) -> None:
    past = await kept.past(owner, made.before, None, (), 1 << 20) if made.before else None
    await kept.keep(owner, made, past.chain if past else (), conversation)


async def ids(kept: Responses, previous: str | None, conversation: str | None = None, most: int = 1 << 20) -> list[str]:
    past = await kept.past(ME, previous, conversation, (), most)
    return [orjson.loads(body)["id"] for body in past.items]


async def test_a_chain_is_what_was_asked_and_answered_in_order(kept: Responses) -> None:
    for what, before in (("a", None), ("b", "a"), ("c", "b"), ("fork", "a")):
        await keep(kept, turn(what, before))
    assert await ids(kept, "c") == ["in_a", "out_a", "in_b", "out_b", "in_c", "out_c"]
    assert await ids(kept, "fork") == ["in_a", "out_a", "in_fork", "out_fork"]
    past = await kept.past(ME, "fork", None, (), 1 << 20)
    assert (past.root, await kept.root(ME, "c"), await kept.root(ME, "none")) == ("a", "a", "none")
    head, output = await kept.response(ME, "c")
    assert (head, output) == (b'""', [b'{"id":"out_c"}'])
    with pytest.raises(TooLong):
        await ids(kept, "c", most=30)


async def test_it_is_its_owners(kept: Responses) -> None:
    await keep(kept, turn("a"))
    await keep(kept, turn("a", size=9), owner=OTHER)
    assert len((await kept.response(ME, "a"))[0]) == 2
    await kept.forget(OTHER, "a", RESPONSE)
    for call in (
        kept.response(OTHER, "a"),
        kept.past(OTHER, "a", None, (), 100),
        kept.asked_with(OTHER, "a", ALL),
        kept.forget(OTHER, "a", RESPONSE),
        kept.forget(ME, "a", CONVERSATION),
        kept.conversation(ME, "a"),
    ):
        with pytest.raises(Missing):
            await call
    assert await kept.knows(ME, "a")
    assert not await kept.knows(OTHER, "a")
    past = await kept.past(OTHER, None, None, ("in_a",), 100)
    mine = await kept.past(ME, None, None, ("in_a", "none"), 100)
    assert (past.named, mine.named) == ((None,), (b'{"id":"in_a"}', None))


async def test_a_chain_with_a_gap_is_none(kept: Responses) -> None:
    for what, before in (("a", None), ("b", "a"), ("c", "b")):
        await keep(kept, turn(what, before))
    await kept.forget(ME, "b", RESPONSE)
    with pytest.raises(Missing) as missing:
        await ids(kept, "c")
    assert missing.value.what == "b"
    with pytest.raises(Missing):
        await kept.asked_with(ME, "c", ALL)


async def test_one_that_goes_on_from_itself_ends(kept: Responses, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep(kept, turn("a"))
    await keep(kept, turn("a", "a"))
    with pytest.raises(Missing):
        await ids(kept, "a")
    monkeypatch.setattr(responses, "MAX_TURNS", 2)
    for what, before in (("b", None), ("c", "b"), ("d", "c")):
        await kept.keep(ME, turn(what, before), (), None)
    assert len(await ids(kept, "c")) == 4
    with pytest.raises(TooLong):
        await ids(kept, "d")


async def test_input_items_come_in_pages(kept: Responses) -> None:
    for what, before in (("a", None), ("b", "a"), ("c", "b")):
        await keep(kept, turn(what, before))
    everything = ["in_a", "out_a", "in_b", "out_b", "in_c"]
    for ascending in (True, False):
        found: list[str] = []
        after, more = None, True
        while more:
            page = await kept.asked_with(ME, "c", Wanted(2, ascending, after))
            found += [each.id for each in page.items]
            after, more = found[-1], page.more
        assert found == (everything if ascending else everything[::-1])
    with pytest.raises(Missing) as missing:
        await kept.asked_with(ME, "c", Wanted(2, ascending=True, after="nobody"))
    assert missing.value.what == "nobody"


async def test_a_conversation_is_seen_as_it_was(kept: Responses) -> None:
    await kept.begin(ME, "talk", b'{"a":"b"}', [item("zero")])
    past = await kept.past(ME, None, "talk", (), 100)
    await kept.keep(ME, turn("a", "talk", upto=past.upto), past.chain, "talk")
    assert await ids(kept, None, "talk") == ["zero", "in_a", "out_a"]
    await kept.item(ME, "talk", "out_a", remove=True)
    await kept.extend(ME, "talk", [item("later")])
    assert await ids(kept, None, "talk") == ["zero", "in_a", "later"]
    await keep(kept, turn("b", "a"))
    assert await ids(kept, "b") == ["zero", "in_a", "out_a", "in_b", "out_b"]
    assert [each.id for each in (await kept.held(ME, "talk", ALL)).items] == ["zero", "in_a", "later"]
    assert (await kept.conversation(ME, "talk")).head == b'{"a":"b"}'
    assert (await kept.conversation(ME, "talk", b"{}")).head == b"{}"
    assert (await kept.conversation(ME, "talk")).head == b"{}"
    await kept.forget(ME, "talk", CONVERSATION)
    with pytest.raises(Missing):
        await ids(kept, "b")
    await kept.keep(ME, turn("c"), (), "talk")  # it was deleted meanwhile
    assert await kept.knows(ME, "c")


async def test_it_expires_unless_it_is_continued(kept: Responses, clock: Clock) -> None:
    await keep(kept, turn("a"))
    await keep(kept, turn("lonely"))
    clock.now += 29 * DAY
    await keep(kept, turn("b", "a"))
    clock.now += 2 * DAY
    assert await ids(kept, "b") == ["in_a", "out_a", "in_b", "out_b"]
    with pytest.raises(Missing):
        await ids(kept, "lonely")
    clock.now += 29 * DAY
    assert not await kept.knows(ME, "b")


async def test_what_is_kept_for_less_than_a_day_stays_while_it_is_in_use(tmp_path: Path, clock: Clock) -> None:
    kept = Responses(tmp_path / "short.db", 8 << 20, 3600.0, clock)
    await keep(kept, turn("r0"))
    for number in range(1, 5):
        clock.now += 1800
        await keep(kept, turn(f"r{number}", f"r{number - 1}"))
    assert len(await ids(kept, "r4")) == 10


async def test_items_that_are_named_are_no_more_than_may_be_put_back(kept: Responses) -> None:
    await keep(kept, turn("a"))
    body = item("in_a").body
    assert (await kept.past(ME, None, None, ["in_a"] * 3, 3 * len(body))).named == (body,) * 3
    with pytest.raises(TooLong):
        await kept.past(ME, None, None, ["in_a"] * 3, 3 * len(body) - 1)
    with pytest.raises(TooLong):
        await kept.past(ME, None, None, ["nobody"] * (responses.MAX_NAMED + 1), 1 << 20)


@pytest.mark.parametrize("listed", [True, False])
async def test_one_that_several_have_got_is_kept_by_the_first_of_them(kept: Responses, listed: bool) -> None:
    await kept.begin(ME, "talk", b"{}", [item("zero")])
    for size in (1, 2, 3):
        await kept.keep(ME, turn("a", "talk", upto=0, size=size), (), "talk", listed=listed, once=True)
    assert await ids(kept, None, "talk") == ["zero", "in_a", "out_a"]
    if listed:
        assert (await kept.response(ME, "a"))[0] == b'"x"'
    await kept.forget(ME, "talk", CONVERSATION)
    await kept.keep(ME, turn("b", "talk", upto=0), (), "talk", listed=listed, once=True)
    assert await kept.knows(ME, "b") is listed


async def pages(kept: Responses, conversation: str, *, ascending: bool) -> list[str]:
    """What its items say, one a page."""
    found: list[str] = []
    after, more = None, True
    while more and len(found) < 9:
        page = await kept.held(ME, conversation, Wanted(1, ascending, after))
        found += [orjson.loads(each.body)["text"] for each in page.items]
        assert orjson.loads(page.items[-1].body)["id"] == page.items[-1].id
        after, more = page.items[-1].id, page.more
    return found


async def test_an_id_that_comes_again_in_a_conversation_becomes_another_one(kept: Responses) -> None:
    def named(text: str) -> Item:
        return Item("msg_1", orjson.dumps({"id": "msg_1", "text": text}))

    await kept.begin(ME, "talk", b"{}", [named("a"), named("b")])
    added = await kept.extend(ME, "talk", [named("c"), named("d")])
    assert len({each.id for each in added} | {"msg_1"}) == 3
    assert await pages(kept, "talk", ascending=True) == ["a", "b", "c", "d"]
    assert await pages(kept, "talk", ascending=False) == ["d", "c", "b", "a"]
    await kept.item(ME, "talk", "msg_1", remove=True)
    assert await pages(kept, "talk", ascending=True) == ["b", "c", "d"]


async def test_an_id_that_comes_again_in_a_chain_is_shown_once_so_that_pages_end(kept: Responses) -> None:
    for what, before in (("a", None), ("b", "a"), ("c", "b")):
        made = turn(what, before)
        await keep(kept, made._replace(items=[item("same"), item(f"out_{what}", answered=True)]))
    found: list[str] = []
    after, more = None, True
    while more and len(found) < 9:
        page = await kept.asked_with(ME, "c", Wanted(1, ascending=True, after=after))
        found += [each.id for each in page.items]
        after, more = found[-1], page.more
    assert found == ["same", "out_a", "out_b"]


async def test_what_is_in_use_is_not_written_anew_each_time(kept: Responses, clock: Clock) -> None:
    await keep(kept, turn("a"))
    clock.now += RENEW_SECONDS / 2
    await keep(kept, turn("b", "a"))
    clock.now += 30 * DAY - RENEW_SECONDS / 4
    assert await kept.knows(ME, "b")
    assert not await kept.knows(ME, "a")


async def test_a_full_file_forgets_the_oldest_of_whoever_has_the_most(tmp_path: Path, clock: Clock) -> None:
    kept = Responses(tmp_path / "small.db", 1 << 20, 30 * DAY, clock)
    await keep(kept, turn("little"))
    for number in range(200):
        clock.now += 1
        await keep(kept, turn(f"much{number}", size=20_000), owner=OTHER)
    assert await kept.knows(ME, "little")
    assert await kept.knows(OTHER, "much199")
    assert not await kept.knows(OTHER, "much0")
    assert (tmp_path / "small.db").stat().st_size <= 1 << 20
    with pytest.raises(StoreAway):
        await keep(kept, turn("huge", size=1 << 19), owner=OTHER)
    assert await kept.knows(ME, "little")


async def test_room_is_made_in_parts_so_that_nobody_waits_long(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses_file, "EVICTED_BYTES", 30_000)
    kept = Responses(tmp_path / "small.db", 1 << 20, 30 * DAY, clock)
    names: list[str] = []
    while not names or await kept.knows(ME, names[0]):
        clock.now += 1
        names.append(f"r{len(names)}")
        await keep(kept, turn(names[-1], size=20_000))
    assert [await kept.knows(ME, name) for name in names[:5]] == [False, False, True, True, True]
    await keep(kept, turn("large", size=200_000))
    assert await kept.knows(ME, "large")


async def test_two_that_write_at_once_lose_nothing(tmp_path: Path, clock: Clock) -> None:
    several = [Responses(tmp_path / "one.db", 8 << 20, 30 * DAY, clock) for _ in range(3)]
    names = [f"r{number}" for number in range(60)]
    await asyncio.gather(*(keep(several[at % 3], turn(name)) for at, name in enumerate(names)))
    for each in several:
        assert all([await each.knows(ME, name) for name in names])
        await each.close()
    again = Responses(tmp_path / "one.db", 8 << 20, 30 * DAY, clock)
    assert await again.knows(ME, names[0])
    await again.close()
