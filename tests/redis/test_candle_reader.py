"""Candles and the last 24 hours, read from what the service keeps: whole, in order, and only while a service works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed

from marketfeed.model.candle_store import CandleKeys, Row
from marketfeed.model.candles import MarketCandles
from marketfeed.model.intervals import Calendar
from marketfeed.redis.candle_reader import CandleReader
from marketfeed.redis.commands import OutOfReach
from tests.model.test_candles import trade
from tests.strategies import property_test

MINUTE = 60_000
BEGIN = 28_333_333 * MINUTE
KEYS = CandleKeys("p:")
TICKER = {**dict.fromkeys("pPwxcQohlvq", "1"), **dict.fromkeys("OCFLn", 1), "s": "A"}


class Kept:
    """What Redis has, for those who ask as the reader does. `rows`: closed minutes; `asked`: the commands."""

    def __init__(self, rows: Mapping[int, Row], newest: int | None, tickers: Mapping[str, Any] | None = None) -> None:
        self.has_leader = True
        self.is_away = False
        self.asked: list[str] = []
        self._rows = sorted(rows.items())
        self._tickers: dict[str, bytes] = {}
        for name, ticker in (tickers or {}).items():
            self.write(name, ticker)
        self._state: list[bytes | None] = [None, None]
        if newest is not None:
            candles = MarketCandles(Calendar(), MINUTE)
            candles.take(trade(1, newest, "7"), newest)
            self._state = [msgspec.json.encode(each) for each in (candles.written(), candles.unwritten())]

    def write(self, market: str, ticker: Any) -> None:
        self._tickers[market] = msgspec.json.encode(ticker)

    def place_of(self, key: bytes) -> object:
        raise AssertionError

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        name, *rest = words
        self.asked.append(str(name))
        if self.is_away:
            return fail(OutOfReach("away"))
        match name, rest:
            case "EXISTS", ["p:lease:candles"]:
                return succeed(int(self.has_leader))
            case "HMGET", ["p:candles:{A}:state", "candles", "longer"]:
                return succeed(self._state)
            case "HGET", ["p:candles:tickers", market]:
                return succeed(self._tickers.get(str(market)))
            case "HGETALL", ["p:candles:tickers"]:
                return succeed([word for name, ticker in self._tickers.items() for word in (name.encode(), ticker)])
            case "ZRANGEBYSCORE", ["p:candles:{A}:1m", first, last, "WITHSCORES", "LIMIT", 0, count]:
                end = float("inf") if last == "+inf" else float(last)
                found = [(start, row) for start, row in self._rows if float(first) <= start <= end]
                return succeed(_with_scores(found if count == -1 else found[: int(count)]))
            case "ZREVRANGEBYSCORE", ["p:candles:{A}:1m", str(first), "-inf", "WITHSCORES", "LIMIT", 0, 1]:
                assert first.startswith("(")
                found = [(start, row) for start, row in self._rows if start < float(first[1:])]
                return succeed(_with_scores(found[-1:]))
        raise AssertionError(words)


def _with_scores(found: list[tuple[int, Row]]) -> list[bytes]:
    return [word for start, row in found for word in (row.to_bytes(), str(start).encode())]


def reader(kept: Kept, now: int = BEGIN) -> CandleReader:
    return CandleReader(kept, KEYS, Calendar(), lambda: now / 1000)


def answer(coroutine: Any) -> Any:
    answers: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallback(answers.append)
    (found,) = answers
    return found


def row(minute: int) -> Row:
    start, price = BEGIN + minute * MINUTE, str(100 + minute)
    return Row(start, price, price, price, price, "5", start + MINUTE - 1, "6", 2, "1", "2")


minutes = st.integers(-3, 45)
times = st.none() | st.builds(
    lambda minute, more: BEGIN + minute * MINUTE + more, minutes, st.sampled_from((0, 1, 59_999))
)


@property_test
@given(st.sets(st.integers(0, 30)), st.integers(31, 40), times, times, st.integers(1, 50))
def test_any_candles(closed: set[int], newest: int, start: int | None, end: int | None, limit: int) -> None:
    """From the first one to that of now none is missing; those without trades are flat, at the price before them."""
    whole: list[Row] = []
    for minute in range(min(closed, default=newest), newest + 1):
        at = BEGIN + minute * MINUTE
        whole.append(row(minute) if minute in closed else whole[-1].flat(at, at + MINUTE - 1) if whole else row(minute))
    at = BEGIN + newest * MINUTE
    whole[-1] = Row(at, "7", "7", "7", "7", "1", at + MINUTE - 1, "7", 1, "1", "7")
    wanted = [each for each in whole if (start or 0) <= each.open_time <= (at if end is None else end)]
    expected = wanted[-limit:] if start is None else wanted[:limit]
    kept = Kept({BEGIN + minute * MINUTE: row(minute) for minute in closed}, at)
    assert answer(reader(kept, at).klines("A", "1m", start, end, limit)) == expected


def test_a_market_without_trades_has_none() -> None:
    """And one of which nobody knows, while nobody makes any, is not told of."""
    kept = Kept({}, None)
    assert answer(reader(kept).klines("A", "1m", None, None, 5)) == []
    kept.has_leader = False
    assert answer(reader(kept).klines("A", "1m", None, None, 5)) is None
    kept.has_leader, kept.is_away = True, True
    assert answer(reader(kept).klines("A", "1m", None, None, 5)) is None


def test_the_last_day_of_all() -> None:
    """Read once a second, without what is no ticker; not told while nobody makes any."""
    kept = Kept({}, None, {"A": TICKER, "B": [1], "C": {"c": "1"}})
    reads = reader(kept)
    days = answer(reads.days())
    assert {market: day["c"] for market, day in days.items()} == {"A": b'"1"'}
    assert answer(reads.days()) is days
    assert kept.asked.count("HGETALL") == 1
    kept.has_leader = False
    assert answer(reader(kept).days()) is None
    kept.is_away = True
    assert answer(reader(kept).days()) is None


def test_what_tickers_are_made_whole_with() -> None:
    """Of one market, read as it is asked for and not for every ticker; nothing of one that is not known, or is old."""
    kept = Kept({}, None, {"A": TICKER})
    reads = reader(kept)
    for _ in range(3):
        reads.of("A")
    assert reads.of("A")["h"] == b'"1"'
    assert reads.of("B") == {}
    assert kept.asked == ["EXISTS", "HGET", "EXISTS", "HGET"]
    kept.has_leader = False
    assert reader(kept).of("A") == {}
    kept.is_away = True
    assert reader(kept).of("A") == {}


def test_a_market_that_tickers_were_made_whole_of_makes_no_other_late() -> None:
    """All are read when they are asked for, however lately one was."""
    kept = Kept({}, None, {"A": TICKER})
    reads = reader(kept)
    reads.of("A")
    kept.write("B", {**TICKER, "s": "B"})
    assert answer(reads.days()).keys() == {"A", "B"}
