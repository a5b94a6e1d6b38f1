"""The folder of recordings: whole files for their owner only, within bounds, and what is not kept is told."""

import asyncio
import os
import stat
from pathlib import Path

import msgspec
import pytest

from agw_proxy import tape
from agw_proxy.store import tapes as module
from agw_proxy.store.masking import Mask
from agw_proxy.store.tapes import STALE_SECONDS, UNFINISHED, Folder, Tapes, made

SECRET = "sk-secret-7be2c1904d5f4a83"
EVENTS = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'


def draft(at_ns: int = 1_700_000_000_000_000_000, **changed: object) -> tape.Draft:
    plain = tape.Draft(at_ns, "up", "openai", "up/m", "m", "POST", "/chat/completions", "", [])
    return msgspec.structs.replace(plain, status=200, end="whole", **changed)


def ignore(what: str, count: int) -> None:
    """For who is not asked."""


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_files_are_their_owners_only_and_in_order_of_time(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "b")
    folder.prepare()
    for second in (3, 1, 2):
        folder.write(second * 10**9, b"%d" % second)
    found = files(tmp_path / "a" / "b")
    assert [file.read_bytes() for file in found] == [b"1", b"2", b"3"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in found} == {0o600}
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_folder_that_others_may_look_into_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ValueError, match="chmod 700"):
        Folder(tmp_path).prepare()


def test_what_nobody_will_finish_is_cleared_and_the_rest_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    old, new, other = tmp_path / f".a{UNFINISHED}", tmp_path / f".b{UNFINISHED}", tmp_path / "notes.txt"
    for file in (old, new, other):
        file.write_text("half")
    os.utime(old, (0, old.stat().st_mtime - STALE_SECONDS - 1))
    Folder(tmp_path).prepare()
    assert files(tmp_path) == [new, other]


@pytest.mark.parametrize("bound", [{"max_bytes": 250}, {"max_files": 2}])
def test_over_its_bounds_the_oldest_go_and_are_told(tmp_path: Path, bound: dict[str, int]) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "notes.txt").write_text("x" * 1000)
    (tmp_path / "0.json").write_text("x" * 1000)
    folder = Folder(tmp_path, **bound)
    removed = [folder.write(second * 10**9, b"%d" % second * 100) for second in range(1, 6)]
    assert removed == [0, 0, 1, 1, 1]
    left = sorted(tmp_path.glob(module.OURS))
    assert [file.read_bytes()[:1] for file in left] == [b"4", b"5"]
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "0.json").exists()


def test_one_file_over_the_bound_stays(tmp_path: Path) -> None:
    assert Folder(tmp_path, max_bytes=10).write(0, b"x" * 100) == 0
    assert len(files(tmp_path)) == 1


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Path, to: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="No space"):
        Folder(tmp_path).write(0, b"x")
    assert files(tmp_path) == []


def test_secrets_are_taken_out_of_everything_and_pieces_stay_where_they_were_cut() -> None:
    half = len(SECRET) // 2
    told = made(
        draft(
            path=f"/files/{SECRET}",
            query=f"q={SECRET}",
            headers=[("x-note", SECRET)],
            body=[b'{"a":"' + SECRET[:half].encode(), SECRET[half:].encode() + b'"}'],
            answer_headers=[("x-echo", f"of {SECRET}"), ("content-length", "36")],
            pieces=[(1.0, b"hello " + SECRET[:half].encode()), (2.0, SECRET[half:].encode() + b"!")],
        ),
        Mask([SECRET]),
    )
    assert SECRET[:half].encode() not in msgspec.json.encode(told)
    assert SECRET[half:].encode() not in msgspec.json.encode(told)
    assert [(piece.ms, len(piece.data)) for piece in told.answer.pieces] == [
        (1.0, 6 + half),
        (2.0, len(SECRET) - half + 1),
    ]
    assert told.answer.headers[1] == ("content-length", "36")


def test_a_secret_of_this_request_alone_is_taken_out_too() -> None:
    told = made(draft(secrets=(SECRET,), pieces=[(0.0, SECRET.encode())]), Mask(["another-secret"]))
    assert told.answer.pieces[0].data == b"*" * len(SECRET)


@pytest.mark.parametrize(
    ("kind", "body", "end"),
    [
        ("text/event-stream", EVENTS, "whole"),
        ("text/event-stream; charset=utf-8", b'event: message_stop\ndata: {"type":"message_stop"}\n\n', "whole"),
        ("text/event-stream", EVENTS[:30], "left"),
        ("application/json", EVENTS, "left"),
    ],
)
def test_a_stream_that_was_left_behind_its_last_event_is_whole(kind: str, body: bytes, end: str) -> None:
    left = msgspec.structs.replace(draft(), end="left", answer_headers=[("Content-Type", kind)], pieces=[(0.0, body)])
    assert made(left, Mask(())).answer.end == end


async def test_exchanges_are_written_and_their_room_is_given_back(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    tapes = Tapes(Folder(tmp_path), lambda: Mask(()), lambda what, count: told.append((what, count)))
    one = draft()
    assert tapes.hold(one, 100) is None
    tapes.keep(one)
    await tapes.close()
    (file,) = files(tmp_path)
    assert tape.read(file.read_bytes()).upstream == "up"
    assert (told, one.size, tapes._held) == ([], 0, 0)


async def test_bounds_say_why_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EXCHANGE_BYTES", 100)
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 150)
    tapes = Tapes(Folder(tmp_path), lambda: Mask(()), ignore)
    one, two = draft(), draft()
    assert tapes.hold(one, 100) is None
    assert tapes.hold(one, 1) == "too_large"
    assert tapes.hold(two, 60) == "memory"
    tapes.drop(one)
    assert tapes.hold(two, 60) is None
    await tapes.close()


async def test_what_the_disk_or_the_queue_does_not_take_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    tapes = Tapes(Folder(tmp_path / "gone"), lambda: Mask(()), lambda what, count: told.append((what, count)))
    tapes.keep(draft())
    while not told:
        await asyncio.sleep(0.001)
    monkeypatch.setattr(tapes._threads, "_max_waiting", 0)
    tapes.keep(draft())
    await tapes.close()
    assert told == [("dropped", 1)] * 2
