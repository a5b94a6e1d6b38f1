"""What importing aiohttp leaves out, and that nothing of that stays behind."""

import subprocess
import sys

from tests.support.gateway import PACKAGE_ROOT

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
