"""What a section of the configuration needs that the core does not bring: packages of an extra."""

from importlib.machinery import ModuleSpec
from importlib.util import find_spec as _find_spec

from agw_proxy.config.loader import ConfigError
from agw_proxy.config.settings import Settings
from agw_proxy.config.tree import problem

PACKAGES = {"bedrock": "botocore", "vertex": "google.auth"}
"""Dialects that need a package: the cloud's own library, for its credentials."""
OTLP = "opentelemetry.exporter.otlp.proto.http"


def find_spec(name: str) -> ModuleSpec | None:
    """``importlib.util``'s, also where the package around it is not there."""
    try:
        return _find_spec(name)
    except ModuleNotFoundError:
        return None


def check_extras(settings: Settings) -> None:
    """Raise ConfigError where a package is missing that the settings need; nothing is imported."""
    missing = [(section, package, extra) for section, package, extra in _needed(settings) if find_spec(package) is None]
    if missing:
        raise ConfigError(
            [
                problem(f"'{section}' needs the package {package}: pip install 'agw-proxy[{extra}]'")
                for section, package, extra in missing
            ]
        )


def _needed(settings: Settings) -> list[tuple[str, str, str]]:
    """(section, package, extra) of what is configured."""
    needed = [("redis", "redis", "redis")] if settings.redis is not None else []
    if settings.cache is not None and settings.cache.backend == "disk":
        needed.append(("cache.backend: disk", "diskcache", "cache"))
    if settings.store is not None and settings.store.url is not None:
        needed.append(("store.url", "psycopg", "sql"))
    if settings.trace.endpoint is not None:
        needed.append(("trace.endpoint", OTLP, "otel"))
    for upstream in settings.upstreams:
        package = PACKAGES.get(upstream.dialect) if upstream.replay is None else None
        if package is not None:
            needed.append((f"upstreams.{upstream.name}: dialect: {upstream.dialect}", package, upstream.dialect))
    return needed
