"""Counts the corpus anew with the real tokenizers: `python -m tests.corpus.tokens.tally`.

Needs `pip install tiktoken` and the data of both encodings in TIKTOKEN_CACHE_DIR, where tiktoken puts them when it has
a network. agw checks their SHA-256, so that the counts are those of the published encodings.
"""

import json
import sys

from agw_proxy.policy.tokens import exact
from tests.corpus.tokens import COUNTS, bodies

ENCODINGS = ("o200k_base", "cl100k_base")


def main() -> None:
    """Writes counts.json."""
    by_name = {name: exact(name) for name in ENCODINGS}
    missing = [name for name, counter in by_name.items() if counter is None]
    if missing:
        sys.exit(f"tiktoken or its data is missing for {', '.join(missing)}; see the head of this file")
    counts = {
        key: {name: counter(body) for name, counter in by_name.items() if counter} for key, body in bodies().items()
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(found)}" for key, found in counts.items()]
    COUNTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
