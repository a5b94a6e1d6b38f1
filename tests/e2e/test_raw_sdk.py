"""Files, batches, images and audio by the official SDKs, as docs/raw.md shows them."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import orjson
import pytest

from tests.e2e.conftest import NARROW_KEY
from tests.support.behaviours import answer
from tests.support.gateway import UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.upstream import Exchange, Upstream

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "raw.md"
CONTENT = bytes(range(256)) * 1000
FILE = {
    "id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "a", "purpose": "batch", "status": "processed",
}  # fmt: skip
BATCH = {
    "id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-1",
    "completion_window": "24h", "status": "validating", "created_at": 1,
}  # fmt: skip
ANSWERS: dict[tuple[str, str], object] = {
    ("POST", "/files"): FILE,
    ("GET", "/files"): {"object": "list", "data": [FILE], "has_more": False},
    ("GET", "/files/file-1/content"): CONTENT,
    ("POST", "/batches"): BATCH,
    ("POST", "/images/edits"): {"created": 1, "data": [{"b64_json": "eA=="}]},
    ("POST", "/audio/transcriptions"): {"text": "Hello."},
    ("POST", "/audio/speech"): CONTENT,
    ("GET", "/messages/batches"): {"data": [], "has_more": False, "first_id": None, "last_id": None},
    ("GET", "/cachedContents"): {"cachedContents": []},
}


async def behave(exchange: Exchange) -> None:
    """The provider's own, by method and path."""
    request = exchange.request
    found = ANSWERS.get((request.method, request.path.removeprefix("/v1beta").removeprefix("/v1")))
    body = found if isinstance(found, bytes) else orjson.dumps(found or {"error": {"message": "not here"}})
    kind = "application/octet-stream" if isinstance(found, bytes) else "application/json"
    status = "404 Not Found" if found is None else "200 OK"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    await exchange.send(head.encode() + body)


@pytest.fixture(scope="module")
def far() -> Iterator[Upstream]:
    with Upstream(behave) as running:
        yield running


@pytest.fixture(scope="module")
def near(far: Upstream) -> Iterator[Gateway]:
    models = ["gpt-*", "whisper-*"]
    claude = provider(far.url, "claude", dialect="anthropic", base_url=far.url, models=["claude-*"])
    google = provider(far.url, "gemini", dialect="gemini", base_url=f"{far.url}/v1beta", models=["gemini-*"])
    config = configuration(
        provider(far.url, "openai", models=models), provider(far.url, "mistral", models=[]), claude, google
    )
    config["upstreams"].append(
        provider("http://models.example", "elsewhere", models=["else-*"])
    )  # what is near is free
    config["keys"].append(
        {
            "name": "frugal", "key": "agw-bench-frugal-4f1c9a7d20e84b6c", "models": ["*"],
            "budgets": [{"usd": 1, "period": "day", "unpriced": "refuse"}],
        }
    )  # fmt: skip
    with Gateway(config) as running:
        yield running


@pytest.fixture
def client(near: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{near.url}/v1", api_key=near.key, max_retries=0) as made:
        yield made


def test_files_and_batches(client: openai.OpenAI, far: Upstream) -> None:
    file = client.files.create(purpose="batch", file=("a.jsonl", io.BytesIO(CONTENT)))
    assert file.id == "file-1"
    assert CONTENT in far.last.body
    assert far.last.value("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert [item.id for item in client.files.list()] == ["file-1"]
    assert client.files.content("file-1").read() == CONTENT
    batch = client.batches.create(input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h")
    assert batch.id == "batch_1"


def test_images_and_audio(client: openai.OpenAI, far: Upstream) -> None:
    edited = client.images.edit(model="gpt-image-1", image=("a.png", io.BytesIO(CONTENT)), prompt="a red sofa")
    assert edited.data is not None
    assert edited.data[0].b64_json == "eA=="
    assert CONTENT in far.last.body
    heard = client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", io.BytesIO(CONTENT)))
    assert heard.text == "Hello."
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello"
    ) as spoken:
        assert b"".join(spoken.iter_bytes()) == CONTENT


def test_a_named_upstream_by_its_own_sdk(near: Gateway, far: Upstream) -> None:
    with openai.OpenAI(base_url=f"{near.url}/passthrough/mistral", api_key=near.key, max_retries=0) as other:
        assert [item.id for item in other.files.list()] == ["file-1"]
    with anthropic.Anthropic(base_url=f"{near.url}/passthrough/claude", api_key=near.key, max_retries=0) as claude:
        assert list(claude.messages.batches.list()) == []
        assert far.last.value("x-api-key") == UPSTREAM_KEY
        with pytest.raises(anthropic.NotFoundError, match="not here"):
            claude.messages.batches.retrieve("msgbatch_1")
    reply = near.get("/passthrough/gemini/cachedContents?pageSize=5", key=None, headers={"x-goog-api-key": near.key})
    assert reply.json == {"cachedContents": []}
    assert far.last.target == "/v1beta/cachedContents?pageSize=5"


def test_what_has_no_price_is_refused_where_the_budget_says_so(near: Gateway, far: Upstream) -> None:
    far.reset()
    reply = near.get("/passthrough/elsewhere/files", key="agw-bench-frugal-4f1c9a7d20e84b6c")
    assert (reply.status, reply.value("x-agw-error")) == (403, "policy_unpriced")
    assert far.requests == []


def test_the_page_shows_what_was_tried() -> None:
    text = PAGE.read_text()
    shown = set(re.findall(r"\$AGW(/[a-z0-9/_-]+)", text.replace("file-2", "file-1")))
    paths = {path.removeprefix("/v1") for path in shown if path.startswith("/v1/")}
    assert paths <= {path for _, path in ANSWERS}


def test_a_conversation_is_made_shorter_where_its_model_is() -> None:
    made = {"id": "resp_c", "object": "response.compaction", "created_at": 1, "output": [], "usage": {}}
    with Upstream() as first, Upstream(answer(made)) as second:
        config = configuration(provider(first.url), provider(second.url, "second", models=["gpt-5"]))
        config["keys"].append({"name": "narrow", "key": NARROW_KEY, "models": ["gpt-5"]})
        with (
            Gateway(config) as gateway,
            openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=NARROW_KEY, max_retries=0) as client,
        ):
            assert client.responses.compact(model="gpt-5", input="Hello").id == "resp_c"
            with pytest.raises(openai.PermissionDeniedError):
                client.responses.compact(model="gpt-4o", input="Hello")
        assert (len(first.requests), second.last.path) == (0, "/v1/responses/compact")
