"""What a daemon is given in place of the process that it would change."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from marketfeed.websocket.connections import UserManager


class FakeReactor(MemoryReactorClock):
    """Runs what is to be called from a thread at once, as nothing else runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)

    def stop(self) -> None:
        self.stops += 1


class FakeUsers(UserManager):
    """A drain that ends when the test says so."""

    def __init__(self) -> None:
        super().__init__(Clock(), 1, 0.0, lambda: 0.0)
        self.hurried = 0
        self.drained: Deferred[None] = Deferred()

    def hurry(self) -> None:
        self.hurried += 1

    async def drain(self) -> None:
        await self.drained


class SignalModule:
    """What the daemon uses of the module; the reactor that runs these tests goes on using the real one."""

    SIGTERM, SIGINT, SIGHUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    SIGUSR1, SIGUSR2, SIG_IGN = signal.SIGUSR1, signal.SIGUSR2, signal.SIG_IGN
    Signals = signal.Signals

    def __init__(self, handlers: dict[int, Callable[..., None]]) -> None:
        self.signal = handlers.__setitem__
