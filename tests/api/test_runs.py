"""What a run is asked for with, and how it is shown."""

from typing import Any

import orjson
import pytest

from agw_proxy.api.runs import (
    LOST,
    Row,
    asked_for,
    ended,
    frame,
    number_of,
    obituary,
    page_of,
    run_tree,
    seed_of,
    skeleton,
    wanted_of,
)
from agw_proxy.errors import GatewayError, InvalidParameter

SEED = "agw" + "0" * 40


def row(**members: Any) -> Row:
    head = orjson.dumps(skeleton({"model": "m", "metadata": {"a": "b"}}, SEED, 7))
    return Row(1, SEED, "key:me", "me", "m", "queued", 7, None, None, 5, 1, head, None)._replace(**members)


def test_an_id_of_one_kind_is_none_of_another() -> None:
    assert seed_of(f"run_{SEED}", "run") == SEED
    for identity in (f"resp_{SEED}", f"run_{SEED}x", "run_", f"RUN_{SEED}"):
        assert seed_of(identity, "run") is None


def test_an_agent_may_be_named_without_its_namespace() -> None:
    asked = {"input": "hi", "background": True, "temperature": 1}
    assert asked_for({"agent": "Sky", **asked}, "house") == (
        {"input": "hi", "temperature": 1, "model": "house/sky"},
        True,
    )
    assert asked_for({"agent": "team/sky"}, "house") == ({"model": "team/sky"}, True)
    assert asked_for({"model": "gpt", "stream": False}, "house") == ({"model": "gpt"}, False)


@pytest.mark.parametrize(
    ("tree", "param"),
    [({}, "model"), ({"agent": 1}, "agent"), ({"agent": ""}, "agent"), ({"agent": "a", "model": "m"}, "agent"),
     ({"model": "m", "stream": True}, "stream")],
)  # fmt: skip
def test_what_cannot_be_begun_is_refused(tree: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as refused:
        asked_for(tree, "default")
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "9" * 17, str(2**53 + 1), "٣"])
def test_a_number_of_an_event_is_one(text: str) -> None:
    assert (number_of(None, "n"), number_of("", "n"), number_of("17", "n")) == (-1, -1, 17)
    with pytest.raises(InvalidParameter):
        number_of(text, "n")


def test_a_response_that_has_not_begun_repeats_what_it_is_asked_for() -> None:
    tools = [{"type": "function", "name": "f"}]
    made = skeleton({"model": "m", "input": "secret", "tools": tools, "top_p": None, "odd": 1}, SEED, 7)
    assert (made["id"], made["status"], made["background"], made["created_at"]) == (f"resp_{SEED}", "queued", True, 7)
    assert made["tools"] == tools
    assert not {"input", "top_p", "odd"} & made.keys()
    assert made["tool_choice"] == "auto"


def test_an_end_that_the_answer_has_not_told_is_told() -> None:
    head = skeleton({"model": "m"}, SEED, 7)
    limited = {"code": "insufficient_quota", "message": "no"}
    failed = ended(head, "failed", limited, [{"type": "message"}], 9)
    assert failed["error"] == {"code": "rate_limit_exceeded", "message": "no"}
    assert (failed["status"], failed["output"], failed["completed_at"]) == ("failed", [{"type": "message"}], 9)
    assert ended(head, "cancelled", None, (), 9)["error"] is None


def test_an_event_is_numbered_for_both_readers() -> None:
    event = frame(4, "response.x", {"sequence_number": 99, "a": "1\n\n2"})
    assert event.startswith(b"id: 4\nevent: response.x\ndata: {")
    assert event.count(b"\n\n") == 1
    assert orjson.loads(event.partition(b"data: ")[2]) == {"sequence_number": 4, "a": "1\n\n2", "type": "response.x"}


def test_a_run_that_nobody_goes_on_with_is_told_as_failed() -> None:
    event, head, error = obituary(row(last=6), 9)
    assert event.startswith(b"id: 7\nevent: response.failed\n")
    told = orjson.loads(head)
    assert (told["status"], told["error"]["message"], orjson.loads(error)) == ("failed", LOST["message"], LOST)


def test_a_list_shows_no_answers() -> None:
    shown = run_tree(row(error=b'{"code":"c"}'), whole=True)
    assert (shown["id"], shown["response"]["id"]) == (f"run_{SEED}", f"resp_{SEED}")
    assert (shown["metadata"], shown["error"]) == ({"a": "b"}, {"code": "c"})
    page = orjson.loads(page_of([row(), row()], more=True))
    assert (page["first_id"], page["has_more"], len(page["data"])) == (f"run_{SEED}", True, 2)
    assert "response" not in page["data"][0]
    assert orjson.loads(page_of([], more=False))["last_id"] is None


def test_a_page_that_cannot_be_is_refused() -> None:
    assert wanted_of({}) == (20, False, None, None, None)
    asked = {"limit": "5", "order": "asc", "after": f"run_{SEED}", "status": "failed", "model": "m"}
    assert wanted_of(asked) == (5, True, SEED, "failed", "m")
    for name, value in (("limit", "101"), ("limit", "x"), ("order", "up"), ("status", "odd"), ("after", "run_x")):
        with pytest.raises(InvalidParameter) as refused:
            wanted_of({name: value})
        assert refused.value.param == name
