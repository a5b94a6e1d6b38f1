"""Upstreams are asked for their models all at once; whatever one answers, the others' lists are there."""

import asyncio

import orjson
import pytest

from agw_proxy._hot.route import Target
from agw_proxy.errors import UpstreamBroken, UpstreamUnreachable
from agw_proxy.types import Call
from agw_proxy.upstreams.catalog import MAX_BYTES, MAX_MODELS, discover
from tests.upstreams.scripted import Answered, Scripted


def listing(*names: str) -> bytes:
    return orjson.dumps({"object": "list", "data": [{"id": name} for name in names]})


async def errors_of(*portions: bytes, status: int = 200) -> dict[str, str]:
    reply = Answered(*portions, status=status)
    models, errors = await discover([Scripted("a", reply)])
    assert models == {}
    assert reply.closed
    return errors


async def test_each_upstreams_names_come_in_order() -> None:
    first = Scripted("a", Answered(listing("m2", "m1")[:9], listing("m2", "m1")[9:]))
    second = Scripted("b", Answered(listing("models/gemini", "x")))
    models, errors = await discover([first, second])
    assert (models, errors) == ({"a": ("m2", "m1"), "b": ("gemini", "x")}, {})
    asked = first.calls[0][1]
    assert (asked.method, asked.path, asked.body) == ("GET", "/models", None)


async def test_one_that_fails_takes_nothing_from_the_others() -> None:
    cut = Answered(b'{"data":', UpstreamBroken("cut"))
    models, errors = await discover(
        [Scripted("a", UpstreamUnreachable("x")), Scripted("b", Answered(listing("m"))), Scripted("c", cut)]
    )
    assert models == {"b": ("m",)}
    assert errors == {"a": "upstream_unreachable", "c": "upstream_broken"}
    assert cut.closed


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"data":null}', b'{"data":{"a":1}}', b'{"data":"ab"}', b'{"data":[1]}', b'{"data":[{"id":5}]}', b'{"data":[{}]}'],
)  # fmt: skip
async def test_what_is_no_list_is_an_error(body: bytes) -> None:
    assert await errors_of(body) == {"a": "upstream_invalid"}


@pytest.mark.parametrize("status", [201, 204, 401, 404, 500])
async def test_another_status_is_an_error(status: int) -> None:
    assert await errors_of(listing("m"), status=status) == {"a": "upstream_invalid"}


async def test_an_endless_list_is_an_error_within_a_bound() -> None:
    reply = Answered(*[b" " * (MAX_BYTES // 4)] * 100)
    _, errors = await discover([Scripted("a", reply)])
    assert errors == {"a": "upstream_invalid"}
    assert len(reply.progress) == 5


async def test_a_long_list_is_cut() -> None:
    names = [f"m{number}" for number in range(MAX_MODELS + 5)]
    models, _ = await discover([Scripted("a", Answered(listing(*names)))])
    assert models["a"] == tuple(names[:MAX_MODELS])


async def test_one_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Scripted):
        async def open(self, target: Target, call: Call) -> Answered:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("agw_proxy.upstreams.catalog.SECONDS", 0.02)
    models, errors = await discover([Silent("a"), Scripted("b", Answered(listing("m")))])
    assert (models, errors) == ({"b": ("m",)}, {"a": "upstream_timeout"})


async def test_none_asked_is_none_found() -> None:
    assert await discover([]) == ({}, {})
