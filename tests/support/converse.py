"""Converse as Amazon publishes it: requests are checked by botocore's own model of the API, answers are written by hand."""

import base64
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from tests.support.providers import Scene, arguments

Tree = dict[str, Any]

STOPS = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use", "refusal": "content_filtered"}


@cache
def _model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))


def check_converse(tree: Tree) -> str | None:
    """What is wrong with a request, or None: types, members, enumerations, the order of turns."""
    shape = _model().shape_for("ConverseRequest")
    try:
        known = _known(tree, shape)
        report = ParamValidator().validate({**known, "modelId": "amazon.nova"}, shape)
    except (AssertionError, ValueError) as error:
        return str(error)
    if report.has_errors():
        return str(report.generate_report())
    roles = [message["role"] for message in tree["messages"]]
    wrong = roles[0] != "user" or any(one == other for one, other in itertools.pairwise(roles))
    return f"turns: {roles}" if wrong else None


def _known(value: Any, shape: Any) -> Any:
    """The tree as botocore takes it (bytes for base64); a member that the API does not have, or that is empty, is an error."""
    if shape.type_name == "structure" and not getattr(shape, "is_document_type", False):
        unknown = set(value) - set(shape.members)
        assert not unknown, f"{shape.name} has no {unknown}"
        return {name: _known(item, shape.members[name]) for name, item in value.items()}
    if shape.type_name == "list":
        return [_known(item, shape.member) for item in value]
    if shape.type_name == "blob":
        return base64.b64decode(value, validate=True)
    if getattr(shape, "enum", None):
        assert value in shape.enum, f"{shape.name} is none of {shape.enum}"
    assert value != "" or shape.type_name != "string", f"{shape.name} is empty"
    return value


def answer(scene: Scene) -> Tree:
    """A ConverseResponse."""
    content: list[Tree] = []
    if scene.thought:
        content.append({"reasoningContent": {"reasoningText": {"text": scene.thought, "signature": "c2ln"}}})
    if scene.text:
        content.append({"text": "".join(scene.text)})
    content += [
        {"toolUse": {"toolUseId": f"tooluse_{at}", "name": name, "input": tree}}
        for at, (name, tree) in enumerate(scene.calls)
    ]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": STOPS[scene.stop],
        "usage": usage(scene),
        "metrics": {"latencyMs": 12},
    }


def usage(scene: Scene) -> Tree:
    """Its tokens: those from the cache are beside the input."""
    return {
        "inputTokens": scene.prompt - scene.cached,
        "outputTokens": scene.output,
        "totalTokens": scene.prompt + scene.output,
        "cacheReadInputTokens": scene.cached,
        "cacheWriteInputTokens": 0,
    }


def messages(scene: Scene) -> Sequence[tuple[str, Tree]]:
    """Its stream: types and payloads. Text has no contentBlockStart."""
    told: list[tuple[str, Tree]] = [("messageStart", {"role": "assistant"})]
    at = 0
    if scene.thought:
        for delta in ({"text": scene.thought}, {"signature": "c2ln"}):
            told.append(("contentBlockDelta", {"contentBlockIndex": at, "delta": {"reasoningContent": delta}}))
        told.append(("contentBlockStop", {"contentBlockIndex": at}))
        at += 1
    if scene.text:
        told += [("contentBlockDelta", {"contentBlockIndex": at, "delta": {"text": piece}}) for piece in scene.text]
        told.append(("contentBlockStop", {"contentBlockIndex": at}))
        at += 1
    for number, (name, tree) in enumerate(scene.calls):
        start = {"toolUse": {"toolUseId": f"tooluse_{number}", "name": name}}
        told.append(("contentBlockStart", {"contentBlockIndex": at, "start": start}))
        text = arguments(tree)
        for part in (text[:5], text[5:]):
            told.append(("contentBlockDelta", {"contentBlockIndex": at, "delta": {"toolUse": {"input": part}}}))
        told.append(("contentBlockStop", {"contentBlockIndex": at}))
        at += 1
    told.append(("messageStop", {"stopReason": STOPS[scene.stop]}))
    told.append(("metadata", {"usage": usage(scene), "metrics": {"latencyMs": 12}}))
    return told
