"""Where the trades come from: channels, as they are heard, or Redis Streams, each entry once.

1. Of channels nothing is known but what is heard: what is published while the link is away is in no candle, which the
   log says. All of it has come when a PING is answered that was sent later on the same link. Markets are found where
   they were known before, and as they are heard of.
2. Streams are read on behind where the market was written, and one that never was, from its beginning. Markets are
   found among the keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater

from marketfeed.boundaries import Clock, Subscriber
from marketfeed.candles.lease import LOOK_SECONDS
from marketfeed.model.candle_store import CandleKeys
from marketfeed.model.entry_ids import read_id
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.trade import TRADE
from marketfeed.model.selection import StreamSelection, Subscribed
from marketfeed.model.stream_globs import parse_glob
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.commands import CommandFault, KeyedCommands
from marketfeed.redis.preload import Preload
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.routed_listener import make_listener
from marketfeed.redis.sources import source_of_streams
from marketfeed.redis.stream_reads import Reading
from marketfeed.redis.topology import key_slot
from marketfeed.redis.where import Where
from marketfeed.runtime.logs import Log

__all__ = ["HeardTrades", "ReadTrades", "Taker", "Trades"]

_BEGINNING = b"0-0"
_REST_SECONDS = 0.05
"""Candles are published a few times a second; more often is not to be read, for it costs the server time."""


class Taker(Protocol):
    """Who takes the trades."""

    def found(self, market: str) -> None:
        """There are trades of this market; it may be said again."""

    def take(self, market: str, payload: bytes, came: int, position: bytes) -> None:
        """One publication, which came at `came`, in ms since 1970. `position`: its entry, where there are entries."""

    def refused(self, what: str, why: str) -> None:
        """The server does not permit some of them."""


class HeardTrades(MultiService):
    """A `Trades` of channels, and the sink of its listener. `selection`: which; `commands`: for the known ones."""

    log = Log()

    def __init__(
        self,
        clock: Clock,
        where: Where,
        prefix: str,
        selection: StreamSelection,
        taker: Taker,
        commands: KeyedCommands,
        now: Callable[[], float] = time.time,
    ) -> None:
        MultiService.__init__(self)
        self._clock = clock
        self._selection = selection
        self._prefix = prefix
        self._subscribed = Subscribed(selection, prefix.encode())
        self._key = CandleKeys(prefix).tickers
        self._taker = taker
        self._commands = commands
        self._now = now
        self._came = 0
        self.is_reached = False
        subscribes = selection.commands(prefix.encode())
        self._listener = make_listener(
            clock, where.channels, subscribes, self, is_sharded=where.is_sharded, what=" trades"
        )
        cast(IService, self._listener).setServiceParent(self)
        self._search: Deferred[None] | None = None

    def startService(self) -> None:
        MultiService.startService(self)
        self._search = Deferred.fromCoroutine(self._find())

    def stopService(self) -> Deferred[None]:
        if self._search is not None:
            self._search.cancel()
        stopped: Deferred[None] = MultiService.stopService(self)
        return stopped

    async def _find(self) -> None:
        """The markets that were known before: their candles go on, whether or not anything is heard of them."""
        try:
            while True:
                try:
                    found = await self._commands.ask_for(self._key.encode(), "HGETALL", self._key)
                    break
                except CommandFault:
                    await deferLater(self._clock, LOOK_SECONDS)
        except CancelledError:
            return
        for name in found[::2]:
            if self._selection.first(TRADE.name.encode() + b"@" + name) is not None:
                self._taker.found(name.decode("latin-1"))

    def follow(self, market: str, position: bytes) -> None:
        """Nothing is to be asked for."""

    def reached_end(self, market: str) -> Deferred[bool]:
        """See `Trades`."""
        if not self.is_reached:
            return succeed(False)
        return self._listener.catch_up(f"{self._prefix}{TRADE.name}@{market}".encode()).addCallback(self._is_at_end)

    def _is_at_end(self, has_caught_up: bool) -> bool:
        return has_caught_up and self.is_reached

    def arrived(self) -> None:
        self._came = int(self._now() * 1000)

    def publication(self, subscription: bytes, channel: bytes, payload: bytes) -> None:
        stream = self._subscribed.stream(subscription, channel) or b""
        kind, _, market = stream.decode("latin-1").partition("@")
        if kind == TRADE.name:
            self._taker.take(market, payload, self._came, b"")

    def flush(self) -> None:
        """Nothing waits for that."""

    def complete(self) -> None:
        self.is_reached = True
        self.log.info("candles: every channel is listened to")

    def refused(self, subscription: bytes, why: str) -> bool:
        self._taker.refused(self._subscribed.text(subscription), why)
        return True

    def lost(self, good_at: float) -> None:
        if self.is_reached:
            self.is_reached = False
            self.log.error("candles: trades that are published from now on are in no candle, until all is heard again")


class ReadTrades(MultiService):
    """A `Trades` of Redis Streams, and the sink of their source. `patterns`: which are looked for."""

    log = Log()

    def __init__(
        self,
        clock: Clock,
        where: Where,
        prefix: str,
        patterns: Sequence[str],
        taker: Taker,
        commands: RoutedCommands,
    ) -> None:
        MultiService.__init__(self)
        self._prefix = prefix
        self._has_slots = where.has_slots
        self._taker = taker
        archive = RedisArchive(commands, prefix)
        self._source = source_of_streams(
            clock, where.keys, self, prefix, archive, has_slots=where.has_slots, what=" trades", rest=_REST_SECONDS
        )
        globs = [parse_glob(pattern, BUILT_IN) for pattern in patterns]
        preload = Preload(clock, commands.each, self.discovered, globs, prefix, None)
        for each in (self._source, preload):
            cast(IService, each).setServiceParent(self)
        self._away: set[str] = set()

    @property
    def is_reached(self) -> bool:
        """No server is out of reach."""
        return not self._away

    def follow(self, market: str, position: bytes) -> None:
        """See `Trades`."""
        stream = f"{TRADE.name}@{market}"
        key = (self._prefix + stream).encode()
        reading = Reading(stream, key, key_slot(key) if self._has_slots else 0)
        reading.at = position or _BEGINNING
        reading.told = reading.at.decode()
        self._source.want(stream, reading)

    def reached_end(self, market: str) -> Deferred[bool]:
        """See `Trades`."""
        return self._source.caught_up(f"{TRADE.name}@{market}").addCallback(lambda server: server is not None)

    # What the source says.

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        assert offset is not None
        came, _ = read_id(offset)
        self._taker.take(stream.partition("@")[2], payload, came, offset.encode())

    def discovered(self, stream: str) -> None:
        kind, _, market = stream.partition("@")
        if kind == TRADE.name:
            self._taker.found(market)

    def missed(self, stream: str, seconds: float) -> None:
        self.log.error("candles: entries of {stream} are gone that were in no candle yet", stream=stream)

    def refused(self, stream: str, why: str) -> None:
        self._taker.refused(stream, why)

    def reached(self, link: str) -> None:
        self._away.discard(link)

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        if link:
            self._away.add(link)

    # A read is in no hurry here, and where a stream begins is known.

    def confirmed(self, stream: str, after: str | None = None) -> None: ...
    def flush(self) -> None: ...
    def behind(self) -> list[Subscriber]:
        return []


class Trades(Protocol):
    """Where they come from; a service as well.

    `is_reached`: nothing that is published now escapes.
    """

    @property
    def is_reached(self) -> bool: ...

    def follow(self, market: str, position: bytes) -> None:
        """Bring those of a market behind this position; b"": from the beginning."""

    def reached_end(self, market: str) -> Deferred[bool]:
        """Wait until all that has been published by now was taken. Whether that is so; it never fails."""
