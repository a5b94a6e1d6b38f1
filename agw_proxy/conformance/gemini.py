"""Google's Gemini API (API reference, "GenerateContentResponse")."""

import json

from agw_proxy.conformance.base import Broken, Call, Reader, Told, Tree, member, named, parsed, same, tokens


def whole(tree: Tree) -> Told:
    """Read a GenerateContentResponse. Raises Broken."""
    grammar = _Responses()
    grammar.take(tree)
    if not grammar.told.stop:
        raise Broken("`candidates[0].finishReason`", "no such member")
    grammar.told.turn = tree["candidates"][0]["content"]
    return grammar.told


class _Responses:
    due = "a response with `candidates[0].finishReason`"

    def __init__(self) -> None:
        self.told = Told()
        self.over = False
        self._identity: dict[str, object] = {}

    def step(self, name: str, data: bytes) -> None:
        tree = parsed(data)
        if "error" in tree:
            error = member(tree, "error", dict)
            member(error, "code", int, "error.")
            self.told.failure = named(error, "message", "error.")
            self.over = True
            return
        if name:
            raise Broken("a response without an event name, which Google's SDKs take for data", name)
        for label in ("responseId", "modelVersion"):
            if label in tree:
                same(tree[label], self._identity.setdefault(label, tree[label]), f"`{label}` to stay")
        self.take(tree)
        self.over = bool(self.told.stop)

    def take(self, tree: Tree) -> None:
        """Read one response, a part of the answer or all of it."""
        candidates = member(tree, "candidates", list)
        if not candidates or not isinstance(candidates[0], dict):
            raise Broken("`candidates` to have an object", candidates)
        candidate = candidates[0]
        same(candidate.get("index", 0), 0, "`candidates[0].index` to be")
        reason = candidate.get("finishReason")
        content = candidate.get("content")
        if content is None and reason is not None:
            content = {"parts": []}  # a last response may have nothing more to say
        if not isinstance(content, dict):
            raise Broken("`candidates[0].content` to be an object", content)
        if content.get("parts"):
            same(content.get("role"), "model", "`candidates[0].content.role` to be")
        parts = content.get("parts") or []
        if not isinstance(parts, list):
            raise Broken("`candidates[0].content.parts` to be a list", parts)
        for part in parts:
            self._part(part)
        if reason is not None:
            self.told.stop = named(candidate, "finishReason", "candidates[0].")
        usage = tree.get("usageMetadata")
        if usage is not None:
            if not isinstance(usage, dict):
                raise Broken("`usageMetadata` to be an object", usage)
            known = {"candidatesTokenCount": 0, **usage}
            sent, made = tokens(known, "promptTokenCount", "candidatesTokenCount")
            self.told.usage = sent, made

    def _part(self, part: object) -> None:
        if not isinstance(part, dict):
            raise Broken("each of `parts` to be an object", part)
        call = part.get("functionCall")
        if call is not None:
            if not isinstance(call, dict):
                raise Broken("`functionCall` to be an object", call)
            args = member({"args": {}, **call}, "args", dict, "functionCall.")
            name = named(call, "name", "functionCall.")
            self.told.calls.append(Call(str(call.get("id") or ""), name, json.dumps(args)))
        elif "text" in part:
            text = member(part, "text", str, "parts[].")
            self.told.text += "" if part.get("thought") else text


_READER = Reader(_Responses, "response")
check, follow = _READER.check, _READER.follow
