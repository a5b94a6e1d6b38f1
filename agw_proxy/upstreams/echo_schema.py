"""A minimal instance of a JSON Schema (2020-12), for answers and tool arguments that have to fit one.

Understood: ``type``, ``properties``, ``required``, ``enum``, ``const``, ``prefixItems``, ``items``, ``minItems``,
``anyOf`` and ``oneOf`` (the first option that has an instance), ``allOf`` (merged), ``$ref`` into the same document,
bounds and ``multipleOf`` of numbers, ``minLength`` and the common ``format``s. Other keywords (``pattern``, ``not``,
``if``, ``uniqueItems``, ``contains``, ``additionalProperties``) are passed over: an instance may break those. Of a
value of ``const`` or ``enum`` only the type is looked at.
"""

import math
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import orjson

MAX_STEPS = 10_000  # bounds time and size of one instance: a few lines of schema can ask for gigabytes
CHARACTERS_A_STEP = 64  # what a long text costs of that
MAX_DEPTH = 64  # as deep as a request body may be; well inside the interpreter's stack
EXACT_INTEGER = 2**53  # beyond it JSON readers differ: such a bound is handled, and sent, as a float

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
TELLING = {  # a keyword tells the type where ``type`` does not
    "object": ("properties", "required"),
    "array": ("prefixItems", "items", "minItems"),
    "string": ("minLength", "format", "pattern"),
    "number": ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"),
}
TIGHTER: dict[str, Callable[[Any, Any], Any]] = {  # of two values of a keyword, the one that implies the other
    "minimum": max,
    "exclusiveMinimum": max,
    "minLength": max,
    "minItems": max,
    "maximum": min,
    "exclusiveMaximum": min,
}
FORMATS = {
    "date-time": "2020-01-01T00:00:00Z",
    "date": "2020-01-01",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "email": "echo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

Members = dict[str, Any]


class SchemaError(ValueError):
    """The schema cannot be used. The message says what was expected and what came."""


class NoInstance(SchemaError):
    """Nothing satisfies this part of the schema (an optional part is left out, an option is passed over)."""


def instance(schema: Any) -> Any:
    """Make the smallest JSON value that we can for ``schema``, the same each time; all properties are present.

    Optional properties that lead back to themselves are left out. Raises SchemaError where there is no finite instance,
    the schema is not one, or it asks for more than MAX_STEPS values.
    """
    return _Maker(schema).make(schema, frozenset({"#"}), 0)


class _Maker:
    """One walk. ``active`` are the references being followed: a smallest instance never holds one inside itself."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0

    def make(self, schema: Any, active: frozenset[str], depth: int) -> Any:
        members, choices, active = self._flat(schema, active, depth)
        if choices:
            return self._choose(members, choices, active, depth)
        types = _types(members)
        if "const" in members:
            return self._given([members["const"]], types)
        if "enum" in members:
            return self._given(members["enum"], types)
        failed = NoInstance("no type is left that the schema allows")
        for kind in [_told(members)] if types is None else types:
            try:
                return self._typed(kind, members, active, depth)
            except NoInstance as error:
                failed = error
        raise failed

    def _typed(self, kind: str, members: Members, active: frozenset[str], depth: int) -> Any:
        match kind:
            case "object":
                return self._object(members, active, depth)
            case "array":
                return self._array(members, active, depth)
            case "string":
                return self._string(members)
            case "integer" | "number":
                return _number(members, whole=kind == "integer")
            case "boolean":
                return False
        return None

    def _object(self, members: Members, active: frozenset[str], depth: int) -> Members:
        required = [name for name in _items(members, "required") if isinstance(name, str)]
        made: Members = {}
        for name, schema in _mapping(members, "properties").items():
            self._spend(len(name))
            try:
                made[name] = self.make(schema, active, depth + 1)
            except NoInstance:
                if name in required:
                    raise
        for name in required:
            self._spend(len(name))
            made.setdefault(name, None)
        return made

    def _array(self, members: Members, active: frozenset[str], depth: int) -> list[Any]:
        items = members.get("items", True)
        prefix = _items(members, "prefixItems") or (items if isinstance(items, list) else [])
        rest = True if isinstance(items, list) else items
        wanted = _count(members, "minItems")
        return [self.make(prefix[index] if index < len(prefix) else rest, active, depth + 1) for index in range(wanted)]

    def _string(self, members: Members) -> str:
        length = _count(members, "minLength")
        self._spend(length)
        form = members.get("format")
        return (FORMATS.get(form, "") if isinstance(form, str) else "").ljust(length, "x")

    def _given(self, values: Any, types: list[str] | None) -> Any:
        if not isinstance(values, list):
            raise SchemaError("expected `enum` to be an array")
        for value in values:
            self._spend(0)
            if types is None or any(_is(value, kind) for kind in types):
                self._weigh(value)
                return value
        raise NoInstance("no value of `enum` or `const` has the type asked for")

    def _choose(self, members: Members, choices: list[list[Any]], active: frozenset[str], depth: int) -> Any:
        failed = NoInstance("expected `anyOf` or `oneOf` to have an option")
        others = [{"anyOf": options} for options in choices[1:]]
        for option in choices[0]:
            try:
                return self.make({**members, "allOf": [option, *others]}, active, depth + 1)
            except NoInstance as error:
                failed = error
        raise failed

    def _flat(self, schema: Any, active: frozenset[str], depth: int) -> tuple[Members, list[list[Any]], frozenset[str]]:
        """Merge ``$ref`` and ``allOf`` in: gives members, lists of options, and the references followed on the way."""
        self._spend(0)
        if depth > MAX_DEPTH:
            raise SchemaError(f"expected a schema at most {MAX_DEPTH} levels deep, references followed")
        if schema is True:
            return {}, [], active
        if schema is False:
            raise NoInstance("`false` as a schema allows nothing")
        if not isinstance(schema, dict):
            raise SchemaError(f"expected a schema to be an object or a boolean, got {_shown(schema)}")
        self._spend(len(schema) * 4)
        merged = {key: value for key, value in schema.items() if key not in {"$ref", "allOf", "anyOf", "oneOf"}}
        choices = [_items(schema, key) for key in ("anyOf", "oneOf") if key in schema]
        followed = active
        parts = [(part, active) for part in _items(schema, "allOf")]
        if "$ref" in schema:
            pointer = schema["$ref"]
            if isinstance(pointer, str) and pointer in active:
                raise NoInstance(f"the reference {_shown(pointer)} leads back to itself without an end")
            parts.append((self._look_up(pointer), active | {pointer}))
        for part, path in parts:
            more, options, walked = self._flat(part, path, depth + 1)
            merged = self._merge(merged, more)
            choices += options
            followed |= walked
        return merged, choices, followed

    def _merge(self, one: Members, two: Members) -> Members:
        self._spend((len(one) + len(two)) * 4)
        merged = {**one, **two}
        for key in one.keys() & two.keys():
            mine, other = one[key], two[key]
            if key == "properties" and isinstance(mine, dict) and isinstance(other, dict):
                self._spend((len(mine) + len(other)) * 4)
                both = {name: {"allOf": [mine[name], other[name]]} for name in mine if name in other}
                merged[key] = {**mine, **other, **both}
            elif key in TIGHTER and _is(mine, "number") and _is(other, "number"):
                merged[key] = TIGHTER[key](mine, other)
            elif key == "required" and isinstance(mine, list) and isinstance(other, list):
                self._spend((len(mine) + len(other)) * 4)
                merged[key] = mine + other
            elif key == "enum" and isinstance(mine, list) and isinstance(other, list):
                self._spend(len(mine) * len(other))
                merged[key] = [value for value in mine if any(_same(value, item) for item in other)]
            elif key == "const" and not _same(mine, other):
                raise NoInstance("two different values of `const` have to hold at once")
            elif key == "items":
                merged[key] = {"allOf": [mine, other]}
            elif key == "type":
                merged[key] = _common(_types(one) or [], _types(two) or [])
        return merged

    def _look_up(self, pointer: Any) -> Any:
        """Find the part of the document that a reference names (RFC 6901, as a URI fragment)."""
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise SchemaError(f"expected `$ref` to point into the same schema (#/...), got {_shown(pointer)}")
        self._spend(len(pointer))
        found = self._root
        for token in unquote(pointer[1:]).split("/")[1:]:
            name = token.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isascii() and name.isdecimal() and int(name[:9]) < len(found):
                found = found[int(name[:9])]
            else:
                raise SchemaError(f"`$ref` {_shown(pointer)} leads nowhere")
        return found

    def _weigh(self, value: Any) -> None:
        try:
            self._spend(len(orjson.dumps(value)))
        except TypeError:
            raise SchemaError(
                "a value of `enum` or `const` is nested too deeply or is an integer of over 64 bits"
            ) from None

    def _spend(self, characters: int) -> None:
        self._steps += 1 + characters // CHARACTERS_A_STEP
        if self._steps > MAX_STEPS:
            raise SchemaError(f"the smallest instance needs more than {MAX_STEPS} steps to make; simplify the schema")


def _number(members: Members, *, whole: bool) -> float:
    """0, or what is nearest to a bound. An integer comes as an int as far as JSON readers agree on it."""
    least, above = _bound(members, "minimum"), _bound(members, "exclusiveMinimum")
    most, below = _bound(members, "maximum"), _bound(members, "exclusiveMaximum")
    step = _bound(members, "multipleOf") or 0.0
    lows = [edge for edge in (least, above) if edge is not None]
    highs = [edge for edge in (most, below) if edge is not None]
    edges = lows + highs
    tried = [0.0, *edges]
    for edge in edges:
        try:
            unit = step if step > 0 else 1.0
            tried += [(math.floor(edge / unit) + n) * unit for n in (0, 1, -1)]
        except OverflowError:
            continue  # a step too fine for a bound so far out
    if lows and highs:
        tried.append(max(lows) / 2 + min(highs) / 2)
    for value in tried:
        if (
            (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
            and (step <= 0 or _divides(step, value))
            and (not whole or float(value).is_integer())
        ):
            return int(value) if float(value).is_integer() and abs(value) < EXACT_INTEGER else float(value)
    raise NoInstance("no number lies within the bounds")


def _divides(step: float, value: float) -> bool:
    quotient = value / step
    return math.isfinite(quotient) and float(quotient).is_integer()


def _bound(members: Members, key: str) -> float | None:
    value = members.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None  # also draft 4's boolean exclusiveMinimum
    try:
        return float(value)
    except OverflowError:
        raise SchemaError(f"expected `{key}` to fit a 64-bit float") from None


def _types(members: Members) -> list[str] | None:
    """List what ``type`` allows, in order; None where it says nothing."""
    given = members.get("type")
    if given is None:
        return None
    kinds = given if isinstance(given, list) else [given]
    for kind in kinds:
        if not isinstance(kind, str) or kind not in TYPES:
            raise SchemaError(f"expected `type` to be one of {', '.join(sorted(TYPES))}, got {_shown(kind)}")
    return kinds


def _common(one: list[str], two: list[str]) -> list[str]:
    both = [kind for kind in one if kind in two]
    if "integer" not in both and {"integer", "number"} <= {*one, *two} and ("integer" in one) != ("integer" in two):
        both.append("integer")
    return both


def _told(members: Members) -> str:
    return next((kind for kind, keys in TELLING.items() if any(key in members for key in keys)), "null")


def _is(value: Any, kind: str) -> bool:
    match value:
        case bool():
            return kind == "boolean"
        case None:
            return kind == "null"
        case int():
            return kind in {"integer", "number"}
        case float():
            return kind == "number" or (kind == "integer" and value.is_integer())
        case str():
            return kind == "string"
        case list():
            return kind == "array"
    return kind == "object"


def _same(one: Any, two: Any) -> bool:
    return isinstance(one, bool) == isinstance(two, bool) and bool(one == two)


def _items(members: Members, key: str) -> list[Any]:
    value = members.get(key)
    return value if isinstance(value, list) else []


def _mapping(members: Members, key: str) -> Members:
    value = members.get(key)
    return value if isinstance(value, dict) else {}


def _count(members: Members, key: str) -> int:
    value = members.get(key)
    return max(0, math.ceil(value)) if _is(value, "number") and value is not None else 0


def _shown(value: Any) -> str:
    return f"'{value[:60]}'" if isinstance(value, str) else type(value).__name__
