"""The official Node SDKs and Vercel's, as docs/guides set them up, against every upstream dialect: the same answer comes."""

from pathlib import Path

import orjson
import pytest

from tests.clients.conftest import INSTALLED, Run
from tests.support.gateway import Gateway
from tests.support.providers import SCENES, plays
from tests.support.upstream import Upstream

SCRIPT = Path(__file__).with_name("sdk.mjs").read_text()
SDKS = ("chat", "responses", "messages")
VERCEL = ("vercel:chat", "vercel:responses", "vercel:messages", "vercel:gemini")


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("scene", ["text", "tools"])
@pytest.mark.parametrize("spoken", ["chat", "responses", "messages", "gemini"])
@pytest.mark.parametrize("client", [*SDKS, *VERCEL])
def test_a_node_sdk_reads_each_upstream(
    gateway: Gateway, upstream: Upstream, run: Run, client: str, spoken: str, scene: str, how: str
) -> None:
    told = SCENES[scene]
    upstream.default = plays(told)
    offered = ",".join(name for name, _ in told.calls)
    arguments = (client, gateway.url, gateway.key, f"{spoken}-1", how, offered)
    printed = run("node", "--input-type=module", "-", *arguments, source=SCRIPT, cwd=INSTALLED)
    seen = orjson.loads(printed)
    assert seen["text"] == "".join(told.text)
    assert seen["calls"] == [list(call) for call in told.calls]
    assert seen["stop"] == told.stop
    assert seen["usage"] == [told.prompt, told.output, told.cached]
