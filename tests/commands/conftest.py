"""Runs a command as ``agw`` does, in an empty folder with an environment that holds nothing of ours."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agw_proxy.commands import agents, chat, doctor, explain, keys, status, version
from tests.commands.tiny import Tiny

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    bare = {"HOME": str(tmp_path)}
    monkeypatch.setattr("os.environ", bare)
    return bare


@pytest.fixture
def agw() -> Run:
    def run(*argv: str) -> int:
        parser = argparse.ArgumentParser()
        subparsers = parser.add_subparsers()
        for command in (agents, chat, doctor, explain, keys, status, version):
            command.add(subparsers)
        args = parser.parse_args(argv)
        result: int = args.run(args)
        return result

    return run


@pytest.fixture
def gateway() -> Iterator[Tiny]:
    with Tiny() as running:
        yield running
