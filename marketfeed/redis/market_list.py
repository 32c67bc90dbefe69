"""The markets that were heard of, in a key of Redis, so that all instances list the same.

1. The sorted set `<prefix>markets` has the names of markets, each with when it was last heard of, in ms since 1970. A
   market of which nobody has heard for `KEPT_SECONDS` is not in it any more.
2. Each instance adds what it hears of, once in `AGAIN_SECONDS` for each market, and reads what others have added.
   Anybody else may add some: an engine, or a service beside it.
3. Who asks at the start waits until it was read once, for `FIRST_SECONDS` at most.
4. Where the key cannot be read or written, the markets are those that this process has heard of, and those that it has
   read before. That is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock
from marketfeed.model.kinds.values import is_market
from marketfeed.redis.commands import CommandFault, KeyedCommands, OutOfReach
from marketfeed.runtime.logs import Log

__all__ = [
    "AGAIN_SECONDS",
    "FIRST_SECONDS",
    "KEPT_SECONDS",
    "LOOK_SECONDS",
    "MOST_MARKETS",
    "MarketList",
    "market_list_key",
]

FIRST_SECONDS = 3.0
LOOK_SECONDS = 5.0
AGAIN_SECONDS = 3600.0
KEPT_SECONDS = 7 * 86400.0
MOST_MARKETS = 10_000
_AGAIN_AT_FIRST = 0.1
_HEARD_SECONDS = 1.0


def market_list_key(prefix: str) -> str:
    """The key in which the markets are."""
    return f"{prefix}markets"


class MarketList(Service):
    """Keeps the list. `heard`: the markets of which something has come here; `now`: s since 1970."""

    log = Log()

    def __init__(
        self,
        clock: Clock,
        commands: KeyedCommands,
        channel_prefix: str,
        heard: Callable[[], Iterable[str]],
        now: Callable[[], float],
    ) -> None:
        self._commands = commands
        self._key = market_list_key(channel_prefix).encode()
        self._heard = heard
        self._now = now
        self._said: dict[str, float] = {}  # when this process has last told Redis of a market, in s since 1970
        self._read: frozenset[str] = frozenset()
        self._markets: frozenset[str] = frozenset()
        self._heard_until = 0.0  # of the clock: until then nobody is asked again what was heard here
        self._fault = ""
        self._work: Deferred[Any] | None = None
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._is_known = False
        self._wait_until = 0.0  # of the clock
        self._waiting: dict[Deferred[None], None] = {}

    def startService(self) -> None:
        Service.startService(self)
        self._wait_until = self._clock.seconds() + FIRST_SECONDS
        self._look()

    def stopService(self) -> None:
        Service.stopService(self)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._work is not None:
            self._work.cancel()
        self._settle_waiting()

    @property
    def markets(self) -> frozenset[str]:
        """Their names; the same object for as long as they are the same. What was heard here is in it within 1 s."""
        if self._clock.seconds() >= self._heard_until:
            self._settle(self._heard())
        return self._markets

    def known(self) -> Deferred[None]:
        """Wait until `markets` are those of all instances, or cannot be. It never fails; who goes cancels it."""
        if self._is_known or not self.running:
            return succeed(None)
        waiting = Deferred[None](lambda waiting: self._waiting.pop(waiting, None))
        self._waiting[waiting] = None
        return waiting

    def _settle_waiting(self) -> None:
        self._is_known = True
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            each.callback(None)

    def _look(self) -> None:
        self._next = None
        self._work = Deferred.fromCoroutine(self._exchange())
        self._work.addErrback(self._stumbled).addCallback(self._done)

    def _done(self, is_reached: bool | None) -> None:
        self._work = None
        if not self.running:
            return
        if is_reached or self._clock.seconds() >= self._wait_until:
            self._settle_waiting()
        self._next = self._clock.callLater(LOOK_SECONDS if self._is_known else _AGAIN_AT_FIRST, self._look)

    def _stumbled(self, failure: Failure) -> bool:
        if self.running:
            self.log.failure("the list of markets: internal error", failure)
        return True

    async def _exchange(self) -> bool:
        """Tell Redis what was heard here, and read what all have heard. Whether it could be asked."""
        now = self._now()
        heard = set(self._heard())
        new = sorted(name for name in heard if now - self._said.get(name, 0.0) >= AGAIN_SECONDS)
        self._settle(heard)
        faults = [await self._tried(self._add(new, now)), await self._tried(self._get(now))]
        self._settle(heard)
        fault = next(filter(None, faults), "")
        if fault and fault != self._fault:
            line = "redis: the markets in {key} are not shared with other instances: {why}"
            self.log.warn(line, key=self._key.decode(), why=fault)
        if None not in faults:
            self._fault = fault
        return None not in faults

    async def _tried(self, work: Coroutine[Any, Any, None]) -> str | None:
        """Empty, or what the server says against it; None: it is out of reach, and whose link it is has said so."""
        try:
            await work
        except OutOfReach:
            return None
        except CommandFault as fault:
            return str(fault)
        return ""

    async def _add(self, names: list[str], now: float) -> None:
        """Once for all that are new; and what is too old goes."""
        if names:
            at = str(int(now * 1000))
            words = [word for name in names for word in (at, name)]
            await self._commands.ask_for(self._key, "ZADD", self._key, "GT", *words)
            self._said.update(dict.fromkeys(names, now))
            await self._commands.ask_for(self._key, "ZREMRANGEBYSCORE", self._key, "-inf", f"({_oldest(now)}")

    async def _get(self, now: float) -> None:
        words = ("ZREVRANGEBYSCORE", self._key, "+inf", _oldest(now), "LIMIT", "0", str(MOST_MARKETS))
        found = await self._commands.ask_for(self._key, *words)
        self._read = frozenset(filter(is_market, [name.decode("latin-1") for name in found]))

    def _settle(self, heard: Iterable[str]) -> None:
        self._heard_until = self._clock.seconds() + _HEARD_SECONDS
        markets = self._read.union(heard)
        if markets != self._markets:
            self._markets = markets


def _oldest(now: float) -> str:
    return str(int((now - KEPT_SECONDS) * 1000))
