"""What is known of services by name: what they are asked in has to be where their address says."""

from typing import Any

import pytest

from agw_proxy.config.presets import NAMES, PRESETS, preset_of, speaks_of
from agw_proxy.config.settings import Upstream


def upstream(**members: Any) -> Upstream:
    return Upstream.model_validate({"name": "one", "base_url": "https://api.example.com/v1", **members})


@pytest.mark.parametrize("name", ["deepseek", "xai"])
def test_messages_are_not_asked_for_where_the_address_has_none(name: str) -> None:
    """DeepSeek has them beneath another address (``/anthropic``), and xAI has taken them down."""
    preset = next(preset for preset in PRESETS if preset.name == name)
    assert "messages" not in speaks_of(upstream(base_url=preset.base_url))


def test_messages_of_deepseek_are_an_upstream_of_its_own() -> None:
    made = upstream(base_url="https://api.deepseek.com/anthropic", dialect="anthropic")
    assert preset_of(made) is None
    assert speaks_of(made) == ("messages",)


def test_a_preset_is_meant_by_name_before_the_host() -> None:
    assert len(set(NAMES)) == len(PRESETS)
    named = preset_of(upstream(name="groq", base_url="https://api.mistral.ai/v1"))
    hosted = preset_of(upstream(base_url="https://api.mistral.ai/v1"))
    assert (named.name if named else None, hosted.name if hosted else None) == ("groq", "mistral")
