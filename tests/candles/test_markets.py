"""What is no trade, and what cannot count: a clear line each, and no candle is spoilt."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from marketfeed.candles.markets import Markets
from marketfeed.candles.store import Stored
from marketfeed.model.candle_store import Row
from marketfeed.model.candles import Dropped
from marketfeed.redis.commands import CommandRefused
from tests.candles.test_service import LIMITS, NOW, Store, Trades
from tests.conftest import LogCapture

CAME = NOW * 1000
GOOD = {"e": "trade", "t": 1, "m": False, "p": "10", "q": "2", "s": "A", "T": CAME}
DECIMAL = "expected a decimal of at most 64 characters"
BAD: list[tuple[Any, str, str]] = [
    ({"t": 2, "T": CAME + 60_001}, "too-far-ahead", f"id 2, time {CAME + 60_001}, came {CAME}"),
    ({"t": 2, "T": 10**30}, "too-far-ahead", f"time {10**30}"),
    ({"t": 2, "T": CAME - 3_600_001}, "too-late", f"id 2, time {CAME - 3_600_001}, came {CAME}"),
    ({"t": 2, "T": -5}, "too-late", "time -5"),
    ({}, "repeated", "id 1, "),
    ({"t": 2, "p": "1" + "0" * 80}, "bad", DECIMAL),
    ({"t": 2, "p": "NaN"}, "bad", "got 'NaN' - at `$.p`"),
    ({"t": 2, "q": "-1"}, "bad", "the quantity is negative"),
    ({"t": "two"}, "bad", "got `str` - at `$.t`"),
    ({"t": 2, "m": "yes"}, "bad", "Expected `bool`, got `str` - at `$.m`"),
    (b"\xff{", "bad", "not UTF-8 at byte 0"),
    (b"[]", "bad", "not a JSON object"),
    (b"{}", "bad", "missing required field"),
]


class Leader:
    """Of whom nothing is expected here."""

    def wanted(self, market: str) -> tuple[str, ...]:
        return ()

    def publish(self, publications: Any) -> None:
        assert not publications

    def overtaken(self, why: Exception) -> None:
        raise AssertionError(why)

    def failed(self, what: str, fault: Exception) -> None:
        raise AssertionError(fault)

    def works(self, what: str) -> None: ...


class Loaded(Store):
    """What is kept already."""

    stored = Stored(0, b"", None, {}, [])

    async def load(self, market: str, since: int) -> Stored:
        return self.stored


class Stage:
    """The markets of a leader."""

    def __init__(self, stored: Stored = Loaded.stored) -> None:
        self.clock, self.store = Clock(), Loaded()
        self.store.stored = stored
        self.markets = Markets(self.clock, LIMITS, self.store, Leader(), None, lambda: NOW + self.clock.seconds())
        assert Deferred.fromCoroutine(self.markets.begin(Trades())).called

    def take(self, *fields: Any) -> None:
        for each in fields:
            data = each if isinstance(each, bytes) else json.dumps({**GOOD, **each}).encode()
            self.markets.take("A", data, CAME, b"")

    def candle(self) -> Row:
        """The one of the minute."""
        known = self.markets.get("A")
        assert known is not None
        candle = known.market.candles.present("1m")
        assert candle is not None
        return candle.row()


def lines(logged: LogCapture) -> list[str]:
    return [event["log_format"].format(**event) for event in logged.events]


@pytest.mark.parametrize(("fields", "reason", "what"), BAD)
def test_a_line_says_what_it_was(logged: LogCapture, fields: Any, reason: str, what: str) -> None:
    """With the market, the reason, and what is wrong. The candle has the good ones alone."""
    stage, good = Stage(), Stage()
    stage.take({}, fields, {"t": 3, "p": "11"})
    good.take({}, {"t": 3, "p": "11"})
    (line,) = lines(logged)
    assert line.startswith(f"candles: a trade of A does not count, {reason}: ")
    assert what in line
    assert stage.markets.counts == {**dict.fromkeys(Dropped.ALL, 0), "taken": 2, reason: 1}
    assert stage.candle() == good.candle()


def test_each_reason_has_lines_of_its_own(logged: LogCapture) -> None:
    """However many there are of another one; and later there is a line again."""
    stage = Stage()
    stage.take({}, *[{"t": "bad"}] * 1000, *[{}] * 1000, {"t": 2, "T": 0})
    assert [line.split(", ")[1].partition(":")[0] for line in lines(logged)] == [
        *["bad"] * 3,
        *["repeated"] * 3,
        "too-late",
    ]
    assert stage.markets.counts["bad"] == stage.markets.counts["repeated"] == 1000
    stage.clock.advance(60)
    stage.take({"t": "bad"})
    assert len(lines(logged)) == 8


def test_what_is_no_market(logged: LogCapture) -> None:
    """A channel that somebody else uses."""
    stage = Stage()
    stage.markets.take("a market", b"{}", CAME, b"")
    (line,) = lines(logged)
    assert line.startswith("candles: a trade of a market does not count, bad: no market, or one more than ")
    assert (len(stage.markets), stage.markets.get("a market")) == (0, None)


def test_prices_of_many_digits_are_exact() -> None:
    """Sums, too: what a front end would round has every digit here."""
    stage = Stage()
    stage.take({"p": "1" * 40, "q": "0." + "3" * 39}, {"t": 2, "p": "0." + "7" * 39, "q": "3"})
    row = stage.candle()
    assert (row.open, row.close, row.volume) == ("1" * 40, "0." + "7" * 39, "3." + "3" * 39)
    quote = Fraction(int("1" * 40) * int("3" * 39) + int("7" * 39) * 3, 10**39)
    assert Fraction(row.quote_volume) == quote


def test_a_back_fill_with_rubbish_in_it(logged: LogCapture) -> None:
    """A line says how much of it; what is good of it counts."""
    minute = CAME - CAME % 60_000 - 600_000
    row = Row(minute, "5", "6", "4", "5", "10", minute + 59_999, "50", 3, "1", "5")
    stage = Stage(Stored(0, b"", None, {}, [row], left_out=2))
    stage.take({})
    (line,) = lines(logged)
    assert line == "candles: 2 entries among the minutes of A are left out: no candles of their time"
    known = stage.markets.get("A")
    assert known is not None
    ticker, _ = known.market.ticker(CAME) or (b"", None)
    assert [json.loads(ticker)[field] for field in "ohlcvn"] == ["5", "10", "4", "10", "12", 4]


def test_a_time_without_a_calendar() -> None:
    """Of an entry whose id is no time: those that have one are in no way spoilt."""
    stage, good = Stage(), Stage()
    stage.take({})
    stage.markets.take("A", json.dumps({**GOOD, "t": 2, "T": None}).encode(), 10**16, b"")
    stage.take({"t": 3, "p": "11"})
    good.take({}, {"t": 3, "p": "11"})
    assert stage.markets.counts == {**dict.fromkeys(Dropped.ALL, 0), "taken": 2, "too-far-ahead": 1}
    assert stage.candle() == good.candle()


def test_whatever_goes_wrong_with_a_trade_is_in_no_others_way(
    monkeypatch: pytest.MonkeyPatch, logged: LogCapture
) -> None:
    """It is said, and counted as a bad one."""
    stage = Stage()
    with monkeypatch.context() as patched:
        patched.setattr("marketfeed.candles.market.Market.take", lambda *_: 1 // 0)
        stage.take({})
    stage.take({"t": 2})
    assert "internal error: ZeroDivisionError" in lines(logged)[0]
    assert (stage.markets.counts["bad"], stage.markets.counts["taken"]) == (1, 1)


class Refusing(Loaded):
    """Nothing of a market is given out."""

    async def load(self, market: str, since: int) -> Stored:
        if self.refused:
            raise CommandRefused("WRONGTYPE")
        return self.stored


class Patient(Leader):
    """Who hears what fails."""

    def failed(self, what: str, fault: Exception) -> None: ...


def refusing() -> tuple[Clock, Refusing, Markets]:
    clock, store = Clock(), Refusing()
    store.refused = {"A"}
    markets = Markets(clock, LIMITS, store, Patient(), None, lambda: NOW + clock.seconds())
    assert Deferred.fromCoroutine(markets.begin(Trades())).called
    return clock, store, markets


def test_what_waits_for_a_market_is_bounded(monkeypatch: pytest.MonkeyPatch, logged: LogCapture) -> None:
    """Redis does not give out where it goes on. What is too much is said and counted; the rest counts when it does."""
    monkeypatch.setattr("marketfeed.candles.markets._MOST_WAITING", 3000)
    clock, store, markets = refusing()
    for _ in range(2):
        before = markets.counts["taken"]
        store.refused = {"A"}
        markets.forget()
        assert Deferred.fromCoroutine(markets.begin(Trades())).called
        for number in range(100):
            markets.take("A", json.dumps({**GOOD, "t": number}).encode(), CAME, b"")
        clock.advance(2)
        assert markets.counts["taken"] == before
        store.refused = set()
        clock.advance(2)
        assert 5 < markets.counts["taken"] - before < 20
    assert markets.counts["waiting"] == 200 - markets.counts["taken"]
    assert lines(logged)[0].startswith("candles: a trade of A does not count, waiting: its market was not taken over")


def test_nothing_is_left_of_who_has_no_markets_any_more() -> None:
    """Not even a pause before the next try."""
    clock, _, markets = refusing()
    markets.found("A")
    assert clock.getDelayedCalls()
    markets.forget()
    assert not clock.getDelayedCalls()
