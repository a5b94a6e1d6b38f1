"""Tells which agent has kept the loop from turning, and where in its code: ``agent.blocked_loop`` in the log.

How long each step of a run takes is measured where it is made (``contained``). Where it hangs can only be seen meanwhile,
from another thread: a look at the loop's stack, a few times a second, and only where a step is late.
"""

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from agw_proxy.sdk.contained import BLOCKED_SECONDS, STEP
from agw_proxy.sdk.entry import Run
from agw_proxy.sdk.hooks import Say, about
from agw_proxy.tools.modules import PREFIX

LOOK_SECONDS = BLOCKED_SECONDS / 4
LONG_SECONDS = 1.0
"""What goes on for so long is told before it has ended: it may never end."""
SAY_SECONDS = 1.0
"""Between two events of one agent. What came meanwhile is counted in the next."""
EVENT = "agent.blocked_loop"

Counts = Callable[[str, float], None]
"""Hears of an agent that has blocked the loop for so many seconds. Called on the loop."""


class Lookout:
    """Of the loop on whose thread it is made, until ``close``, or until there is a newer one."""

    def __init__(self, say: Say, counts: Counts) -> None:
        """``say``: writes to the log, from any thread."""
        self._say, self._counts = say, counts
        self._thread = threading.get_ident()
        self._closed = threading.Event()
        self._place: tuple[int, dict[str, object]] = (0, {})
        self._long = 0
        self._said: dict[str, tuple[float, int]] = {}
        STEP.hears = self._hear
        threading.Thread(target=self._watch, name="agw-lookout", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if STEP.hears == self._hear:
            STEP.hears = None

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_SECONDS) and STEP.hears == self._hear:
            self._look()

    def _look(self) -> None:
        """See where a late step is. This thread has the interpreter meanwhile, but not for long at a time: it may have ended."""
        run, number = STEP.run, STEP.number
        spent = time.monotonic() - STEP.began
        if run is None or spent < BLOCKED_SECONDS / 2:
            return
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001  documented, in spite of its name
        place = place_of(frame)
        del frame  # it would keep what the agent's code holds
        if STEP.number != number or STEP.run is None:
            return
        self._place = number, place
        if spent >= LONG_SECONDS and self._long != number:
            self._long = number
            self._tell(run, spent, {**place, "ended": False})

    def _hear(self, run: Run, number: int, spent: float) -> None:
        """On the loop: a step has ended that took too long."""
        self._counts(run.agent, spent)
        seen, place = self._place
        now = time.monotonic()
        last, passed = self._said.get(run.agent, (0.0, 0))
        if last and now - last < SAY_SECONDS:
            self._said[run.agent] = last, passed + 1
            return
        self._said[run.agent] = now, 0
        more = {"passed_over": passed} if passed else {}
        self._tell(run, spent, {**(place if seen == number else {"frame": None}), **more})

    def _tell(self, run: Run, spent: float, more: dict[str, object]) -> None:
        self._say(EVENT, {**about(run), "blocked_ms": round(spent * 1000), **more})


def place_of(frame: FrameType | None) -> dict[str, object]:
    """Where a stack stands: ``frame``, the innermost place in agents' own files; ``inside``, what that has called.

    Where nothing of it is in such a file, ``frame`` is the innermost place of all.
    """
    inner = frame
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith(PREFIX):
            break
        frame = frame.f_back
    if inner is None:
        return {"frame": None}
    if frame is None or frame is inner:
        return {"frame": _words(inner)}
    return {"frame": _words(frame), "inside": _words(inner)}


def _words(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
