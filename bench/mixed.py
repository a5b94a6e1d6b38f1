"""What upstreams of other forms cost those of one: ``python -m bench.mixed [--rounds N]``. Relays in four settings.

Where a conversation may have been at a provider of another form before, the fast lane looks in each body for what only that
one can read. Measured is the gateway with upstreams of one form, the same again (the control), and with an Anthropic and
a Gemini upstream beside it, which nobody asks. The bodies hold nothing foreign.
"""

import functools
import sys
from typing import Any

from bench import variants
from bench.proxies.gateways import AGW

SETTINGS = (
    ("one_form", "upstreams of one form", False),
    ("one_again", "once more", False),
    ("mixed", "others beside it", True),
    ("mixed_again", "once more", True),
)
OTHERS = [
    {"name": kind, "dialect": kind, "base_url": "http://127.0.0.1:9", "api_key": "none", "models": [f"{kind}-*"]}
    for kind in ("anthropic", "gemini")
]
FIGURES = {"requests_per_s": "requests/s", "cpu_us_per_request": "CPU us/request", "errors": "errors"}


def change(config: dict[str, Any], others: bool) -> None:
    """The gateway with the others, or without."""
    if others:
        config["upstreams"] += OTHERS


def main() -> int:
    """Measure in turns and print the table."""
    rounds, cores = variants.arguments("What upstreams of other forms cost those of one.")
    peers = [
        AGW._replace(
            name=name,
            title=title,
            launch=functools.partial(variants.launch, change=functools.partial(change, others=others)),
        )
        for name, title, others in SETTINGS
    ]
    results = variants.measure(peers, rounds, cores)
    print(variants.table(results, peers, FIGURES, "times the first's requests"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
