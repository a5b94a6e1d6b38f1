"""An answer in one piece, told as a stream: for callers who asked for one of an upstream that does not stream."""

from collections.abc import Iterator

import msgspec

from agw_proxy.dialects.base import (
    Answer,
    Block,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Finish,
    Image,
    Part,
    Refusal,
    Signature,
    Start,
    Streamed,
    Text,
    Thinking,
    ToolUse,
)


def played(answer: Answer) -> Iterator[Event]:
    """Its events, by the grammar in ``base``. Blocks of kinds that no stream has are left out."""
    yield Start(answer.id, answer.model, answer.created, answer.tokens, answer.service_tier)
    blocks = [block for block in answer.blocks if isinstance(block, Streamed)]
    for index, block in enumerate(blocks):
        yield BlockStart(index, _begun(block))
        yield from _content(block)
        yield BlockStop()
    yield Finish(answer.stop, answer.tokens, answer.stop_sequence, answer.service_tier)


def _begun(block: Block) -> Block:
    """The block without its content. A call's signature comes with its beginning: some dialects say it before the call."""
    if isinstance(block, ToolUse):
        return msgspec.structs.replace(block, arguments="")
    if isinstance(block, Thinking):
        return msgspec.structs.replace(block, text="", signature=None)
    if isinstance(block, Image):
        return block
    return Text("") if isinstance(block, Text) else Refusal("")


def _content(block: Streamed) -> Iterator[Event]:
    if isinstance(block, Image):
        return
    text = block.arguments if isinstance(block, ToolUse) else block.text
    if text:
        yield Part(text, block.logprobs if isinstance(block, Text) else None)
    if isinstance(block, Text):
        for citation in block.citations:
            yield Citation(citation)
    if isinstance(block, Text | Thinking) and block.signature is not None:
        yield Signature(block.signature)
