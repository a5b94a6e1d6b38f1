"""Answers of ``POST /v1/responses``, and errors (OpenAI API reference, Responses, "The response object", and "Error codes")."""

import orjson

from agw_proxy.dialects import custom_tools, members
from agw_proxy.dialects import openai_responses_signatures as signatures
from agw_proxy.dialects.base import (
    Answer,
    Block,
    Fault,
    Image,
    Malformed,
    Refusal,
    Shown,
    Text,
    Thinking,
    Tool,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.openai_chat_faults import KINDS, write_fault
from agw_proxy.dialects.openai_responses_citations import annotation_of, citations_of
from agw_proxy.dialects.openai_responses_items import thinking, tool_use
from agw_proxy.dialects.openai_responses_shape import (
    attached_tree,
    call_tree,
    called,
    cut_by,
    finish,
    logprobs_tree,
    reasoning_tree,
    response_tree,
    stop_of,
    tokens_of,
    tools_of,
)

__all__ = ["fault_of", "message_tree", "part_tree", "read_answer", "read_fault", "write_answer", "write_fault"]

PICTURE = "image_generation_call"
MESSAGE_LENGTH = 2_000
"""Characters of an upstream's error that are told: some answer with whole pages."""


def read_answer(tree: Tree) -> Answer:
    """Read a whole answer. Raises Malformed, also for one that says of itself that it failed or has not ended."""
    status = members.text(tree, "status") or "completed"
    if status not in {"completed", "incomplete"}:
        error = tree.get("error")
        words = error.get("message") if isinstance(error, dict) else None
        raise Malformed(f"The answer is {status}: {words or 'no reason is given'}.", "status")
    blocks: list[Block] = []
    for at, item in enumerate(members.branches(tree, "output")):
        blocks += _read_item(item, f"output[{at}]", blocks)
    calls = any(isinstance(block, ToolUse) for block in blocks)
    refused = any(isinstance(block, Refusal) for block in blocks)
    return Answer(
        id=members.text(tree, "id") or "",
        model=members.text(tree, "model") or "",
        blocks=blocks,
        stop=stop_of(tree, calls=calls, refused=refused),
        tokens=tokens_of(tree.get("usage")),
        created=int(members.number(tree, "created_at") or 0),
        service_tier=members.text(tree, "service_tier"),
    )


def _read_item(item: Tree, where: str, before: list[Block]) -> list[Block]:
    kind = members.wanted(item, "type", where)
    if kind == "message":
        parts = members.branches(item, "content", where)
        return [_read_part(part, f"{where}.content[{at}]") for at, part in enumerate(parts)]
    if kind in {"function_call", "custom_tool_call"}:
        return [tool_use(item, where)]
    if kind == "reasoning":
        signature = signatures.detached(members.text(item, "encrypted_content", where))
        if signature is None:
            thought = thinking(item, where)
            return [] if thought.is_empty() else [thought]
        if before and isinstance(before[-1], Text | ToolUse):
            before[-1].signature = signature
    if kind == PICTURE:
        image = picture(item, where)
        return [] if image is None else [image]
    return []  # what a tool of the provider's has done: its words follow in a message


def picture(item: Tree, where: str) -> Image | None:
    """What the tool that makes pictures has made; None: nothing has come of it. Raises Malformed."""
    data = members.text(item, "result", where)
    kind = members.text(item, "output_format", where) or "png"
    return Image(data=data, media_type=f"image/{kind}") if data else None


def _read_part(part: Tree, where: str) -> Block:
    kind = members.wanted(part, "type", where)
    if kind == "refusal":
        return Refusal(members.wanted(part, "refusal", where))
    if kind != "output_text":
        raise Malformed(f"'{where}.type' is of no known kind: {kind}.", f"{where}.type")
    return Text(
        members.wanted(part, "text", where),
        citations=citations_of(part.get("annotations")),
        logprobs=logprobs_tree(members.branches(part, "logprobs", where)) or None,
    )


def write_answer(answer: Answer, shown: Shown) -> Tree:
    """Write a whole answer. Words and refusals that stand together are parts of one message."""
    tools = tools_of(shown)
    output: list[Tree] = []
    parts: list[Tree] | None = None
    for block in answer.blocks:
        at = f"{shown.id}_{len(output)}"
        if isinstance(block, Text | Refusal):
            if parts is None:
                parts = []
                output.append(message_tree(f"msg_{at}", parts, "completed"))
            parts.append(part_tree(block))
        elif isinstance(block, Thinking):
            output.append(reasoning_tree(block, f"rs_{at}"))
        elif isinstance(block, ToolUse):
            output.append(_write_call(block, at, tools))
        elif isinstance(block, Image) and block.data is not None:
            output.append(image_tree(f"ig_{at}", "completed", block.data))
        signature = block.signature if isinstance(block, Text | ToolUse) else None
        if signature is not None:
            output.append(attached_tree(signature, f"rs_{shown.id}_{len(output)}"))
        if signature is not None or not isinstance(block, Text | Refusal):
            parts = None
    made = response_tree(answer.id, shown)
    refused = any(isinstance(block, Refusal) for block in answer.blocks)
    if cut_by(answer.stop, refused=refused) is not None:
        cut = next((item for item in reversed(output) if "status" in item), None)
        if cut is not None:
            cut["status"] = "incomplete"
    finish(made, output, answer, shown, refused=refused)
    return made


def _write_call(block: ToolUse, at: str, tools: dict[str, Tool]) -> Tree:
    shape = called(block, tools)
    if shape.custom:
        content = custom_tools.input_of(block.arguments) if shape.wrapped else block.arguments
        return call_tree(block, shape, f"ctc_{at}", content, "completed")
    return call_tree(block, shape, f"fc_{at}", block.arguments or "{}", "completed")


def message_tree(item_id: str, parts: list[Tree], status: str) -> Tree:
    """An output message."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": parts}


def image_tree(item_id: str, status: str, data: str | None) -> Tree:
    """A picture, as the tool that makes pictures gives it."""
    return {"id": item_id, "type": PICTURE, "status": status, "result": data}


def part_tree(block: Text | Refusal) -> Tree:
    """A part of an output message."""
    if isinstance(block, Refusal):
        return {"type": "refusal", "refusal": block.text}
    return {
        "type": "output_text",
        "text": block.text,
        "annotations": [annotation_of(each, 0, len(block.text)) for each in block.citations],
        "logprobs": logprobs_tree(block.logprobs),
    }


def read_fault(status: int, body: bytes) -> Fault:
    """Read an answer with a bad status, of whatever form: OpenAI's, another server's JSON, or plain words."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        words = body[: 4 * MESSAGE_LENGTH].decode("utf-8", "replace").strip()[:MESSAGE_LENGTH]
        return Fault(words or f"The upstream answered {status}.", KINDS.get(status, ""), status)
    return fault_of(tree, status)


def fault_of(tree: object, status: int = 0) -> Fault:
    """Read an error, of an answer or of a stream's event, as far as it can be read."""
    error = tree
    if isinstance(tree, dict):
        error = tree.get("error") or tree
    if not isinstance(error, dict):
        words = error if isinstance(error, str) else ""
        return Fault(words[:MESSAGE_LENGTH] or "The upstream failed.", KINDS.get(status, ""), status)
    words = next((error[name] for name in ("message", "detail") if isinstance(error.get(name), str)), "")
    kind, code, param = error.get("type"), error.get("code"), error.get("param")
    return Fault(
        words[:MESSAGE_LENGTH] or "The upstream failed.",
        kind if isinstance(kind, str) and kind not in {"", "error"} else KINDS.get(status, ""),
        status,
        code if isinstance(code, str) else None,  # llama.cpp says the status there
        param if isinstance(param, str) else None,
    )
