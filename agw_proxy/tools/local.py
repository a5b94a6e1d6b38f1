"""Functions of Python as tools: the schema of their input from their signature, which also checks what a model sends.

A function in a file is imported under a name of its own, so that it shadows no package, and anew when its folder changes.
"""

import functools
import hashlib
import importlib
import inspect
import itertools
import json
import re
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NotRequired, Required

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, with_config
from pydantic_core import PydanticSerializationError, to_json
from typing_extensions import TypedDict

from agw_proxy.config.tools import Tool as Settings
from agw_proxy.tools.modules import forget, import_file, new_package
from agw_proxy.tools.registry import Begin, Refused, Spec
from agw_proxy.tools.registry import Tool as Kind
from agw_proxy.tools.threads import begin

MAX_RESULT_BYTES = 1 << 20
"""Of what a tool gives: no model reads more."""
MAX_ARGUMENT_BYTES = 4 << 20
MAX_ERRORS = 8
"""Of one input, that a model is told."""
MAX_FILES = 1000
"""Of a tool's folder, that its version is made of."""
VERSION_DIGITS = 12
PARAMETER = re.compile(r"^\s*(?::param(?:\s+[^:\s]+)?\s+(\w+):|\*{0,2}(\w+)\s*(?:\([^)]*\))?:)\s*(.*)$")
SECTION = re.compile(r"^\s*(Args|Arguments|Parameters|Returns?|Raises|Yields|Examples?|Notes?):\s*$")


class Failed(Exception):
    """A tool cannot be made of what is there. The message is for whoever writes it."""


class Function:
    """A function that models may call."""

    def __init__(self, function: Callable[..., Any], *, description: str | None = None, version: str = "") -> None:
        """``description``: None takes its docstring. Raises Failed where its parameters can be no schema."""
        self._function = function
        self._name = getattr(function, "__name__", type(function).__name__)
        if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(_annotated(function)):
            raise Failed("it is an async generator; a tool gives one result, so let it return a list")
        self._asynchronous = _is_async(function)
        self.version = version
        text, told = documented(inspect.getdoc(function) or "")
        try:
            self._input = TypeAdapter(_input(function, told))
            schema = self._input.json_schema()
        except (PydanticUserError, NameError, TypeError) as error:
            raise Failed(f"its parameters can be no schema: {error}") from None
        self.spec = Spec(description if description is not None else text, _untitled(schema))

    def prepare(self, arguments: str) -> Begin:
        """See ``registry.Tool``."""
        if len(arguments) > MAX_ARGUMENT_BYTES:
            raise Refused(f"The arguments are longer than {MAX_ARGUMENT_BYTES} characters.", "invalid")
        try:
            given = self._input.validate_json(arguments or "{}")
        except ValidationError as error:
            raise Refused(f"The arguments are not what the tool takes: {_wrong(error)}", "invalid") from None
        return functools.partial(self._run, given)

    async def _run(self, given: dict[str, Any], free: Callable[[], None]) -> str:
        if self._asynchronous:
            try:
                return words(await self._function(**given))
            finally:
                free()
        return await begin(lambda: self._on_thread(given), f"agw-tool {self._name}", free)

    def _on_thread(self, given: dict[str, Any]) -> str:
        result = self._function(**given)
        if inspect.iscoroutine(result):  # of a decorator that is not async itself
            result.close()
            raise TypeError(f"{self._name} gives a coroutine, and is not 'async def' itself")
        return words(result)


def load(settings: Settings, old: Kind | None = None) -> Kind:
    """The tool that is configured; ``old`` itself where nothing has changed. Raises Failed, and what its module raises."""
    place, _, name = settings.python.rpartition(":")
    file = Path(place) if place.endswith(".py") else None
    version = _version(settings, file)
    if old is not None and old.version == version:
        return old
    module = importlib.import_module(place) if file is None else _module(file)
    value = getattr(module, name, None)
    if value is None:
        raise Failed(f"{place} has no {name}")
    if not callable(value):
        raise Failed(f"{settings.python} is to be a function; came {type(value).__name__}")
    return Function(value, description=settings.description, version=version)


def _module(file: Path) -> ModuleType:
    """Its module; those beside it are there for ``from .name import``. Raises Failed."""
    if not file.is_file():
        raise Failed(f"there is no file {file}")
    package = new_package()
    try:
        return import_file(package, file.resolve().parent, file.stem)
    except BaseException as error:
        forget(package)
        if isinstance(error, Exception):
            raise Failed(f"{file}: {type(error).__name__}: {error}") from error
        raise


def _version(settings: Settings, file: Path | None) -> str:
    made = hashlib.sha256(settings.model_dump_json().encode())
    for each in itertools.islice(sorted(file.parent.glob("*.py")), MAX_FILES) if file is not None else ():
        made.update(each.name.encode("utf-8", "surrogateescape"))
        made.update(hashlib.sha256(each.read_bytes()).digest())
    return made.hexdigest()[:VERSION_DIGITS]


def _input(function: Callable[..., Any], told: dict[str, str]) -> Any:
    """The type of its input: a mapping with a member a parameter. Raises Failed, and NameError for a type that is not there."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:
        raise Failed(f"it has no signature: {error}") from None
    hints = typing.get_type_hints(_annotated(function), include_extras=True)
    members: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise Failed(f"a parameter must have a name of its own to be given by; '{parameter}' has none")
        extra: dict[str, Any] = {"description": told[parameter.name]} if parameter.name in told else {}
        needed = parameter.default is parameter.empty
        if not needed and (default := _plain(parameter.default)) is not None:
            extra["json_schema_extra"] = {"default": default}
        told_as = hints.get(parameter.name, Any)
        member = Annotated[told_as, Field(**extra)] if extra else told_as
        members[parameter.name] = Required[member] if needed else NotRequired[member]
    kind: Any = TypedDict("Input", members)  # type: ignore[misc]  # its members are known here only
    return with_config(ConfigDict(extra="forbid"))(kind)


def _annotated(function: Callable[..., Any]) -> Any:
    """What carries the annotations: of an object that can be called, its method."""
    return function if inspect.isroutine(function) else type(function).__call__


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_annotated(function))


def _plain(value: object) -> Any:
    """A default as JSON; None where it is none, or cannot be."""
    try:
        return json.loads(to_json(value))
    except (PydanticSerializationError, ValueError):
        return None


def _untitled(tree: Any) -> Any:
    """A schema without the titles that pydantic makes of names."""
    if isinstance(tree, list):
        return [_untitled(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    kept = {name: value for name, value in tree.items() if name != "title" or not isinstance(value, str)}
    return {
        name: {each: _untitled(inner) for each, inner in value.items()}
        if name in {"properties", "$defs"} and isinstance(value, dict)
        else _untitled(value)
        for name, value in kept.items()
    }


def documented(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of its parameters (Google's form or Sphinx')."""
    said: list[str] = []
    told: dict[str, str] = {}
    section, last = "", ""
    for line in text.splitlines():
        head, item = SECTION.match(line), PARAMETER.match(line)
        if head is not None:
            section, last = head[1], ""
        elif item is not None and (item[1] or section in {"Args", "Arguments", "Parameters"}):
            last = item[1] or item[2]
            told[last] = item[3].strip()
        elif last and line.strip():
            told[last] = f"{told[last]} {line.strip()}".strip()
        elif not section and not told:
            said.append(line)
    return "\n".join(said).strip(), told


def _wrong(error: ValidationError) -> str:
    """What was expected where; never what came."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, each['loc'])) or 'input'}: {each['msg']}" for each in found[:MAX_ERRORS]]
    return "; ".join(lines)


def words(result: object) -> str:
    """What a tool has given, as a model reads it: text as it is, all else as JSON. Raises Refused where it is too much."""
    if isinstance(result, str):
        text = result
    elif isinstance(result, BaseModel):
        text = result.model_dump_json()
    else:
        text = to_json(result, fallback=str).decode()
    if len(text.encode("utf-8", "surrogatepass")) > MAX_RESULT_BYTES:
        raise Refused(f"The tool gave more than {MAX_RESULT_BYTES} bytes.", "failed")
    return text
