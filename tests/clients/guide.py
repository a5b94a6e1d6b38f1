"""Reads the settings out of the guides, so that what they say is what is tried: code blocks and exported variables."""

import re

from tests.support.gateway import PACKAGE_ROOT, Gateway

GUIDES = PACKAGE_ROOT / "docs" / "guides"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXPORT = re.compile(r"^\$ export (\w+)=(\S+)", re.MULTILINE)
MODELS = re.compile(r"claude-sonnet|gpt-5(-mini)?|gemini-2\.5-pro")


def settings(client: str, language: str, gateway: Gateway, model: str) -> str:
    """The first block in that language, for this gateway and model."""
    return blocks(client, language, gateway, model)[0]


def blocks(client: str, language: str, gateway: Gateway, model: str) -> list[str]:
    """All of them."""
    found = [text for kind, text in BLOCK.findall(_page(client)) if kind == language]
    assert found, f"the guide of {client} has no {language}"
    return [_told(text, gateway, model) for text in found]


def exports(client: str, gateway: Gateway, model: str) -> dict[str, str]:
    """The variables that it has its reader export."""
    return {name: _told(value, gateway, model) for name, value in EXPORT.findall(_page(client))}


def _page(client: str) -> str:
    return (GUIDES / f"{client}.md").read_text()


def _told(text: str, gateway: Gateway, model: str) -> str:
    text = text.replace("http://127.0.0.1:8080", gateway.url).replace("$AGW_KEY", gateway.key)
    return MODELS.sub(model, text.replace("agw-...", gateway.key))
