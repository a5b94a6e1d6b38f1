"""The corpus of request bodies by which the token estimate is judged.

`bodies/<category>/<name>.json` are whole requests as clients send them: chats, responses, messages, embeddings; compact,
spaced, indented, or with \\u escapes. All was written for this corpus, and none of it had a part in fitting the weights.
`counts.json` has the true counts by o200k_base and cl100k_base (`python -m tests.corpus.tokens.tally` makes it).
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
COUNTS = HERE / "counts.json"


class Sample(NamedTuple):
    """One request, and what tokenizers count for what a model reads of it."""

    category: str
    name: str
    body: bytes
    o200k: int
    cl100k: int


def bodies() -> dict[str, bytes]:
    """Every request, by category/name."""
    return {
        path.relative_to(HERE / "bodies").with_suffix("").as_posix(): path.read_bytes()
        for path in sorted(HERE.glob("bodies/*/*.json"))
    }


@cache
def samples() -> tuple[Sample, ...]:
    """Every request with its counts."""
    counts = json.loads(COUNTS.read_text())
    found: list[Sample] = []
    for key, body in bodies().items():
        category, _, name = key.partition("/")
        found.append(Sample(category, name, body, counts[key]["o200k_base"], counts[key]["cl100k_base"]))
    return tuple(found)


def categories() -> dict[str, list[Sample]]:
    """The samples of each category."""
    found: dict[str, list[Sample]] = {}
    for sample in samples():
        found.setdefault(sample.category, []).append(sample)
    return found
