"""The states that somebody keeps in Redis beside the streams: an engine, a database service, the candle service.

1. The state of a stream is the string at ``<prefix>snapshot:<stream>`` (docs/operations/data.md#state). An empty one,
   one that is larger than a publication may be, and a key of another type are as good as none. Those of candles are
   elsewhere (`candle_states`).
2. Reads are sent together, and only so many at a time; no more of a value is fetched than may be of use.
3. While the server is out of reach a read is tried again, for `REACH_SECONDS`: the link of the publications may be up
   a moment before this one. Whatever happens, a read is answered once, and never fails.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock
from marketfeed.model.rate import TokenBucket
from marketfeed.model.streams import snapshot_key
from marketfeed.redis.commands import KeyedCommands, OutOfReach
from marketfeed.runtime.logs import Log

__all__ = ["REACH_SECONDS", "RedisSnapshots", "SnapshotPlaces", "StatePlace"]

REACH_SECONDS = 3.0
_RETRY_SECONDS = 0.2
_AT_A_TIME = 64
_LINES = 1 / 60
"""Lines in the log per second: what is the matter with one key is often the matter with all. That none may be read, as
where there are no states, is said once."""


class StatePlace(NamedTuple):
    """Where a state is: the key, what is asked, and what makes a state of the reply; it raises ValueError with why it
    cannot be used.
    """

    key: bytes
    words: tuple[bytes | str, ...]
    read: Callable[[Any], bytes | None]


class SnapshotPlaces:
    """Where engines keep theirs. `max_payload`: the bytes that a publication may have."""

    def __init__(self, channel_prefix: str, max_payload: int) -> None:
        self._prefix = channel_prefix
        self._max_payload = max_payload

    def __call__(self, stream: str) -> StatePlace:
        key = snapshot_key(self._prefix, stream).encode()
        return StatePlace(key, ("GETRANGE", key, "0", str(self._max_payload)), self._read)

    def _read(self, value: bytes | None) -> bytes | None:
        if value is not None and len(value) > self._max_payload:
            raise ValueError(f"it is larger than --max-payload, {self._max_payload} bytes")
        return value or None


class _Read(msgspec.Struct, frozen=True, eq=False):
    place: StatePlace
    until: float
    answer: Deferred[bytes | None]


class RedisSnapshots(Service):
    """Reads states, as `Snapshots`. `place_of`: where that of a stream is."""

    log = Log()

    def __init__(self, clock: Clock, commands: KeyedCommands, place_of: Callable[[str], StatePlace]) -> None:
        self._clock = clock
        self._commands = commands
        self._place_of = place_of
        self._waiting: deque[_Read] = deque()
        self._in_flight = 0
        self._retry: IDelayedCall | None = None
        self._is_sending = False
        self._lines = TokenBucket(_LINES, 1, clock.seconds())
        self._unsaid = 0
        self._is_forbidden = False

    def stopService(self) -> None:
        Service.stopService(self)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        waiting, self._waiting = self._waiting, deque()
        for read in waiting:
            _give(read, None)

    def read(self, stream: str) -> Deferred[bytes | None]:
        """The state of a stream; None when there is none that is of use. Whoever no longer wants it cancels it."""
        if not self.running:
            return succeed(None)
        read = _Read(self._place_of(stream), self._clock.seconds() + REACH_SECONDS, Deferred())
        self._waiting.append(read)
        self._send()
        return read.answer

    def _send(self) -> None:
        """Send what may be sent. Answers may come before `ask` returns, and must not send more from inside."""
        if self._is_sending:
            return
        self._is_sending = True
        while self._waiting and self._in_flight < _AT_A_TIME and self._retry is None:
            read = self._waiting.popleft()
            if read.answer.called:
                continue  # cancelled
            self._in_flight += 1
            asked = self._commands.ask_for(read.place.key, *read.place.words)
            asked.addCallbacks(self._has_read, self._has_failed, callbackArgs=(read,), errbackArgs=(read,))
        self._is_sending = False

    def _has_read(self, value: Any, read: _Read) -> None:
        self._in_flight -= 1
        try:
            state = read.place.read(value)
        except ValueError as fault:
            self._complain(read, str(fault))
            state = None
        _give(read, state)
        self._send()

    def _has_failed(self, failure: Failure, read: _Read) -> None:
        self._in_flight -= 1
        if failure.check(OutOfReach) and self._clock.seconds() < read.until and self.running:
            self._waiting.append(read)
            if self._retry is None:
                self._retry = self._clock.callLater(_RETRY_SECONDS, self._try_again)
            return
        self._complain(read, str(failure.value))
        _give(read, None)
        self._send()

    def _try_again(self) -> None:
        self._retry = None
        now = self._clock.seconds()
        late = [read for read in self._waiting if now >= read.until]
        self._waiting = deque(read for read in self._waiting if now < read.until)
        for read in late:
            self._complain(read, "the server is out of reach")
            _give(read, None)
        self._send()

    def _complain(self, read: _Read, why: str) -> None:
        was_forbidden, self._is_forbidden = self._is_forbidden, why.startswith("NOPERM")
        if was_forbidden and self._is_forbidden:
            return
        if not self._lines.take(self._clock.seconds()):
            self._unsaid += 1
            return
        line = "redis: the state at {key} cannot be used: {why} ({count} more since the last such line)"
        self.log.warn(line, key=read.place.key.decode(), why=why, count=self._unsaid)
        self._unsaid = 0


def _give(read: _Read, value: bytes | None) -> None:
    if not read.answer.called:
        read.answer.callback(value)
