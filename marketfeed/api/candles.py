"""What an admin port tells of a candle service, its own or a daemon's: whether it works, and what it has counted.

The rules for numbers are those of `metrics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from prometheus_client.core import Metric

from marketfeed.api.exposition import Exposition, counter, counters, gauge, of_build, of_links, of_system
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.file_limit import file_limit

__all__ = ["CandleHealth", "CandleMetrics", "Candles", "of_candles"]

_TAKEN = "taken"


class Candles(Protocol):
    """The candle service. `written`: changes of markets that Redis has."""

    written: int

    @property
    def counts(self) -> Counter[str]:
        """Trades that counted, as `taken`, and those that did not, by reason."""

    @property
    def newest(self) -> int:
        """When the newest trade came, in ms since 1970."""

    @property
    def is_leading(self) -> bool:
        """This one is at work."""

    @property
    def is_reached(self) -> bool:
        """Trades come, as far as is known."""

    @property
    def fault(self) -> str:
        """Why Redis was not written to at the last try; empty: it was."""

    @property
    def markets(self) -> int:
        """How many it has."""


class CandleHealth:
    """Whether this process does its work, or would if the one that does it went, and why not."""

    def __init__(self, candles: Candles) -> None:
        self._candles = candles

    @property
    def reasons(self) -> list[str]:
        """Why it does not."""
        candles = self._candles
        reasons = {
            "source-down": candles.is_leading and not candles.is_reached,
            "target-down": bool(candles.fault),
        }
        return [reason for reason, holds in reasons.items() if holds]


class CandleMetrics(Exposition):
    """All that a scrape has. `links`: those to Redis at the moment."""

    def __init__(self, candles: Candles, links: Callable[[], Sequence[LinkKeeper[Any]]]) -> None:
        self._candles = candles
        self._links = links
        super().__init__()

    def collect(self) -> Iterator[Metric]:
        yield from of_candles(self._candles)
        yield from of_links(self._links())
        yield from of_system(file_limit())
        yield of_build()


def of_candles(candles: Candles) -> Iterator[Metric]:
    """What it has counted."""
    yield gauge("candles_leader", "1: this process makes the candles; 0: another one may.", int(candles.is_leading))
    yield gauge("candles_markets", "Markets of which it makes candles.", candles.markets)
    yield counter("candles_trades", "Trades that count in candles.", candles.counts[_TAKEN])
    dropped = {reason: count for reason, count in candles.counts.items() if reason != _TAKEN}
    yield counters("candles_dropped", "Trades that count in none.", ("reason",), dropped)
    yield counter("candles_written", "Changes of markets that Redis has.", candles.written)
    yield gauge("candles_newest_trade_seconds", "When the newest trade came, in s since 1970.", candles.newest / 1000)
