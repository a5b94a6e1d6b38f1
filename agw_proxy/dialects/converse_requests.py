"""Requests for Amazon's Converse, which is one form for the models of all vendors on Bedrock.

Bedrock API reference, "Converse". Written out of the Messages form, whose turns are in the same order and as strict; what
Converse has no word for, for all models, is dropped and told, or refused where the answer would mean something else.
"""

import base64
import re

import orjson

from agw_proxy.dialects import anthropic_messages_requests
from agw_proxy.dialects.base import Losses, Request, Tree, Untranslatable
from agw_proxy.dialects.features import decide

PICTURES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
DOCUMENTS = {"application/pdf": "pdf", "text/plain": "txt"}
MAX_NAME_LETTERS = 200  # of a document
MAX_ID_LETTERS = 64  # of a call
CHOICES = {"auto": "auto", "any": "any"}
DROPPED = ("metadata", "service_tier", "thinking", "top_k")
"""Members of Messages that each vendor has its own way for, or none."""
FEATURES = {"thinking": "reasoning"}
_UNFIT = re.compile(r"[^A-Za-z0-9\-()\[\] ]|\s(?=\s)")


class Writer:
    """Writes one request. ``dropped``: what it has lost."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self._documents = 0
        self._calls = False

    def write(self, request: Request) -> Tree:
        """The body. Raises Untranslatable."""
        losses = Losses("messages", decide)
        asked = anthropic_messages_requests.write_request(request, losses)
        self.dropped = losses.dropped
        tree: Tree = {"messages": [self._message(message) for message in asked["messages"]]}
        system = [self._text(block) for block in asked.get("system", ())]
        if system:
            tree["system"] = system
        config: Tree = {"maxTokens": asked["max_tokens"]}
        for name, there in (("temperature", "temperature"), ("top_p", "topP"), ("stop_sequences", "stopSequences")):
            if name in asked:
                config[there] = asked[name]
        tree["inferenceConfig"] = config
        self._tools(asked, tree)
        output = asked.get("output_config", {})
        if "format" in output:
            schema = {"schema": orjson.dumps(output["format"]["schema"]).decode(), "name": "answer"}
            tree["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
        if "effort" in output:
            self._lost("reasoning")
        for name in DROPPED:
            if name in asked:
                self._lost(FEATURES.get(name, name))
        return tree

    def _lost(self, feature: str) -> None:
        if feature not in self.dropped:
            self.dropped.append(feature)

    def _message(self, message: Tree) -> Tree:
        content = [made for block in message["content"] if (made := self._block(block)) is not None]
        if any("document" in block for block in content) and not any("text" in block for block in content):
            content.append({"text": "-"})  # Amazon takes no document alone
        return {"role": message["role"], "content": content or [{"text": "-"}]}  # a turn of thoughts alone

    def _block(self, block: Tree) -> Tree | None:
        if "cache_control" in block:
            self._lost("cache_control")
        kind = block["type"]
        if kind == "text":
            return self._text(block)
        if kind in {"image", "document"}:
            return self._media(block)
        if kind == "tool_use":
            self._calls = True
            return {"toolUse": {"toolUseId": _id(block["id"]), "name": block["name"], "input": block["input"]}}
        if kind == "tool_result":
            self._calls = True
            return {"toolResult": self._result(block)}
        if kind in {"thinking", "redacted_thinking"}:
            self._lost("foreign_reasoning")
            return None
        raise Untranslatable(f"The model's upstream takes no '{kind}' in a conversation.", "messages")

    def _text(self, block: Tree) -> Tree:
        if "cache_control" in block:
            self._lost("cache_control")
        if block.get("citations"):
            self._lost("citations")
        return {"text": block["text"]}

    def _result(self, block: Tree) -> Tree:
        content = block.get("content") or ()
        parts = [{"text": content}] if isinstance(content, str) else [self._block(part) for part in content]
        made: Tree = {"toolUseId": _id(block["tool_use_id"]), "content": parts}
        return {**made, "status": "error"} if block.get("is_error") else made

    def _media(self, block: Tree) -> Tree:
        source, kind = block["source"], block["type"]
        media_type = source.get("media_type", "")
        formats = PICTURES if kind == "image" else DOCUMENTS
        if source["type"] not in {"base64", "text"} or media_type not in formats:
            raise Untranslatable(
                f"The model's upstream takes pictures and documents within the request only, as {', '.join(formats)}.",
                "messages",
            )
        data = source["data"]
        if source["type"] == "text":
            data = base64.b64encode(data.encode()).decode()
        made: Tree = {"format": formats[media_type], "source": {"bytes": data}}
        if kind == "document":
            self._documents += 1
            if block.get("citations", {}).get("enabled"):
                self._lost("citations")
            title = _UNFIT.sub("", block.get("title") or "").strip()[:MAX_NAME_LETTERS]
            made["name"] = f"{title or 'document'} {self._documents}"[-MAX_NAME_LETTERS:]  # no two may be the same
        return {kind: made}

    def _tools(self, asked: Tree, tree: Tree) -> None:
        """``toolConfig``. Raises Untranslatable for tools that Anthropic runs itself."""
        tools = [self._tool(tool) for tool in asked.get("tools", ())]
        if not tools:
            return
        choice = asked.get("tool_choice", {})
        mode = choice.get("type")
        if choice.get("disable_parallel_tool_use"):
            self._lost("parallel_tool_calls")
        if mode == "none" and not self._calls:
            return  # what is not offered is not called
        tree["toolConfig"] = {"tools": tools}
        if mode == "tool":
            tree["toolConfig"]["toolChoice"] = {"tool": {"name": choice["name"]}}
        elif mode in CHOICES:
            tree["toolConfig"]["toolChoice"] = {CHOICES[mode]: {}}
        elif mode == "none":
            self._lost("tool_choice")  # with calls in the history the tools have to be there

    def _tool(self, tool: Tree) -> Tree:
        if "input_schema" not in tool:
            raise Untranslatable(f"The model's upstream runs no tool '{tool.get('type')}' itself.", "tools")
        if "cache_control" in tool:
            self._lost("cache_control")
        spec: Tree = {"name": tool["name"], "inputSchema": {"json": tool["input_schema"]}}
        if tool.get("description"):
            spec["description"] = tool["description"]
        if "strict" in tool:
            spec["strict"] = tool["strict"]
        return {"toolSpec": spec}


def _id(given: str) -> str:
    """A call's id, as long as it may be: a longer one keeps its end, which tells it from others."""
    return given[-MAX_ID_LETTERS:]
