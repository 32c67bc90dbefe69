"""A reactor for a command that runs until it is told to end: some seconds, which pass at once, and then a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ReactorNotRunning
from twisted.internet.testing import MemoryReactorClock

__all__ = ["ShortReactor"]


class ShortReactor(MemoryReactorClock):
    """It lives for `seconds`, unless it is stopped before. `handlers`: of signals, by their number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self.handlers: dict[int, Any] = {}
        monkeypatch.setattr("twisted.internet.reactor", self)
        monkeypatch.setattr(signal, "signal", lambda number, handler: self.handlers.update({number: handler}))

    def run(self, installSignalHandlers: bool = True) -> None:
        assert not installSignalHandlers
        self.running = self.hasRun = True
        for hook, arguments, keywords in self.whenRunningHooks:
            hook(*arguments, **keywords)
        self.pump([0.05] * round(self._seconds / 0.05))
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        for trigger, arguments, keywords in self.triggers["before"]["shutdown"]:
            trigger(*arguments, **keywords)

    def stop(self) -> None:
        if not self.running:
            raise ReactorNotRunning
        super().stop()

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)
