"""The periods of candles: when each begins and ends.

1. Seconds, minutes and hours begin as in UTC. A day begins at 00:00 UTC, or by `offset` earlier or later; three days
   count from 1970-01-01, weeks begin on Monday, months on their first day.
2. Times are in ms since 1970. The next period begins a ms behind the end of the one before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta

from marketfeed.model.kinds.kline import INTERVALS

__all__ = ["Calendar", "parse_offset"]

_MINUTE = 60_000
_DAY = 86_400_000
_UNITS = {"s": 1000, "m": _MINUTE, "h": 60 * _MINUTE, "d": _DAY}
_WEEK = 7 * _DAY
_MONDAY = 4 * _DAY
"""1970-01-05 was the first one."""
_EPOCH = date(1970, 1, 1)
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")
_LARGEST_OFFSET = 14 * 60


def parse_offset(text: str) -> int:
    """How much earlier than in UTC a day begins, in ms: what ``+05:30`` says, a clock that is ahead.

    Raises ValueError, with what would be accepted.
    """
    if text == "0":
        return 0
    found = _OFFSET.fullmatch(text)
    minutes = int(found[2]) * 60 + int(found[3]) if found and int(found[3]) < 60 else _LARGEST_OFFSET + 1
    if found is None or minutes > _LARGEST_OFFSET:
        raise ValueError("an offset from UTC from -14:00 to +14:00, such as +05:30")
    return (-1 if found[1] == "-" else 1) * minutes * _MINUTE


class Calendar:
    """All periods. `offset`: how much earlier than in UTC days begin, in ms."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset

    def start(self, interval: str, time: int) -> int:
        """When the period of this interval began in which `time` is."""
        if interval == "1M":
            return _ms_of(_day_of(time + self.offset).replace(day=1)) - self.offset
        return self.starts(interval)(time)

    def next(self, interval: str, start: int) -> int:
        """When the period begins that follows the one that began at `start`."""
        if interval != "1M":
            return start + _LENGTHS[interval][0]
        first = _day_of(start + self.offset)
        return _ms_of((first + timedelta(days=32)).replace(day=1)) - self.offset

    def before(self, interval: str, start: int, count: int) -> int:
        """When the period began that was `count` periods before the one that began at `start`."""
        if interval != "1M":
            return start - count * _LENGTHS[interval][0]
        first = _day_of(start + self.offset)
        months = first.year * 12 + first.month - 1 - count
        return _ms_of(date(max(1, months // 12), months % 12 + 1, 1)) - self.offset

    def starts(self, interval: str) -> Callable[[int], int]:
        """`start` for one interval, made quick."""
        if interval == "1M":
            return lambda time: self.start("1M", time)
        length, origin = _LENGTHS[interval]
        shift = (self.offset if length >= _DAY else 0) - origin
        return lambda time: time - (time + shift) % length


def _day_of(local: int) -> date:
    return _EPOCH + timedelta(days=local // _DAY)


def _ms_of(day: date) -> int:
    return (day - _EPOCH).days * _DAY


def _length(interval: str) -> tuple[int, int]:
    """The ms of a period, and when one began."""
    if interval == "1w":
        return _WEEK, _MONDAY
    return int(interval[:-1]) * _UNITS[interval[-1]], 0


_LENGTHS = {interval: _length(interval) for interval in INTERVALS if interval != "1M"}
