"""Makes agents of what an ``agents.yaml`` declares, for people who write no Python.

    agents:
      - name: Triage
        description: Sends each question to who knows.
        instructions: Decide who is to answer.
        model: fast
        settings: {temperature: 0.2, max_tokens: 400}
        tools: [tools.py:opening_hours, {agent: weather, name: ask_weather}]
        handoffs: [billing, team/refunds]
        guardrails: [{on: input, refuse: ["(?i)password"], max_characters: 20000}]
        output: {type: object, properties: {answer: {type: string}}, required: [answer], additionalProperties: false}

Names without a slash are of the same namespace. Agents may hand over to each other in circles.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
import pydantic

from agw_proxy.sdk.discovery import Found
from agw_proxy.sdk.loading import Context, Failed, Made, import_sdk, words
from agw_proxy.tools.modules import forget, import_file, new_package

MAX_CHARACTERS = 1_000_000  # of a text that a guardrail searches: a pattern takes its time on more


class Guardrail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must not come in, or go out: texts that a pattern finds something in, or that are too long."""

    on: Literal["input", "output"] = "input"
    refuse: tuple[str, ...] = ()
    """Regular expressions, as Python has them."""
    max_characters: Annotated[int, msgspec.Meta(ge=0)] = MAX_CHARACTERS
    name: str | None = None


class NamedTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another agent as a tool, which answers, and this one goes on; or one of the gateway's tools."""

    agent: str | None = None
    tool: str | None = None
    name: str | None = None
    description: str | None = None


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item of the file."""

    name: str
    instructions: str
    description: str = ""
    model: str | None = None
    settings: dict[str, Any] = {}
    """Fields of the SDK's ``ModelSettings``."""
    tools: tuple[str | NamedTool, ...] = ()
    """``FILE.py:NAME`` of a tool, or of a function that is to be one; or another agent; or one of the gateway's tools."""
    handoffs: tuple[str, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    output: dict[str, Any] | None = None
    """The JSON Schema of its answers; None: text."""


def read(found: Found) -> Declared:
    """What was declared. Raises Failed, with all that is wrong with it."""
    problems = [*misfits(found.declared, Declared), *_odd(found.declared or {})]
    if problems:
        raise Failed("; ".join(problems))
    return msgspec.convert(found.declared, Declared)


def misfits(value: object, kind: Any, place: str = "") -> Iterator[str]:
    """All that is not of its type, or is no member at all, each with its place."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    struct = next((each for each in kinds if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)
    if isinstance(value, dict) and struct is not None:
        fields = {field.name: field for field in msgspec.structs.fields(struct)}
        for name in [name for name in value if name not in fields]:
            yield f"{place}{name}: there is no such member; there are {', '.join(fields)}"
        for name, field in fields.items():
            if name in value:
                yield from misfits(value[name], field.type, f"{place}{name}.")
            elif field.required:
                yield f"{place}{name}: it is missing"
    elif isinstance(value, list) and get_origin(kind) is tuple:
        for at, each in enumerate(value):
            yield from misfits(each, get_args(kind)[0], f"{place.removesuffix('.')}[{at}].")
    else:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            yield f"{place.removesuffix('.')}: {error}"


def _odd(item: Mapping[str, Any]) -> Iterator[str]:
    """What is of its type, and means nothing."""
    for at, tool in enumerate(_listed(item.get("tools"))):
        if isinstance(tool, dict) and (tool.get("agent") is None) == (tool.get("tool") is None):
            yield f"tools[{at}]: expected FILE.py:NAME, {{agent: NAME}} or {{tool: NAME}}"
    for at, guardrail in enumerate(_listed(item.get("guardrails"))):
        for pattern in _listed(guardrail.get("refuse") if isinstance(guardrail, dict) else None):
            try:
                re.compile(pattern if isinstance(pattern, str) else "")
            except (re.error, OverflowError, RecursionError) as error:
                yield f"guardrails[{at}].refuse: {pattern!r} is no regular expression: {error}"


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def refers(found: Found) -> tuple[str, ...]:
    """The ids of the agents that it names; none where it cannot be read."""
    try:
        declared = read(found)
    except Failed:
        return ()
    named = [*declared.handoffs, *(tool.agent for tool in declared.tools if isinstance(tool, NamedTool) and tool.agent)]
    return tuple(_full(name, found.id) for name in named)


def build(declarations: Sequence[Found], known: Mapping[str, Any]) -> dict[str, Made | Failed]:
    """An agent for each, by id, or why there is none; on a thread that may block.

    ``known``: the agents that are not declared, by id. All are made anew together, since each may hold another. What
    names one that cannot be made cannot be made either.
    """
    sdk = import_sdk()
    made: dict[str, _Half] = {}
    given: dict[str, Made | Failed] = {}
    for found in declarations:
        package = new_package()
        try:
            declared = read(found)
            tools = [_made(sdk, tool, found, package) for tool in declared.tools]
            made[found.id] = _Half(found, declared, _agent(sdk, declared), tools, package)
        except (Exception, SystemExit) as error:  # noqa: BLE001  one that cannot be made keeps no other from being made
            forget(package)
            given[found.id] = Failed(words(error))
    while failing := dict(_failing(made, known)):  # each round may take away what others name
        given |= failing
        for identity in failing:
            forget(made.pop(identity).package)
    agents = {**known, **{identity: half.agent for identity, half in made.items()}}
    for identity, half in made.items():
        half.agent.tools = [_of_agent(tool, identity, agents) for tool in half.tools]
        half.agent.handoffs = [agents[_full(name, identity)] for name in half.declared.handoffs]
        context = Context(identity, half.found.folder, half.found.version)
        given[identity] = Made(half.agent, context, half.package, None, half.declared.description)
    return given


class _Half(NamedTuple):
    """An agent without those that it names."""

    found: Found
    declared: Declared
    agent: Any
    tools: Sequence[Any]
    package: str


def _failing(made: Mapping[str, _Half], known: Mapping[str, Any]) -> Iterator[tuple[str, Failed]]:
    for identity, half in made.items():
        missing = [name for name in refers(half.found) if name not in made and name not in known]
        if missing:
            yield identity, Failed(f"it names {', '.join(missing)}, and no such agent could be loaded")


def _full(name: str, identity: str) -> str:
    """An id of a name as one agent writes it."""
    return (name if "/" in name else f"{identity.rpartition('/')[0]}/{name}").lower()


def _agent(sdk: Any, declared: Declared) -> Any:
    rails: dict[str, list[Any]] = {"input": [], "output": []}
    for guardrail in declared.guardrails:
        rails[guardrail.on].append(_guardrail(sdk, guardrail))
    known = {field.name for field in dataclasses.fields(sdk.ModelSettings)}
    if unknown := sorted(set(declared.settings) - known):
        raise Failed(f"settings: there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    try:
        settings = {"model_settings": sdk.ModelSettings(**declared.settings)} if declared.settings else {}
    except pydantic.ValidationError as error:
        told = (f"settings.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise Failed("; ".join(told)) from None
    return sdk.Agent(
        name=declared.name,
        instructions=declared.instructions,
        handoff_description=declared.description or None,
        model=declared.model,
        output_type=_schema(declared.name, declared.output) if declared.output is not None else None,
        input_guardrails=rails["input"],
        output_guardrails=rails["output"],
        **settings,
    )


def _made(sdk: Any, tool: str | NamedTool, found: Found, package: str) -> Any:
    """The tool; another agent as it was named, which may not be there yet."""
    if isinstance(tool, str):
        return _of_file(sdk, tool, found, package)
    if tool.tool is None:
        return tool
    from agw_proxy.sdk.gateway_tools import gateway_tool  # noqa: PLC0415  it brings the SDK, which is there by now

    return gateway_tool(tool.tool, called=tool.name, description=tool.description)


def _of_agent(tool: Any, identity: str, agents: Mapping[str, Any]) -> Any:
    if not isinstance(tool, NamedTool) or tool.agent is None:
        return tool
    agent = agents[_full(tool.agent, identity)]
    return agent.as_tool(tool_name=tool.name, tool_description=tool.description or agent.handoff_description)


def _of_file(sdk: Any, tool: str, found: Found, package: str) -> Any:
    file, colon, name = tool.partition(":")
    if not colon or not file.endswith(".py") or not file.removesuffix(".py").isidentifier():
        raise Failed(
            f"tools: expected FILE.py:NAME with a file beside agents.yaml, {{agent: NAME}} or {{tool: NAME}}; came {tool!r}"
        )
    module = import_file(package, found.root, ".".join((*found.parts, file.removesuffix(".py"))))
    value = getattr(module, name, None)
    if value is None:
        raise Failed(f"tools: {file} has no {name}")
    made = sdk.function_tool(value) if inspect.isroutine(value) else value
    from agw_proxy.sdk.parts import is_tool, told  # noqa: PLC0415  it brings the SDK, which is there by now

    if not is_tool(made):
        raise Failed(f"tools: expected {tool} to be a function or a tool of the SDK; came {told(made)}")
    return made


def _guardrail(sdk: Any, guardrail: Guardrail) -> Any:
    patterns = [re.compile(pattern) for pattern in guardrail.refuse]
    name = guardrail.name or f"declared_{guardrail.on}"

    def check(text: str) -> Any:
        why = f"more than {guardrail.max_characters} characters" if len(text) > guardrail.max_characters else None
        if why is None:
            why = next((f"refused by {each.pattern}" for each in patterns if each.search(text[:MAX_CHARACTERS])), None)
        return sdk.GuardrailFunctionOutput(output_info=why, tripwire_triggered=why is not None)

    async def asked(_context: Any, _agent: Any, given: Any) -> Any:
        return check(_asked_text(given))

    async def answered(_context: Any, _agent: Any, output: Any) -> Any:
        return check(output if isinstance(output, str) else json.dumps(output, default=str, ensure_ascii=False))

    if guardrail.on == "output":
        return sdk.OutputGuardrail(guardrail_function=answered, name=name)
    # Not beside the model: what must not come in is not to be answered meanwhile.
    return sdk.InputGuardrail(guardrail_function=asked, name=name, run_in_parallel=False)


def _asked_text(given: Any) -> str:
    """All that users say in an input of the SDK."""
    if isinstance(given, str):
        return given
    said = [item.get("content") for item in given if isinstance(item, dict) and item.get("role") == "user"]
    parts = [part for content in said for part in (content if isinstance(content, list) else [content])]
    return "\n".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in parts)


def _schema(name: str, schema: dict[str, Any]) -> Any:
    """An output type of a JSON Schema. The model is held to it; what it says is checked to be JSON of that kind."""
    from agents import AgentOutputSchemaBase  # noqa: PLC0415  it is there by now
    from agents.exceptions import ModelBehaviorError  # noqa: PLC0415  likewise

    class DeclaredOutput(AgentOutputSchemaBase):
        def is_plain_text(self) -> bool:
            return False

        def name(self) -> str:
            return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]

        def json_schema(self) -> dict[str, Any]:
            return schema

        def is_strict_json_schema(self) -> bool:
            return schema.get("additionalProperties") is False

        def validate_json(self, json_str: str) -> Any:
            try:
                value = json.loads(json_str)
            except ValueError as error:
                raise ModelBehaviorError(f"expected JSON as an answer: {error}") from None
            missing = [each for each in schema.get("required", ()) if not isinstance(value, dict) or each not in value]
            if missing:
                raise ModelBehaviorError(f"the answer lacks {', '.join(map(str, missing))}")
            return value

    return DeclaredOutput()
