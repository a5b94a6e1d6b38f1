"""Requests of the Gemini API: ``models/M:generateContent``, ``:streamGenerateContent`` and ``:countTokens``.

Gemini API reference, "Generating content" and "Counting tokens". The model, and whether to stream, stand in the path.
"""

from itertools import count, groupby

import msgspec

from agw_proxy.dialects import members
from agw_proxy.dialects.base import (
    File,
    Image,
    Losses,
    Malformed,
    Message,
    Request,
    Text,
    ToolResult,
    ToolUse,
    Tree,
    Untranslatable,
)
from agw_proxy.dialects.gemini_config import CARRIED, read_config, write_config
from agw_proxy.dialects.gemini_names import (
    MADE,
    SKIP_VALIDATION,
    before_three,
    branch,
    camel,
    dumped,
    parsed,
    several,
)
from agw_proxy.dialects.gemini_parts import join, read_media, read_part, write_media, write_part
from agw_proxy.dialects.gemini_tools import read_tools, write_tools
from agw_proxy.dialects.json_words import in_words

_READ = frozenset({
    "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "serviceTier", "store", "model",
})  # fmt: skip
_CARRIED = frozenset({"safetySettings", "cachedContent", "labels"})
"""Members that no other dialect knows, of the request itself; ``gemini_config.CARRIED`` are those of its configuration."""
_CARRIED_TOOL_CONFIG = frozenset({"retrievalConfig", "includeServerSideToolInvocations"})
_ROLES = frozenset({"user", "model", "function", "tool"})
"""The last two are how Google's SDKs call who responds to calls."""
_TIERS = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}
_DATA = frozenset({"text", "thought", "thoughtSignature", "functionCall", "inlineData", "fileData"})
_ANSWERED = frozenset({"output", "result", "error"})
"""Members of a ``functionResponse.response`` that are all of it, when alone."""


def read_request(tree: Tree, model: str, stream: bool) -> Request:
    """What the caller asks ``model`` for. Raises Malformed, Untranslatable."""
    tree = camel(tree)
    request = Request(model, [], stream=stream, include_usage=stream)
    _read_system(tree, request)
    request.messages += _History(request).read(several(tree, "contents"))
    read_tools(tree, request)
    config = branch(tree, "generationConfig")
    if config is not None:
        read_config(config, request)
    tier = members.text(tree, "serviceTier")
    if tier is not None and tier.lower() != "unspecified":
        request.service_tier = "default" if tier.lower() == "standard" else tier.lower()
    request.store = members.flag(tree, "store")
    for name, value in tree.items():
        if name not in _READ and value:
            request.extra[name] = value
    return request


def _read_system(tree: Tree, request: Request) -> None:
    """``systemInstruction``: one content, of which only words count."""
    found = tree.get("systemInstruction")
    if found is None:
        return
    if isinstance(found, str):
        request.messages.append(Message("system", [Text(found)]))
        return
    content = branch(tree, "systemInstruction") or {}
    said: list[str | None] = []
    for part in several(content, "parts", "systemInstruction"):
        said.append(members.text(part, "text", "systemInstruction"))
        if part and "text" not in part:
            request.extra["system_media"] = True
    request.messages.append(Message("system", [Text(words) for words in said if words]))


class _History:
    """Reads contents one after the other; knows which calls wait for their results, as those may say a name only.

    Google's SDKs keep each chunk of a stream as a content of its own: what the model has said is put together again.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._waiting: list[ToolUse] = []
        self._last = ""

    def read(self, contents: list[Tree]) -> list[Message]:
        if not contents:
            raise Malformed("'contents' has to be a list with at least one content.", "contents")
        messages: list[Message] = []
        for at, content in enumerate(contents):
            message = self._message(content, f"contents[{at}]", at)
            if not message.blocks:
                continue
            if messages and messages[-1].role == message.role == "assistant":
                for block in message.blocks:
                    join(messages[-1].blocks, block)
            else:
                messages.append(message)
        if not messages:
            raise Malformed("'contents' has no parts that say anything.", "contents")
        return messages

    def _message(self, content: Tree, path: str, turn: int) -> Message:
        role = members.text(content, "role", path) or "user"
        if role not in _ROLES:
            raise Malformed(f"'{path}.role' has to be user or model.", f"{path}.role")
        message = Message("assistant" if role == "model" else "user", [])
        results = 0
        if role == "model" != self._last:
            self._waiting = []
        self._last = role
        for at, part in enumerate(several(content, "parts", path)):
            where = f"{path}.parts[{at}]"
            if "functionResponse" in part:
                if role == "model":
                    raise Malformed(f"'{where}': responses to functions stand in contents of the user.", where)
                message.blocks.insert(results, self._result(part, where, turn, at))
                results += 1
                continue
            block = read_part(part, where, str(turn), at)
            for name, value in part.items():
                if name not in _DATA:
                    self._request.extra.setdefault(name, value)
            if block is None:
                if not part:
                    raise Malformed(f"'{where}' is empty.", where)
                continue
            if isinstance(block, ToolUse):
                if role != "model":
                    raise Malformed(f"'{where}': calls of functions stand in contents of the model.", where)
                self._waiting.append(block)
            if role == "model":
                join(message.blocks, block)
            else:
                message.blocks.append(block)
        return message

    def _result(self, part: Tree, path: str, turn: int, position: int) -> ToolResult:
        where = f"{path}.functionResponse"
        answer = branch(part, "functionResponse", path)
        if answer is None:
            raise Malformed(f"'{where}' has to be an object.", where)
        name = members.wanted(answer, "name", where)
        content, failed = _read_response(members.branch(answer, "response", where) or {}, where)
        for at, each in enumerate(several(answer, "parts", where)):
            media = read_media(each, f"{where}.parts[{at}]")
            if isinstance(media, Image | File):
                content.append(media)
            else:
                self._request.extra.setdefault("functionResponse.parts", each)
        call_id = self._called(members.text(answer, "id", where), name) or f"{MADE}{turn}_{position}"
        self._waiting = [use for use in self._waiting if use.id != call_id]
        return ToolResult(call_id, content, failed=failed, name=name)

    def _called(self, given: str | None, name: str) -> str | None:
        """The id of the call that this is the result of: as given, or of the first call of ``name`` that still waits.

        Gemini CLI makes up ids for its results where the calls have none.
        """
        if given is not None and any(use.id == given for use in self._waiting):
            return given
        return next((use.id for use in self._waiting if use.name == name), given)


def _read_response(response: Tree, path: str) -> tuple[list[Text | Image | File], bool]:
    """Words of a function's response, and whether they tell of a failure.

    ``output`` (or ``result``) and ``error`` are the names that the reference gives to what is not structured further.
    """
    if len(response) == 1:
        ((name, value),) = response.items()
        if name in _ANSWERED:
            words = value if isinstance(value, str) else dumped(value, path).decode()
            return [Text(words)], name == "error"
    return [Text(dumped(response, path).decode())], False


def write_request(request: Request, losses: Losses) -> Tree:
    """The body of ``generateContent`` for Google. Raises Untranslatable."""
    system, contents = _write_messages(request, losses)
    if not contents:  # which Google refuses: an instruction alone is what is asked
        system, contents = [], [{"role": "user", "parts": system}]
        if not contents[0]["parts"]:
            raise Untranslatable("There is nothing in the request that Google's models can be asked.", "messages")
    tree: Tree = {"contents": contents}
    asked = _reconciled(request, system, losses)
    tools, tool_config = write_tools(asked, losses)
    config = write_config(asked, losses)
    for name, value in request.extra.items():
        if name in _CARRIED:
            tree[name] = value
        elif name in CARRIED and not (name == "mediaResolution" and not isinstance(value, str)):
            config[name] = value
        elif name in _CARRIED_TOOL_CONFIG:
            tool_config[name] = value
        else:
            losses.of(name)
    if system:
        tree["systemInstruction"] = {"parts": system}
    if tools:
        tree["tools"] = tools
    if tool_config:
        tree["toolConfig"] = tool_config
    if config:
        tree["generationConfig"] = config
    _write_rest(request, tree, losses)
    return tree


def _reconciled(request: Request, system: list[Tree], losses: Losses) -> Request:
    """Models before Gemini 3 refuse functions beside a format of the answer: where both are asked for, the format is told in words."""
    asked, choice = request.format, request.tool_choice
    if asked is None or not request.tools or not before_three(request.model):
        return request
    if choice is not None and choice.mode == "none":
        return msgspec.structs.replace(request, tools=[], tool_choice=None)
    losses.of("json_object" if asked.schema is None else "json_schema", "response_format")
    system.append({"text": in_words(asked)})
    return msgspec.structs.replace(request, format=None)


def _write_rest(request: Request, tree: Tree, losses: Losses) -> None:
    if request.service_tier not in {None, "auto"}:
        tier = _TIERS.get(request.service_tier or "")
        if tier is None:
            losses.of("service_tier")
        elif tier != "standard":
            tree["serviceTier"] = tier
    if request.store:
        losses.of("store")
    for name in ("logit_bias", "verbosity", "user", "metadata"):
        if getattr(request, name):
            losses.of(name)


def _write_messages(request: Request, losses: Losses) -> tuple[list[Tree], list[Tree]]:
    """Parts of the instruction (of all system messages, wherever they stand: Google has one place for them), and contents.

    Neighbours of one role become one content, as results of parallel calls have to stand in one, and before all else.
    """
    system: list[Tree] = []
    contents: list[Tree] = []
    names: dict[str, str] = {}
    answers: dict[int, int] = {}
    for at, message in enumerate(_in_order(request.messages)):
        path = f"messages[{at}]"
        if message.name is not None:
            losses.of("message_name")
        if message.role == "system":
            system += _write_system(message, losses)
            continue
        role = "model" if message.role == "assistant" else "user"
        if not contents or contents[-1]["role"] != role:
            contents.append({"role": role, "parts": []})
        parts = contents[-1]["parts"]
        for block in message.blocks:
            if isinstance(block, ToolUse):
                names[block.id] = block.name
            if isinstance(block, ToolResult):
                first = answers.get(len(contents), 0)
                parts.insert(first, _write_result(block, names, losses, path))
                answers[len(contents)] = first + 1
                parts += [write_media(each, losses, path) for each in block.content if not isinstance(each, Text)]
                continue
            part = write_part(block, losses, path)
            if part is not None:
                parts.append(part)
    contents = _joined(contents)
    _sign(request.model, contents)
    return system, contents


def _joined(contents: list[Tree]) -> list[Tree]:
    """Without those of which nothing is left; what stood on both sides of one is one role's, and one content."""
    made: list[Tree] = []
    for content in contents:
        if made and content["role"] == made[-1]["role"]:
            made[-1]["parts"] += content["parts"]
        elif content["parts"]:
            made.append(content)
    return made


def _in_order(messages: list[Message]) -> list[Message]:
    """The conversation with the results of each step in the order of its calls: without ids Google knows them by it alone."""
    ordered: list[Message] = []
    ranks: dict[str, int] = {}
    number = count()
    for called, step in groupby(messages, lambda message: message.role == "assistant"):
        turns = list(step)
        blocks = [block for message in turns for block in message.blocks]
        if called:
            ranks |= {block.id: next(number) for block in blocks if isinstance(block, ToolUse)}
        results = [block for block in blocks if isinstance(block, ToolResult)]
        if len(results) > 1 and all(result.id in ranks for result in results):
            due = iter(sorted(results, key=lambda result: ranks[result.id]))
            turns = [
                Message(
                    turn.role,
                    [next(due) if isinstance(block, ToolResult) else block for block in turn.blocks],
                    turn.name,
                )
                for turn in turns
            ]
        ordered += turns
    return ordered


def _write_system(message: Message, losses: Losses) -> list[Tree]:
    parts: list[Tree] = []
    for block in message.blocks:
        if isinstance(block, Text):
            if block.cache is not None:
                losses.of("cache_control")
            if block.text:
                parts.append({"text": block.text})
        else:
            losses.of("system_media")
    return parts


def _write_result(result: ToolResult, names: dict[str, str], losses: Losses, path: str) -> Tree:
    """Results say which function they are of by its name; pictures in them stand beside them, which all models take."""
    name = names.get(result.id) or result.name
    if name is None:
        raise Untranslatable(f"There is a result of the call '{result.id}', but no such call before it.", path)
    if result.cache is not None:
        losses.of("cache_control")
    words = "\n".join(each.text for each in result.content if isinstance(each, Text))
    made = {} if not result.id or result.id.startswith(MADE) else {"id": result.id}
    return {"functionResponse": {**made, "name": name, "response": _write_response(words, result.failed)}}


def _write_response(words: str, failed: bool) -> Tree:
    if failed:
        return {"error": words}
    found = parsed(words)
    if found is None or (len(found) == 1 and "error" in found):
        return {"output": words}
    return found


def _sign(model: str, contents: list[Tree]) -> None:
    """Where the models of Gemini 3 insist on a signature and there is none, give the documented one for foreign calls.

    That is at the first call of each step of the current turn, which begins with what the user has said last (Gemini API,
    "Thought signatures"). Models before them never ask, and are not sent it.
    """
    if before_three(model):
        return
    for content in reversed(contents):
        parts = content["parts"]
        if content["role"] == "user":
            if not any("functionResponse" in part for part in parts):
                return
            continue
        first = next((part for part in parts if "functionCall" in part), None)
        if first is not None:
            first.setdefault("thoughtSignature", SKIP_VALIDATION)
