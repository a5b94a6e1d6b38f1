"""What a request may ask for and what becomes of it in each target: carried, dropped (and told), or refused.

The one table: ``Losses`` decides by it, and docs/translation.md is made from it. What is not in it is a member that only
the caller's own dialect knows: dropped and told.
"""

from typing import Literal

import msgspec

from agw_proxy.dialects.base import Spoken

Fate = Literal["carried", "dropped", "refused"]


class Feature(msgspec.Struct, frozen=True):
    """``others``: targets in which it is not carried. ``why``: for people."""

    name: str
    why: str
    chat: Fate = "carried"
    responses: Fate = "carried"
    messages: Fate = "carried"
    gemini: Fate = "carried"

    def fate(self, target: Spoken) -> Fate:
        """In a target's dialect."""
        return {
            "chat": self.chat, "responses": self.responses, "messages": self.messages, "gemini": self.gemini,
        }[target]  # fmt: skip


FEATURES = (
    # What would change the answer's meaning, or what the caller relies on: refused.
    Feature(
        "n", "Several choices: one answer is translated.",
        chat="refused", responses="refused", messages="refused", gemini="refused",
    ),
    Feature(
        "suffix", "Completions: the text behind the gap.",
        chat="refused", responses="refused", messages="refused", gemini="refused",
    ),
    Feature(
        "echo", "Completions: the prompt in front of the answer.",
        chat="refused", responses="refused", messages="refused", gemini="refused",
    ),
    Feature(
        "previous_response_id", "An answer that only its upstream, or a store, knows.",
        chat="refused", messages="refused", gemini="refused",
    ),
    Feature(
        "conversation", "A conversation that only its upstream, or a store, knows.",
        chat="refused", messages="refused", gemini="refused",
    ),
    Feature("background", "An answer that is fetched later.", chat="refused", messages="refused", gemini="refused"),
    Feature("prompt", "A prompt kept at the provider.", chat="refused", messages="refused", gemini="refused"),
    Feature(
        "file_id", "A file that only its provider has.",
        chat="refused", responses="refused", messages="refused", gemini="refused",
    ),
    Feature("audio_input", "Sound in the prompt.", responses="refused", messages="refused"),
    Feature("audio_output", "A spoken answer.", responses="refused", messages="refused", gemini="refused"),
    Feature("file_url", "A document by its URL.", chat="refused"),
    Feature("file_input", "A document in the prompt."),
    Feature("container", "A container at the provider.", chat="refused", responses="refused", gemini="refused"),
    Feature("mcp_servers", "MCP servers that the provider asks.", chat="refused", responses="refused", gemini="refused"),
    Feature(
        "thread", "A conversation that Anthropic holds: its clients send all of it when they are told.",
        chat="refused", responses="refused", gemini="refused",
    ),
    Feature("cachedContent", "A prompt kept at the provider.", chat="refused", responses="refused", messages="refused"),
    # What tunes the answer: dropped, and told.
    Feature(
        "best_of", "Completions: the best of several tries.",
        chat="dropped", responses="dropped", messages="dropped", gemini="dropped",
    ),
    Feature("hosted_tools", "Tools that the provider runs itself.", chat="dropped", responses="dropped", messages="dropped", gemini="dropped"),
    Feature("temperature", "Above 1 it is sent as 1 to Anthropic.", messages="dropped"),
    Feature("top_k", "", chat="dropped", responses="dropped"),
    Feature("top_p", "Newer models of Anthropic's take none beside a temperature.", messages="dropped"),
    Feature("json_object", "Any JSON object, without a schema.", messages="dropped"),
    Feature("json_schema", "A schema that the target's structured output does not know.", messages="dropped"),
    Feature("system_media", "Pictures and files in a system message.", messages="dropped", gemini="dropped"),
    Feature("assistant_media", "Pictures and files in an answer of the history.", chat="dropped", messages="dropped"),
    Feature("file_name", "What a document is called.", gemini="dropped"),
    Feature("stop", "Stop sequences.", responses="dropped"),
    Feature("seed", "", responses="dropped", messages="dropped"),
    Feature("presence_penalty", "", responses="dropped", messages="dropped"),
    Feature("frequency_penalty", "", responses="dropped", messages="dropped"),
    Feature("logit_bias", "", responses="dropped", messages="dropped", gemini="dropped"),
    Feature("logprobs", "", messages="dropped"),
    Feature("parallel_tool_calls", "Whether several tools may be called at once.", gemini="dropped"),
    Feature("allowed_tools", "Only some of the tools may be called."),
    Feature("strict_tools", "Arguments must match their schema.", gemini="dropped"),
    Feature("verbosity", "", messages="dropped", gemini="dropped"),
    Feature("user", "Who asks, for the provider.", gemini="dropped"),
    Feature("metadata", "", messages="dropped", gemini="dropped"),
    Feature("service_tier", "", messages="dropped", gemini="dropped"),
    Feature("store", "Keeping the answer at the provider.", messages="dropped", gemini="dropped"),
    Feature("reasoning", "How much to think." ),
    Feature("reasoning_summary", "How thoughts are shown.", chat="dropped"),
    Feature(
        "foreign_reasoning", "Thoughts of another provider's model in the history: no other takes them.",
        chat="dropped", responses="dropped", messages="dropped", gemini="dropped",
    ),
    Feature("citations", "Of documents, in the history.", chat="dropped", gemini="dropped"),
    Feature("cache_control", "What a provider is to cache; OpenAI's and Google's do by themselves.", chat="dropped", responses="dropped", gemini="dropped"),
    Feature("message_name", "A name of who speaks.", responses="dropped", messages="dropped", gemini="dropped"),
    Feature("image_detail", "How closely to look at a picture.", messages="dropped", gemini="dropped"),
)  # fmt: skip

_BY_NAME = {feature.name: feature for feature in FEATURES}


def decide(name: str, target: Spoken) -> Fate:
    """What becomes of a feature that a request has and the target cannot say."""
    feature = _BY_NAME.get(name)
    fate = feature.fate(target) if feature is not None else "dropped"
    return "dropped" if fate == "carried" else fate
