"""What is tried again, how often and after how long."""

import urllib.error
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email import message_from_string
from email.message import Message
from email.utils import format_datetime

import httpx2
import openai
import pytest

from agw_proxy._hot.limit import Table
from agw_proxy.errors import BudgetSpent, GatewayError, InvalidParameter, RateLimited, UpstreamUnreachable
from agw_proxy.sdk import host, retries, retry

REQUEST = httpx2.Request("GET", "http://there.test/")


class Heard:
    """The waits that retries asked for, and what they counted."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.counted: list[str] = []


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    told = Heard()

    async def sleep(seconds: float) -> None:
        told.waits.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    monkeypatch.setattr("time.sleep", told.waits.append)
    monkeypatch.setattr("random.random", lambda: 0.5)
    count = lambda helper, _, outcome: told.counted.append(f"{helper} {outcome}")  # noqa: E731
    monkeypatch.setattr(host, "_hosts", [host.Host(Table(slots=64, gates=8, windows=32, leases=8), count, count)])
    return told


class Flaky:
    """Raises each of these, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        return self.now()

    def now(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def answer(status: int, **headers: str) -> httpx2.HTTPStatusError:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.HTTPStatusError("x", request=REQUEST, response=httpx2.Response(status, headers=sent, request=REQUEST))


async def test_waits_grow_and_are_drawn_from_nothing_to_all_of_it(heard: Heard) -> None:
    flaky = Flaky(*(ValueError() for _ in range(4)))
    assert await retry(attempts=5, base=1.0, most=3.0)(flaky)() == "done"
    assert heard.waits == [0.5, 1.0, 1.5, 1.5]
    assert heard.counted == ["retry again"] * 4


def test_the_last_error_is_raised_as_it_is(heard: Heard) -> None:
    errors = [ValueError(number) for number in range(3)]
    flaky = Flaky(*errors)
    with pytest.raises(ValueError, match="2") as raised:
        retry(flaky.now)()
    assert raised.value is errors[2]
    assert heard.counted == ["retry again", "retry again", "retry gave_up"]


@pytest.mark.parametrize(
    ("on", "error", "calls"),
    [
        (ConnectionError, ConnectionResetError(), 2),
        (ConnectionError, ValueError(), 1),
        ((ConnectionError, ValueError), ValueError(), 2),
        (lambda error: "again" in str(error), ValueError("again"), 2),
        (lambda error: "again" in str(error), ValueError("no"), 1),
    ],
)
def test_which_errors_is_the_authors_to_say(on: retries.On, error: Exception, calls: int) -> None:
    flaky = Flaky(error)
    if calls == 1:
        with pytest.raises(type(error)):
            retry(on=on)(flaky.now)()
    else:
        assert retry(on=on)(flaky.now)() == "done"
    assert flaky.calls == calls


def spent(code: str) -> openai.RateLimitError:
    response = httpx2.Response(429, request=REQUEST)
    return openai.RateLimitError("x", response=response, body={"code": code})


def said(head: str) -> Message:
    return message_from_string(head)


LATER = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (answer(429, retry_after="7"), 7.0),
        (answer(503, retry_after_ms="250"), 0.25),
        (urllib.error.HTTPError("http://there.test/", 429, "x", said("Retry-After: 7"), None), 7.0),
        (answer(500), 0.25),
        (answer(409), 0.25),
        (RateLimited("x", rule="r", retry_after_ms=1500), 1.5),
        (UpstreamUnreachable("x"), 0.25),
        (spent("rate_limit_exceeded"), 0.25),
        (httpx2.ConnectError("x"), 0.25),
    ],
)
async def test_what_the_other_side_says_is_waited_for(error: Exception, wait: float, heard: Heard) -> None:
    assert await retry(Flaky(error))() == "done"
    assert heard.waits == [wait]


async def test_it_is_waited_for_as_long_as_the_author_allows(heard: Heard) -> None:
    assert await retry(most=120)(Flaky(answer(429, retry_after="60")))() == "done"
    assert heard.waits == [60.0]


@pytest.mark.parametrize(
    "error",
    [
        answer(400),
        answer(401),
        answer(404),
        answer(429, x_should_retry="false"),
        answer(503, retry_after=LATER),
        answer(429, retry_after="31"),
        InvalidParameter("x"),
        BudgetSpent("x", rule="r", retry_after_ms=10),
        RateLimited("x", rule="r", retry_after_ms=31_000),
        spent("insufficient_quota"),
    ],
)
async def test_what_will_not_get_better_is_not_tried_again(error: Exception, heard: Heard) -> None:
    flaky = Flaky(error)
    with pytest.raises(Exception, match="x") as raised:
        await retry(flaky)()
    assert (raised.value, flaky.calls, heard.waits) == (error, 1, [])
    assert isinstance(error, GatewayError | httpx2.HTTPStatusError | openai.APIStatusError)


async def test_a_stream_is_begun_again_until_it_has_yielded() -> None:
    begun: list[int] = []

    @retry(base=0)
    async def stream(first: int) -> AsyncIterator[int]:
        begun.append(1)
        if len(begun) < first:
            raise ConnectionError
        yield 1
        if first > 1:
            raise ConnectionError

    assert [item async for item in stream(1)] == [1]
    begun.clear()
    items = stream(2)
    assert await anext(items) == 1
    with pytest.raises(ConnectionError):
        await anext(items)
    assert len(begun) == 2


@pytest.mark.parametrize("members", [{"attempts": 0}, {"base": -1.0}, {"most": -1.0}])
def test_nonsense_is_refused_where_it_stands(members: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected attempts"):
        retry(**members)  # type: ignore[call-overload]  # as an author may


@pytest.mark.parametrize("on", [[ValueError], ValueError(), (ValueError, "x"), "ValueError", int])
def test_what_can_be_no_error_is_refused_where_it_stands(on: object) -> None:
    with pytest.raises(TypeError, match="expected 'on' to be"):
        retry(on=on)  # type: ignore[call-overload]  # as an author may
