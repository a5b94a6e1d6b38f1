"""The registry: what is taken up, who may call what, how often and for how long, and what is told of it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agw_proxy._hot.limit import (
    CONCURRENT,
    PER_KEY,
    PER_MODEL,
    PER_TOOL,
    PER_USER,
    REQUESTS,
    Limits,
    Rule,
    Table,
    subject,
)
from agw_proxy._hot.route import Globs
from agw_proxy.config.tools import Tool as Settings
from agw_proxy.tools import registry
from agw_proxy.tools.registry import Asker, Refused, Registry
from agw_proxy.types import Principal

MINUTE = 60 * 10**9
SOURCE = """\
import asyncio, threading
BEGUN, GATE, HELD = asyncio.Event(), threading.Event(), []

def add(a: int, b: int = 1) -> int:
    "Add."
    return a + b

async def forever() -> str:
    BEGUN.set()
    try:
        await asyncio.Event().wait()
    finally:
        HELD.append("ended")

def blocks() -> str:
    GATE.wait(60)
    return "late"

def fails() -> None:
    raise LookupError("there is no such city")

def quits() -> None:
    raise SystemExit(3)
"""


class Heard:
    """Events and metrics, as the log and the meter would get them."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.calls: Counter[tuple[str, str]] = Counter()

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info

    def tool_called(self, tool: str, outcome: str, nanoseconds: int) -> None:
        assert nanoseconds > 0
        self.calls[tool, outcome] += 1

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.lines if name == event]


class Folder:
    """A file of tools and their registry."""

    def __init__(self, root: Path, heard: Heard) -> None:
        self.file = root / "tools.py"
        self.file.write_text(SOURCE)
        self.heard = heard
        self.registry = Registry(heard, heard)

    async def refresh(self, *names: str, **more: Any) -> None:
        tools = [{"name": f"my.{name}", "python": f"{self.file}:{name}", **more} for name in names]
        await self.registry.refresh([Settings.model_validate(each) for each in tools])

    def module(self, name: str) -> Any:
        """What its functions see around them."""
        tool: Any = self.registry._entries[f"my.{name}"].tool
        return tool._function.__globals__


@pytest.fixture
async def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path, Heard())
    await made.refresh("add", "forever", "blocks", "fails", "quits")
    return made


def who(tools: Sequence[str] = ("*",), *rules: Rule, user: str | None = None) -> Asker:
    limits = Limits(Table(), rules)
    principal = Principal("app", subject(b"key:app"), Globs(["*"]), Globs(list(tools)), admin=False, limits=limits)
    return Asker(principal, user=user, about={"request_id": "req_1", "key": "app"})


async def refused(folder: Folder, name: str, asker: Asker, arguments: str = "{}") -> Refused:
    with pytest.raises(Refused) as told:
        await folder.registry.call(name, arguments, asker)
    return told.value


async def test_a_call_gives_words_and_one_line_of_the_log_without_what_was_said(folder: Folder) -> None:
    assert await folder.registry.call("my.add", '{"a": 41}', who()) == "42"
    assert folder.heard.calls == {("my.add", "ok"): 1}
    line = folder.heard.of("tool.invoked")[0]
    assert set(line) == {"request_id", "key", "tool", "version", "outcome", "duration_ms"}
    assert (line["request_id"], line["tool"], line["outcome"]) == ("req_1", "my.add", "ok")
    assert "41" not in str({**line, "duration_ms": 0, "version": ""})


@pytest.mark.parametrize(
    ("name", "arguments", "outcome", "told"),
    [
        ("my.add", '{"a": "no"}', "invalid", "a: Input should be a valid integer"),
        ("my.fails", "{}", "failed", "The tool 'my.fails' failed: LookupError: there is no such city"),
        ("my.quits", "{}", "failed", "SystemExit: 3"),
        ("my.none", "{}", "missing", "There is no tool 'my.none' any more"),
    ],
)
async def test_what_goes_wrong_is_told_to_the_model_and_counted(
    folder: Folder, name: str, arguments: str, outcome: str, told: str
) -> None:
    error = await refused(folder, name, who(), arguments)
    assert (error.outcome, told in str(error)) == (outcome, True), str(error)
    assert folder.heard.calls == {(name if name != "my.none" else "other", outcome): 1}


async def test_a_key_uses_the_tools_that_it_allows_and_nobody_none(folder: Folder) -> None:
    asker = who(["my.f*", "other"])
    assert folder.registry.allows("my.fails", asker.principal)
    for _ in range(2):
        assert not folder.registry.allows("my.add", asker.principal)
        assert (await refused(folder, "my.add", asker)).outcome == "denied"
    assert folder.heard.of("tool.denied") == [{"tool": "my.add", "key": "app"}], "said once"
    assert (await refused(folder, "my.add", Asker())).outcome == "denied"


async def test_rules_per_tool_count_calls_and_no_other_rule_does(folder: Folder) -> None:
    rules = (
        Rule("calls", PER_KEY | PER_TOOL, REQUESTS, 2, MINUTE),
        Rule("users", PER_USER | PER_TOOL, REQUESTS, 3, MINUTE),
        Rule("requests", PER_KEY, REQUESTS, 1, MINUTE),
        Rule("models", PER_MODEL, REQUESTS, 1, MINUTE),
    )
    asker = who(["*"], *rules, user="ada")
    for _ in range(2):
        assert await folder.registry.call("my.add", '{"a": 1}', asker) == "2"
    error = await refused(folder, "my.add", asker, '{"a": 1}')
    assert error.outcome == "limited"
    assert "Limit 'calls' reached: 2 requests per 1m. Try again in" in str(error)
    assert (await refused(folder, "my.fails", asker)).outcome == "failed", "another tool has a bucket of its own"
    assert (await refused(folder, "my.add", asker, "{}")).outcome == "invalid", "what does not fit takes nothing"


async def test_a_place_among_calls_at_the_same_time_is_given_back(folder: Folder) -> None:
    asker = who(["*"], Rule("at once", PER_TOOL, CONCURRENT, 1))
    running = asyncio.ensure_future(folder.registry.call("my.forever", "{}", asker))
    module = folder.module("forever")
    await module["BEGUN"].wait()
    assert (await refused(folder, "my.forever", asker)).outcome == "limited"
    running.cancel()
    assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], asyncio.CancelledError)
    assert module["HELD"] == ["ended"]
    assert folder.heard.calls["my.forever", "cancelled"] == 1
    module["BEGUN"].clear()
    again = asyncio.ensure_future(folder.registry.call("my.forever", "{}", asker))
    await module["BEGUN"].wait()
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


async def test_a_call_has_its_time_and_a_thread_that_goes_on_keeps_its_place(folder: Folder) -> None:
    await folder.refresh("forever", "blocks", timeout=0.05, concurrent=1)
    for name in ("my.forever", "my.blocks"):
        error = await refused(folder, name, who())
        assert (error.outcome, str(error)) == ("timeout", f"The tool '{name}' did not answer within 0.05 s.")
    assert (await refused(folder, "my.blocks", who())).outcome == "timeout", "there is no second place"
    folder.module("blocks")["GATE"].set()
    async with asyncio.timeout(30):
        while folder.registry._entries["my.blocks"].places.locked():
            await asyncio.sleep(0.01)
    assert not folder.registry._entries["my.forever"].places.locked()


async def test_a_refresh_takes_up_what_has_changed_and_keeps_what_the_new_version_broke(folder: Folder) -> None:
    assert folder.registry.names == ("my.add", "my.blocks", "my.fails", "my.forever", "my.quits")
    assert len(folder.heard.of("tool.loaded")) == 5
    folder.heard.lines.clear()
    await folder.refresh("add", "fails")
    assert sorted(each["tool"] for each in folder.heard.of("tool.gone")) == ["my.blocks", "my.forever", "my.quits"]
    assert not folder.heard.of("tool.loaded"), "what has not changed is not loaded again"
    folder.file.write_text("def add(a: int, b: int = 10) -> int:\n    return a + b\n")
    await folder.refresh("add", "fails")
    assert await folder.registry.call("my.add", '{"a": 1}', who()) == "11"
    assert (await refused(folder, "my.fails", who())).outcome == "failed", "the version before goes on"
    assert "has no fails" in folder.registry.failed["my.fails"]
    failed = folder.heard.of("tool.failed")
    assert (len(failed), failed[0]["serving"]) == (1, folder.registry._entries["my.fails"].tool.version)
    folder.file.write_text("def add(")
    await folder.refresh("add", "new")
    assert await folder.registry.call("my.add", '{"a": 1}', who()) == "11"
    assert set(folder.registry.failed) == {"my.add", "my.new"}
    assert folder.registry.spec("my.new") is None


async def test_one_that_never_loads_holds_nobody_up(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LOAD_SECONDS", 0.05)
    folder.file.write_text("import threading\nthreading.Event().wait(60)\ndef add(): ...\n")
    await folder.refresh("add")
    assert folder.registry.failed == {"my.add": "it was not there within 0.05 s"}


class Elsewhere:
    """Limits that are shared: what is short is taken from others, or there is no more of it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.has = True

    def may_wait(self, begun_ns: int) -> bool:
        return True

    async def take(self, short: Sequence[tuple[Rule, int, int]]) -> object | None:
        import time

        for _, tag, amount in short if self.has else ():
            assert self.table.lend(tag, amount, time.monotonic_ns() + MINUTE, time.monotonic_ns())
        return None if self.has else object()


async def test_limits_that_are_shared_are_taken_from_all(folder: Folder) -> None:
    asker = who(["*"], Rule("shared", PER_TOOL, REQUESTS, 10, MINUTE, leased=True))
    assert asker.principal is not None
    elsewhere = Elsewhere(asker.principal.limits.table)
    folder.registry._shared = lambda: elsewhere
    assert await folder.registry.call("my.add", '{"a": 1}', asker) == "2"
    elsewhere.has = False
    assert (await refused(folder, "my.add", asker, '{"a": 1}')).outcome == "limited"
