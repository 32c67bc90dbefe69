"""A source made of two: each stream is asked of the one that has it; the one for candles is made when it is needed."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Archive
from marketfeed.redis.routed_source import RoutedSource
from marketfeed.redis.split_source import SplitSource

CANDLES = "kline_1m@A"
KINDS = ("kline_1m", "!miniTicker")


class FakeRouted(Service):
    """One of the two; `calls`: what it was asked."""

    def __init__(self, *, has_states: bool = True) -> None:
        self.calls: list[tuple[str, str]] = []
        self.archive = cast(Archive, object())
        self.snapshots = self if has_states else None

    def want(self, stream: str) -> int | None:
        self.calls.append(("want", stream))
        return 7

    def unwant(self, stream: str) -> None:
        self.calls.append(("unwant", stream))

    def caught_up(self, stream: str) -> Deferred[str | None]:
        self.calls.append(("caught_up", stream))
        return succeed("5-0")

    def read(self, stream: str) -> Deferred[bytes | None]:
        self.calls.append(("read", stream))
        return succeed(b"state")


class Split:
    """A source that runs, of an engine's part and the one that it makes; `made`: as often as it did."""

    def __init__(self, *, has_states: bool = True) -> None:
        self.engine = FakeRouted(has_states=has_states)
        self.made: list[FakeRouted] = []
        self.source = SplitSource(cast(RoutedSource, self.engine), self._make, KINDS)
        self.source.startService()

    def _make(self) -> RoutedSource:
        self.made.append(FakeRouted(has_states=True))
        return cast(RoutedSource, self.made[-1])

    def ask(self, stream: str) -> list[Any]:
        """All that may be asked of a stream."""
        return [
            self.source.want(stream),
            self.source.caught_up(stream).result,
            self.source.snapshots.read(stream).result,
            self.source.unwant(stream),
        ]


ALL = ("want", "caught_up", "read", "unwant")


@pytest.mark.parametrize("stream", ["trade@A", "kline_1h@A", "miniTicker@A", "trade@kline_1m"])
def test_what_the_engine_has(stream: str) -> None:
    """All that is of no kind of candles. A daemon that is asked for nothing else has no link for them."""
    split = Split()
    assert split.ask(stream) == [7, "5-0", b"state", None]
    assert split.engine.calls == [(call, stream) for call in ALL]
    assert not split.made


def test_candles() -> None:
    """From the other one, which is made once, runs, and ends with the source."""
    split = Split()
    for stream in (CANDLES, "!miniTicker@arr"):
        assert split.ask(stream) == [7, "5-0", b"state", None]
    (candles,) = split.made
    assert candles.calls == [(call, stream) for stream in (CANDLES, "!miniTicker@arr") for call in ALL]
    assert not split.engine.calls
    assert candles.running
    split.source.stopService()
    assert not candles.running
    assert not split.engine.running


def test_a_state_of_candles_alone() -> None:
    """Whoever asks for one first, asks the right one."""
    split = Split()
    assert split.source.snapshots.read(CANDLES).result == b"state"
    assert [each.calls for each in split.made] == [[("read", CANDLES)]]


def test_where_engines_keep_no_states() -> None:
    """There is none, which is known at once; candles have theirs."""
    split = Split(has_states=False)
    assert split.source.snapshots.read("depth@A").result is None
    assert split.source.snapshots.read(CANDLES).result == b"state"


def test_the_past_is_the_engines() -> None:
    """Candles have none."""
    split = Split()
    split.ask(CANDLES)
    assert split.source.archive is split.engine.archive
