"""What systemd is told, and when: as a real datagram socket hears it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from marketfeed.runtime.systemd import Systemd
from tests.conftest import LogCapture

READY, FED = "READY=1", "WATCHDOG=1"
STOPPING = "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000"


class World:
    """systemd's end of the socket, and a reactor that begins and ends to run when the test says so."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(address)
        self.environment = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        self.reactor: Any = MemoryReactorClock()
        self.started: list[Systemd] = []
        self.stop_seconds = 20.0

    def start(self, **environment: str) -> Systemd:
        service = Systemd(self.reactor, self.environment | environment, lambda: self.stop_seconds)
        self.started.append(service)
        service.startService()
        return service

    def run(self) -> None:
        self._call(self.reactor.whenRunningHooks)

    def shut_down(self) -> None:
        self._call(self.reactor.triggers.get("before", {}).get("shutdown", []))

    def heard(self) -> list[str]:
        """What has come since the last call."""
        found = []
        try:
            while True:
                found.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return found

    @staticmethod
    def _call(hooks: list[tuple[Callable[..., object], Any, Any]]) -> None:
        for call, args, kwargs in hooks:
            call(*args, **kwargs)


@pytest.fixture(params=["a path", "an abstract name"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Either kind of address; in the end nothing is left of what was started."""
    path = str(tmp_path / "notify")
    world = World(path if request.param == "a path" else f"\0{path}")
    yield world
    for service in world.started:
        service.stopService()
    assert world.reactor.getDelayedCalls() == []
    world.socket.close()


def test_it_is_ready_once_the_reactor_runs(world: World) -> None:
    """Then every port is bound."""
    world.start()
    assert world.heard() == []
    world.run()
    assert world.heard() == [READY]


def test_a_stop_is_told_as_it_begins(world: World) -> None:
    """With the time that it may take: 40 s for the clients, since the last reload, and some more."""
    world.start()
    world.stop_seconds = 40.0
    world.shut_down()
    assert world.heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=55000000"]


def test_a_reload_has_a_beginning_and_an_end(world: World) -> None:
    """With the time at which it began, on the clock that systemd compares it with."""
    service = world.start()
    before = time.monotonic_ns() // 1000
    heard: list[list[str]] = []
    service.reload(lambda: heard.append(world.heard()))
    ((told,),) = heard
    name, _, stamp = told.partition("\nMONOTONIC_USEC=")
    assert (name, world.heard()) == ("RELOADING=1", [READY])
    assert before <= int(stamp) <= time.monotonic_ns() // 1000


def test_a_reload_that_fails_has_an_end_too(world: World) -> None:
    """Or systemd would wait for it."""
    service = world.start()
    with pytest.raises(ZeroDivisionError):
        service.reload(lambda: 1 // 0)
    assert [each.partition("\n")[0] for each in world.heard()] == ["RELOADING=1", READY]


@pytest.mark.parametrize("more", [{}, {"WATCHDOG_PID": str(os.getpid())}])
def test_the_watchdog_is_fed_twice_in_each_interval(world: World, more: dict[str, str]) -> None:
    """By a timer of the reactor, until the service stops."""
    service = world.start(WATCHDOG_USEC="10000000", **more)
    world.reactor.advance(4.9)
    assert world.heard() == []
    world.reactor.advance(0.1)
    world.reactor.advance(5)
    world.shut_down()
    world.reactor.advance(5)
    assert world.heard() == [FED, FED, STOPPING, FED]
    service.stopService()
    world.reactor.advance(5)
    assert world.heard() == []
    world.started.clear()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}],
)
def test_there_may_be_no_watchdog(world: World, environment: dict[str, str]) -> None:
    """Or it waits for another process than this one."""
    world.start(**environment)
    assert world.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("address", [None, ""])
def test_nobody_may_have_asked(world: World, address: str | None) -> None:
    """A watchdog by itself is nobody to be told."""
    world.environment = {} if address is None else {"NOTIFY_SOCKET": address}
    service = world.start(WATCHDOG_USEC="10000000")
    service.reload(lambda: None)
    world.run()
    world.shut_down()
    assert world.heard() == []


def test_an_address_of_another_kind_is_said(world: World, logged: LogCapture) -> None:
    """And nothing else happens."""
    world.environment = {"NOTIFY_SOCKET": "vsock:2:1234"}
    world.start(WATCHDOG_USEC="10000000")
    assert [event["path"] for event in logged.events] == ["vsock:2:1234"]
    assert world.reactor.getDelayedCalls() == []


def test_what_systemd_does_not_take_is_lost(world: World, logged: LogCapture) -> None:
    """Its queue is full, or it has gone: nobody waits, the log says what it was not told."""
    service = world.start()
    while not logged.events:
        service.reload(lambda: None)
    told = len(logged.events)
    world.socket.close()
    service.reload(lambda: None)
    assert [event["what"] for event in logged.events[told:]] == ["RELOADING=1", "READY=1"]


def test_ready_is_what_is_said_to_be(world: World) -> None:
    """Where it is not the running reactor."""
    service = Systemd(world.reactor, world.environment, lambda: 1.0, waits=True)
    world.started.append(service)
    service.startService()
    world.run()
    assert world.heard() == []
    service.ready()
    assert world.heard() == [READY]


def test_the_watchdog_is_not_fed_while_something_hangs(world: World) -> None:
    well = [True]
    environment = {**world.environment, "WATCHDOG_USEC": "2000000"}
    service = Systemd(world.reactor, environment, lambda: 1.0, is_well=lambda: well[0])
    world.started.append(service)
    service.startService()
    world.reactor.advance(1)
    assert world.heard() == [FED]
    well[0] = False
    world.reactor.advance(1)
    assert world.heard() == []


def test_a_reload_may_end_later(world: World, logged: LogCapture) -> None:
    """And then too where it failed."""
    service = world.start()
    for end in (lambda done: done.callback(None), lambda done: done.errback(ZeroDivisionError())):
        done: Deferred[None] = Deferred()
        service.reload(lambda done=done: done)  # type: ignore[misc]
        assert [each.partition("\n")[0] for each in world.heard()] == ["RELOADING=1"]
        end(done)
        assert world.heard() == [READY]
    assert len(logged.flush_failures(ZeroDivisionError)) == 1
