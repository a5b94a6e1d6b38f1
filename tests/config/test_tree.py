"""Laws of the merge, and how problems read."""

from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.tree import ConfigError, Node, Origin, Problem, from_plain, locate, merge, plain


def _named(name: str, rest: dict[str, Any]) -> dict[str, Any]:
    return {**rest, "name": name}


scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "b", ""])
names = st.sampled_from(["a", "b", "c", "d"])
trees: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
mappings = st.dictionaries(names, trees, max_size=4)
named_lists = st.lists(names, unique=True, min_size=1, max_size=4).flatmap(
    lambda chosen: st.tuples(
        *(st.dictionaries(names, scalars, max_size=2).map(partial(_named, name)) for name in chosen)
    ).map(list)
)


def tree(value: Any) -> Node:
    return from_plain(value, Origin("f.yaml", 1))


def merged(base: Any, over: Any) -> Any:
    return plain(merge(tree(base), tree(over)))


@given(mappings)
def test_nothing_on_either_side_changes_nothing(value: dict[str, Any]) -> None:
    assert merged(value, {}) == value
    assert merged({}, value) == value


@given(trees)
def test_merging_a_tree_with_itself_gives_it(value: Any) -> None:
    assert merged(value, value) == value


@given(mappings, mappings)
def test_laying_over_twice_is_laying_over_once(base: dict[str, Any], over: dict[str, Any]) -> None:
    once = merged(base, over)
    assert merged(once, over) == once


@given(mappings, mappings)
def test_the_overlay_wins_and_only_adds_its_own_keys(base: dict[str, Any], over: dict[str, Any]) -> None:
    result = merged(base, over)
    assert set(result) == set(base) | set(over)
    for key, value in over.items():
        if not isinstance(value, dict | list):
            assert result[key] == value


@given(named_lists, named_lists)
def test_lists_merge_by_name(base: list[dict[str, Any]], over: list[dict[str, Any]]) -> None:
    result = merged(base, over)
    old = [item["name"] for item in base]
    assert [item["name"] for item in result] == old + [item["name"] for item in over if item["name"] not in old]
    by_name = {item["name"]: item for item in result}
    for item in over:
        assert item.items() <= by_name[item["name"]].items()


@given(mappings, mappings)
def test_a_merge_changes_neither_side(base: dict[str, Any], over: dict[str, Any]) -> None:
    left, right = tree(base), tree(over)
    merge(left, right)
    assert (plain(left), plain(right)) == (base, over)


def test_an_empty_list_and_null_clear() -> None:
    assert merged({"a": [{"name": "x"}], "b": {"c": 1}}, {"a": [], "b": None}) == {"a": [], "b": None}


def test_a_duplicate_name_survives_the_merge() -> None:
    assert merged([{"name": "x", "a": 1}], [{"name": "x"}, {"name": "x", "b": 2}]) == [
        {"name": "x", "a": 1},
        {"name": "x", "b": 2},
    ]


def test_values_keep_the_origin_of_their_own_layer() -> None:
    base = from_plain({"a": {"b": 1, "c": 2}}, Origin("base.yaml", 3))
    over = from_plain({"a": {"c": 4}}, Origin("over.yaml", 5))
    result = merge(base, over)
    assert str(result.value["a"].value["b"].origin) == "base.yaml:3"
    assert str(result.value["a"].value["c"].origin) == "over.yaml:5"


def test_a_path_reads_by_names() -> None:
    root = tree({"keys": [{"name": "dev", "limits": [{"per": "key"}]}]})
    assert locate(root, ("keys", 0, "limits", 0, "per"))[1] == "keys.dev.limits.0.per"
    assert locate(root, ("keys", 0, "mis\nsing"))[1] == "keys.dev.'mis\\nsing'"


def test_a_config_error_lists_every_problem() -> None:
    error = ConfigError([Problem("is required", "a.b", "f.yaml", 2), Problem("unknown name", variable="GATEWAY_X")])
    assert str(error).splitlines() == [
        "the configuration has 2 problems:",
        "  f.yaml:2: a.b: is required",
        "  environment GATEWAY_X: unknown name",
    ]
