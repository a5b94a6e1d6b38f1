"""The page for authors says what is so: each example on it runs, in a process without a gateway."""

import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from agents import Agent
from agents.tool_context import ToolContext

from agw_proxy.errors import RateLimited
from agw_proxy.sdk import host
from tests.support.gateway import PACKAGE_ROOT

PAGE = (PACKAGE_ROOT / "docs" / "agent-helpers.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "_hosts", [])
    monkeypatch.chdir(tmp_path)


def example(name: str) -> dict[str, Any]:
    """What the example holds that defines ``name``."""
    made: dict[str, Any] = {"__name__": "example"}
    source = next(text for text in EXAMPLES if f"def {name}(" in text)
    exec(source, made)
    return made


class Weather(BaseHTTPRequestHandler):
    """Is away once, then answers."""

    asked = 0

    def do_GET(self) -> None:
        Weather.asked += 1
        body = b"rain" if Weather.asked > 1 else b""
        self.send_response(200 if body else 503)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


async def test_all_four_below_a_tool_of_the_sdk() -> None:
    made = example("forecast")
    with HTTPServer(("127.0.0.1", 0), Weather) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        made["WEATHER"] = f"http://127.0.0.1:{server.server_port}"
        context = ToolContext(None, tool_name="f", tool_call_id="c", tool_arguments="{}", agent=Agent(name="a"))
        assert await made["forecast"].on_invoke_tool(context, '{"city": "Oslo"}') == "rain"
        server.shutdown()
        thread.join()
    assert Weather.asked == 2
    assert made["agent"].tools == [made["forecast"]]


async def test_retry_of_both_kinds() -> None:
    made = example("ask")
    Path("prices.txt").write_text("7")
    assert made["read"]() == "7"
    assert await made["ask"]() == "answer"


async def test_timeouts_of_both_kinds() -> None:
    made = example("crunch")
    assert await made["look"]("Oslo") == "sun in Oslo"
    assert made["crunch"]([1, 2]) == 3


async def test_limits_of_both_kinds() -> None:
    made = example("report")
    assert await made["search"]("x") == ["x"]
    assert made["report"]() == "made"
    report: Callable[[], str] = made["report"]
    with pytest.raises(RateLimited):
        report()


async def test_tracks_of_both_kinds() -> None:
    made = example("lookup")
    assert await made["lookup"]("Oslo") == 4
    assert len(EXAMPLES) == 5, "each is run above"
