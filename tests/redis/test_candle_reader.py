"""Candles and the last 24 hours, read from what the service keeps: whole, in order, and only while a service works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed

from marketfeed.model.candle_store import CandleKeys, Row
from marketfeed.model.candles import MarketCandles
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.redis.candle_reader import CandleReader
from marketfeed.redis.commands import OutOfReach
from tests.model.test_candles import trade
from tests.strategies import property_test

MINUTE = 60_000
BEGIN = 1_706_140_800_000  # 2024-01-25
KEYS = CandleKeys("p:")
TICKER = {**dict.fromkeys("pPwxcQohlvq", "1"), **dict.fromkeys("OCFLn", 1), "s": "A"}


class Kept:
    """What Redis has, for those who ask as the reader does. `rows`: closed candles of A, of one interval; `state`: its
    candles that are open; `asked`: the commands.
    """

    def __init__(
        self,
        rows: Mapping[int, Row | bytes] = MappingProxyType({}),
        state: Sequence[bytes | None] = (None, None),
        tickers: Mapping[str, Any] = MappingProxyType({}),
        interval: str = "1m",
    ) -> None:
        self.has_leader = True
        self.is_away = False
        self.asked: list[str] = []
        self.waiting: list[tuple[Deferred[Any], Any]] | None = None
        self._key = f"p:candles:{{A}}:{interval}"
        self._rows = sorted(rows.items())
        self._state = state
        self._tickers: dict[str, bytes] = {}
        for name, ticker in tickers.items():
            self.write(name, ticker)

    def write(self, market: str, ticker: Any) -> None:
        self._tickers[market] = msgspec.json.encode(ticker)

    def place_of(self, key: bytes) -> object:
        raise AssertionError

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        name, *rest = words
        self.asked.append(str(name))
        if self.is_away:
            return fail(OutOfReach("away"))
        found = self._found(name, rest, words)
        if self.waiting is None:
            return found
        late = Deferred[Any]()
        self.waiting.append((late, found.result))
        return late

    def _found(self, name: object, rest: list[Any], words: object) -> Deferred[Any]:
        match name, rest:
            case "EXISTS", ["p:lease:candles"]:
                return succeed(int(self.has_leader))
            case "HMGET", ["p:candles:{A}:state", "candles", "longer"]:
                return succeed(list(self._state))
            case "HGET", ["p:candles:tickers", market]:
                return succeed(self._tickers.get(str(market)))
            case "HGETALL", ["p:candles:tickers"]:
                return succeed([word for name, ticker in self._tickers.items() for word in (name.encode(), ticker)])
            case "ZRANGEBYSCORE", [key, first, last, "WITHSCORES", "LIMIT", at, count] if key == self._key:
                found = [(start, row) for start, row in self._rows if float(first) <= start <= float(last)]
                return succeed(_with_scores(found if count == -1 else found[at : at + count]))
            case "ZREVRANGEBYSCORE", [key, str(first), "-inf", "WITHSCORES", "LIMIT", at, count] if key == self._key:
                assert first.startswith("(")
                found = [(start, row) for start, row in self._rows if start < float(first[1:])]
                return succeed(_with_scores(found[::-1][at : at + count]))
        raise AssertionError(words)


def _with_scores(found: Sequence[tuple[int, Row | bytes]]) -> list[bytes]:
    return [
        word for start, row in found for word in (row.to_bytes() if isinstance(row, Row) else row, str(start).encode())
    ]


def reader(kept: Kept, now: int = BEGIN) -> CandleReader:
    return CandleReader(kept, KEYS, Calendar(), lambda: now / 1000)


def answer(coroutine: Any) -> Any:
    answers: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallback(answers.append)
    (found,) = answers
    return found


def state(time: int, price: str, now: int, calendar: Calendar) -> list[bytes]:
    """What the service writes at `now` of a market whose last trade was at `time`."""
    candles = MarketCandles(calendar, 0)
    candles.take(trade(1, time, price), time)
    candles.pass_time(now)
    return [msgspec.json.encode(each) for each in (candles.written(), candles.unwritten())]


def row(start: int, end: int, price: str, volume: str, trades: int) -> Row:
    return Row(start, price, price, price, price, volume, end - 1, volume, trades, volume, volume)


@property_test
@given(
    st.sampled_from(INTERVALS),
    st.sampled_from((0, 330 * MINUTE, -60 * MINUTE)),
    st.sets(st.integers(0, 12)),
    st.integers(13, 16),
    st.booleans(),
    st.data(),
    st.integers(1, 20),
)
def test_any_candles(
    interval: str, offset: int, closed: set[int], newest: int, is_open: bool, data: st.DataObject, limit: int
) -> None:
    """From the first one to that of now none is missing, whatever is asked for. Those without trades are flat, at the
    price before them; no two of them overlap, and none is between them.
    """
    calendar = Calendar(offset)
    starts = [calendar.start(interval, BEGIN)]
    while len(starts) < newest + 4:
        starts.append(calendar.next(interval, starts[-1]))
    now = starts[newest] + 500
    rows = {at: row(starts[at], starts[at + 1], str(100 + at), "5", 2) for at in closed}
    if is_open:
        written = state(now, "7", now, calendar)
        rows[newest] = Row(starts[newest], "7", "7", "7", "7", "1", starts[newest + 1] - 1, "7", 1, "1", "7")
    else:
        last = max(closed, default=0)  # nothing is kept of what is older than `--keep` says
        written = state(starts[last], str(100 + last), now, calendar)
    whole: list[Row] = []
    for at in range(min(rows, default=newest), newest + 1):
        price = whole[-1].close if whole else "100"
        whole.append(rows.get(at) or row(starts[at], starts[at + 1], price, "0", 0))
    assert all(before.close_time + 1 == after.open_time for before, after in pairwise(whole))

    # As somebody asks who counts in µs, too.
    times = (
        st.none()
        | st.sampled_from((0, 9_999_999_999_999_999))
        | st.builds(lambda at, more: starts[at] + more, st.integers(0, newest + 3), st.sampled_from((-1, 0, 1)))
    )
    start, end = data.draw(times), data.draw(times)
    wanted = [each for each in whole if (start or 0) <= each.open_time <= (now if end is None else end)]
    kept = Kept({starts[at]: rows[at] for at in closed}, written, interval=interval)
    reads = CandleReader(kept, KEYS, calendar, lambda: now / 1000)
    found = answer(reads.klines("A", interval, start, end, limit))
    assert found == (wanted[-limit:] if start is None else wanted[:limit])


@pytest.mark.parametrize("interval", INTERVALS)
def test_times_far_away(interval: str) -> None:
    """Nothing begins there: no fault of who asks."""
    kept = Kept(state=state(BEGIN, "7", BEGIN, Calendar()), interval=interval)
    first = Calendar().start(interval, BEGIN)
    for start, end, found in (
        (10**16 - 1, None, 0),
        (None, 10**16 - 1, 1),
        (0, 10**16 - 1, 1),
        (0, 0, 0),
        (None, 0, 0),
    ):
        rows = answer(reader(kept).klines("A", interval, start, end, 1000))
        assert [each.open_time for each in rows] == [first] * found


def test_a_market_without_trades_has_none() -> None:
    """And one of which nobody knows, while nobody makes any, is not told of."""
    kept = Kept()
    assert answer(reader(kept).klines("A", "1m", None, None, 5)) == []
    kept.has_leader = False
    assert answer(reader(kept).klines("A", "1m", None, None, 5)) is None
    kept.has_leader, kept.is_away = True, True
    assert answer(reader(kept).klines("A", "1m", None, None, 5)) is None


def test_the_last_day_of_all() -> None:
    """Read once a second, without what is no ticker; not told while nobody makes any."""
    kept = Kept(tickers={"A": TICKER, "B": [1], "C": {"c": "1"}})
    reads = reader(kept)
    days = answer(reads.days())
    assert {market: day["c"] for market, day in days.items()} == {"A": b'"1"'}
    assert answer(reads.days()) is days
    assert kept.asked.count("HGETALL") == 1
    kept.has_leader = False
    assert answer(reader(kept).days()) is None
    kept.is_away = True
    assert answer(reader(kept).days()) is None


def test_the_last_day_of_one() -> None:
    """Read by itself, once a second; a market without trades is another thing than that nobody makes any."""
    kept = Kept(tickers={"A": TICKER, "B": [1]})
    reads = reader(kept)
    assert [answer(reads.day("A"))["c"] for _ in range(2)] == [b'"1"', b'"1"']
    assert [answer(reads.day(market)) for market in "BC"] == [{}, {}]
    assert kept.asked == ["EXISTS", "HGET"] * (1 + 2 + 2)
    kept.has_leader = False
    assert answer(reader(kept).day("A")) is None
    kept.is_away = True
    assert answer(reader(kept).day("A")) is None


def test_a_market_that_is_new() -> None:
    """It is there for who asks for it, however lately all of them were read."""
    kept = Kept(tickers={"A": TICKER})
    reads = reader(kept)
    assert answer(reads.days()).keys() == {"A"}
    kept.write("B", {**TICKER, "s": "B"})
    assert answer(reads.day("B"))["c"] == b'"1"'


def test_who_is_told_of_a_market_and_asks() -> None:
    """Finds it, though what was read a moment ago, or is being read, says that there is nothing, or no service."""
    kept = Kept()
    reads = reader(kept)
    reads.of("A")
    kept.write("A", TICKER)
    assert answer(reads.day("A"))["c"] == b'"1"'
    kept.has_leader = False
    reads.of("B")
    kept.has_leader = True
    kept.write("B", {**TICKER, "s": "B"})
    kept.waiting = []
    reads.of("C")
    told: list[Any] = []
    for market in "BC":
        Deferred.fromCoroutine(reads.day(market)).addCallback(told.append)
    kept.write("C", {**TICKER, "s": "C"})
    while kept.waiting:
        late, found = kept.waiting.pop(0)
        late.callback(found)
    assert [day["c"] for day in told] == [b'"1"', b'"1"']


def test_who_asks_when_redis_is_back() -> None:
    """It is not told of the failure of a moment ago, which tickers need not know of."""
    now, kept = [0.0], Kept(tickers={"A": TICKER})
    reads = CandleReader(kept, KEYS, Calendar(), lambda: now[0])
    reads.of("A")
    now[0], kept.is_away = 1.0, True
    assert reads.of("A")["h"] == b'"1"'
    kept.is_away = False
    assert answer(reads.day("A"))["h"] == b'"1"'


def test_many_who_ask_at_once() -> None:
    """Redis is asked once for all of them."""
    kept = Kept(tickers={"A": TICKER})
    kept.waiting = []
    reads = reader(kept)
    told: list[Any] = []
    for _ in range(5):
        for asked in (reads.days(), reads.day("A")):
            Deferred.fromCoroutine(asked).addCallback(told.append)
        reads.of("A")
    assert kept.asked == ["EXISTS", "HGETALL", "EXISTS", "HGET"]
    while kept.waiting:
        late, found = kept.waiting.pop(0)
        late.callback(found)
    assert len(told) == 10


def test_what_tickers_are_made_whole_with() -> None:
    """Of one market, read as it is asked for and not for every ticker; nothing of one that is not known, or is old."""
    kept = Kept(tickers={"A": TICKER})
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


def test_what_was_read_a_while_ago() -> None:
    """Is what a ticker is made whole with, until it has been read anew; a failure in between is of no account."""
    now, kept = [0.0], Kept(tickers={"A": TICKER})
    reads = CandleReader(kept, KEYS, Calendar(), lambda: now[0])
    reads.of("A")
    now[0], kept.waiting = 1.0, []
    assert reads.of("A")["h"] == b'"1"'
    assert kept.asked == ["EXISTS", "HGET", "EXISTS", "HGET"]
    for late, _ in list(kept.waiting):
        late.errback(OutOfReach("away"))
    assert reads.of("A")["h"] == b'"1"'


def day_row(time: int) -> Row:
    return Row(time, "5", "6", "4", "5", "10", time + 86_399_999, "50", 3, "1", "5")


@pytest.mark.parametrize("start", [0, BEGIN - 5 * 86_400_000, None])
def test_rubbish_hides_no_candle(start: int | None) -> None:
    """However it stands before them, and between them; what is far ahead does not either."""
    day = 86_400_000
    rubbish = {1000 + number: b"rubbish" for number in range(250)} | {BEGIN - 2 * day + 1: b"[]", 10**17: b"?"}
    rows: dict[int, Row | bytes] = {**rubbish, BEGIN - 3 * day: day_row(BEGIN - 3 * day), 10**18: day_row(10**18)}
    kept = Kept(rows, state(BEGIN + 5, "7", BEGIN + 5, Calendar()), interval="1d")
    found = answer(reader(kept, BEGIN + 5).klines("A", "1d", start, None, 1000))
    assert [row.open_time for row in found] == [BEGIN - 3 * day, BEGIN - 2 * day, BEGIN - day, BEGIN]
    assert [row.trades for row in found] == [3, 0, 0, 1]


@pytest.mark.parametrize("start", [0, None])
def test_days_that_began_at_another_time(start: int | None) -> None:
    """As those do that were kept before `--day-offset` was changed: they are left out, and what is open is there."""
    day, before = 86_400_000, 19_800_000
    rows = {BEGIN - days * day - before: day_row(BEGIN - days * day - before) for days in (3, 2)}
    kept = Kept(rows, state(BEGIN + 5, "7", BEGIN + 5, Calendar()), interval="1d")
    found = answer(reader(kept, BEGIN + 5).klines("A", "1d", start, None, 1000))
    assert [row.open_time for row in found][-1] == BEGIN
    assert found[-1].trades == 1
    assert {row.open_time % day for row in found} == {0}
