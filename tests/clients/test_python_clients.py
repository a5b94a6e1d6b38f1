"""LangChain and the Agents SDK: the code of their guides, run as it stands, over every upstream dialect."""

from pathlib import Path

import pytest

from tests.clients.conftest import INSTALLED, Run
from tests.clients.guide import blocks, exports
from tests.clients.task import SAID, does_task
from tests.support.gateway import Gateway
from tests.support.providers import HELLO, TEXT, plays
from tests.support.upstream import Upstream

PYTHON = str(INSTALLED / "python" / "bin" / "python")
WHOLE = "".join(HELLO)
SECRET = "heron-4417-lantern"
over_all = pytest.mark.parametrize("spoken", ["chat", "responses", "messages", "gemini"])


@over_all
@pytest.mark.parametrize(("at", "says"), [(0, f"{WHOLE}\n{WHOLE}"), (1, WHOLE), (2, WHOLE)])
def test_langchain_reads_each_upstream(
    gateway: Gateway, upstream: Upstream, run: Run, spoken: str, at: int, says: str
) -> None:
    upstream.default = plays(TEXT)
    code = blocks("langchain", "python", gateway, f"{spoken}-1")[at]
    assert run(PYTHON, "-", source=code, env={"AGW_KEY": gateway.key}).strip() == says


@over_all
def test_an_agent_calls_its_tool(gateway: Gateway, upstream: Upstream, run: Run, spoken: str, tmp_path: Path) -> None:
    upstream.default = does_task(SECRET, (("read_note", {}),), own="responses")
    (tmp_path / "note.txt").write_text(SECRET)
    model = f"{spoken}-1"
    code = tmp_path / "reader.py"  # the SDK reads a tool's source
    code.write_text(blocks("agents-sdk", "python", gateway, model)[0])
    assert run(PYTHON, str(code), env=exports("agents-sdk", gateway, model)).strip() == SAID + SECRET


@over_all
def test_an_agent_speaks_chat(gateway: Gateway, upstream: Upstream, run: Run, spoken: str) -> None:
    upstream.default = plays(TEXT)
    model = f"{spoken}-1"
    code = blocks("agents-sdk", "python", gateway, model)[1]
    assert run(PYTHON, "-", source=code, env=exports("agents-sdk", gateway, model)).strip() == WHOLE
    assert upstream.requests
