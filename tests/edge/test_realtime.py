"""What a session's events say of usage, and the gateway's own last event."""

import orjson

from agw_proxy.edge.realtime import Book, error_message, is_delta
from agw_proxy.errors import Draining
from agw_proxy.types import Usage

DELTA = b'{"type":"response.output_audio.delta","delta":"AAAA"}'


def done(usage: object) -> bytes:
    return orjson.dumps({"type": "response.done", "response": {"usage": usage}})


def test_answers_add_up() -> None:
    book = Book()
    usage = {"input_tokens": 7, "output_tokens": 3, "input_token_details": {"cached_tokens": 2}}
    assert book.read(done(usage)) == Usage(7, 3, 2)
    assert book.read(done(usage)) == Usage(7, 3, 2)
    assert book.used == Usage(14, 6, 4)


def test_an_answer_without_its_end_counts_a_token_for_each_piece_and_only_until_then() -> None:
    book = Book()
    book.read(b'{"type":"response.created"}')
    book.read(DELTA)
    book.read(DELTA)
    assert book.used == Usage(0, 2, 0)
    book.read(done({"input_tokens": 1, "output_tokens": 9}))
    assert book.used == Usage(1, 9, 0)
    assert book.deltas == 2


def test_what_looks_like_usage_and_is_none_counts_nothing() -> None:
    book = Book()
    for event in (
        b'{"type":"conversation.item.created","text":"\\"response.done\\""}',
        b'{"type":"x","said":"response.done"}',
        b'"response.done"',
        b'{"type":"response.done"',
        done(None),
        done({"input_tokens": -5, "output_tokens": "many"}),
        b'{"type":"response.done","response":7}',
        b"\xff\x00",
    ):
        assert book.read(event) in {None, Usage(0, 0, 0)}
    assert book.used == Usage(0, 0, 0)


def test_only_a_piece_of_an_answer_is_a_delta() -> None:
    assert is_delta(DELTA)
    assert not is_delta(b'{"type":"error","error":{"message":"x.delta"}}')


def test_the_last_event_is_one_of_the_apis_own() -> None:
    tree = orjson.loads(error_message(Draining("bye"), "req_1"))
    assert tree["type"] == "error"
    assert set(tree["error"]) == {"type", "code", "message", "param", "event_id"}
    assert tree["event_id"].startswith("event_")
