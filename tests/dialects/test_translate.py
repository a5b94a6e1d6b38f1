"""Two dialects put together: that the work grows with what has come, and with nothing else.

No time is asserted: where it grew with the square, these took minutes.
"""

from typing import Any

import orjson
import pytest

from agw_proxy.config.presets import Quirks
from agw_proxy.config.values import Form
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import Shown, Start

MANY = 20_000
FUNCTIONS = [{"type": "function", "name": f"f{i}"} for i in range(MANY)]
CROWDED: dict[str, tuple[Form, dict[str, Any]]] = {
    "members": ("chat", {"messages": [{"role": "user", "content": "q"}], **{f"x{i}": 1 for i in range(MANY)}}),
    "results": (
        "responses",
        {"input": [{"type": "function_call_output", "call_id": "a", "output": "x"} for _ in range(MANY)]},
    ),
    "choices": (
        "responses",
        {
            "input": "q",
            "tools": [{"type": "namespace", "name": "ns", "tools": FUNCTIONS}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": FUNCTIONS},
        },
    ),
}


@pytest.mark.parametrize("kind", CROWDED)
def test_the_work_grows_with_the_request(kind: str) -> None:
    form, members = CROWDED[kind]
    request = translate.read_request(form, orjson.dumps({"model": "m", **members}))
    written = translate.write_request(request, "chat", "far", Quirks())
    assert len(written.dropped) == (MANY if kind == "members" else 0)
    shown = Shown("id", "m", 1, request=request)
    assert translate.writer("responses", shown).write(Start("up", "far")).startswith(b"event: response.created")
