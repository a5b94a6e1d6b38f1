"""Instances fit their schemas, by the reference validator; what has none is refused, and no schema takes long."""

import importlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy.upstreams.echo_schema import MAX_DEPTH, MAX_STEPS, NoInstance, SchemaError, instance

jsonschema: Any = importlib.import_module("jsonschema")  # it has no types

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer", "minimum": 3},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "others": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
    "required": ["value", "next", "others"],
    "additionalProperties": False,
}
TREE = {"$defs": {"node": NODE}, "$ref": "#/$defs/node"}

FITTING: list[tuple[Any, Any]] = [
    ({"type": "string"}, ""),
    ({"type": "integer"}, 0),
    ({"type": "number", "minimum": 0.5}, 0.5),
    ({"type": "boolean"}, False),
    ({"type": "null"}, None),
    (True, None),
    ({"type": ["string", "null"]}, ""),
    ({"type": "string", "minLength": 3}, "xxx"),
    ({"type": "string", "format": "date"}, "2020-01-01"),
    ({"type": "string", "enum": ["b", "a"]}, "b"),
    ({"type": "integer", "enum": ["a", True, 4]}, 4),
    ({"const": {"a": [1]}}, {"a": [1]}),
    ({"type": "array", "items": {"type": "string"}}, []),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
    ({"prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 3}, [1, 2, 2]),
    ({"properties": {"a": {"type": "string"}, "b": {}}}, {"a": "", "b": None}),
    ({"type": "object", "required": ["x"]}, {"x": None}),
    ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 0),
    ({"oneOf": [False, {"type": "string"}]}, ""),
    ({"type": "object", "properties": {"a": {"const": 1}}, "anyOf": [{"required": ["b"]}]}, {"a": 1, "b": None}),
    ({"anyOf": [{"minimum": 3}, {}], "oneOf": [{"type": "integer"}]}, 3),
    ({"allOf": [{"type": "number", "minimum": 2}, {"type": "integer", "minimum": 5}]}, 5),
    ({"allOf": [{"enum": [1, 2]}, {"enum": [True, 2, 3]}]}, 2),
    (
        {
            "allOf": [
                {"properties": {"a": {"minLength": 2}}},
                {"properties": {"a": {"type": "string"}, "b": {"const": 0}}},
            ]
        },
        {"a": "xx", "b": 0},
    ),
    ({"allOf": [{"items": {"minimum": 1}}, {"items": {"type": "integer"}, "minItems": 1}]}, [1]),
    ({"$defs": {"a/b": {"const": 7}}, "$ref": "#/$defs/a~1b"}, 7),
    ({"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "minLength": 1}, "x"),
    ({"anyOf": [{"const": 5}], "properties": {"a": {"$ref": "#/anyOf/0"}}, "type": ["object", "integer"]}, 5),
    ({"type": "integer", "exclusiveMinimum": 2}, 3),
    ({"type": "integer", "maximum": -2}, -2),
    ({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1.5}, 1.25),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, 0.5),
    ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
    ({"type": "number", "minimum": 0.3, "multipleOf": 0.25}, 0.5),
    ({"type": "integer", "minimum": 1e30}, 1e30),
    (TREE, {"value": 3, "next": None, "others": []}),
    ({"type": "object", "properties": {"again": {"$ref": "#"}}}, {}),
]


@pytest.mark.parametrize(("schema", "expected"), FITTING)
def test_an_instance_is_minimal_and_fits(schema: Any, expected: Any) -> None:
    made = instance(schema)
    assert made == expected
    assert type(made) is type(expected)
    jsonschema.validate(made, schema)


@pytest.mark.parametrize(
    ("schema", "error", "says"),
    [
        (False, NoInstance, "allows nothing"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, NoInstance, "without an end"),
        ({"$ref": "#"}, NoInstance, "without an end"),
        ({"anyOf": []}, NoInstance, "an option"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, NoInstance, "bounds"),
        ({"type": "number", "minimum": 1e300, "multipleOf": 1e-300}, NoInstance, "bounds"),
        ({"type": "string", "enum": [1]}, NoInstance, "type asked for"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, NoInstance, "no type is left"),
        ({"allOf": [{"const": 1}, {"const": True}]}, NoInstance, "const"),
        ({"$ref": "#/nowhere"}, SchemaError, "leads nowhere"),
        ({"$ref": "https://example.com/x"}, SchemaError, "same schema"),
        ({"$ref": []}, SchemaError, "got list"),
        ({"type": "thing"}, SchemaError, "got 'thing'"),
        ({"type": {}}, SchemaError, "got dict"),
        ({"properties": {"a": 3}}, SchemaError, "got int"),
        ({"enum": 3}, SchemaError, "an array"),
        ({"const": 2**64}, SchemaError, "64 bits"),
        ({"type": "integer", "minimum": 10**400}, SchemaError, "64-bit float"),
    ],
)
def test_what_has_no_instance_is_refused(schema: Any, error: type[SchemaError], says: str) -> None:
    with pytest.raises(error, match=says):
        instance(schema)


def _doubling(levels: int) -> Any:
    """A few lines that ask for 2**levels values."""
    pairs = {
        f"level{n}": {"properties": {side: {"$ref": f"#/$defs/level{n + 1}"} for side in "lr"}} for n in range(levels)
    }
    return {"$defs": {**pairs, f"level{levels}": {}}, "$ref": "#/$defs/level0"}


@pytest.mark.parametrize(
    "schema",
    [
        _doubling(20),
        {"type": "array", "minItems": 10**30},
        {"type": "string", "minLength": 10**30},
        {"type": "array", "minItems": 600, "items": {"const": "x" * 10_000}},
        {"type": "array", "minItems": 600, "items": {"properties": {"x" * 10_000: {}}}},
        {"allOf": [{"enum": list(range(5_000))}, {"enum": list(range(5_000, 10_000))}]},
    ],
)
def test_an_instance_that_would_be_large_is_refused(schema: Any) -> None:
    with pytest.raises(SchemaError, match=str(MAX_STEPS)):
        instance(schema)


def test_a_schema_that_is_deep_is_refused_before_the_stack_is() -> None:
    schema: Any = {}
    for _ in range(900):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    with pytest.raises(SchemaError, match=f"{MAX_DEPTH} levels"):
        instance(schema)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)
POINTERS = st.sampled_from(["#", "#/properties/a", "#/anyOf/0", "#/$defs/x", "#/items"])
KINDS = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])


def _keywords(schema: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": KINDS | st.lists(KINDS, min_size=1, max_size=3),
            "properties": st.dictionaries(st.sampled_from("abc"), schema, max_size=3),
            "required": st.lists(st.sampled_from("abc"), max_size=2),
            "items": schema,
            "minItems": st.integers(0, 3),
            "anyOf": st.lists(schema, max_size=3),
            "allOf": st.lists(schema, max_size=3),
            "$ref": POINTERS,
            "enum": st.lists(VALUES, max_size=3),
            "const": VALUES,
            "minimum": st.integers(-9, 9) | st.floats(-1e300, 1e300),
            "exclusiveMaximum": st.integers(-9, 9) | st.floats(-1e300, 1e300),
            "multipleOf": st.integers(1, 9) | st.floats(1e-300, 1e300),
            "minLength": st.integers(0, 9),
        },
    )


SCHEMAS = st.recursive(st.booleans(), _keywords, max_leaves=12)


@settings(max_examples=300, deadline=None)
@given(
    schema=SCHEMAS
    | st.recursive(
        VALUES,
        lambda inner: st.dictionaries(
            st.sampled_from(["$ref", "type", "anyOf", "items", "properties", "enum", "minimum"]), inner
        ),
    )
)
def test_any_schema_has_an_instance_or_is_refused_and_always_the_same(schema: Any) -> None:
    assert _outcome(schema) == _outcome(schema)


def _outcome(schema: Any) -> tuple[str, Any]:
    try:
        return "made", instance(schema)
    except SchemaError as error:
        return "refused", str(error)
