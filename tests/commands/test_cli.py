"""The command line as a whole: what it says it can do is what it can, and only what is asked for is loaded."""

import argparse
import os
import subprocess
import sys

import pytest

from agw_proxy import cli
from tests.support.gateway import PACKAGE_ROOT


def commands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, int]]:
    """What each command does, as it is told, and how many options it has."""
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    said = {action.dest: action.help or "" for action in found._choices_actions}
    return {name: (said[name], len(made._actions)) for name, made in found.choices.items()}


def test_each_command_says_of_itself_what_is_said_of_it() -> None:
    named, known = commands(cli.parser(())), commands(cli.parser())
    assert {name: does for name, (does, _) in known.items()} == cli.COMMANDS
    assert {name: does for name, (does, _) in named.items()} == cli.COMMANDS
    assert list(known) == list(named) == list(cli.COMMANDS)
    assert {options for _, options in named.values()} == {1}  # their --help
    assert commands(cli.parser(["serve"])) == {"serve": known["serve"]}


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], {"asyncio", "pydantic", "http.client", "json"}),
        (["doctor", "--help"], {"asyncio", "pydantic", "aiohttp"}),
        (["serve", "--help"], {"asyncio", "pydantic", "http.client", "agw_proxy.conformance"}),
    ],
    ids=["all", "doctor", "serve"],
)
def test_help_is_given_without_what_it_does_not_need(words: list[str], absent: set[str]) -> None:
    code = (
        "import sys\n"
        "from agw_proxy.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    print(*sys.modules, file=sys.stderr); raise"
    )
    command = [sys.executable, "-S", "-c", code, *words]
    path = [entry for entry in sys.path if entry.endswith("site-packages")]
    env = {"PYTHONPATH": ":".join([str(PACKAGE_ROOT), *path])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=True)
    assert "examples:" in done.stdout
    assert set(done.stderr.split()) & absent == set()


def test_what_is_no_command_is_told_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["surf"])
    assert end.value.code == 2
    assert "'serve'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["version"], ["keys", "new"]])
def test_a_reader_who_has_left_is_no_traceback(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "agw_proxy", *words],
        cwd=PACKAGE_ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, "Traceback" in done.stderr) == (141, False)
