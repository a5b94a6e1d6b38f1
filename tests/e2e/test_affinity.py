"""What an upstream has made goes back to it: responses, conversations, files, batches, encrypted reasoning."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from agw_proxy.policy.affinity import MARKS, marked
from tests.support.behaviours import answer, failure
from tests.support.client import Reply
from tests.support.gateway import ADMIN_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.keeper import Keeper
from tests.support.redis_server import RedisServer
from tests.support.upstream import Upstream

MATE, STRANGER = "agw-bench-mate-6d1f08b3c2e94a57", "agw-bench-stranger-8c20e7f5a91b4d36"
TURN = "/v1/responses"


@dataclass
class Two:
    """Two upstreams; every model asks the first one first."""

    a: Upstream
    b: Upstream

    def reset(self) -> None:
        self.a.reset()
        self.b.reset()

    def by_b(self) -> None:
        """The next generation is the second one's: the first fails once."""
        self.a.script(failure(503))


def config(two: Two, **sections: object) -> Tree:
    made = configuration(provider(two.a.url, "a"), provider(two.b.url, "b"), **sections)
    targets = [{"upstream": name, "model": "gpt-4o-mini"} for name in ("a", "b")]
    made["models"] = [
        {"name": "both", "targets": targets, "balance": "first"},
        {"name": "spare", "targets": targets[:1], "fallbacks": ["b/gpt-4o-mini"], "last_resort": "echo"},
    ]
    made["keys"][0]["team"] = "crew"
    made["keys"] += [
        {"name": "mate", "key": MATE, "models": ["*"], "team": "crew"},
        {"name": "stranger", "key": STRANGER, "models": ["*"]},
    ]
    made["teams"] = [{"name": "crew"}]
    made["retries"] = {"attempts": 1}
    return made


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Two]:
    with Upstream(Keeper("a")) as a, Upstream(Keeper("b")) as b:
        yield Two(a, b)


@pytest.fixture
def two(upstreams: Two) -> Two:
    upstreams.reset()
    return upstreams


@pytest.fixture(scope="module")
def running(upstreams: Two) -> Iterator[Gateway]:
    with Gateway(config(upstreams)) as gateway:
        yield gateway


def turn(gateway: Gateway, *, stream: bool = False, key: str = "", model: str = "both", **members: object) -> Reply:
    body = {"model": model, "input": "Hi", "stream": stream, **members}
    return gateway.post(TURN, body, key=key or gateway.key)


def id_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    found = re.search(rb"resp_[ab]\d+", reply.body)
    assert found is not None
    return found[0].decode()


def erased(gateway: Gateway, path: str, headers: dict[str, str] | None = None) -> int:
    with gateway.connect() as connection:
        connection.send("DELETE", path, None, gateway.headers(more=headers))
        return connection.reply().status


def made_by_b(gateway: Gateway, two: Two, **members: object) -> str:
    two.by_b()
    made = id_of(turn(gateway, **members))  # type: ignore[arg-type]
    assert made.startswith("resp_b")
    two.reset()
    return made


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_stays_where_it_has_begun(running: Gateway, two: Two, stream: bool) -> None:
    last = made_by_b(running, two, stream=stream)
    for _ in range(3):
        reply = turn(running, stream=stream, previous_response_id=last)
        last = id_of(reply)
        assert running.receipt(reply.request_id)["lane_reason"] == "affinity"
    assert (len(two.a.requests), len(two.b.requests)) == (0, 3)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_response_is_found_by_its_path(running: Gateway, two: Two, stream: bool) -> None:
    made = made_by_b(running, two, stream=stream)
    assert running.get(f"{TURN}/{made}").json["id"] == made
    assert running.get(f"{TURN}/{made}/input_items").status == 200
    assert running.post(f"{TURN}/{made}/cancel", {}).status == 200
    assert two.a.requests == []


def test_what_nobody_remembers_goes_where_it_went_before(running: Gateway, two: Two) -> None:
    reply = turn(running, previous_response_id="resp_of_another_time")
    assert reply.status == 400
    assert running.get(f"{TURN}/resp_of_another_time").status == 404
    assert (len(two.a.requests), len(two.b.requests)) == (2, 0)


def test_an_id_is_the_callers_own_or_its_teams(running: Gateway, two: Two) -> None:
    made = made_by_b(running, two)
    assert turn(running, key=MATE, previous_response_id=made).status == 200
    assert len(two.b.requests) == 1
    assert turn(running, key=STRANGER, previous_response_id=made).status == 400
    assert running.get(f"{TURN}/{made}", key=STRANGER).status == 404
    assert (len(two.a.requests), len(two.b.requests)) == (2, 1)


def test_files_are_found_where_they_are_with_all_that_is_made_of_them(running: Gateway, two: Two) -> None:
    there = {"x-agw-upstream": "b"}
    boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhello\r\n--x--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    file = running.post("/v1/files", boundary, headers={**there, **kind}).json["id"]
    assert running.get(f"/v1/files/{file}/content").status == 200
    batch = running.post("/v1/batches", {"input_file_id": file}).json
    assert running.get(f"/v1/batches/{batch['id']}").status == 200
    assert running.get(f"/v1/files/{batch['output_file_id']}").status == 200
    store = running.post("/v1/vector_stores", {"file_ids": [file]}).json["id"]
    assert running.post(f"/v1/vector_stores/{store}/files", {"file_id": file}).status == 200
    part = {"type": "input_file", "file_id": file}
    assert turn(running, input=[{"role": "user", "content": [part]}]).status == 200
    chat = chat_body(
        model="both", messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": file}}]}]
    )
    reply = running.post("/v1/chat/completions", chat)
    assert reply.status == 200
    assert running.receipt(reply.request_id)["lane_reason"] == "affinity"
    assert two.a.requests == []
    assert running.post("/v1/files", boundary, headers=kind).json["id"] != file
    assert running.get(f"/v1/files/{file}", headers={"x-agw-upstream": "a"}).status == 404, "the header says it"
    assert running.get(f"/v1/files/{file}", key=STRANGER).status == 404


def test_what_was_deleted_is_forgotten(running: Gateway, two: Two) -> None:
    made = running.post("/v1/conversations", {}, headers={"x-agw-upstream": "b"}).json["id"]
    two.b.script(answer({"id": made, "deleted": True}))
    assert erased(running, f"/v1/vector_stores/vs_1/files/{made}", {"x-agw-upstream": "b"}) == 200
    assert turn(running, conversation=made).status == 200, "taken out of something else, it is there still"
    assert turn(running, conversation={"id": made}).status == 200
    assert erased(running, f"/v1/conversations/{made}") == 200
    two.reset()
    running.get(f"/v1/conversations/{made}")
    assert (len(two.a.requests), len(two.b.requests)) == (1, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_encrypted_reasoning_goes_to_who_can_read_it(running: Gateway, two: Two, stream: bool) -> None:
    two.by_b()
    first = turn(running, stream=stream, include=["reasoning.encrypted_content"], store=False)
    sealed = re.search(rb'"encrypted_content":"(\w+)"', first.body)
    assert sealed is not None, first.body
    history: list[Tree] = [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed[1].decode()}]
    two.reset()
    assert turn(running, stream=stream, input=history).status == 200
    assert (len(two.a.requests), len(two.b.requests)) == (0, 1)
    two.b.script(failure(503))
    assert turn(running, stream=stream, input=history).status == 200, "preferred, and no more: without it others serve"
    assert len(two.a.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_signed_thoughts_go_to_who_has_signed_them(running: Gateway, two: Two, stream: bool) -> None:
    asked = {"model": "both", "max_tokens": 99, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    thinks = {"thinking": {"type": "enabled", "budget_tokens": 50}}
    two.by_b()
    first = running.post("/v1/messages", {**asked, **thinks})
    found = re.search(rb'"signature":"(\w+)"', first.body)
    assert found is not None, first.body
    two.reset()
    thought = {"type": "thinking", "thinking": "Let me think.", "signature": found[1].decode()}
    said = {"role": "user", "content": "Hi"}
    history: list[Tree] = [said, {"role": "assistant", "content": [thought]}, said]
    reply = running.post("/v1/messages", {**asked, "messages": history})
    assert reply.status == 200
    assert (len(two.a.requests), len(two.b.requests)) == (0, 1)
    assert running.receipt(reply.request_id)["lane_reason"] == "affinity"


def test_who_has_made_it_fails_and_nobody_takes_its_place(running: Gateway, two: Two) -> None:
    made = made_by_b(running, two, model="spare")
    two.b.script(failure(503))
    reply = turn(running, model="spare", previous_response_id=made)
    assert reply.status == 503
    assert two.a.requests == []
    assert reply.value("x-agw-fallback") is None


def test_who_may_not_be_asked_now_is_named_and_nobody_takes_its_place(two: Two) -> None:
    breaker = {"consecutive": 1, "cool_down": "60s", "panic": 0}
    with Gateway(config(two, breaker=breaker)) as gateway:
        made = gateway.post("/v1/conversations", {}, headers={"x-agw-upstream": "b"}).json["id"]
        two.b.script(failure(503))
        assert turn(gateway, conversation=made).status == 503, "this one opens the circuit"
        two.reset()
        reply = turn(gateway, conversation=made)
        assert reply.status == 503
        assert "Only upstream 'b' has" in str(reply.error["message"])
        assert str(made) in str(reply.error["message"])
        assert int(reply.value("retry-after") or "0") > 0
        two.b.script(failure(503))
        assert gateway.get(f"/v1/conversations/{made}").status == 503
        path = gateway.get(f"/v1/conversations/{made}")
        assert (path.status, "Only upstream 'b' has" in str(path.error["message"])) == (503, True)
        assert two.a.requests == []


def test_two_workers_and_a_restart_know_the_same(two: Two) -> None:
    settings = config(two)
    settings["server"]["workers"] = 2
    with Gateway(settings) as gateway:
        for stream in (False, True):
            made = made_by_b(gateway, two, stream=stream)
            replies = [gateway.get(f"{TURN}/{made}") for _ in range(12)]
            assert {reply.status for reply in replies} == {200}
        gateway.stop(signal.SIGKILL)
        gateway.start()
        assert turn(gateway, previous_response_id=made).status == 200
        assert two.a.requests == []


def test_gateways_that_share_a_redis_know_the_same(two: Two) -> None:
    with RedisServer() as redis:
        settings = {**config(two), "redis": {"url": redis.url, "timeout": "250ms", "notices": False}}
        with Gateway(settings) as one, Gateway(settings) as other:
            made = made_by_b(one, two)
            assert turn(other, previous_response_id=made).status == 200
            assert two.a.requests == []


def test_only_what_may_have_been_made_somewhere_leaves_the_fast_lane(running: Gateway, two: Two) -> None:
    plain = [
        ("/v1/messages", {"model": "both", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}),
        (TURN, {"model": "a/gpt-4o-mini", "input": "Hi", "previous_response_id": None}),
        (TURN, {"model": "gpt-4o-mini", "input": "Hi"}),
        (TURN, {"model": "spare", "input": 'what is a "file_id"?'}),
    ]
    for path, body in plain:
        assert running.receipt(running.post(path, body).request_id)["lane"] == "fast", body
    for body in ({"model": "both", "input": "Hi"}, {"model": "spare", "input": "Hi", "previous_response_id": "r"}):
        assert running.receipt(running.post(TURN, body).request_id)["lane_reason"] == "affinity"
        told = running.post("/explain", {"path": TURN, "request": body}, key=ADMIN_KEY)
        assert b'"affinity"' in told.body, told.body


def test_both_lanes_read_a_body_for_the_same_marks(running: Gateway, two: Two) -> None:
    rest = b'"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}'
    for model, level in ((b"both", 2), (b"spare", 1)):
        for mark in MARKS:
            body = b'{"model": "' + model + b'", ' + mark + b": null, " + rest
            reply = running.post("/v1/messages", body, headers={"content-type": "application/json"})
            assert reply.status == 200
            told = running.receipts(reply.request_id)[0].get("lane_reason")
            assert told == ("affinity" if marked(body, level, 1) else None), body


def test_with_a_single_upstream_nothing_is_remembered_and_the_fast_lane_keeps_it(two: Two) -> None:
    settings = configuration(provider(two.a.url, "a"))
    names = ("gpt-4o-mini", "gpt-4o")
    settings["models"] = [{"name": "both", "targets": [{"upstream": "a", "model": name} for name in names]}]
    with Gateway(settings) as gateway:
        made = id_of(turn(gateway))
        reply = turn(gateway, previous_response_id=made)
        assert gateway.receipt(reply.request_id)["lane"] == "fast"
        assert gateway.get(f"{TURN}/{made}").status == 200
        assert not list(gateway.folder.rglob("affinity.db*"))


def test_a_place_that_cannot_be_written_costs_the_restart_only(two: Two) -> None:
    with Gateway(config(two)) as gateway:
        folder = gateway.folder / "home" / "state" / "agw"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "affinity.db").mkdir()
        made = made_by_b(gateway, two)
        assert turn(gateway, previous_response_id=made).status == 200
        assert two.a.requests == []


def test_an_upstream_that_is_configured_no_more_is_forgotten(two: Two) -> None:
    with Gateway(config(two)) as gateway:
        made = made_by_b(gateway, two)
        settings = config(two)
        settings["upstreams"][1]["name"] = "c"
        settings["models"][0]["targets"][1]["upstream"] = "c"
        settings["models"][1]["fallbacks"] = ["c/gpt-4o-mini"]
        gateway.write(settings)
        assert gateway.post("/upstreams/refresh", key=ADMIN_KEY).status == 200
        assert turn(gateway, previous_response_id=made).status == 400
        assert len(two.a.requests) == 1
