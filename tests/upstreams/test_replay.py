"""Recorded answers as an upstream: which one is given, in what time, how it ends, and what is said where there is none."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from agw_proxy import tape
from agw_proxy._hot.route import RouteTable, Target
from agw_proxy.config.settings import Upstream as Settings
from agw_proxy.errors import UpstreamBroken, UpstreamRejected, UpstreamReset
from agw_proxy.types import Call
from agw_proxy.upstreams import replay as module
from agw_proxy.upstreams.replay import Replay

PATH = "/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "private words"}]}


def target(model: str = "m") -> Target:
    route = RouteTable([("up", ("*",))], []).find(f"up/{model}")
    assert route is not None
    return route.targets[0]


def call(body: Any = BODY, path: str = PATH, query: str = "", method: str = "POST") -> Call:
    data = orjson.dumps(body) if isinstance(body, dict) else body
    return Call(method, path, query, [("Content-Type", "application/json")], data, None, "r")


class Recorder:
    """Writes recordings as the gateway would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def __call__(self, *pieces: bytes | tuple[float, bytes], body: object = BODY, **changed: Any) -> Path:
        path, query, model = changed.pop("path", PATH), changed.pop("query", ""), changed.pop("model", "m")
        request_end, end = changed.pop("request_end", "whole"), changed.pop("end", "whole")
        headers = (("Content-Type", "application/json"),)
        asked = tape.Asked("POST", path, query, headers, tape.piece(orjson.dumps(body)), request_end)
        timed = [piece if isinstance(piece, tuple) else (0.0, piece) for piece in pieces]
        told = tape.Told(200, headers, 0.0, tuple(tape.piece(data, ms) for ms, data in timed), end)
        made = tape.Tape(tape.VERSION, tape.stamp(0), "up", "openai", "up/m", model, asked, told)
        made = msgspec.structs.replace(made, answer=msgspec.structs.replace(told, **changed))
        self.count += 1
        file = self.folder / f"{self.count:04}.json"
        file.write_bytes(msgspec.json.encode(made))
        return file


@pytest.fixture
def record(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def upstream(folder: Path, speed: float = 0.0) -> Replay:
    settings = Settings.model_validate({"name": "up", "replay": folder, "replay_speed": speed})
    return Replay(settings, folder)


async def text(upstream: Replay, asked: Call) -> bytes:
    reply = await upstream.open(target(), asked)
    taken = b""
    while not reply.ended:
        taken += await reply.read()
    assert await reply.read() == b""
    return taken


async def test_the_same_request_gets_the_recorded_bytes_in_their_pieces(record: Recorder) -> None:
    record(b"one", b"\xff", b"three")
    reply = await upstream(record.folder).open(target(), call())
    assert (reply.status, reply.headers) == (200, [(b"Content-Type", b"application/json")])
    assert [await reply.read() for _ in range(3)] == [b"one", b"\xff", b"three"]
    assert reply.ended


async def test_an_answer_without_a_body_ends(record: Recorder) -> None:
    record(status=204)
    assert await text(upstream(record.folder), call()) == b""


async def test_several_come_in_order_and_then_again_from_the_first(record: Recorder) -> None:
    record(b"1")
    record(b"other", body={"model": "m"})
    record(b"2")
    played = upstream(record.folder)
    assert [await text(played, call()) for _ in range(5)] == [b"1", b"2", b"1", b"2", b"1"]


async def test_order_of_members_and_spaces_do_not_count(record: Recorder) -> None:
    record(b"found")
    turned = orjson.dumps(dict(reversed(BODY.items())), option=orjson.OPT_INDENT_2)
    assert await text(upstream(record.folder), call(turned)) == b"found"


async def test_a_streamed_body_is_compared_whole(record: Recorder) -> None:
    record(b"found")

    async def portions() -> AsyncIterator[bytes]:
        data = orjson.dumps(BODY)
        yield data[:9]
        yield data[9:]

    assert await text(upstream(record.folder), call(portions())) == b"found"


async def test_a_streamed_body_that_is_too_long_is_no_recorded_one(
    record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def portions() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    monkeypatch.setattr(module, "MAX_BODY_BYTES", 1000)
    with pytest.raises(UpstreamRejected, match="MiB"):
        await upstream(record.folder).open(target(), call(portions()))


async def test_the_query_decides_where_it_can(record: Recorder) -> None:
    record(b"plain")
    record(b"events", query="alt=sse")
    played = upstream(record.folder)
    assert await text(played, call(query="alt=sse")) == b"events"
    assert await text(played, call()) == b"plain"
    assert await text(played, call(query="beta=true")) == b"plain"


async def test_whole_answers_come_before_cut_ones(record: Recorder) -> None:
    record(b"cut", end="left")
    record(b"whole")
    played = upstream(record.folder)
    assert [await text(played, call()) for _ in range(2)] == [b"whole"] * 2


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("left", "recording ends"),
        ("too_large", "recording ends"),
        ("broken", "broke its answer off when it was recorded"),
    ],
)
async def test_what_was_not_whole_does_not_look_whole(record: Recorder, end: str, words: str) -> None:
    record(b"begun", end=end)
    reply = await upstream(record.folder).open(target(), call())
    assert await reply.read() == b"begun"
    assert not reply.ended
    with pytest.raises(UpstreamBroken, match=words):
        await reply.read()


async def test_after_its_close_a_reply_gives_nothing(record: Recorder) -> None:
    record(b"begun", b"more")
    reply = await upstream(record.folder).open(target(), call())
    await reply.read()
    reply.close()
    with pytest.raises(UpstreamBroken, match="closed"):
        await reply.read()


class Clock:
    """Stands in for ``asyncio.sleep``: time that is asked for passes at once, and is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[float] = []
        self._sleep = asyncio.sleep
        monkeypatch.setattr("agw_proxy.upstreams.replay.asyncio.sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self._sleep(0)


@pytest.mark.parametrize(("speed", "factor"), [(1.0, 1.0), (4.0, 0.25), (0.5, 2.0), (0.0, 0.0)])
async def test_the_times_are_the_recorded_ones_by_the_speed(
    record: Recorder, monkeypatch: pytest.MonkeyPatch, speed: float, factor: float
) -> None:
    record((100_000.0, b"a"), (300_000.0, b"b"), head_ms=200_000.0)
    clock = Clock(monkeypatch)
    await text(upstream(record.folder, speed), call())
    expected = [200 * factor, 100 * factor, 300 * factor]  # pieces from the head on, however late they are read
    assert clock.asked == pytest.approx(expected, abs=10 * factor)


async def test_an_unknown_request_is_told_with_the_nearest_and_none_of_its_content(record: Recorder) -> None:
    record(b"hidden answer", model="gpt-4o")
    record(b"hidden answer", model="claude-opus", path="/messages")
    played = upstream(record.folder)

    async def refused(asked: Call, model: str) -> str:
        with pytest.raises(UpstreamRejected) as raised:
            await played.open(target(model), asked)
        assert raised.value.status == 404
        assert raised.value.payload is None
        assert "private" not in raised.value.message
        assert "hidden" not in raised.value.message
        return raised.value.message

    assert "POST /chat/completions with the model 'gpt-4o'" in await refused(call({"a": 1}), "gpt-4o-mini")
    assert "the body is another one" in await refused(call({"a": 1}), "gpt-4o")
    assert "POST /messages with the model 'claude-opus'" in await refused(call({"a": 1}, "/message"), "claude")


async def test_where_nothing_is_recorded_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"agw_recording": 1, "at"')
    (tmp_path / ".x.json.unfinished").write_text("{")
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(UpstreamRejected, match=r"Nothing is recorded there at all\. 1 of the files are no recordings"):
        await upstream(tmp_path).open(target(), call())


async def test_a_request_that_was_cut_is_found_by_nobody(record: Recorder) -> None:
    record(b"x", request_end="too_large")
    with pytest.raises(UpstreamRejected, match="another one"):
        await upstream(record.folder).open(target(), call())


async def test_what_is_recorded_later_is_found_and_what_is_damaged_then_is_said(record: Recorder) -> None:
    played = upstream(record.folder)
    with pytest.raises(UpstreamRejected):
        await played.open(target(), call())
    file = record(b"late")
    assert await text(played, call()) == b"late"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UpstreamReset, match="can no longer be read"):
        await played.open(target(), call())


async def test_what_has_gone_is_passed_over_and_the_last_of_them_is_missed(record: Recorder) -> None:
    files = [record(b"one"), record(b"two"), record(b"three")]
    played = upstream(record.folder)
    assert await text(played, call()) == b"one"
    files[1].unlink()
    assert [await text(played, call()) for _ in range(3)] == [b"three", b"one", b"three"]
    for file in (files[0], files[2]):
        file.unlink()
    with pytest.raises(UpstreamRejected, match="Nothing is recorded there"):
        await played.open(target(), call())


async def test_a_file_that_is_still_being_copied_is_found_when_it_is_whole(record: Recorder) -> None:
    file = record(b"answer")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    played = upstream(record.folder)
    with pytest.raises(UpstreamRejected, match="1 of the files are no recordings"):
        await played.open(target(), call())
    file.write_bytes(whole)
    assert await text(played, call()) == b"answer"
    with pytest.raises(UpstreamRejected, match=r"another one\. The most alike differs in 'messages'\.$"):
        await played.open(target(), call({"model": "m"}))


async def test_a_key_in_the_query_does_not_count_and_no_query_is_remembered(record: Recorder) -> None:
    record(b"plain")
    record(b"events", query="alt=sse&key=***")
    played = upstream(record.folder)
    assert await text(played, call(query="alt=sse&key=AIza-of-today")) == b"events"
    for number in range(20):
        await text(played, call(query=f"n={number}"))
    assert len(played._turns) == 2


async def test_a_credential_for_somebody_else_does_not_count(record: Recorder) -> None:
    def asking(token: str) -> dict[str, Any]:
        return {"tools": [{"type": "mcp", "server_url": "https://mcp.example.com", "authorization": token}]}

    record(b"answer", body=asking("*" * 30))
    record(b"another", body=asking("*" * 30) | {"store": False})
    played = upstream(record.folder)
    assert await text(played, call(asking("token-of-today"))) == b"answer"
    long = asking("token-of-tomorrow-and-longer" * 10_000)
    with pytest.raises(UpstreamRejected):  # longer than any credential is
        await played.open(target(), call(long))


def test_a_folder_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="upstream 'up': there is no folder"):
        upstream(tmp_path / "nowhere")


async def test_the_members_in_which_a_body_differs_are_named_and_no_more(record: Recorder) -> None:
    record(b"one", body=BODY)
    record(b"two", body=BODY | {"temperature": 0.5, "seed": 7})
    record(b"form", body=[1, 2])
    played = upstream(record.folder)
    with pytest.raises(UpstreamRejected, match=r"The most alike differs in 'temperature'\.$"):
        await played.open(target(), call(BODY | {"temperature": 0.7, "seed": 7}))
    with pytest.raises(UpstreamRejected) as raised:
        await played.open(target(), call({"model": "m"} | {f"a{number}": number for number in range(20)}))
    assert raised.value.message.endswith("'a13', 'a14', 'a15' and 13 more.")
    assert "private" not in raised.value.message
    with pytest.raises(UpstreamRejected, match=r"body is another one\.$"):
        await played.open(target(), call(b"no json"))
