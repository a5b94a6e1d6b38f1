"""The scalar types of the settings: how to write a duration, a host, a URL, a header or a key, and what is refused.

Each function takes what came and gives the value to keep, or raises ValueError with a message that says what was
expected. Messages never quote what may be a secret.
"""

import ipaddress
import math
import os
import re
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)?\s*")
MAX_SECONDS = 366 * 86400.0  # a year: beyond it, a typing error is likelier than an intent
MAX_MICRO_DOLLARS = 10**15  # a billion dollars
MAX_NAME = 256  # characters; the route table's bound
AGENTS = "agents"  # the upstream that runs them
RESERVED = {"agw": "the gateway's own models (agw/echo)", AGENTS: "the agents that it runs"}  # names of upstreams
MAX_UNIX_PATH = 107  # bytes; sockaddr_un.sun_path less its NUL
MAX_WORKERS = 28  # the counts of a concurrency gate are one cache line (_hot/limit.pxd)
MIN_HEARTBEAT = 0.5  # seconds; five ticks of a worker
MIN_KEY = 22  # characters of base64 that carry 128 random bits
MIN_DISTINCT = 5  # a random key of 22 digits has fewer different ones about once in 10^6
SAMPLES = frozenset(
    {"changeme", "sk-1234", "secret", "password", "test", "your-key", "your_key", "example", "default", "none", "null"}
)
SAMPLE_MARKS = ("changeme", "change-me", "change_me", "your-key", "your_key", "your-api-key", "<hex>", "xxxxxxxx")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
FIELD_VALUE = re.compile(r"[\x20-\x7e\x80-\xff\t]*")  # RFC 9110 section 5.5, as Latin-1
# Framing and connection management belong to the gateway (RFC 9110 section 7.6.1).
FORBIDDEN_HEADERS = frozenset({
    "accept-encoding", "connection", "content-encoding", "content-length", "expect", "host", "keep-alive",
    "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "x-request-id",
})  # fmt: skip


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number, came true or false")  # noqa: TRY004  pydantic collects ValueErrors only
    return value


def duration(value: object) -> float:
    """``250ms``, ``1.5s``, ``1m``, ``1h``, ``1d`` or a number of seconds -> seconds."""
    expected = "expected a duration such as 250ms, 1.5s, 1m, 1h, 1d or a number of seconds"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)  # noqa: TRY004  pydantic collects ValueErrors only
    if isinstance(value, str):
        match = DURATION.fullmatch(value)
        if match is None:
            raise ValueError(expected)
        seconds = float(match[1]) * UNITS[match[2] or "s"]
    else:
        # An int may be too large for a float, which is an OverflowError.
        seconds = float(value) if abs(value) <= MAX_SECONDS else math.inf
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{expected}, from 0 to 366d")
    return seconds


def micro_dollars(value: object) -> int:
    """US dollars, as a number or its text (``0.15``), to the millionth -> millionths of a dollar."""
    expected = "expected an amount of US dollars such as 50 or 0.15, from 0 to 1000000000, to the millionth"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)  # noqa: TRY004  pydantic collects ValueErrors only
    try:
        amount = Decimal(str(value).strip()) * 1_000_000
    except InvalidOperation:
        raise ValueError(expected) from None
    if not amount.is_finite() or not 0 <= amount <= MAX_MICRO_DOLLARS or amount != amount.to_integral_value():
        raise ValueError(expected)
    return int(amount)


def printable(value: str) -> str:
    """Take a name: 1 to 256 characters, none of them a control character, no spaces around it."""
    if not value or len(value) > MAX_NAME or not value.isprintable() or value.strip() != value:
        raise ValueError(f"expected 1 to {MAX_NAME} printable characters without spaces around them")
    return value


def upstream_name(value: str) -> str:
    """Take an upstream's name: it is the part before the slash in ``upstream/model`` and a label of metrics."""
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", value) is None:
        raise ValueError(
            "expected lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 64"
        )
    if value in RESERVED:
        raise ValueError(f"'{value}' is reserved for {RESERVED[value]}; choose another name")
    return value


def target_name(value: str) -> str:
    """Take the name of an upstream that is asked: one that is configured, or one of the gateway's own."""
    return value if value in RESERVED else upstream_name(value)


def host(value: str) -> str:
    """Take an address to listen on: IPv4, IPv6 (with or without brackets), ``localhost`` or ``unix:/path``."""
    expected = "expected an IPv4 or IPv6 address or unix:/path/to.sock"
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path.startswith("/") or path.endswith("/") or "\0" in path or len(path.encode()) > MAX_UNIX_PATH:
            raise ValueError(f"expected unix: and an absolute path of at most {MAX_UNIX_PATH} bytes")
        return value
    if value == "localhost":
        return "127.0.0.1"
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise ValueError(expected) from None


def is_public(value: str) -> bool:
    """Whether other machines can reach a ``host``; a Unix socket, loopback, and what is no address at all are not."""
    if value.startswith("unix:"):
        return False
    try:
        return not ipaddress.ip_address(host(value)).is_loopback
    except ValueError:
        return False


def is_loopback(value: str) -> bool:
    """Whether the host of a URL is this machine by its address or as ``localhost``."""
    try:
        return ipaddress.ip_address(host(value)).is_loopback
    except ValueError:
        return False


def base_url(value: str) -> str:
    """Take an http(s) URL without credentials, query or fragment (RFC 3986); a trailing slash is trimmed."""
    if not value.isascii() or any(c <= " " or c in '\x7f"<>\\^`{|}' for c in value):
        raise ValueError("expected a URL of visible ASCII characters, without spaces")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("expected a URL such as https://api.example.com/v1; the host or port is not valid") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("expected a URL such as https://api.example.com/v1 (http or https, with a host)")
    if "@" in parts.netloc:
        raise ValueError("expected a URL without credentials; put the key into api_key")
    if "?" in value or "#" in value:
        raise ValueError("expected a URL without a query or fragment")
    if ":" not in parts.hostname and re.fullmatch(r"[A-Za-z0-9._-]+", parts.hostname) is None:
        raise ValueError("expected a host of letters, digits, '.', '-' and '_'")
    return value.rstrip("/")


def hook_url(value: str) -> str:
    """Take an http(s) URL as ``base_url`` does, with a query where it has one: some listeners know their callers by it."""
    address, mark, query = value.partition("?")
    base = base_url(address)
    if not query.isascii() or any(c <= " " or c in "\x7f#" for c in query):
        raise ValueError("expected a query of visible ASCII characters, without spaces or a fragment")
    return f"{address}?{query}" if mark else base


def headers(value: dict[str, str]) -> dict[str, str]:
    """Extra headers for an upstream: token names, each once, none that frames the message or manages the connection."""
    seen = set()
    for name, text in value.items():
        if TOKEN.fullmatch(name) is None:
            raise ValueError("expected header names of letters, digits and !#$%&'*+-.^_`|~")
        if name.lower() in FORBIDDEN_HEADERS:
            raise ValueError(
                f"the header {name!r} is the gateway's own (framing, connection, the request's name); it cannot be set"
            )
        if name.lower() in seen:
            raise ValueError(f"the header {name!r} is given twice (names do not differ by case)")
        if FIELD_VALUE.fullmatch(text) is None or text.strip() != text:
            raise ValueError(
                f"the value of the header {name!r} has control characters, spaces around it, or is not Latin-1"
            )
        seen.add(name.lower())
    return value


def credential(value: SecretStr) -> SecretStr:
    """Take an upstream's key: visible ASCII, since it travels in a header."""
    text = value.get_secret_value()
    if not text or not all("!" <= character <= "~" for character in text):
        raise ValueError("expected visible ASCII characters without spaces or line breaks")
    return value


def gateway_key(value: SecretStr) -> SecretStr:
    """Take a key that callers present: hard to guess, no sample value."""
    text = credential(value).get_secret_value()
    lower = text.lower()
    if lower in SAMPLES or any(mark in lower for mark in SAMPLE_MARKS):
        raise ValueError("this is a sample value, which everybody knows; make a key with `agw keys new`")
    if len(text) < MIN_KEY:
        raise ValueError(
            f"a key of {len(text)} characters can be guessed, expected at least {MIN_KEY}; make one with `agw keys new`"
        )
    if len(set(text)) < MIN_DISTINCT:
        raise ValueError("the key repeats a few characters and can be guessed; make one with `agw keys new`")
    return value


def digest(value: str) -> str:
    """Take a SHA-256 in hexadecimal, kept in lower case."""
    if re.fullmatch(r"[0-9A-Fa-f]{64}", value) is None:
        raise ValueError("expected the SHA-256 of a key as 64 hexadecimal digits (`agw keys new` prints it)")
    return value.lower()


def _path(value: Path) -> Path:
    if "\0" in str(value) or not str(value):
        raise ValueError("expected a path")
    return value.expanduser() if str(value).startswith("~/") else value


def one_of(*names: str) -> AfterValidator:
    """Take one of these names only."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return value

    return AfterValidator(check)


def workers(value: object) -> object:
    """``auto`` -> as many as there are processors for this process; more than one only where the system can."""
    if value == "auto":
        return min(processors(), MAX_WORKERS) if sys.platform == "linux" else 1
    if isinstance(value, str) and not value.strip().isdecimal():
        raise ValueError(f"expected 1 to {MAX_WORKERS}, or auto")
    if sys.platform != "linux" and value not in {1, "1"}:
        raise ValueError("more than one worker needs Linux (listening sockets of one port are shared out); expected 1")
    return value


def apart(value: object) -> object:
    """Take how many workers are to run agents; any only where the system can."""
    if sys.platform != "linux" and value not in {0, "0"}:
        raise ValueError("workers of agents need Linux; expected 0: they run in the worker that serves")
    return value


def processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many processors this process may use: by its affinity, and by a container's ``quota`` (rounded up).

    ``quota``: "<microseconds or max> <period in microseconds>", see cpu.max in Linux' cgroup-v2 documentation.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        share, period = quota.read_text("ascii").split()
        allowed = min(allowed, -(-int(share) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no container, no quota ("max"), or the first version of cgroups
    return max(allowed, 1)


def heartbeat(value: float) -> float:
    """Take how long a worker may be silent: 0 for ever, else at least a few ticks."""
    if 0 < value < MIN_HEARTBEAT:
        raise ValueError(f"expected 0 (never) or at least {MIN_HEARTBEAT:g}s")
    return value


def only_one(given: set[str], choices: tuple[str, ...]) -> str | None:
    """Say what is wrong where not exactly one of ``choices`` is among ``given``; None where it is right."""
    present = [choice for choice in choices if choice in given]
    if len(present) == 1:
        return None
    came = " and ".join(present) if present else "none"
    return f"expected exactly one of {', '.join(choices)}; came {came}"


def _texts(value: Any) -> Any:
    # One text where a list is expected is a likely slip in YAML; say it in those words rather than let pydantic list
    # its characters.
    if isinstance(value, str):
        raise ValueError("expected a list, came one text; write it in [brackets]")  # noqa: TRY004  pydantic collects ValueErrors only
    return value


def forms(value: "tuple[Form, ...]") -> "tuple[Form, ...]":
    """Take the forms in which an upstream may be asked: nothing is translated into completions, so they are not the first."""
    if value[:1] == ("completions",):
        raise ValueError("expected chat, responses, messages or gemini first: requests in other forms become that one")
    return value


Whole = Annotated[int, BeforeValidator(_no_bool)]
Duration = Annotated[float, BeforeValidator(duration)]
LongerThanZero = Annotated[Duration, Field(gt=0)]
Share = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1)]
Factor = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1_000_000, allow_inf_nan=False)]
MicroDollars = Annotated[int, BeforeValidator(micro_dollars)]
Port = Annotated[Whole, Field(ge=0, le=65535)]
Workers = Annotated[Whole, BeforeValidator(workers), Field(ge=1, le=MAX_WORKERS)]
WorkersApart = Annotated[Whole, BeforeValidator(apart), Field(ge=0, le=MAX_WORKERS - 1)]
Heartbeat = Annotated[Duration, AfterValidator(heartbeat)]
Name = Annotated[str, AfterValidator(printable)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_texts)]
UpstreamName = Annotated[str, AfterValidator(upstream_name)]
TargetName = Annotated[str, AfterValidator(target_name)]
Host = Annotated[str, AfterValidator(host)]
BaseURL = Annotated[str, AfterValidator(base_url)]
HookURL = Annotated[str, AfterValidator(hook_url)]
Headers = Annotated[dict[str, str], AfterValidator(headers)]
Credential = Annotated[SecretStr, AfterValidator(credential)]
GatewayKey = Annotated[SecretStr, AfterValidator(gateway_key)]
Digest = Annotated[str, AfterValidator(digest)]
FilePath = Annotated[Path, AfterValidator(_path)]
Dialect = Literal["openai", "anthropic", "gemini", "azure", "bedrock", "vertex"]
Spoken = Literal["chat", "responses", "messages", "gemini"]
"""The wire forms of a generation: OpenAI's two, Anthropic's and Google's."""
Form = Literal["chat", "responses", "messages", "gemini", "completions"]
"""Those in which a caller may ask: OpenAI's older completions as well, into which nothing is translated."""
Speaks = Annotated[tuple[Form, ...], AfterValidator(forms)]
Balance = Literal["weighted", "first", "least_busy", "fastest"]
