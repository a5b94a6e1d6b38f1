"""Upstreams that need no configuration: each is known by the environment name that its own tools use for its key.

They serve only where there is no ``upstreams`` section anywhere. One table, in the order in which patterns are tried.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agw_proxy.config.values import base_url, is_loopback

OWN_KEY_PREFIX = "agw-"  # a gateway key in OPENAI_API_KEY is there for the gateway's clients; no provider gets it


@dataclass(frozen=True, slots=True)
class Service:
    """A provider: its name, address and models, the names that hold its key, and those that hold another address."""

    name: str
    base_url: str
    models: tuple[str, ...]
    keys: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    default_port: int | None = None
    dialect: str = "openai"


@dataclass(frozen=True, slots=True)
class Found:
    """A provider that the environment names. ``variable``: where its key (or, without one, its address) is."""

    service: Service
    variable: str
    base_url: str
    api_key: str | None


SERVICES = (
    Service(
        "openai",
        "https://api.openai.com/v1",
        (
            "gpt-*",
            "o1*",
            "o3*",
            "o4*",
            "chatgpt-*",
            "codex-*",
            "text-embedding-*",
            "omni-moderation-*",
            "dall-e-*",
            "whisper-*",
            "tts-*",
        ),
        ("OPENAI_API_KEY",),
        ("OPENAI_BASE_URL",),
    ),
    Service("anthropic", "https://api.anthropic.com", ("claude-*",), ("ANTHROPIC_API_KEY",), dialect="anthropic"),
    Service(
        "google",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("gemini-*",),
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    ),
    Service("groq", "https://api.groq.com/openai/v1", ("llama-*", "groq/*", "meta-llama/*"), ("GROQ_API_KEY",)),
    Service(
        "mistral",
        "https://api.mistral.ai/v1",
        ("mistral-*", "ministral-*", "magistral-*", "codestral-*", "devstral-*", "pixtral-*", "open-mi*"),
        ("MISTRAL_API_KEY",),
    ),
    Service("deepseek", "https://api.deepseek.com/v1", ("deepseek-*",), ("DEEPSEEK_API_KEY",)),
    Service("xai", "https://api.x.ai/v1", ("grok-*",), ("XAI_API_KEY",)),
    Service("together", "https://api.together.xyz/v1", ("*/*",), ("TOGETHER_API_KEY",)),
    Service("openrouter", "https://openrouter.ai/api/v1", ("*/*",), ("OPENROUTER_API_KEY",)),
    # Local servers take whatever the others do not.
    Service("ollama", "http://127.0.0.1:11434/v1", ("*",), (), ("OLLAMA_HOST",), 11434),
    Service(
        "lmstudio",
        "http://127.0.0.1:1234/v1",
        ("*",),
        (),
        ("LM_STUDIO_BASE_URL", "LMSTUDIO_BASE_URL", "LM_STUDIO_API_BASE"),
        1234,
    ),
)


def preset(name: str) -> dict[str, Any]:
    """Give address and models of a well-known upstream; empty for any other name."""
    return next(
        (
            {"base_url": service.base_url, "models": list(service.models), **_dialect(service)}
            for service in SERVICES
            if service.name == name
        ),
        {},
    )


def _dialect(service: Service) -> dict[str, str]:
    return {} if service.dialect == "openai" else {"dialect": service.dialect}


def local_url(text: str, default_port: int) -> str:
    """Read an address as local model servers write it -> a base URL; ValueError where it is none.

    That is ``host``, ``host:port``, ``:port`` or a URL.
    An address to listen on (``0.0.0.0``) means loopback here.
    """
    raw = text.strip()
    if "://" not in raw:
        raw = f"http://{raw}"
    parts = urlsplit(raw)
    host = parts.hostname or "127.0.0.1"
    if host in {"0.0.0.0", "::"}:
        host = "127.0.0.1"
    if "@" in parts.netloc:
        raise ValueError("expected an address without credentials")
    port = parts.port or (default_port if parts.scheme == "http" else 443)
    path = parts.path.rstrip("/") or "/v1"
    return base_url(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}")


def points_at(url: str, port: int) -> bool:
    """Whether ``url`` is a gateway on this machine's ``port``: forwarding to it would go round in a circle."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    here = host in {"0.0.0.0", "::"} or is_loopback(host)
    return here and (parts.port or (443 if parts.scheme == "https" else 80)) == port


def _address(service: Service, environ: Mapping[str, str], port: int, notes: list[str]) -> tuple[str, str | None]:
    for name in service.addresses:
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            url = local_url(text, service.default_port) if service.default_port else base_url(text)
        except ValueError:
            notes.append(f"{name} is not used: it is not a URL that the gateway can call")
            continue
        if points_at(url, port):
            notes.append(f"{name} is not used: it points at this gateway itself")
            continue
        return url, name
    return service.base_url, None


def find(environ: Mapping[str, str], *, port: int = 8080, notes: list[str] | None = None) -> Iterator[Found]:
    """Give the providers that ``environ`` names, in the order of the table.

    ``port``: the gateway's own. ``notes`` collects remarks.
    """
    remarks = [] if notes is None else notes
    for service in SERVICES:
        name = next((name for name in service.keys if environ.get(name, "").strip()), None)
        if name is None and service.keys:
            continue
        key = environ.get(name, "").strip() if name else None
        if name and key and key.startswith(OWN_KEY_PREFIX):
            remarks.append(f"{name} is not used: it holds a gateway key, not a provider's")
            continue
        url, address = _address(service, environ, port, remarks)
        if name is not None:
            yield Found(service, name, url, key)
        elif address is not None:
            yield Found(service, address, url, None)


def upstreams(environ: Mapping[str, str], *, port: int = 8080, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """Give the upstreams that ``environ`` names, in the form of the ``upstreams`` section, with the keys themselves."""
    found = []
    for item in find(environ, port=port, notes=notes):
        entry: dict[str, Any] = {
            "name": item.service.name,
            "base_url": item.base_url,
            "models": list(item.service.models),
            **_dialect(item.service),
        }
        found.append(entry if item.api_key is None else {**entry, "api_key": item.api_key})
    return found
