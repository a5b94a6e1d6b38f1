"""Exchanges that were recorded with a provider come again without it, through the official SDKs; and no secret is kept."""

import contextlib
import hashlib
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from agw_proxy import tape
from tests.e2e.test_translation import CLIENTS, UPSTREAMS, Seen, upstreams
from tests.support.behaviours import DONE, answer, event, stream
from tests.support.client import PATIENCE_SECONDS
from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.providers import SCENES, plays
from tests.support.upstream import Upstream

Tree = dict[str, Any]

HASHED_KEY = "agw-hashed-5c0e7a1b93d24f68"
HEADER_SECRET = "team-secret-3a5b7c9d1e2f4a6b"
CASES = [(client, spoken, streamed) for client in CLIENTS for spoken in UPSTREAMS for streamed in (False, True)]
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "How is the weather in Oslo?"}]}]}
VERBS = ("generateContent", "streamGenerateContent?alt=sse")


def recordings(folder: Path) -> list[tape.Tape]:
    """All that is recorded, in order of time; each file is whole."""
    return [tape.read(file.read_bytes()) for file in sorted(folder.glob("*.json"))]


def recorded(gateway: Gateway, folder: Path, count: int) -> list[tape.Tape]:
    """The recordings of generations, once there are so many."""

    def found() -> list[tape.Tape]:
        made = [made for made in recordings(folder) if made.request.method == "POST"]
        return made if len(made) >= count else []

    return gateway.until(found, f"fewer than {count} recordings")


def replaying(entries: list[Tree], folder: Path, speed: float = 0) -> Tree:
    """The same upstreams, but for their addresses and keys: their recordings."""
    kept = [{name: value for name, value in entry.items() if name not in {"base_url", "api_key"}} for entry in entries]
    return configuration(*({**entry, "replay": str(folder), "replay_speed": speed} for entry in kept))


def ask(gateway: Gateway, case: tuple[str, str, bool]) -> Seen:
    client, spoken, streamed = case
    return CLIENTS[client](gateway, f"{spoken}-1", stream=streamed, tools=True)


@pytest.fixture(scope="module")
def tapes(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, Any]]:
    """A folder with every case recorded once, and what the clients saw then."""
    folder = tmp_path_factory.mktemp("recorded") / "tapes"
    shared_upstream.reset()
    shared_upstream.default = plays(SCENES["tools"])
    seen: dict[Any, Any] = {}
    with Gateway(configuration(*upstreams(shared_upstream.url)), args=["--record", str(folder)]) as gateway:
        for case in CASES:
            seen[case] = ask(gateway, case)
        for spoken in UPSTREAMS:
            for verb in VERBS:
                reply = gateway.post(f"/v1beta/models/{spoken}-1:{verb}", GEMINI)
                assert reply.status == 200
                seen[spoken, verb] = reply.body
        recorded(gateway, folder, len(seen))
    shared_upstream.reset()
    return folder, seen


@pytest.fixture(scope="module")
def replay(shared_upstream: Upstream, tapes: tuple[Path, dict[Any, Any]]) -> Iterator[Gateway]:
    with Gateway(replaying(upstreams(shared_upstream.url), tapes[0])) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{'streamed' if case[2] else 'plain'}")
def test_the_sdks_see_again_what_they_have_seen(
    shared_upstream: Upstream, tapes: tuple[Path, dict[Any, Any]], replay: Gateway, case: tuple[str, str, bool]
) -> None:
    shared_upstream.reset()
    assert ask(replay, case) == tapes[1][case]
    assert shared_upstream.requests == []
    scene = SCENES["tools"]
    assert tapes[1][case].calls == list(scene.calls)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_so_do_googles_clients(
    shared_upstream: Upstream, tapes: tuple[Path, dict[Any, Any]], replay: Gateway, spoken: str, verb: str
) -> None:
    shared_upstream.reset()
    reply = replay.post(f"/v1beta/models/{spoken}-1:{verb}", GEMINI)
    assert reply.status == 200
    assert without_ids(reply.body) == without_ids(tapes[1][spoken, verb])
    assert shared_upstream.requests == []


def without_ids(body: bytes) -> list[bytes]:
    """Lines of an answer in Google's form, without what the gateway makes anew each time."""
    trees = [orjson.loads(line.removeprefix(b"data: ")) for line in body.splitlines() if line.strip(b"\r\n")]
    return [orjson.dumps({name: value for name, value in tree.items() if name != "responseId"}) for tree in trees]


def test_a_file_tells_what_went_over_the_wire(tapes: tuple[Path, dict[Any, Any]]) -> None:
    folder, seen = tapes
    made = [made for made in recordings(folder) if made.request.method == "POST"]
    assert len(made) == len(seen)
    assert {one.dialect for one in made} == {"openai", "anthropic", "gemini"}
    assert {one.upstream for one in made} == set(UPSTREAMS)
    for one in made:
        assert (one.target, one.model) == (f"{one.upstream}/{one.upstream}-1", f"{one.upstream}-1")
        assert (one.request.end, one.answer.end, one.answer.status) == ("whole", "whole", 200)
        assert orjson.loads(one.request.body.data)
        times = [piece.ms for piece in one.answer.pieces]
        assert times == sorted(times)
        names = {name.lower() for name, _ in (*one.request.headers, *one.answer.headers)}
        assert "x-request-id" in names
        assert not names & {"authorization", "x-api-key", "x-goog-api-key", "cookie", "set-cookie"}
    paths = {one.upstream: one.request.path for one in made if "stream" not in one.request.path}
    assert paths["messages"] == "/messages"
    assert paths["gemini"] == "/models/gemini-1:generateContent"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_recording_takes_the_full_lane_and_says_why(shared_upstream: Upstream, tmp_path: Path) -> None:
    shared_upstream.reset()
    config = configuration(provider(shared_upstream.url))
    with Gateway(config, args=["--record", str(tmp_path / "tapes")]) as gateway:
        line = gateway.receipt(gateway.chat().request_id)
        assert (line["lane"], line["lane_reason"]) == ("full", "recording")
        told: Any = gateway.post("/explain", {"model": "gpt-4o-mini", "messages": []}, key=ADMIN_KEY).json
        assert told["lane"]["reason"] == "recording"


def test_no_secret_is_in_any_file(shared_upstream: Upstream, tmp_path: Path) -> None:
    """Not of the gateway and not of an upstream: not in headers, queries and bodies, escaped, or cut in two."""
    shared_upstream.reset()
    folder = tmp_path / "tapes"
    secrets = [UPSTREAM_KEY, APP_KEY, ADMIN_KEY, HASHED_KEY, HEADER_SECRET]
    config = configuration(provider(shared_upstream.url, headers={"x-team": f"Token {HEADER_SECRET}"}))
    config["keys"].append({"name": "hashed", "key_sha256": hashlib.sha256(HASHED_KEY.encode()).hexdigest()})
    words = " ".join(secrets)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in UPSTREAM_KEY)
    body = f'{{"model":"gpt-4o","stream":true,"messages":[{{"role":"user","content":"{words} {escaped}"}}]}}'.encode()
    chunk = event(
        {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": words}}]}
    )
    half = chunk.index(ADMIN_KEY.encode()) + 7
    told = [("set-cookie", f"session={APP_KEY}"), ("x-echo", words), ("x-api-key", "any-other-credential")]
    shared_upstream.script(stream([chunk[:half], chunk[half:], DONE], pace_ms=20, headers=told), answer({"a": words}))
    with Gateway(config, args=["--record", str(folder)]) as gateway:
        more = {
            "Content-Type": "application/json",
            "Cookie": f"a={APP_KEY}",
            "x-note": HASHED_KEY,
            "api-key": "other-key-of-mine",
        }
        first = gateway.post("/v1/chat/completions", body, headers=more)
        assert words.encode() in first.body  # the client got what the upstream said
        gateway.post(
            f"/v1/embeddings?key=query-credential&q={ADMIN_KEY}", {"model": "text-embedding-3", "input": words}
        )
        streamed, plain = recorded(gateway, folder, 2)
        assert shared_upstream.requests[-2].body != streamed.request.body.data
    for file in folder.iterdir():
        data = file.read_bytes()
        for secret in [*secrets, "any-other-credential", "other-key-of-mine", "query-credential", escaped]:
            assert secret.encode() not in data, (file, secret)
        assert orjson.loads(data)
        decoded = orjson.dumps(orjson.loads(orjson.loads(data)["request"]["body"]["text"] or "{}"))
        assert not any(secret.encode() in decoded for secret in secrets)
    taken = b"".join(piece.data for piece in streamed.answer.pieces)
    assert len(taken) == len(chunk + DONE)
    assert ADMIN_KEY[:7].encode() not in taken
    assert ("x-team", "***") in streamed.request.headers
    assert plain.request.query == "key=***"  # what held a key of the gateway has not gone out at all


def test_a_broken_stream_breaks_again_and_an_error_is_the_same_error(shared_upstream: Upstream, tmp_path: Path) -> None:
    shared_upstream.reset()
    folder = tmp_path / "tapes"
    entries = [provider(shared_upstream.url, retries={"attempts": 1})]
    part = event(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": "Hel"}}],
        }
    )
    refusal = {"error": {"message": "no such voice", "type": "invalid_request_error", "param": None, "code": "bad"}}
    with Gateway(configuration(*entries), args=["--record", str(folder)]) as gateway:
        shared_upstream.script(stream([part], ending="fin"), answer(refusal, status=400))
        first = [told(gateway, stream=True), told(gateway, stream=False)]
        ends = [made.answer.end for made in recorded(gateway, folder, 2)]
    assert ends == ["broken", "whole"]
    shared_upstream.reset()
    with Gateway(replaying(entries, folder)) as gateway:
        assert [told(gateway, stream=True), told(gateway, stream=False)] == first
        assert first[0][0] == "Hel"
        assert first[1][1] == "BadRequestError"
        assert "no such voice" in first[1][2]
    assert shared_upstream.requests == []


def told(gateway: Gateway, *, stream: bool) -> tuple[str, str, str]:
    """What the OpenAI SDK has got before its exception, the name of that, and for an error its words."""
    text = ""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=10) as client:
        asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        try:
            for chunk in client.chat.completions.create(**asked):
                text += chunk.choices[0].delta.content or ""
        except openai.APIError as error:
            return text, type(error).__name__, "" if stream else error.message
    return text, "", ""


def test_what_is_not_recorded_is_an_error_of_the_sdks_that_names_the_nearest(replay: Gateway) -> None:
    with (
        openai.OpenAI(base_url=f"{replay.url}/v1", api_key=replay.key, max_retries=0, timeout=10) as client,
        pytest.raises(openai.NotFoundError) as raised,
    ):
        client.chat.completions.create(model="chat-9", messages=[{"role": "user", "content": "never asked"}])
    assert "no recording of POST /chat/completions with the model 'chat-9'" in str(raised.value)
    assert "The nearest one is POST /chat/completions with the model 'chat-1'" in str(raised.value)
    assert "Oslo" not in str(raised.value)
    with pytest.raises(Exception, match="no recording") as other:
        CLIENTS["messages"](replay, "messages-9", stream=True, tools=False)
    assert type(other.value).__name__ == "NotFoundError"
    line = replay.receipt(str(raised.value.response.headers["x-request-id"]))
    assert (line["status"], line["lane_reason"]) == (404, "in_process")


def test_a_killed_gateway_leaves_whole_files_only(shared_upstream: Upstream, tmp_path: Path) -> None:
    shared_upstream.reset()
    folder = tmp_path / "tapes"
    entries = [provider(shared_upstream.url)]
    shared_upstream.default = answer({"object": "chat.completion", "choices": [], "padding": "x" * 3_000_000})
    config = configuration(*entries)
    with Gateway(config, args=["--record", str(folder)]) as gateway:
        stopped = threading.Event()

        def keep_asking(number: int) -> None:
            with contextlib.suppress(Exception):  # the gateway is killed meanwhile
                while not stopped.is_set():
                    gateway.chat(user=f"{number}")

        asking = [threading.Thread(target=keep_asking, args=(number,)) for number in range(3)]
        for thread in asking:
            thread.start()
        recorded(gateway, folder, 5)
        gateway.stop(signal.SIGKILL)
        stopped.set()
        for thread in asking:
            thread.join(PATIENCE_SECONDS)
    made = [made for made in recordings(folder) if made.request.method == "POST"]  # raises for half a file
    assert len(made) >= 5
    (folder / ".20260101T000000.000000Z-0.json.unfinished").write_bytes(b'{"agw_recording":1,"at":')
    (folder / "00000000-damaged.json").write_bytes(b'{"agw_recording":1,"at":')
    shared_upstream.reset()
    with Gateway(replaying(entries, folder)) as gateway:
        number = orjson.loads(made[0].request.body.data)["user"]
        reply = gateway.chat(user=number)
        assert reply.status == 200
        assert len(reply.body) > 3_000_000
    assert shared_upstream.requests == []


def test_workers_record_into_one_folder(shared_upstream: Upstream, tmp_path: Path) -> None:
    shared_upstream.reset()
    folder = tmp_path / "tapes"
    with Gateway(
        configuration(provider(shared_upstream.url)), args=["--record", str(folder), "--workers", "2"]
    ) as gateway:
        replies = [gateway.chat(user=f"{number}") for number in range(8)]
        assert {reply.status for reply in replies} == {200}
        made = recorded(gateway, folder, 8)
    assert {orjson.loads(one.request.body.data)["user"] for one in made} == {f"{number}" for number in range(8)}


def test_an_open_folder_is_refused(shared_upstream: Upstream, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    gateway = Gateway(configuration(provider(shared_upstream.url)), args=["--record", str(folder)])
    gateway.launch()
    assert gateway.wait() == 1
    assert "chmod 700" in gateway.output
    gateway.__exit__()


def test_a_replay_is_as_slow_as_it_is_asked_to_be(shared_upstream: Upstream, tmp_path: Path) -> None:
    """A slower one takes at least the recorded time (how much exactly is told by the tests of the upstream)."""
    shared_upstream.reset()
    folder = tmp_path / "tapes"
    entries = [provider(shared_upstream.url)]
    chunks = [
        event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]})
        for text in "abc"
    ]
    shared_upstream.script(stream([*chunks, DONE], pace_ms=60))
    with Gateway(configuration(*entries), args=["--record", str(folder)]) as gateway:
        first = gateway.chat(stream=True)
        (made,) = recorded(gateway, folder, 1)
    shared_upstream.reset()
    with Gateway(replaying(entries, folder, 0)) as gateway:
        again = gateway.chat(stream=True)
    assert again.body == first.body
    with Gateway(replaying(entries, folder, 0.5)) as gateway:
        slow = gateway.receipt(gateway.chat(stream=True).request_id)["duration_ms"]
    assert slow >= made.answer.pieces[-1].ms
