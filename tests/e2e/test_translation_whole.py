"""An upstream of another form that does not answer as it was asked: in one piece, in a stream, or with an error and a good status."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.e2e.test_translation import CLIENTS, UPSTREAMS, upstreams
from tests.e2e.test_translation_faults import FORMS_OF_CLIENTS, ask
from tests.support.behaviours import answer
from tests.support.gateway import Gateway, configuration
from tests.support.providers import FORMS, SCENES
from tests.support.upstream import Upstream

Tree = dict[str, Any]
CROSSES = [(client, spoken) for client in FORMS_OF_CLIENTS for spoken in UPSTREAMS if client != spoken]


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(*upstreams(shared_upstream.url), retries={"attempts": 1})) as running:
        yield running


@pytest.mark.parametrize(("client", "spoken"), [cross for cross in CROSSES if cross[0] in CLIENTS])
def test_an_answer_in_one_piece_is_a_stream_for_who_asked_for_one(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str
) -> None:
    told = SCENES["tools"]
    upstream.default = answer(orjson.dumps(FORMS[spoken][0](told)))
    identity = f"whole-{client}-{spoken}"
    seen = CLIENTS[client](gateway, f"{spoken}-1", stream=True, tools=True, identity=identity)
    assert (seen.text, seen.calls, seen.stop) == ("".join(told.text), list(told.calls), told.stop)
    assert seen.usage == (told.prompt, told.output, told.cached)
    line = gateway.receipt(identity)
    assert (line["outcome"], line["prompt_tokens"], line["completion_tokens"]) == ("ok", told.prompt, told.output)


@pytest.mark.parametrize(("client", "spoken"), CROSSES)
def test_a_stream_that_nobody_asked_for_is_no_answer(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str
) -> None:
    upstream.default = answer(FORMS[spoken][1](SCENES["text"]), content_type="text/event-stream")
    reply = ask(gateway, client, f"{spoken}-1")
    assert (reply.status, reply.value("content-type")) == (502, "application/json")
    assert gateway.receipt(reply.request_id)["outcome"] == "upstream_invalid"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("client", "spoken"), [("messages", "chat"), ("chat", "messages"), ("responses", "gemini")])
def test_an_error_with_a_good_status_gets_the_status_that_it_should_have_had(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str, stream: bool
) -> None:
    error: Tree = {"message": "too many of you", "type": "rate_limit_error", "code": 429}
    for told, status in ((error, 429), ({**error, "code": None}, 429), ({"message": "x", "type": "odd"}, 502)):
        upstream.default = answer({"type": "error", "error": told})
        reply = ask(gateway, client, f"{spoken}-1", streamed=stream)
        assert reply.status == status, reply.body
        assert status != 429 or "too many of you" in str(reply.error["message"])
