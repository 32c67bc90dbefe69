"""The last 24 hours: when they are told, and to whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from marketfeed.candles.days import Days
from marketfeed.candles.demand import Demand
from marketfeed.candles.klines import Publication
from marketfeed.candles.market import Market
from marketfeed.model.candle_store import CandleKeys
from marketfeed.model.intervals import Calendar
from marketfeed.model.trades import Trade
from marketfeed.redis.commands import CommandRefused

NOW = 1_800_000_000_000


class Kept:
    """The commands, and what they have kept. `answer`: to the next ones."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.answer: Deferred[Any] = succeed(1)

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        assert (key, words[0], words[1]) == (b"p:candles:tickers", "HSET", "p:candles:tickers")
        for name, ticker in zip(words[2::2], words[3::2], strict=True):
            assert isinstance(name, str)
            assert isinstance(ticker, bytes)
            self.fields[name] = json.loads(ticker)
        return self.answer

    def place_of(self, key: bytes) -> object:
        raise AssertionError


class Stage:
    """Markets of one trade each, and what is published."""

    def __init__(self, *names: str) -> None:
        self.kept = Kept()
        self.published: list[tuple[str, Any]] = []
        self.days = Days(self.kept, CandleKeys("p:"), self._publish)
        self.markets = {name: Market(name, Calendar(), 3_600_000) for name in names}
        for market in self.markets.values():
            self.trade(market, 1, "10")

    def _publish(self, publications: Sequence[Publication]) -> None:
        self.published += [(stream, json.loads(data)) for stream, data in publications]

    def trade(self, market: Market, number: int, price: str) -> None:
        one = Trade(number, NOW, price, "2", False, Decimal(price), Decimal(2))
        assert market.take(one, NOW, b"") is None

    def tell(self, now: int, changed: Sequence[Market], demand: Demand) -> None:
        done = Deferred.fromCoroutine(self.days.tell(now, changed, self.markets.values(), demand))
        assert done.called
        done.addErrback(lambda failure: pytest.fail(str(failure)))

    def take(self) -> list[tuple[str, Any]]:
        published, self.published = self.published, []
        return published


def test_what_has_changed_is_told_and_kept() -> None:
    """All in the first minute, then those that changed, and of nothing new there is no word."""
    stage = Stage("A", "B")
    demand = Demand(days=frozenset(["A"]))
    stage.tell(NOW, [], demand)
    assert [stream for stream, _ in stage.take()] == ["miniTicker@A"]
    assert {name: ticker["c"] for name, ticker in stage.kept.fields.items()} == {"A": "10", "B": "10"}
    stage.tell(NOW + 1, [*stage.markets.values()], demand)
    assert stage.take() == []
    stage.trade(stage.markets["A"], 2, "11")
    stage.tell(NOW + 2, [stage.markets["A"]], demand)
    ((stream, mini),) = stage.take()
    assert (stream, mini["c"], stage.kept.fields["A"]["n"]) == ("miniTicker@A", "11", 2)


def test_what_is_told_is_kept_already() -> None:
    """Whoever is told of a market and then asks for it finds it."""
    stage = Stage("A")
    stage.kept.answer = Deferred()
    done = Deferred.fromCoroutine(stage.days.tell(NOW, [], stage.markets.values(), Demand(days=frozenset(["A"]))))
    assert (stage.kept.fields.keys(), stage.take()) == ({"A"}, [])
    stage.kept.answer.callback(1)
    assert done.called
    assert [stream for stream, _ in stage.take()] == ["miniTicker@A"]


def test_who_begins_to_want_them_is_told_what_they_are() -> None:
    """Once; and who wants all of them of all."""
    stage = Stage("A", "B")
    stage.tell(NOW, [], Demand())
    wanted = Demand(days=frozenset(["A", "none"]))
    stage.days.tell_anew(NOW + 1, stage.markets, Demand(), wanted)
    assert [stream for stream, _ in stage.take()] == ["miniTicker@A"]
    stage.days.tell_anew(NOW + 2, stage.markets, wanted, wanted)
    assert stage.take() == []
    stage.days.tell_together(wanted)
    stage.days.tell_anew(NOW + 3, stage.markets, wanted, everything := Demand(wanted.intervals, wanted.days, True))
    stage.days.tell_together(everything)
    ((stream, minis),) = stage.take()
    assert (stream, [mini["s"] for mini in minis]) == ("!miniTicker@arr", ["A", "B"])
    stage.days.tell_together(everything)
    assert stage.take() == []


def test_the_stream_about_all_markets_comes_in_parts() -> None:
    """None is too long, none is empty, and each market is in one of them."""
    stage = Stage(*[f"M{number}_INR" for number in range(1000)])
    stage.tell(NOW, [], Demand())
    stage.days.tell_together(Demand(all_days=True))
    parts = [minis for stream, minis in stage.take() if stream == "!miniTicker@arr"]
    assert len(parts) > 1
    assert all(parts)
    assert all(len(json.dumps(part, separators=(",", ":"))) <= 65_536 for part in parts)
    assert sorted(mini["s"] for part in parts for mini in part) == sorted(stage.markets)
    stage.tell(NOW + 60_000, [], Demand())
    stage.days.forget()
    stage.days.tell_together(Demand(all_days=True))
    assert stage.take() == []


def test_what_could_not_be_kept_is_told_as_soon_as_it_can_be() -> None:
    """Of all markets, once a second at most; nothing is told before."""
    stage = Stage("A", "B")
    demand = Demand(days=frozenset(["A", "B"]), all_days=True)
    stage.tell(NOW, [], demand)
    stage.days.tell_together(demand)
    stage.take()
    stage.trade(stage.markets["A"], 2, "11")
    for after in (100, 200, 1300):
        stage.kept.answer, stage.kept.fields = fail(CommandRefused("OOM")), {}
        done = Deferred.fromCoroutine(
            stage.days.tell(NOW + after, [stage.markets["A"]], stage.markets.values(), demand)
        )
        failed: list[Any] = []
        done.addErrback(failed.append)
        assert (len(failed), bool(stage.kept.fields)) == ((0, False) if after == 200 else (1, True))
        stage.days.tell_together(demand)
        stage.kept.answer.addErrback(lambda _: None)
    assert stage.take() == []
    stage.kept.answer, stage.kept.fields = succeed(1), {}
    stage.tell(NOW + 2400, [], demand)
    assert {name: ticker["c"] for name, ticker in stage.kept.fields.items()} == {"A": "11", "B": "10"}
    stage.days.tell_together(demand)
    *each, (_, both) = stage.take()
    assert [(stream, mini["c"]) for stream, mini in each] == [("miniTicker@A", "11"), ("miniTicker@B", "10")]
    assert len(both) == 2
    stage.kept.fields = {}
    stage.tell(NOW + 2500, [], demand)
    assert stage.kept.fields == {}
