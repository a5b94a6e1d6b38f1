"""Keep the processors of a virtual machine at work while something is measured on them: one idle-priority loop a core.

A virtual processor that halts is given away by its host and must be waited for when it has work again. With proxies, which
wait for each other all the time, that took half of two processors here, and what was measured was the host. A loop that
the kernel runs only when nothing else wants the core (SCHED_IDLE, sched(7)) keeps them from halting: the time stolen
(/proc/stat) fell from half to nothing. Whatever is measured runs before it at once, and all that are compared have it.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Collection, Iterator

LOOP = "import os\nwhile os.getppid() == {parent}:\n for _ in range(1_000_000): pass"


@contextlib.contextmanager
def awake(cores: Collection[int]) -> Iterator[list[int]]:
    """Keep ``cores`` from halting; give the pids of the loops. They end with this process, too."""
    loops = [
        subprocess.Popen([sys.executable, "-S", "-c", LOOP.format(parent=os.getpid())], stdin=subprocess.DEVNULL)
        for _ in cores
    ]
    try:
        for loop, core in zip(loops, cores, strict=True):
            os.sched_setaffinity(loop.pid, {core})
            os.sched_setscheduler(loop.pid, os.SCHED_IDLE, os.sched_param(0))
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
