"""Offsets that another process gave, made into own ones (docs/operations/workers.md#resumes).

1. Only what can be shown is used. How two processes' numbers go together is found as `alignment` says, and holds as
   long as both epochs do: it is asked for once, however many clients come with such offsets. A client's own word is no
   part of it, so that one who invents offsets harms nobody else.
2. One question is under way at a time, for `MOST_ASKED` streams at most. What is wanted meanwhile comes into the next.
3. A client waits so long and no longer; then its offset is what it is here, and not reached.
4. Whoever lost the stream meanwhile, so that its epoch is another one, knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock, Past, Pasts
from marketfeed.hub.alignment import DIGESTS, MOST_BETWEEN, shift_between
from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.pasts import MOST_ASKED, OwnPasts
from marketfeed.hub.stream import LiveStream
from marketfeed.hub.upstream import Upstream
from marketfeed.runtime.logs import Log

__all__ = ["SECONDS", "Translations"]

SECONDS = 2.0
"""How long a client waits for it."""
_MOST_KNOWN = 20_000
"""Pairs of epochs whose shift is kept."""

_Key = tuple[str, str]
"""A stream, and another's epoch of it."""


class _Waiter(msgspec.Struct, eq=False):
    """Somebody who waits for the `missing` ones, `until` then."""

    missing: set[_Key]
    until: float
    done: Deferred[None]

    def settled(self, key: _Key) -> None:
        self.missing.discard(key)
        if not self.missing and not self.done.called:
            self.done.callback(None)


def _too_late(why: Failure) -> None:
    why.trap(TimeoutError)


class Translations:
    """`own`: what others may ask of this process."""

    log = Log()

    def __init__(self, clock: Clock, upstream: Upstream, own: OwnPasts) -> None:
        self._clock = clock
        self._upstream = upstream
        self._own = own
        self._others: Pasts | None = None
        self._shifts: dict[_Key, tuple[str, int]] = {}  # with the own epoch; the oldest first
        self._wanted: dict[_Key, list[_Waiter]] = {}
        self._round: Deferred[None] | None = None

    def ask(self, others: Pasts) -> None:
        """Say who may have given offsets. Called once, before the first client."""
        self._others = others

    def foreign(self, streams: Mapping[str, LiveStream], since: Mapping[str, str]) -> dict[str, tuple[str, int]]:
        """The epoch and number of those offsets, by spelling, that others may have given."""
        found = {}
        for spelling, offset in since.items() if self._others is not None else ():
            history = streams[spelling].history
            place = history.foreign(offset) if isinstance(history, CountedHistory) else None
            if place is not None:
                found[spelling] = place
        return found

    async def translated(
        self, streams: Mapping[str, LiveStream], foreign: Mapping[str, tuple[str, int]]
    ) -> dict[str, str]:
        """The own offsets of those that are known, by spelling."""
        wanted = {(streams[spelling].name, epoch) for spelling, (epoch, _) in foreign.items()}
        until = self._clock.seconds() + SECONDS
        await self._look_for({key for key in wanted if self._shift(key) is None})
        found, ahead = {}, []
        for spelling, (epoch, number) in foreign.items():
            history = streams[spelling].history
            shift = self._shift((streams[spelling].name, epoch))
            if shift is not None and number + shift >= 0 and isinstance(history, CountedHistory):
                found[spelling] = history.at(number + shift)
                if number + shift > history.count:
                    ahead.append(streams[spelling].name)
        if ahead:  # the other was quicker
            await self._caught_up(ahead, until - self._clock.seconds())
        return found

    def close(self) -> None:
        """Nothing is asked any more."""
        self._others = None
        waiters = [waiter for waiting in self._wanted.values() for waiter in waiting]
        self._wanted.clear()
        if self._round is not None:
            self._round.cancel()
        for waiter in waiters:
            if not waiter.done.called:
                waiter.done.callback(None)

    def _shift(self, key: _Key) -> int | None:
        own, shift = self._shifts.get(key, ("", 0))
        return shift if own and self._own.flowing(key[0], own) is not None else None

    # Asking.

    def _look_for(self, keys: set[_Key]) -> Deferred[None]:
        if not keys:
            return succeed(None)
        waiter = _Waiter(set(keys), self._clock.seconds() + SECONDS, Deferred())
        for key in keys:
            self._wanted.setdefault(key, []).append(waiter)
        if self._round is None:
            self._next_round()
        return waiter.done.addTimeout(SECONDS, self._clock).addErrback(_too_late)

    def _next_round(self) -> None:
        self._round = None
        keys = self._next_keys()
        if keys:
            self._round = asked = Deferred.fromCoroutine(self._ask(keys)).addTimeout(SECONDS, self._clock)
            asked.addErrback(self._failed)
            asked.addCallback(lambda _: self._end_round(keys))

    def _next_keys(self) -> list[_Key]:
        """Those that come next; for what nobody waits any more, nobody is asked."""
        keys: list[_Key] = []
        now = self._clock.seconds()
        for key in list(islice(self._wanted, MOST_ASKED)):
            if all(waiter.until <= now for waiter in self._wanted[key]):
                del self._wanted[key]
            else:
                keys.append(key)
        return keys if keys or not self._wanted else self._next_keys()

    def _failed(self, why: Failure) -> None:
        if why.check(TimeoutError, CancelledError) is None:
            self.log.failure("an offset of another process: internal error", failure=why)

    def _end_round(self, keys: list[_Key]) -> None:
        for key in keys:
            for waiter in self._wanted.pop(key, ()):
                waiter.settled(key)
        self._next_round()

    async def _ask(self, keys: list[_Key]) -> None:
        others, before = self._others, self._positions(keys)
        if others is None or not before:
            return
        pasts = [past for past in await others.of(list(before)) if (past.stream, past.epoch) in before]
        servers = await self._servers({past.stream for past in pasts})
        for past in pasts:
            self._compare(past, *before[past.stream, past.epoch], servers[past.stream])

    def _positions(self, keys: Iterable[_Key]) -> dict[_Key, tuple[str, int]]:
        """How far the own streams have come, with their epochs."""
        positions = {}
        for name, epoch in keys:
            stream = self._upstream.registry.find(name)
            if stream is not None and stream.confirmed and isinstance(stream.history, CountedHistory):
                positions[name, epoch] = stream.history.epoch, stream.history.count
        return positions

    async def _servers(self, streams: Iterable[str]) -> dict[str, str | None]:
        """The servers that have told all that had been published by now."""
        waiting = {stream: self._upstream.source.caught_up(stream) for stream in streams}
        return {stream: await server for stream, server in waiting.items()}

    async def _caught_up(self, streams: Iterable[str], seconds: float) -> None:
        waiting = Deferred.fromCoroutine(self._servers(streams))
        try:
            await waiting.addTimeout(max(0.0, seconds), self._clock)
        except TimeoutError:
            pass

    def _compare(self, past: Past, epoch: str, before: int, server: str | None) -> None:
        history = self._own.flowing(past.stream, epoch)
        if history is None or server is None or past.origin != self._own.origin(server):
            return
        now = history.count
        own = history.newest_digests(min(now - before, MOST_BETWEEN) + DIGESTS)
        shift = shift_between(past.newest, past.digests, before, now, own)
        if shift is not None:
            if len(self._shifts) >= _MOST_KNOWN:
                del self._shifts[next(iter(self._shifts))]
            self._shifts[past.stream, past.epoch] = epoch, shift
