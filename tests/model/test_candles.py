"""Candles against a plain reference, over any sequence of trades, with restarts anywhere: equal to the last digit."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.candle import Candle, flat, missing
from marketfeed.model.candle_store import Row, row_of
from marketfeed.model.candles import AHEAD_MS, Dropped, MarketCandles, newest_of
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS, KLINES
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from marketfeed.model.trades import BadTrade, RecentIds, Trade, read_trade
from tests.strategies import property_test

LATE = 3_600_000
MONTH_END = 1_798_761_600_000  # 2027-01-01 00:00 UTC
DAY = 86_400_000


def trade(number: int, time: int, price: str = "10", quantity: str = "1", is_maker: bool = False) -> Trade:
    return Trade(number, time, price, quantity, is_maker, Decimal(price), Decimal(quantity))


class Reference:
    """All candles of all trades, each looked at anew: slow, and plain. It knows when a candle was closed."""

    def __init__(self, calendar: Calendar) -> None:
        self.calendar = calendar
        self.of: dict[tuple[str, int], list[tuple[Trade, bool]]] = {}
        self.newest: dict[str, int] = {}
        self.closed_until: dict[str, int] = {}
        self.ids: list[int] = []

    def take(self, one: Trade, came: int) -> str | None:
        if one.time > came + AHEAD_MS:
            return "too-far-ahead"
        if one.time < max(0, came - LATE):
            return "too-late"
        if one.number in self.ids[-10_000:]:
            return "repeated"
        self.ids.append(one.number)
        for interval in INTERVALS:
            start = self.calendar.start(interval, one.time)
            is_late = start < max(self.newest.get(interval, -1), self.closed_until.get(interval, -1))
            if not is_late:
                self.newest[interval] = start
            self.of.setdefault((interval, start), []).append((one, is_late))
        return None

    def pass_time(self, now: int) -> None:
        for interval, start in self.newest.items():
            if (end := self.calendar.next(interval, start)) <= now:
                self.closed_until[interval] = max(end, self.closed_until.get(interval, 0))

    def row(self, interval: str, start: int) -> Any:
        """The numbers of a candle."""
        trades = [one for one, _ in self.of[interval, start]]
        in_time = [one for one, is_late in self.of[interval, start] if not is_late] or trades[:1]
        if in_time == trades[:1] and self.of[interval, start][0][1]:
            in_time = trades  # all are late: the first and the last of those that were written together
        prices = [Fraction(one.price) for one in trades]
        buys = [one for one in trades if not one.is_maker]
        return (
            max(prices),
            min(prices),
            sum(Fraction(one.quantity) for one in trades),
            sum(Fraction(one.price) * Fraction(one.quantity) for one in trades),
            len(trades),
            sum((Fraction(one.quantity) for one in buys), Fraction()),
            sum((Fraction(one.price) * Fraction(one.quantity) for one in buys), Fraction()),
        ), (in_time[0].price, in_time[-1].price)


def numbers(row: Row) -> Any:
    return (
        Fraction(row.high),
        Fraction(row.low),
        Fraction(row.volume),
        Fraction(row.quote_volume),
        row.trades,
        Fraction(row.taker_volume),
        Fraction(row.taker_quote_volume),
    )


class Kept:
    """What is written, as the service writes it, and what goes on from there."""

    def __init__(self, calendar: Calendar) -> None:
        self.calendar = calendar
        self.candles = MarketCandles(calendar, LATE)
        self.rows: dict[tuple[str, int], Row] = {}
        self.ids: dict[str, Any] = {}
        self.longer = b""

    def write(self) -> None:
        closed, late, _ = self.candles.take_closed()
        for interval, candle in closed:
            self.rows[interval, candle.start] = candle.row()
        for key, candle in late.items():
            row = self.rows.get(key)
            self.rows[key] = candle.row() if row is None else candle.amended(row)
        changed, gone = self.candles.ids.unwritten()
        self.ids |= json.loads(json.dumps(changed))
        for number in gone:
            self.ids.pop(str(number), None)
        longer = self.candles.unwritten()
        if longer is not None:
            self.longer = msgspec.json.encode(longer)

    def restart(self) -> None:
        """From what is written, by way of JSON."""
        self.write()
        written = msgspec.json.encode(self.candles.written())
        self.candles = MarketCandles(self.calendar, LATE)
        if self.longer:
            self.candles.read(written, self.longer, RecentIds.of({int(each): runs for each, runs in self.ids.items()}))

    def all(self) -> dict[tuple[str, int], Row]:
        self.write()
        opened = [(interval, self.candles.present(interval)) for interval in INTERVALS]
        return self.rows | {(interval, each.start): each.row() for interval, each in opened if each is not None}


decimals = st.decimals(0, 10**6, allow_nan=False, places=6).map(str) | st.sampled_from(
    ["0.10", "1e3", "00.1", "1" * 40, "0." + "7" * 40, "100"]
)
steps = st.sampled_from((0, 0, 0, 1, 1, 999, 1000, 5000, 59_000, 60_000, 3_599_999, 7_200_000, DAY, 3 * DAY, 31 * DAY))
acts = st.lists(
    st.tuples(
        steps,  # how much later than the one before
        st.sampled_from(
            (0, 0, 0, 0, 0, 0, 0, 0, -1, -1500, -30_000, -61_000, -LATE, -LATE - 1, AHEAD_MS, AHEAD_MS + 1)
        ),  # its time, of that
        st.integers(1, 200),
        decimals,
        decimals,
        st.booleans(),
        st.sampled_from(("", "", "", "", "write", "restart", "time", "minute")),
    ),
    max_size=25,
)


@property_test
@given(acts, st.sampled_from((0, 330, -480, 845)))
def test_any_sequence_of_trades(acts: list[Any], offset: int) -> None:
    """Late ones, in the same ms, repeated, after hours and months; written, restarted, and closed by the clock."""
    calendar = Calendar(offset * 60_000)
    reference, kept = Reference(calendar), Kept(calendar)
    came = MONTH_END - 100_000
    for step, skew, number, price, quantity, is_maker, act in acts:
        came += step
        one = trade(number, came + skew, price, quantity, is_maker)
        assert kept.candles.take(one, came) == reference.take(one, came)
        if act in ("time", "minute"):
            came += 62_000 if act == "minute" else 0
            reference.pass_time(came - 2000)
            kept.candles.pass_time(came - 2000)
        elif act:
            getattr(kept, act)()
    rows = kept.all()
    assert set(rows) == set(reference.of)
    for (interval, start), row in rows.items():
        expected, (first, last) = reference.row(interval, start)
        assert numbers(row) == expected, (interval, start)
        assert (row.open_time, row.close_time) == (start, calendar.next(interval, start) - 1)
        if not all(is_late for _, is_late in reference.of[interval, start]):
            assert (row.open, row.close) == (first, last)
        assert "e" not in (row.volume + row.quote_volume).lower()


def test_a_trade_that_is_late_for_some_lengths_only() -> None:
    """As the clock has closed these: so are those that follow it, within its minute."""
    reference, kept = Reference(Calendar()), Kept(Calendar())
    for act in (trade(1, 10_000), 182_000, trade(2, 150_000), trade(3, 151_000, "11"), trade(4, 170_000, "9"), 400_000):
        if isinstance(act, Trade):
            assert kept.candles.take(act, 182_000) == reference.take(act, 182_000)
        else:
            kept.candles.pass_time(act)
            reference.pass_time(act)
    rows = kept.all()
    assert rows["3m", 0].trades == 4
    assert {key: numbers(row) for key, row in rows.items()} == {key: reference.row(*key)[0] for key in reference.of}


def present(candles: MarketCandles) -> Candle:
    """The minute of now."""
    found = candles.present("1m")
    assert found is not None
    return found


def test_prices_keep_their_spelling() -> None:
    """Of those that are equal the first one's, in the extremes; in open and close each its own."""
    candles = MarketCandles(Calendar(), LATE)
    for number, price in enumerate(("10.0", "10.00", "1e1", "9.990", "9.99")):
        candles.take(trade(number, 1000, price), 1000)
    row = present(candles).row()
    assert (row.open, row.high, row.low, row.close) == ("10.0", "10.0", "9.990", "9.99")


def test_what_is_published() -> None:
    """As its kind requires, and the row that is kept says the same."""
    candles = MarketCandles(Calendar(), LATE)
    candles.take(trade(7, 61_000, "10.50", "2"), 61_000)
    candles.take(trade(9, 62_000, "10.25", "4", True), 62_000)
    candle = present(candles)
    data = candle.publication("A_B", "1m", 62_500, is_closed=True)
    name = StreamKinds(KLINES).parse("kline_1m@A_B")
    assert PublicationReader(name, ("kline_1m@A_B",), 1 << 20).read(data) == data
    assert json.loads(data) == {
        "e": "kline", "E": 62_500, "s": "A_B",
        "k": {
            "t": 60_000, "T": 119_999, "s": "A_B", "i": "1m", "f": 7, "L": 9, "o": "10.50", "c": "10.25", "h": "10.50",
            "l": "10.25", "v": "6", "n": 2, "x": True, "q": "62.00", "V": "2", "Q": "21.00", "B": "0",
        },
    }  # fmt: skip
    assert row_of(data) == candle.row()


def newest(kept: Kept, now: int) -> Candle | None:
    """The minute of now, as whoever reads what is written finds it."""
    kept.write()
    return newest_of((msgspec.json.encode(kept.candles.written()), kept.longer), Calendar(), "1m", now)


def test_a_period_without_trades_is_flat() -> None:
    """Where there has been a trade before."""
    kept = Kept(Calendar())
    candles = kept.candles
    assert newest(kept, 1000) is None
    candles.take(trade(1, 1000, "5.0"), 1000)
    found = newest(kept, 1000)
    assert found is not None
    assert found.written() == present(candles).written()
    candles.pass_time(60_000)
    candle = newest(kept, 185_000)
    assert candle is not None
    assert candle.row() == Row(180_000, "5.0", "5.0", "5.0", "5.0", "0", 239_999, "0", 0, "0", "0")
    assert (candle.first, candle.last) == (-1, -1)
    assert [each.start for each in missing(Calendar(), "1m", 60_000, 185_000, "5.0", 10)] == [60_000, 120_000]
    assert [each.start for each in missing(Calendar(), "1m", 60_000, 900_000, "5.0", 2)] == [780_000, 840_000]
    assert list(missing(Calendar(), "1m", 180_000, 185_000, "5.0", 10)) == []
    assert Candle.read(flat(0, 1000, "1").written()).row() == flat(0, 1000, "1").row()


def test_a_late_trade_is_not_the_newest() -> None:
    """What follows goes on from the price of the one before."""
    candles = MarketCandles(Calendar(), LATE)
    candles.take(trade(1, 100_000, "5"), 100_000)
    candles.take(trade(2, 50_000, "4"), 100_000)
    assert candles.last is not None
    assert candles.last.price == "5"
    assert [key for key in candles.late if key[0] == "1m"] == [("1m", 0)]


def test_the_clock_is_to_close_candles() -> None:
    """Whichever of those that are open ends first, and none that is not over."""
    candles = MarketCandles(Calendar(), LATE)
    assert not candles.is_over(MONTH_END)
    candles.take(trade(1, 0), 0)
    assert [candles.is_over(now) for now in (0, 999, 1000, 999, 1000)] == [False, False, True, False, True]
    candles.pass_time(1000)
    assert not candles.is_over(59_999)
    candles.take(trade(2, 10_000), 10_000)
    assert [candles.is_over(now) for now in (10_999, 11_000)] == [False, True]
    candles.take(trade(3, 20_000), 20_000)
    assert [candles.is_over(now) for now in (20_999, 21_000)] == [False, True]


numbers_of_trades = st.integers(0, 40) | st.sampled_from((1 << 60, -5, 1023, 1024, 1025))


@property_test
@given(
    st.lists(st.tuples(numbers_of_trades, st.sampled_from(("", "", "write", "restart"))), max_size=120),
    st.integers(1, 8),
    st.integers(1, 5),
)
def test_the_ids_that_are_remembered(acts: list[tuple[int, str]], most: int, part: int) -> None:
    """The last ones, in the order in which they came, and no others; also once they were written down, part by part."""

    class Recent(RecentIds):
        PART = part

    recent, expected, kept = Recent(most), list[int](), dict[str, Any]()
    for number, act in acts:
        assert recent.add(number) == (number not in expected)
        if number not in expected:
            expected = [*expected, number][-most:]
        if act:
            changed, gone = recent.unwritten()
            kept |= json.loads(json.dumps(changed))
            for each in gone:
                kept.pop(str(each), None)
            assert len(kept) <= most // part + 2
        if act == "restart":
            recent = Recent.of({int(number): runs for number, runs in kept.items()}, most)
    assert len(recent._blocks) <= most


def test_little_of_the_ids_is_written_at_a_time() -> None:
    """However many are remembered, and however they are spread."""
    recent = RecentIds()
    for number in range(0, 200_000, 7):
        recent.add(number)
    assert len(recent.unwritten()[0]) == 101
    recent.add(-1)
    ((_, runs),) = recent.unwritten()[0].items()
    assert len(runs) <= RecentIds.PART
    assert recent.unwritten() == ({}, [])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"e":"trade","t":1,"m":true,"p":"1.50","q":"2","s":"A","T":5,"E":6}', trade(1, 5, "1.50", "2", True)),
        ('{"e":"trade","t":1,"m":true,"p":"1.50","q":"2","s":"A","E":6}', trade(1, 6, "1.50", "2", True)),
        ('{"e":"trade","t":1,"m":true,"p":"1.50","q":"2","s":"A"}', trade(1, 9, "1.50", "2", True)),
        ('{"e":"trade","t":17.0,"m":false,"p":1.50,"q":2,"s":"A","T":5.0}', trade(17, 5, "1.50", "2")),
        ('{"e":"trade","t":1,"m":false,"p":"1","q":1e2,"T":"soon","E":null}', trade(1, 9, "1", "1e2")),
        ('{"e":"trade","t":1,"m":false,"p":"1","q":"1","T":1e999,"E":7}', trade(1, 7, "1", "1")),
    ],
)
def test_reading_trades(data: str, expected: Trade) -> None:
    """Numbers as they are spelled; a time that is none counts as absent."""
    assert read_trade(data.encode(), 9) == expected


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        "[]",
        "",
        '{"t":1,"m":true,"p":"x","q":"1"}',
        '{"t":1,"m":true,"p":"1","q":"-1"}',
        '{"t":1,"m":true,"p":[],"q":1}',
        '{"t":"1","m":true,"p":"1","q":"1"}',
    ],
)
def test_what_is_no_trade(data: str) -> None:
    """It counts for nothing, and one line says why."""
    with pytest.raises(BadTrade):
        read_trade(data.encode(), 9)


def test_why_trades_are_dropped_has_names() -> None:
    """Under which they are counted."""
    assert set(Dropped.ALL) == {"repeated", "too-late", "too-far-ahead", "bad", "waiting"}
    assert msgspec.json.encode(trade(1, 2).number) == b"1"


def test_what_nobody_writes_is_bounded() -> None:
    """By what would be kept, and some more. What is forgotten is said, up to where and at which price."""
    keep = {**dict.fromkeys(INTERVALS, 1000), "1s": 10, "1m": 20}
    candles = MarketCandles(Calendar(), LATE, keep)
    for number in range(5000):
        time = MONTH_END + number * 1000
        assert candles.take(trade(number, time, str(number)), time) is None
        assert len(candles.closed) <= 10 + 20 + 5000 // 180 + 5000 // 300 * 4 + 1001
    seconds = [candle.start for interval, candle in candles.closed if interval == "1s"]
    until, price = candles.forgotten["1s"]
    assert seconds == list(range(until, MONTH_END + 4_999_000, 1000))
    assert len(seconds) >= 10
    assert MONTH_END + int(price) * 1000 + 1000 == until
    closed, _, forgotten = candles.take_closed()
    minutes = [candle.start for interval, candle in closed if interval == "1m"]
    assert len(minutes) >= 20
    assert minutes[0] == forgotten["1m"][0]
    assert candles.take_closed() == ([], {}, {})


def test_late_trades_that_nobody_writes_are_bounded() -> None:
    """The newest of their candles are those that stay."""
    keep = {**dict.fromkeys(INTERVALS, 1000), "1s": 10, "1m": 20}
    candles = MarketCandles(Calendar(), LATE, keep)
    assert candles.take(trade(0, MONTH_END), MONTH_END) is None
    for number in range(1, 3000):
        assert candles.take(trade(number, MONTH_END - number * 1000), MONTH_END) is None
        assert len(candles.late) < 1200
    _, late, _ = candles.take_closed()
    starts = {start for interval, start in late if interval == "1s"}
    assert set(range(MONTH_END - 10_000, MONTH_END, 1000)) <= starts
    assert candles.last is not None
    assert candles.last.number == 0


def test_of_ids_that_were_never_written_nothing_is_to_be_forgotten() -> None:
    """However many there were."""
    ids = RecentIds(1000)
    for number in range(100_000):
        ids.add(number)
    changed, gone = ids.unwritten()
    assert gone == []
    for number in range(100_000, 200_000):
        ids.add(number)
    assert set(ids.unwritten()[1]) == set(changed)


WRITTEN = {"open": None, "until": None, "run": None, "last": [1, MONTH_END, "10", "1", False]}
CANDLE = [MONTH_END, MONTH_END + 60_000, 1, 1, "10", "10", "10", "10", "1", "10", "1", "10", 1]


@pytest.mark.parametrize(
    ("written", "longer"),
    [
        ({"last": [1, MONTH_END, "NaN", "1", False]}, {}),
        ({"until": [MONTH_END, "much"]}, {}),
        ({"until": [10**30, "10"]}, {}),
        ({}, {"until": {"1m": [MONTH_END, "Infinity"]}}),
        ({}, {"open": {"1m": [*CANDLE[:5], "NaN", *CANDLE[6:]]}}),
        ({}, {"open": {"1m": [*CANDLE[:8], "1e9999", *CANDLE[9:]]}}),
        ({}, {"open": {"1m": [*CANDLE[:8], "7" * 2000, *CANDLE[9:]]}}),
        ({}, {"open": {"1m": [MONTH_END, MONTH_END, *CANDLE[2:]]}}),
        ({}, {"open": {"1M": [MONTH_END, 10**30, *CANDLE[2:]]}}),
    ],
)
def test_what_was_spoilt_is_not_gone_on_with(written: dict[str, Any], longer: dict[str, Any]) -> None:
    """It would end in the middle of a trade, of this market or of another one."""
    candles = MarketCandles(Calendar(), LATE)
    good = {"open": {"1m": CANDLE}, "until": {}}
    candles.read(msgspec.json.encode(WRITTEN), msgspec.json.encode(good), RecentIds())
    with pytest.raises((ValueError, TypeError, ArithmeticError)):
        candles.read(msgspec.json.encode({**WRITTEN, **written}), msgspec.json.encode({**good, **longer}), RecentIds())
    with pytest.raises(ValueError, match="too many ids"):
        RecentIds.of({1: [[0, 10**15]]})
