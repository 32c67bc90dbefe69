"""The root of the tree of services: it heeds the signals, sends the clients away, and stops the services in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from marketfeed.runtime.listener import CannotServe
from marketfeed.runtime.logs import Log

__all__ = ["Daemon"]

_ENDING = (signal.SIGTERM, signal.SIGINT)


class Drained(Protocol):
    """Who sends clients away."""

    def hurry(self) -> None:
        """Make the present drain, or the next one, immediate."""

    async def drain(self) -> None:
        """Send all away; done when they are gone."""


class Daemon(MultiService):
    """The root of the tree. It drains the clients first, then stops its services one after the other.

    `clients`: who sends them away. `in_front`: twistd has not gone to the background; `pid_file`: which twistd writes,
    "" for none; `observer`: what is to write the log, in place of twistd's own. `heeds_signals`: or another process
    does.
    """

    log = Log()

    def __init__(
        self,
        reactor: Any,
        clients: Drained,
        in_front: bool,
        pid_file: str = "",
        observer: ILogObserver | None = None,
        *,
        heeds_signals: bool = True,
    ) -> None:
        MultiService.__init__(self)
        self._reactor = reactor
        self._clients = clients
        self._heeds_signals = heeds_signals
        self._in_front = in_front
        self._pid_file = pid_file
        self._observer = observer
        self.stops: tuple[IService, ...] = ()
        """The services in the order in which they stop."""
        self.reload: Callable[[], None] = lambda: None
        """What SIGHUP asks for."""
        self.begins_to_end: Callable[[], None] = lambda: None
        """What is done before the clients are sent away."""
        self.roll: Callable[[], None] = self._cannot_roll
        """What SIGUSR2 asks for."""
        self._stopping = False

    def setServiceParent(self, parent: Any) -> None:
        """twistd makes us part of its application, and asks that for an observer of the log."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        MultiService.setServiceParent(self, parent)

    def privilegedStartService(self) -> None:
        self._take_signals()
        try:
            MultiService.privilegedStartService(self)
        except CannotServe as fault:
            if not self._in_front:
                sys.tracebacklimit = 0  # one line in the log, too
                raise OSError(str(fault)) from None  # the shortest name: twistd, in the foreground, shows 98 characters
            if self._pid_file and os.path.exists(self._pid_file):
                os.unlink(self._pid_file)
            raise SystemExit(f"marketfeed: {fault}") from None

    def startService(self) -> None:
        self._reactor.callWhenRunning(self._take_signals)  # the reactor sets its own as it begins to run
        MultiService.startService(self)

    def _take_signals(self) -> None:
        if not self._heeds_signals:
            for number in (*_ENDING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            return
        for number in _ENDING:
            signal.signal(number, lambda number, _: self._reactor.callFromThread(self._end, number))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))
        signal.signal(signal.SIGUSR2, lambda *_: self._reactor.callFromThread(self.roll))

    def _cannot_roll(self) -> None:
        self.log.warn("SIGUSR2 is ignored: there are no workers to be replaced without --workers")

    def _reload(self) -> None:
        try:
            self.reload()
        except Exception:
            self.log.failure("a reload failed: internal error")

    def _end(self, number: int) -> None:
        """SIGTERM drains; SIGINT and any second one end at once."""
        self.log.info("ending: {signal}", signal=signal.Signals(number).name)
        self.end(at_once=number != signal.SIGTERM or self._stopping)

    def end(self, *, at_once: bool) -> None:
        """Drain, and end the process. May be called again, to end it at once."""
        if at_once:
            self._clients.hurry()
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.begins_to_end()
        await self._clients.drain()
        for service in self.stops:
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                self.log.failure("{service} could not be stopped", service=service.__class__.__name__)
        self.log.info("stopped")
