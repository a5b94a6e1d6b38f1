"""What every Chat stream that we write must look like, for official SDKs and for clients that read it with less care."""

import json
from typing import Any

from openai.types.chat import ChatCompletionChunk


def check(frames: list[tuple[str, bytes]]) -> None:
    """Raise AssertionError, which names the first broken event, unless ``frames`` are a whole stream, or one that ends in an error."""
    state = _State()
    for position, (name, data) in enumerate(frames):
        try:
            state.see(name, data)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise AssertionError(f"event {position} ({data[:300]!r}): {error!r}") from error
    assert state.over, "the stream has no end"


class _State:
    """What has been seen so far."""

    def __init__(self) -> None:
        self.same: tuple[Any, ...] | None = None
        self.reason: str | None = None
        self.usage = False
        self.over = False
        self.arguments: list[list[str]] = []
        self.custom: set[int] = set()

    def see(self, name: str, data: bytes) -> None:
        assert not self.over, "after the end"
        if data == b"[DONE]":
            assert name == ""
            assert self.reason is not None, "no finish_reason"
            self.over = True
            return
        tree = json.loads(data)
        if name == "error":
            assert set(tree["error"]) == {"message", "type", "param", "code"}
            assert isinstance(tree["error"]["message"], str)
            self.over = True
            return
        assert name == "", "a chunk has no name"
        if '"type":"custom"' not in data.decode():  # which the SDK's model does not know, though the API sends it
            ChatCompletionChunk.model_validate(tree, strict=True)
        assert tree["object"] == "chat.completion.chunk"
        same = (tree["id"], tree["created"], tree["model"])
        assert all(same)
        assert self.same in {None, same}, "another id, time or model"
        first, self.same = self.same is None, same
        if not tree["choices"]:
            self._usage(tree)
            return
        (choice,) = tree["choices"]
        assert choice["index"] == 0
        assert self.reason is None, "a delta after the finish_reason"
        assert ("role" in choice["delta"]) == first, "the role stands in the first chunk only"
        self.reason = choice["finish_reason"]
        self._delta(choice["delta"])
        if self.reason is not None:
            self._calls_are_whole()

    def _usage(self, tree: dict[str, Any]) -> None:
        assert self.reason is not None, "usage before the finish_reason"
        assert not self.usage, "usage twice"
        self.usage = True
        usage = tree["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]

    def _delta(self, delta: dict[str, Any]) -> None:
        for call in delta.get("tool_calls", []):
            index = call["index"]
            if index == len(self.arguments):
                self.arguments.append([])
                assert call["id"]
                assert call["type"] in {"function", "custom"}
                assert call[call["type"]]["name"]
                if call["type"] == "custom":
                    self.custom.add(index)
            else:
                assert "id" not in call, "a call begins twice"
            assert index == len(self.arguments) - 1, "a call that is over goes on, or an index is left out"
            self.arguments[index].append(call.get("function", {}).get("arguments", ""))

    def _calls_are_whole(self) -> None:
        if self.reason == "tool_calls":
            assert self.arguments, "tool_calls without a call"
            for index, pieces in enumerate(self.arguments):
                assert index in self.custom or "".join(pieces), "a call without arguments"
