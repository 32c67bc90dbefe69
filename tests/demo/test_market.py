"""A simulated market: what is published of it."""

from __future__ import annotations

from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.demo.market import INSTRUMENTS, LEAST_LEVELS, NEAR, REACH, SNAPSHOT_STEPS, Instrument, SimulatedMarket
from marketfeed.demo.matching import Increment, MatchingEngine, Outcome, Side
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from tests.demo.replay import Replay, read

seeds = st.integers(0, 2**32)
instruments = st.sampled_from(INSTRUMENTS)


def market(seed: int = 1, instrument: Instrument = INSTRUMENTS[0]) -> SimulatedMarket:
    return SimulatedMarket(instrument, Random(seed))


def book_of(engine: MatchingEngine, instrument: Instrument) -> dict[str, dict[Decimal, Decimal]]:
    tick, lot = Decimal(instrument.price_step), Decimal(instrument.quantity_step)
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
    tick, lot = Increment.parse(instrument.price_step), Increment.parse(instrument.quantity_step)
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
    tick = Decimal(INSTRUMENTS[0].price_step)
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


def test_an_unknown_market_has_a_price_of_its_own() -> None:
    """The opening price of a market that is not in the list follows from its name."""
    assert Instrument.named("NEW_INR") == Instrument.named("NEW_INR") != Instrument.named("OLD_INR")
    assert Instrument.named("NEW_INR").opening != Instrument.named("OLD_INR").opening
    assert Instrument.named("SBIN_INR") in INSTRUMENTS
