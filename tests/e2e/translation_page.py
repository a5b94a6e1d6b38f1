"""Makes the tables of docs/translation.md: ``python -m tests.e2e.translation_page docs/translation.md``.

The cells are the very cases that the tests of the translation play; the features come from the table that decides.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from agw_proxy.config.presets import PRESETS
from agw_proxy.dialects.features import FEATURES
from tests.e2e.test_translation import CLIENTS, UPSTREAMS
from tests.e2e.test_translation_completions import PLAYED
from tests.support.providers import SCENES

TITLES = {
    "chat": "Chat Completions",
    "responses": "Responses",
    "messages": "Messages",
    "gemini": "Gemini",
    "completions": "Completions (older)",
}
GEMINI_SCENES = ("text", "tools", "cut")


def played(client: str) -> str:
    """What is played in each cell of a row."""
    scenes = list(SCENES) if client in CLIENTS else PLAYED if client == "completions" else GEMINI_SCENES
    return f"{len(scenes)} scenes, plain and streamed"


def cell(client: str, spoken: str) -> str:
    """How a client's request gets to an upstream."""
    return "relayed, fast lane" if client == spoken else "translated"


def cells() -> str:
    """Every client dialect by every upstream dialect."""
    lines = [f"| Client \\ upstream | {' | '.join(TITLES[spoken] for spoken in UPSTREAMS)} | Tried |"]
    lines.append("|---" * (len(UPSTREAMS) + 2) + "|")
    for client, title in TITLES.items():
        row = " | ".join(cell(client, spoken) for spoken in UPSTREAMS)
        lines.append(f"| {title} | {row} | {played(client)} |")
    return "\n".join(lines)


def features() -> str:
    """What becomes of what a request asks for."""
    lines = [f"| Feature | {' | '.join(TITLES[spoken] for spoken in UPSTREAMS)} | |", "|---" * 6 + "|"]
    for feature in FEATURES:
        fates = f"{feature.chat} | {feature.responses} | {feature.messages} | {feature.gemini}"
        lines.append(f"| `{feature.name}` | {fates} | {feature.why} |")
    return "\n".join(lines)


def presets() -> str:
    """The services that are known by name."""
    lines = ["| Preset | Address | Speaks | Its own way |", "|---|---|---|---|"]
    for preset in PRESETS:
        quirks = preset.quirks
        own = [f"calls the bound `{quirks.max_tokens}`"] if quirks.max_tokens != "max_tokens" else []
        own += [f"gets ids of calls of {quirks.id_letters} letters"] if quirks.id_letters is not None else []
        own += [] if quirks.schemas else ["is told schemas of answers in words"]
        own += [f"gets no {', '.join(f'`{name}`' for name in quirks.omits)}"] if quirks.omits else []
        speaks = ", ".join(f"`{spoken}`" for spoken in preset.speaks)
        lines.append(f"| `{preset.name}` | `{preset.base_url}` | {speaks} | {'; '.join(own)} |")
    return "\n".join(lines)


TABLES = {"cells": cells, "features": features, "presets": presets}


def replaced(page: str, names: Iterable[str] = TABLES) -> str:
    """The page with its tables made anew."""
    for name in names:
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        made = f"{begin}\n{TABLES[name]()}\n{end}"
        page, found = pattern.subn(made.replace("\\", r"\\"), page)
        if found != 1:
            raise ValueError(f"the page has no place for the table {name}")
    return page


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(replaced(file.read_text(encoding="utf-8")), encoding="utf-8")
