"""The service around a past, with a clock that is set by hand: nothing is told before all of it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from marketfeed.candles.lease import Lease
from marketfeed.candles.markets import CandleLimits
from marketfeed.candles.service import CandleService
from marketfeed.candles.store import CandleStore, Change, Stored
from marketfeed.candles.trades import Taker
from marketfeed.model.candle_store import KEEP, CandleKeys
from marketfeed.model.intervals import Calendar
from marketfeed.redis.commands import CommandRefused
from tests.conftest import LogCapture

NOW = 1_800_000_000
COUNT = 1200
LIMITS = CandleLimits(prefix="", max_payload=1000, calendar=Calendar(), keep={**KEEP, "1s": 5})
WANTED = [b"kline_1m@A", b"kline_1m@B", b"miniTicker@A", b"!miniTicker@arr"]


def trade(number: int, time: int, market: str) -> bytes:
    fields = {"e": "trade", "t": number, "m": False, "p": "10", "q": "1", "s": market, "T": time}
    return json.dumps(fields).encode()


class Past:
    """A trade every five seconds."""

    markets = ("A", "B")

    def past_of(self, market: str, until: int) -> Iterator[tuple[int, bytes]]:
        for number in range(1, COUNT + 1):
            time = until - (COUNT - number + 1) * 5000
            yield time, trade(number, time, market)


class Store(CandleStore):
    """Takes everything, of one market when it is let."""

    def __init__(self) -> None:
        super().__init__(None, CandleKeys("p:"), KEEP, has_slots=False)  # type: ignore[arg-type] # is never asked
        self.changes: list[Change] = []
        self.of_b: Deferred[None] = Deferred()
        self.refused: set[str] = set()
        self.answer: Deferred[None] = succeed(None)

    async def lead(self) -> None:
        self.number = 1

    async def load(self, market: str, since: int) -> Stored:
        return Stored(0, b"", None, {}, [])

    async def write(self, changes: Sequence[Change]) -> None:
        if refused := self.refused.intersection(change.market for change in changes):
            raise CommandRefused(f"WRONGTYPE {refused}")
        self.changes += changes
        if not self.answer.called:
            await self.answer
        if not self.of_b.called and changes[0].market == "B":
            await self.of_b


class Trades(MultiService):
    """As many as the test hands in."""

    is_reached = False

    def __init__(self) -> None:
        MultiService.__init__(self)
        self.followed: list[str] = []

    def follow(self, market: str, position: bytes) -> None:
        self.followed.append(market)

    def reached_end(self, market: str) -> Deferred[bool]:
        return succeed(True)


class Redis:
    """What is wanted, and whoever has the lease."""

    def __init__(self) -> None:
        self.has_another = False
        self.asked: list[tuple[bytes | str | int, ...]] = []
        self.fault: Exception | None = None

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        self.asked.append(words)
        if self.fault is not None:
            return fail(self.fault)
        match words[0]:
            case "ZRANGEBYSCORE":
                return succeed(WANTED)
            case "SET":
                return succeed(None if self.has_another else b"OK")
            case "GET":
                return succeed(b"another" if self.has_another else b"one")
        return succeed(1)

    def place_of(self, key: bytes) -> object:
        raise AssertionError


class Stage:
    """A service, and what it publishes."""

    ready = True

    def __init__(self) -> None:
        self.clock = Clock()
        self.redis, self.store, self.trades = Redis(), Store(), Trades()
        self.heard: list[tuple[str, Any]] = []
        self.taker: Taker
        self.service = CandleService(
            self.clock,
            LIMITS,
            self.redis,
            self.store,
            Lease(self.redis, "lease", "one"),
            self,
            self._lead,
            lambda: NOW + self.clock.seconds(),
            Past(),
        )
        self.service.startService()

    @classmethod
    def at_work(cls) -> Stage:
        """One that leads: the past of both markets is written, and trades come."""
        stage = cls()
        stage.trades.is_reached = True
        stage.store.of_b.callback(None)
        stage.run(5)
        return stage

    def _lead(self, taker: Taker) -> Trades:
        self.taker = taker
        return self.trades

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        self.heard += [(stream, json.loads(data)) for stream, data in batch]

    def run(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds * 4))

    def end(self) -> None:
        assert self.service.stopService().called
        assert not self.clock.getDelayedCalls()


def test_nothing_is_told_before_the_past_of_all_is_written() -> None:
    """Then all is: the candle of now with all of its trades, and all markets at once."""
    stage = Stage()
    stage.trades.is_reached = True
    stage.run(5)
    assert [change.market for change in stage.store.changes] == ["A", "B"]
    assert stage.trades.followed == ["A"]
    assert (stage.heard, stage.service.is_ready) == ([], False)
    stage.taker.take("B", trade(COUNT + 1, (NOW + 5) * 1000, "B"), (NOW + 5) * 1000, b"")
    stage.store.of_b.callback(None)
    assert stage.service.is_ready
    stage.run(2)
    arrays = [data for stream, data in stage.heard if stream == "!miniTicker@arr"]
    assert [each["s"] for each in arrays[0]] == ["A", "B"]
    candles = [data["k"] for stream, data in stage.heard if stream.startswith("kline_1m")]
    assert {each["s"] for each in candles} == {"A", "B"}
    assert all(each["T"] >= NOW * 1000 for each in candles if not each["x"])
    assert [each for each in candles if each["n"] and each["n"] != each["L"] - each["f"] + 1] == []
    assert stage.service.counts["taken"] == 2 * COUNT + 1
    stage.end()


def test_it_is_ready_when_trades_come() -> None:
    """And when another one makes candles, which have all there is."""
    stage = Stage()
    stage.store.of_b.callback(None)
    stage.run(5)
    assert not stage.service.is_ready
    stage.trades.is_reached = True
    assert stage.service.is_ready
    stage.trades.is_reached = False
    stage.redis.has_another = True
    stage.run(1)
    assert stage.service.is_ready
    assert not stage.service.is_leading
    stage.end()


def test_a_market_that_cannot_be_written_is_in_nobodys_way(logged: LogCapture) -> None:
    """The others are written and published; it is, as soon as it can be: what had closed, and before what is flat."""
    stage = Stage.at_work()
    stage.heard.clear()
    stage.store.refused = {"A"}
    for second in range(70):
        at = (NOW + 5 + second) * 1000
        for market in "AB" if second < 2 else "B":
            stage.taker.take(market, trade(COUNT + 1 + second, at, market), at, b"")
        stage.run(1)
    closed = {stream for stream, data in stage.heard if stream.startswith("kline") and data["k"]["x"]}
    assert closed == {"kline_1m@B"}
    assert logged.formats().count("candles: Redis cannot be written to: {why}") == 1, "it is no news again"
    assert stage.service.fault
    stage.store.refused = set()
    stage.run(60)
    assert not stage.service.fault
    closed_ones = [data["k"] for stream, data in stage.heard if stream == "kline_1m@A" and data["k"]["x"]]
    starts = [each["t"] for each in closed_ones]
    assert starts == list(range(starts[0], starts[0] + 60_000 * len(starts), 60_000))
    assert closed_ones[0]["L"] == COUNT + 2
    stage.end()


def test_what_closes_while_only_the_publisher_is_away_is_published_later() -> None:
    """As after a restart of Redis, to which links come back one by one."""
    stage = Stage.at_work()
    at = (NOW + 5) * 1000
    stage.taker.take("A", trade(COUNT + 1, at, "A"), at, b"")
    stage.run(54)
    stage.heard.clear()
    stage.ready, written = False, len(stage.store.changes)
    stage.run(8)
    assert (stage.heard, len(stage.store.changes) > written) == ([], True)
    stage.ready = True
    stage.run(0.25)
    assert [data["k"]["t"] for stream, data in stage.heard if stream == "kline_1m@A" and data["k"]["x"]] == [NOW * 1000]
    stage.end()


def test_whatever_goes_wrong_with_the_lease_is_said_and_tried_again(logged: LogCapture) -> None:
    """Not only what Redis may answer."""
    stage = Stage()
    stage.trades.is_reached = True
    stage.store.of_b.callback(None)
    stage.redis.fault = ZeroDivisionError()
    stage.run(2)
    stage.redis.fault = None
    stage.redis.has_another = True
    stage.run(1)
    assert not stage.service.is_leading
    assert logged.flush_failures(ZeroDivisionError)
    stage.end()


def test_what_is_flat_comes_behind_what_has_closed() -> None:
    """In the same round, but not before what has closed is written and published, however long that takes."""
    stage = Stage.at_work()
    at = (NOW + 5) * 1000
    stage.taker.take("A", trade(COUNT + 1, at, "A"), at, b"")
    stage.run(54)
    stage.heard.clear()
    stage.store.answer = Deferred()
    stage.run(10)
    assert [stream for stream, _ in stage.heard if stream == "kline_1m@A"] == []
    stage.store.answer.callback(None)
    candles = [data["k"] for stream, data in stage.heard if stream == "kline_1m@A"]
    start = candles[0]["t"]
    assert [(each["t"] - start, each["n"] > 0, each["x"]) for each in candles] == [
        (0, True, True),
        (60_000, False, False),
    ]
    stage.end()


def test_who_is_overtaken_amid_a_round_says_no_more() -> None:
    """What was being written is told if it was; all else is the next one's."""
    stage = Stage.at_work()
    at = (NOW + 5) * 1000
    stage.taker.take("A", trade(COUNT + 1, at, "A"), at, b"")
    stage.store.answer = Deferred()
    stage.run(70)
    stage.redis.has_another = True
    stage.run(1)
    assert not stage.service.is_leading
    stage.heard.clear()
    stage.redis.asked.clear()
    stage.store.answer.callback(None)
    assert {data["k"]["x"] for stream, data in stage.heard} <= {True, False}
    assert [words for words in stage.redis.asked if words[0] == "HSET"] == []
    stage.end()


def test_what_waits_while_redis_takes_nothing_is_bounded(logged: LogCapture) -> None:
    """One line says that the oldest of it is lost; the rest is written as soon as it can be, and there is a line the
    next time.
    """
    stage = Stage.at_work()
    for _each_time in range(2):
        stage.store.refused, stage.store.changes = {"A", "B"}, []
        for _ in range(1500):
            at = (NOW + 5) * 1000 + int(stage.clock.seconds() * 1000)
            stage.taker.take("A", trade(at, at, "A"), at, b"")
            stage.clock.advance(1)
        stage.store.refused = set()
        stage.run(3)
        closed = [candle for change in stage.store.changes for each, candle in change.closed if each == "1s"]
        assert 5 <= len(closed) < 1200
    lines = [event["log_format"] for event in logged.events]
    assert (
        lines.count(
            "candles: as many wait to be written as are kept, the oldest are forgotten: first those of {market}"
        )
        == 2
    )
    assert lines.count("candles: Redis cannot be written to: {why}") == 2
    stage.end()


def test_who_ends_writes_what_has_come() -> None:
    """Of channels nobody else has heard it."""
    stage = Stage.at_work()
    at = (NOW + 5) * 1000
    stage.taker.take("A", trade(COUNT + 1, at, "A"), at, b"")
    stage.run(2)
    stage.store.changes.clear()
    stage.taker.take("A", trade(COUNT + 2, at + 2000, "A"), at + 2000, b"")
    stage.end()
    (change,) = stage.store.changes
    assert change.market == "A"
    assert json.loads(change.candles)["last"][0] == COUNT + 2


@pytest.mark.parametrize("silent", [True, False])
def test_what_came_last_cannot_be_written(logged: LogCapture, *, silent: bool) -> None:
    """It is said, and the service ends all the same."""
    stage = Stage.at_work()
    at = (NOW + 5) * 1000
    stage.taker.take("A", trade(COUNT + 1, at, "A"), at, b"")
    stage.store.answer = Deferred()
    if not silent:
        stage.store.refused = {"A"}
    stopped = stage.service.stopService()
    assert stopped.called != silent
    stage.clock.advance(5)
    assert stopped.called
    assert not stage.clock.getDelayedCalls()
    assert "candles: what came last cannot be written: {why}" in logged.formats()
