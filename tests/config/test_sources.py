"""YAML and .env files: lines, duplicate keys, bounds, and other people's contents."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.sources import MAX_DEPTH, parse_dotenv, parse_yaml, read_text
from agw_proxy.config.tree import ConfigError, plain


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    return str(caught.value.problems[0])


def test_every_value_knows_its_line() -> None:
    root = parse_yaml("a: 1\nb:\n  c: x\n  d:\n    - y\n    - z\n", "f.yaml")
    assert root.value["a"].origin.line == 1
    assert root.value["b"].value["c"].origin.line == 3
    assert [item.origin.line for item in root.value["b"].value["d"].value] == [5, 6]
    assert str(root.value["a"].origin) == "f.yaml:1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", 1),
        ("a: -7", -7),
        ("a: 1.5", 1.5),
        ("a: yes", True),
        ("a: Off", False),
        ("a: ~", None),
        ("a:", None),
        ("a: '1'", "1"),
        ("a: !!str 1", "1"),
        ("a: 0777", "0777"),
        ("a: 1:30", "1:30"),
        ("a: 2024-01-01", "2024-01-01"),
        ("a: .inf", ".inf"),
        ("a: |\n  x\n  y\n", "x\ny\n"),
        ("a: " + "9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_read_as_people_mean_them(text: str, value: object) -> None:
    assert plain(parse_yaml(text, "f.yaml")) == {"a": value}


def test_without_the_c_parser_files_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    text = "a: &x [1, 'b', {c: 1.5}]\nd: *x\n"
    with_c = parse_yaml(text, "f.yaml")
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert parse_yaml(text, "f.yaml") == with_c
    assert "f.yaml:1: not valid YAML" in refused("a: [b: @canary")
    assert "canary" not in refused("a: *canary\n@canary")
    assert f"deeper than {MAX_DEPTH}" in refused("a: " + "[" * 20_000)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "\ufeff"])
def test_an_empty_file_is_an_empty_mapping(text: str, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    assert plain(parse_yaml(read_text(path, "f.yaml"), "f.yaml")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: the key 'a' is given twice"),
        ("a: {b: 1, b: 2}", "the key 'b' is given twice"),
        ("- a\n", "f.yaml:1: expected sections (a mapping)"),
        ("a: 1\n---\nb: 2\n", "second one"),
        ("a: *x\n", "alias (*) without an anchor"),
        ("a: &x [*x]\n", "alias (*) without an anchor"),
        ("a: !!python/object:os.system x\n", "tag is not supported"),
        ("a: !!set {b}\n", "tag is not supported"),
        ("a: !own [b]\n", "tag is not supported"),
        ("? [a]\n: b\n", "expected a plain text as a key"),
        ("a: [b\n", "not valid YAML"),
        ("a: b: c\n", "f.yaml:1: not valid YAML: mapping values are not allowed"),
        ("a: \x01\n", "not valid YAML"),
        ("<<: 1\n", "expected a mapping to merge"),
    ],
)
def test_what_is_refused_says_where(text: str, message: str) -> None:
    assert message in refused(text)


def test_aliases_are_copies_and_merge_keys_lie_beneath() -> None:
    root = parse_yaml("x: &base {a: 1, b: 2}\ny: {<<: *base, b: 3}\nz: *base\n", "f.yaml")
    assert plain(root) == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 1, "b": 2}}
    root.value["x"].value["a"].value = 9
    assert plain(root)["z"] == {"a": 1, "b": 2}


def test_a_billion_laughs_are_cut_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "aliases followed" in refused("\n".join(lines))


def test_nesting_is_bounded_directly_and_through_aliases() -> None:
    assert f"deeper than {MAX_DEPTH}" in refused("a: " + "[" * 20_000)
    chain = ["a0: &a0 x"] + [f"a{n}: &a{n} [[[[*a{n - 1}]]]]" for n in range(1, 20)]
    assert "aliases followed" in refused("\n".join(chain))


def test_a_file_must_be_regular_small_and_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"a: 1\nb: \xff\n")
    (tmp_path / "big").write_bytes(b"#" * 33)
    for name, message in (
        ("latin", "latin:2: expected UTF-8"),
        ("big", "more than 32 bytes"),
        ("none", "No such file"),
        (".", "regular file"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_text(tmp_path / name, name, limit=32)


@given(st.text(max_size=200))
def test_any_text_gives_a_tree_or_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(plain(parse_yaml(text, "f.yaml")), dict)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("  A = b  ", "b"),
        ("A=b # c", "b"),
        ("A=b#c", "b#c"),
        ("A=# c", ""),
        ("A=", ""),
        ("A='b # c'", "b # c"),
        ("A='b\\n'", "b\\n"),
        ('A="b\\n\\"c\\""', 'b\n"c"'),
        ('A="b\nc" # d', "b\nc"),
        ("A='b", "'b"),
        ("A=x\nA=y", "y"),
        ("A=$HOME", "$HOME"),
        ("A=b\r\nB=c", "b"),
        ("A=b=c", "b=c"),
    ],
)
def test_dotenv_values(text: str, value: str) -> None:
    assert parse_dotenv(text, ".env")["A"].value == value


def test_dotenv_passes_over_what_is_not_ours_and_keeps_lines() -> None:
    found = parse_dotenv("# c\nexport\nsome words\n1X=2\nA='x\ny'\nfoo.bar=1\n\nB=2\n", ".env")
    assert {name: variable.value for name, variable in found.items()} == {"A": "x\ny", "foo.bar": "1", "B": "2"}
    assert [variable.origin.line for variable in found.values()] == [5, 7, 9]
    assert str(found["B"].origin) == "environment B (.env:9)"


@given(st.text(max_size=200))
def test_any_text_is_a_dotenv(text: str) -> None:
    for name, variable in parse_dotenv(text, ".env").items():
        assert name.isascii()
        assert variable.origin.line


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="'\r"), max_size=60))
def test_single_quotes_keep_any_text(text: str) -> None:
    assert parse_dotenv(f"A='{text}'", ".env")["A"].value == text
