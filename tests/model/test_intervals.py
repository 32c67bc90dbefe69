"""The periods of candles: they follow one another without a hole, and begin where a calendar says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.intervals import Calendar, parse_offset
from marketfeed.model.kinds.kline import INTERVALS
from tests.strategies import property_test

MINUTE = 60_000
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: minutes * MINUTE)
times = st.integers(0, 4_000_000_000_000)
intervals = st.sampled_from(INTERVALS)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@property_test
@given(intervals, times, offsets)
def test_each_moment_is_in_one_period(interval: str, time: int, offset: int) -> None:
    """Which begins at it or before, and ends behind it; the next one begins where this one ends."""
    calendar = Calendar(offset)
    start = calendar.start(interval, time)
    end = calendar.next(interval, start)
    assert start <= time < end
    assert (
        start == calendar.start(interval, start) == calendar.start(interval, end - 1) == calendar.starts(interval)(time)
    )
    assert calendar.start(interval, end) == end
    assert calendar.before(interval, end, 1) == start
    assert calendar.before(interval, start, 0) == start
    two = calendar.before(interval, start, 2)
    assert calendar.next(interval, calendar.next(interval, two)) == start


@property_test
@given(times, offsets)
def test_days_and_what_they_make_begin_as_a_calendar_says(time: int, offset: int) -> None:
    """At midnight there: days, the Mondays of weeks, the firsts of months, every third day since 1970."""
    calendar, zone = Calendar(offset), timezone(timedelta(milliseconds=offset))
    for interval in ("1d", "3d", "1w", "1M"):
        start = datetime.fromtimestamp(calendar.start(interval, time) / 1000, zone)
        assert (start.hour, start.minute, start.second, start.microsecond) == (0, 0, 0, 0)
        days = (start.date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days
        assert {"1d": True, "3d": days % 3 == 0, "1w": start.weekday() == 0, "1M": start.day == 1}[interval]


@pytest.mark.parametrize(
    ("interval", "time", "start", "end"),
    [
        ("1s", "2026-11-28T10:20:30.999+00:00", "2026-11-28T10:20:30+00:00", "2026-11-28T10:20:31+00:00"),
        ("15m", "2026-11-28T10:20:30+00:00", "2026-11-28T10:15:00+00:00", "2026-11-28T10:30:00+00:00"),
        ("4h", "2026-11-28T10:20:30+00:00", "2026-11-28T08:00:00+00:00", "2026-11-28T12:00:00+00:00"),
        ("1w", "2026-11-29T23:59:59+00:00", "2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00"),
        ("1M", "2028-02-29T12:00:00+00:00", "2028-02-01T00:00:00+00:00", "2028-03-01T00:00:00+00:00"),
        ("1M", "2026-12-31T23:59:59+00:00", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
        ("3d", "1970-01-04T00:00:00+00:00", "1970-01-04T00:00:00+00:00", "1970-01-07T00:00:00+00:00"),
    ],
)
def test_some_periods(interval: str, time: str, start: str, end: str) -> None:
    """By the UTC."""
    found = Calendar().start(interval, ms(time))
    assert (found, Calendar().next(interval, found)) == (ms(start), ms(end))


def test_a_day_of_another_place() -> None:
    """Where the clock is ahead it begins before that of UTC. Hours begin as they do anywhere."""
    calendar = Calendar(parse_offset("+05:30"))
    noon = ms("2026-11-28T12:00:00+05:30")
    assert calendar.start("1d", noon) == ms("2026-11-28T00:00:00+05:30")
    assert calendar.start("1h", noon) == ms("2026-11-28T06:00:00+00:00")
    assert calendar.start("12h", noon) == ms("2026-11-28T00:00:00+00:00")
    assert calendar.start("1M", noon) == ms("2026-11-01T00:00:00+05:30")


@pytest.mark.parametrize("text", ["", "5", "+5:30", "+05:60", "+14:01", "05:30", "+05:30 ", "+0530", "UTC"])
def test_what_is_no_offset(text: str) -> None:
    """The error says what is."""
    with pytest.raises(ValueError, match=r"such as \+05:30"):
        parse_offset(text)


def test_offsets() -> None:
    """Both signs."""
    assert [parse_offset(text) for text in ("+00:00", "-00:30", "+14:00")] == [0, -30 * MINUTE, 14 * 60 * MINUTE]
