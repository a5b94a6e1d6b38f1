"""Which tools the built-in model calls, and with which arguments; and the smallest instance of a schema. Pure."""

import orjson

from agw_proxy.errors import InvalidParameter
from agw_proxy.upstreams.echo_requests import ChatRequest, Function, ToolChoice, Tree
from agw_proxy.upstreams.echo_schema import SchemaError, instance

MAX_CALLS = 16  # lines that are read for calls
Functions = dict[str, tuple[int, Function]]
"""By name: where each stands in ``tools``, and what it is."""
SAYS_TYPE = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})


def called(request: ChatRequest, last: tuple[bool, str] | None) -> list[tuple[str, str]]:
    """Choose the tools to call and their arguments as JSON.

    ``last``: whether a tool has spoken last, and what was said; None where nobody has. Raises InvalidParameter.
    """
    functions: Functions = {}
    for index, tool in enumerate(request.tools or ()):
        if tool.type == "function" and tool.function is not None:
            functions.setdefault(tool.function.name, (index, tool.function))
    mode, allowed, wanted = _chosen(request.tool_choice, functions)
    if mode == "none":
        return []
    asked = _asked_for(last[1], allowed) if last is not None and not last[0] else []
    if wanted is not None:
        asked = [one for one in asked if one[0] == wanted][:1] or [(wanted, None)]
    elif mode == "required":
        if not allowed:
            raise InvalidParameter("tool_choice is 'required', but tools has no function.", param="tool_choice")
        asked = asked or [(next(iter(allowed)), None)]
    if request.parallel_tool_calls is False:
        asked = asked[:1]
    return [
        (name, arguments or fitting(functions[name][1].parameters, f"tools[{functions[name][0]}].function.parameters"))
        for name, arguments in asked
    ]


def _chosen(choice: str | ToolChoice | None, functions: Functions) -> tuple[str | None, Functions, str | None]:
    """The mode, the functions that may be called, and the one that has to be. Raises InvalidParameter."""
    if not isinstance(choice, ToolChoice):
        return choice, functions, None
    if choice.function is not None:
        named, mode = [choice.function.name], "required"
    else:
        several = choice.allowed_tools
        named = [tool.function.name for tool in several.tools if tool.function is not None] if several else []
        mode = several.mode if several else "auto"
    for name in named:
        if name not in functions:
            raise InvalidParameter(f"tool_choice names '{name}', which is not in tools.", param="tool_choice")
    allowed = {name: functions[name] for name in named}
    return mode, allowed, named[0] if choice.function is not None else None


def _asked_for(text: str, functions: Functions) -> list[tuple[str, str | None]]:
    """Read what a user wants called: a "call NAME {...}", or several, a line each."""
    name, arguments = _asked(text, functions)
    if name is None:
        return []
    if arguments is None and "\n" in text:
        lines = [_asked(line, functions) for line in text.split("\n", MAX_CALLS)[:MAX_CALLS]]
        several = [(name, arguments) for name, arguments in lines if name is not None]
        if len(several) > 1:
            return several
    return [(name, arguments)]


def _asked(text: str, functions: Functions) -> tuple[str | None, str | None]:
    """Read a user's "call NAME {...}": the tool's name and the arguments as they were given, or None for each."""
    if not text.startswith("call "):
        return None, None
    rest = text[len("call ") :].lstrip()
    for name in sorted(functions, key=len, reverse=True):
        after = rest[len(name) :]
        if rest.startswith(name) and (not after or after[0].isspace() or after[0] == "{"):
            arguments = after.strip()
            try:
                return name, arguments if isinstance(orjson.loads(arguments), dict) else None
            except orjson.JSONDecodeError:
                return name, None
    return None, None


def fitting(schema: Tree | None, param: str) -> str:
    """Make a minimal instance of a schema, as JSON; an object where the schema leaves it open."""
    given = schema or {}
    try:
        return orjson.dumps(instance(given if given.keys() & SAYS_TYPE else {"type": "object", **given})).decode()
    except SchemaError as error:
        raise InvalidParameter(f"{param}: {error}.", param=param) from None
    except TypeError:
        raise InvalidParameter(f"{param}: its instance would be nested too deeply.", param=param) from None
