"""What is known of services by name: where they are, in which forms they may be asked, and what they do their own way.

Data alone. A preset is meant where ``preset`` names it, else by the upstream's own name, else by the host of its address.
"""

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from agw_proxy.config.values import Form

if TYPE_CHECKING:
    from agw_proxy.config.settings import Upstream


class Quirks(msgspec.Struct, frozen=True):
    """What differs from the published API in requests that are written for it (those that are relayed stay as they came)."""

    max_tokens: str = "max_tokens"
    """What Chat's bound of the answer is called there."""
    omits: tuple[str, ...] = ()
    """Members that it refuses; they are left out and told as dropped."""
    asks_usage: bool = True
    """It knows ``stream_options``."""
    reasoning: str | None = None
    """The member of Chat in which it wants its thoughts of earlier turns back."""
    schemas: bool = True
    """It can be held to a JSON Schema in Chat; else it is told one in words."""
    id_letters: int | None = None
    """Ids of calls are so many letters and digits in Chat, neither more nor less."""


OPENAIS = ("prompt_cache_options", "prompt_cache_retention", "safety_identifier", "moderation", "web_search_options")
"""Members of Chat that only OpenAI's own API has: a server that refuses what it does not know refuses them."""


class Preset(msgspec.Struct, frozen=True):
    """``speaks``: the forms in which it may be asked, the one to translate into first."""

    name: str
    base_url: str
    speaks: tuple[Form, ...] = ("chat",)
    quirks: Quirks = Quirks()
    dialect: str = "openai"


PRESETS = (
    Preset(
        "openai", "https://api.openai.com/v1", ("chat", "responses", "completions"),
        Quirks(max_tokens="max_completion_tokens"),
    ),
    Preset("anthropic", "https://api.anthropic.com", ("messages",), dialect="anthropic"),
    Preset("gemini", "https://generativelanguage.googleapis.com/v1beta", ("gemini",), dialect="gemini"),
    Preset(
        "google",  # Google's Chat: what it does not know it refuses
        "https://generativelanguage.googleapis.com/v1beta/openai",
        quirks=Quirks(
            omits=("seed", "logit_bias", "logprobs", "top_logprobs", "metadata", "store", "verbosity", "user",
                   "presence_penalty", "frequency_penalty", "prompt_cache_key", "prediction", *OPENAIS),
        ),
    ),
    Preset("openrouter", "https://openrouter.ai/api/v1", ("chat", "responses", "messages", "completions")),
    Preset(
        "groq", "https://api.groq.com/openai/v1", ("chat", "responses"),
        Quirks(
            max_tokens="max_completion_tokens",
            omits=("logit_bias", "logprobs", "top_logprobs", "metadata", "store", "prompt_cache_key", "prediction", *OPENAIS),
        ),
    ),
    Preset(
        "mistral", "https://api.mistral.ai/v1",
        quirks=Quirks(
            omits=("logit_bias", "logprobs", "top_logprobs", "metadata", "store", "verbosity", "user", "service_tier",
                   "reasoning_effort", "stream_options", "seed", *OPENAIS),
            asks_usage=False,
            id_letters=9,
        ),
    ),
    Preset(
        "deepseek", "https://api.deepseek.com/v1",  # its Messages are beneath another address: /anthropic
        quirks=Quirks(
            omits=("metadata", "store", "verbosity", "service_tier", "seed", "parallel_tool_calls"),
            reasoning="reasoning_content",
            schemas=False,
        ),
    ),
    Preset(
        "xai", "https://api.x.ai/v1", ("chat", "responses", "completions"),
        Quirks(omits=("metadata", "store", "logit_bias")),
    ),
    Preset(
        "together", "https://api.together.xyz/v1", ("chat", "completions"),
        Quirks(omits=("metadata", "store", "verbosity", "service_tier")),
    ),
    Preset("ollama", "http://127.0.0.1:11434/v1", ("chat", "responses", "messages", "completions")),
    Preset("lmstudio", "http://127.0.0.1:1234/v1", ("chat", "responses", "messages", "completions")),
    Preset("vllm", "http://127.0.0.1:8000/v1", ("chat", "responses", "messages", "completions")),
    Preset("llamacpp", "http://127.0.0.1:8080/v1", ("chat", "responses", "messages", "completions")),
)  # fmt: skip
BY_NAME = {preset.name: preset for preset in PRESETS}
_BY_HOST = {
    urlsplit(preset.base_url).hostname: preset for preset in reversed(PRESETS) if preset.base_url.startswith("https")
}
NAMES = tuple(BY_NAME)
DIALECTS: dict[str, tuple[Form, ...]] = {
    "openai": ("chat", "completions"),  # who has no older completions says so better than a guess of ours
    "anthropic": ("messages",),
    "gemini": ("gemini",),
    "azure": ("chat", "responses", "completions"),
    "bedrock": ("messages",),
    "vertex": ("gemini",),
}
Family = Literal["openai", "anthropic", "gemini"]
AZURE = Quirks(max_tokens="max_completion_tokens")


def preset_of(upstream: "Upstream") -> Preset | None:
    """The preset that is meant for an upstream, of its dialect; None: nothing is known of it."""
    found = BY_NAME.get(upstream.preset or "") or BY_NAME.get(upstream.name)
    found = found or _BY_HOST.get(urlsplit(upstream.base_url).hostname)
    return found if found is not None and found.dialect == upstream.dialect else None


def speaks_of(upstream: "Upstream") -> tuple[Form, ...]:
    """The forms in which it may be asked, the one to translate into first."""
    if upstream.speaks:
        return upstream.speaks
    preset = preset_of(upstream)
    return preset.speaks if preset is not None else DIALECTS[upstream.dialect]


def family_of(upstream: "Upstream") -> Family:
    """Whose errors it speaks, and whose paths: of a cloud's upstream those that its form has at home."""
    if upstream.dialect in {"bedrock", "vertex"}:
        return "gemini" if speaks_of(upstream)[0] == "gemini" else "anthropic"
    return "anthropic" if upstream.dialect == "anthropic" else "gemini" if upstream.dialect == "gemini" else "openai"


def quirks_of(upstream: "Upstream") -> Quirks:
    """What it does its own way."""
    preset = preset_of(upstream)
    if preset is None:
        return AZURE if upstream.dialect == "azure" else Quirks()
    return preset.quirks
