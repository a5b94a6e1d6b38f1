"""What workers tell each other of an Idempotency-Key, and that nothing of it is left behind."""

import asyncio

import pytest

from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.idempotency import Orders

NAME, BODY = b"n" * 32, b"b" * 32
TTL = 60.0
PATIENCE = 10.0  # seconds; only what hangs comes to it


class SlowStore:
    """Keeps what is added at once, and says so when it is let."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.go = asyncio.Event()

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def set(self, key: str, value: bytes, ttl: float) -> bool:
        self.values[key] = value
        return True

    async def add(self, key: str, value: bytes, ttl: float) -> bool | None:
        added = self.values.setdefault(key, value) is value
        await self.go.wait()
        return added

    async def remove(self, key: str) -> None:
        self.values.pop(key, None)

    async def close(self) -> None:
        """Nothing to close."""


class Told:
    """Hears of nothing."""

    def dropped(self, what: str, count: int = 1) -> None:
        raise AssertionError(f"{what} was dropped")


async def settled(orders: Orders) -> None:
    """Wait until what goes on behind requests is done."""
    async with asyncio.timeout(PATIENCE):
        while orders._writes:
            await asyncio.sleep(0)


@pytest.mark.parametrize("theirs", [False, True], ids=["its own mark", "another worker's"])
async def test_a_request_that_is_cut_while_it_sets_its_mark_leaves_none(theirs: bool) -> None:
    """Else a retry would wait as if a worker had died."""
    store = SlowStore()
    orders = Orders(TTL, 1 << 20, Told(), store)
    if theirs:
        store.values[NAME.hex()] = b"another's"
    claim = asyncio.ensure_future(orders.claim(NAME, BODY, Exchange("r", "POST", None)))
    while NAME.hex() not in store.values:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    claim.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claim
    store.go.set()
    await settled(orders)
    assert store.values == ({NAME.hex(): b"another's"} if theirs else {})
