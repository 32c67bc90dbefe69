"""A Redis-compatible server as a process of its own, of either flavour, with or without passwords and TLS.

1. Its port is chosen by the system, and is kept for it: a socket that is bound to the port, and does not listen, is
   open as long as the server is in use. It has the same port after it was killed.
2. It ends with the test, even with one that is killed: a shell beside it waits at the end of a pipe that only the test
   holds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hiredis
import pytest

from marketfeed.demo.embedded import find_server
from tests.certificates import Authority
from tests.programs import find
from tests.redis_servers.client import Access, Address, Connection, eventually

__all__ = ["FLAVOURS", "LOOPBACK", "Place", "Security", "ServerProcess", "executable"]

FLAVOURS = ("valkey", "redis")
LOOPBACK = "127.0.0.1"

_NO_TLS = "Failed finding TLS support"
_ASKED_SECONDS = 2.0
"""How long a server may take to answer one question, before it is asked again."""
_START = 'exec 3<&0 </dev/null; (read -r _ || kill -KILL $$) <&3 >/dev/null 2>&1 & exec "$@" 3<&-'
"""What becomes the server keeps its process id, `$$`. A line sends the watcher away."""

Setting = tuple[str, ...]


def executable(flavour: str) -> str:
    """The server of one flavour; the test is skipped where it is not installed."""
    if flavour == "valkey":
        return find_server()
    path = find("redis-server")
    if path is None:
        pytest.skip("redis-server is not installed")
    return path


@dataclass(frozen=True, slots=True)
class Security:
    """Who is let in. With neither password nor authority: everybody, without TLS."""

    user: str = ""
    password: str = ""
    authority: Authority | None = None
    """Who vouches for the servers, whose ports then speak TLS only."""
    wants_certificates: bool = False
    """A client is to show one of the same authority."""

    def access(self, directory: Path, hosts: Sequence[str]) -> Access:
        """What a client needs, with a certificate of its own if one is wanted."""
        context = None
        if self.authority is not None:
            context = ssl.create_default_context(cafile=str(self.authority.write(directory / "ca.pem")))
            context.load_cert_chain(*self.authority.issue("localhost", *hosts).write(directory))
        return Access(self.user, self.password, context)

    def settings(self, directory: Path) -> list[Setting]:
        """What a server needs, beside the files that `access` has written to the directory."""
        found: list[Setting] = []
        if self.user:
            found += [("user", "default", "off")]
            found += [("user", self.user, "on", f">{self.password}", "~*", "&*", "+@all")]
        elif self.password:
            found += [("requirepass", self.password)]
        if self.authority is not None:
            files = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}
            found += [(f"tls-{name}-file", str(directory / file)) for name, file in files.items()]
            found += [("tls-auth-clients", "yes" if self.wants_certificates else "no")]
            found += [("tls-replication", "yes")]
        return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens: which addresses, its own first, and what runs a command there."""

    hosts: tuple[str, ...] = (LOOPBACK,)
    prefix: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class ServerProcess:
    """A server; `name` is that of its directory. `close` ends all."""

    name: str
    program: Sequence[str]
    directory: Path
    place: Place
    access: Access
    settings: Sequence[Setting]
    port: int = 0
    _reserved: list[socket.socket] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None
    _watched: int = -1
    _stands_still: bool = False

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.port = self.reserve()

    def __str__(self) -> str:
        return f"{self.name} ({self.host}:{self.port})"

    @property
    def host(self) -> str:
        return self.place.hosts[0]

    @property
    def address(self) -> Address:
        return self.host, self.port

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self} does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def answers(self) -> bool:
        """It runs, and does not stand still."""
        return self.is_running and not self._stands_still

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (self.directory / "log").read_text(errors="replace")

    def reserve(self) -> int:
        """A port that the system gives to nobody else meanwhile."""
        reserved = socket.socket()
        self._reserved.append(reserved)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("", 0))
        return int(reserved.getsockname()[1])

    def start(self) -> None:
        """Start it, with what it has kept from before."""
        assert not self.is_running, f"{self} runs"
        configuration = self.directory / "server.conf"
        if not configuration.exists():
            configuration.write_text("".join(f"{_line(setting)}\n" for setting in self._all_settings()))
        end, self._watched = os.pipe()
        command = ["/bin/sh", "-c", _START, "sh", *self.place.prefix]
        command += [self.program[0], str(configuration), *self.program[1:]]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=end, stdout=log, stderr=log, cwd=self.directory)
        os.close(end)

    def wait_ready(self) -> None:
        """Until it answers. The test is skipped if it is to have TLS, and was built without."""

        def answers() -> bool:
            if not self.is_running and _NO_TLS in self.log:
                pytest.skip(f"{self.program[0]} has no TLS")
            assert self.is_running, f"{self} has ended:\n{self.log}"
            return bool(self.ask("PING") == b"PONG")

        eventually(answers, f"{self} answers")

    def kill(self) -> None:
        """Kill it -9."""
        self.signal(signal.SIGKILL)
        self._end()

    def terminate(self) -> None:
        """End it as an operator does."""
        self.signal(signal.SIGTERM)
        self._end()

    def stop(self) -> None:
        """Let it stand still: it is there, and does nothing."""
        self.signal(signal.SIGSTOP)
        self._stands_still = True

    def cont(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)
        self._stands_still = False

    def restart(self) -> None:
        """Kill it if it runs, and start it with the same port and what it has in its files."""
        if self.is_running:
            self.kill()
        self.start()
        self.wait_ready()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def connect(self, timeout: float = _ASKED_SECONDS, host: str = "") -> Connection:
        """A connection, of which `host` may be another of its addresses."""
        return Connection((host or self.place.hosts[-1], self.port), self.access, timeout)

    def ask(self, *words: str | bytes | int) -> object:
        """The reply to one command, on a connection of its own."""
        with self.connect() as connection:
            return connection.command(*words)

    def fields(self, *words: str) -> dict[str, str]:
        """The reply to INFO, CLUSTER INFO or their like, by name; nothing while it does not answer."""
        try:
            with self.connect() as connection:
                return connection.fields(*words)
        except (OSError, hiredis.HiredisError):
            return {}

    def close(self) -> None:
        if self._process is not None:
            if self.is_running:
                self.signal(signal.SIGKILL)
            self._end()
        for reserved in self._reserved:
            reserved.close()

    def _end(self) -> None:
        assert self._process is not None
        self._process.wait()
        self._process = None
        self._stands_still = False
        with contextlib.suppress(BrokenPipeError):  # somebody has ended the watcher, too
            os.write(self._watched, b"\n")
        os.close(self._watched)

    def _all_settings(self) -> list[Setting]:
        ports: list[Setting] = [("port", str(self.port))]
        if self.access.tls is not None:
            ports = [("port", "0"), ("tls-port", str(self.port))]
        return [("bind", *self.place.hosts), *ports, ("dir", str(self.directory)), *self.settings]


def _line(setting: Setting) -> str:
    name, *values = setting
    return " ".join([name, *(f'"{value}"' for value in values)])
