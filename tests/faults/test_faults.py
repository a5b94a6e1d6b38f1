"""Every fault x (plain, streamed) x (fast lane, full) x (one worker, two); the quick tests play each fault once."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.faults.fault import Fault, Kind, Lane
from tests.faults.order import FAULTS, plays
from tests.faults.stage import GROWTH_BYTES, Stage, memory, play, set_up
from tests.support.upstream import Upstream

Stages = Callable[[Lane, int], Stage]


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    """The gateway of a lane and a number of workers, one for all faults; what it must be like in the end."""
    made: dict[tuple[Lane, int], Stage] = {}
    with ExitStack() as stack:
        upstream, spare = stack.enter_context(Upstream()), stack.enter_context(Upstream())

        def stage(lane: Lane, workers: int) -> Stage:
            if (lane, workers) not in made:
                made[lane, workers] = stack.enter_context(set_up(lane, workers, upstream, spare, FAULTS))
            return made[lane, workers]

        yield stage
        for one in made.values():
            in_the_end(one)


def in_the_end(stage: Stage) -> None:
    """Exactly one Receipt for each request, no error that nobody expected, memory as before."""
    told = Counter(line["request_id"] for line in stage.gateway.logs() if line.get("event") == "request")
    assert {identity: told[identity] for identity in stage.asked} == dict.fromkeys(stage.asked, 1)
    assert "Traceback" not in stage.gateway.output
    assert memory(stage.gateway) - stage.idle_bytes < GROWTH_BYTES * stage.workers


def cases() -> list[object]:
    """Each with what the page of the results is made from."""
    found: list[object] = []
    for fault, kind, lane, workers, quick in plays():
        marks = [] if quick else [pytest.mark.full]
        found.append(pytest.param(fault, kind, lane, workers, marks=marks, id=f"{fault.name}-{kind}-{lane}-{workers}"))
    return found


@pytest.mark.parametrize(("fault", "kind", "lane", "workers"), cases())
def test_a_fault_keeps_its_promise(
    stages: Stages,
    record_property: Callable[[str, object], None],
    fault: Fault,
    kind: Kind,
    lane: Lane,
    workers: int,
) -> None:
    record_property("fault", [fault.name, kind, lane, workers])
    play(stages(lane, workers), fault, kind)
