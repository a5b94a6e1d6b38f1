r"""JSON of servers that cut text between the two halves of a character (UTF-16 surrogates), as those in JavaScript do.

RFC 8259 section 8.2 lets ``"\ud83d"`` stand in JSON, and no UTF-8 can hold it. In a stream the other half comes with the
next event, at the same place: there both are put together. A half that stays alone becomes U+FFFD, and nothing at the very end.
"""

import json
import math
import re
from typing import Any

import orjson

_PAIR_OR_HALF = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")
MAX_HALVES = 64
"""Places of which a half is kept for the next event: a server cuts one text, or a few calls at once."""
Place = tuple[str | int, ...]


class Halves:
    """Reads the JSON of one stream, or of one answer."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Place, str] = {}

    def loads(self, data: bytes) -> Any:
        """The tree. Raises orjson.JSONDecodeError."""
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            if "surrogate" not in str(error):
                raise
            try:
                tree = json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite)
                return self._whole(tree, ())
            except (ValueError, RecursionError):
                raise error from None

    def _whole(self, value: Any, place: Place) -> Any:
        if isinstance(value, str):
            return self._mended(value, place)
        if isinstance(value, dict):
            return {_joined(key): self._whole(each, (*place, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._whole(each, (*place, at)) for at, each in enumerate(value)]
        return value

    def _mended(self, text: str, place: Place) -> str:
        text = self._kept.pop(place, "") + text
        if "\ud800" <= text[-1:] <= "\udbff" and len(self._kept) < MAX_HALVES:
            self._kept[place] = text[-1]
            text = text[:-1]
        return _joined(text)


def _joined(text: str) -> str:
    return _PAIR_OR_HALF.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    return found[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _finite(digits: str) -> float:
    """As orjson has it: a number beyond all that can be held is none."""
    found = float(digits)
    if not math.isfinite(found):
        raise ValueError(f"{digits} is too large")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
