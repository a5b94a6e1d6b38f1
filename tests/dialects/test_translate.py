"""Two dialects put together: odd requests are no defects, and the work grows with what has come.

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


def test_a_schema_with_a_format_that_is_no_word_is_described() -> None:
    schema = {"type": "object", "properties": {}, "format": {"type": "grammar"}}
    form = {"type": "json_schema", "name": "n", "schema": schema}
    request = translate.read_request("responses", orjson.dumps({"model": "m", "input": "q", "text": {"format": form}}))
    written = orjson.loads(translate.write_request(request, "messages", "claude-sonnet-4-5", Quirks()).body)
    assert "grammar" in orjson.dumps(written["output_config"]).decode()


@pytest.mark.parametrize("kind", CROWDED)
def test_the_work_grows_with_the_request(kind: str) -> None:
    form, members = CROWDED[kind]
    request = translate.read_request(form, orjson.dumps({"model": "m", **members}))
    written = translate.write_request(request, "chat", "far", Quirks())
    assert len(written.dropped) == (MANY if kind == "members" else 0)
    shown = Shown("id", "m", 1, request=request)
    assert translate.writer("responses", shown).write(Start("up", "far")).startswith(b"event: response.created")
