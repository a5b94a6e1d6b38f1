"""When an upstream says to come again, in every form it is said in the field, and in none."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agw_proxy.policy.retry_after import MAX_WAIT_MS, told_ms, wait_ms

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def wait(**headers: str) -> int | None:
    return wait_ms([(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()], NOW)


def in_seconds(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("1", 1000),
        (" 2 ", 2000),
        ("0.25", 250),
        ("30", MAX_WAIT_MS),
        ("200", MAX_WAIT_MS),
        (in_seconds(7), 7000),
        (in_seconds(0), 0),
        (in_seconds(-3600), 0),
        (in_seconds(86_400), MAX_WAIT_MS),
        ("Sat, 21 Nov 2026 14:00:05 +0200", 5000),
        ("Sat, 21 Nov 2026 12:00:05 -0000", 5000),
    ],
)
def test_seconds_and_dates_are_read_and_bounded(value: str, expected: int) -> None:
    assert wait(retry_after=value) == expected


@pytest.mark.parametrize(
    "value", ["", "soon", "-5", "1e9", "NaN", "inf", "5 s", "0x10", "1,5", "Sat, 99 Nov 2026", "\xb2", "9" * 40]
)
def test_rubbish_says_nothing(value: str) -> None:
    assert wait(retry_after=value) is None
    assert wait(retry_after_ms=value) is None


def test_milliseconds_are_finer_than_seconds_and_win() -> None:
    assert wait(retry_after_ms="120", retry_after="9") == 120
    assert wait(retry_after_ms="120.6") == 121
    assert wait(retry_after_ms="999999999") == MAX_WAIT_MS
    assert wait(retry_after_ms="rubbish", retry_after="9") == 9000


def test_names_count_in_any_case() -> None:
    assert wait_ms([(b"Retry-After", b"3")], NOW) == 3000


@pytest.mark.parametrize(
    ("reset", "expected"),
    [("1s", 1000), ("250ms", 250), ("1m2.5s", MAX_WAIT_MS), ("6m0s", MAX_WAIT_MS), ("1.5", 1500), ("0s", 0)],
)
def test_the_reset_of_what_has_run_out_counts(reset: str, expected: int) -> None:
    assert wait(x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests=reset) == expected
    assert wait(x_ratelimit_remaining_tokens="0", x_ratelimit_reset_tokens=reset) == expected


@pytest.mark.parametrize(
    ("ahead", "expected"), [(7, 7000), (0, 0), (-60, 0), (3600, MAX_WAIT_MS)], ids=["soon", "now", "past", "far"]
)
def test_the_reset_may_be_a_time_since_1970(ahead: int, expected: int) -> None:
    seconds = int(NOW.timestamp()) + ahead
    for text in (f"{seconds}", f"{seconds}.0", f"{seconds}000"):
        assert wait(x_ratelimit_remaining_tokens="0", x_ratelimit_reset_tokens=text) == expected


def test_of_two_that_have_run_out_the_later_counts() -> None:
    found = wait(
        x_ratelimit_remaining_requests="0",
        x_ratelimit_reset_requests="2s",
        x_ratelimit_remaining_tokens="0",
        x_ratelimit_reset_tokens="9s",
    )
    assert found == 9000


@pytest.mark.parametrize("left", ["1", "", "none"])
def test_the_reset_of_what_is_left_says_nothing(left: str) -> None:
    assert wait(x_ratelimit_remaining_requests=left, x_ratelimit_reset_requests="2s") is None
    assert wait(x_ratelimit_reset_requests="2s") is None


@pytest.mark.parametrize("reset", ["", "later", "1x", "s", "1s2", "-1s", "1 s"])
def test_a_reset_that_cannot_be_read_says_nothing(reset: str) -> None:
    assert wait(x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests=reset) is None


NAMES = st.sampled_from(
    [b"retry-after", b"Retry-After-Ms", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens", b"other"]
)
DATES = st.builds(
    "{} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Sat, 1 Jan", "1 Feb", "31 Feb", "0 Jan", "Mon,", "9999 Dec", "31 Dec"]),
    st.integers(-1, 20000),
    st.sampled_from(["", "AD"]),
    st.integers(-1, 99),
    st.integers(-1, 99),
    st.integers(-1, 99),
    st.sampled_from(["GMT", "+9999", "-9999", "+99999999999", "EST", "", "-0000"]),
).map(lambda text: text.replace("  ", " ").encode())
PLAIN_DATES = st.datetimes().map(lambda when: format_datetime(when).encode())
VALUES = st.one_of(st.binary(max_size=40), DATES, PLAIN_DATES, st.sampled_from([b"0", b"1s", b"9" * 9, b"\xb3"]))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
@example([(b"retry-after", b"Mon, 1 Jan 0001 00:00:00 +2359")])
@example([(b"retry-after", b"Fri, 31 Dec 9999 23:59:59 -2359")])
@example([(b"retry-after", b"\x00")])
def test_nothing_an_upstream_says_raises_or_leaves_the_bounds(headers: list[tuple[bytes, bytes]]) -> None:
    found = wait_ms(headers, NOW)
    assert found is None or 0 <= found <= MAX_WAIT_MS


@pytest.mark.parametrize(
    ("delay", "expected"),
    [("2s", 2000), ("0.1234s", 123), ("9999s", MAX_WAIT_MS), ("-1s", None), ("2", None), ("1m", None), ("", None)],
)
def test_googles_errors_say_it_in_their_details(delay: str, expected: int | None) -> None:
    told = b'{"error": {"details": [{"@type": "type.googleapis.com/google.rpc.%s", "retryDelay": "%s"}]}}'
    assert told_ms(told % (b"RetryInfo", delay.encode())) == expected
    assert told_ms(told % (b"Help", delay.encode())) is None
