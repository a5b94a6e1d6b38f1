"""Requests of the Messages API, written.

Anthropic API reference, "Messages". Nothing is written that the API refuses: what a model cannot be told (see
``anthropic_messages_models``) is a loss. Headers (``anthropic-version``, ``anthropic-beta``) are the wiring's matter.
"""

from agw_proxy.dialects.anthropic_messages_models import takes_sampling, takes_schemas
from agw_proxy.dialects.anthropic_messages_schemas import arguments_schema, is_open, strict_schema
from agw_proxy.dialects.anthropic_messages_thinking import Thought, thought
from agw_proxy.dialects.anthropic_messages_writing import Conversation, plain_name
from agw_proxy.dialects.base import Losses, Request, Tool, Tree, Untranslatable
from agw_proxy.dialects.custom_tools import wrapped
from agw_proxy.dialects.json_words import in_words

MAX_NAME_LETTERS = 128
MAX_USER_LETTERS = 256
LEAST_TOP_P_THINKING = 0.95
_TYPES: dict[str, type | tuple[type, ...]] = {
    "cache_control": dict, "container": (str, dict), "context_management": dict, "diagnostics": dict, "inference_geo": str,
    "mcp_servers": list, "speed": str, "user_profile_id": str,
}  # fmt: skip
"""Members that only this API has, and what they look like: other dialects have members of the same name."""
_COUNTED = frozenset({
    "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed",
    "context_management", "mcp_servers",
})  # fmt: skip
_TIERS = {"auto": "auto", "default": "standard_only"}


def write_request(request: Request, losses: Losses, *, counting: bool = False) -> Tree:
    """The request for an Anthropic model. ``counting``: for ``/v1/messages/count_tokens``. Raises Untranslatable."""
    talk = Conversation(losses)
    for position, message in enumerate(request.messages):
        talk.add(message, f"messages[{position}]")
    talk.finish()
    tree: Tree = {"model": request.model, "max_tokens": 0, "messages": talk.messages}
    if talk.system:
        tree["system"] = talk.system
    _write_tools(tree, request, talk.called, losses)
    forced = tree.get("tool_choice", {}).get("type") in ("any", "tool")
    made = thought(request.reasoning, request.model, request.max_tokens, talk.messages, forced=forced, losses=losses)
    tree["max_tokens"] = made.max_tokens
    if made.thinking is not None:
        tree["thinking"] = made.thinking
    _write_output(tree, request, made, losses)
    _write_sampling(tree, request, made, losses)
    stop = [sequence for sequence in request.stop if sequence.strip()]
    if stop:
        tree["stop_sequences"] = stop
    if len(stop) != len(request.stop):
        losses.of("stop")  # white space alone is refused
    if request.stream:
        tree["stream"] = True
    _write_account(tree, request, losses)
    _tell_losses(request, losses)
    _write_extra(tree, request, losses)
    return {name: value for name, value in tree.items() if name in _COUNTED} if counting else tree


def _write_tools(tree: Tree, request: Request, called: list[str], losses: Losses) -> None:
    choice = request.tool_choice
    offered = list(request.tools)
    if choice is not None and choice.allowed is not None:
        # Only these may be called: only these are offered.
        allowed = frozenset(choice.allowed)
        offered = [tool for tool in offered if tool.name in allowed]
        if not offered:
            losses.of("allowed_tools", "tool_choice")
            offered = list(request.tools)
    tools = [_tool(tool, position, request.model, losses) for position, tool in enumerate(offered)]
    for hosted in request.hosted:
        if hosted.spoken == "messages":
            tools.append(hosted.tree)
        else:
            losses.of("hosted_tools", "tools")
    if not tools:
        if called:
            # Calls in a conversation want their tools to be there; none may be called now.
            tree["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in dict.fromkeys(called)]
            tree["tool_choice"] = {"type": "none"}
        return
    tree["tools"] = tools
    made: Tree | None = None
    if choice is None:
        made = {"type": "auto"} if request.parallel is False else None
    elif choice.mode == "one":
        made = {"type": "tool", "name": plain_name(choice.name or "")}
    else:
        made = {"type": {"auto": "auto", "none": "none", "required": "any"}[choice.mode]}
    if made is not None:
        if request.parallel is False and made["type"] != "none":
            made["disable_parallel_tool_use"] = True
        tree["tool_choice"] = made


def _tool(tool: Tool, position: int, model: str, losses: Losses) -> Tree:
    where = f"tools[{position}]"
    if not 0 < len(tool.name) <= MAX_NAME_LETTERS or plain_name(tool.name) != tool.name:
        raise Untranslatable(
            f"The model's upstream takes names of tools of 1 to {MAX_NAME_LETTERS} letters, digits, '_' and '-'; "
            f"'{tool.name}' is none.",
            f"{where}.name",
        )
    offered = wrapped(tool)
    schema, words = arguments_schema(offered.schema)
    made: Tree = {"name": offered.name, "input_schema": schema}
    if offered.strict:
        if takes_schemas(model) and not is_open(schema):
            made["input_schema"] = strict_schema(schema, where)
            made["strict"] = True
        else:
            losses.of("strict_tools", where)
    described = "\n\n".join(part for part in (offered.description, words) if part)
    if described:
        made["description"] = described
    if offered.cache is not None:
        made["cache_control"] = offered.cache
    return made


def _write_output(tree: Tree, request: Request, made: Thought, losses: Losses) -> None:
    """``output_config``: effort and format."""
    config: Tree = {}
    if made.effort is not None:
        config["effort"] = made.effort
    asked = request.format
    if asked is not None:
        if asked.schema is None:
            losses.of("json_object", "response_format")  # any object: there is no schema to say so with
        elif not takes_schemas(request.model):
            losses.of("json_schema", "response_format")
        elif tree["messages"][-1]["role"] == "assistant":
            losses.of("json_schema", "response_format")  # refused together with a prefill
        elif is_open(asked.schema):
            losses.of("json_schema", "response_format")
            tree["system"] = [*tree.get("system", []), {"type": "text", "text": in_words(asked)}]
        else:
            schema = strict_schema(asked.schema, "response_format")
            if asked.description is not None:
                schema.setdefault("description", asked.description)
            config["format"] = {"type": "json_schema", "schema": schema}
    if config:
        tree["output_config"] = config


def _write_sampling(tree: Tree, request: Request, made: Thought, losses: Losses) -> None:
    """``temperature``, ``top_p``, ``top_k``: one of the first two; with thinking, next to none."""
    temperature, top_p, top_k = request.temperature, request.top_p, request.top_k
    takes = takes_sampling(request.model)
    if temperature is not None and (not takes or (made.on and temperature != 1)):
        losses.of("temperature")
        temperature = None
    if temperature is not None and temperature > 1:
        losses.of("temperature")
        temperature = 1
    if top_p is not None and (
        not takes or (temperature is not None and top_p != 1) or (made.on and top_p < LEAST_TOP_P_THINKING)
    ):
        losses.of("top_p")
        top_p = None
    if top_p == 1 and temperature is not None:
        top_p = None  # it says nothing, and both are refused together
    if top_k is not None and (not takes or made.on):
        losses.of("top_k")
        top_k = None
    for name, value in (("temperature", temperature), ("top_p", top_p), ("top_k", top_k)):
        if value is not None:
            tree[name] = value


def _write_account(tree: Tree, request: Request, losses: Losses) -> None:
    """Who asks, and for which service."""
    if request.user is not None:
        if len(request.user) <= MAX_USER_LETTERS:
            tree["metadata"] = {"user_id": request.user}
        else:
            losses.of("user")
    if request.metadata:
        losses.of("metadata")
    if request.service_tier is not None:
        tier = _TIERS.get(request.service_tier)
        if tier is None:
            losses.of("service_tier")
        else:
            tree["service_tier"] = tier


def _tell_losses(request: Request, losses: Losses) -> None:
    """What this API has no member for."""
    asked = (
        ("n", request.n > 1),
        ("seed", request.seed is not None),
        ("presence_penalty", bool(request.presence_penalty)),
        ("frequency_penalty", bool(request.frequency_penalty)),
        ("logit_bias", bool(request.logit_bias)),
        ("logprobs", request.logprobs is not None),
        ("verbosity", request.verbosity is not None),
        ("store", request.store is True),
    )
    for name, there in asked:
        if there:
            losses.of(name)


def _write_extra(tree: Tree, request: Request, losses: Losses) -> None:
    for name, value in request.extra.items():
        if isinstance(value, _TYPES.get(name, ())):
            tree[name] = value
        elif name == "thinking.between_tools":
            tree.setdefault("thinking", {"type": "between_tools"})
        else:
            losses.of(name)
