"""Which tools the built-in model calls, and with which arguments; and the smallest instance of a schema. Pure."""

import orjson

from agw_proxy.errors import InvalidParameter
from agw_proxy.upstreams.echo_requests import ChatRequest, Function, ToolChoice, Tree
from agw_proxy.upstreams.echo_schema import SchemaError, instance

MAX_CALLS = 16  # lines that are read for calls
SAYS_TYPE = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})


def called(request: ChatRequest, last: tuple[bool, str] | None) -> list[tuple[str, str]]:
    """Choose the tools to call and their arguments as JSON.

    ``last``: whether a tool has spoken last, and what was said; None where nobody has. Raises InvalidParameter.
    """
    functions: dict[str, tuple[int, Function]] = {}
    for index, tool in enumerate(request.tools or ()):
        if tool.type == "function" and tool.function is not None:
            functions.setdefault(tool.function.name, (index, tool.function))
    choice = request.tool_choice
    asked = _asked_for(last[1], functions) if last is not None and not last[0] else []
    if isinstance(choice, ToolChoice):
        wanted = choice.function.name
        if wanted not in functions:
            raise InvalidParameter(f"tool_choice names '{wanted}', which is not in tools.", param="tool_choice")
        asked = [one for one in asked if one[0] == wanted][:1] or [(wanted, None)]
    elif choice == "required":
        if not functions:
            raise InvalidParameter("tool_choice is 'required', but tools has no function.", param="tool_choice")
        asked = asked or [(next(iter(functions)), None)]
    if choice == "none":
        return []
    return [
        (name, arguments or fitting(functions[name][1].parameters, f"tools[{functions[name][0]}].function.parameters"))
        for name, arguments in asked
    ]


def _asked_for(text: str, functions: dict[str, tuple[int, Function]]) -> list[tuple[str, str | None]]:
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


def _asked(text: str, functions: dict[str, tuple[int, Function]]) -> tuple[str | None, str | None]:
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
