"""What the providers publish of their requests, as checkers: OpenAI's and Anthropic's own SDK types, unknown members refused."""

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

import anthropic.types
import openai.types.chat.completion_create_params
import openai.types.responses.response_create_params
import openai.types.shared_params
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import is_typeddict

Tree = dict[str, Any]
FORBID = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def _strict(package: ModuleType) -> None:
    """Let the typed dicts of a package refuse members that they do not name."""
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for item in vars(importlib.import_module(found.name)).values():
            if is_typeddict(item):
                item.__pydantic_config__ = FORBID


@cache
def _checker(spoken: str) -> TypeAdapter[Any]:
    if spoken == "messages":
        _strict(anthropic.types)
        return TypeAdapter(anthropic.types.MessageCreateParams)
    for package in (openai.types.chat, openai.types.responses, openai.types.shared_params):
        _strict(package)
    params: Any = openai.types.chat.completion_create_params.CompletionCreateParams
    if spoken == "responses":
        params = openai.types.responses.response_create_params.ResponseCreateParams
    return TypeAdapter(params)


OLDER = frozenset({"temperature", "top_p", "top_k"})
"""Members of Messages that the SDK's types have no more, since newer models refuse them; older ones take them."""


def check_request(spoken: str, tree: Tree) -> None:
    """Raise where the provider would refuse the request, or has no such member."""
    if spoken == "messages":
        tree = {name: value for name, value in tree.items() if name not in OLDER}
    _read_out(_checker(spoken).validate_python(tree))


def ready() -> None:
    """Make the checkers now: it takes seconds, in which no upstream would answer."""
    for spoken in ("chat", "responses", "messages"):
        _checker(spoken)


def _read_out(value: object) -> None:
    """Go through all of it: what may be any iterable is only checked as it is read."""
    if isinstance(value, dict):
        for item in value.values():
            _read_out(item)
    elif not isinstance(value, str | bytes | int | float | bool | None):
        _read_all(value)


def _read_all(several: Any) -> None:
    """Of a list, or of pydantic's iterator over one."""
    for item in several:
        _read_out(item)
