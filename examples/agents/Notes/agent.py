"""Approval of a write: nothing is kept before the user has said so, whatever the model does.

    agw agents run notes "Note: milk is out"        # asks for "approve 4f2a91"
    agw agents run notes "approve 4f2a91"           # and now it is kept

The tool looks for the code in the user's own words, not in the model's arguments alone. A note waits for ten minutes, in
the worker that was asked. Runs offline; EXAMPLE_MODEL=fast takes a model of the gateway.
"""

import os
import secrets
import time

from agents import Agent, RunContextWrapper, function_tool

from agw_proxy.sdk.entry import Run
from agw_proxy.sdk.function_model import Answer, FunctionModel, Turn

WAITS_SECONDS = 600.0
MOST_WAITING = 1000
waiting: dict[tuple[str, str], tuple[float, str]] = {}
kept: dict[str, list[str]] = {}


def owner(context: RunContextWrapper[Run]) -> str:
    """Whose notes: of the key that asks, and of the user that it names."""
    run = context.context
    return f"{run.principal.name if run.principal is not None else ''}/{run.user or ''}"


@function_tool
def note(context: RunContextWrapper[Run], text: str) -> str:
    """Keep a note. It has to be approved by the user first."""
    now = time.monotonic()
    for key in [key for key, (until, _) in waiting.items() if until < now]:
        del waiting[key]
    if len(waiting) >= MOST_WAITING:
        return "Too much is waiting to be approved. Try again later."
    code = secrets.token_hex(3)
    waiting[owner(context), code] = (now + WAITS_SECONDS, text)
    return f"Not kept yet. The user has to say: approve {code}"


@function_tool
def approved(context: RunContextWrapper[Run], code: str) -> str:
    """Keep the note whose code the user has approved."""
    users = [item for item in context.turn_input if isinstance(item, dict) and item.get("role") == "user"]
    if not users or f"approve {code}" not in str(users[-1].get("content")):
        return "The user has not said so."
    until, text = waiting.pop((owner(context), code), (0.0, ""))
    if until < time.monotonic():
        return "There is nothing with this code."
    kept.setdefault(owner(context), []).append(text)
    return f"Kept: {text}"


@function_tool
def notes(context: RunContextWrapper[Run]) -> list[str]:
    """All notes that are kept."""
    return kept.get(owner(context), [])


def plays(turn: Turn) -> Answer:
    """Note what is noted, approve what is approved, and tell the rest."""
    if turn.results:
        return turn.results[-1]
    verb, _, rest = turn.said.partition(" ")
    if verb.lower() == "note:":
        return turn.use("note", text=rest)
    return turn.use("approved", code=rest) if verb == "approve" else turn.use("notes")


agent = Agent[Run](
    name="Notes",
    instructions="You keep the user's notes. Tell exactly what your tools say.",
    model=os.environ.get("EXAMPLE_MODEL") or FunctionModel(plays),
    tools=[note, approved, notes],
)
