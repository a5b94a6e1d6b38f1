"""What the official client says of requests to ``/v1/responses``, as a check that refuses every unknown member.

The client's types are typed dictionaries with lazy iterables; they are rebuilt here with lists.
"""

import collections.abc
import types
from functools import cache
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter
from typing_extensions import TypedDict, is_typeddict

from agw_proxy.dialects.base import Tree

_closed: dict[Any, Any] = {}


def closed(hint: Any) -> Any:
    """The type with lists for iterables, for validation at once. Recursive types are left open at the second turn."""
    if is_typeddict(hint):
        return _closed_dict(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal or not args:
        return hint
    if origin in {Required, NotRequired}:
        return closed(args[0])
    inner = tuple(closed(each) for each in args)
    if origin in {Union, types.UnionType}:
        return Union[inner]  # noqa: UP007 - of a tuple
    if origin in {list, collections.abc.Iterable, collections.abc.Sequence}:
        return list[inner[0]]  # type: ignore[valid-type]
    return dict[inner[0], inner[1]] if origin is dict else hint  # type: ignore[valid-type]


def _closed_dict(hint: Any) -> Any:
    if hint not in _closed:
        _closed[hint] = Any  # while it is being made
        fields = {}
        for name, each in get_type_hints(hint, include_extras=True).items():
            needed = get_origin(each) is Required or name in hint.__required_keys__
            fields[name] = Required[closed(each)] if needed else NotRequired[closed(each)]
        make: Any = TypedDict
        _closed[hint] = make(hint.__name__, fields)
    return _closed[hint]


@cache
def adapter(*, stream: bool) -> TypeAdapter[Any]:
    return TypeAdapter(closed(ResponseCreateParamsStreaming if stream else ResponseCreateParamsNonStreaming))


def check_request(tree: Tree) -> None:
    """Raises pydantic's ValidationError. Beyond the types: bounds that the reference states."""
    adapter(stream=bool(tree.get("stream"))).validate_python(tree, strict=True, extra="forbid")
    assert isinstance(tree["model"], str)
    assert "input" in tree
    assert tree.get("max_output_tokens", 16) >= 16
    assert len(tree.get("user", "")) <= 64
    assert 0 <= tree.get("top_logprobs", 0) <= 20
    assert tree.get("tools") or "tool_choice" not in tree
    for item in tree["input"] if isinstance(tree["input"], list) else []:
        assert len(item.get("call_id", "")) <= 64
