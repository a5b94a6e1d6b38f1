"""Imports aiohttp, and what translates: when it is first needed, off the loop's thread, and without the TLS contexts that it makes on import."""

import asyncio
import importlib
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any

_importing = threading.Lock()
_imported: set[str] = set()  # what ``ready`` has seen whole


def import_aiohttp() -> None:
    """Import it; any thread may, at any time.

    Importing it reads the system's authorities, for 55 ms and some megabytes; ours are read at their first use
    (``trust.system_trust``). The contexts made here instead trust nobody: what took one by mistake would fail, not pass.
    """
    with _importing:
        if "aiohttp" in sys.modules:
            return
        make, here = ssl.create_default_context, threading.get_ident()

        def cheap(*args: Any, **kwargs: Any) -> ssl.SSLContext:
            if threading.get_ident() != here:
                return make(*args, **kwargs)
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        def unread(context: ssl.SSLContext) -> None:
            if threading.get_ident() != here:
                read(context)

        read = ssl.SSLContext.set_default_verify_paths  # for the context that verifies nothing, which needs none
        ssl.create_default_context = cheap
        ssl.SSLContext.set_default_verify_paths = unread  # type: ignore[assignment, method-assign]
        try:
            import aiohttp  # noqa: F401, PLC0415  for its side effects to happen here
        finally:
            ssl.create_default_context = make
            del ssl.SSLContext.set_default_verify_paths  # the inherited one again


async def ready(module: str, before: Callable[[], None] | None = None) -> None:
    """Return when ``module`` can be imported at once; ``before`` is called before it is, off the loop too.

    That it stands in ``sys.modules`` says nothing: another request's import of it may be under way, and who then imports it on
    the loop stops the loop until that is done.
    """
    if module in _imported:
        return

    def load() -> None:
        if before is not None:
            before()
        importlib.import_module(module)

    await asyncio.get_running_loop().run_in_executor(None, load)
    _imported.add(module)


async def client_ready() -> None:
    """Return when ``upstreams.client`` can be imported at once."""
    await ready("agw_proxy.upstreams.client", import_aiohttp)


async def translating_ready() -> None:
    """Return when ``upstreams.translating`` can be imported at once: it brings all dialects, for a tenth of a second."""
    await ready("agw_proxy.upstreams.translating")
