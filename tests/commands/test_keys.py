"""``agw keys``: what is printed is what the configuration takes, and a key that is typed is never shown."""

import hashlib
import io
import re
from pathlib import Path

import pytest

from agw_proxy.config.loader import load
from tests.commands.conftest import Run

KEY = "Zq8-canary-4TfL2xWv9bNcKd"


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def pasted(out: str, folder: Path) -> Path:
    """The YAML of the output as a configuration file."""
    _, _, block = out.partition("for gateway.yaml:\n")
    path = folder / "gateway.yaml"
    path.write_text("".join(line.removeprefix("  ") for line in block.splitlines(keepends=True)))
    return path


@pytest.mark.parametrize("name", ["app", "team 7", "no", "1e3", "a: b", 'say "hi"', "*"])
def test_a_new_key_is_admitted_by_the_lines_to_paste(
    agw: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert agw("keys", "new", "--name", name) == 0
    out, err = capsys.readouterr()
    key = re.fullmatch(r"(agw-\S{43})\n", out)
    assert key is not None, "standard output is the key alone, for KEY=$(agw keys new)"
    assert key[1] not in err
    made = load(pasted(err, tmp_path), {}, tmp_path).settings.keys[0]
    assert made.name == name
    assert made.key_sha256 == hashlib.sha256(key[1].encode()).hexdigest()


def test_two_new_keys_differ(agw: Run, capsys: pytest.CaptureFixture[str]) -> None:
    agw("keys", "new")
    first = capsys.readouterr().out
    agw("keys", "new")
    assert first != capsys.readouterr().out


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_key_from_standard_input_is_hashed_without_its_line_break(
    agw: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: bytes
) -> None:
    stdin(monkeypatch, KEY.encode() + end)
    assert agw("keys", "hash", "--stdin") == 0
    out, err = capsys.readouterr()
    assert f"key_sha256: {hashlib.sha256(KEY.encode()).hexdigest()}\n" in out
    assert (KEY in out, err) == (False, "")


def test_a_key_is_asked_for_without_echo(
    agw: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts: list[str] = []

    def asked(prompt: str) -> str:
        prompts.append(prompt)
        return KEY

    monkeypatch.setattr("getpass.getpass", asked)
    assert agw("keys", "hash", "--name", "ci") == 0
    out = capsys.readouterr().out
    assert "- name: ci\n" in out
    assert (len(prompts), KEY in out) == (1, False)


@pytest.mark.parametrize("error", [EOFError, KeyboardInterrupt])
def test_no_answer_to_the_prompt_is_no_key(
    agw: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: type[BaseException]
) -> None:
    def gone(_: str) -> str:
        raise error

    monkeypatch.setattr("getpass.getpass", gone)
    assert agw("keys", "hash") == 1
    assert "no key was given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no key was given"),
        (b"tooshortcanary", "can be guessed"),
        (b"canary canary-4TfL2xWv9bNcKd", "visible ASCII"),
        ("canary-schl\u00fcssel-4TfL2xWv9bNcKd".encode(), "visible ASCII"),
        (b"canary\xff\xfe-4TfL2xWv9bNcKdaaa", "visible ASCII"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_and_not_shown(
    agw: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes, why: str
) -> None:
    stdin(monkeypatch, content)
    assert agw("keys", "hash", "--stdin") == 1
    out, err = capsys.readouterr()
    assert why in err
    assert (out, "canary" in err) == ("", False)


def test_a_key_is_never_an_argument(agw: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        agw("keys", "hash", KEY)
    assert ended.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_version_says_what_a_bug_report_needs(agw: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from agw_proxy import __version__

    assert agw("version", "--short") == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    assert agw("version") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"agw {__version__}\n")
    assert re.search(r"^  aiohttp \d+\.\d+", out, re.MULTILINE)
