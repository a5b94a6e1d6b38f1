"""Our gateway with its whole policy on, and what a user would take instead of it."""

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agw_proxy import __version__
from bench.proxies.peer import BUILT, ROOT, UPSTREAM_KEY, UPSTREAM_MODEL, VENVS, Launch, Peer, Setting, first_line
from bench.proxies.processes import free_port
from bench.proxies.scenarios import FAST, PLAIN, SLOW

AGW_KEY = "agw-bench-5d1b8f0c2e7a4936b0d4c8e1f2a3"
AGW_MODEL = "bench-virtual"  # unlike the upstream's name, so that the name is replaced in every body
LITELLM_KEY = "sk-bench-litellm-4c0e7b12"
PLENTY = 10**12  # a bucket that is counted and never empty
SMG = VENVS / "smg" / "bin" / "smg"
LITELLM = VENVS / "litellm" / "bin" / "litellm"
NODE_GATEWAY = BUILT / "node" / "node_modules" / "@portkey-ai" / "gateway"
INSTALL = "not installed: `python -m bench.proxies.compare --install`"


def _agw(setting: Setting, workers: int = 1) -> Launch:
    """Key check, a bucket of requests and one of tokens, a virtual model, usage asked for in streams, metrics, a log."""
    secure = setting.ca_file is not None
    upstream: dict[str, object] = {
        "name": "bench",
        "base_url": f"{'https' if secure else 'http'}://{'localhost' if secure else '127.0.0.1'}:{setting.upstream_port}/v1",
        "api_key": UPSTREAM_KEY,
        "models": [UPSTREAM_MODEL],
        "stream_usage": True,
    }
    if secure:
        upstream["ca_file"] = str(setting.ca_file)
    limits = [{"per": "key", amount: PLENTY, "period": "1s"} for amount in ("requests", "tokens")]
    server: dict[str, object] = {
        "port": setting.port,
        "drain_seconds": 1,
        "max_connections": setting.files,
        "workers": workers,
    }
    config = {
        "server": server,
        "upstreams": [upstream],
        "models": [{"name": AGW_MODEL, "targets": [{"upstream": "bench", "model": UPSTREAM_MODEL}]}],
        "keys": [{"name": "bench", "key": AGW_KEY, "models": [AGW_MODEL], "limits": limits}],
        "log": {"file": str(setting.folder / "agw.log"), "format": "json"},
        "metrics": {"prometheus": True},
    }
    file = setting.folder / "gateway.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    file.chmod(0o600)
    return Launch([sys.executable, "-m", "agw_proxy", "serve", "--config", str(file)], {"PYTHONPATH": str(ROOT)})


def _plain(setting: Setting) -> Launch:
    upstream = f"http://127.0.0.1:{setting.upstream_port}"
    argv = [sys.executable, "-m", "bench.proxies.plain_aiohttp", str(setting.port), upstream, UPSTREAM_KEY]
    return Launch(argv, {"PYTHONPATH": str(ROOT)})


def _smg(setting: Setting) -> Launch:
    argv = [str(SMG), "launch", "--host", "127.0.0.1", "--port", str(setting.port), "--backend", "openai"]
    argv += ["--worker-urls", f"http://127.0.0.1:{setting.upstream_port}", "--policy", "round_robin"]
    argv += ["--log-level", "warn", "--log-dir", str(setting.folder), "--prometheus-port", str(free_port())]
    argv += ["--history-backend", "none", "--disable-health-check", "--max-concurrent-requests", "20000"]
    return Launch(argv)


def _litellm(setting: Setting) -> Launch:
    target = {
        "model": f"openai/{UPSTREAM_MODEL}",
        "api_base": f"http://127.0.0.1:{setting.upstream_port}/v1",
        "api_key": UPSTREAM_KEY,
    }
    config = {
        "model_list": [{"model_name": AGW_MODEL, "litellm_params": target}],
        "general_settings": {"master_key": LITELLM_KEY},
    }
    file = setting.folder / "litellm.yaml"
    file.write_text(json.dumps(config))
    argv = [str(LITELLM), "--config", str(file), "--host", "127.0.0.1", "--port", str(setting.port)]
    # Its own switches: one process, and no look at the network for prices.
    env = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    return Launch([*argv, "--num_workers", "1"], env)


def _portkey(setting: Setting) -> Launch:
    script = NODE_GATEWAY / "build" / "start-server.js"
    return Launch([shutil.which("node") or "node", str(script), f"--port={setting.port}", "--headless"])


def _portkey_version() -> str:
    try:
        return str(json.loads((NODE_GATEWAY / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        return ""


def _venv_version(venv: str, package: str) -> str:
    line = first_line(VENVS / venv / "bin" / "python", "-m", "pip", "show", package, holding="Version:")
    return line.partition(":")[2].strip()


def _own_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _needs(path: Path, program: str = "") -> str | None:
    if program and shutil.which(program) is None:
        return f"not installed: {program}"
    return None if path.exists() else INSTALL


AGW = Peer(
    name="agw",
    title="**agw**",
    speed=FAST,
    version=lambda: __version__,
    missing=lambda: None,
    launch=_agw,
    model=AGW_MODEL,
    key=AGW_KEY,
)
AGW_TWO = AGW._replace(name="agw-2", title="agw, two workers", launch=lambda setting: _agw(setting, 2), workers=2)
PLAIN_AIOHTTP = Peer(
    name="aiohttp",
    title="plain aiohttp relay",
    speed=PLAIN,
    version=lambda: f"{_own_version('aiohttp')}, uvloop {_own_version('uvloop')}",
    missing=lambda: None,
    launch=_plain,
)
SMG_PEER = Peer(
    name="smg",
    title="smg",
    speed=PLAIN,
    version=lambda: _venv_version("smg", "smg"),
    missing=lambda: _needs(SMG),
    launch=_smg,
)
PORTKEY = Peer(
    name="portkey",
    title="Portkey",
    speed=SLOW,
    version=_portkey_version,
    missing=lambda: _needs(NODE_GATEWAY, "node"),
    launch=_portkey,
    headers=lambda port: {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{port}/v1"},
)
LITELLM_PEER = Peer(
    name="litellm",
    title="LiteLLM",
    speed=SLOW,
    version=lambda: _venv_version("litellm", "litellm"),
    missing=lambda: _needs(LITELLM),
    launch=_litellm,
    model=AGW_MODEL,
    key=LITELLM_KEY,
    start_seconds=60.0,
    kept=True,
)
