"""A worker's process as its parent has it: how it is started, what is said to it and by it, and its end.

1. It is a fresh interpreter, so that it has the code and the settings of the moment at which it starts.
2. It knows nothing of what systemd says to its parent, and has no file of it but its pipes and the sockets.
3. What it prints, rather than logs, becomes lines of the log as well: so does an interpreter say why it cannot go on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from marketfeed.daemon.workers.messages import VARIABLE, FromWorker, Lines, Role, ToWorker, decode_from_worker, encode
from marketfeed.runtime.log_relay import relay
from marketfeed.runtime.logs import Log

__all__ = ["Program", "WorkerProcess"]

_TWISTD = "from twisted.scripts.twistd import run; run()"
_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_STDERR, _TO, _FROM, _LOG, _SOCKETS = 2, 3, 4, 5, 6
_MOST_PRINTED = 2000


class Program(msgspec.Struct, frozen=True):
    """What is run for each worker. `arguments`: of the daemon, behind the word `marketfeed`; `twistd`: before it."""

    arguments: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]
    twistd: tuple[str, ...] = ()
    python: tuple[str, ...] = (sys.executable, "-c", _TWISTD)

    @property
    def command(self) -> list[str]:
        return [*self.python, "-n", "--pidfile=", *self.twistd, "marketfeed", *self.arguments]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a worker."""
        kept = {name: value for name, value in self.environment.items() if name not in _SYSTEMD}
        return {**kept, VARIABLE: f"{_TO},{_FROM},{_LOG}"}


class WorkerProcess(ProcessProtocol):
    """`heard`: is told what it says; `gone`: how it ended, once."""

    log = Log()

    def __init__(
        self, number: int, heard: Callable[[FromWorker], None], gone: Callable[[str], None], since: float
    ) -> None:
        self.number = number
        self.since = since
        self._heard = heard
        self._gone = gone
        self._said = Lines()
        self._logged = Lines()
        self._printed = b""

    def start(self, reactor: Any, program: Program, role: Role, queues: Sequence[Sequence[Any]]) -> None:
        """Start it. `queues`: the sockets that it may accept from. Raises OSError."""
        files: dict[int, Any] = {_STDERR: "r", _TO: "w", _FROM: "r", _LOG: "r"}
        numbered = []
        for sockets in queues:
            numbered.append([(len(files) + at + 2, each.family) for at, each in enumerate(sockets)])
            files |= {number: each.fileno() for (number, _), each in zip(numbered[-1], sockets, strict=True)}
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            reactor.spawnProcess(
                self,
                program.command[0],
                program.command,
                env=program.variables,
                path=program.directory,
                childFDs={0: nothing, 1: nothing, **files},
            )
        finally:
            os.close(nothing)
        self.tell(msgspec.structs.replace(role, queues=numbered))

    def tell(self, message: ToWorker | Role) -> None:
        """Say something to it; it may be gone."""
        if _TO in getattr(self.transport, "pipes", ()):
            self.transport.writeToChild(_TO, encode(message))  # type: ignore[union-attr]

    def kill(self) -> None:
        """End it, whatever it does."""
        try:
            self.transport.signalProcess("KILL")  # type: ignore[union-attr]
        except ProcessExitedAlready:
            pass

    @property
    def pid(self) -> int | None:
        return getattr(self.transport, "pid", None)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == _FROM:
            for line in self._said.feed(data):
                self._hear(line)
        elif childFD == _LOG:
            for line in self._logged.feed(data):
                self._relay(line)
        else:
            self._printed = (self._printed + data)[-_MOST_PRINTED:]

    def _hear(self, line: bytes) -> None:
        try:
            message = decode_from_worker(line)
        except msgspec.DecodeError as fault:
            self.log.error("worker {worker} says what cannot be read: {fault}", worker=self.number, fault=str(fault))
        else:
            self._heard(message)

    def _relay(self, line: bytes) -> None:
        try:
            relay(line, self.number)
        except (msgspec.DecodeError, ValueError) as fault:
            self.log.error("worker {worker} logs what cannot be read: {fault}", worker=self.number, fault=str(fault))

    def processEnded(self, reason: Failure) -> None:
        printed = self._printed.decode(errors="replace").strip()
        if printed:
            self.log.error("worker {worker} printed: {printed}", worker=self.number, printed=printed)
        fault: Any = reason.value
        signal = getattr(fault, "signal", None)
        self._gone(f"by signal {signal}" if signal else f"with status {getattr(fault, 'exitCode', None) or 0}")
