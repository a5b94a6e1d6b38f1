"""Runs in the background: begun, followed, resumed, cancelled and asked for, by the OpenAI SDK and by plain HTTP."""

from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pytest

from tests.e2e.test_translation import upstreams
from tests.support.behaviours import failure, silence, stream
from tests.support.gateway import Gateway, Tree, configuration
from tests.support.providers import TEXT, chat_frames, plays
from tests.support.upstream import Upstream

MATE, STRANGER = "agw-bench-mate-6d1f08b3c2e94a57", "agw-bench-stranger-8c20e7f5a91b4d36"
FALLING = "agw-bench-falling-0b7d52e9c4a1f386"
TURN = "/v1/responses"
ENDED = {"completed", "incomplete", "failed", "cancelled"}


def config(url: str, **sections: object) -> Tree:
    patient = {"connect": "20s", "first_byte": "20s", "between_bytes": "20s", "total": "40s"}
    made = configuration(*upstreams(url), **{"timeouts": patient, **sections})
    made["keys"][0]["team"] = "crew"
    limit = {"per": "key", "requests": 1, "period": "1h"}
    made["keys"] += [
        {"name": "falling", "key": FALLING, "models": ["*"], "fallbacks": True},
        {"name": "mate", "key": MATE, "models": ["*"], "team": "crew"},
        {"name": "stranger", "key": STRANGER, "models": ["messages-*"], "limits": [limit]},
    ]
    made["teams"] = [{"name": "crew"}]
    return made


@pytest.fixture(scope="module")
def running(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(config(shared_upstream.url)) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def played(upstream: Upstream) -> None:
    upstream.default = plays(TEXT)


def client(gateway: Gateway, key: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key or gateway.key, max_retries=0, timeout=40)


def begin(gateway: Gateway, key: str = "", **members: object) -> Any:
    reply = gateway.post("/runs", {"model": "chat-x", "input": "hi", **members}, key=key or gateway.key)
    assert reply.status == 202, reply.body
    return reply.json


def ended(gateway: Gateway, identity: str) -> Any:
    def look() -> Any:
        run: Any = gateway.get(f"/runs/{identity}").json
        return run if run["status"] in ENDED else None

    return gateway.until(look, f"run {identity} has not ended")


def events(gateway: Gateway, identity: str, **headers: str) -> list[tuple[int, str, Tree]]:
    """All to the end, with their ids."""
    reply = gateway.get(
        f"/runs/{identity}/events", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    assert (reply.status, reply.value("content-type")) == (200, "text/event-stream")
    return read(reply.body)


def read(body: bytes) -> list[tuple[int, str, Tree]]:
    found = []
    for block in body.split(b"\n\n"):
        if not block or block.startswith(b":"):
            continue
        fields = dict(line.split(b": ", 1) for line in block.splitlines())
        found.append((int(fields[b"id"]), fields[b"event"].decode(), orjson.loads(fields[b"data"])))
    return found


def test_a_run_is_begun_followed_resumed_and_asked_for(running: Gateway, upstream: Upstream) -> None:
    reply = running.post("/runs", {"model": "chat-x", "input": "hi", "metadata": {"job": "7"}})
    made: Any = reply.json
    assert (reply.status, made["object"], made["status"], made["key"]) == (202, "run", "queued", "app")
    assert reply.value("location") == f"/runs/{made['id']}"
    seen = events(running, made["id"])
    assert [number for number, _, _ in seen] == list(range(len(seen)))
    assert [tree["sequence_number"] for _, _, tree in seen] == list(range(len(seen)))
    kinds = [kind for _, kind, _ in seen]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.created") == 1
    assert "".join(tree["delta"] for _, kind, tree in seen if kind == "response.output_text.delta") == "Hello world"
    assert {tree["response"]["id"] for _, _, tree in seen if "response" in tree} == {made["response_id"]}
    for after in (0, 3, len(seen) - 2):
        assert events(running, made["id"], Last_Event_ID=str(after)) == seen[after + 1 :]
    all_of_it = running.get(f"/runs/{made['id']}/events", headers={"last-event-id": str(len(seen) - 1)})
    assert (all_of_it.status, all_of_it.body) == (204, b"")  # nobody comes again for more
    run = ended(running, made["id"])
    assert (run["status"], run["error"], run["metadata"], run["last_event_id"]) == (
        "completed",
        None,
        {"job": "7"},
        len(seen) - 1,
    )
    assert run["response"]["output"][0]["content"][0]["text"] == "Hello world"
    assert run["usage"] == run["response"]["usage"]
    assert run["created_at"] <= run["started_at"] <= run["ended_at"]
    receipt = running.receipt(made["id"])
    assert (receipt["key"], receipt["model"], receipt["outcome"]) == ("app", "chat-x", "ok")
    assert (receipt["endpoint"], receipt["lane_reason"]) == ("responses", "background")
    assert upstream.last.json["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("spoken", ["chat", "messages", "gemini"])
def test_responses_are_made_in_the_background_for_the_sdk(running: Gateway, upstream: Upstream, spoken: str) -> None:
    with client(running) as sdk:
        made: Any = sdk.responses.create(model=f"{spoken}-x", input="hi", background=True, temperature=0.5)
        assert (made.status, made.background, made.store, made.temperature) == ("queued", True, True, 0.5)
        done: Any = running.until(
            lambda: found if (found := sdk.responses.retrieve(made.id)).status == "completed" else None, "not completed"
        )
        assert (done.id, done.output_text, done.background) == (made.id, "Hello world", True)
        assert done.usage is not None
        again: Any = list(sdk.responses.retrieve(made.id, stream=True, starting_after=4))
        assert [event.sequence_number for event in again] == list(range(5, 5 + len(again)))
        assert (again[-1].type, again[-1].response.to_dict()) == ("response.completed", done.to_dict())
        assert sdk.responses.cancel(made.id) == done
        sdk.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(made.id)
    assert "background" not in upstream.last.json


def test_a_stream_of_one_goes_on_where_its_client_has_left(running: Gateway, upstream: Upstream) -> None:
    frames = chat_frames(TEXT).split(b"\n\n")
    pieces = [frame + b"\n\n" for frame in frames if frame]
    upstream.script(stream(pieces, pace_ms=60))
    with client(running) as sdk:
        with sdk.responses.create(model="chat-x", input="hi", background=True, stream=True) as begun:
            first: Any = next(iter(begun))
        with sdk.responses.stream(response_id=first.response.id, starting_after=0) as resumed:
            seen = list(resumed)
            final = resumed.get_final_response()
        assert next(event.sequence_number for event in seen if hasattr(event, "sequence_number")) == 1
        assert final.output_text == "Hello world"
        assert sdk.responses.retrieve(first.response.id).status == "completed"
    assert len(upstream.requests) == 1


def test_a_run_that_is_cancelled_ends_its_call(running: Gateway, upstream: Upstream) -> None:
    upstream.script(silence())
    made = begin(running)
    running.until(lambda: upstream.requests, "the upstream was not asked")
    reply: Any = running.post(f"/runs/{made['id']}/cancel").json
    assert (reply["status"], reply["error"]) == ("cancelled", None)
    _, kind, tree = events(running, made["id"])[-1]
    assert (kind, tree["response"]["status"], tree["response"]["error"]) == ("response.failed", "cancelled", None)
    assert running.receipt(made["id"])["outcome"] == "caller_gone"
    upstream.wait_gone(upstream.last)
    assert running.post(f"/runs/{made['id']}/cancel").json == reply
    with client(running) as sdk:
        assert sdk.responses.cancel(made["response_id"]).status == "cancelled"


def test_what_refuses_a_run_refuses_it_at_once_and_leaves_none(running: Gateway) -> None:
    count = len(_listed(running))
    for members, status, code in (
        ({"model": "none-x"}, 404, "model_not_found"),
        ({"model": "chat-x", "agent": "default/sky"}, 400, "invalid_value"),
        ({"model": None}, 400, "missing_required_parameter"),
        ({"model": None, "agent": "sky"}, 400, "invalid_value"),
        ({"stream": True}, 400, "invalid_value"),
    ):
        reply = running.post("/runs", {"model": "chat-x", "input": "hi", **members})
        assert (reply.status, reply.error["code"]) == (status, code), reply.body
    refused = running.post("/runs", {"model": "chat-x", "input": "hi"}, key=STRANGER)
    assert (refused.status, refused.error["code"]) == (403, "model_forbidden")
    assert running.post("/runs", {"agent": "sky", "input": "hi"}).status == 404
    with client(running) as sdk, pytest.raises(openai.BadRequestError, match="store"):
        sdk.responses.create(model="chat-x", input="x", background=True, store=False)
    assert len(_listed(running)) == count
    begin(running, STRANGER, model="messages-x")
    limited = running.post("/runs", {"model": "messages-x", "input": "hi"}, key=STRANGER)
    assert (limited.status, limited.error["code"]) == (429, "rate_limit_exceeded")
    assert limited.value("retry-after") is not None
    own, its = running.receipt(limited.request_id), running.logs()
    assert (own["outcome"], own.get("rule")) == ("policy_rate_limited", None)
    assert [line["rule"] for line in its if line["event"] == "request" and line.get("rule")] == [
        "keys.stranger/requests-per-key"
    ]


def test_a_run_that_fails_says_why(running: Gateway, upstream: Upstream) -> None:
    upstream.script(failure(400, "no such thing"))
    first = ended(running, begin(running)["id"])
    assert (first["status"], first["response"]["error"]["code"]) == ("failed", "server_error")
    assert "no such thing" in first["error"]["message"]
    pieces = chat_frames(TEXT)
    upstream.script(stream([pieces[: len(pieces) // 2]], ending="fin"))
    second = ended(running, begin(running)["id"])
    assert (second["status"], second["error"]["code"]) == ("failed", "upstream_stream_broken")
    last = events(running, second["id"])[-1]
    assert (last[1], last[2]["response"]["status"]) == ("response.failed", "failed")


def test_what_a_request_names_for_its_failure_holds_in_the_background(running: Gateway, upstream: Upstream) -> None:
    upstream.script(*[failure(503)] * 3)
    asked = {"model": "chat-x", "input": "hi", "background": True, "fallbacks": ["messages-x"]}
    made: Any = running.post(TURN, asked, key=FALLING).json
    run: Any = running.until(lambda: _ended_as(running, made["id"]), "it has not ended")
    assert (run["status"], upstream.last.path) == ("completed", "/v1/messages")


def _ended_as(gateway: Gateway, response: str) -> Any:
    told: Any = gateway.get(f"{TURN}/{response}", key=FALLING).json
    return told if told["status"] in ENDED else None


def test_a_request_that_comes_again_with_its_key_begins_no_other(running: Gateway, upstream: Upstream) -> None:
    asked = {"model": "chat-x", "input": "once"}
    first, again = [running.post("/runs", asked, headers={"Idempotency-Key": "job-1"}) for _ in range(2)]
    assert (again.json["id"], again.status) == (first.json["id"], 202)
    assert (first.value("idempotent-replayed"), again.value("idempotent-replayed")) == (None, "true")
    other = running.post("/runs", {**asked, "input": "twice"}, headers={"Idempotency-Key": "job-1"})
    assert (other.status, other.error["code"]) == (409, "idempotency_conflict")
    assert running.post("/runs", asked, headers={"Idempotency-Key": "x" * 257}).status == 400
    with client(running) as sdk:
        word = {"Idempotency-Key": "job-1"}
        made = [
            sdk.responses.create(model="chat-x", input="x", background=True, extra_headers=word).id for _ in range(2)
        ]
    assert made[0] == made[1]
    ended(running, made[0].replace("resp_", "run_"))
    ended(running, str(first.json["id"]))
    assert len(upstream.requests) == 2


def test_nobody_else_sees_it_but_the_team_and_admins(running: Gateway) -> None:
    made = begin(running)
    assert running.get(f"/runs/{made['id']}", key=MATE).status == 200
    assert running.get(f"/runs/{made['id']}", key=running.admin_key).json["id"] == made["id"]
    paths = (f"/runs/{made['id']}", f"/runs/{made['id']}/events", f"{TURN}/{made['response_id']}", "/runs/run_none")
    for path in paths:
        reply = running.get(path, key=STRANGER)
        assert (reply.status, reply.error["code"]) == (404, "not_found")
    assert running.post(f"/runs/{made['id']}/cancel", key=STRANGER).status == 404
    assert made["id"] not in {run["id"] for run in _listed(running, STRANGER)}
    assert made["id"] in {run["id"] for run in _listed(running, running.admin_key)}
    ended(running, made["id"])
    with running.connect() as connection:
        connection.send("DELETE", f"/runs/{made['id']}", None, running.headers())
        assert connection.reply().json == {"id": made["id"], "object": "run", "deleted": True}
    assert running.get(f"/runs/{made['id']}").status == 404


def test_runs_are_listed_in_pages(running: Gateway) -> None:
    made = [begin(running, model="gemini-x")["id"] for _ in range(3)]
    for identity in made:
        ended(running, identity)
    page: Any = running.get("/runs?limit=2&model=gemini-x&status=completed").json
    assert ([run["id"] for run in page["data"]], page["has_more"]) == ([made[2], made[1]], True)
    assert "response" not in page["data"][0]
    rest: Any = running.get(f"/runs?model=gemini-x&after={page['last_id']}").json
    assert rest["data"][0]["id"] == made[0]
    upwards: Any = running.get(f"/runs?order=asc&after={made[0]}").json
    assert [run["id"] for run in upwards["data"]][:2] == made[1:]
    for query in ("limit=0", "order=up", "status=odd", "after=run_none"):
        assert running.get(f"/runs?{query}").status == 400
    assert running.get(f"/runs/{made[0]}/events?starting_after=x").status == 400


def _listed(gateway: Gateway, key: str = "") -> list[Tree]:
    page: Any = gateway.get("/runs?limit=100", key=key or gateway.key).json
    found: list[Tree] = page["data"]
    return found
