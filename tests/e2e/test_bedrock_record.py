"""What a cloud has answered is recorded in the form that it wraps, without its credentials, and comes again without it."""

from pathlib import Path
from typing import Any

from tests.e2e.test_record import recordings
from tests.e2e.test_translation import CLIENTS, Seen
from tests.support import aws
from tests.support.gateway import Gateway, configuration
from tests.support.providers import SCENES
from tests.support.upstream import Upstream

MODELS = (aws.MODEL, "us.amazon.nova-pro-v1:0")
TIMES = {"connect": "5s", "first_byte": "20s", "between_bytes": "20s", "total": "60s"}


def asked(gateway: Gateway) -> list[Seen]:
    return [
        CLIENTS["messages"](gateway, model, stream=stream, tools=True) for model in MODELS for stream in (False, True)
    ]


def test_a_cloud_is_recorded_without_its_credentials(upstream: Upstream, tmp_path: Path) -> None:
    upstream.default = aws.plays(SCENES["tools"])
    entry: dict[str, Any] = {"name": "bedrock", "dialect": "bedrock", "models": ["us.*"]}
    there = {**entry, "aws": {"region": aws.REGION}, "base_url": upstream.url}
    server = {"port": 0, "drain_seconds": 1, "record": str(tmp_path)}
    with Gateway(configuration(there, timeouts=TIMES, server=server), env=aws.ENVIRONMENT) as gateway:
        first = asked(gateway)
        gateway.until(lambda: len(recordings(tmp_path)) == len(first), "not all is recorded")
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("*.json"))
    for secret in (aws.ACCESS_KEY, aws.SECRET_KEY, aws.SESSION_TOKEN):
        assert secret.encode() not in kept
    assert {made.request.path for made in recordings(tmp_path)} == {"/messages"}
    before = len(upstream.requests)
    with Gateway(configuration({**entry, "replay": str(tmp_path), "replay_speed": 0}, timeouts=TIMES)) as gateway:
        assert asked(gateway) == first
    assert len(upstream.requests) == before
