"""What becomes of an answer that is to be kept, where it cannot be."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from agw_proxy.config.settings import Server
from agw_proxy.edge.reading import look_into
from agw_proxy.edge.stored import Recalled
from agw_proxy.store.responses import Responses
from agw_proxy.store.responses_file import Missing

Tree = dict[str, Any]


class Counted:
    """Hears of what could not be kept."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def dropped(self, what: str, count: int = 1) -> None:
        self.lost += [what] * count


async def test_an_answer_that_is_nested_too_deeply_to_be_written_is_not_kept_and_counted(tmp_path: Path) -> None:
    kept, counted = Responses(tmp_path / "responses.db", 1 << 20, 3600.0), Counted()
    body = orjson.dumps({"model": "m", "input": "x"})
    recalled = Recalled(kept, "app", orjson.loads(body), counted, everything=True, counts=False)
    await recalled.look(body, look_into(body, 64), Server())
    deep = orjson.loads(b"[" * 500 + b"]" * 500)
    for place in ({"metadata": deep}, {"output": [{"type": "mcp_list_tools", "tools": deep}]}):
        response: Tree = {"id": "resp_1", "status": "completed", "output": [], **place}
        assert not await recalled.keep(response)
    assert counted.lost == ["response", "response"]
    with pytest.raises(Missing):
        await kept.response("app", "resp_1")
    assert await recalled.keep({"id": "resp_1", "status": "completed", "output": []})
    assert (await kept.response("app", "resp_1"))[1] == []
    await kept.close()
