"""Upstreams out of well-known environment names."""

import pytest

from agw_proxy.config import wellknown
from agw_proxy.config.settings import Settings


def addresses(**environ: str) -> dict[str, str]:
    return {item["name"]: item["base_url"] for item in wellknown.upstreams(environ)}


def test_every_well_known_name_gives_a_valid_upstream() -> None:
    environ = {name: "sk-1" for service in wellknown.SERVICES for name in service.keys}
    environ["OLLAMA_HOST"] = "127.0.0.1"
    environ["LM_STUDIO_BASE_URL"] = "http://127.0.0.1:1234"
    found = wellknown.upstreams(environ)
    assert [item["name"] for item in found] == [service.name for service in wellknown.SERVICES]
    assert len(Settings.model_validate({"upstreams": found}).upstreams) == len(wellknown.SERVICES)


def test_nothing_set_gives_nothing_and_empty_is_not_set() -> None:
    assert wellknown.upstreams({}) == []
    assert wellknown.upstreams({"OPENAI_API_KEY": "", "OLLAMA_HOST": " "}) == []


@pytest.mark.parametrize("name", ["GOOGLE_API_KEY", "GEMINI_API_KEY"])
def test_google_by_either_name(name: str) -> None:
    assert addresses(**{name: "k"}) == {"google": "https://generativelanguage.googleapis.com/v1beta/openai"}


def test_anthropic_is_asked_in_its_own_dialect() -> None:
    found = wellknown.upstreams({"ANTHROPIC_API_KEY": "k"})
    assert found == [
        {
            "name": "anthropic",
            "base_url": "https://api.anthropic.com",
            "models": ["claude-*"],
            "dialect": "anthropic",
            "api_key": "k",
        }
    ]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("gpu:9", "http://gpu:9/v1"),
        (":9", "http://127.0.0.1:9/v1"),
        ("[::1]:9", "http://[::1]:9/v1"),
        ("http://gpu", "http://gpu:11434/v1"),
        ("https://gpu/", "https://gpu:443/v1"),
        ("http://gpu:9/api", "http://gpu:9/api"),
    ],
)
def test_ollamas_ways_to_write_its_address(text: str, url: str) -> None:
    assert addresses(OLLAMA_HOST=text) == {"ollama": url}


@pytest.mark.parametrize("text", ["http://u:canary@x", "http://x:99999", "a b", "ftp://x"])
def test_an_address_that_cannot_be_called_is_a_note_without_the_address(text: str) -> None:
    notes: list[str] = []
    assert wellknown.upstreams({"OLLAMA_HOST": text}, notes=notes) == []
    assert notes == ["OLLAMA_HOST is not used: it is not a URL that the gateway can call"]


def test_openai_base_url_is_respected() -> None:
    assert addresses(OPENAI_API_KEY="k", OPENAI_BASE_URL="https://eu.example.com/v1/") == {
        "openai": "https://eu.example.com/v1"
    }


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/v1", "http://localhost:8080/v1", "http://[::1]:8080", "http://0.0.0.0:8080/v1"]
)
def test_openai_base_url_is_not_used_where_it_is_the_gateway_itself(url: str) -> None:
    notes: list[str] = []
    environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url}
    assert wellknown.upstreams(environ, notes=notes)[0]["base_url"] == "https://api.openai.com/v1"
    assert notes == ["OPENAI_BASE_URL is not used: it points at this gateway itself"]
    assert wellknown.upstreams(environ, port=9)[0]["base_url"] == url


def test_a_gateway_key_goes_to_no_provider() -> None:
    notes: list[str] = []
    assert wellknown.upstreams({"OPENAI_API_KEY": "agw-xyz"}, notes=notes) == []
    assert "OPENAI_API_KEY is not used" in notes[0]
    assert "xyz" not in notes[0]


def test_a_preset_is_for_well_known_names_only() -> None:
    assert wellknown.preset("groq")["base_url"] == "https://api.groq.com/openai/v1"
    assert wellknown.preset("mine") == {}
