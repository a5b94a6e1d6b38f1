r"""Memory: with a session, the agent knows what was said before, though the client sends the last words alone.

    curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" -H "x-session-id: ada" \
      -H 'Content-Type: application/json' -d '{"model": "default/memory", "messages": [{"role": "user", "content": "I am Ada"}]}'

and then, with the same x-session-id, "Who am I?". Nothing in this file is about sessions: the gateway keeps them.
Runs offline; EXAMPLE_MODEL=fast takes a model of the gateway.
"""

import os
import re

from agents import Agent

from agw_proxy.sdk.function_model import Answer, FunctionModel, Turn


def remembers(turn: Turn) -> Answer:
    """The last name that the user has given, now or before."""
    names = [found[1] for words in [*turn.before, turn.said] if (found := re.search(r"\bI am (\w+)", words))]
    return f"You are {names[-1]}." if names else "I do not know. Who are you?"


agent = Agent(
    name="Memory",
    instructions="Remember who the user is.",
    model=os.environ.get("EXAMPLE_MODEL") or FunctionModel(remembers),
)
