"""Streams that are wanted and do not exist yet: they cost the read that waits nothing, and are noticed all the same.

1. The first `FEW` of them are read with all others, so that their first entry ends the wait.
2. The others are looked at on another link, `SLICE` of them every `LOOK_SECONDS`: each as often as there are slices.
   Invented names fill this rotation and delay nothing but each other. Those of a slot are looked at by one command.
3. One that is there now, and everything of a slice that cannot be looked at, is to be checked like a stream that is
   wanted newly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.redis.commands import CommandFault, Commands
from marketfeed.redis.rotation import Rotation
from marketfeed.redis.stream_reads import Reading

__all__ = ["AbsentStreams"]

FEW = 500
SLICE = 500
LOOK_SECONDS = 0.05


class AbsentStreams:
    """`found`: is called with readings that are to be checked again; they are no longer here."""

    def __init__(self, clock: Clock, commands: Commands, found: Callable[[list[Reading]], None]) -> None:
        self._clock = clock
        self._commands = commands
        self._found = found
        self._few: dict[Reading, None] = {}
        self._rotation = Rotation[Reading]()
        self._timer: IDelayedCall | None = None
        self._is_asking = False

    def add(self, reading: Reading) -> bool:
        """It does not exist. Whether it is one of the few that are to be read with the others."""
        if reading in self._few or len(self._few) < FEW:
            self._rotation.discard(reading)
            self._few[reading] = None
            return True
        self._rotation.add(reading)
        self._plan()
        return False

    def discard(self, reading: Reading) -> None:
        """It exists, or is wanted no longer."""
        self._few.pop(reading, None)
        self._rotation.discard(reading)

    def clear(self) -> None:
        self._few.clear()
        self._rotation.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        if self._timer is None and not self._is_asking and self._rotation:
            self._timer = self._clock.callLater(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        turn = self._rotation.next(SLICE)
        if turn:
            self._is_asking = True
            Deferred.fromCoroutine(self._ask(turn))

    async def _ask(self, turn: list[Reading]) -> None:
        slots: dict[int, list[bytes]] = {}
        for reading in turn:
            slots.setdefault(reading.slot, []).append(reading.key)
        there: set[bytes] = set()
        for keys, answer in [(keys, self._read(keys)) for keys in slots.values()]:
            try:
                there.update(key for key, _ in await answer or ())
            except CommandFault:  # one that is no stream, is elsewhere, or may not be read, fails them all
                there.update(keys)
        self._is_asking = False
        found = [reading for reading in turn if reading.key in there and reading in self._rotation]
        for reading in found:
            self._rotation.discard(reading)
        self._plan()
        if found:
            self._found(found)

    def _read(self, keys: list[bytes]) -> Deferred[Any]:
        return self._commands.ask("XREAD", "COUNT", "1", "STREAMS", *keys, *["0-0"] * len(keys))
