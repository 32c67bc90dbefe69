"""The last 24 hours against a plain reference, at any moment, with late trades and restarts."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.candle_store import Row
from marketfeed.model.candles import MarketCandles
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.mini_ticker import MINI_TICKER
from marketfeed.model.publications import PublicationReader
from marketfeed.model.statistics import DAY_MS, MINUTE_MS, DayStatistics, mini_ticker
from marketfeed.model.streams import StreamKinds
from tests.model.test_candles import LATE, MONTH_END, trade
from tests.strategies import property_test

prices = st.integers(1, 30).map(str)
acts = st.lists(
    st.tuples(
        st.sampled_from((0, 1000, 59_000, MINUTE_MS, 5 * MINUTE_MS, 3_600_000, DAY_MS - MINUTE_MS, DAY_MS)),
        st.sampled_from((0, 0, 0, -61_000, -5 * MINUTE_MS, -LATE)),
        prices,
        prices,
        st.sampled_from(("", "", "write", "restart")),
    ),
    max_size=20,
)


class Kept:
    """Candles, their rows, and the statistics, as the service brings them together."""

    def __init__(self) -> None:
        self.candles = MarketCandles(Calendar(), LATE)
        self.day = DayStatistics()
        self.rows: dict[int, Row] = {}
        self.hours: dict[str, dict[str, int]] = {}

    def settle(self, now: int) -> None:
        self.candles.pass_time(now)
        for interval, candle in self.candles.closed:
            if interval == "1m":
                self.rows[candle.start] = candle.row()
                self.day.close(candle.row(), candle.first)
        for (interval, start), candle in self.candles.late.items():
            if interval == "1m":
                row = self.rows.get(start)
                self.rows[start] = candle.row() if row is None else candle.amended(row)
                self.day.amend(candle)
        self.candles.closed.clear()
        self.candles.late.clear()
        self.day.pass_time(now)

    def write(self) -> None:
        changed, gone = self.day.unwritten()
        self.hours |= json.loads(json.dumps(changed))
        for hour in gone:
            self.hours.pop(str(hour), None)

    def restart(self, now: int) -> None:
        self.write()
        hours = {int(hour): {int(at): each for at, each in firsts.items()} for hour, firsts in self.hours.items()}
        since = now - now % MINUTE_MS - DAY_MS + MINUTE_MS
        rows = [row for start, row in sorted(self.rows.items()) if start >= since]
        self.day = DayStatistics.read(rows, hours, self.day.close_before)

    def ticker(self, now: int) -> dict[str, Any]:
        assert self.candles.last is not None
        return self.day.ticker("A", now, self.candles.last, self.candles.present("1m"))


@property_test
@given(acts)
def test_any_day(acts: list[Any]) -> None:
    """Sums to the last digit, extremes, the first price, how many."""
    kept, trades, came = Kept(), list[Any](), MONTH_END
    newest = -1
    for number, (step, skew, price, quantity, act) in enumerate(acts, 1):
        came += step
        one = trade(number, came + skew, price, quantity)
        second = one.time - one.time % 1000
        is_closed = newest + 1000 <= came - came % MINUTE_MS  # by the clock
        is_late = second < newest or (second == newest and is_closed)
        newest = max(newest, second)
        kept.settle(came - came % MINUTE_MS)
        assert kept.candles.take(one, came) is None
        trades.append((one, is_late))
        kept.settle(came - came % MINUTE_MS)
        if act == "write":
            kept.write()
        elif act:
            kept.restart(came)
        since = came - came % MINUTE_MS - DAY_MS + MINUTE_MS
        day = [each for each, _ in trades if each.time >= since]
        found = kept.ticker(came)
        assert Fraction(found["v"]) == sum(Fraction(each.quantity) for each in day)
        assert Fraction(found["q"]) == sum(Fraction(each.quantity) * Fraction(each.price) for each in day)
        assert found["n"] == len(day)
        last = next(each for each, late in reversed(trades) if not late)
        minute = min((each.time // MINUTE_MS for each in day), default=-1)
        assert found["F"] == next((each.number for each in day if each.time // MINUTE_MS == minute), -1)
        assert (found["c"], found["Q"], found["O"], found["C"]) == (last.price, last.quantity, since, came)
        assert Decimal(found["h"]) == max([Decimal(each.price) for each in day] or [last.at])
        assert Decimal(found["l"]) == min([Decimal(each.price) for each in day] or [last.at])
        assert Decimal(found["p"]) == last.at - Decimal(found["o"])


def test_without_trades_for_a_day() -> None:
    """All prices are the last one, and sums are 0."""
    kept = Kept()
    kept.candles.take(trade(1, 0, "5.50", "2"), 0)
    kept.candles.take(trade(2, 1000, "6.50", "2"), 1000)
    assert kept.ticker(2000) | {"P": "", "w": ""} == {
        "e": "24hrTicker", "E": 2000, "s": "A", "p": "1.00", "P": "", "w": "", "x": "5.50", "c": "6.50", "Q": "2",
        "o": "5.50", "h": "6.50", "l": "5.50", "v": "4", "q": "24.00", "O": MINUTE_MS - DAY_MS, "C": 2000, "F": 1,
        "L": 2, "n": 2,
    }  # fmt: skip
    assert (kept.ticker(2000)["P"], kept.ticker(2000)["w"]) == ("18.182", "6.00000000")
    kept.settle(2 * DAY_MS)
    found = kept.ticker(2 * DAY_MS)
    assert [found[field] for field in "ohlcx"] == ["6.50"] * 5
    assert (found["v"], found["q"], found["n"], found["P"], found["F"], found["L"]) == ("0", "0", 0, "0.000", -1, -1)


def test_the_small_one() -> None:
    """As its kind requires."""
    kept = Kept()
    kept.candles.take(trade(1, 0, "5.50", "2"), 0)
    data = json.dumps(mini_ticker(kept.ticker(1))).encode()
    name = StreamKinds((MINI_TICKER,)).parse("miniTicker@A")
    assert PublicationReader(name, ("miniTicker@A",), 1 << 20).read(data) == data
    assert set(json.loads(data)) == set("eEscohlvq")


def test_little_is_kept_of_each_minute() -> None:
    """Of a thousand markets it is 1,440,000 minutes."""
    day = DayStatistics()
    for minute in range(1440):
        price = str(10_000 + minute % 7)
        day.close(Row(minute * MINUTE_MS, price, price, price, price, "1.5", 0, "2.5", 1, "0", "0"), minute)
    assert max(map(len, day._kept)) < 64
    assert len(day._highest._prices) + len(day._lowest._prices) < 20
    changed, gone = day.unwritten()
    assert (len(changed), gone) == (24, [])
    price = "10000"
    day.close(Row(DAY_MS, price, price, price, price, "1.5", 0, "2.5", 1, "0", "0"), 1440)
    day.pass_time(DAY_MS)
    assert day.unwritten() == ({24: {DAY_MS: 1440}}, [])
    day.pass_time(DAY_MS + 3_600_000)
    assert day.unwritten() == ({}, [0])


def row(minute: int, price: str, volume: str) -> Row:
    start = MONTH_END + minute * MINUTE_MS
    return Row(start, price, price, price, price, volume, start + MINUTE_MS - 1, volume, 1, "0", "0")


def test_a_minute_closes_behind_others_that_were_filled_in() -> None:
    """As after a back-fill of a time without a service: it has its place, and leaves in its turn; what was filled in of
    itself is replaced.
    """
    now = MONTH_END + 30 * MINUTE_MS
    day = DayStatistics.read([row(minute, "10", "1") for minute in (0, 2, 3, 4)], {}, None)
    day.close(row(1, "20", "5"), 7)
    day.close(row(2, "11", "2"), 8)
    day.pass_time(now)
    found = day.ticker("A", now, trade(9, now), None)
    assert [found[name] for name in ("o", "h", "l", "v", "n")] == ["10", "20", "10", "10", 5]
    later = MONTH_END + DAY_MS + MINUTE_MS
    day.pass_time(later)
    found = day.ticker("A", later, trade(9, now), None)
    assert [found[name] for name in ("F", "o", "h", "v", "n", "x")] == [8, "11", "11", "4", 3, "20"]
