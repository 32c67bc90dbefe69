"""Work that one client asks for and that takes long: done a portion at a time, between which everybody is served.

1. A piece of work is an iterator that yields, before each of its steps, what that step will cost: in µs, about.
2. All that is under way shares one turn of the reactor, so that it is the same for everybody else how many ask. A turn
   takes up one step of each in turn until it has cost enough, and one step at least.
3. Work that fails is logged, and is over. What it was for has to see to its own end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.hub.faults import Faults

__all__ = ["AT_ONCE", "Portions", "Work"]

AT_ONCE = 250
"""µs of work that is not worth putting off."""
_TURN = 2000
"""µs of work in one turn of the reactor, of all clients together."""

Work = Iterator[int]
"""What is to be done: yields what each step will cost, and then takes it."""


class Portions:
    """All the work of a process that takes more than one turn."""

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self._clock = clock
        self._faults = faults
        self._waiting: deque[tuple[Work, int]] = deque()  # with what the next step costs
        self._taken: Work | None = None  # of which a step is under way
        self._turn: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, work: Work) -> Work | None:
        """Do what is little at once, and the rest in later turns. None: all of it is done.

        What it raises before the first step that is put off is raised here.
        """
        left = AT_ONCE
        for cost in work:
            left -= cost
            if left < 0:
                self._waiting.append((work, cost))
                self._go_on()
                return work
        return None

    def finish(self, work: Work) -> Deferred[None]:
        """Do all of it. What it raises is what the answer fails with; whoever does not wait any more cancels that."""

        def to_the_end() -> Work:
            try:
                yield from work
            except Exception:
                done.errback()
            else:
                done.callback(None)

        whole = to_the_end()
        done = Deferred[None](lambda _: self.cancel(whole))
        self.begin(whole)
        return done

    def cancel(self, work: Work) -> None:
        """Nobody wants this any more, and no further step of it is taken. It may be over, or cancel itself."""
        if self._taken is work:
            self._taken = None
        for each in self._waiting:
            if each[0] is work:
                self._waiting.remove(each)
                break
        if not self._waiting and self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def close(self) -> None:
        """Nothing is done any more."""
        for work, _ in list(self._waiting):
            self.cancel(work)

    def _go_on(self) -> None:
        if self._turn is None and self._waiting:
            self._turn = self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        left = _TURN
        while self._waiting and left > 0:
            work, cost = self._waiting.popleft()
            left -= cost
            self._step(work)
        self._go_on()

    def _step(self, work: Work) -> None:
        self._taken = work
        try:
            cost = next(work, None)
        except Exception:
            self._faults.tell("internal error in what a client has asked for")
            return
        if cost is not None and self._taken is work:
            self._waiting.append((work, cost))
