"""What an agents.yaml declares is what the SDK runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from agents import InputGuardrailTripwireTriggered, RunConfig, Runner
from agents.exceptions import ModelBehaviorError, OutputGuardrailTripwireTriggered
from agents.testing import ScriptedModel, assistant_message, function_call

from agw_proxy.sdk.declared import build, refers
from agw_proxy.sdk.discovery import discover
from agw_proxy.sdk.loading import Failed, Made
from tests.sdk.folders import write

QUIET = RunConfig(tracing_disabled=True)
TOOLS = """\
from agents import function_tool

def hours(day: str) -> str:
    '''When we are open.'''
    return day + ' from nine'

@function_tool
def ready(day: str) -> str:
    return day
"""


def built(root: Path, *items: dict[str, Any], known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Agents by id, or why there is none."""
    write(root, {"team/agents.yaml": yaml.safe_dump({"agents": list(items)}), "team/tools.py": TOOLS})
    given = build(discover([root], "default").found, known or {})
    return {name: made.agent if isinstance(made, Made) else made for name, made in given.items()}


async def test_all_that_can_be_said_of_one(tmp_path: Path) -> None:
    item = {
        "name": "Triage",
        "description": "Sorts.",
        "instructions": "Sort.",
        "model": "fast",
        "settings": {"temperature": 0.2, "max_tokens": 9},
        "tools": ["tools.py:hours", "tools.py:ready", {"agent": "billing", "name": "ask_billing"}],
        "handoffs": ["Billing"],
    }
    agents = built(tmp_path, item, {"name": "Billing", "instructions": "Bill.", "handoffs": ["triage"]})
    triage, billing = agents["team/triage"], agents["team/billing"]
    assert (triage.name, triage.instructions, triage.model, triage.handoff_description) == (
        "Triage",
        "Sort.",
        "fast",
        "Sorts.",
    )
    assert (triage.model_settings.temperature, triage.model_settings.max_tokens) == (0.2, 9)
    assert [tool.name for tool in triage.tools] == ["hours", "ready", "ask_billing"]
    assert (triage.handoffs, billing.handoffs) == ([billing], [triage])
    model = ScriptedModel([[function_call("hours", {"day": "Monday"}, call_id="c1")], [assistant_message("done")]])
    result = await Runner.run(triage.clone(model=model, handoffs=[]), "when?", run_config=QUIET)
    assert result.final_output == "done"
    assert "Monday from nine" in json.dumps(result.to_input_list())


async def test_guardrails_refuse_what_they_say(tmp_path: Path) -> None:
    rails = [{"refuse": ["(?i)secret"], "max_characters": 20}, {"on": "output", "refuse": ["classified"]}]
    agent = built(tmp_path, {"name": "a", "instructions": "x", "guardrails": rails})["team/a"]

    async def ask(given: Any, said: str = "fine") -> str:
        said_agent = agent.clone(model=ScriptedModel([[assistant_message(said)]]))
        return str((await Runner.run(said_agent, given, run_config=QUIET)).final_output)

    assert await ask("hello") == "fine"
    content = [{"type": "input_text", "text": "a Secret"}]
    for given in ("the SECRET", "x" * 21, [{"role": "user", "content": content}]):
        with pytest.raises(InputGuardrailTripwireTriggered):
            await ask(given)
    with pytest.raises(OutputGuardrailTripwireTriggered):
        await ask("hello", "that is classified")


async def test_output_is_of_the_schema(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    agent = built(tmp_path, {"name": "a", "instructions": "x", "output": schema})["team/a"]
    assert (agent.output_type.json_schema(), agent.output_type.is_strict_json_schema()) == (schema, True)
    result = await Runner.run(
        agent.clone(model=ScriptedModel([[assistant_message('{"n": 3}')]])), "x", run_config=QUIET
    )
    assert result.final_output == {"n": 3}
    for wrong in ("no", '{"m": 3}', "[]"):
        with pytest.raises(ModelBehaviorError):
            agent.output_type.validate_json(wrong)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"name": "a"}, "instructions"),
        ({"name": "a", "instructions": "x", "tool": []}, "tool"),
        ({"name": "a", "instructions": "x", "tools": ["hours"]}, "FILE.py:NAME"),
        ({"name": "a", "instructions": "x", "tools": [{"agent": "b", "tool": "c"}]}, "{tool: NAME}"),
        ({"name": "a", "instructions": "x", "tools": [{"name": "c"}]}, "{tool: NAME}"),
        ({"name": "a", "instructions": "x", "tools": ["../tools.py:hours"]}, "FILE.py:NAME"),
        ({"name": "a", "instructions": "x", "tools": ["tools.py:nope"]}, "has no nope"),
        ({"name": "a", "instructions": "x", "tools": ["none.py:nope"]}, "ModuleNotFoundError"),
        ({"name": "a", "instructions": "x", "handoffs": ["nobody"]}, "team/nobody"),
        ({"name": "a", "instructions": "x", "guardrails": [{"refuse": ["("]}]}, "regular expression"),
        ({"name": "a", "instructions": "x", "guardrails": [{"refuse": ["x{99999999999}"]}]}, "repetition number"),
        ({"name": "a", "instructions": "x", "settings": {"warmth": 1}}, "warmth"),
        (
            {"name": "a", "instructions": "x", "settings": {"temperature": "hot", "max_tokens": "many"}},
            "settings.temperature: Input should be a valid number, unable to parse string as a number; settings.max_tokens:",
        ),
    ],
)
def test_what_is_wrong_with_one_is_told_and_the_others_are_there(
    tmp_path: Path, item: dict[str, Any], words: str
) -> None:
    others: list[dict[str, Any]] = [
        {"name": "fine", "instructions": "x"},
        {"name": "hangs_on", "instructions": "x", "handoffs": ["a"]},
    ]
    agents = built(tmp_path, item, *others)
    assert isinstance(agents["team/a"], Failed)
    assert words in str(agents["team/a"])
    assert agents["team/fine"].name == "fine"
    assert "team/a" in str(agents["team/hangs_on"]), "who names it cannot be made either"


def test_all_that_is_wrong_with_one_is_told_at_once(tmp_path: Path) -> None:
    rails = [{"on": "both", "refuse": ["("], "loud": 1}, {"refuse": "x", "max_characters": -1}]
    tools = [5, {"name": "z"}, {"agent": 3}]
    item = {"name": "a", "model": [], "tool": [], "tools": tools, "handoffs": "b", "guardrails": rails, "output": []}
    told = str(built(tmp_path, item)["team/a"]).split("; ")
    places = ["tool", "instructions", "model", "tools[0]", "tools[2].agent", "handoffs", "output", "tools[1]"]
    places += [
        f"guardrails{place}" for place in ("[0].loud", "[0].on", "[0].refuse", "[1].refuse", "[1].max_characters")
    ]
    for place in places:
        assert any(line.startswith(f"{place}: ") for line in told), (place, told)


def test_all_agents_that_are_missing_are_told(tmp_path: Path) -> None:
    item = {"name": "a", "instructions": "x", "handoffs": ["b"], "tools": [{"agent": "other/c"}]}
    assert "team/b, other/c" in str(built(tmp_path, item)["team/a"])


def test_it_may_name_agents_that_are_modules(tmp_path: Path) -> None:
    other = object()
    agents = built(
        tmp_path, {"name": "a", "instructions": "x", "handoffs": ["default/other"]}, known={"default/other": other}
    )
    assert agents["team/a"].handoffs == [other]
    (found,) = discover([tmp_path], "default").found
    assert refers(found) == ("default/other",)
