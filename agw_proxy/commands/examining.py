"""The conformance run of ``agw doctor``: asks one model in a client dialect, and judges what comes back.

Each check gives one Finding. What the model (or its provider) will not do is told apart from what is broken on the way:
an error in the dialect's own form is a refusal, anything that a client could not read is broken. ``compare`` takes a
refusal back where the same model did the same thing in another dialect.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from types import ModuleType
from typing import Any, Literal, NamedTuple

from agw_proxy.commands.running import Failure, Place, ask, fetch
from agw_proxy.conformance import chat, gemini, messages, responses
from agw_proxy.conformance.asking import Ask, Form, body, check_error, fits, headers, path
from agw_proxy.conformance.base import Broken, Fault, Frame, Told, shown
from agw_proxy.conformance.frames import events

Outcome = Literal["ok", "refused", "broken", "failed", "skipped"]
"""refused: by the model, its provider or a choice of the gateway. failed: could not be tried. skipped: nothing to try."""

GRAMMARS: dict[Form, ModuleType] = {"chat": chat, "responses": responses, "messages": messages, "gemini": gemini}
HELLO = "Say hello in one short sentence."
# The echo model reads the first two lines; to others they say what is wanted as well.
BOTH = """\
call get_weather {"city": "Oslo"}
call get_time {"city": "Oslo"}
These are two tool calls. Make both of them now, in the same turn, then tell me in one sentence what they gave."""
CITY = "Tell me about Oslo: its name, and roughly how many people live there."
COUNT = "Count from 1 to 400 in words, one number a line. " + "Leave no number out, however long it gets. " * 150
NO_MODEL = "agw-doctor-no-such-model"
SETTLE_SECONDS = 5.0  # until an exchange whose client has left must be over
POLL_SECONDS = 0.05
RESTING_POLLS = 5
POLLS = 10  # each asks one of the gateway's workers, which counts its own exchanges
MOST_SILENCES = (
    3  # as long as so many of the longest silences may an answer take: heartbeats are none, and may go on for ever
)
TRIES = 3  # to see an exchange in flight: a fast model's answer may be over before it is looked for
WINDOW_BYTES = 16 * 1024  # of a stream that is not to be over before its client leaves
LINE_BYTES = 16 * 1024 * 1024  # of one event in a stream
BODY_BYTES = 64 * 1024 * 1024
PIECE_BYTES = 64 * 1024
MAX_FRAMES = 100_000  # of one stream
NOT_ASKED = frozenset({401, 403, 404, 408, 429})  # statuses that say nothing about what was asked for


class Finding(NamedTuple):
    """What one check has shown. ``fault``: the first broken event of a stream. ``by_model``: who refused."""

    form: Form
    check: str
    outcome: Outcome
    detail: str = ""
    fault: Fault | None = None
    by_model: bool = False


class _Verdict(Exception):
    def __init__(self, outcome: Outcome, detail: str, fault: Fault | None = None, *, by_model: bool = False) -> None:
        super().__init__(detail)
        self.outcome, self.detail, self.fault, self.by_model = outcome, detail, fault, by_model


class _Got(NamedTuple):
    """An answer: ``frames`` of a stream, else what its JSON says (None: it has none).

    ``lost``: the connection was, before the stream's end.
    """

    status: int
    headers: http.client.HTTPMessage
    tree: Any
    frames: list[Frame] | None
    lost: bool = False


class Examination:
    """The checks of one dialect, in order; later ones use what earlier ones were told."""

    def __init__(self, place: Place, model: str, form: Form, seconds: float) -> None:
        """``seconds``: the longest silence of the gateway."""
        self._place, self._model, self._form, self._seconds = place, model, form, seconds
        self._plain: Told | None = None
        self._streamed: Told | None = None
        self._called: Told | None = None

    def run(self) -> Iterator[Finding]:
        """Give the findings as they are made. A model that does not answer at all is not asked for more."""
        answers = False
        for name, check in CHECKS.items():
            if not (answers or name in ESSENTIAL or name in ERRORS):
                yield Finding(self._form, name, "skipped", "needs an answer")
                continue
            try:
                found = Finding(self._form, name, "ok", check(self) or "")
            except _Verdict as verdict:
                detail, by_model = verdict.detail, verdict.by_model
                found = Finding(self._form, name, verdict.outcome, detail, verdict.fault, by_model=by_model)
            except Failure as failure:
                found = Finding(self._form, name, "failed", str(failure))
            answers = answers or (name in ESSENTIAL and found.outcome in {"ok", "broken"})
            yield found

    # --- checks: each gives a remark or None, and raises _Verdict where not all is well

    def plain(self) -> str | None:
        """An answer in one piece."""
        told = self._whole(self._send(Ask(HELLO)))
        if not told.text.strip():
            raise _Verdict("broken", "the answer has no text")
        self._plain = told
        return None

    def streamed(self) -> str | None:
        """An answer in events."""
        told = self._stream(self._send(Ask(HELLO, streamed=True)))
        if not told.text.strip():
            raise _Verdict("broken", "the stream has no text")
        self._streamed = told
        return None

    def usage(self) -> str | None:
        """Tokens in both; the two checks before have asked."""
        if self._plain is None or self._streamed is None:
            raise _Verdict("skipped", "needs a plain and a streamed answer")
        told = {"plain answer": self._plain.usage, "stream": self._streamed.usage}
        without = [name for name, usage in told.items() if usage is None or not all(usage)]
        if len(without) == len(told):
            raise _Verdict("refused", "the model tells no usage", by_model=True)
        if without:
            count = shown(told[without[0]]) if told[without[0]] else "none"
            raise _Verdict("broken", f"the {without[0]} tells no usage (it says {count}), though the other does")
        return None

    def tools(self) -> str | None:
        """A tool call that has to come."""
        got = self._send(Ask(BOTH, tools=True, force=True))
        told = self._whole(got)
        remark = self._calls(got, told)
        self._called = told
        return remark

    def tools_streamed(self) -> str | None:
        """Likewise, in events."""
        got = self._send(Ask(BOTH, streamed=True, tools=True, force=True))
        return self._calls(got, self._stream(got))

    def results(self) -> str | None:
        """The second turn: the calls with their results."""
        if self._called is None:
            raise _Verdict("skipped", "needs a tool call")
        told = self._whole(self._send(Ask(BOTH, tools=True, told=self._called)))
        if not told.text.strip() and not told.calls:
            raise _Verdict("broken", "the answer to the results is empty")
        return None

    def structured(self) -> str | None:
        """An answer that fits a JSON schema."""
        got = self._send(Ask(CITY, schema=True))
        wrong = fits(self._whole(got).text)
        if wrong is not None:
            raise _ignored(got, wrong)
        return None

    def malformed(self) -> str | None:
        """A request with a member of the wrong type, plain and streamed: an error, and no stream."""
        for streamed in (False, True):
            got = self._send(Ask(HELLO, streamed=streamed, malformed=True))
            what = "a malformed request" + (" for a stream" if streamed else "")
            if got.status in NOT_ASKED:
                self._succeeded(got)
            if got.status not in {400, 422}:
                raise _Verdict("broken", f"{what} was answered {got.status}, not 400")
            self._error(got, what)
        return None

    def unknown(self) -> str | None:
        """A model that there is not."""
        got = self._send(Ask(HELLO), NO_MODEL)
        if got.status == HTTPStatus.OK:
            raise _Verdict("skipped", "an upstream answers to any model name")
        if got.status not in {400, 403, 404}:
            raise _Verdict("broken", f"an unknown model was answered {got.status}, not 404")
        self._error(got, "an unknown model")
        return None if got.status == HTTPStatus.NOT_FOUND else f"answered {got.status}"

    def cancelled(self) -> str | None:
        """A client that leaves in the middle: its exchange ends, and the next one is served."""
        before = self._resting()
        for _ in range(TRIES):
            during = self._begun()
            if before is None or during is None:
                raise _Verdict("skipped", "the gateway does not tell how many exchanges are in flight")
            if during > before:
                break
        else:
            raise _Verdict(
                "skipped",
                "the exchange was not seen in flight: the answer was over at once, or one of many workers has it",
            )
        deadline = time.monotonic() + SETTLE_SECONDS
        while (after := self._active()) is not None and after > before:
            if time.monotonic() > deadline:
                detail = (
                    f"{after} exchanges are in flight {SETTLE_SECONDS:.0f} s after the client left, {before} before"
                )
                raise _Verdict("broken", detail)
            time.sleep(POLL_SECONDS)
        self._whole(self._send(Ask(HELLO)))
        return None

    def _begun(self) -> int | None:
        """How many exchanges are in flight while a long answer has just begun, of which no more is read."""
        connection, response = self._open(Ask(COUNT, streamed=True, slow=True), self._model, window=WINDOW_BYTES)
        try:
            until = self._until()
            if response.status != HTTPStatus.OK:
                self._stream(_read(response, until))
            if next(events(_lines(response, until)), None) is None:
                raise _Verdict("broken", "the stream has no event")
            return self._active()
        except (OSError, http.client.HTTPException):
            raise _Verdict("failed", "no event of the stream came: it broke off, or was silent for too long") from None
        finally:
            connection.close()

    def _resting(self) -> int | None:
        """How many exchanges are in flight once those before have ended: the least of some readings in a row."""
        found = self._active()
        for _ in range(RESTING_POLLS if found else 0):  # none is the least
            time.sleep(POLL_SECONDS)
            now = self._active()
            found = now if now is None or found is None else min(found, now)
        return found

    # --- asking and judging

    def _open(
        self, question: Ask, model: str, window: int | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        where = path(self._form, model, streamed=question.streamed)
        content, more = body(self._form, model, question), headers(self._form)
        return ask(self._place, "POST", where, content, seconds=self._seconds, more=more, window=window)

    def _until(self) -> float:
        """When an answer that begins now has to be over, by the monotonic clock."""
        return time.monotonic() + MOST_SILENCES * self._seconds

    def _send(self, question: Ask, model: str | None = None) -> _Got:
        connection, response = self._open(question, model or self._model)
        try:
            return _read(response, self._until())
        except TimeoutError:
            raise _Verdict("failed", f"nothing came for {self._seconds:g} s") from None
        except (OSError, http.client.HTTPException):
            raise _Verdict("broken", "the connection was lost in the middle of the answer") from None
        finally:
            connection.close()

    def _whole(self, got: _Got) -> Told:
        """Read an answer in one piece."""
        self._succeeded(got)
        if not isinstance(got.tree, dict):
            raise _Verdict("broken", "the answer is no JSON object")
        try:
            told: Told = GRAMMARS[self._form].whole(got.tree)
        except Broken as broken:
            raise _Verdict("broken", str(broken)) from None
        if told.failure is not None:
            raise _Verdict("failed", told.failure)
        return told

    def _stream(self, got: _Got) -> Told:
        """Read an answer in events."""
        self._succeeded(got)
        if got.frames is None:
            kind = got.headers.get_content_type()
            raise _Verdict("broken", f"expected a stream (text/event-stream), got {kind}")
        told, fault = GRAMMARS[self._form].follow(got.frames)
        if fault is not None:
            raise _Verdict("broken", f"{fault}{'; the connection was lost there' if got.lost else ''}", fault)
        if got.lost:
            raise _Verdict("broken", "the connection was lost behind the last event, and not ended")
        if told.failure is not None:
            raise _Verdict("failed", f"the stream ended in an error: {told.failure}")
        return told  # type: ignore[no-any-return]  # the four modules are alike

    def _succeeded(self, got: _Got) -> None:
        if got.status == HTTPStatus.OK:
            return
        message = f"{got.status}: {self._error(got, 'an error')}"
        if got.status >= 500 or got.status in NOT_ASKED:
            raise _Verdict("failed", message)
        code = got.headers.get("x-agw-error", "upstream_")
        by_model = code.startswith("upstream_")
        raise _Verdict("refused", message, by_model=by_model)

    def _error(self, got: _Got, what: str) -> str:
        try:
            return check_error(self._form, got.status, got.tree)
        except Broken as broken:
            raise _Verdict(
                "broken", f"{what} was answered {got.status}, and its error is not readable: {broken}"
            ) from None

    def _calls(self, got: _Got, told: Told) -> str | None:
        if not told.calls:
            raise _ignored(got, "no tool was called, though one had to be")
        return None if len(told.calls) > 1 else "one call, where two were asked for: the model calls one at a time"

    def _active(self) -> int | None:
        """The most exchanges that any worker has in flight; None where nobody tells."""
        counts = []
        for _ in range(POLLS):
            _, ready = fetch(self._place, "/health/ready", seconds=self._seconds)
            active = ready.get("active") if isinstance(ready, dict) else None
            if not isinstance(active, int):
                return None
            counts.append(active)
        return max(counts)


CHECKS: dict[str, Callable[[Examination], str | None]] = {
    "plain answer": Examination.plain,
    "streamed answer": Examination.streamed,
    "usage": Examination.usage,
    "tool calls": Examination.tools,
    "tool calls streamed": Examination.tools_streamed,
    "tool results": Examination.results,
    "structured output": Examination.structured,
    "malformed request": Examination.malformed,
    "unknown model": Examination.unknown,
    "cancellation": Examination.cancelled,
}
ESSENTIAL = frozenset({"plain answer", "streamed answer"})
ERRORS = frozenset({"malformed request", "unknown model"})


def compare(findings: Sequence[Finding]) -> list[Finding]:
    """Take back what is no limit of the model, as it did the same in another dialect; nothing excuses an essential."""
    able = {finding.check: finding.form for finding in findings if finding.outcome == "ok"}
    judged = []
    for finding in findings:
        other = able.get(finding.check)
        if finding.outcome == "refused" and finding.check in ESSENTIAL:
            judged.append(finding._replace(outcome="failed"))
        elif finding.outcome == "refused" and finding.by_model and other is not None:
            detail = f"{finding.detail} (not the model's limit: in {other} it works)"
            judged.append(finding._replace(outcome="broken", detail=detail))
        else:
            judged.append(finding)
    return judged


def _ignored(got: _Got, what: str) -> _Verdict:
    """Judge a request whose wish was passed over without an error."""
    dropped = got.headers.get("x-agw-dropped")
    if dropped:
        return _Verdict("refused", f"{what}; the gateway says what it had to leave out: {dropped}")
    return _Verdict("refused", what, by_model=True)


def _read(response: http.client.HTTPResponse, until: float) -> _Got:
    if response.status == HTTPStatus.OK and response.headers.get_content_type() == "text/event-stream":
        frames: list[Frame] = []
        lost = False
        try:
            for frame in events(_lines(response, until)):
                frames.append(frame)
                if len(frames) == MAX_FRAMES:
                    raise _Verdict("failed", f"the stream has more than {MAX_FRAMES} events")
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            lost = True
        return _Got(response.status, response.headers, None, frames, lost or bool(response.length))
    content = bytearray()
    while len(content) < BODY_BYTES and (piece := response.read1(PIECE_BYTES)):
        content += piece
        _check(until)
    if response.length and len(content) < BODY_BYTES:
        raise http.client.IncompleteRead(bytes(content), response.length)
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        tree = None
    return _Got(response.status, response.headers, tree, None)


def _lines(response: http.client.HTTPResponse, until: float) -> Iterator[bytes]:
    while line := response.readline(LINE_BYTES):
        yield line
        _check(until)


def _check(until: float) -> None:
    if time.monotonic() > until:
        raise _Verdict("failed", f"the answer does not end: it has taken {MOST_SILENCES} times the longest silence")
