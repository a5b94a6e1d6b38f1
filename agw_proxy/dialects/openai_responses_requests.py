"""Requests to ``POST /v1/responses`` (OpenAI API reference, Responses, "Create a model response")."""

from collections.abc import Callable

from agw_proxy.dialects import efforts, members
from agw_proxy.dialects.base import (
    Format,
    Losses,
    Malformed,
    Message,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tree,
    Untranslatable,
)
from agw_proxy.dialects.openai_chat_requests import user_of
from agw_proxy.dialects.openai_responses_history import instructions_of, write_input
from agw_proxy.dialects.openai_responses_items import read_input
from agw_proxy.dialects.openai_responses_signatures import own
from agw_proxy.dialects.openai_responses_tools import read_choice, read_tools, write_choice, write_hosted, write_tools

LEAST_OUTPUT_TOKENS = 16
"""The API refuses a lower ``max_output_tokens``."""
MOST_LOGPROBS = 20
EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
SUMMARIES = frozenset({"auto", "concise", "detailed"})
VERBOSITIES = frozenset({"low", "medium", "high"})
TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"})
ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
INCLUDES = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
READ = frozenset(
    {
        "background", "include", "input", "instructions", "max_output_tokens", "metadata", "model", "parallel_tool_calls",
        "reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options", "temperature", "text",
        "tool_choice", "tools", "top_logprobs", "top_p", "user",
    }
)  # fmt: skip


def _string(found: object) -> bool:
    return isinstance(found, str)


EXTRA: dict[str, Callable[[object], bool]] = {
    "context_management": lambda found: isinstance(found, list),
    "conversation": lambda found: isinstance(found, str | dict),
    "include": lambda found: isinstance(found, list) and all(name in INCLUDES for name in found),
    "max_tool_calls": lambda found: type(found) is int,
    "previous_response_id": _string,
    "prompt": lambda found: isinstance(found, dict),
    "prompt_cache_key": _string,
    "prompt_cache_options": lambda found: isinstance(found, dict),
    "prompt_cache_retention": lambda found: found in ("in_memory", "24h"),
    "safety_identifier": _string,
    "stream_options": lambda found: isinstance(found, dict) and found.keys() == {"include_obfuscation"},
    "tool_choice": lambda found: isinstance(found, dict),
    "truncation": lambda found: found in ("auto", "disabled"),
}
"""Members that a Request does not name and that are written. Others' dialects have some of these names for other things."""


def read_request(tree: Tree) -> Request:
    """Read a request. Raises Malformed, and Untranslatable for what no other dialect could answer."""
    if members.flag(tree, "background"):
        raise Untranslatable(
            "background responses are not served: send the request without 'background'.", "background"
        )
    model = members.wanted(tree, "model")
    if not model:
        raise Malformed("'model' is empty.", "model")
    made = Request(model=model, messages=[], extra={})
    made.extra = {name: value for name, value in tree.items() if name not in READ and value is not None}
    _check_before(tree)
    instructions = members.text(tree, "instructions")
    if instructions:
        made.messages.append(Message("system", [Text(instructions)]))
    read_tools(members.branches(tree, "tools"), "tools", made)
    _read_input(tree, made)
    read_choice(tree.get("tool_choice"), made)
    made.parallel = members.flag(tree, "parallel_tool_calls")
    made.max_tokens = members.integer(tree, "max_output_tokens")
    made.temperature = members.number(tree, "temperature")
    made.top_p = members.number(tree, "top_p")
    made.stream = bool(members.flag(tree, "stream"))
    made.store = members.flag(tree, "store")
    made.metadata = members.branch(tree, "metadata")
    made.service_tier = members.text(tree, "service_tier")
    _read_user(tree, made)
    _read_include(tree, made)
    _read_text(tree, made)
    _read_reasoning(tree, made)
    return made


def _check_before(tree: Tree) -> None:
    """What it goes on from is called by an id; ``conversation`` may hold it."""
    before, talk = tree.get("previous_response_id"), tree.get("conversation")
    for name, found in (
        ("previous_response_id", before),
        ("conversation", talk.get("id") if isinstance(talk, dict) else talk),
    ):
        if tree.get(name) is not None and not (isinstance(found, str) and found):
            raise Malformed(f"'{name}' has to be an id.", name)


def _read_input(tree: Tree, made: Request) -> None:
    if tree.get("input") is None and not tree.keys() & {"previous_response_id", "conversation", "prompt"}:
        raise Malformed("'input' is missing.", "input")
    read_input(tree.get("input"), made)


def _read_user(tree: Tree, made: Request) -> None:
    user, safety = members.text(tree, "user"), members.text(tree, "safety_identifier")
    made.user = user if user is not None else safety
    if user is not None and safety is not None and safety != user:
        made.extra["safety_identifier"] = safety


def _read_include(tree: Tree, made: Request) -> None:
    """What else the answer is to hold. Signatures of thoughts always are there, so asking for them costs nothing."""
    include = members.words(tree, "include")
    most = members.integer(tree, "top_logprobs")
    if LOGPROBS in include or most:
        made.logprobs = most or 0
    rest = [name for name in include if name not in {ENCRYPTED, LOGPROBS}]
    if rest:
        made.extra["include"] = rest
    options = members.branch(tree, "stream_options") or {}
    rest_options = {name: value for name, value in options.items() if name != "include_obfuscation" or value}
    if rest_options:
        made.extra["stream_options"] = rest_options


def _read_text(tree: Tree, made: Request) -> None:
    told = members.branch(tree, "text")
    if told is None:
        return
    made.verbosity = members.text(told, "verbosity", "text")
    for odd in told.keys() - {"verbosity", "format"}:
        made.extra[f"text.{odd}"] = True
    form = members.branch(told, "format", "text")
    kind = members.wanted(form, "type", "text.format") if form is not None else "text"
    if form is None or kind == "text":
        return
    if kind == "json_object":
        made.format = Format()
    elif kind == "json_schema":
        schema = members.branch(form, "schema", "text.format")
        if schema is None:
            raise Malformed("'text.format.schema' is missing.", "text.format.schema")
        made.format = Format(
            schema=schema,
            name=members.text(form, "name", "text.format") or "answer",
            description=members.text(form, "description", "text.format"),
            strict=members.flag(form, "strict", "text.format"),
        )
    else:
        raise Malformed("'text.format.type' has to be text, json_object or json_schema.", "text.format.type")


def _read_reasoning(tree: Tree, made: Request) -> None:
    told = members.branch(tree, "reasoning")
    if told is None:
        return
    effort = members.text(told, "effort", "reasoning")
    summary = members.text(told, "summary", "reasoning") or members.text(told, "generate_summary", "reasoning")
    for odd in told.keys() - {"effort", "summary", "generate_summary"}:
        if told[odd] is not None:
            made.extra[f"reasoning.{odd}"] = True
    if effort is not None or summary is not None:
        made.reasoning = Reasoning(effort=effort, summary=summary, enabled=False if effort == "none" else None)


def write_request(request: Request, losses: Losses) -> Tree:
    """Write a request. Raises Untranslatable where the table of features refuses a loss.

    ``store`` is false unless it was asked for: whoever comes from another dialect could not fetch what is kept.
    """
    # Alone, the system's words are the input: the API wants one.
    instructions = instructions_of(request.messages) if len(request.messages) > 1 else None
    history = request.messages if instructions is None else request.messages[1:]
    tools = [*write_tools(request), *write_hosted(request.hosted, losses)]
    made: Tree = {"model": request.model, "input": write_input(history, request.tools, losses)}
    if instructions is not None:
        made["instructions"] = instructions
        if any(isinstance(block, Text) and block.cache is not None for block in request.messages[0].blocks):
            losses.of("cache_control")
    if any(tool.cache is not None for tool in request.tools):
        losses.of("cache_control")
    _write_extra(request, made, losses)
    if tools:
        made["tools"] = tools
        if request.tool_choice is not None:
            made["tool_choice"] = write_choice(request.tool_choice, request.tools)
    else:
        made.pop("tool_choice", None)
    if request.parallel is not None:
        made["parallel_tool_calls"] = request.parallel
    if request.max_tokens is not None:
        if request.max_tokens < LEAST_OUTPUT_TOKENS:
            losses.of("max_tokens")
        made["max_output_tokens"] = max(LEAST_OUTPUT_TOKENS, request.max_tokens)
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.top_p is not None:
        made["top_p"] = request.top_p
    if request.stream:
        made["stream"] = True
    made["store"] = bool(request.store)
    _write_who(request, made, losses)
    _write_form(request, made, losses)
    _lose(request, losses)
    return made


def _write_extra(request: Request, made: Tree, losses: Losses) -> None:
    for name, value in request.extra.items():
        if name == "namespace_descriptions":  # written with the tools
            continue
        if name in EXTRA and EXTRA[name](value):
            made[name] = list(value) if name == "include" else value
        else:
            losses.of(name)


def _write_who(request: Request, made: Tree, losses: Losses) -> None:
    if request.user is not None:
        made["user"] = user_of(request.user)
    if request.metadata is not None:
        if is_metadata(request.metadata):
            made["metadata"] = request.metadata
        else:
            losses.of("metadata")
    if request.service_tier in TIERS:
        made["service_tier"] = request.service_tier
    elif request.service_tier is not None:
        losses.of("service_tier")


def is_metadata(tree: Tree) -> bool:
    """Within the API's bounds: 16 pairs of strings, keys of up to 64 characters and values of up to 512."""
    return len(tree) <= 16 and all(
        len(name) <= 64 and isinstance(value, str) and len(value) <= 512 for name, value in tree.items()
    )


def _write_form(request: Request, made: Tree, losses: Losses) -> None:
    """How the answer is to look, and what is to be thought and shown of it."""
    text: Tree = {}
    if request.format is not None:
        text["format"] = format_tree(request.format)
    if request.verbosity in VERBOSITIES:
        text["verbosity"] = request.verbosity
    elif request.verbosity is not None:
        losses.of("verbosity")
    if text:
        made["text"] = text
    include = made.pop("include", [])
    if request.logprobs is not None:
        include.append(LOGPROBS)
        if request.logprobs:
            made["top_logprobs"] = min(MOST_LOGPROBS, request.logprobs)
    if request.reasoning is not None:
        told = _reasoning_tree(request.reasoning, losses)
        if told:
            made["reasoning"] = told
    # A model that does not reason refuses to be asked for it.
    if (request.reasoning is not None and request.reasoning.enabled is not False) or _has_own_thoughts(request):
        include.append(ENCRYPTED)
    if include:
        made["include"] = include


def _reasoning_tree(reasoning: Reasoning, losses: Losses) -> Tree:
    """Thinking that is merely switched off is not asked for: models that never think refuse the member, even with "none"."""
    if reasoning.enabled is False and reasoning.effort != "none":
        losses.of("reasoning")
        return {}
    effort = effort_of(reasoning)
    told: Tree = {} if effort is None else {"effort": effort}
    if reasoning.summary is not None and effort != "none":
        told["summary"] = reasoning.summary if reasoning.summary in SUMMARIES else "auto"
    if reasoning.effort is not None and reasoning.effort not in EFFORTS:
        losses.of("reasoning")
    return told


def format_tree(form: Format) -> Tree:
    """``text.format`` for JSON."""
    if form.schema is None:
        return {"type": "json_object"}
    made: Tree = {"type": "json_schema", "name": form.name, "schema": form.schema}
    if form.description is not None:
        made["description"] = form.description
    if form.strict is not None:
        made["strict"] = form.strict
    return made


def effort_of(reasoning: Reasoning) -> str | None:
    """The word for how much to think; None: nothing was said, or in no word that the API knows."""
    if reasoning.enabled is False:
        return "none"
    if reasoning.effort is not None:
        return reasoning.effort if reasoning.effort in EFFORTS else None
    if reasoning.budget is None:
        return None
    return efforts.effort_of(reasoning.budget)


def _has_own_thoughts(request: Request) -> bool:
    return any(
        isinstance(block, Thinking) and own(block.signature) is not None
        for message in request.messages
        for block in message.blocks
    )


def _lose(request: Request, losses: Losses) -> None:
    """What Responses has no member for."""
    asked = {
        "n": request.n > 1,
        "stop": bool(request.stop),
        "top_k": request.top_k is not None,
        "seed": request.seed is not None,
        "presence_penalty": bool(request.presence_penalty),
        "frequency_penalty": bool(request.frequency_penalty),
        "logit_bias": bool(request.logit_bias),
    }
    for name, is_asked in asked.items():
        if is_asked:
            losses.of(name)
