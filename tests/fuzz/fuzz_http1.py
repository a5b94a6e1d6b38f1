"""Fuzzing the readers of HTTP/1.1 against h11 and aiohttp: ``python -m tests.fuzz.fuzz_http1 SECONDS [CORPUS]``.

The invariant is that of ``tests/hot/model_http1.py``. An input's first byte says what the rest is: a request, a response
or a chunked body. Under atheris, where it is installed, h11 and aiohttp's Python parser are instrumented, and what they
tell apart guides the search; else inputs are changed at random. ``CORPUS`` is a folder that atheris reads and adds to,
and beside which it leaves the input that failed.
"""

import importlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

KINDS = 3
CORPUS = "build/fuzz/http1"
SPLICES = (b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"Host: a\r\n", b"0\r\n\r\n", b"\x80", b"5")


def load() -> Callable[[bytes], str]:
    """The target; only now are the other readers imported, so that they can be instrumented."""
    model: Any = importlib.import_module("tests.hot.model_http1")
    compare = (model.compare_request, model.compare_response, model.compare_chunks)

    def target(data: bytes) -> str:
        return str(compare[data[0] % KINDS](data[1:])) if data else "more"

    return target


def seeds() -> Iterator[bytes]:
    """The vectors, each with its kind."""
    vectors: Any = importlib.import_module("tests.hot.vectors_http1")
    behind = b"5\r\nhello\r\n0\r\n\r\n"
    for head in vectors.REQUESTS:
        yield b"\0" + head.data + behind
    for head in vectors.RESPONSES:
        yield b"\1" + head.data + behind
    for body in vectors.BODIES:
        yield b"\2" + body.data


def change(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """``data`` with one to four changes, pieces of ``other`` among them."""
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(1, max(1, len(data)))
        way = dice.randrange(5)
        if way == 0:
            data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
        elif way == 1:
            data = data[:at] + data[at + dice.randint(1, 8) :]
        elif way == 2:
            data = data[:at] + dice.choice(SPLICES) + data[at:]
        elif way == 3:
            start = dice.randint(1, max(1, len(other)))
            data = data[:at] + other[start : start + dice.randint(1, 40)] + data[at:]
        else:
            start = dice.randint(1, at)
            data = data[:at] + data[start:at] + data[at:]
    return data[:8192]


def at_random(seconds: float, dice: random.Random, rounds: int = sys.maxsize) -> dict[str, int]:
    """Change vectors at random for so long, or so many times; returns how often each verdict came."""
    target = load()
    pool = list(seeds())
    verdicts: dict[str, int] = {}
    end = time.monotonic() + seconds
    while rounds > 0 and time.monotonic() < end:
        data = change(dice.choice(pool), dice.choice(pool), dice)
        verdict = target(data)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        if verdict in {"take", "hand_over", "ended"} and len(pool) < 5000:
            pool.append(data)
        rounds -= 1
    return verdicts


def guided(seconds: int, corpus: Path) -> None:
    """Let atheris search; leaves the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["h11", "aiohttp.http_parser"]):
        target = load()
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"vector-{number}").write_bytes(seed)

    def one(data: bytes) -> None:
        target(data)

    bounds = [f"-max_total_time={seconds}", "-max_len=4096", f"-artifact_prefix={corpus}-"]
    atheris.Setup([sys.argv[0], *bounds, "-verbosity=0", str(corpus)], one)
    atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """Fuzz for as many seconds as the first argument says (60); the second names the corpus."""
    seconds = int(arguments[0]) if arguments else 60
    if find_spec("atheris") is None:
        seed = random.SystemRandom().getrandbits(32)
        print(f"atheris is not installed: changing vectors at random, seed {seed}")  # noqa: T201  a command's output
        print(at_random(seconds, random.Random(seed)))  # noqa: T201  a command's output
        return
    guided(seconds, Path(arguments[1] if arguments[1:] else CORPUS))


if __name__ == "__main__":
    main(sys.argv[1:])
