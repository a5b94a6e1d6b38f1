"""What docs/tools.md and docs/agents.md show of tools can be taken as it is."""

import re
from pathlib import Path
from typing import Any

import yaml

from agw_proxy._hot.limit import PER_KEY, PER_TOOL
from agw_proxy.config.settings import Settings
from agw_proxy.policy.limits import Names, Place, compile_limits
from agw_proxy.tools.registry import REGISTRY, Registry
from tests.tools.test_registry import Heard, who

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> dict[str, str]:
    """The Python of a page, by the file that it says it is."""
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL))


async def test_the_tool_and_the_agent_of_the_page_work(tmp_path: Path) -> None:
    page = (DOCS / "tools.md").read_text()
    tree: dict[str, Any] = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    tree["keys"][0]["key"] = "agw-bench-page-6b1f0d93a57e4c28"
    settings = Settings.model_validate(tree)
    place = Place("global")
    rules = compile_limits(settings.limits, place, Names(place))
    assert [rule.per for rule in rules] == [PER_KEY | PER_TOOL, PER_TOOL]
    source = blocks("tools.md")["tools/math.py"]
    (tmp_path / "math.py").write_text(source)
    heard = Heard()
    registry = Registry(heard, heard)
    tool = settings.tools[0].model_copy(update={"python": f"{tmp_path}/math.py:add"})
    await registry.refresh([tool])
    made: dict[str, Any] = {}
    token = REGISTRY.set(registry)
    try:
        exec(blocks("tools.md")["agents/Clerk/agent.py"], made)
    finally:
        REGISTRY.reset(token)
    clerk = made["agent"].tools[0]
    assert clerk.name == "math_add"
    assert clerk.params_json_schema["properties"]["b"] == {
        "type": "integer", "description": "The second one.", "default": 1,
    }  # fmt: skip
    assert await registry.call("math.add", '{"a": 1}', who(settings.keys[0].tools)) == "2"


def test_the_agent_with_mcp_servers_can_be_made() -> None:
    made: dict[str, Any] = {}
    exec(blocks("agents.md")["agents/Files/agent.py"], made)
    assert len(made["agent"].mcp_servers) == 2
