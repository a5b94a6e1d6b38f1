"""Bedrock's errors: by their names, since some come with a status that means something else to a client.

Bedrock API reference, "InvokeModel", Errors; AWS general reference, "Common errors".
"""

import re
from typing import NamedTuple

import orjson

STATUSES = {
    "accessdenied": 403,
    "internalserver": 500,
    "modelerror": 500,
    "modelnotready": 503,
    "modelstreamerror": 500,
    "modeltimeout": 504,
    "resourcenotfound": 404,
    "servicequotaexceeded": 429,
    "serviceunavailable": 503,
    "throttling": 429,
    "toomanyrequests": 429,
    "validation": 400,
}
CREDENTIALS = frozenset(
    {
        "expiredtoken", "incompletesignature", "invalidclienttokenid", "invalidsignature", "missingauthenticationtoken",
        "requestexpired", "signaturedoesnotmatch", "unrecognizedclient",
    }
)  # fmt: skip
"""They mean who asks. Their texts quote what was signed, a session's token with it."""
_IDENTITY = re.compile(r"arn:aws[\w-]*:(?:iam|sts):[^\s,;]*")
_ACCOUNT = re.compile(r"(?<=:)\d{12}(?=:)")


class Fault(NamedTuple):
    """``name``: in lower case, without its end; empty where there is none. ``status``: for the client."""

    name: str
    status: int
    message: str


def fault_of(code: str, body: bytes, message: str = "", status: int = 500) -> Fault:
    """What went wrong. ``code``: of a header (``ThrottlingException:http://...``); ``status``: where its name says none."""
    tree: object = None
    try:
        tree = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        message = message or "The model cannot be used."
    if isinstance(tree, dict):
        code = code or str(tree.get("__type") or "")
        message = message or str(tree.get("message") or tree.get("Message") or "")
    shown = code.split(":", 1)[0].rpartition("#")[2]
    name = shown.lower().removesuffix("exception")
    found = 401 if name in CREDENTIALS else STATUSES.get(name, status)
    message = "" if name in CREDENTIALS else _ACCOUNT.sub("***", _IDENTITY.sub("the gateway's identity", message))
    return Fault(name, found, f"{shown}: {message}" if shown and message else message or shown or "Bedrock failed.")
