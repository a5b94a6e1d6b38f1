"""Out of file descriptors: who comes is told while there is one left, nothing spins, and all is well afterwards."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.behaviours import answer, stream
from tests.support.client import Connection, Reply, bearer
from tests.support.fake_openai import spoken
from tests.support.gateway import ADMIN_KEY, APP_KEY, Gateway, chat_body, configuration, provider
from tests.support.upstream import Upstream

LIMIT = 128
MODEL = "gpt-4o-mini"
KNOCKS = 20  # connections that find no room
LOOK_SECONDS = 1.0  # how long it is watched for spinning
BUSY_SHARE = 0.5  # of that time on the processor; what spins takes all of it


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def exhausted(gateway: Gateway, upstream: Upstream) -> Iterator[tuple[Connection, list[Reply]]]:
    """Every descriptor is in use, by streams that do not end; gives an idle connection, and what was refused on the way."""
    upstream.default = stream(spoken()[:1], ending="hang")
    refused: list[Reply] = []
    with ExitStack() as held:
        idle = [held.enter_context(gateway.connect()) for _ in range(24)]
        for connection in idle:
            connection.send("GET", "/health")
            assert connection.reply("GET").status == 200
        spare = idle.pop()

        def ask(connection: Connection) -> bool:
            connection.send("POST", "/v1/chat/completions", chat_body(model=MODEL, stream=True), bearer(APP_KEY))
            reply = connection.head()
            if reply.status != 200:
                reply.body = b"".join(connection.pieces(reply))
                refused.append(reply)
            return reply.status == 200

        while len(refused) < KNOCKS:
            connection = held.enter_context(gateway.connect())
            with suppress(OSError, EOFError):  # it may be told, and cut, before it has asked
                ask(connection)
        assert {reply.value("connection") for reply in refused} == {"close"}
        spare.send("GET", "/v1/models", None, bearer(APP_KEY))  # whatever is read from files for it, is
        assert spare.reply("GET").status == 200
        for connection in idle:  # their upstream connections take what was kept
            if not ask(connection):
                break
        yield spare, refused


def busy_seconds(gateway: Gateway) -> float:
    """Processor time of the gateway so far."""
    fields = Path(f"/proc/{gateway.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_who_comes_is_told_nothing_spins_and_all_is_well_afterwards(upstream: Upstream, lane: str) -> None:
    config = configuration(provider(upstream.url, models=[MODEL]))
    config["server"] |= {"lane": lane, "drain_seconds": 0}
    config["timeouts"] |= {"between_bytes": "60s", "first_byte": "60s", "total": "120s"}
    with Gateway(config, descriptors=LIMIT) as gateway:
        assert gateway.chat(model=MODEL).status == 200
        begun = time.monotonic()
        with exhausted(gateway, upstream) as (spare, refused):
            early, late = refused[0], refused[-1]
            assert (early.status, early.error["code"], early.value("retry-after")) == (503, "gateway_overloaded", "1")
            assert (late.status, late.value("x-agw-error")) == (503, "gateway_out_of_descriptors")
            assert "no file descriptor left" in str(late.error["message"])
            before = busy_seconds(gateway)
            knocking = [
                Connection(gateway.url) for _ in range(10)
            ]  # the kernel takes them; what comes of it is the gateway's
            time.sleep(LOOK_SECONDS)
            assert busy_seconds(gateway) - before < BUSY_SHARE * LOOK_SECONDS
            for connection in knocking:
                connection.close()
            spare.send("GET", "/health")
            assert spare.reply("GET").status == 200
            spare.send("GET", "/metrics", None, bearer(ADMIN_KEY))
            tree = spare.reply("GET").json
            assert tree["agw_descriptors_limit"] == [{"labels": {}, "value": LIMIT}]
            dropped = tree["agw_dropped_total"]
            assert isinstance(dropped, list)
            # The file of usage may have found no descriptor either; it is written later.
            assert {"descriptor"} <= {entry["labels"]["what"] for entry in dropped} <= {"descriptor", "usage"}
        upstream.default = answer({"ok": True})

        def well() -> bool:
            with suppress(OSError, EOFError):
                return gateway.chat(model=MODEL).status == 200
            return False

        gateway.until(well, "it takes no requests again", 10)
        lines = [line for line in gateway.logs() if line.get("event") == "connections.full"]
        assert 1 <= len(lines) <= 2 + time.monotonic() - begun  # at most one a second
        assert len(gateway.output.splitlines()) < 400
        state = gateway.get("/upstreams", key=ADMIN_KEY).json["data"][0]  # type: ignore[index]
        assert (state["failures"], state["targets"][0]["circuit"]) == (0, "closed")  # it was not the upstream's fault
