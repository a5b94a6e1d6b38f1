"""Chat requests, both ways: POST /v1/chat/completions (OpenAI API reference, Chat, "Create chat completion").

Reading also takes what other servers of this dialect have beside it (``reasoning``, ``top_k``, ``cache_control``);
writing keeps to what OpenAI itself takes, but for names that the caller, who knows the server, gives.
"""

import hashlib
from typing import Any

from agw_proxy.dialects.base import Format, Losses, Malformed, Reasoning, Request, Tree
from agw_proxy.dialects.call_ids import fitted
from agw_proxy.dialects.efforts import effort_of
from agw_proxy.dialects.openai_chat_fields import (
    child,
    flag,
    list_of,
    needed,
    number,
    path,
    refuse,
    text,
    whole,
)
from agw_proxy.dialects.openai_chat_history import read_messages, write_messages
from agw_proxy.dialects.openai_chat_tools import read_tools, write_tools

MAX_TOKENS_NAME = "max_completion_tokens"
"""OpenAI's name for the bound; many other servers only know ``max_tokens``."""
STOPS = 4  # the reference's bound on stop sequences
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
OTHER_TIERS = {"standard": "default", "standard_only": "default"}  # Anthropic's words
VERBOSITIES = frozenset({"low", "medium", "high"})
MAX_TOP_LOGPROBS = 20
USER_LENGTH = 64
"""Longest ``user`` that the API takes."""

EXTRAS: dict[str, type] = {
    "prompt_cache_key": str,
    "prompt_cache_options": dict,
    "prompt_cache_retention": str,
    "safety_identifier": str,
    "prediction": dict,
    "moderation": dict,
    "web_search_options": dict,
}
"""Members of the reference that ``Request`` has no place for, and their types: carried where the target is Chat."""

READ = frozenset(
    {
        "model", "messages", "tools", "functions", "tool_choice", "function_call", "parallel_tool_calls", "max_tokens",
        "max_completion_tokens", "temperature", "top_p", "top_k", "stop", "stream", "stream_options", "n", "seed",
        "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "reasoning_effort",
        "reasoning", "include_reasoning", "response_format", "verbosity", "user", "metadata", "service_tier", "store",
        "audio", "modalities",
    }
)  # fmt: skip


def read_request(tree: Tree) -> Request:
    """Raises Malformed, whose param is the member's path."""
    options = child(tree, "stream_options") or {}
    request = Request(
        model=needed(tree, "model"),
        messages=read_messages(tree.get("messages")),
        max_tokens=_bound(tree),
        temperature=number(tree, "temperature"),
        top_p=number(tree, "top_p"),
        top_k=whole(tree, "top_k"),
        stop=read_stops(tree.get("stop")),
        stream=flag(tree, "stream") or False,
        include_usage=flag(options, "include_usage", "stream_options") or False,
        n=whole(tree, "n", least=1) or 1,
        seed=whole(tree, "seed"),
        presence_penalty=number(tree, "presence_penalty"),
        frequency_penalty=number(tree, "frequency_penalty"),
        logit_bias=child(tree, "logit_bias") or None,
        logprobs=_logprobs(tree),
        reasoning=_reasoning(tree),
        format=_format(tree),
        verbosity=text(tree, "verbosity"),
        user=text(tree, "user") or text(tree, "safety_identifier"),
        metadata=child(tree, "metadata") or None,
        service_tier=text(tree, "service_tier"),
        store=flag(tree, "store"),
    )
    read_tools(tree, request)
    request.extra = _extra(tree)
    return request


def _bound(tree: Tree) -> int | None:
    new, old = whole(tree, "max_completion_tokens", least=1), whole(tree, "max_tokens", least=1)
    return old if new is None else new


def read_stops(value: Any) -> list[str]:
    """The member ``stop``: a string, or strings. Raises Malformed."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value else []
    found = list_of(value, "stop")
    for index, one in enumerate(found):
        if not isinstance(one, str):
            raise refuse(path("stop", index), "a string", one)
    return [one for one in found if one]


def _logprobs(tree: Tree) -> int | None:
    top = whole(tree, "top_logprobs", least=0)
    if not flag(tree, "logprobs"):
        if top:
            raise Malformed("top_logprobs needs logprobs to be true.", "top_logprobs")
        return None
    return top or 0


def _reasoning(tree: Tree) -> Reasoning | None:
    """``reasoning_effort``, or OpenRouter's object ``reasoning`` (its API reference, "Reasoning tokens")."""
    inner = child(tree, "reasoning") or {}
    at = "reasoning"
    effort = text(tree, "reasoning_effort") or text(inner, "effort", at)
    if effort is not None and effort not in EFFORTS:
        raise refuse("reasoning_effort", " or ".join(EFFORTS), effort)
    budget = whole(inner, "max_tokens", at, least=0)
    enabled = flag(inner, "enabled", at)
    shown = flag(tree, "include_reasoning")
    if not inner and effort is None and shown is None:
        return None
    if effort == "none":
        enabled = False
    visible = bool(inner) if shown is None else shown
    visible = visible and not flag(inner, "exclude", at)
    return Reasoning(effort, budget, "auto" if visible and enabled is not False else None, enabled)


def _format(tree: Tree) -> Format | None:
    found = child(tree, "response_format")
    if found is None:
        return None
    kind = found.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Format()
    if kind != "json_schema":
        raise refuse("response_format.type", "text, json_object or json_schema", kind)
    at = "response_format.json_schema"
    inner = child(found, "json_schema", "response_format")
    if inner is None:
        raise refuse(at, "an object", None)
    return Format(
        schema=child(inner, "schema", at),
        name=text(inner, "name", at) or "answer",
        description=text(inner, "description", at),
        strict=flag(inner, "strict", at),
    )


def _extra(tree: Tree) -> Tree:
    """What is left, under the names that the table of features has."""
    extra: Tree = {name: value for name, value in tree.items() if name not in READ and value is not None}
    if extra.get("safety_identifier") is not None and not tree.get("user"):
        del extra["safety_identifier"]
    modalities = tree.get("modalities")
    spoken = {name: tree[name] for name in ("audio", "modalities") if tree.get(name) is not None}
    if "audio" in spoken or (isinstance(modalities, list) and "audio" in modalities):
        extra["audio_output"] = spoken
    elif isinstance(modalities, list) and modalities not in ([], ["text"]):
        extra["modalities"] = modalities
    if any(isinstance(each, dict) and each.get("audio") is not None for each in tree["messages"]):
        extra["messages.audio"] = True  # a spoken answer, which only its provider has
    options = tree.get("stream_options") or {}
    for name in options:
        if name != "include_usage" and options[name]:
            extra[f"stream_options.{name}"] = options[name]
    return extra


def write_request(
    request: Request,
    losses: Losses,
    *,
    max_tokens_name: str = MAX_TOKENS_NAME,
    reasoning_name: str | None = None,
    id_letters: int | None = None,
) -> Tree:
    """The body for an upstream. Raises Untranslatable by the table of features.

    ``max_tokens_name``: what the server calls the bound on an answer. ``reasoning_name``: the member of assistant messages
    in which it wants its own reasoning text back (DeepSeek: ``reasoning_content``); None, as OpenAI has it: in none.
    ``id_letters``: see ``call_ids.fitting``.
    """
    messages = fitted(request.messages, id_letters)
    tree: Tree = {"model": request.model, "messages": write_messages(messages, losses, reasoning_name)}
    for name in (
        "temperature",
        "top_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "store",
    ):
        value = getattr(request, name)
        if value is not None:
            tree[name] = value
    if request.user is not None:
        tree["user"] = user_of(request.user)
    if request.max_tokens is not None:
        tree[max_tokens_name] = request.max_tokens
    if request.top_k is not None:
        losses.of("top_k")
    if request.stop:
        tree["stop"] = request.stop[:STOPS]
        if len(request.stop) > STOPS:
            losses.of("stop")
    if request.stream:
        tree["stream"] = True
        # Always, so that usage is known; the writer of the stream leaves it out for those who have not asked.
        tree["stream_options"] = {"include_usage": True}
    if request.n != 1:
        losses.of("n")
    if request.logprobs is not None:
        tree["logprobs"] = True
        tree["top_logprobs"] = min(request.logprobs, MAX_TOP_LOGPROBS)
    write_tools(request, tree, losses)
    _write_reasoning(request.reasoning, tree, losses)
    if request.format is not None:
        tree["response_format"] = _write_format(request.format)
    _write_words(request, tree, losses)
    _write_extra(request.extra, tree, losses)
    return tree


def user_of(given: str) -> str:
    """Who asks, as OpenAI takes it; a longer name (Claude Code's has 150 characters) as its digest, which tells users apart as well."""
    return given if len(given) <= USER_LENGTH else hashlib.sha256(given.encode()).hexdigest()


def _write_reasoning(reasoning: Reasoning | None, tree: Tree, losses: Losses) -> None:
    """A budget of tokens becomes the effort that it comes closest to.

    Thinking that is merely switched off is not asked for: models that never think refuse the member, even with "none".
    """
    if reasoning is None:
        return
    if reasoning.enabled is False and reasoning.effort != "none":
        losses.of("reasoning")
    elif reasoning.effort in EFFORTS:
        tree["reasoning_effort"] = reasoning.effort
    elif reasoning.effort is not None:
        losses.of("reasoning")
    elif reasoning.budget is not None:
        tree["reasoning_effort"] = effort_of(reasoning.budget)
    if reasoning.summary is not None:
        losses.of("reasoning_summary")


def _write_format(wanted: Format) -> Tree:
    if wanted.schema is None:
        return {"type": "json_object"}
    inner: Tree = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description is not None:
        inner["description"] = wanted.description
    if wanted.strict is not None:
        inner["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": inner}


def _write_words(request: Request, tree: Tree, losses: Losses) -> None:
    """Members of which only certain words are taken, and those with strings only."""
    if request.verbosity in VERBOSITIES:
        tree["verbosity"] = request.verbosity
    elif request.verbosity is not None:
        losses.of("verbosity")
    tier = OTHER_TIERS.get(request.service_tier or "", request.service_tier)
    if tier in TIERS:
        tree["service_tier"] = tier
    elif tier is not None:
        losses.of("service_tier")
    if request.metadata:
        tree["metadata"] = {key: value for key, value in request.metadata.items() if isinstance(value, str)}
        if len(tree["metadata"]) < len(request.metadata):
            losses.of("metadata")


def _is_chats(options: Any) -> bool:
    """Responses has more to say under this name."""
    return isinstance(options, dict) and options.keys() <= {"mode", "ttl"} and options.get("ttl") in (None, "30m")


def _write_extra(extra: Tree, tree: Tree, losses: Losses) -> None:
    for name, value in extra.items():
        wanted = EXTRAS.get(name)
        if name == "prompt_cache_options" and not _is_chats(value):
            losses.of(name)
        elif wanted is not None and isinstance(value, wanted):
            tree[name] = value
        elif name == "audio_output" and isinstance(value, dict):
            tree.update(value)
        elif name == "stream_options.include_obfuscation" and isinstance(value, bool) and "stream_options" in tree:
            tree["stream_options"]["include_obfuscation"] = value
        else:
            losses.of(name)
