"""What a request refers to and what an answer tells of, in all forms; who is sent to the full lane for it."""

from typing import Any

import orjson
import pytest

from agw_proxy._hot.route import RouteTable
from agw_proxy.policy.affinity import (
    HEAD_BYTES,
    MARKS,
    MARKS_OF_HISTORY,
    MAX_IDS,
    MAX_SIGNATURES,
    RECALLS,
    Refers,
    first_id,
    kind_of,
    marked,
    opens,
    recalls,
    referred,
    spread,
    tells,
    told,
)

Tree = dict[str, Any]


@pytest.mark.parametrize(
    ("tree", "ids"),
    [
        ({"previous_response_id": "resp_1", "input": [{"content": [{"file_id": "file-1"}]}]}, ("resp_1", "file-1")),
        ({"conversation": "conv_1"}, ("conv_1",)),
        ({"conversation": {"id": "conv_1"}}, ("conv_1",)),
        ({"input_file_id": "file-1"}, ("file-1",)),
        ({"training_file": "file-1", "validation_file": "file-2"}, ("file-1", "file-2")),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]}]}, ("vs_1", "vs_2")),
        ({"tools": [{"container": {"file_ids": ["file-1"]}}]}, ("file-1",)),
        ({"messages": [{"content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}, ("file-1",)),
        ({"messages": [{"content": [{"source": {"type": "file", "file_id": "file-1"}}]}]}, ("file-1",)),
        ({"file_ids": ["file-1", 7, None, "", "x" * 300, "file-1"]}, ("file-1",)),
        ({"previous_response_id": None, "conversation": {"id": 3}, "file_id": ["file-1"]}, ()),
        ({"text": 'the "file_id" of "file-1"'}, ()),
        ({"file_ids": [f"file-{n}" for n in range(99)]}, tuple(f"file-{n}" for n in range(MAX_IDS))),
    ],
)
def test_ids_are_found_wherever_a_form_has_them(tree: Tree, ids: tuple[str, ...]) -> None:
    assert referred(orjson.dumps(tree)) == Refers(ids=ids)


@pytest.mark.parametrize(
    ("tree", "signatures"),
    [
        ({"input": [{"encrypted_content": "one"}, {"encrypted_content": "two"}]}, ("two", "one")),
        ({"messages": [{"content": [{"type": "thinking", "signature": "one"}]}]}, ("one",)),
        ({"messages": [{"content": [{"type": "redacted_thinking", "data": "one"}]}]}, ("one",)),
        ({"messages": [{"reasoning_details": [{"type": "reasoning.encrypted", "data": "one"}]}]}, ("one",)),
        ({"contents": [{"parts": [{"thoughtSignature": "one"}]}]}, ("one",)),
        ({"messages": [{"extra_content": {"google": {"thought_signature": "one"}}}]}, ("one",)),
        ({"input": [{"type": "input_image", "data": "no signature"}], "signature": ""}, ()),
        ({"signatures": [{"signature": str(n)} for n in range(9)]}, tuple("8765"[:MAX_SIGNATURES])),
    ],
)
def test_signatures_are_found_the_newest_first(tree: Tree, signatures: tuple[str, ...]) -> None:
    assert referred(orjson.dumps(tree)) == Refers(signatures=signatures)


@pytest.mark.parametrize("body", [b"", b'["file_id"]', b'{"file_id": ', b'"file_id"'])
def test_what_is_no_object_refers_to_nothing(body: bytes) -> None:
    assert referred(body) == Refers()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/files", ("files", None)),
        ("/v1/files/", ("files", None)),
        ("/v1/files/file-1/content", ("files", "file-1")),
        ("/v1/responses/resp%5F1", ("responses", "resp_1")),
        ("/v1/vector_stores/vs_1/files/file-1", ("vector_stores", "vs_1")),
        ("/v1/messages/batches/msgbatch_1/results", ("batches", "msgbatch_1")),
        ("/v1/messages", None),
        ("/v1/models/gpt-4o", None),
        ("/v1/", None),
        (f"/v1/files/{'x' * 300}", ("files", None)),
    ],
)
def test_paths_name_a_kind_and_an_id(path: str, kind: tuple[str, str | None] | None) -> None:
    assert kind_of(path) == kind


def test_content_of_a_file_tells_of_nothing() -> None:
    paths = ("/v1/files/f/content", "/v1/messages/batches/b/results", "/v1/models", "/v1/files/f", "/v1/batches")
    assert [tells(path) for path in paths] == [False, False, False, True, True]


def test_an_answer_tells_of_itself_and_of_what_came_of_it() -> None:
    batch = orjson.dumps({"id": "b", "object": "batch", "output_file_id": "o", "error_file_id": None})
    assert told(batch, ids=True, signatures=False).ids == ("b", "o")
    assert told(orjson.dumps({"id": "u", "file": {"id": "f"}}), ids=True, signatures=False).ids == ("u", "f")
    assert told(batch, ids=False, signatures=True).ids == ()
    assert told(orjson.dumps({"object": "list", "id": "l"}), ids=True, signatures=True).ids == ()
    gone = told(orjson.dumps({"id": "f", "deleted": True}), ids=True, signatures=True)
    assert (gone.ids, gone.gone) == ((), ("f",))
    begun = orjson.dumps({"type": "response.created", "response": {"id": "r", "conversation": {"id": "c"}}})
    assert (opens(begun), told(begun, ids=True, signatures=False).ids) == (True, ("r", "c"))
    sealed = orjson.dumps({"type": "x", "item": {"encrypted_content": "s"}})
    assert told(sealed, ids=False, signatures=True).signatures == ("s",)
    assert told(sealed, ids=False, signatures=False).signatures == ()
    assert told(b"[DONE]", ids=True, signatures=True).ids == ()


def test_a_long_answer_is_known_by_its_beginning() -> None:
    assert first_id(b'{"id": "resp_1", "output": "' + b"x" * 9999) == ("resp_1",)
    assert first_id(b'{"output": "' + b"x" * HEAD_BYTES + b'", "id": "resp_1"') == ()


def test_models_are_spread_over_upstreams_or_not() -> None:
    models = [
        ("one", [(0, "x", 1), (0, "y", 1)], "first", ["a/z"]),
        ("spare", [(0, "x", 1)], "first", ["b/x"]),
        ("both", [(0, "x", 1), (1, "x", 1)], "first", []),
    ]
    table = RouteTable([("a", ["*"]), ("b", [])], models)
    routes = [table.find(name) for name in ("one", "spare", "both", "anything")]
    assert [spread(route, 2) for route in routes if route is not None] == [0, 1, 2, 0]
    assert [spread(route, 1) for route in routes if route is not None] == [0] * 4, "who makes nothing is none"


def test_what_may_go_on_from_something_kept_is_known_by_its_names() -> None:
    for mark in RECALLS:
        assert recalls(b'{"model": "m", "input": [{"type":' + mark + b"}]}")
        assert not recalls(b'{"text": ' + orjson.dumps(f"say {mark.decode()}") + b"}")
    assert not recalls(b'{"model": "m", "input": "x", "store": true}')


def test_only_what_may_refer_to_something_is_sent_to_the_full_lane() -> None:
    for at, mark in enumerate(MARKS):
        body = b'{"model": "m", ' + mark + b": 1}"
        assert marked(body, 2, 1)
        assert marked(body, 1, 2) == (at < MARKS_OF_HISTORY)
        assert not marked(body, 0, 2)
        assert not marked(body, 2, 0)
        assert not marked(b'{"text": ' + orjson.dumps(f"say {mark.decode()}") + b"}", 2, 1)
    assert marked(b"{}", 2, 2)


def test_googles_signatures_are_known_by_both_spellings_of_their_names() -> None:
    part = {"functionCall": {"name": "f"}, "thoughtSignature": "c2ln"}
    other = {"functionCall": {"name": "f"}, "thought_signature": "c2ln"}
    for each in (part, other):
        assert marked(orjson.dumps({"contents": [{"role": "model", "parts": [each]}]}), 1, 1)
    for name in ("thinkingConfig", "thinking_config"):
        assert marked(orjson.dumps({"generationConfig": {name: {"includeThoughts": True}}}), 2, 1)
