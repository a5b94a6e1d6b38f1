"""What surrounds each step of agents' code on the loop: it cannot end the gateway, and it is known how long it takes.

asyncio lets SystemExit and KeyboardInterrupt out of the loop, whichever task they come from. So each task that is
made within a run turns them into an ordinary exception, of which the run dies alone. And while a step goes on, nothing
else does on the loop: ``STEP`` says whose it is, for ``lookout`` to see.
"""

import asyncio

from agw_proxy._hot.steps import STEP, Contained, Quit, Tasks
from agw_proxy.sdk.entry import CURRENT, SERVING

__all__ = ["BLOCKED_SECONDS", "STEP", "Contained", "Quit", "contain"]

BLOCKED_SECONDS = STEP.most


def contain(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, tasks that are made within a run are contained. A loop that makes its tasks in a way of its own is left alone."""
    if loop.get_task_factory() is None:
        loop.set_task_factory(Tasks(CURRENT, SERVING))
