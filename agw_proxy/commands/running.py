"""The running gateway, for commands that ask it something: where it is, with which key, and plain HTTP to it.

Standard library only: these commands are to answer as fast as they can be typed.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8080"
KEY_PREFIX = "agw-"  # of generated gateway keys; a provider's key in OPENAI_API_KEY is not for us
CONNECT_SECONDS = 5.0
DOCUMENT_BYTES = 16 * 1024 * 1024
ERROR_BYTES = 64 * 1024  # of an error's body


class Failure(Exception):
    """The command cannot go on; the message is for the user."""


class Place(NamedTuple):
    """A gateway: its address without ``/v1``, and the key to present (None: none is known)."""

    url: str
    key: str | None


def find(url: str | None, key: str | None, environ: Mapping[str, str]) -> Place:
    """Give the gateway that is meant: by option, else by environment, else the default and its development key.

    OPENAI_API_KEY goes to the address in OPENAI_BASE_URL, or anywhere if it is a generated gateway key: a provider's
    key is not sent to a gateway by mistake. The development key goes to this machine only. Raises Failure.
    """
    named = environ.get("OPENAI_BASE_URL", "").strip()
    address = _normalised(url or named or DEFAULT_URL)
    if key:
        return Place(address, _checked(key))
    offered = environ.get("OPENAI_API_KEY", "").strip()
    if offered and (offered.startswith(KEY_PREFIX) or (named and not url)):
        return Place(address, _checked(offered))
    return Place(address, _development_key(environ) if _is_here(address) else None)


def ask(
    place: Place,
    method: str,
    path: str,
    body: object = None,
    *,
    seconds: float = 30.0,
    more: Mapping[str, str] | None = None,
    window: int | None = None,
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Send one request; give the connection (the caller closes it) and the answer's head. Raises Failure.

    ``seconds``: the longest silence from the answer's side. ``more``: headers. ``window``: about as many bytes may be on
    their way here before somebody reads them.
    """
    parts = urlsplit(place.url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)
    headers = {"Accept": "application/json", **(more or {})}
    if place.key is not None:
        headers["Authorization"] = f"Bearer {place.key}"
    payload = None
    if body is not None:
        payload = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.connect()
        connection.sock.settimeout(seconds)
        if window is not None:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        connection.request(method, f"{parts.path}{path}", payload, headers)
        return connection, connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise Failure(_reason(place.url, error)) from None


def fetch(place: Place, path: str, *, seconds: float = 30.0) -> tuple[int, Any]:
    """GET a JSON document: its status and content (None where it is no JSON, or no small one). Raises Failure.

    ``seconds``: the longest silence.
    """
    connection, response = ask(place, "GET", path, seconds=seconds)
    try:
        text = response.read(DOCUMENT_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Failure(_reason(place.url, error)) from None
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except (ValueError, RecursionError):
        return response.status, None


def complaint(place: Place, response: http.client.HTTPResponse) -> str:
    """Say what an answer other than 200 means, from its body where that is one of ours."""
    try:
        content = json.loads(response.read(ERROR_BYTES))
    except (ValueError, RecursionError, OSError, http.client.HTTPException):
        content = None
    message = error_message(content)
    if response.status == http.HTTPStatus.UNAUTHORIZED and place.key is None:
        return (
            f"{place.url} wants a key, and none was found: give --key, or set OPENAI_BASE_URL and OPENAI_API_KEY "
            "as `agw serve` prints them"
        )
    if message is None:
        return f"{place.url} answered {response.status} {response.reason}: is this a gateway?"
    return f"{response.status}: {message}"


def error_message(content: object) -> str | None:
    """Give the message of an error object as the OpenAI API has it; None where this is none."""
    if not isinstance(content, dict) or not isinstance(content.get("error"), dict):
        return None
    message = content["error"].get("message")
    return message if isinstance(message, str) else None


def _normalised(text: str) -> str:
    shown = text.strip()
    try:
        parts = urlsplit(shown)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not shown.isascii() or not shown.isprintable() or " " in shown:
        raise Failure(f"expected an address such as {DEFAULT_URL}, got {text!a}")
    return shown.rstrip("/").removesuffix("/v1").rstrip("/")


def _checked(key: str) -> str:
    if not all("!" <= character <= "~" for character in key):
        raise Failure("the key holds characters that cannot be sent: expected visible ASCII without spaces")
    return key


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _development_key(environ: Mapping[str, str]) -> str | None:
    """Read the generated key, if there is one that this user may read; never make it."""
    from agw_proxy.config import devkey  # noqa: PLC0415  needed only where no key was named

    configured = environ.get("GATEWAY_SERVER__STATE_DIR", "")
    path = devkey.state_dir(Path(configured) if configured else None, environ) / devkey.FILE
    try:
        text = path.read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return text if devkey.KEY.fullmatch(text) else None


def _reason(url: str, error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"no gateway listens at {url}: start one with `agw serve`"
    if isinstance(error, socket.gaierror):
        return f"the host of {url} is not known"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection to {url}: {error.reason or 'TLS failed'}"
    if isinstance(error, TimeoutError):
        return f"{url} did not answer in time"
    if isinstance(error, http.client.HTTPException):
        return f"{url} did not answer with HTTP, or broke off: is this a gateway?"
    return f"{url} cannot be reached: {getattr(error, 'strerror', None) or 'the connection broke'}"
