"""What was traded before a simulated market opened: the same each time, and it leads to the market as it opens."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.demo.market import INSTRUMENTS, Instrument
from marketfeed.demo.past import EVERY_MS, past, trades_in
from marketfeed.demo.simulator import SimulatedEngine
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from tests.strategies import property_test

NOW = 1_790_000_000_000

instruments = st.sampled_from([*INSTRUMENTS, Instrument.named("NEW_INR"), Instrument("CHEAP", "5.00")])


@property_test
@given(instruments, st.integers(0, 2), st.integers(0, 2**32), st.integers(10**12, 2 * 10**12))
def test_a_past(instrument: Instrument, hours: int, seed: int, until: int) -> None:
    """Trades that a daemon accepts, in their order, with ids without holes, at prices of the market."""
    trades = list(past(instrument, until, hours, seed))
    assert trades == list(past(instrument, until, hours, seed))
    assert len(trades) == trades_in(hours)
    times = [each.time for each in trades]
    assert times == sorted(times)
    assert all(until - hours * 3_600_000 <= time < until for time in times)
    name = f"trade@{instrument.market}"
    reader = PublicationReader(StreamKinds().parse(name), (name,), 262144)
    step, lot, opening = map(Decimal, (instrument.price_step, instrument.quantity_step, instrument.opening))
    for number, (time, payload) in enumerate(trades, 1):
        data = msgspec.json.decode(reader.read(payload))
        assert (data["t"], data["T"], data["s"]) == (number, time, instrument.market)
        assert Decimal(data["p"]) % step == Decimal(data["q"]) % lot == 0
        assert Decimal(data["q"]) > 0
        assert abs(Decimal(data["p"]) - opening) <= opening / 5
    if trades:
        assert data["p"] == instrument.opening


def test_every_minute_has_trades() -> None:
    """So that no candle is missing, and none is empty."""
    minutes = {each.time // 60_000 for each in past(INSTRUMENTS[0], NOW, 6)}
    assert len(minutes) == 6 * 60 + bool(NOW % 60_000)
    assert EVERY_MS < 60_000


def test_markets_and_seeds_differ() -> None:
    """Each market has a past of its own, and each seed."""
    prices = {
        tuple(msgspec.json.decode(each.payload)["p"] for each in past(instrument, NOW, 1, seed))
        for instrument in INSTRUMENTS
        for seed in (1, 2)
    }
    assert len(prices) == 2 * len(INSTRUMENTS)


def test_prices_move() -> None:
    """As far as on a chart there is something to see."""
    prices = [Decimal(msgspec.json.decode(each.payload)["p"]) for each in past(INSTRUMENTS[0], NOW, 6)]
    assert max(prices) - min(prices) > prices[-1] / 500


@pytest.mark.parametrize("hours", [0, 2])
def test_the_market_goes_on_from_there(hours: int) -> None:
    """Its first trade has the id that follows the last one of the past."""
    engine = SimulatedEngine(["TATA_INR", "BTC_INR"], hours=hours)
    last = {market: len(list(engine.past_of(market, NOW))) for market in engine.markets}
    assert last == {"TATA_INR": trades_in(hours), "BTC_INR": trades_in(hours)}
    found: dict[str, int] = {}
    while len(found) < 2:
        for stream, payload in engine.step(NOW):
            if stream.startswith("trade@"):
                found.setdefault(stream.removeprefix("trade@"), msgspec.json.decode(payload)["t"])
    assert found == {market: count + 1 for market, count in last.items()}


def test_what_is_known_of_a_market() -> None:
    """What is traded for what, in which steps; a name without `_` says nothing of it."""
    engine = SimulatedEngine(["BTC_INR", "ODD"])
    known = [(each.base, each.quote, each.price_step, each.quantity_step) for each in engine.instruments]
    assert known == [
        ("TATA", "INR", "0.05", "1"),
        ("BTC", "INR", "100.00", "0.0001"),
        ("", "", "0.05", "1"),
    ]
