"""What systemd is told of this process, where it asked for that: that it is ready, reloads, stops, and still turns.

1. systemd asks by `$NOTIFY_SOCKET` (sd_notify(3)). Without it nothing is sent.
2. The watchdog (`$WATCHDOG_USEC`) is fed from a timer of the reactor, twice in each interval: a loop that hangs does
   not feed it, and systemd ends the process. It is fed until the last service has stopped.
3. Ready means that clients can connect. It does not wait for Redis, which may come later.
4. Nobody waits for systemd: what it does not take at once is lost, and a line of the log says so.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from marketfeed.runtime.logs import Log

__all__ = ["Systemd"]

_MORE_SECONDS = 15.0


class Systemd(Service):
    """Speaks to systemd while it runs. `environment`: of this process.

    `stop_seconds`: how long a stop takes that is no fault, asked when it begins; systemd is asked for so much time, and
    some more. `is_well`: whether the watchdog may be fed; `waits`: ready is what `ready` says, not the running reactor.
    """

    log = Log()

    def __init__(
        self,
        reactor: Any,
        environment: Mapping[str, str],
        stop_seconds: Callable[[], float],
        *,
        is_well: Callable[[], bool] = lambda: True,
        waits: bool = False,
    ) -> None:
        self._is_well = is_well
        self._waits = waits
        self._reactor = reactor
        self._environment = environment
        self._stop_seconds = stop_seconds
        self._socket: socket.socket | None = None
        self._address = ""
        self._watchdog: LoopingCall | None = None

    def startService(self) -> None:
        Service.startService(self)
        path = self._environment.get("NOTIFY_SOCKET", "")
        if not path:
            return
        if path[0] not in "/@":
            self.log.warn(
                "systemd is told nothing: $NOTIFY_SOCKET is {path}; expected a path, or @ and a name", path=path
            )
            return
        self._address = f"\0{path[1:]}" if path[0] == "@" else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        if not self._waits:
            self._reactor.callWhenRunning(self.ready)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
        seconds = self._watchdog_seconds()
        if seconds:
            self._watchdog = LoopingCall(self._feed)
            self._watchdog.clock = self._reactor
            self._watchdog.start(seconds / 2, now=False)

    def _watchdog_seconds(self) -> float:
        """The interval in which systemd wants to hear of this process; 0 for none, or for another process."""
        of_us = self._environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        text = self._environment.get("WATCHDOG_USEC", "")
        return int(text) / 1e6 if of_us and text.isdecimal() else 0.0

    def ready(self) -> None:
        """Clients can connect."""
        self._tell("READY=1")

    def reload(self, reload: Callable[[], object]) -> None:
        """Call this; systemd is told that it begins, and when it has ended, be that later, and also where it failed."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            done = reload()
        except BaseException:
            self.ready()
            raise
        if isinstance(done, Deferred):
            done.addErrback(lambda fault: self.log.failure("a reload failed: internal error", failure=fault))
            done.addCallback(lambda _: self.ready())
        else:
            self.ready()

    def _feed(self) -> None:
        if self._is_well():
            self._tell("WATCHDOG=1")

    def _stopping(self) -> None:
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((self._stop_seconds() + _MORE_SECONDS) * 1e6)}")

    def _tell(self, what: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(what.encode(), self._address)
        except OSError as fault:
            self.log.warn("systemd was not told {what}: {fault}", what=what.partition("\n")[0], fault=fault.strerror)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
