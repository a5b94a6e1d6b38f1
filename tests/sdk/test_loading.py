"""A module becomes an agent: whatever it exports, however it is called, and without harm to anybody else."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agw_proxy.sdk.discovery import discover
from agw_proxy.sdk.loading import Failed, Made, called, import_sdk, let_go, load
from agw_proxy.tools.modules import PREFIX
from agw_proxy.tools.threads import on_thread
from tests.sdk.folders import write
from tests.support.gateway import PACKAGE_ROOT

PLAIN = "from agents import Agent\n"


async def loaded(root: Path, source: str, **more: str) -> Made:
    """``source`` as the only agent below ``root``; ``more``: files beside it."""
    write(root, {"My-Agent/agent.py": PLAIN + source, **{f"My-Agent/{name}.py": text for name, text in more.items()}})
    (found,) = discover([root], "default").found
    return await load(found, found.id)


def private() -> set[str]:
    return {name for name in sys.modules if name.startswith(PREFIX)}


@pytest.mark.parametrize(
    "source",
    [
        "agent = Agent(name='x')",
        "the_one = Agent(name='x')",
        "def agent(): return Agent(name='x')",
        "def agent(context): return Agent(name='x')",
        "async def agent(): return Agent(name='x')",
        "async def agent(context): return Agent(name='x')",
        "class agent(Agent):\n    def __init__(self): super().__init__(name='x')",
        "agent = lambda: Agent(name='x')",
        "other = Agent(name='other')\ndef agent(prefix='', context=None): return Agent(name='x')",
        "billing = Agent(name='billing')\ntriage = Agent(name='x', handoffs=[billing])",
    ],
    ids=["instance", "any", "factory", "context", "async", "async_context", "class", "lambda", "defaults", "triage"],
)
async def test_what_it_may_export(tmp_path: Path, source: str) -> None:
    before = private()
    made = await loaded(tmp_path, source)
    assert made.agent.name == "x"
    await let_go(made)
    assert private() == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "there is none"),
        ("one = Agent(name='a')\ntwo = Agent(name='b')", "one, two"),
        ("agent = 7", "builtins.int"),
        ("def agent(): pass", "nothing"),
        ("def agent(a, b): pass", "one argument"),
        ("agent = (", "My-Agent/agent.py:2"),
        ("import nothing_like_this", "ModuleNotFoundError: No module named 'nothing_like_this' (My-Agent/agent.py:2)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def agent():\n    return 1 / 0", "ZeroDivisionError: division by zero (My-Agent/agent.py:3)"),
        ("agent = Agent(name='x')\ndef on_startup(): raise StopIteration", "StopIteration"),
        ("import asyncio\nasync def agent(): raise asyncio.CancelledError", "it was cancelled"),
        (
            "agent = Agent(name='x')\nasync def on_startup(): raise asyncio.CancelledError\nimport asyncio",
            "it was cancelled",
        ),
        ("agent = Agent(name='x')\non_startup = 7", "'on_startup' is to be a function"),
    ],
)
async def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, source: str, words: str) -> None:
    before = private()
    with pytest.raises(Failed) as failed:
        await loaded(tmp_path, source)
    assert words in str(failed.value)
    assert private() == before


async def test_its_own_files_are_imported_and_nothing_of_it_shadows_anything(tmp_path: Path) -> None:
    source = (
        "from .json import where\nfrom . import json as own\nimport json\nagent = Agent(name=where + json.dumps(1))"
    )
    made = await loaded(tmp_path, source, json="where = 'here'")
    assert made.agent.name == "here1"
    assert sys.modules["json"].__file__ != str(tmp_path / "My-Agent" / "json.py")
    assert not (tmp_path / "My-Agent" / "__pycache__").exists(), (
        "a folder may be read-only, and compiled files be stale"
    )
    write(tmp_path, {"My-Agent/json.py": "where = 'then'"})
    newer = await loaded(tmp_path, source, json="where = 'then'")
    assert newer.agent.name == "then1", "a new version has its modules anew"
    assert made.package != newer.package
    await let_go(made)
    await let_go(newer)


async def test_what_agents_of_one_root_share_may_be_imported_and_what_is_outside_may_not(tmp_path: Path) -> None:
    root = write(tmp_path / "agents", {"shared.py": "name = 'both'"})
    made = await loaded(root, "from ..shared import name\nagent = Agent(name=name)")
    assert made.agent.name == "both"
    await let_go(made)
    secret = write(tmp_path, {"secret.py": "name = 'no'"}) / "secret.py"
    (root / "My-Agent" / "linked.py").symlink_to(secret)
    with pytest.raises(Failed, match="link leads out"):
        await loaded(root, "from .linked import name")


async def test_a_folder_of_the_sdks_name_does_not_stand_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "agents", {"__init__.py": "raise RuntimeError('not me')"})
    monkeypatch.syspath_prepend(str(tmp_path))
    made = await loaded(root, "agent = Agent(name='x')")
    assert isinstance(made.agent, import_sdk().Agent)
    await let_go(made)


def test_what_an_agent_does_while_it_loads_goes_to_no_vendor() -> None:
    script = (
        "from agw_proxy.sdk.loading import import_sdk\n"
        "with import_sdk().trace('on startup') as trace: print(trace.trace_id)"
    )
    env = {**os.environ, "OPENAI_API_KEY": "sk-secret"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE_ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("no-op\n", 0), done.stderr


async def test_its_life_begins_before_its_factory_and_ends_once(tmp_path: Path) -> None:
    source = (
        "from .log import lines\n"
        "def on_startup(context): lines.append('up ' + context.id)\n"
        "async def on_shutdown(): lines.append('down')\n"
        "def agent():\n    lines.append('made')\n    made = Agent(name='x')\n    made.lines = lines\n    return made\n"
    )
    made = await loaded(tmp_path, source, log="lines = []")
    lines = made.agent.lines
    assert lines == ["up default/my-agent", "made"]
    await let_go(made)
    assert lines == ["up default/my-agent", "made", "down"]


async def test_what_has_started_ends_where_no_agent_comes_of_it(tmp_path: Path) -> None:
    source = (
        "import pathlib\nhere = pathlib.Path(__file__).parent\n"
        "def on_startup(): (here / 'up').touch()\n"
        "def on_shutdown(): (here / 'down').touch(); raise RuntimeError('and that is not what matters')\n"
        "def agent(): raise ValueError('no agent today')\n"
    )
    with pytest.raises(Failed, match="no agent today"):
        await loaded(tmp_path, source)
    assert (tmp_path / "My-Agent" / "up").exists()
    assert (tmp_path / "My-Agent" / "down").exists()


async def test_whoever_does_not_wait_for_it_any_more_is_not_told_that_it_failed(tmp_path: Path) -> None:
    source = "import asyncio\nasync def agent(): await asyncio.sleep(99)"
    task = asyncio.create_task(loaded(tmp_path, source))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_blocks_keeps_nobody_waiting_but_itself(tmp_path: Path) -> None:
    gate = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await on_thread(gate.wait, "blocks")
        assert await on_thread(lambda: 7, "goes on") == 7
    finally:
        gate.set()


async def test_the_description_is_the_first_line_of_what_says_it(tmp_path: Path) -> None:
    source = "agent = Agent(name='x', handoff_description='Knows all.\\nAnd more.')"
    made = await loaded(tmp_path, source)
    assert made.description == "Knows all."
    assert await called(lambda: made.context.id, made.context) == "default/my-agent"
    await let_go(made)
