"""The first minute: an empty folder, no configuration, and something that answers."""

import re
import subprocess
import sys

import openai
import pytest

from tests.support.gateway import PACKAGE_ROOT, Gateway

ANY_PORT = {"GATEWAY_SERVER__PORT": "0"}
HEAVY = (
    "agents", "openai", "mcp", "sqlalchemy", "opentelemetry", "httpx", "httpx2", "redis", "tenacity", "aiohttp", "yaml",
)  # fmt: skip


def printed(gateway: Gateway, name: str) -> str:
    """The value of a line ``NAME=value`` (with or without ``export``) ready to paste into a shell."""
    pattern = re.compile(rf"{name}=[\"']?([^\s\"'\\]+)")

    def found() -> list[str]:
        return pattern.findall(gateway.output)

    return gateway.until(found, f"{name} was not printed")[0]


def test_an_empty_folder_serves_echo_with_a_key_ready_to_paste() -> None:
    with Gateway(None, env=ANY_PORT) as gateway:
        url, key = printed(gateway, "OPENAI_BASE_URL"), printed(gateway, "OPENAI_API_KEY")
        assert url == f"{gateway.url}/v1"
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            reply = client.chat.completions.create(model="agw/echo", messages=[{"role": "user", "content": "ping"}])
        assert reply.choices[0].message.content == "ping"
        assert gateway.get("/v1/models", key=None).status == 401
        gateway.stop()
        gateway.start()
        assert printed(gateway, "OPENAI_API_KEY") == key, "the generated key is kept"


def test_well_known_provider_keys_in_the_environment_become_upstreams() -> None:
    secret = "sk-well-known-provider-key-000"
    with Gateway(None, env={**ANY_PORT, "OPENAI_API_KEY": secret, "GROQ_API_KEY": secret}) as gateway:
        key = next(value for value in re.findall(r"OPENAI_API_KEY=[\"']?([^\s\"'\\]+)", gateway.output))
        listed = gateway.get("/upstreams", key=key)
        assert listed.status == 200
        assert b"api.openai.com" in listed.body
        assert b"groq" in listed.body
        assert secret not in gateway.output
        assert secret.encode() not in listed.body


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_it_listens_on_loopback_only(host: str) -> None:
    with Gateway(None, env=ANY_PORT) as reachable:
        assert reachable.url.startswith(("http://127.0.0.1:", "http://localhost:"))
    refused = Gateway(None, env={**ANY_PORT, "GATEWAY_SERVER__HOST": host})
    try:
        refused.launch()
        assert refused.wait() != 0
        assert "keys" in refused.output
        assert "Traceback" not in refused.output
    finally:
        refused.__exit__()


def test_a_misspelt_section_is_refused_with_the_nearest_name() -> None:
    refused = Gateway({"upstream": [], "keys": []})
    try:
        refused.launch()
        assert refused.wait() != 0
        assert "upstreams" in refused.output
        assert "gateway.yaml" in refused.output
        assert "Traceback" not in refused.output
    finally:
        refused.__exit__()


def test_starting_imports_nothing_heavy() -> None:
    script = f"import sys, agw_proxy.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE_ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
