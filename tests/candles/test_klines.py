"""What is published of the candles of a market: without a hole, each closed one once, and once more after a restart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.candles.klines import SETTLED_MS, Publication
from marketfeed.candles.market import Market
from marketfeed.candles.store import Change, Stored
from marketfeed.model.candle_store import KEEP, Row
from marketfeed.model.intervals import Calendar
from marketfeed.model.trades import Trade
from tests.strategies import property_test

NOW = 1_800_000_000_000
SECONDS, MINUTES = {"1s"}, {"1m"}


def market() -> Market:
    return Market("A", Calendar(), 3_600_000)


def take(one: Market, number: int, at: int, price: str) -> None:
    assert one.take(Trade(number, at, price, "2", False, Decimal(price), Decimal(2)), at, b"") is None


def told(publications: Iterable[Publication]) -> list[Any]:
    """The opening, the close, the trades of each candle, and whether it is closed."""
    candles = [json.loads(data)["k"] for _, data in publications]
    return [(each["t"] - NOW, each["c"], each["n"], each["x"]) for each in candles]


class Redis:
    """What has been written of a market, and who goes on there."""

    def __init__(self) -> None:
        self.parts: dict[bytes, bytes] = {}
        self.minutes: dict[int, Row] = {}
        self.change: Change | None = None

    def write(self, change: Change) -> None:
        self.change = change
        self.parts |= change.parts
        self.minutes |= {candle.start: candle.row() for interval, candle in change.closed if interval == "1m"}
        for name in change.gone:
            self.parts.pop(name, None)

    def load(self) -> Market:
        assert self.change is not None
        one, parts = market(), dict(self.parts)
        one.load(Stored(self.change.turn, b"", self.change.candles, parts, [*self.minutes.values()]))
        return one


def test_a_closed_candle_is_published_once_more_by_who_takes_over() -> None:
    """As it was, with its ids; the one behind that publishes it no more, for the change after it has forgotten it."""
    redis, one = Redis(), market()
    one.want("1m", NOW)
    take(one, 1, NOW + 1000, "10")
    take(one, 2, NOW + 61_000, "11")
    change, published = one.change(NOW + 61_000, MINUTES)
    redis.write(change)
    closed = [data for _, data in published if json.loads(data)["k"]["x"]]
    assert told(published) == [(0, "10", 1, True), (60_000, "11", 1, False)]
    assert one.is_due(NOW + 62_000)
    assert one.change(NOW + 62_000, MINUTES)[0].parts[b"told"] == b"[]"
    assert not one.is_due(NOW + 70_000)

    following = redis.load()
    again = following.again(NOW + 62_000, MINUTES)
    assert told(again) == [(0, "10", 1, True)]
    assert [{**json.loads(data), "E": 0} for _, data in again] == [{**json.loads(data), "E": 0} for data in closed]
    assert following.again(NOW + 62_000, ()) == []
    assert following.is_due(NOW + 62_000)
    change, published = following.change(NOW + 62_000, MINUTES)
    redis.write(change)
    assert told(published) == [(60_000, "11", 1, False)]
    assert not following.is_due(NOW + 70_000)
    assert redis.load().again(NOW + 63_000, MINUTES) == []


def test_what_closes_before_the_service_hears_who_wants_it_is_published() -> None:
    """Who subscribed a moment before the end has the open candle, and nothing else would say that it has closed."""
    one = market()
    take(one, 1, NOW + 1000, "10")
    take(one, 2, NOW + 60_500, "11")
    one.change(NOW + 60_500, ())
    one.want("1m", NOW + 62_000)
    assert one.is_due(NOW + 62_000)
    _, published = one.change(NOW + 62_000, MINUTES)
    assert told(published) == [(0, "10", 1, True), (60_000, "11", 1, False)]
    take(one, 3, NOW + 121_000, "12")
    _, published = one.change(NOW + 121_000, MINUTES)
    assert told(published) == [(60_000, "11", 1, True), (120_000, "12", 1, False)], "each once"


def test_so_are_those_of_a_second_without_a_hole() -> None:
    """The flat ones between them, too; what closed longer ago is no news."""
    one = market()
    for number, at in enumerate((0, 1000, 4000, 6000)):
        take(one, number, NOW + at, str(10 + number))
    one.change(NOW + 6100, ())
    one.want("1s", NOW + 6200)
    _, published = one.change(NOW + 6200, SECONDS)
    assert told(published) == [
        (1000, "11", 1, True),
        (2000, "11", 0, True),
        (3000, "11", 0, True),
        (4000, "12", 1, True),
        (5000, "12", 0, True),
        (6000, "13", 1, False),
    ]


def test_what_closed_long_ago_is_not_kept() -> None:
    one = market()
    take(one, 1, NOW + 1000, "10")
    take(one, 2, NOW + 60_500, "11")
    one.change(NOW + 60_500, ())
    one.want("1m", NOW + 70_000)
    _, published = one.change(NOW + 70_000, MINUTES)
    assert told(published) == [(60_000, "11", 1, False)]


def test_what_nobody_wanted_is_not_published_once_more() -> None:
    """Nor written."""
    redis, one = Redis(), market()
    take(one, 1, NOW, "10")
    take(one, 2, NOW + 61_000, "11")
    redis.write(one.change(NOW + 61_000, ())[0])
    assert b"told" not in redis.parts
    assert redis.load().again(NOW + 62_000, MINUTES) == []


def test_periods_without_trades_go_on_after_a_restart() -> None:
    """Those of the last minute, behind the last candle that is closed, at its close; but not before the end is read."""
    redis, one = Redis(), market()
    one.want("1s", NOW)
    take(one, 1, NOW, "10")
    one.pass_time(NOW + 1000 + SETTLED_MS)
    redis.write(one.change(NOW + 3000, SECONDS)[0])
    one.change(NOW + 4000, SECONDS)

    following = redis.load()
    assert told(following.again(NOW + 8000, SECONDS)) == [(0, "10", 1, True)]
    assert following.is_over(NOW + 8000, SECONDS)
    assert told(following.quiet(NOW + 8000, SECONDS)) == [], "trades of that time may come yet"
    following.pass_time(NOW + 8000)
    flat = told(following.quiet(NOW + 8000, SECONDS))
    assert [each for each in flat if each[3]] == [(start, "10", 0, True) for start in range(1000, 6000, 1000)]
    assert flat[-1] == (6000, "10", 0, False)
    assert not following.is_over(NOW + 8999, SECONDS)

    much_later = redis.load()
    much_later.again(NOW + 3_600_000, SECONDS)
    much_later.pass_time(NOW + 3_600_000)
    flat = [each for each in told(much_later.quiet(NOW + 3_600_000, SECONDS)) if each[3]]
    assert (flat[0][0], flat[-1][0]) == (3_540_000, 3_597_000)


def test_what_was_traded_meanwhile_is_told_without_a_hole() -> None:
    """Of a stream that is read on after a restart: flat ones have the close before them."""
    redis, one = Redis(), market()
    one.want("1s", NOW)
    take(one, 1, NOW, "10")
    one.pass_time(NOW + 1000 + SETTLED_MS)
    redis.write(one.change(NOW + 3000, SECONDS)[0])
    following = redis.load()
    following.again(NOW + 9000, SECONDS)
    take(following, 2, NOW + 3000, "15")
    take(following, 3, NOW + 3500, "20")
    take(following, 4, NOW + 5000, "30")
    _, published = following.change(NOW + 9000, SECONDS)
    closed = [each for each in told(published) if each[3]]
    assert closed == [(1000, "10", 0, True), (2000, "10", 0, True), (3000, "20", 2, True), (4000, "20", 0, True)]
    assert told(published)[-1] == (5000, "30", 1, False), "behind all that was before it"
    following.pass_time(NOW + 9000)
    _, published = following.change(NOW + 9000, SECONDS)
    assert told(published) == [(5000, "30", 1, True)]


def test_what_was_written_of_them_cannot_be_read() -> None:
    """Somebody else has written there: it is as if nothing was."""
    redis, one = Redis(), market()
    one.want("1m", NOW)
    take(one, 1, NOW, "10")
    take(one, 2, NOW + 61_000, "11")
    redis.write(one.change(NOW + 61_000, MINUTES)[0])
    redis.parts[b"told"] = b'[["1m",[1,2]]]'
    with pytest.raises((ValueError, TypeError)):
        redis.load()
    assert msgspec.json.decode(redis.parts[b"longer"])["open"]


def test_what_is_open_and_flat_is_told_once_behind_what_has_closed() -> None:
    """Not of whoever has just begun to want it: that is its state."""
    one = market()
    take(one, 1, NOW + 1000, "10")
    one.want("1m", NOW + 2000)
    one.change(NOW + 2000, MINUTES)
    one.pass_time(NOW + 62_000)
    assert told(one.quiet(NOW + 62_000, MINUTES)) == [], "what has closed is not written yet"
    _, published = one.change(NOW + 62_000, MINUTES)
    assert told(published) == [(0, "10", 1, True)]
    assert told(one.quiet(NOW + 62_000, MINUTES)) == [(60_000, "10", 0, False)]
    one.pass_time(NOW + 70_000)
    assert told(one.quiet(NOW + 70_000, MINUTES)) == []
    one.pass_time(NOW + 122_000)
    assert told(one.quiet(NOW + 122_000, MINUTES)) == [(60_000, "10", 0, True), (120_000, "10", 0, False)]
    one.unwant(set())
    one.want("1m", NOW + 130_000)
    one.pass_time(NOW + 131_000)
    assert told(one.quiet(NOW + 131_000, MINUTES)) == []


def test_what_was_forgotten_is_no_period_without_trades() -> None:
    """Redis took nothing for so long that the oldest closed candles are not kept: no flat ones stand for them."""
    one = Market("A", Calendar(), 3_600_000, {**KEEP, "1s": 5})
    one.want("1s", NOW)
    for number in range(2000):
        take(one, number, NOW + number * 2000, str(number + 1))
    assert one.is_forgetting
    _, published = one.change(NOW + 4_000_000, SECONDS)
    assert not one.is_forgetting
    closed = [each for each in told(published) if each[3]]
    start = closed[0][0]
    assert start > 0
    assert [each[0] for each in closed] == list(range(start, 3_998_000, 1000))
    assert closed[0] == (start, str(start // 2000 + 1), 0, True)
    assert [each[1] for each in closed] == [str(each[0] // 2000 + 1) for each in closed]


def test_a_trade_of_a_period_that_was_told_as_flat_is_late() -> None:
    """Its candle is kept. Nobody is told of it once more, and what is flat behind it has its price."""
    one = market()
    one.want("1s", NOW)
    take(one, 1, NOW, "10")
    one.pass_time(NOW + 3000)
    one.change(NOW + 3000, SECONDS)
    one.pass_time(NOW + 5500)
    assert told(one.quiet(NOW + 5500, SECONDS)) == [
        (1000, "10", 0, True),
        (2000, "10", 0, True),
        (3000, "10", 0, False),
    ]
    trade = Trade(2, NOW + 1500, "20", "2", False, Decimal(20), Decimal(2))
    assert one.take(trade, NOW + 5600, b"") is None
    assert told(one.change(NOW + 5600, SECONDS)[1]) == []
    one.pass_time(NOW + 6000)
    change, published = one.change(NOW + 6600, SECONDS)
    assert [(interval, candle.row().open_time - NOW) for interval, candle in change.closed] == [("1s", 1000)]
    assert told(published) == []
    assert told(one.quiet(NOW + 6600, SECONDS)) == [(3000, "20", 0, True), (4000, "20", 0, False)]


def test_the_clock_is_set_back() -> None:
    """By as much as it was ahead: what is traded then is told and written as ever."""
    one = market()
    one.want("1m", NOW)
    take(one, 1, NOW, "10")
    one.pass_time(NOW + 62_000)
    one.change(NOW + 62_000, MINUTES)
    one.pass_time(NOW + 3_600_000)
    assert told(one.quiet(NOW + 3_600_000, MINUTES))
    take(one, 2, NOW + 3_600_000, "11")
    one.change(NOW + 3_600_000, MINUTES)
    for second in range(65, 70):
        take(one, second, NOW + second * 1000, "12")
    assert one.is_due(NOW + 70_000)
    _, published = one.change(NOW + 70_000, MINUTES)
    assert told(published) == []
    fresh = market()
    fresh.want("1h", NOW)
    take(fresh, 1, NOW, "10")
    fresh.change(NOW + 1_800_000, {"1h"})
    take(fresh, 2, NOW + 5000, "11")
    assert fresh.is_due(NOW + 5000)
    assert told(fresh.change(NOW + 5000, {"1h"})[1]) == [(0, "11", 2, False)]


ACTS = st.lists(
    st.tuples(
        st.sampled_from((0, 300, 1000, 2500, 7000, 40_000)),
        st.sampled_from((0, 0, 0, -900, -1500, -4000, 800)),
        st.sampled_from(("trade", "trade", "change", "round", "round")),
    ),
    max_size=40,
)


@property_test
@given(ACTS)
def test_candles_come_in_order_without_a_hole(acts: list[Any]) -> None:
    """Whatever comes when: each period is told as closed once, and never an older one behind a newer one."""
    one, now, number = market(), NOW, 0
    wanted = {"1s", "1m"}
    take(one, -1, NOW, "5")
    one.change(now, ())
    for interval in wanted:
        one.want(interval, now)
    heard: dict[str, list[tuple[int, bool]]] = {"1s": [], "1m": []}

    def hear(publications: Iterable[Publication]) -> None:
        for _, data in publications:
            candle = json.loads(data)["k"]
            heard[candle["i"]].append((candle["t"] - NOW, candle["x"]))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("marketfeed.candles.klines._FLAT", 10_000)
        for pause, lateness, act in acts:
            now += pause
            if act == "trade":
                number += 1
                at = max(NOW, now + lateness)
                one.take(Trade(number, at, str(number), "1", False, Decimal(number), Decimal(1)), now, b"")
                continue
            if act == "round":
                one.pass_time(now)
            _, published = one.change(now, wanted)
            hear(published)
            hear(one.quiet(now, wanted))
    for interval, candles in heard.items():
        length = 1000 if interval == "1s" else 60_000
        assert candles == sorted(candles, key=lambda each: each[0]), interval
        closed = [start for start, is_closed in candles if is_closed]
        assert closed == [index * length for index in range(len(closed))], interval
