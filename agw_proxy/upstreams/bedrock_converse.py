"""Other vendors' models on Bedrock, asked by Converse: a Messages request there, and Messages back.

Bedrock API reference, "Converse", "ConverseStream". Pure; it brings the dialects, so that it is imported late.
"""

import time

import orjson

from agw_proxy.config.values import Spoken
from agw_proxy.dialects import anthropic_messages_answers, anthropic_messages_streams, tool_names, translate
from agw_proxy.dialects.base import Event, Malformed, Shown, Untranslatable
from agw_proxy.dialects.converse_answers import Reader, read_answer
from agw_proxy.dialects.converse_requests import Writer
from agw_proxy.errors import InvalidJSON, UpstreamInvalid
from agw_proxy.upstreams.bedrock_frames import MalformedFrame
from agw_proxy.upstreams.translating import told, unread

NAMED_AS: Spoken = "chat"
"""Amazon takes names of tools as OpenAI does: they are half as long as Anthropic's."""


class Talk:
    """One request and its answer."""

    def __init__(self, body: bytes, model: str, request_id: str, name: str) -> None:
        """``body``: of Messages. ``name``: of the upstream. Raises CallerError."""
        try:
            request = translate.read_request("messages", body)
            request.model = model
            writer = Writer()
            self.body = orjson.dumps(writer.write(tool_names.renamed(request, NAMED_AS)))
        except (Malformed, Untranslatable) as error:
            raise unread(error) from None
        except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
            raise InvalidJSON(f"The body cannot be translated for the model's upstream: {error}") from None
        self.dropped = told(tuple(writer.dropped))
        self.stream = request.stream
        self._name = name
        self._names = tool_names.own_names(request, NAMED_AS)
        plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in request_id)
        self._shown = Shown(id=plain, model=model, now=int(time.time()), include_usage=True, request=request)
        self._reader = Reader()
        self._writer = anthropic_messages_streams.Writer(self._shown)

    def answer(self, body: bytes) -> bytes:
        """A whole answer, as a message. Raises UpstreamInvalid."""
        try:
            tree = orjson.loads(body)
            if not isinstance(tree, dict):
                raise Malformed("The answer is not a JSON object.")
            found = tool_names.restored(read_answer(tree), self._names)
            return orjson.dumps(anthropic_messages_answers.write_answer(found, self._shown))
        except (Malformed, orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
            raise UpstreamInvalid(
                f"Upstream '{self._name}' answered with what Converse does not know: {error}"
            ) from None

    def event(self, kind: str, payload: bytes) -> bytes:
        """See ``bedrock_frames.Told``."""
        try:
            tree = orjson.loads(payload)
            if not isinstance(tree, dict):
                raise Malformed("no JSON object")
            return self._written(self._reader.read(kind, tree))
        except (Malformed, orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
            raise MalformedFrame(str(error)) from None

    def end(self) -> bytes:
        """See ``bedrock_frames.Told``."""
        return self._written(self._reader.end())

    def _written(self, events: list[Event]) -> bytes:
        return b"".join([self._writer.write(tool_names.renamed_back(event, self._names)) for event in events])
