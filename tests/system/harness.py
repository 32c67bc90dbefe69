"""The real parts that system tests are made of: a Redis-compatible server, the daemon, and clients, all real.

Every process and every connection made here is ended by `Harness.close`, which the fixture `harness` calls. Waiting
has a deadline, so that a test that fails does not hang; no test passes or fails by how fast something is.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hiredis
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure

from marketfeed.demo.embedded import find_server
from tests.guard import DEADLINE

__all__ = [
    "AT_EASE",
    "DEADLINE",
    "TWISTD",
    "Client",
    "DaemonProcess",
    "Harness",
    "RawConnection",
    "Redis",
    "RedisServer",
    "trade",
    "with_constants",
]

_ROOT = Path(__file__).parent.parent.parent
_SERVER_PING = b"\x89\x00"
_RUN = "from twisted.scripts.twistd import run; run()"
TWISTD = ("-c", _RUN)
"""Python's arguments to run twistd."""


def trade(market: str = "TATA_INR", number: int = 1, **more: object) -> bytes:
    """A valid trade."""
    fields = {"e": "trade", "t": number, "m": False, "p": "1000.50", "q": "10", "s": market, **more}
    return json.dumps(fields, separators=(",", ":")).encode()


def with_constants(**values: float) -> tuple[str, ...]:
    """The program of a daemon for which these are other numbers of seconds, by module and name: `hub__share__NAME`.

    How long it waits is then nothing that a test on a busy machine depends on.
    """
    lines = []
    for name, value in values.items():
        module, _, constant = f"marketfeed.{name.replace('__', '.')}".rpartition(".")
        lines += [f"import {module}", f"assert {module}.{constant}", f"{module}.{constant} = {value}"]
    return "-c", "\n".join([*lines, _RUN])


AT_EASE = with_constants(api__news___LOOP_SECONDS=DEADLINE)
"""A daemon for which being late is nothing to be told."""


class Lines:
    """Lines that arrive over time, and who waits for one that matches."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._rest = b""
        self._waiting: list[tuple[re.Pattern[str], Deferred[re.Match[str]]]] = []

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            self.all.append(text)
            for waiting in list(self._waiting):
                found = waiting[0].search(text)
                if found:
                    self._waiting.remove(waiting)
                    waiting[1].callback(found)

    def expect(self, pattern: str, since: int = 0) -> Deferred[re.Match[str]]:
        """The first line that matches, from the line `since` on, past or to come."""
        for line in self.all[since:]:
            found = re.search(pattern, line)
            if found:
                done = Deferred[re.Match[str]]()
                done.callback(found)
                return done
        entry = (re.compile(pattern), Deferred[re.Match[str]]())
        self._waiting.append(entry)
        return entry[1]


class Process(ProcessProtocol):
    """A child process: its output by lines, its end."""

    def __init__(
        self, reactor: Any, command: list[str], env: dict[str, str], cwd: str | None = None, files: tuple[int, ...] = ()
    ) -> None:
        self._reactor = reactor
        self.lines = Lines()
        self.status: int | None = None
        self.ended: list[Deferred[int]] = []
        pipes: dict[int, int | str] = {0: "w", 1: "r", 2: "r", **{number: number for number in files}}
        self.process = reactor.spawnProcess(self, command[0], command, env=env, path=cwd, childFDs=pipes)

    def outReceived(self, data: bytes) -> None:
        self.lines.feed(data)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.status = -value.signal if value.signal else (value.exitCode or 0)
        waiting, self.ended = self.ended, []
        for done in waiting:
            done.callback(self.status)

    def wait(self) -> Deferred[int]:
        """The exit status, negative for a signal."""
        done = Deferred[int]()
        if self.status is not None:
            done.callback(self.status)
        else:
            self.ended.append(done)
        return done.addTimeout(DEADLINE, self._reactor)

    def signal(self, name: str) -> None:
        try:
            self.process.signalProcess(name)
        except ProcessExitedAlready:
            pass

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def expect(self, pattern: str, since: int = 0) -> Deferred[re.Match[str]]:
        """Wait for a line of output."""
        return self.lines.expect(pattern, since).addTimeout(DEADLINE, self._reactor)


class Redis(Protocol):
    """A connection to a server, for what an engine or an operator does there."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[Deferred[Any]] = deque()
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            waiting = self._waiting.popleft()
            if isinstance(reply, hiredis.ReplyError):
                waiting.errback(reply)
            else:
                waiting.callback(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        for waiting in self._waiting:
            waiting.errback(reason)
        self.lost.callback(None)

    def command(self, *words: str | bytes | int) -> Deferred[Any]:
        """Send one command; its reply."""
        done = Deferred[Any]()
        self._waiting.append(done)
        assert self.transport is not None
        self.transport.write(hiredis.pack_command(words))
        return done

    def publish(self, channel: str, *payloads: bytes) -> Deferred[list[int]]:
        """PUBLISH in order; how many subscribers each had."""
        return gatherResults([self.command("PUBLISH", channel, payload) for payload in payloads])

    async def channels(self) -> set[str]:
        """What is subscribed on the server."""
        return {name.decode() for name in await self.command("PUBSUB", "CHANNELS")}


class RedisServer:
    """A real server on a Unix socket; it can be killed and started again under the same address."""

    def __init__(self, harness: Harness, directory: Path, *options: str, executable: str = "") -> None:
        self._harness = harness
        self.path = str(directory / "redis.sock")
        self.url = f"unix://{self.path}"
        self._command = [executable or find_server(), "--port", "0", "--unixsocket", self.path]
        self._command += ["--save", "", "--appendonly", "no", "--dir", str(directory), *options]
        self.process: Process

    async def start(self) -> None:
        self.process = self._harness.spawn(self._command)
        await self.process.expect(r"[Rr]eady to accept connections")

    async def kill(self) -> None:
        self.process.signal("KILL")
        await self.process.wait()

    async def connect(self) -> Redis:
        reactor = self._harness.reactor
        redis = Redis()
        await connectProtocol(UNIXClientEndpoint(reactor, self.path, timeout=DEADLINE), redis)
        self._harness.on_close(lambda: _hang_up(redis))
        return redis


class DaemonProcess:
    """`twistd -n marketfeed` in a process of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.host = "127.0.0.1"
        self.port = 0

    @property
    def lines(self) -> list[str]:
        return self.process.lines.all

    def expect(self, pattern: str, since: int = 0) -> Deferred[re.Match[str]]:
        """Wait for a line of its log."""
        return self.process.expect(pattern, since)

    async def stop(self, signal: str = "INT") -> int:
        """End it; its exit status."""
        self.process.signal(signal)
        return await self.process.wait()

    def resident_kib(self) -> int:
        """Resident memory, in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    def open_files(self) -> int:
        """How many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Client(WebSocketClientProtocol):
    """A WebSocket client that keeps what it gets until somebody asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[Client] = Deferred()
        self.closed: Deferred[tuple[int | None, str | None]] = Deferred()
        self.received: deque[bytes] = deque()
        self._waiting: deque[Deferred[bytes]] = deque()
        self.on_message: Callable[[bytes], None] = self._keep

    def onOpen(self) -> None:
        self.opened.callback(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.on_message(payload)

    def _keep(self, payload: bytes) -> None:
        if self._waiting:
            self._waiting.popleft().callback(payload)
        else:
            self.received.append(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if not self.opened.called:
            self.opened.errback(ConnectionRefusedError(reason))
        if not self.closed.called:
            self.closed.callback((code, reason))
        for waiting in self._waiting:
            waiting.errback(ConnectionError(f"closed with {code} {reason}"))
        self._waiting.clear()

    def send(self, request: object) -> None:
        """Send one message: bytes as they are, anything else as JSON."""
        payload = request if isinstance(request, bytes) else json.dumps(request).encode()
        self.sendMessage(payload)

    def next_bytes(self) -> Deferred[bytes]:
        """The next message."""
        done = Deferred[bytes]()
        if self.received:
            done.callback(self.received.popleft())
            return done
        self._waiting.append(done)
        return done.addTimeout(DEADLINE, self.factory.reactor)

    async def next(self) -> Any:
        """The next message, decoded."""
        return json.loads(await self.next_bytes())

    async def ask(self, request: object) -> Any:
        """Send a request; the next message, which is its reply where nothing else is on the way."""
        self.send(request)
        return await self.next()

    async def hear_events(self) -> Client:
        """Ask for control events, which come unasked on the path `/` alone; the same client."""
        assert (await self.ask({"method": "SET_PROPERTY", "params": ["events", True], "id": 0}))["result"] is None
        return self

    async def subscribe(self, *streams: str) -> Any:
        """SUBSCRIBE with an id, and the reply."""
        return await self.ask({"method": "SUBSCRIBE", "params": list(streams), "id": 1})


class RawConnection(Protocol):
    """A TCP connection whose bytes the test makes up itself."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.data = b""
        self.lost: Deferred[bytes] = Deferred()
        self._waiting: list[tuple[Callable[[bytes], bool], Deferred[bytes]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for waiting in list(self._waiting):
            if waiting[0](self.data):
                self._waiting.remove(waiting)
                waiting[1].callback(self.data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(self.data)

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def until(self, has_come: Callable[[bytes], bool]) -> Deferred[bytes]:
        """All that has come, once that is enough."""
        done = Deferred[bytes]()
        if has_come(self.data):
            done.callback(self.data)
            return done
        self._waiting.append((has_come, done))
        return done.addTimeout(DEADLINE, self._reactor)

    def until_ends(self, text: bytes) -> Deferred[bytes]:
        """The same, once it ends in `text`. Pings may come behind that, as they may at any time."""

        def has_come(data: bytes) -> bool:
            while data.endswith(_SERVER_PING):
                data = data[: -len(_SERVER_PING)]
            return data.endswith(text)

        return self.until(has_come)

    def until_closed(self) -> Deferred[bytes]:
        """All that has come, once the peer has closed."""
        return self.lost.addTimeout(DEADLINE, self._reactor)


class Harness:
    """Makes the parts, and ends them all."""

    def __init__(self, reactor: Any, directory: Path) -> None:
        self.reactor = reactor
        self.directory = directory
        self._closers: list[Callable[[], Any]] = []
        self._processes: list[Process] = []

    def on_close(self, closer: Callable[[], Any]) -> None:
        self._closers.append(closer)

    def spawn(self, command: list[str], env: dict[str, str] | None = None, files: tuple[int, ...] = ()) -> Process:
        """`files`: those open here that it has as well, by the same numbers."""
        process = Process(self.reactor, command, {**_environment(), **(env or {})}, str(self.directory), files)
        self._processes.append(process)
        return process

    async def redis(self, *options: str, executable: str = "") -> RedisServer:
        """A server that is ready. `executable`: another one than the daemon would embed."""
        server = RedisServer(self, self.directory, *options, executable=executable)
        await server.start()
        return server

    async def daemon(
        self,
        *options: str,
        redis: RedisServer | None = None,
        wait: bool = True,
        program: tuple[str, ...] = TWISTD,
        prefix: tuple[str, ...] = (),
        host: str = "127.0.0.1",
    ) -> DaemonProcess:
        """The daemon, listening; with `redis` also connected to it. `program`: others of Python's to run twistd;
        `prefix`: what runs all of that elsewhere, where `host` is its address.
        """
        command = [*prefix, sys.executable, *program]
        command += ["-n", "--pidfile=", "marketfeed", "--port", f"tcp:0:interface={host}:backlog=4096"]
        if redis is not None:
            command += ["--redis-url", redis.url]
        daemon = DaemonProcess(self.spawn([*command, *options]))
        daemon.host = host
        if wait:
            daemon.port = int((await daemon.expect(r"listening on port (\d+)"))[1])
            if redis is not None:
                await daemon.expect(r"redis: connected")
        return daemon

    async def client(self, daemon: DaemonProcess, path: str = "/", *, tls: Any = None, **options: Any) -> Client:
        """A client whose WebSocket is open. `tls`: how, as `Authority.client_options` says it; `options`: Autobahn's,
        such as origin, protocols and headers.
        """
        scheme = "ws" if tls is None else "wss"
        url = f"{scheme}://{daemon.host}:{daemon.port}{path}"
        factory = WebSocketClientFactory(url, reactor=self.reactor, **options)
        factory.protocol = Client
        factory.noisy = False
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0)
        endpoint: Any = TCP4ClientEndpoint(self.reactor, daemon.host, daemon.port, timeout=DEADLINE)
        client = await (endpoint if tls is None else wrapClientTLS(tls, endpoint)).connect(factory)
        self.on_close(lambda: self._end(client))
        await client.opened
        return client

    async def raw(self, daemon: DaemonProcess, tls: Any = None) -> RawConnection:
        """A bare TCP connection to the daemon's port. `tls`: how, as `Authority.client_options` says it."""
        raw = RawConnection(self.reactor)
        endpoint: Any = TCP4ClientEndpoint(self.reactor, "127.0.0.1", daemon.port, timeout=DEADLINE)
        await connectProtocol(endpoint if tls is None else wrapClientTLS(tls, endpoint), raw)
        self.on_close(lambda: _hang_up(raw))
        return raw

    async def http(self, daemon: DaemonProcess, request: str) -> tuple[int, dict[str, str], bytes]:
        """Send a plain HTTP request, the last one on its connection; status, headers (names in lower case), body."""
        raw = await self.raw(daemon)
        if "connection:" not in request.lower():
            request += "\nConnection: close"
        raw.send(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        head, _, body = (await raw.until_closed()).partition(b"\r\n\r\n")
        status, *headers = head.decode().split("\r\n")
        pairs = [header.split(": ", 1) for header in headers]
        return int(status.split()[1]), {name.lower(): value for name, value in pairs}, body

    async def hang_up(self, connection: Client | RawConnection) -> None:
        """End a connection from this side, without a word."""
        done = self._end(connection) if isinstance(connection, Client) else _hang_up(connection)
        if done is not None:
            await done

    def pause(self, seconds: float) -> Deferred[None]:
        """Let time pass, where a test is about the time itself."""
        done = Deferred[None]()
        self.reactor.callLater(seconds, done.callback, None)
        return done

    async def eventually(self, holds: Callable[[], Any]) -> None:
        """Ask again and again until `holds`, which may be a coroutine function, says yes. Fails at the deadline."""
        end = self.reactor.seconds() + DEADLINE
        while True:
            answer = holds()
            if hasattr(answer, "__await__"):
                answer = await answer
            if answer:
                return
            assert self.reactor.seconds() < end, "never came true"
            await self.pause(0.02)

    async def close(self) -> None:
        for closer in reversed(self._closers):
            done = closer()
            if done is not None:
                await done
        for process in self._processes:
            print(*process.lines.all[-50:], sep="\n")  # pytest shows it where the test fails
            process.signal("KILL")
            await process.wait()

    @staticmethod
    def _end(client: Client) -> Deferred[Any] | None:
        if client.closed.called:
            return None
        client.transport.abortConnection()
        return client.closed


def _hang_up(connection: Any) -> Deferred[Any] | None:
    if connection.lost.called:
        return None
    connection.transport.abortConnection()
    return connection.lost  # type: ignore[no-any-return]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MARKETFEED_", "REDIS_", "PORT"))}
    kept["MARKETFEED_ADMIN"] = "off"  # or all daemons of all tests would want one port
    kept["MARKETFEED_PAYLOADS"] = "engine"  # tests know what they publish by its bytes, on every path
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))}
