"""The candle service as a daemon sees it: told what is wanted of it, and looked at whether it is there.

1. It publishes what somebody wants: every daemon says so of the streams that it holds, again and again, and at once of
   one that is new.
2. It is there while its lease is. From one service to the next the lease is free for some seconds, so it counts as
   away only when that has taken longer.
3. While nobody holds a stream of candles nobody asks anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from marketfeed.boundaries import Clock
from marketfeed.model.candle_store import CandleKeys
from marketfeed.redis.commands import CommandFault, KeyedCommands, OutOfReach
from marketfeed.runtime.logs import Log

__all__ = ["LOOK_SECONDS", "CandleWatch"]

LOOK_SECONDS = 1.0
SAID_SECONDS = 5.0
AWAY_SECONDS = 6.0
"""A service that takes over from another one needs no longer."""
_KEPT_SECONDS = 60.0
_AT_ONCE = 500


class CandleWatch(Service):
    """Looks for the service. `streams`: those of candles that are held; `lost` hears since when it is away, in ms since
    1970, and `found` that it is not.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        commands: KeyedCommands,
        keys: CandleKeys,
        streams: Callable[[], Sequence[str]],
        lost: Callable[[int], None],
        found: Callable[[], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._commands = commands
        self._keys = keys
        self._streams = streams
        self._lost = lost
        self._found = found
        self._now = now
        self._said: set[str] = set()
        self._said_at = float("-inf")
        self._free_since: float | None = None
        self._is_away = False
        self._last_fault = ""
        self._work: Deferred[None] | None = None

    def startService(self) -> None:
        Service.startService(self)
        self._work = Deferred.fromCoroutine(self._look_again_and_again())

    def stopService(self) -> None:
        Service.stopService(self)
        if self._work is not None:
            self._work.cancel()
            self._work = None

    async def _look_again_and_again(self) -> None:
        try:
            while True:
                streams = self._streams()
                try:
                    if streams:
                        await self._say(streams)
                        await self._look()
                    else:
                        self._said.clear()
                        self._free_since = None
                except CommandFault as fault:
                    self._complain(fault)
                except CancelledError:
                    raise
                except Exception:
                    self.log.failure("candles: a look for their service stumbled")
                await deferLater(self._clock, LOOK_SECONDS)
        except CancelledError:
            pass

    async def _say(self, streams: Collection[str]) -> None:
        """That these are wanted."""
        is_time = self._clock.seconds() - self._said_at >= SAID_SECONDS
        new = list(streams) if is_time else [stream for stream in streams if stream not in self._said]
        key, now = self._keys.wanted, int(self._now())
        for at in range(0, len(new), _AT_ONCE):
            words = [word for stream in new[at : at + _AT_ONCE] for word in (now, stream)]
            await self._commands.ask_for(key.encode(), "ZADD", key, *words)
        if is_time:
            self._said_at = self._clock.seconds()
            await self._commands.ask_for(key.encode(), "ZREMRANGEBYSCORE", key, "-inf", int(now - _KEPT_SECONDS))
        self._said = set(streams)

    async def _look(self) -> None:
        key = self._keys.lease.encode()
        if await self._commands.ask_for(key, "EXISTS", key):
            self._last_fault = ""
            self._free_since = None
            if self._is_away:
                self._is_away = False
                self.log.info("candles: there is a service")
                self._found()
            return
        now = self._clock.seconds()
        if self._free_since is None:
            self._free_since = now
        if not self._is_away and now - self._free_since >= AWAY_SECONDS:
            self._is_away = True
            self.log.error("candles: nobody makes any: no marketfeed candles runs, nor a daemon with --candles")
            self._lost(int((self._now() - AWAY_SECONDS) * 1000))

    def _complain(self, fault: CommandFault) -> None:
        why = str(fault)
        if why != self._last_fault and not isinstance(fault, OutOfReach):
            self._last_fault = why
            self.log.error("candles: Redis does not say whether anybody makes them: {why}", why=why)
