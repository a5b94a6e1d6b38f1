"""What importing aiohttp leaves out, and that nothing of that stays behind; and that an import under way is waited for."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agw_proxy.upstreams.asking import ready
from tests.support.gateway import PACKAGE_ROOT

PATIENCE_SECONDS = 20.0
BEGUN, GO = threading.Event(), threading.Event()
SLOW = f"from {__name__} import BEGUN, GO\nBEGUN.set()\nGO.wait({PATIENCE_SECONDS})\nWHOLE = True\n"

AFTER = """
import ssl
from agw_proxy.upstreams.asking import import_aiohttp
make, read = ssl.create_default_context, ssl.SSLContext.set_default_verify_paths
import_aiohttp()
from aiohttp import connector
made = connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED
print(*(context.cert_store_stats()["x509"] for context in made), ssl.create_default_context is make)
print(ssl.SSLContext.set_default_verify_paths is read, made[0].verify_mode == ssl.CERT_REQUIRED)
"""


def test_no_authorities_are_read_for_contexts_that_nobody_uses() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTER], cwd=PACKAGE_ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["0", "0", "True", "True", "True"], done.stderr


async def test_who_comes_while_a_module_is_imported_waits_for_all_of_it_off_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "slow_to_import", raising=False)
    called: list[None] = []
    first = asyncio.create_task(ready("slow_to_import", lambda: called.append(None)))
    assert await asyncio.to_thread(BEGUN.wait, PATIENCE_SECONDS)
    assert "slow_to_import" in sys.modules
    second = asyncio.create_task(ready("slow_to_import"))
    done, _ = await asyncio.wait({first, second}, timeout=0.05)
    assert not done
    GO.set()
    await asyncio.gather(first, second)
    assert sys.modules["slow_to_import"].WHOLE
    await ready("slow_to_import", lambda: called.append(None))
    assert called == [None]
