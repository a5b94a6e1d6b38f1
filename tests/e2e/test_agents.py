"""Agents that are dropped into a folder are models: listed, routed, limited, asked and reloaded like all others."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import orjson
import pytest

from tests.sdk.folders import says, write
from tests.support.gateway import APP_KEY, PACKAGE_ROOT, Gateway, Tree, configuration, provider

SKY_KEY = "agw-bench-sky-2f6b09c4e71d8a53"
START = {
    "sky/agent.py": says("blue"),
    "team/Tax/agent.py": says("much"),
    "bad/agent.py": "raise RuntimeError('not today')",
    "denied/agent.py": says("never"),
}
FORBIDS = """\
from agents import Agent, GuardrailFunctionOutput, output_guardrail
from agw_proxy.sdk import FunctionModel

@output_guardrail(name="polite")
async def forbid(context, agent, output):
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

last = Agent(name="Last", model=FunctionModel(lambda turn: "Rude."), output_guardrails=[forbid])
agent = Agent(name="First", model=FunctionModel(lambda turn: ["I ask.", turn.hand_to("Last")]), handoffs=[last])
"""
SECONDS = 40.0  # until a change of files has been taken up


def with_agents(**agents: object) -> Tree:
    """The application's key may use all, that of the sky one agent, once a minute."""
    config = configuration(agents={"deny": ["default/denied"], **agents})
    limit = {"per": "key", "requests": 1, "period": "1m"}
    config["keys"].append({"name": "sky", "key": SKY_KEY, "models": ["default/sky"], "limits": [limit]})
    return config


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    gateway = Gateway(with_agents(auto_reload=False))
    write(gateway.folder / "work" / "agents", START)
    with gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway) -> Iterator[Gateway]:
    """The same folder for each test; whoever changes it says so by ``refreshed``."""
    yield running
    write(folder(running), START)
    assert refreshed(running)["agents"]["failed"] == 1


def folder(gateway: Gateway) -> Path:
    return gateway.folder / "work" / "agents"


def refreshed(gateway: Gateway) -> Tree:
    reply = gateway.post("/agents/refresh", key=gateway.admin_key)
    assert reply.status == 200, reply.body
    told: Tree = orjson.loads(reply.body)
    return told


def chat(gateway: Gateway, model: str, key: str = APP_KEY) -> str:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return reply.choices[0].message.content or ""


def listed(gateway: Gateway) -> dict[str, Tree]:
    data = orjson.loads(gateway.get("/agents", key=gateway.admin_key).body)["data"]
    return {item["id"]: item for item in data}


def models(gateway: Gateway, key: str) -> list[str]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        return [model.id for model in client.models.list() if model.owned_by == "agents"]


def test_they_are_listed_for_whoever_may_use_them(gateway: Gateway) -> None:
    assert models(gateway, APP_KEY) == ["default/sky", "team/tax"]
    assert models(gateway, SKY_KEY) == ["default/sky"]
    assert gateway.get("/agents", key=APP_KEY).status == 403
    told = listed(gateway)
    assert {name: item["status"] for name, item in told.items()} == {
        "default/sky": "ready", "team/tax": "ready", "default/bad": "failed", "default/denied": "blocked",
    }  # fmt: skip
    assert "not today" in told["default/bad"]["error"]
    upstreams = orjson.loads(gateway.get("/upstreams", key=gateway.admin_key).body)["data"]
    assert [(item["name"], item["models"]) for item in upstreams][-1] == ("agents", ["default/sky", "team/tax"])
    events = {(line["event"], line.get("agent")) for line in gateway.logs()}
    assert {("agent.dropin.failed", "default/bad"), ("agent.dropin.blocked", "default/denied")} <= events


def test_they_answer_in_every_dialect_under_both_names(gateway: Gateway) -> None:
    assert chat(gateway, "default/sky") == "blue"
    assert chat(gateway, "agents/team/tax") == "much"
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0) as client:
        assert client.responses.create(model="default/sky", input="hi").output_text == "blue"
    with anthropic.Anthropic(base_url=gateway.url, api_key=APP_KEY, max_retries=0) as claude:
        message = claude.messages.create(model="team/tax", max_tokens=99, messages=[{"role": "user", "content": "hi"}])
    assert [block.text for block in message.content if block.type == "text"] == ["much"]


@pytest.mark.parametrize("model", ["default/bad", "default/denied", "default/none", "agents/default/none", "agents/*"])
def test_what_is_not_served_is_not_found(gateway: Gateway, model: str) -> None:
    with pytest.raises(openai.NotFoundError):
        chat(gateway, model)


def test_keys_and_limits_hold_for_them(gateway: Gateway) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        chat(gateway, "team/tax", SKY_KEY)
    assert chat(gateway, "default/sky", SKY_KEY) == "blue"
    with pytest.raises(openai.RateLimitError):
        chat(gateway, "default/sky", SKY_KEY)
    receipt = gateway.until(
        lambda: [line for line in gateway.logs() if line["event"] == "request" and line.get("status") == 429],
        "no receipt of a refusal",
    )[-1]
    assert (receipt["key"], receipt["model_label"]) == ("sky", "default/sky")
    text = gateway.get("/metrics/prometheus", key=gateway.admin_key).body.decode()
    assert re.search(r'agw_requests_total\{[^}]*model="default/sky"[^}]*upstream="agents"', text)


def test_a_refresh_takes_up_what_is_new_and_keeps_what_the_new_one_broke(gateway: Gateway) -> None:
    write(folder(gateway), {"sky/agent.py": says("grey"), "late/agent.py": says("at last")})
    told = refreshed(gateway)
    assert told["agents"] == {"ready": 3, "stale": 0, "failed": 1, "blocked": 1}
    assert [chat(gateway, f"default/{name}") for name in ("sky", "late")] == ["grey", "at last"]
    write(folder(gateway), {"sky/agent.py": "agent = ("})
    (folder(gateway) / "late" / "agent.py").unlink()
    told = refreshed(gateway)
    assert "sky/agent.py:1" in told["agent_errors"]["default/sky"]
    assert listed(gateway)["default/sky"]["status"] == "stale"
    assert chat(gateway, "default/sky") == "grey"
    with pytest.raises(openai.NotFoundError):
        chat(gateway, "default/late")


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
def test_a_guardrail_that_trips_behind_the_first_words_ends_the_stream_with_an_error(
    gateway: Gateway, path: str
) -> None:
    write(folder(gateway), {"forbids/agent.py": FORBIDS})
    refreshed(gateway)
    said = {"input": "hi"} if path == "responses" else {"messages": [{"role": "user", "content": "hi"}]}
    body = {"model": "default/forbids", "stream": True, "max_tokens": 99, **said}
    try:
        reply = gateway.post(f"/v1/{path}", body)
    finally:
        (folder(gateway) / "forbids" / "agent.py").unlink()
    assert reply.status == 200
    assert b"I ask." in reply.body
    assert b"Rude." not in reply.body
    assert b"HTTP/1.1" not in reply.body
    assert reply.body.count(b"event: error\ndata: ") == 1
    assert b"guardrail 'polite' has stopped this" in reply.body.partition(b"event: error")[2]
    assert gateway.receipt(reply.request_id)["outcome"] == "policy_guardrail_tripped"


def test_settings_of_agents_are_taken_up_and_a_configured_model_keeps_its_name(gateway: Gateway) -> None:
    override = {"name": "default/sky", "serve_as": "team/sky", "turns": 2}
    try:
        sections = {
            "upstreams": [provider("http://127.0.0.1:9")],
            "models": [{"name": "team/tax", "targets": ["fake/x"]}],
        }
        gateway.write({**with_agents(overrides=[override]), **sections})
        refreshed(gateway)
        assert chat(gateway, "team/sky") == "blue"
        assert listed(gateway)["team/sky"]["bounds"]["turns"] == 2
        assert listed(gateway)["team/tax"]["status"] == "blocked"
    finally:
        gateway.write(with_agents(auto_reload=False))
        refreshed(gateway)
    assert chat(gateway, "team/tax") == "much"


def test_files_that_change_are_taken_up_where_that_is_asked_for(gateway: Gateway) -> None:
    gateway.write(with_agents(auto_reload=True))
    refreshed(gateway)
    before = listed(gateway)["default/sky"]["version"]
    write(folder(gateway), {"sky/agent.py": says("red")})
    try:
        gateway.until(lambda: listed(gateway)["default/sky"]["version"] != before, "it was not taken up", SECONDS)
        assert chat(gateway, "default/sky") == "red"
    finally:
        gateway.write(with_agents(auto_reload=False))


def test_a_tool_that_computes_on_a_thread_gives_the_loop_way_at_once(gateway: Gateway) -> None:
    lines = "import sys\nfrom agents import Agent\nfrom agw_proxy.sdk import FunctionModel\n"
    lines += "agent = Agent(name='Told', model=FunctionModel(lambda turn: str(sys.getswitchinterval())))\n"
    write(folder(gateway), {**START, "told/agent.py": lines})
    refreshed(gateway)
    assert float(chat(gateway, "default/told")) == pytest.approx(1e-4), (
        "Python's own is 5 ms, for each event of a relay"
    )


def test_without_an_agent_nothing_of_the_sdk_is_imported(tmp_path: Path) -> None:
    """Also where there is a folder for them."""
    code = (
        "import os, signal, sys\n"
        "from agw_proxy import cli\n"
        "from agw_proxy.commands import serve\n"
        "def ready(gateway, url):\n"
        "    print([name for name in ('agents', 'openai', 'mcp', 'httpx2', 'griffe') if name in sys.modules], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "serve._ready = ready\n"
        "sys.exit(cli.main(['serve', '--port', '0']))\n"
    )
    (tmp_path / "agents" / "notes").mkdir(parents=True)
    environ = {"PYTHONPATH": str(PACKAGE_ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
