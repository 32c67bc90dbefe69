"""The simulated market: what it publishes, and when."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

import marketfeed
from marketfeed.demo.matching import Increment, MatchingEngine, Outcome, Side
from marketfeed.demo.simulator import (
    INSTRUMENTS,
    LEAST_LEVELS,
    MOST_RATE,
    NEAR,
    REACH,
    SNAPSHOT_STEPS,
    TICK_SECONDS,
    Instrument,
    MarketSimulation,
    Publication,
    SimulatedEngine,
    SimulatedMarket,
)
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from tests.conftest import LogCapture

seeds = st.integers(0, 2**32)
instruments = st.sampled_from(INSTRUMENTS)


def market(seed: int = 1, instrument: Instrument = INSTRUMENTS[0]) -> SimulatedMarket:
    return SimulatedMarket(instrument, Random(seed))


def read(publications: list[Publication], kind: str) -> list[dict[str, Any]]:
    """The data of one kind, decoded."""
    return [msgspec.json.decode(payload) for stream, payload in publications if stream.startswith(f"{kind}@")]


class Replay:
    """A client's book: price → quantity a side, both as decimals."""

    def __init__(self) -> None:
        self.last_update = 0
        self.sides: dict[str, dict[Decimal, Decimal]] = {"b": {}, "a": {}}

    def apply(self, depth: dict[str, Any]) -> None:
        for side, levels in self.sides.items():
            if depth.get("snapshot"):
                levels.clear()
            for price, quantity in depth[side]:
                levels[Decimal(price)] = Decimal(quantity)
                if not Decimal(quantity):
                    del levels[Decimal(price)]
        self.last_update = depth["u"]

    @property
    def best_bid(self) -> Decimal:
        return max(self.sides["b"])

    @property
    def best_ask(self) -> Decimal:
        return min(self.sides["a"])


def book_of(engine: MatchingEngine, instrument: Instrument) -> dict[str, dict[Decimal, Decimal]]:
    tick, lot = Decimal(instrument.tick), Decimal(instrument.lot)
    return {
        key: {price * tick: quantity * lot for price, quantity in engine.levels(side)}
        for key, side in (("b", Side.BUY), ("a", Side.SELL))
    }


# What is published.


@pytest.mark.parametrize("instrument", [*INSTRUMENTS, Instrument.named("NEW_INR")])
def test_the_daemon_accepts_every_publication(instrument: Instrument) -> None:
    """Streams parse, payloads are read as they are, and each names its own market."""
    simulated, kinds = market(7, instrument), StreamKinds()
    seen: Counter[str] = Counter()
    for _ in range(3 * SNAPSHOT_STEPS):
        for stream, payload in simulated.step(1700000000000):
            name = kinds.parse(stream)
            assert str(name) == stream
            assert PublicationReader(name, (stream,), 262144).read(payload) is payload
            data = msgspec.json.decode(payload)
            assert (data["e"], data["s"]) == (name.kind.name, name.market) == (name.kind.name, instrument.market)
            seen[name.kind.name] += 1
    assert seen["trade"] > 20
    assert seen["depth"] > 3 * SNAPSHOT_STEPS / 2
    assert seen["ticker"] > 20


def test_the_fields_are_those_of_the_contract() -> None:
    """Each kind has the fields that clients are promised, decimals as strings."""
    simulated = market(1)
    publications = [publication for _ in range(20) for publication in simulated.step(1700000000000)]
    trade, ticker = read(publications, "trade")[0], read(publications, "ticker")[0]
    snapshot, update = read(publications, "depth")[:2]
    assert set(trade) == {"e", "t", "m", "p", "q", "s", "T"}
    assert (trade["t"], trade["T"]) == (1, 1700000000000)
    assert isinstance(trade["m"], bool)
    assert set(ticker) == {"e", "s", "c", "o", "h", "l", "v", "P"}
    assert set(update) == {"e", "s", "U", "u", "a", "b"}
    assert set(snapshot) == {*update, "snapshot"}
    assert snapshot["snapshot"] is True
    texts = [trade["p"], trade["q"], *(ticker[field] for field in "cohlvP"), *snapshot["b"][0], *snapshot["a"][0]]
    assert all(isinstance(text, str) for text in texts)


@settings(deadline=None, max_examples=40)
@given(seeds, instruments, st.sets(st.integers(0, 120), max_size=4), st.integers(0, 130))
def test_replayed_depth_is_the_engines_book(seed: int, instrument: Instrument, restated: set[int], begin: int) -> None:
    """From any snapshot on, the updates give the engine's own book, with ids that have no holes."""
    simulated = market(seed, instrument)
    replay: Replay | None = None
    last_update = -1
    for number in range(140):
        if number in restated:
            simulated.restate()
        for depth in read(simulated.step(0), "depth"):
            if depth.get("snapshot"):
                assert depth["U"] == depth["u"]
                assert last_update in (-1, depth["u"])
                if replay is None and number >= begin:
                    replay = Replay()
            else:
                assert depth["U"] == last_update + 1
                assert depth["u"] - depth["U"] + 1 == len(depth["b"]) + len(depth["a"]) > 0
            last_update = depth["u"]
            if replay is not None:
                replay.apply(depth)
        if replay is not None:
            assert replay.sides == book_of(simulated.engine, instrument)
            assert replay.last_update == last_update


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_updates_hold_nothing_but_changes(seed: int) -> None:
    """Every level of an update has another quantity than before; zero only where there was a level."""
    simulated, replay = market(seed), Replay()
    for _ in range(60):
        for depth in read(simulated.step(0), "depth"):
            if not depth.get("snapshot"):
                for side in "ab":
                    for price, quantity in depth[side]:
                        assert replay.sides[side].get(Decimal(price), Decimal(0)) != Decimal(quantity)
                        assert Decimal(quantity) or quantity == "0"
            replay.apply(depth)


def test_a_snapshot_opens_and_comes_again() -> None:
    """The first publication is a snapshot of a whole book, and every so many steps there is another."""
    simulated = market()
    with_snapshot = []
    for number in range(3 * SNAPSHOT_STEPS):
        publications = simulated.step(0)
        if any(depth.get("snapshot") for depth in read(publications, "depth")):
            assert publications[0][0] == "depth@TATA_INR"
            with_snapshot.append(number)
    assert with_snapshot == [0, SNAPSHOT_STEPS, 2 * SNAPSHOT_STEPS]


@settings(deadline=None, max_examples=30)
@given(seeds, instruments)
def test_the_book_is_plausible_after_every_step(seed: int, instrument: Instrument) -> None:
    """Never crossed, never empty, some ten to twenty levels a side, and few ticks between the best prices."""
    simulated = market(seed, instrument)
    for _ in range(120):
        simulated.step(0)
        for side in Side:
            levels = simulated.engine.levels(side)
            assert LEAST_LEVELS <= len(levels) <= REACH
            assert abs(levels[0][0] - levels[-1][0]) < REACH
            assert all(price > 0 and quantity > 0 for price, quantity in levels)
        bid, ask = simulated.engine.best(Side.BUY), simulated.engine.best(Side.SELL)
        assert bid is not None
        assert ask is not None
        assert 1 <= ask - bid < 2 * NEAR


def test_prices_stay_in_their_band() -> None:
    """However long it goes on, no price leaves a fifth of the opening price by more than the book's reach."""
    opening, band = 100, 20
    simulated = market(3, Instrument("PENNY_INR", "5.00"))
    lowest = highest = opening
    for _ in range(6000):
        simulated.step(0)
        lowest = min(lowest, simulated.engine.levels(Side.BUY)[-1][0])
        highest = max(highest, simulated.engine.levels(Side.SELL)[-1][0])
    assert opening - band - REACH < lowest < opening - band
    assert opening + band < highest <= opening + band + REACH


def test_a_price_too_small_for_its_tick_is_refused() -> None:
    """A market whose prices could come near zero is not simulated."""
    with pytest.raises(ValueError, match="PENNY_INR opens below 100 ticks"):
        market(1, Instrument("PENNY_INR", "4.95"))


# Trades and tickers.


class Watch:
    """Stands before an engine, checks every execution against the book of that moment, and keeps account."""

    def __init__(self, engine: MatchingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = engine
        self.ordered = self.executed = self.cancelled = 0
        self.executions: list[tuple[int, bool, int, int]] = []
        self._limit, self._market, self._cancel = engine.limit, engine.market, engine.cancel
        monkeypatch.setattr(engine, "limit", lambda side, price, quantity: self.order(side, price, quantity))
        monkeypatch.setattr(engine, "market", lambda side, quantity: self.order(side, None, quantity))
        monkeypatch.setattr(engine, "cancel", self.cancel)

    def order(self, side: Side, price: int | None, quantity: int) -> Outcome:
        book = dict(self.engine.levels(side.other))
        outcome = self._market(side, quantity) if price is None else self._limit(side, price, quantity)
        self.ordered += quantity
        for execution in outcome.executions:
            best = min(book) if side is Side.BUY else max(book)
            assert execution.price == best
            assert execution.buyer_is_maker is (side is Side.SELL)
            book[best] -= execution.quantity
            assert book[best] >= 0
            if not book[best]:
                del book[best]
            self.executions.append((execution.id, execution.buyer_is_maker, execution.price, execution.quantity))
            self.executed += execution.quantity
        self.cancelled += outcome.cancelled
        return outcome

    def cancel(self, order: int) -> Outcome:
        outcome = self._cancel(order)
        self.cancelled += outcome.cancelled
        return outcome

    def waiting(self) -> int:
        return sum(quantity for side in Side for _, quantity in self.engine.levels(side))


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_trades_are_the_engines_executions(instrument: Instrument, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each execution is published once, in order, at the best price of its moment; and every lot is accounted for."""
    simulated = market(5, instrument)
    watch = Watch(simulated.engine, monkeypatch)
    tick, lot = Increment.parse(instrument.tick), Increment.parse(instrument.lot)
    watch.ordered = watch.waiting()  # the book that was there before the watch
    trades = [trade for _ in range(400) for trade in read(simulated.step(0), "trade")]
    told = [(trade["t"], trade["m"], tick.read(trade["p"]), lot.read(trade["q"])) for trade in trades]
    assert told == watch.executions
    assert [trade["t"] for trade in trades] == list(range(1, len(trades) + 1))
    assert {trade["m"] for trade in trades} == {True, False}
    assert watch.ordered == 2 * watch.executed + watch.waiting() + watch.cancelled


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_trade_prices_lie_within_the_published_book(seed: int) -> None:
    """What a client saw before a trade explains its price: within the reach of the book, a few ticks from the best."""
    simulated, replay = market(seed), Replay()
    tick = Decimal(INSTRUMENTS[0].tick)
    for _ in range(100):
        publications = simulated.step(0)
        for depth in read(publications, "depth"):
            if depth.get("snapshot"):
                replay.apply(depth)
        for trade in read(publications, "trade"):
            assert replay.best_bid - REACH * tick <= Decimal(trade["p"]) <= replay.best_ask + REACH * tick
        for depth in read(publications, "depth"):
            replay.apply(depth)


@settings(deadline=None, max_examples=30)
@given(seeds, instruments)
def test_a_ticker_sums_up_the_trades(seed: int, instrument: Instrument) -> None:
    """A step that traded ends with one ticker; its figures are those of all trades since the opening."""
    simulated = market(seed, instrument)
    opening = Decimal(instrument.opening)
    prices, volume = [opening], Decimal(0)
    for _ in range(100):
        publications = simulated.step(0)
        trades, tickers = read(publications, "trade"), read(publications, "ticker")
        assert len(tickers) == (1 if trades else 0)
        if not trades:
            continue
        assert publications[-1][0] == f"ticker@{instrument.market}"
        prices += [Decimal(trade["p"]) for trade in trades]
        volume += sum(Decimal(trade["q"]) for trade in trades)
        ticker = tickers[0]
        assert ticker["c"] == trades[-1]["p"]
        assert ticker["o"] == instrument.opening
        assert (Decimal(ticker["h"]), Decimal(ticker["l"])) == (max(prices), min(prices))
        assert Decimal(ticker["v"]) == volume
        percent = (100 * (prices[-1] - opening) / opening).quantize(Decimal("0.01"), ROUND_HALF_UP)
        assert Decimal(ticker["P"]) == percent
        assert ticker["P"] == f"{percent:.2f}".replace("-0.00", "0.00")


# The same seed.


@settings(deadline=None, max_examples=20)
@given(seeds, st.lists(st.integers(0, 2**41), min_size=1, max_size=80))
def test_the_same_seed_and_steps_make_the_same_bytes(seed: int, times: list[int]) -> None:
    """Two engines that are told the same publish the same."""
    one, other = SimulatedEngine(seed=seed), SimulatedEngine(seed=seed)
    assert [one.step(time) for time in times] == [other.step(time) for time in times]


def test_another_seed_makes_another_market() -> None:
    """The seed matters."""
    assert SimulatedEngine(seed=1).step(0) != SimulatedEngine(seed=2).step(0)


def test_the_bytes_do_not_depend_on_the_process() -> None:
    """Processes with different string hashes publish the same, so no order of a set gets into the bytes."""
    program = (
        "from hashlib import sha256\n"
        "from marketfeed.demo.simulator import SimulatedEngine\n"
        "engine = SimulatedEngine(seed=4)\n"
        "print(sha256(repr([engine.step(step) for step in range(600)]).encode()).hexdigest())\n"
    )
    root = str(Path(marketfeed.__file__).parent.parent)
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


# Several markets.


@pytest.mark.parametrize(
    ("named", "markets"),
    [
        ((), tuple(instrument.market for instrument in INSTRUMENTS)),
        (("INFY_INR",), ("TATA_INR", "INFY_INR")),
        (("INFY_INR", "TATA_INR", "NEW_INR", "INFY_INR"), ("TATA_INR", "INFY_INR", "NEW_INR")),
    ],
)
def test_tata_is_always_traded(named: tuple[str, ...], markets: tuple[str, ...]) -> None:
    """The first market is always the same, others are as named, none is there twice, and all take turns."""
    engine = SimulatedEngine(named)
    assert engine.markets == markets
    turns = [engine.step(0)[0][0] for _ in markets * 2]
    assert turns[: len(markets)] == [f"depth@{name}" for name in markets]
    assert [turn.partition("@")[2] for turn in turns] == [*markets, *markets]


def test_a_market_does_not_depend_on_its_neighbours() -> None:
    """The same market publishes the same among others."""
    alone, among = SimulatedEngine(["TATA_INR"], seed=9), SimulatedEngine(["TATA_INR", "INFY_INR"], seed=9)
    for _ in range(50):
        assert alone.step(0) == among.step(0)
        among.step(0)


def test_an_unknown_market_has_a_price_of_its_own() -> None:
    """The opening price of a market that is not in the list follows from its name."""
    assert Instrument.named("NEW_INR") == Instrument.named("NEW_INR") != Instrument.named("OLD_INR")
    assert Instrument.named("NEW_INR").opening != Instrument.named("OLD_INR").opening
    assert Instrument.named("SBIN_INR") in INSTRUMENTS


# The service.


class Recorder:
    """A publisher that remembers."""

    def __init__(self) -> None:
        self.ready = True
        self.batches: list[list[Publication]] = []
        self.fault: Exception | None = None

    def publish(self, batch: list[Publication]) -> None:
        if self.fault is not None:
            raise self.fault
        self.batches.append(batch)

    @property
    def publications(self) -> list[Publication]:
        return [publication for batch in self.batches for publication in batch]

    def snapshots_first(self) -> bool:
        """Whether each market's first publication is a snapshot."""
        first: dict[str, bytes] = {}
        for stream, payload in self.publications:
            first.setdefault(stream.partition("@")[2], payload)
        return bool(first) and all(b'"snapshot":true' in payload for payload in first.values())


LARGEST_STEP = 60  # publications; far more than a step ever has


class Running:
    """A simulation with a clock that the test turns."""

    def __init__(self, rate: float = 50.0, prefix: str = "") -> None:
        self.clock = Clock()
        self.publisher = Recorder()
        self.service = MarketSimulation(
            self.clock, self.publisher, SimulatedEngine(), rate, prefix, now=lambda: 1700000000 + self.clock.seconds()
        )
        self.service.startService()

    def pass_seconds(self, seconds: float) -> list[Publication]:
        """Let time pass tick by tick; returns what was published meanwhile."""
        self.publisher.batches.clear()
        self.clock.pump([TICK_SECONDS] * round(seconds / TICK_SECONDS))
        return self.publisher.publications


@pytest.mark.parametrize(("rate", "seconds"), [(0.5, 120), (1, 60), (50, 20), (777, 5), (4000, 2)])
def test_the_rate_is_kept(rate: float, seconds: int) -> None:
    """Over a while there are as many publications as asked for, but for the last step."""
    running = Running(rate)
    count = len(running.pass_seconds(seconds))
    assert abs(count - rate * seconds) < LARGEST_STEP
    assert all(batch for batch in running.publisher.batches)
    running.service.stopService()


def test_publications_go_to_prefixed_channels_with_the_time() -> None:
    """The channel is the stream behind the prefix, and trades bear the time of their tick."""
    running = Running(200, prefix="exchange:")
    publications = running.pass_seconds(1)
    assert all(channel.startswith("exchange:") for channel, _ in publications)
    unprefixed = [(channel.removeprefix("exchange:"), payload) for channel, payload in publications]
    times = {trade["T"] for trade in read(unprefixed, "trade")}
    assert times
    assert all(1700000000000 < time <= 1700000001000 for time in times)
    running.service.stopService()


def test_the_market_stands_still_while_nobody_listens() -> None:
    """Nothing is published while the publisher is not ready, nor made up for later; then books begin anew."""
    running = Running()
    running.pass_seconds(5)
    running.publisher.ready = False
    assert running.pass_seconds(60) == []
    running.publisher.ready = True
    publications = running.pass_seconds(2)
    assert running.publisher.snapshots_first()
    assert len(publications) < 2 * 50 + LARGEST_STEP
    running.service.stopService()


def test_a_late_tick_is_made_up_for_without_a_burst() -> None:
    """After a short pause the next ticks carry up to twice their share, until nothing is missing."""
    running = Running(1000)
    running.pass_seconds(1)
    running.publisher.batches.clear()
    running.clock.advance(0.5)
    running.clock.pump([TICK_SECONDS] * 20)
    assert max(len(batch) for batch in running.publisher.batches) < 2 * 1000 * TICK_SECONDS + LARGEST_STEP
    assert abs(len(running.publisher.publications) - 1500) < LARGEST_STEP
    running.service.stopService()


def test_a_long_pause_is_mostly_forgotten() -> None:
    """Of an hour's pause one second is made up for."""
    running = Running(1000)
    running.pass_seconds(1)
    running.publisher.batches.clear()
    running.clock.advance(3600)
    running.clock.pump([TICK_SECONDS] * 100)
    assert max(len(batch) for batch in running.publisher.batches) < 2 * 1000 * TICK_SECONDS + LARGEST_STEP
    assert abs(len(running.publisher.publications) - 6000) < LARGEST_STEP
    running.service.stopService()


def test_a_publisher_that_raises_does_not_end_the_market(logged: LogCapture) -> None:
    """The failure is logged, at most once a second, and afterwards every book begins anew."""
    running = Running()
    running.pass_seconds(1)
    running.publisher.fault = RuntimeError("no such luck")
    running.pass_seconds(3)
    assert 1 <= len(logged.flush_failures(RuntimeError)) <= 3
    running.publisher.fault = None
    assert len(running.pass_seconds(4)) > 2 * 50
    assert running.publisher.snapshots_first()
    running.service.stopService()


def test_it_stops_and_starts_again() -> None:
    """A stopped simulation leaves no timer; started again it goes on where it was."""
    running = Running()
    before = running.pass_seconds(1)
    running.service.stopService()
    assert running.clock.getDelayedCalls() == []
    running.clock.advance(100)
    running.service.startService()
    after = running.pass_seconds(1)
    assert abs(len(after) - 50) < LARGEST_STEP
    assert read(after, "trade")[0]["t"] == 1 + max(
        trade["t"] for trade in read(before, "trade") if trade["s"] == read(after, "trade")[0]["s"]
    )
    running.service.stopService()
    running.service.stopService()


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), MOST_RATE + 1])
def test_a_rate_that_cannot_be_kept_is_refused(rate: float) -> None:
    """Rates are above zero, and bounded."""
    with pytest.raises(ValueError, match="expected a rate above 0"):
        MarketSimulation(Clock(), Recorder(), SimulatedEngine(), rate)


class Kept:
    """What was kept, by key; and what was kept or published, in order."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}

    def keep(self, states: list[Publication]) -> None:
        self.states |= dict(states)


def test_states_are_kept_beside_the_streams() -> None:
    """From the first tick on, of every market, and as new as what is published with them, never older."""
    clock, recorder, kept = Clock(), Recorder(), Kept()
    engine = SimulatedEngine()
    service = MarketSimulation(clock, recorder, engine, 200, "p:", keeper=kept)
    service.startService()
    clock.advance(TICK_SECONDS)
    assert kept.states.keys() == {
        f"p:snapshot:{kind}@{name}" for kind in ("depth", "ticker") for name in engine.markets
    }
    books: defaultdict[str, Replay] = defaultdict(Replay)
    tickers: dict[str, bytes] = {}
    for _ in range(200):
        published, recorder.batches[:] = recorder.publications, []
        for stream, payload in published:
            kind, _, name = stream.removeprefix("p:").partition("@")
            if kind == "depth":
                books[name].apply(msgspec.json.decode(payload))
            elif kind == "ticker":
                tickers[name] = payload
        for name, book in books.items():
            state = Replay()
            state.apply(msgspec.json.decode(kept.states[f"p:snapshot:depth@{name}"]))
            assert (state.last_update, state.sides) == (book.last_update, book.sides)
        for name, ticker in tickers.items():
            assert kept.states[f"p:snapshot:ticker@{name}"] == ticker
        clock.advance(TICK_SECONDS)
    service.stopService()
