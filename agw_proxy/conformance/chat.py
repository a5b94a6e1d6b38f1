"""OpenAI Chat Completions (API reference, Chat, "The chat completion chunk object")."""

from agw_proxy.conformance.base import (
    Broken,
    Call,
    Reader,
    Told,
    Tree,
    member,
    named,
    parsed,
    same,
    shown,
    usage_of,
    whole_arguments,
)

DONE = b"[DONE]"
STOPS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
KINDS = ("function", "custom")


def whole(tree: Tree) -> Told:
    """Read a chat.completion. Raises Broken."""
    same(tree.get("object"), "chat.completion", "`object` to be")
    choices = member(tree, "choices", list)
    if not choices:
        raise Broken("at least one choice", choices)
    choice = choices[0]
    if not isinstance(choice, dict):
        raise Broken("`choices[0]` to be an object", choice)
    same(choice.get("index"), 0, "`choices[0].index` to be")
    message = member(choice, "message", dict, "choices[0].")
    same(message.get("role"), "assistant", "`choices[0].message.role` to be")
    told = Told(_text(message.get("content"), "message"), stop=_stop(choice.get("finish_reason")))
    for at, call in enumerate(message.get("tool_calls") or ()):
        told.calls.append(_begun(call, f"choices[0].message.tool_calls[{at}]."))
        if call["type"] == "function":
            told.calls[-1].arguments = member(call["function"], "arguments", str, "function.")
            whole_arguments(told.calls[-1])
    _calls_fit(told)
    told.turn = message
    told.usage = usage_of(tree.get("usage"), "prompt_tokens", "completion_tokens")
    return told


class _Choice:
    """What one choice has said."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.begun = False


class _Chunks:
    due = "`data: [DONE]`"

    def __init__(self) -> None:
        self.told = Told()
        self.over = False
        self._choices: dict[int, _Choice] = {}

    def step(self, name: str, data: bytes) -> None:
        if data == DONE:
            self._end()
            return
        tree = parsed(data)
        if name == "error" or "error" in tree:
            self.told.failure = named(member(tree, "error", dict), "message", "error.")
            self.over = True
            return
        if name:
            raise Broken("a chunk without an event name", name)
        same(tree.get("object"), "chat.completion.chunk", "`object` to be")
        for choice in member(tree, "choices", list):
            if not isinstance(choice, dict):
                raise Broken("each choice to be an object", choice)
            self._choice(choice)
        usage = usage_of(tree.get("usage"), "prompt_tokens", "completion_tokens")
        if usage is not None:
            self.told.usage = usage

    def _choice(self, tree: Tree) -> None:
        index = member(tree, "index", int, "choices[].")
        delta = member(tree, "delta", dict, "choices[].")
        if index not in self._choices:
            self._choices[index] = _Choice(self.told if index == 0 else Told())
        choice = self._choices[index]
        if not choice.begun:
            same(delta.get("role"), "assistant", "the first delta to say `role`")
            choice.begun = True
        told = choice.told
        said, calls = _text(delta.get("content"), "delta"), delta.get("tool_calls") or []
        if told.stop and (said or calls):
            raise Broken(f"nothing more of choice {index} after its finish_reason", delta)
        told.text += said
        if not isinstance(calls, list):
            raise Broken("`delta.tool_calls` to be a list", calls)
        for call in calls:
            _extend(told, call)
        reason = tree.get("finish_reason")
        if reason is not None:
            told.stop = _stop(reason)
            for call in told.calls:
                if not call.free:
                    whole_arguments(call)
            _calls_fit(told)

    def _end(self) -> None:
        if not self._choices:
            raise Broken("a chunk with a choice before the end", "[DONE]")
        for index, choice in sorted(self._choices.items()):
            if not choice.told.stop:
                raise Broken(f"a `finish_reason` of choice {index} before the end", "[DONE]")
        self.over = True


def _extend(told: Told, call: object) -> None:
    if not isinstance(call, dict):
        raise Broken("each of `delta.tool_calls` to be an object", call)
    where = "delta.tool_calls[]."
    index = member(call, "index", int, where)
    if not 0 <= index <= len(told.calls):
        raise Broken(f"`{where}index` up to {len(told.calls)}, without a gap", index)
    if index == len(told.calls):
        told.calls.append(_begun(call, where))
    elif call.get("id"):
        # Clients that add deltas up would join both ids.
        raise Broken(f"`{where}id` in the first delta of call {index} only", shown(call["id"]))
    function = call.get("function")
    if isinstance(function, dict) and function.get("arguments") is not None:
        told.calls[index].arguments += member(function, "arguments", str, f"{where}function.")


def _begun(call: object, where: str) -> Call:
    if not isinstance(call, dict):
        raise Broken(f"`{where.removesuffix('.')}` to be an object", call)
    identity = named(call, "id", where)
    kind = call.get("type")
    if kind not in KINDS:
        raise Broken(f"`{where}type` to be {' or '.join(KINDS)}", shown(kind) if kind else "no such member")
    return Call(identity, named(member(call, kind, dict, where), "name", f"{where}{kind}."), free=kind == "custom")


def _text(value: object, where: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise Broken(f"`{where}.content` to be a string or null", value)


def _stop(value: object) -> str:
    if isinstance(value, str) and value in STOPS:
        return value
    raise Broken(f"`finish_reason` to be one of {', '.join(sorted(STOPS))}", value)


def _calls_fit(told: Told) -> None:
    if told.stop == "tool_calls" and not told.calls:
        raise Broken("a tool call before `finish_reason` says tool_calls", "none")


_READER = Reader(_Chunks, "chunk")
check, follow = _READER.check, _READER.follow
