"""Whole Chat answers, both ways (OpenAI API reference, Chat, "The chat completion object")."""

import hashlib
from typing import Any

from agw_proxy.dialects import media
from agw_proxy.dialects.base import (
    Answer,
    Block,
    Image,
    Malformed,
    Refusal,
    Shown,
    Text,
    Thinking,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.custom_tools import input_of
from agw_proxy.dialects.openai_chat_citations import cut, write_annotation
from agw_proxy.dialects.openai_chat_faults import fault_in, read_fault, write_fault
from agw_proxy.dialects.openai_chat_fields import child, count, items, json_of, list_of, path, text, tree_of
from agw_proxy.dialects.openai_chat_parts import called, read_calls
from agw_proxy.dialects.openai_chat_thoughts import (
    read_thoughts,
    tool_signature,
    write_detail,
    write_tool_signature,
)
from agw_proxy.dialects.openai_chat_usage import ended_by, read_stop, read_tokens, write_stop, write_tokens

__all__ = ["read_answer", "read_fault", "write_answer", "write_fault"]

TIERS = {
    "auto": "auto",
    "default": "default",
    "flex": "flex",
    "scale": "scale",
    "priority": "priority",
    "fast": "fast",
    "standard": "default",
}
"""Service tiers that Chat's clients know, by what upstreams call them."""


def read_answer(tree: Tree) -> Answer:
    """Raises Malformed, also for an error that came with a good status, and for more than one choice."""
    fault = fault_in(tree)
    if fault is not None:
        raise Malformed(fault.message)
    choices = list_of(tree.get("choices"), "choices")
    if len(choices) != 1:
        raise Malformed(f"One choice was expected, and {len(choices)} came.", "choices")
    choice = tree_of(choices[0], "choices[0]")
    message = child(choice, "message", "choices[0]")
    if message is None:
        raise Malformed("The choice has no message.", "choices[0].message")
    identity, model = tree.get("id"), tree.get("model")
    identity = identity if isinstance(identity, str) else ""
    blocks = _read_blocks(message, choice, identity)
    has_calls, refused = ended_by(blocks)
    stop, sequence = read_stop(choice, called=has_calls, refused=refused)
    tier = tree.get("service_tier")
    return Answer(
        id=identity,
        model=model if isinstance(model, str) else "",
        blocks=blocks,
        stop=stop,
        tokens=read_tokens(tree.get("usage")),
        created=count(tree.get("created")),
        stop_sequence=sequence,
        service_tier=tier if isinstance(tier, str) else None,
    )


def _read_blocks(message: Tree, choice: Tree, identity: str) -> list[Block]:
    at = "choices[0].message"
    blocks: list[Block] = [*read_thoughts(message)]
    content = message.get("content")
    if isinstance(content, list):
        blocks += _read_chunks(content, path(at, "content"))
    else:
        words = text(message, "content", at)
        if words:
            found = cut(words, message.get("annotations"))
            found[0].logprobs = logprobs_of(choice)
            blocks += found
    refusal = text(message, "refusal", at)
    if refusal:
        blocks.append(Refusal(refusal))
    blocks += [read_image(image, path(at, "images")) for image in items(message, "images", at)]
    for position, (where, call) in enumerate(read_calls(message, at)):
        blocks.append(_read_call(call, where, identity, position))
    legacy = child(message, "function_call", at)
    if legacy is not None:
        where = path(at, "function_call")
        blocks.append(_read_call({"function": legacy}, where, identity, len(blocks)))
    return blocks


def _read_chunks(content: list[Any], at: str) -> list[Block]:
    """Content in parts, with thoughts among them (Mistral's reasoning models)."""
    blocks: list[Block] = []
    for index, one in enumerate(content):
        part = tree_of(one, path(at, index))
        thought, words = part_words(part)
        if words:
            blocks.append(Thinking(words) if thought else Text(words))
    return blocks


def part_words(part: Tree) -> tuple[bool, str]:
    """(whether it is a thought, its words) of a part of an answer's content; no words where it is something else."""
    inner = part.get("thinking")
    if isinstance(inner, list):
        return True, "".join(
            each["text"] for each in inner if isinstance(each, dict) and isinstance(each.get("text"), str)
        )
    if isinstance(inner, str):
        return True, inner
    words = part.get("text")
    return False, words if isinstance(words, str) else ""


def logprobs_of(choice: Tree) -> list[Tree] | None:
    """Those of the content; None where there are none, or where they are no list of objects."""
    found = choice.get("logprobs")
    content = found.get("content") if isinstance(found, dict) else None
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        return None
    return content or None


def read_image(image: Any, at: str) -> Image:
    """A picture in an answer (OpenRouter's API reference, "Image generation"). Raises Malformed."""
    inner = child(tree_of(image, at), "image_url", at) or {}
    url = text(inner, "url", at) or ""
    if url[:5].lower() == "data:":
        media_type, data = media.parse_data_url(url, at)
        return Image(data=data, media_type=media_type)
    if not url:
        raise Malformed("A picture without a URL came.", at)
    return Image(url=url)


def _read_call(call: Tree, at: str, identity: str, position: int) -> ToolUse:
    inner, where, custom = called(call, at)
    name = text(inner, "name", where)
    if not name:
        raise Malformed("A tool call without a name came.", path(where, "name"))
    given = inner.get("input" if custom else "arguments")
    # Ollama's own form has the arguments as an object.
    arguments = given if isinstance(given, str) else "" if given is None else json_of(given, where)
    return ToolUse(
        id=text(call, "id", at) or made_id(identity, position, name, arguments),
        name=name,
        arguments=arguments,
        custom=custom,
        signature=tool_signature(call),
    )


def write_image(image: Image) -> Tree:
    """The same written."""
    url = image.url or media.data_url(image.media_type or "image/png", image.data or "")
    return {"type": "image_url", "image_url": {"url": url}}


def made_id(identity: str, position: int, name: str, arguments: str) -> str:
    """An id for a tool call without one: the same for the same call, and hardly ever the same for another."""
    whole = f"{identity}\0{position}\0{name}\0{arguments}".encode("utf-8", "replace")
    return f"call_{hashlib.blake2s(whole, digest_size=12).hexdigest()}"


def custom_names(shown: Shown) -> frozenset[str]:
    """The caller's custom tools: other upstreams call them as functions."""
    if shown.request is None:
        return frozenset()
    return frozenset(tool.name for tool in shown.request.tools if tool.schema is None)


def in_functions(shown: Shown) -> bool:
    """Whether the caller knows calls in their first form only, see ``Request``."""
    return shown.request is not None and shown.request.functions


def write_answer(answer: Answer, shown: Shown) -> Tree:
    """The object ``chat.completion``. What only other dialects show (sources without a URL, say) is not in it."""
    functions = in_functions(shown)
    message, logprobs = _write_message(answer.blocks, custom_names(shown), functions=functions)
    _, refused = ended_by(answer.blocks)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
        "finish_reason": write_stop(answer.stop, refused=refused, functions=functions),
    }
    tree: Tree = {
        "id": answer.id or f"chatcmpl-{shown.id}",
        "object": "chat.completion",
        "created": answer.created or shown.now,
        "model": shown.model,
        "choices": [choice],
    }
    usage = write_tokens(answer.tokens)
    if usage is not None:
        tree["usage"] = usage
    return tree | tier_of(answer.service_tier)


def tier_of(given: str | None) -> Tree:
    """The member ``service_tier``; empty where nothing is known that Chat's clients know."""
    tier = TIERS.get(given or "")
    return {} if tier is None else {"service_tier": tier}


def _write_message(blocks: list[Block], customs: frozenset[str], *, functions: bool) -> tuple[Tree, list[Tree]]:
    """The message, and the log probabilities of its words."""
    words: list[str] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    length = 0
    annotations: list[Tree] = []
    details: list[Tree] = []
    logprobs: list[Tree] = []
    calls: list[Tree] = []
    images: list[Tree] = []
    for block in blocks:
        if isinstance(block, Text):
            words.append(block.text)
            start, length = length, length + len(block.text)
            made = (write_annotation(citation, start, length) for citation in block.citations)
            annotations += [each for each in made if each is not None]
            logprobs += block.logprobs or []
        elif isinstance(block, Thinking):
            thoughts.append(block.text)
            if block.signature is not None:
                details.append(write_detail(block, len(details)))
        elif isinstance(block, Refusal):
            refusals.append(block.text)
        elif isinstance(block, ToolUse):
            calls.append(_write_call(block, customs))
        elif isinstance(block, Image):
            images.append(write_image(block))
    message: Tree = {
        "role": "assistant",
        # Nothing stands for an answer that is all calls or a refusal; clients take an empty one for text.
        "content": "".join(words) or (None if calls or refusals else ""),
        "refusal": "".join(refusals) or None,
        "annotations": annotations,
    }
    called = ("function_call", calls[0]["function"]) if functions and calls else ("tool_calls", calls)
    for name, value in (
        ("reasoning_content", "".join(thoughts)), ("reasoning_details", details), called, ("images", images),
    ):  # fmt: skip
        if value:
            message[name] = value
    return message, logprobs


def _write_call(call: ToolUse, customs: frozenset[str]) -> Tree:
    if call.custom or call.name in customs:
        plain = call.arguments if call.custom else input_of(call.arguments)
        tree: Tree = {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": plain}}
    else:
        function = {"name": call.name, "arguments": call.arguments or "{}"}
        tree = {"id": call.id, "type": "function", "function": function}
    if call.signature is not None:
        tree["extra_content"] = write_tool_signature(call.signature)
    return tree
