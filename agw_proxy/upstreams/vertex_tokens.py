"""Access tokens for Google Cloud by google-auth: of a file (a service account), or the default credentials.

Imported when an upstream is first asked, off the loop.
"""

import functools
import re
import time
from datetime import UTC
from pathlib import Path
from typing import Any

import orjson

from agw_proxy.errors import UpstreamError, UpstreamRefused, UpstreamUnreachable
from agw_proxy.upstreams.granted import Grant, Granted

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
EARLY_SECONDS = 240.0  # a token is renewed beside the requests so long before its end
LATE_SECONDS = 20.0  # and not sent in its last seconds: it would end on the way
REQUEST_SECONDS = 10.0  # of one request for a token
LASTING_SECONDS = 300.0  # of a token that does not say when it ends
_CODE = re.compile(r"[a-z_]{1,40}")


class Tokens:
    """Of one upstream."""

    def __init__(self, name: str, file: Path | None) -> None:
        """``name``: of the upstream. ``file``: with credentials; None: the default ones."""
        self._name, self._file = name, file
        self._source: Any = None
        self._granted: Granted[str] = Granted(name, self._fetch)

    async def get(self) -> str:
        """A token that is good for now. Raises UpstreamError."""
        return await self._granted.get()

    def refused(self) -> None:
        """Vertex does not take the one that is held: read the credentials anew."""
        if self._granted.forget():
            self._source = None

    async def close(self) -> None:
        """Fetch no more."""
        await self._granted.close()

    def _fetch(self) -> Grant[str]:
        """Blocks: reads files, asks Google."""
        try:
            return self._found()
        except UpstreamError:
            raise
        except Exception as error:  # noqa: BLE001  the words of whatever it is may quote a secret: only its name is told
            kind = type(error).__name__
            if kind == "TransportError" or getattr(error, "retryable", False) or isinstance(error, ConnectionError):
                raise UpstreamUnreachable(
                    f"No access token from Google for upstream '{self._name}' now ({kind})."
                ) from None
            raise UpstreamRefused(
                f"Upstream '{self._name}' got no access token from Google ({kind}{_code_of(error)}). Check google.credentials, "
                "or the default credentials."
            ) from None

    def _found(self) -> Grant[str]:
        from google.auth.transport.requests import Request  # noqa: PLC0415  at its first use

        source = self._source
        if source is None:
            source = self._source = self._read()
        source.refresh(functools.partial(Request(), timeout=REQUEST_SECONDS))
        if not isinstance(source.token, str) or not source.token:
            raise UpstreamRefused(f"Upstream '{self._name}' got no access token from Google.")
        now = time.time()
        if source.expiry is None:
            return Grant(source.token, now + LASTING_SECONDS, now + LASTING_SECONDS)
        ends = source.expiry.replace(tzinfo=source.expiry.tzinfo or UTC).timestamp()
        lasting = max(ends - now, 0.0)
        return Grant(source.token, ends - min(EARLY_SECONDS, lasting / 2), ends - min(LATE_SECONDS, lasting / 4))

    def _read(self) -> Any:
        """The credentials themselves."""
        if self._file is None:
            import google.auth  # noqa: PLC0415  at its first use

            source, _ = google.auth.default(scopes=SCOPES)
            return source
        tree = orjson.loads(self._file.read_bytes())
        kind = tree.get("type") if isinstance(tree, dict) else None
        if kind == "service_account":
            from google.oauth2 import service_account  # noqa: PLC0415  likewise

            return service_account.Credentials.from_service_account_info(tree, scopes=SCOPES)
        if kind == "authorized_user":
            from google.oauth2.credentials import Credentials  # noqa: PLC0415  likewise

            return Credentials.from_authorized_user_info(tree, scopes=SCOPES)
        raise UpstreamRefused(
            f"Upstream '{self._name}': google.credentials is neither a service account's file nor a user's. "
            "Others are found as default credentials (GOOGLE_APPLICATION_CREDENTIALS)."
        )


def _code_of(error: Exception) -> str:
    """OAuth's word for what is wrong (RFC 6749 section 5.2), of which none is a secret."""
    word = str(error.args[0]).partition(":")[0] if error.args else ""
    return f", {word}" if _CODE.fullmatch(word) else ""
