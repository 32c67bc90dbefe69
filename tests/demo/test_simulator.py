"""Simulated markets together: the same for the same seed, in turn, and published at a rate."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

import marketfeed
from marketfeed.demo.market import INSTRUMENTS, Publication
from marketfeed.demo.simulator import MOST_RATE, TICK_SECONDS, MarketSimulation, SimulatedEngine
from tests.conftest import LogCapture
from tests.demo.replay import Replay, read

seeds = st.integers(0, 2**32)


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
        self.may_open = True
        self.service = MarketSimulation(
            self.clock,
            self.publisher,
            SimulatedEngine(),
            rate,
            prefix,
            now=lambda: 1700000000 + self.clock.seconds(),
            may_open=lambda: self.may_open,
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


def test_the_market_opens_once() -> None:
    """When it may; what ceases to look at it later does not close it."""
    running = Running()
    running.may_open = False
    assert running.pass_seconds(60) == []
    running.may_open = True
    assert len(running.pass_seconds(2)) < 2 * 50 + LARGEST_STEP
    assert running.publisher.snapshots_first()
    running.may_open = False
    assert running.pass_seconds(2)
    running.service.stopService()


@pytest.mark.parametrize(("pause", "ticks", "published"), [(0.5, 20, 1500), (3600, 100, 6000)])
def test_a_pause_is_made_up_for_without_a_burst(pause: float, ticks: int, published: int) -> None:
    """The next ticks carry up to twice their share, until nothing is missing; of an hour one second is made up for."""
    running = Running(1000)
    running.pass_seconds(1)
    running.publisher.batches.clear()
    running.clock.advance(pause)
    running.clock.pump([TICK_SECONDS] * ticks)
    assert max(len(batch) for batch in running.publisher.batches) < 2 * 1000 * TICK_SECONDS + LARGEST_STEP
    assert abs(len(running.publisher.publications) - published) < LARGEST_STEP
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
    last = {trade["s"]: trade["t"] for trade in read(before, "trade")}
    first = {trade["s"]: trade["t"] for trade in reversed(read(after, "trade"))}
    assert last.keys() & first.keys()
    assert all(first[market] == last[market] + 1 for market in last.keys() & first.keys())
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
