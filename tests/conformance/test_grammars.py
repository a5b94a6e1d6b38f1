"""The grammars: whole streams of all providers pass, and of spoilt ones the first broken event is named."""

from types import ModuleType

import orjson
import pytest

from agw_proxy.conformance import chat, gemini, messages, responses
from agw_proxy.conformance.base import Broken, Fault, Frame
from agw_proxy.conformance.frames import events
from tests.conformance.streams import WRITERS, changed, frames, renumbered, without
from tests.support import providers
from tests.support.providers import HELLO, SCENES, TEXT, THINKING, TOOLS, Scene

GRAMMARS: dict[str, ModuleType] = {"chat": chat, "responses": responses, "messages": messages, "gemini": gemini}
WHOLE = {
    "chat": providers.chat,
    "responses": providers.response,
    "messages": providers.message,
    "gemini": providers.gemini,
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("form", WRITERS)
def test_what_a_provider_streams_is_well_and_read(form: str, scene: str) -> None:
    told, fault = GRAMMARS[form].follow(frames(form, SCENES[scene]))
    assert fault is None
    _is_told(told, SCENES[scene], form)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("form", WRITERS)
def test_what_a_provider_answers_in_one_piece_is_well_and_read(form: str, scene: str) -> None:
    _is_told(GRAMMARS[form].whole(WHOLE[form](SCENES[scene])), SCENES[scene], form)


def _is_told(told: object, scene: Scene, form: str) -> None:
    assert told.text == "".join(scene.text)  # type: ignore[attr-defined]
    assert [(call.name, orjson.loads(call.arguments)) for call in told.calls] == list(scene.calls)  # type: ignore[attr-defined]
    assert told.usage == (scene.prompt, scene.output), form  # type: ignore[attr-defined]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("form", WRITERS)
def test_a_stream_that_stops_anywhere_has_no_end(form: str, scene: str) -> None:
    found = frames(form, SCENES[scene])
    for length in range(len(found)):
        fault = GRAMMARS[form].check(found[:length])
        assert fault is not None
        assert (fault.number, fault.name, fault.came) == (length + 1, "end of the stream", "nothing more")


@pytest.mark.parametrize("form", WRITERS)
def test_nothing_may_follow_the_end(form: str) -> None:
    found = frames(form, TEXT)
    fault = GRAMMARS[form].check([*found, found[-1]])
    assert (fault.number, fault.expected) == (len(found) + 1, "nothing after the end of the stream")


@pytest.mark.parametrize("form", ["responses", "messages"])
def test_no_event_but_a_ping_or_a_delta_can_be_left_out(form: str) -> None:
    for scene in SCENES.values():
        found = frames(form, scene)
        for number, (name, _) in enumerate(found, 1):
            left = without(found, number)
            fault = GRAMMARS[form].check(renumbered(left) if form == "responses" else left)
            harmless = name in {"ping", "response.in_progress"} or (
                form == "messages" and name == "content_block_delta"
            )
            assert (fault is None) <= harmless, (number, name)


@pytest.mark.parametrize("form", WRITERS)
def test_an_error_ends_a_stream_anywhere(form: str) -> None:
    errors: dict[str, Frame] = {
        "chat": ("error", b'{"error":{"message":"lost","type":"api_error","param":null,"code":null}}'),
        "responses": ("error", b'{"type":"error","error":{"message":"lost"}}'),
        "messages": ("error", b'{"type":"error","error":{"type":"api_error","message":"lost"}}'),
        "gemini": ("error", b'{"error":{"code":502,"message":"lost","status":"INTERNAL"}}'),
    }
    for length in range(len(frames(form, TEXT))):
        told, fault = GRAMMARS[form].follow([*frames(form, TEXT)[:length], errors[form]])
        assert (fault, told.failure) == (None, "lost")


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff\x00", b"", b"[" * 100_000, b"null"])
def test_what_is_no_json_object_is_named_and_harmless(form: str, data: bytes) -> None:
    first, *rest = frames(form, TEXT)
    fault = GRAMMARS[form].check([first, (first[0], data), *rest])
    assert (fault.number, fault.expected) == (2, "a JSON object")
    assert str(fault).isprintable()
    assert len(str(fault)) < 400


# form, scene, event, member, value (None: taken out), what the fault says
SPOILT: list[tuple[str, Scene, int, str, object, str]] = [
    ("chat", TEXT, 1, "object", "chunk", 'event 1 (chunk): expected `object` to be "chat.completion.chunk", got "chunk"'),
    ("chat", TEXT, 1, "choices.0.index", None, "`choices[].index` to be a whole number, got no such member"),
    ("chat", TEXT, 1, "choices.0.delta.role", None, "the first delta to say `role`"),
    ("chat", TEXT, 2, "choices.0.delta.content", 5, "event 2 (chunk): expected `delta.content` to be a string"),
    ("chat", TEXT, 3, "choices.0.finish_reason", "done", "event 3 (chunk): expected `finish_reason` to be one of"),
    ("chat", TEXT, 3, "choices.0.finish_reason", "stop", "event 4 (chunk): expected nothing more of choice 0"),
    ("chat", TEXT, 5, "choices.0.finish_reason", None, "event 7 (chunk): expected a `finish_reason` of choice 0"),
    ("chat", TEXT, 6, "usage.total_tokens", 3, "event 6 (chunk): expected `usage.total_tokens`"),
    ("chat", TEXT, 6, "usage.prompt_tokens", -1, "event 6 (chunk): expected `usage.prompt_tokens` from 0"),
    ("chat", TOOLS, 3, "choices.0.delta.tool_calls.0.index", 1, "event 3 (chunk): expected `delta.tool_calls[].index`"),
    ("chat", TOOLS, 3, "choices.0.delta.tool_calls.0.id", None, "event 3 (chunk): expected `delta.tool_calls[].id`"),
    ("chat", TOOLS, 3, "choices.0.delta.tool_calls.0.type", None, "event 3 (chunk): expected `delta.tool_calls[].type`"),
    ("chat", TOOLS, 4, "choices.0.delta.tool_calls.0.id", "again", "in the first delta of call 0 only"),
    ("chat", TOOLS, 5, "choices.0.delta.tool_calls.0.function.arguments", "", "event 9 (chunk): expected the arguments"),
    ("responses", TEXT, 3, "sequence_number", 7, "event 3 (response.output_item.added): expected `sequence_number` 2"),
    ("responses", TEXT, 3, "output_index", 1, "event 3 (response.output_item.added): expected `output_index` 0"),
    ("responses", TEXT, 4, "content_index", None, "event 4 (response.content_part.added): expected `content_index`"),
    ("responses", TEXT, 5, "item_id", "other", 'event 5 (response.output_text.delta): expected `item_id` "msg_1"'),
    ("responses", TEXT, 5, "content_index", 1, "event 5 (response.output_text.delta): expected the part 1 to be open"),
    ("responses", TEXT, 5, "type", "x", "event 5 (response.output_text.delta): expected `type`"),
    ("responses", TEXT, 8, "text", "lost", "event 8 (response.output_text.done): expected `text` to be the deltas"),
    ("responses", TEXT, 10, "item.content", [], "event 10 (response.output_item.done): expected `item.content` to say"),
    ("responses", TEXT, 10, "item.id", "other", "event 10 (response.output_item.done): expected `item.id` to stay"),
    ("responses", TEXT, 11, "response.output", [], "event 11 (response.completed): expected `response.output` to have the items"),
    ("responses", TEXT, 11, "response.id", "other", 'event 11 (response.completed): expected `response.id` "resp_1"'),
    ("responses", TOOLS, 9, "item.call_id", None, "event 9 (response.output_item.added): expected `item.call_id`"),
    ("responses", TOOLS, 13, "item.arguments", "{}", "event 13 (response.output_item.done): expected `item.arguments`"),
    ("responses", THINKING, 5, "summary_index", 2, "event 5 (response.reasoning_summary_text.delta): expected the part"),
    ("messages", TEXT, 1, "message.usage", None, "event 1 (message_start): expected `message.usage` to be an object"),
    ("messages", TEXT, 1, "message.content", [{}], "event 1 (message_start): expected `message.content` to be []"),
    ("messages", TEXT, 3, "index", 1, "event 3 (content_block_start): expected `index` 0, got 1"),
    ("messages", TEXT, 4, "index", 1, "event 4 (content_block_delta): expected `index` 0, got 1"),
    ("messages", TEXT, 4, "delta.type", "input_json_delta", "event 4 (content_block_delta): expected a delta for a block"),
    ("messages", TEXT, 8, "usage.output_tokens", 0, "event 8 (message_delta): expected `usage.output_tokens` to be cum"),
    ("messages", TEXT, 8, "delta.stop_reason", None, "event 8 (message_delta): expected `delta.stop_reason`"),
    ("messages", TEXT, 8, "delta.stop_reason", "tool_use", "event 8 (message_delta): expected a block of tool_use"),
    ("messages", TOOLS, 6, "content_block.id", "", "event 6 (content_block_start): expected `content_block.id`"),
    ("messages", TOOLS, 9, "delta.partial_json", "", "event 10 (content_block_stop): expected the arguments"),
    ("chat", TEXT, 2, "choices", [5], "event 2 (chunk): expected each choice to be an object"),
    ("chat", TOOLS, 3, "choices.0.delta.tool_calls", 5, "event 3 (chunk): expected `delta.tool_calls` to be a list"),
    ("chat", TOOLS, 3, "choices.0.delta.tool_calls", [5], "expected each of `delta.tool_calls` to be an object"),
    ("chat", TEXT, 5, "choices.0.finish_reason", "tool_calls", "event 5 (chunk): expected a tool call before"),
    ("chat", TEXT, 6, "usage", [1], "event 6 (chunk): expected `usage` to be an object or null"),
    ("messages", TEXT, 4, "type", "x", "event 4 (content_block_delta): expected `type` to be the event's name"),
    ("messages", TEXT, 1, "message.stop_reason", "end_turn", "expected `message.stop_reason` to be null"),
    ("messages", TEXT, 1, "message.role", "user", "expected `message.role` to be"),
    ("messages", TEXT, 1, "message.type", "x", "expected `message.type` to be"),
    ("messages", TOOLS, 6, "content_block.input", {"a": 1}, "expected `content_block.input` to be {}"),
    ("responses", TEXT, 1, "response.object", "x", "expected `response.object` to be"),
    ("responses", TEXT, 1, "response.status", "completed", "expected `response.status` to be"),
    ("responses", TEXT, 3, "item.role", "user", "expected `item.role` to be"),
    ("responses", TEXT, 11, "response.status", "failed", "expected `response.status` to be"),
    ("responses", TEXT, 11, "response.output.0.content.0.text", "lost", "expected `response.output` to say what was"),
    ("gemini", TEXT, 1, "candidates", None, "event 1 (response): expected `candidates` to be a list"),
    ("gemini", TEXT, 2, "candidates.0.content.role", "user", "event 2 (response): expected `candidates[0].content.role`"),
    ("gemini", TEXT, 2, "candidates.0.finishReason", "STOP", "event 3 (response): expected nothing after the end"),
    ("gemini", TEXT, 2, "responseId", "other", 'event 2 (response): expected `responseId` to stay "r1", got "other"'),
    ("gemini", TOOLS, 2, "candidates.0.content.parts.0.functionCall.args", "{}", "`functionCall.args` to be an object"),
    ("gemini", TOOLS, 2, "candidates.0.content.parts.0.functionCall.name", None, "`functionCall.name` to be a string"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "scene", "number", "path", "value", "said"), SPOILT)
def test_the_first_broken_event_is_named(
    form: str, scene: Scene, number: int, path: str, value: object, said: str
) -> None:
    fault = GRAMMARS[form].check(changed(frames(form, scene), number, path, value))
    assert fault is not None
    assert said in str(fault)


def test_events_out_of_order_are_named() -> None:
    start, ping, *rest = frames("messages", TEXT)
    assert messages.check([ping, start, start, *rest]) == Fault(3, "message_start", "one message_start", "a second one")
    assert messages.check(rest) == Fault(1, "content_block_start", "message_start first", "content_block_start")
    block, *others = rest
    fault = messages.check([start, block, block, *others])
    assert fault == Fault(
        3, "content_block_start", "content_block_stop of block 0 before another begins", "content_block_start"
    )
    fault = messages.check(without(frames("messages", TEXT), 7))
    assert fault == Fault(7, "message_delta", "content_block_stop of block 0 before it", "message_delta")
    created, going, *rest = frames("responses", TEXT)
    assert responses.check(renumbered([going, created])) == Fault(
        1, "response.in_progress", "response.created first", "response.in_progress"
    )
    fault = responses.check(renumbered(without([created, going, *rest], 9)))
    assert fault is not None
    assert str(fault).startswith("event 9 (response.output_item.done): expected response.content_part.done of part 0")


def test_names_of_events_are_a_part_of_the_dialect() -> None:
    (_, data), *rest = frames("chat", TEXT)
    assert chat.check([("chunk", data), *rest]) == Fault(1, "chunk", "a chunk without an event name", "chunk")
    (_, data), *rest = frames("messages", TEXT)
    assert messages.check([("", data), *rest]) is not None
    (_, data), *rest = frames("gemini", TEXT)
    assert gemini.check([("message", data), *rest]) is not None


def test_what_clients_do_not_mind_is_no_fault() -> None:
    found = frames("chat", TEXT)
    for number in range(1, 7):
        for member in ("id", "created", "model"):
            found = changed(found, number, member, None)
    assert chat.check(without(found, 6)) is None  # and no usage
    filtered = (b"", b'{"object":"chat.completion.chunk","id":"","choices":[],"prompt_filter_results":[]}')
    assert chat.check([("", filtered[1]), *frames("chat", TEXT)]) is None
    told, fault = messages.follow([("ping", b'{"type":"ping"}'), *frames("messages", TEXT)])
    assert (told.text, fault) == ("".join(HELLO), None)
    spare = ("response.web_search_call.searching", b'{"type":"response.web_search_call.searching"}')
    created, *rest = frames("responses", TEXT)
    assert responses.check(renumbered([created, spare, *rest])) is None


@pytest.mark.parametrize(
    ("form", "tree", "said"),
    [
        ("chat", {"object": "chat.completion", "choices": []}, "at least one choice"),
        ("chat", {"object": "chat", "choices": []}, "`object` to be"),
        ("chat", {"object": "chat.completion", "choices": [5]}, "`choices[0]` to be an object"),
        ("chat", {"object": "chat.completion", "choices": [{"index": 1}]}, "`choices[0].index` to be 0"),
        ("responses", {"object": "x"}, "`object` to be"),
        (
            "responses",
            {"object": "response", "id": "r", "status": "completed", "output": [5]},
            "`output[0]` to be an obj",
        ),
        ("messages", {"type": "message", "role": "assistant", "id": "m"}, "`model` to be a string, got no such member"),
        ("gemini", {"candidates": [{"content": {"parts": []}}]}, "`candidates[0].finishReason`"),
    ],
)
def test_an_answer_in_one_piece_that_is_none(form: str, tree: dict[str, object], said: str) -> None:
    with pytest.raises(Broken) as raised:
        GRAMMARS[form].whole(tree)
    assert said in str(raised.value)


def test_events_are_read_as_the_specification_says() -> None:
    lines = [
        b": hello\r\n",
        b"event: a\r\n",
        b"data: 1\r\n",
        b"data:2\r\n",
        b"\r\n",
        b"retry: 5\n",
        b"\n",
        b"data: lost\n",
    ]
    assert list(events(lines)) == [("a", b"1\n2")]
