"""Makes what is asked for answers out of the settings; what has not changed since the last time is carried over."""

from collections.abc import Sequence

from agw_proxy.config.settings import Settings, Upstream
from agw_proxy.upstreams.attempts import Service
from agw_proxy.upstreams.echo import Echo
from agw_proxy.upstreams.health import Health
from agw_proxy.upstreams.http import HttpUpstream

SECRET_CHARACTERS = 8  # a shorter header value is no secret


def compile_services(settings: Settings, before: Settings | None, old: Sequence[Service]) -> tuple[Service, ...]:
    """One for each upstream in the settings' order, then the built-in echo model's.

    ``old``: what this made of the settings ``before``. An upstream that is the same in both keeps its pool, one of the
    same name its health. Raises ValueError where an upstream cannot be used.
    """
    known = {}
    if before is not None:
        known = {upstream.name: (upstream, old[place]) for place, upstream in enumerate(before.upstreams)}
    services: list[Service] = []
    for upstream in settings.upstreams:
        then, service = known.get(upstream.name, (None, None))
        same = then == upstream and before is not None and before.timeouts == settings.timeouts
        http = service.upstream if service is not None and same else HttpUpstream(upstream, settings.timeouts)
        services.append(
            Service(
                upstream=http,
                retries=upstream.retries.over(settings.retries),
                health=service.health if service is not None else Health(),
                secrets=_secrets(upstream),
                total=upstream.timeouts.over(settings.timeouts).total,
                auth=upstream.auth,
                stream_usage=upstream.stream_usage,
            )
        )
    services.append(old[-1] if old else _echo(settings))
    return tuple(services)


def _echo(settings: Settings) -> Service:
    return Service(
        upstream=Echo(),
        retries=settings.retries,
        health=Health(),
        secrets=(),
        total=settings.timeouts.total,
        auth="none",
        stream_usage=True,
    )


def _secrets(upstream: Upstream) -> tuple[str, ...]:
    """What of an upstream's settings must never be shown."""
    values = [upstream.api_key.get_secret_value()] if upstream.api_key is not None else []
    values += [value.rpartition(" ")[2] for value in upstream.headers.values()]
    return tuple(value for value in values if len(value) >= SECRET_CHARACTERS)
