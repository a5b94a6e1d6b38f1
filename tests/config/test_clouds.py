"""Upstreams in clouds: their addresses, what they need, and what does not go together."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from agw_proxy.config.extras import check_extras
from agw_proxy.config.presets import family_of, speaks_of
from agw_proxy.config.settings import Settings, Upstream

DOCS = Path(__file__).resolve().parents[2] / "docs"


def upstream(**fields: Any) -> Upstream:
    return Upstream.model_validate({"name": "cloud", **fields})


@pytest.mark.parametrize(
    ("fields", "address", "family"),
    [
        (
            {"dialect": "bedrock", "aws": {"region": "us-east-1"}},
            "bedrock-runtime.us-east-1.amazonaws.com",
            "anthropic",
        ),
        (
            {"dialect": "bedrock", "aws": {"region": "cn-north-1"}},
            "bedrock-runtime.cn-north-1.amazonaws.com.cn",
            "anthropic",
        ),
        ({"dialect": "vertex", "google": {"project": "p"}}, "aiplatform.googleapis.com/v1", "gemini"),
        (
            {"dialect": "vertex", "google": {"project": "p", "location": "eu"}, "speaks": ["messages"]},
            "aiplatform.eu.rep.googleapis.com/v1",
            "anthropic",
        ),
        (
            {"dialect": "vertex", "google": {"project": "p", "location": "us-east5"}},
            "us-east5-aiplatform.googleapis.com/v1",
            "gemini",
        ),
    ],
)
def test_the_address_follows_from_the_place(fields: dict[str, Any], address: str, family: str) -> None:
    made = upstream(**fields)
    assert made.base_url == f"https://{address}"
    assert family_of(made) == family
    assert len(speaks_of(made)) == 1


def test_an_address_that_is_given_stands() -> None:
    made = upstream(dialect="bedrock", aws={"region": "us-east-1"}, base_url="https://vpce-1.example.com")
    assert made.base_url == "https://vpce-1.example.com"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dialect": "bedrock"}, "bedrock needs aws, e.g. aws: {region: us-east-1}"),
        ({"dialect": "vertex"}, "vertex needs google"),
        ({"dialect": "bedrock", "aws": {"region": "us east"}}, "e.g. us-east-1"),
        ({"dialect": "bedrock", "aws": {"region": "a/../b"}}, "e.g. us-east-1"),
        ({"dialect": "vertex", "google": {"project": "p/x"}}, "the id of a project"),
        ({"dialect": "vertex", "google": {"project": "p"}, "speaks": ["gemini", "messages"]}, "an upstream of its own"),
        ({"dialect": "vertex", "google": {"project": "p"}, "speaks": ["chat"]}, "one of gemini, messages"),
        ({"dialect": "bedrock", "aws": {"region": "us-east-1"}, "speaks": ["chat"]}, "speaks messages only"),
        ({"base_url": "http://h", "aws": {"region": "us-east-1"}}, "aws is for dialect: bedrock"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        upstream(**fields)


def test_a_recording_needs_no_cloud() -> None:
    made = upstream(dialect="bedrock", replay="/tapes")
    check_extras(Settings(upstreams=(made,)))
    assert made.base_url == "http://replay.invalid"


@pytest.mark.parametrize("page", ["bedrock.md", "vertex.md"])
def test_each_example_of_the_docs_is_valid(page: str) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert examples
    for example in examples:
        settings = Settings.model_validate(yaml.safe_load(example))
        assert {one.dialect for one in settings.upstreams} <= {page.removesuffix(".md"), "openai"}
