"""Google's SDK for Python: the code of its guide, run as it stands, over every upstream dialect; and what goes wrong."""

from pathlib import Path

import pytest

from tests.clients.conftest import INSTALLED, Run
from tests.clients.guide import blocks
from tests.clients.task import SAID, does_task
from tests.e2e.test_translation_faults import ERRORS, begun
from tests.support.behaviours import failure, stream
from tests.support.gateway import Gateway
from tests.support.providers import HELLO, TEXT, plays
from tests.support.upstream import Upstream

PYTHON = str(INSTALLED / "python" / "bin" / "python")
WHOLE = "".join(HELLO)
SECRET = "heron-4417-lantern"
RAISES = """
import asyncio
from google.genai import errors

async def read():
    async for chunk in await client.aio.models.generate_content_stream(model="claude-sonnet", contents="Hello"):
        print(chunk.text)

try:
    asyncio.run(read())
except errors.APIError as error:
    print(type(error).__name__, error.code)
"""
over_all = pytest.mark.parametrize("spoken", ["chat", "responses", "messages", "gemini"])


@over_all
def test_it_reads_each_upstream(gateway: Gateway, upstream: Upstream, run: Run, spoken: str) -> None:
    upstream.default = plays(TEXT)
    code = blocks("google-genai", "python", gateway, f"{spoken}-1")[0]
    assert run(PYTHON, "-", source=code, env={"AGW_KEY": gateway.key}).strip() == f"{WHOLE}\n{WHOLE}"


@over_all
def test_it_calls_its_functions(gateway: Gateway, upstream: Upstream, run: Run, spoken: str, tmp_path: Path) -> None:
    upstream.default = does_task(SECRET, (("read_note", {}),), own="gemini")
    (tmp_path / "note.txt").write_text(SECRET)
    code = tmp_path / "reader.py"
    code.write_text(blocks("google-genai", "python", gateway, f"{spoken}-1")[1])
    assert run(PYTHON, str(code), env={"AGW_KEY": gateway.key}).strip() == SAID + SECRET


@over_all
@pytest.mark.parametrize("how", ["at once", "cut", "told"])
def test_it_raises_where_an_answer_fails(gateway: Gateway, upstream: Upstream, run: Run, spoken: str, how: str) -> None:
    ways = {"at once": failure(400), "cut": stream(begun(spoken)), "told": stream([*begun(spoken), ERRORS[spoken]])}
    upstream.default = ways[how]
    setup = blocks("google-genai", "python", gateway, f"{spoken}-1")[0].partition("print(")[0]
    raises = RAISES.replace("claude-sonnet", f"{spoken}-1")
    said = run(PYTHON, "-", source=setup + raises, env={"AGW_KEY": gateway.key}).split()
    assert said[:-2] == ([] if how == "at once" else ["Hel"])
    assert said[-2] == ("ClientError" if how == "at once" else "ServerError")
