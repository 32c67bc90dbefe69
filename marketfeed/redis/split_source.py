"""A source made of two: what the engine publishes comes as it does, and candles through channels.

The candle service publishes by PUBLISH, also where the engine adds to Redis Streams. Then this is the source: it asks
the one or the other, by the stream's kind. The one for candles is made when the first of their streams is wanted: a
daemon whom nobody asks for candles has no link for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Archive, Snapshots
from marketfeed.redis.routed_source import RoutedSource

__all__ = ["SplitSource"]


class SplitSource(MultiService):
    """A `Source`, and its own `Snapshots`. `make`: makes the one for candles, from which `kinds` come, by name."""

    def __init__(self, engine: RoutedSource, make: Callable[[], RoutedSource], kinds: Collection[str]) -> None:
        MultiService.__init__(self)
        self._engine = engine
        self._make = make
        self._candles: RoutedSource | None = None
        self._kinds = frozenset(kinds)
        cast(IService, engine).setServiceParent(self)

    @property
    def archive(self) -> Archive | None:
        """The engine's. Candles have none."""
        return self._engine.archive

    @property
    def snapshots(self) -> Snapshots:
        """Of both."""
        return self

    def read(self, stream: str) -> Deferred[bytes | None]:
        """See `Snapshots`."""
        snapshots = self._of(stream).snapshots
        return succeed(None) if snapshots is None else snapshots.read(stream)

    def want(self, stream: str) -> int | None:
        return self._of(stream).want(stream)

    def unwant(self, stream: str) -> None:
        self._of(stream).unwant(stream)

    def caught_up(self, stream: str) -> Deferred[str | None]:
        return self._of(stream).caught_up(stream)

    def _of(self, stream: str) -> RoutedSource:
        if stream.partition("@")[0] not in self._kinds:
            return self._engine
        if self._candles is None:
            self._candles = self._make()
            cast(IService, self._candles).setServiceParent(self)
        return self._candles
