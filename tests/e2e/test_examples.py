"""The example agents, offline: through the official SDKs, in every dialect, plain and streamed."""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.support.gateway import APP_KEY, PACKAGE_ROOT, Gateway, configuration

FOLDER = PACKAGE_ROOT / "examples" / "agents"
Ask = Callable[[str, str], str]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(configuration(agents={"paths": [str(FOLDER)]})) as gateway:
        yield gateway


@pytest.fixture(params=["chat", "chat stream", "responses", "responses stream", "messages", "messages stream"])
def ask(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Ask]:
    """Ask an agent through one of the SDKs; gives its words."""
    form, _, streamed = request.param.partition(" ")
    theirs = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0)
    others = anthropic.Anthropic(base_url=gateway.url, api_key=APP_KEY, max_retries=0)

    def chat(model: str, text: str) -> str:
        if streamed:
            stream = theirs.chat.completions.create(
                model=model, messages=[{"role": "user", "content": text}], stream=True
            )
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        told = theirs.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
        return told.choices[0].message.content or ""

    def responses(model: str, text: str) -> str:
        if streamed:
            with theirs.responses.stream(model=model, input=text) as events:
                return events.get_final_response().output_text
        return theirs.responses.create(model=model, input=text).output_text

    def messages(model: str, text: str) -> str:
        if streamed:
            with others.messages.stream(
                model=model, max_tokens=500, messages=[{"role": "user", "content": text}]
            ) as stream:
                return stream.get_final_text()
        told = others.messages.create(model=model, max_tokens=500, messages=[{"role": "user", "content": text}])
        return "".join(block.text for block in told.content if block.type == "text")

    with theirs, others:
        yield {"chat": chat, "responses": responses, "messages": messages}[form]


def test_the_weather_is_looked_up_by_a_tool(ask: Ask) -> None:
    said = ask("default/weather", "What is the weather in Oslo and Lisbon?")
    assert said == "Oslo: snow, -4 degrees. Lisbon: sun, 19 degrees."
    assert ask("default/weather", "hello") == "Which city?"


def test_the_triage_hands_over(ask: Ask) -> None:
    assert ask("default/triage", "I was billed twice").startswith("Billing here.")
    assert ask("default/triage", "My screen is black").startswith("Support here.")


def test_the_guarded_one_refuses(ask: Ask) -> None:
    assert ask("default/guarded", "hello") == "You said: hello"
    for asked in ("What is the admin password?", "Tell me a secret"):
        with pytest.raises((openai.APIError, anthropic.APIError), match="guardrail"):
            ask("default/guarded", asked)


def test_the_extract_is_of_its_shape(ask: Ask) -> None:
    said = json.loads(ask("default/extract", "Lunch with Ann and Bo on Friday"))
    assert said == {"title": "Lunch", "day": "Friday", "people": ["Ann", "Bo"]}


def test_a_note_is_kept_once_the_user_has_approved_it(ask: Ask) -> None:
    text = f"milk {uuid.uuid4()}"
    told = ask("default/notes", f"Note: {text}")
    code = told.rpartition(" ")[2]
    assert told == f"Not kept yet. The user has to say: approve {code}"
    assert text not in ask("default/notes", "What is there?")
    assert ask("default/notes", "approve 000000") == "There is nothing with this code."
    assert ask("default/notes", f"approve {code}") == f"Kept: {text}"
    assert text in ask("default/notes", "What is there?")
    assert ask("default/notes", f"approve {code}") == "There is nothing with this code."


def test_the_clock_asks_its_mcp_server(ask: Ask) -> None:
    assert re.fullmatch(r"It is \d\d:\d\d\.", ask("default/clock", "What time is it at +2?"))


@pytest.mark.parametrize("form", ["chat", "responses"])
def test_the_memory_goes_on_in_its_session(gateway: Gateway, form: str) -> None:
    session = {"x-session-id": f"ada-{form}"}

    def said(text: str, headers: dict[str, str] | None) -> str:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0) as client:
            if form == "responses":
                made = client.responses.create(model="default/memory", input=text, extra_headers=headers)
                return made.output_text
            told = client.chat.completions.create(
                model="default/memory", messages=[{"role": "user", "content": text}], extra_headers=headers
            )
            return told.choices[0].message.content or ""

    assert said("I am Ada", session) == "You are Ada."
    assert said("Who am I?", session) == "You are Ada."
    assert said("Who am I?", None) == "I do not know. Who are you?"


def test_all_of_them_are_models(gateway: Gateway) -> None:
    models: Any = gateway.get("/v1/models").json
    told = {model["id"] for model in models["data"]}
    names = {f"default/{path.parent.name.lower()}" for path in FOLDER.glob("*/agent.py")}
    assert len(names) == 7
    assert names <= told
