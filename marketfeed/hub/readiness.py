"""Waiting until streams flow: for the source's confirmation, and for their state to be looked for.

1. Who waits is called once: when nothing is under way any more for any of its streams, or when it has taken too long.
2. Where very many wait for one stream, they go on a portion at a time, between which everybody else is served.
3. A stream that is not confirmed by then has an open gap: all who waited for it go on, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.hub.stream import LiveStream
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log

__all__ = ["CONFIRM_SECONDS", "Readiness", "Wait"]

CONFIRM_SECONDS = 5.0
"""How long a client waits for the source's confirmation before it is answered without (docs/protocol.md#gaps)."""

_PORTION = 50
"""Those who go on in one turn of the reactor."""


class Wait(msgspec.Struct, eq=False):
    """One who waits, until `done` is called."""

    done: Callable[[], None]
    with_state: bool
    begun: int  # ms since 1970
    missing: dict[LiveStream, None] = {}
    timer: IDelayedCall | None = None


class Readiness:
    """Everybody who waits. `now`: s since 1970."""

    log = Log()

    def __init__(self, clock: Clock, now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now
        self._lines = BoundedLog(clock, self.log)
        self._waiting: dict[LiveStream, dict[Wait, None]] = {}
        self._unfinished: dict[LiveStream, None] = {}  # more may go on, who wait for them
        self._turn: IDelayedCall | None = None

    def wait_for(self, streams: Iterable[LiveStream], with_state: bool, done: Callable[[], None]) -> Wait | None:
        """Call `done` as soon as all of `streams` are settled; None: they are, and it is not called."""
        missing = [stream for stream in streams if not stream.is_settled(with_state)]
        if not missing:
            return None
        wait = Wait(done, with_state, int(self._now() * 1000))
        for stream in missing:
            wait.missing[stream] = self._waiting.setdefault(stream, {})[wait] = None
        wait.timer = self._clock.callLater(CONFIRM_SECONDS, self._too_late, wait)
        return wait

    def is_awaited(self, stream: LiveStream) -> bool:
        """Whether anybody waits for `stream`."""
        return stream in self._waiting

    def settled(self, stream: LiveStream) -> None:
        """Something has become known of `stream`: whoever waited for nothing else goes on."""
        done = 0
        for wait in [wait for wait in self._waiting.get(stream, ()) if stream.is_settled(wait.with_state)]:
            if stream not in wait.missing:
                continue  # it was cancelled by what another one did
            if done == _PORTION:
                self._unfinished[stream] = None
                if self._turn is None:
                    self._turn = self._clock.callLater(0, self._next_turn)
                return
            self._leave(wait, stream)
            if not wait.missing:
                self.cancel(wait)
                wait.done()
                done += 1

    def _next_turn(self) -> None:
        self._turn = None
        unfinished, self._unfinished = self._unfinished, {}
        for stream in unfinished:
            self.settled(stream)

    def _leave(self, wait: Wait, stream: LiveStream) -> None:
        del wait.missing[stream]
        waiting = self._waiting[stream]
        del waiting[wait]
        if not waiting:
            del self._waiting[stream]

    def cancel(self, wait: Wait) -> None:
        """Wait no longer."""
        for stream in list(wait.missing):
            self._leave(wait, stream)
        if wait.timer is not None and wait.timer.active():
            wait.timer.cancel()
        wait.timer = None

    def close(self) -> None:
        """Nobody goes on any more; who waits is to be cancelled before."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._unfinished.clear()
        self._lines.close()

    def _too_late(self, wait: Wait) -> None:
        late = [stream for stream in wait.missing if not stream.confirmed and stream.lose(wait.begun)]
        if late:
            self._lines.warn(
                "",
                "no confirmation within {seconds} s for {late} streams, {stream} among them",
                seconds=CONFIRM_SECONDS,
                late=len(late),
                stream=late[0].name,
            )
        self.cancel(wait)
        wait.done()
        for stream in late:
            self.settled(stream)
