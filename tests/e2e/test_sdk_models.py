"""The list of models by the official SDKs, who go from page to page by themselves."""

from collections.abc import Iterator

import anthropic
import openai
import orjson
import pytest

from tests.support.gateway import Gateway, configuration, provider
from tests.support.upstream import Upstream

MODELS = ["m-1", "m-2", "m-3", "m-4", "m-5"]


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(provider(shared_upstream.url, models=MODELS))) as running:
        yield running


@pytest.fixture
def claude(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as made:
        yield made


def every(gateway: Gateway) -> list[str]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as client:
        return [model.id for model in client.models.list()]


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 1000])
def test_anthropics_sdk_pages_through_all_of_them(gateway: Gateway, claude: anthropic.Anthropic, limit: int) -> None:
    models = every(gateway)
    assert set(models) >= set(MODELS)
    page = claude.models.list(limit=limit)
    assert [model.id for model in page.data] == models[:limit]
    assert page.has_more is (limit < len(models))
    assert [model.id for model in page] == models
    assert [model.id for model in claude.beta.models.list(limit=limit)] == models
    assert [model.id for model in claude.models.list()] == models


def test_it_can_go_backwards(gateway: Gateway, claude: anthropic.Anthropic) -> None:
    models = every(gateway)
    page = claude.models.list(limit=2, before_id=models[3])
    assert ([model.id for model in page.data], page.has_more) == (models[1:3], True)
    assert [model.id for model in claude.models.list(limit=2, before_id=models[3])] == [*models[1:3], models[0]]
    assert claude.models.list(before_id=models[0]).data == []
    with pytest.raises(anthropic.BadRequestError, match="after_id"):
        claude.models.list(after_id="no-such")


@pytest.mark.parametrize("size", [1, 4, 50])
def test_googles_pages(gateway: Gateway, size: int) -> None:
    headers = {"x-goog-api-key": gateway.key}
    found: list[str] = []
    token = ""
    while True:
        path = f"/v1beta/models?pageSize={size}" + (f"&pageToken={token}" if token else "")
        reply = gateway.get(path, key=None, headers=headers)
        assert reply.status == 200, reply.body
        page = orjson.loads(reply.body)
        assert len(page["models"]) <= size
        found += [model["name"] for model in page["models"]]
        token = page.get("nextPageToken", "").replace("/", "%2F")
        if not token:
            break
    assert found == [f"models/{name}" for name in every(gateway)]


@pytest.mark.parametrize("query", ["pageSize=x", "pageSize=-1", "pageToken=no-such"])
def test_no_such_page_of_googles(gateway: Gateway, query: str) -> None:
    reply = gateway.get(f"/v1beta/models?{query}", key=None, headers={"x-goog-api-key": gateway.key})
    assert (reply.status, orjson.loads(reply.body)["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("limit", ["0", "x", "-1"])
def test_no_such_page_of_anthropics(gateway: Gateway, limit: str) -> None:
    reply = gateway.get(f"/v1/models?limit={limit}", headers={"anthropic-version": "2023-06-01"})
    assert (reply.status, orjson.loads(reply.body)["error"]["type"]) == (400, "invalid_request_error")
    assert gateway.get(f"/v1/models?limit={limit}").status == 200
