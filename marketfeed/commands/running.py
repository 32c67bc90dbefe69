"""A command that keeps connections to Redis and runs until it is told to end, and what it hears of some streams."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred

from marketfeed.model.selection import StreamSelection, Subscribed

__all__ = ["Hearing", "end", "run_until_ended", "wake_for_signals"]


class Hearing:
    """The part of a `ListenerSink` that follows from a selection: each publication once, and what is refused.

    `ended`: called when it cannot go on; then `fault` says why.
    """

    def __init__(self, selection: StreamSelection, prefix: bytes, ended: Callable[[], None]) -> None:
        self._selection = selection
        self._subscribed = Subscribed(selection, prefix)
        self._ended = ended
        self._has_begun = False  # from then on, what is refused is asked for again
        self.fault = ""

    def publication(self, subscription: bytes, channel: bytes, payload: bytes) -> None:
        stream = self._subscribed.stream(subscription, channel)
        if stream is not None:
            self._hear(stream, payload)

    def _hear(self, stream: bytes, payload: bytes) -> None:
        raise NotImplementedError

    def refused(self, subscription: bytes, why: str) -> bool:
        if not (self._has_begun or self.fault):
            self._end(f"Redis refuses the subscription to {self._subscribed.text(subscription)}: {why}")
        return self._has_begun

    def _end(self, fault: str) -> None:
        self.fault = fault
        self._ended()


def run_until_ended(reactor: Any, start: Callable[[], None], stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the reactor from `start` to `stop`, which SIGINT, SIGTERM and `end` begin, and which is waited for.

    A second signal ends a process that waits for what does not come.
    """

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        reactor.callFromThread(end, reactor)

    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    wake_for_signals(reactor)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    reactor.run(installSignalHandlers=False)


def wake_for_signals(reactor: Any) -> None:
    """Let a signal end the reactor's wait also when it comes as that is about to begin: its handler would wait, too."""
    waker = getattr(reactor, "waker", None)  # those of POSIX have one
    if waker is not None:
        signal.set_wakeup_fd(waker.o, warn_on_full_buffer=False)


def end(reactor: Any) -> None:
    """Let it end."""
    from twisted.internet.error import ReactorNotRunning

    with suppress(ReactorNotRunning):  # something else has ended it at the same time
        reactor.stop()
