"""The older text completions, as a caller's form only: POST /v1/completions (OpenAI API reference, "Completions").

Where an upstream has them they are relayed. Elsewhere the prompt is put as the user's one turn, and the words of the answer
are the completion. Thoughts are not shown; tools cannot be offered, so that calls of any are no part of it.
"""

from typing import Any

import orjson

from agw_proxy.dialects.base import (
    Answer,
    Beat,
    BlockStart,
    BlockStop,
    Event,
    Fault,
    Finish,
    Malformed,
    Message,
    Part,
    Refusal,
    Request,
    Shown,
    Start,
    Stop,
    Text,
    Thinking,
    ToolUse,
    Tree,
    Untranslatable,
)
from agw_proxy.dialects.openai_chat_faults import write_fault
from agw_proxy.dialects.openai_chat_fields import child, flag, needed, number, refuse, text, whole
from agw_proxy.dialects.openai_chat_requests import read_stops
from agw_proxy.dialects.openai_chat_usage import write_stop, write_tokens
from agw_proxy.dialects.sse import frame

__all__ = ["Writer", "read_request", "write_answer", "write_fault"]

READ = frozenset(
    {
        "model", "prompt", "max_tokens", "temperature", "top_p", "stop", "stream", "stream_options", "n", "seed",
        "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "user", "suffix", "echo", "best_of",
    }
)  # fmt: skip
PING = b": ping\n\n"


def read_request(tree: Tree) -> Request:
    """Raises Malformed, whose param is the member's path, and Untranslatable for a prompt that is not one text.

    What only this form knows is left in ``extra`` under the names in the table of features.
    """
    options = child(tree, "stream_options") or {}
    suffix, best = text(tree, "suffix"), whole(tree, "best_of", least=0) or 1
    odd: Tree = {"suffix": suffix, "echo": flag(tree, "echo"), "best_of": best if best > 1 else None}
    rest = {name: value for name, value in tree.items() if name not in READ and value is not None}
    return Request(
        model=needed(tree, "model"),
        messages=[Message("user", [Text(_prompt(tree.get("prompt")))])],
        max_tokens=whole(tree, "max_tokens", least=1),
        temperature=number(tree, "temperature"),
        top_p=number(tree, "top_p"),
        stop=read_stops(tree.get("stop")),
        stream=flag(tree, "stream") or False,
        include_usage=flag(options, "include_usage", "stream_options") or False,
        n=whole(tree, "n", least=1) or 1,
        seed=whole(tree, "seed"),
        presence_penalty=number(tree, "presence_penalty"),
        frequency_penalty=number(tree, "frequency_penalty"),
        logit_bias=child(tree, "logit_bias") or None,
        logprobs=whole(tree, "logprobs", least=0),
        user=text(tree, "user"),
        extra={name: value for name, value in odd.items() if value} | rest,
    )


def _prompt(value: Any) -> str:
    """One text, perhaps in a list. Others raise Untranslatable: they ask for several answers, or name one model's tokens."""
    found = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(found, str):
        if not found:
            raise Untranslatable("An empty prompt cannot be put to the model's upstream as a question.", "prompt")
        return found
    if isinstance(found, list):
        if not found:
            raise Malformed("The prompt is empty.", "prompt")
        if all(isinstance(each, str) for each in found):
            raise Untranslatable(
                f"The model's upstream takes one prompt at a time, and {len(found)} came: send a request for each.",
                "prompt",
            )
        if _is_tokens(found) or all(isinstance(each, list) and _is_tokens(each) for each in found):
            raise Untranslatable(
                "The model's upstream takes no prompt in tokens, which are another model's: send the text.", "prompt"
            )
    elif type(found) is int and found is not value:
        raise Untranslatable("The model's upstream takes no prompt in tokens: send the text.", "prompt")
    raise refuse("prompt", "a text", value)


def _is_tokens(found: list[Any]) -> bool:
    return all(type(each) is int for each in found)


def write_answer(answer: Answer, shown: Shown) -> Tree:
    """The object ``text_completion``."""
    words: list[str] = []
    logprobs: list[Tree] = []
    refused = False
    for block in answer.blocks:
        if isinstance(block, Text | Refusal):
            words.append(block.text)
            refused = refused or isinstance(block, Refusal)
        if isinstance(block, Text):
            logprobs += block.logprobs or []
    tree: Tree = {
        "id": f"cmpl-{shown.id}",
        "object": "text_completion",
        "created": answer.created or shown.now,
        "model": shown.model,
        "choices": [
            {
                "index": 0,
                "text": "".join(words),
                "logprobs": logprobs_tree(logprobs),
                "finish_reason": finish_reason(answer.stop, refused=refused),
            }
        ],
    }
    usage = write_tokens(answer.tokens)
    if usage is not None:
        tree["usage"] = usage
    return tree


def finish_reason(stop: Stop, *, refused: bool) -> str:
    """``refused``: the words of a refusal are the completion. There are no calls that it could have ended for."""
    reason = write_stop(stop, refused=refused)
    return "stop" if reason == "tool_calls" else reason


def logprobs_tree(logprobs: list[Tree] | None, offset: int = 0) -> Tree | None:
    """Chat's, token by token, as the four lists of this form; None where there are none.

    ``offset``: where the first one begins, in characters of the completion.
    """
    made: Tree = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for each in logprobs or ():
        chosen = _likelihood(each)
        if chosen is None:
            continue
        top = each.get("top_logprobs")
        others = [_likelihood(other) for other in top] if isinstance(top, list) else []
        made["tokens"].append(chosen[0])
        made["token_logprobs"].append(chosen[1])
        made["top_logprobs"].append(dict([*(other for other in others if other is not None), chosen]))
        made["text_offset"].append(offset)
        offset += len(chosen[0])
    return made if made["tokens"] else None


def _likelihood(each: object) -> tuple[str, float] | None:
    if not isinstance(each, dict):
        return None
    token, logprob = each.get("token"), each.get("logprob")
    if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    return token, logprob


class Writer:
    """Writes one stream: pieces of the completion, the reason of its end, usage for those who have asked, ``[DONE]``.

    The first piece is empty, and thoughts are comments: a caller sees that the model is at work.
    """

    __slots__ = ("_block", "_head", "_next", "_offset", "_over", "_refused", "_shown", "_tail")

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._head = b""
        self._tail = b',"usage":null}\n\n' if shown.include_usage else b"}\n\n"
        self._block: Text | Refusal | Thinking | ToolUse | None = None
        self._next = 0
        self._offset = 0
        self._refused = False
        self._over = False

    def write(self, event: Event) -> bytes:
        """Bytes of whole events, maybe none; see ``base.Writer``."""
        if self._over:
            raise ValueError(f"{type(event).__name__} after the end")
        if isinstance(event, Beat):
            return PING
        if isinstance(event, Fault):
            self._over = True
            return frame("error", orjson.dumps(write_fault(event, self._shown.id)))
        if isinstance(event, Start):
            return self._start(event)
        if not self._head:
            raise ValueError(f"{type(event).__name__} before the start")
        if isinstance(event, BlockStart):
            return self._open(event)
        if isinstance(event, Finish):
            return self._finish(event)
        if self._block is None:
            raise ValueError(f"{type(event).__name__} outside a block")
        if isinstance(event, Part):
            return self._part(event)
        if isinstance(event, BlockStop):
            self._block = None
        return b""  # signatures and sources have no place here

    def _start(self, start: Start) -> bytes:
        if self._head:
            raise ValueError("a second Start")
        head = {
            "id": f"cmpl-{self._shown.id}",
            "object": "text_completion",
            "created": start.created or self._shown.now,
            "model": self._shown.model,
        }
        self._head = b"data: " + orjson.dumps(head)[:-1] + b","
        return self._chunk("")

    def _chunk(self, words: str, logprobs: Tree | None = None, reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": words, "logprobs": logprobs, "finish_reason": reason}
        return b'%b"choices":[%b]%b' % (self._head, orjson.dumps(choice), self._tail)

    def _open(self, event: BlockStart) -> bytes:
        block = event.block
        if self._block is not None or event.index != self._next:
            raise ValueError(f"block {event.index} begins where {self._next} was due, or within another")
        if not isinstance(block, Text | Thinking | ToolUse | Refusal):
            raise ValueError(f"{type(block).__name__} in a stream")  # noqa: TRY004 - the contract's one error
        self._block = block
        self._next += 1
        self._refused = self._refused or isinstance(block, Refusal)
        return self._part(Part(block.text)) if isinstance(block, Text | Refusal) and block.text else b""

    def _part(self, part: Part) -> bytes:
        if not isinstance(self._block, Text | Refusal):
            return PING
        if not part.text:
            return b""
        logprobs = logprobs_tree(part.logprobs, self._offset)
        self._offset += len(part.text)
        return self._chunk(part.text, logprobs)

    def _finish(self, event: Finish) -> bytes:
        if self._block is not None:
            raise ValueError("Finish within a block")
        self._over = True
        made = self._chunk("", reason=finish_reason(event.stop, refused=self._refused))
        usage = write_tokens(event.tokens) if self._shown.include_usage else None
        if usage is not None:
            made += b'%b"choices":[],"usage":%b}\n\n' % (self._head, orjson.dumps(usage))
        return made + b"data: [DONE]\n\n"
