"""Signs requests for AWS by botocore (Signature Version 4), with the credentials that botocore finds.

Imported when an upstream is first asked, off the loop: botocore takes a tenth of a second.
"""

import asyncio
import time
from typing import Any

from agw_proxy.errors import UpstreamError, UpstreamRefused, UpstreamUnreachable
from agw_proxy.upstreams.granted import Grant, Granted

SERVICE = "bedrock"
FRESH_SECONDS = 60.0  # botocore renews what expires a quarter of an hour ahead: it is asked again well within that
ASIDE_BYTES = 256 * 1024  # a longer body is hashed off the loop
SIGNED_PREFIXES = ("x-amz-", "x-amzn-bedrock-")
PASSING = frozenset({"ConnectionError", "MetadataRetrievalError", "ConnectTimeoutError", "ReadTimeoutError"})
"""Of botocore's errors those that another try may not meet."""
NONE_FOUND = (
    "Upstream '{}' has no AWS credentials: give it an api_key, set aws.profile, or bring them by the environment, "
    "the AWS files or the machine's role."
)


class Signer:
    """Of one upstream."""

    def __init__(self, name: str, region: str, profile: str | None) -> None:
        """``name``: of the upstream."""
        self._name, self._region, self._profile = name, region, profile
        self._source: Any = None
        self._granted: Granted[Any] = Granted(name, self._fetch)

    async def signed(self, method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> list[tuple[str, str]]:
        """The headers with those that sign them (of AWS' own, and the content type), URL and body. Raises UpstreamError."""
        credentials = await self._granted.get()
        if len(body) < ASIDE_BYTES:
            return self._sign(credentials, method, url, headers, body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._sign, credentials, method, url, headers, body)

    def refused(self) -> None:
        """AWS does not take the credentials that are held: look for others."""
        if self._granted.forget():
            self._source = None

    async def close(self) -> None:
        """Fetch no more."""
        await self._granted.close()

    def _sign(
        self, credentials: Any, method: str, url: str, headers: list[tuple[str, str]], body: bytes
    ) -> list[tuple[str, str]]:
        from botocore.auth import SigV4Auth  # noqa: PLC0415  imported by whoever fetched the credentials
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415  likewise

        covered = {
            name: value
            for name, value in headers
            if name.lower() == "content-type" or name.lower().startswith(SIGNED_PREFIXES)
        }
        request = AWSRequest(method=method, url=url, data=body, headers=covered)
        SigV4Auth(credentials, SERVICE, self._region).add_auth(request)
        made = {str(name): str(value) for name, value in request.headers.items()}
        names = {name.lower() for name in made}
        return [*((name, value) for name, value in headers if name.lower() not in names), *made.items()]

    def _fetch(self) -> Grant[Any]:
        """Blocks: reads files, asks a metadata service."""
        try:
            return self._found()
        except UpstreamError:
            raise
        except Exception as error:  # noqa: BLE001  the words of whatever it is may quote a secret: only its name is told
            kind = type(error).__name__
            if kind in PASSING or isinstance(error, OSError):
                raise UpstreamUnreachable(f"No AWS credentials for upstream '{self._name}' now ({kind}).") from None
            raise UpstreamRefused(f"Upstream '{self._name}' got no AWS credentials ({kind}).") from None

    def _found(self) -> Grant[Any]:
        from botocore.auth import SigV4Auth  # noqa: F401, PLC0415  for signing, off the loop
        from botocore.session import Session  # noqa: PLC0415  at its first use

        source = self._source
        if source is None:
            source = self._source = Session(profile=self._profile).get_credentials()
        if source is None:
            raise UpstreamRefused(NONE_FOUND.format(self._name))
        now = time.time()
        return Grant(source.get_frozen_credentials(), now + FRESH_SECONDS, now + 2 * FRESH_SECONDS)
