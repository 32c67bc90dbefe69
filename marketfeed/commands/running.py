"""A command that keeps connections to Redis and runs until it is told to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred

__all__ = ["end", "run_until_ended"]


def run_until_ended(reactor: Any, start: Callable[[], None], stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the reactor from `start` to `stop`, which SIGINT, SIGTERM and `end` begin, and which is waited for.

    A second signal ends a process that waits for what does not come.
    """

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        reactor.callFromThread(end, reactor)

    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    reactor.run(installSignalHandlers=False)


def end(reactor: Any) -> None:
    """Let it end."""
    from twisted.internet.error import ReactorNotRunning

    try:
        reactor.stop()
    except ReactorNotRunning:
        pass  # something else has ended it at the same time
