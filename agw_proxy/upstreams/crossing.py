"""What a cloud's wrapping does to the headers of a request, for people: names in lower case and reasons, never a value."""

from typing import Literal

import msgspec


class Crossing(msgspec.Struct, frozen=True):
    """Besides what the gateway does to the requests of all upstreams.

    ``added``: (header, why) that the gateway puts in, in place of the caller's own. ``passes``: (header, why) of the
    caller's that cross though a prefix in ``never`` covers them. ``never``: (kind, name, why) of the caller's that end here.
    """

    added: tuple[tuple[str, str], ...] = ()
    passes: tuple[tuple[str, str], ...] = ()
    never: tuple[tuple[Literal["header", "prefix"], str, str], ...] = ()
