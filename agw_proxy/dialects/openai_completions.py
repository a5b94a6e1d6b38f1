"""The older text completions, as a caller's form only: POST /v1/completions (OpenAI API reference, "Completions").

Where an upstream has them they are relayed. Elsewhere the prompt is put as the user's one turn, and the words of the answer
are the completion. Thoughts and pictures are not shown; tools cannot be offered, so that calls of any are no part of it.
"""

from typing import Any

import orjson

from agw_proxy.dialects.base import (
    Answer,
    Malformed,
    Message,
    Part,
    Refusal,
    Request,
    Shown,
    Start,
    Stop,
    Streamed,
    Text,
    Tree,
    Untranslatable,
)
from agw_proxy.dialects.openai_chat_faults import write_fault
from agw_proxy.dialects.openai_chat_fields import child, flag, needed, number, refuse, text, whole
from agw_proxy.dialects.openai_chat_requests import read_stops
from agw_proxy.dialects.openai_chat_usage import write_stop, write_tokens
from agw_proxy.dialects.openai_chunks import PING, Chunks

__all__ = ["Writer", "read_request", "write_answer", "write_fault"]

READ = frozenset(
    {
        "model", "prompt", "max_tokens", "temperature", "top_p", "stop", "stream", "stream_options", "n", "seed",
        "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "user", "suffix", "echo", "best_of",
    }
)  # fmt: skip


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


class Writer(Chunks):
    """Writes one stream: pieces of the completion, the reason of its end, usage for those who have asked, ``[DONE]``.

    The first piece is empty, and thoughts are comments: a caller sees that the model is at work. Signatures and sources
    have no place here.
    """

    __slots__ = ("_offset",)
    kind = "text_completion"

    def __init__(self, shown: Shown) -> None:
        super().__init__(shown)
        self._offset = 0

    def _identity(self, start: Start) -> str:  # noqa: ARG002 - an id of this form, whatever the upstream's
        return f"cmpl-{self._shown.id}"

    def _first(self) -> bytes:
        return self._chunk("")

    def _chunk(self, words: str, logprobs: Tree | None = None, reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": words, "logprobs": logprobs, "finish_reason": reason}
        return b'%b"choices":[%b]%b' % (self._head, orjson.dumps(choice), self._tail)

    def _part(self, part: Part, block: Streamed) -> bytes:
        if not isinstance(block, Text | Refusal):
            return PING
        logprobs = logprobs_tree(part.logprobs, self._offset)
        self._offset += len(part.text)
        return self._chunk(part.text, logprobs)

    def _last(self, stop: Stop) -> bytes:
        return self._chunk("", reason=finish_reason(stop, refused=self._refused))
