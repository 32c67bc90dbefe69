"""Clients who want a stream less often than it comes: one message in so many ms (docs/protocol.md#rates).

1. A stream has a window for each rate, and view, that somebody wants. What comes is merged in it once, whoever is
   behind it, and framed once for each of its groups as it is released.
2. What comes while a window is closed goes at once, and the window is open then. What comes while it is open waits for
   the next tick. A window in which nothing came for a whole period closes.
3. All windows of a rate have one timer, and it runs while one of them is open: the first to open sets the time. So what
   a client gets of many streams comes together, and nothing waits for longer than a period.
4. Before a gap is told, and at the end, a window is released whenever that is. What is in it goes with its last group.
5. Windows of very many streams are released a portion at a time, between which everybody else is served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.hub.groups import Group, frame_for
from marketfeed.hub.stream import LiveStream
from marketfeed.model.conflation import new_conflation
from marketfeed.model.kinds.kind import View

__all__ = ["Releases", "Window", "Windows", "windows_of"]

_PORTION = 100
"""Windows that are released in one turn of the reactor, of more than this; fewer, if much has come in them."""
_READ_US = 2000
"""What may be read for them in one turn, about."""
_NEARLY = 0.9
"""Of a period, after which one is over: timers and clocks are not exact."""


class Releases(Protocol):
    """Where windows are released to."""

    def release(self, windows: Iterable[Window]) -> None:
        """Let what is in `windows` go with the next flush."""

    def ticked(self, windows: Iterable[Window]) -> None:
        """Their time has come: let what is in them go, now."""


class Window:
    """What one stream has for those who want it at one rate, in one view. It is a tap of the stream."""

    __slots__ = ("_conflation", "_made", "_rhythm", "groups", "is_open", "sent", "stream")

    def __init__(self, stream: LiveStream, rhythm: _Rhythm, view: View) -> None:
        self.stream = stream
        self._made = stream.made(view) if view else None
        self.groups: dict[Group, None] = {}
        self.is_open = False
        self.sent = float("-inf")  # when it was last released, in seconds of the clock
        self._rhythm = rhythm
        self._conflation = new_conflation(stream.kind, view, stream.state)

    def __bool__(self) -> bool:
        """Whether something waits in it, or may be made for it."""
        return bool(self._conflation) or self.stream.is_stale

    @property
    def reading_cost(self) -> int:
        """What it takes to read what has come, in µs, about."""
        return self._conflation.reading_cost + self.stream.looking_cost

    def add(self, data: bytes, offset: str) -> None:
        """A publication of the stream."""
        self._conflation.add(data if self._made is None else self._made.newest(data), offset)
        if not self.is_open:
            self._rhythm.open(self)

    def release(self, dirty: list[Group]) -> None:
        """Put what is in it into its groups; those that had nothing to send are added to `dirty`."""
        if not self._conflation:
            self._rhythm.rest(self)
            return
        self.sent = self._rhythm.clock.seconds()
        for offset, data in self._conflation.take():
            frame_for(self.groups, data, offset, dirty)

    def close(self) -> None:
        """Nobody wants it any more."""
        self._conflation.close()


class _Rhythm:
    """The windows of one rate that are open, and their timer. `seconds`: a period."""

    def __init__(self, clock: Clock, seconds: float, releases: Releases) -> None:
        self.clock = clock
        self._seconds = seconds
        self._releases = releases
        self._open: dict[Window, None] = {}
        self._due: deque[Window] = deque()
        self._timer: IDelayedCall | None = None
        self._turn: IDelayedCall | None = None

    def open(self, window: Window) -> None:
        """Something has come in a window that is closed."""
        window.is_open = True
        self._open[window] = None
        self._releases.release((window,))
        if self._timer is None:
            self._timer = self.clock.callLater(self._seconds, self._tick)

    def rest(self, window: Window) -> None:
        """Nothing has come in a window: it closes, if it has been open for a whole period."""
        if window.is_open and self.clock.seconds() - window.sent >= self._seconds * _NEARLY:
            window.is_open = False
            del self._open[window]

    def close(self) -> None:
        """Nothing is due any more."""
        for timer in (self._timer, self._turn):
            if timer is not None:
                timer.cancel()
        self._timer = self._turn = None
        for window in self._open:
            window.is_open = False
        self._open.clear()
        self._due.clear()

    def _tick(self) -> None:
        for window in list(self._open):
            if window:
                self._due.append(window)
            else:
                self.rest(window)
        self._timer = self.clock.callLater(self._seconds, self._tick) if self._open else None
        if self._turn is None:
            self._next_turn()

    def _next_turn(self) -> None:
        due: list[Window] = []
        cost = 0
        while self._due and len(due) < _PORTION and cost <= _READ_US:
            window = self._due.popleft()
            due.append(window)
            cost += window.reading_cost
        self._turn = self.clock.callLater(0, self._next_turn) if self._due else None
        if due:
            self._releases.ticked(due)


class Windows:
    """All windows of a process."""

    def __init__(self, clock: Clock, releases: Releases) -> None:
        self._clock = clock
        self._releases = releases
        self._rhythms: dict[int, _Rhythm] = {}

    def include(self, group: Group) -> None:
        """A group with a rate has a member."""
        stream, rate, key = group.stream, group.rate, (group.rate, group.view)
        window = stream.taps.get(key)
        if window is None:
            rhythm = self._rhythms.get(rate)
            if rhythm is None:
                rhythm = self._rhythms[rate] = _Rhythm(self._clock, rate / 1000, self._releases)
            window = stream.taps[key] = Window(stream, rhythm, group.view)
        assert isinstance(window, Window)
        window.groups[group] = None

    def exclude(self, group: Group) -> None:
        """It has none any more."""
        window = group.stream.taps.get((group.rate, group.view))
        if isinstance(window, Window):
            window.groups.pop(group, None)
            if not window.groups:
                window.close()
                del group.stream.taps[group.rate, group.view]

    def close(self) -> None:
        """Nothing is released any more."""
        for rhythm in self._rhythms.values():
            rhythm.close()


def windows_of(streams: Iterable[LiveStream]) -> list[Window]:
    """The windows of these streams in which something waits."""
    return [tap for stream in streams for tap in stream.taps.values() if isinstance(tap, Window) and tap]
