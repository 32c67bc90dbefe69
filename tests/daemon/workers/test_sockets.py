"""The sockets, as the kernel has them: held by one, accepted from by others, and never refused meanwhile."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from marketfeed.daemon.workers.sockets import Inherited, Opener
from marketfeed.runtime.listener import CannotServe, Listener
from tests.system.harness import Harness


class Greeter(Protocol):
    def connectionMade(self) -> None:
        self.factory.count += 1  # type: ignore[union-attr]
        self.factory.transports.add(type(self.transport).__name__)  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


class Greeters(Factory[Greeter]):
    protocol = Greeter
    noisy = False
    count = 0

    def __init__(self) -> None:
        self.transports: set[str] = set()


class Opened:
    """What a parent holds, and what its workers have of it."""

    def __init__(self, description: str, workers: int = 2) -> None:
        self.opener = Opener(reactor, workers)
        self.listener = Listener(self.opener.endpoint(description), Greeters(), description)
        self.listener.privilegedStartService()
        self.workers: list[tuple[Inherited, Greeters]] = []

    def worker(self) -> tuple[Inherited, Greeters]:
        queues = [[(os.dup(each.fileno()), each.family) for each in queue] for queue in self.opener.queues]
        inherited, factory = Inherited(reactor, queues), Greeters()
        inherited.listen(factory)
        self.workers.append((inherited, factory))
        return inherited, factory

    async def close(self) -> None:
        for inherited, _ in self.workers:
            await inherited.close()
        stopped = self.listener.stopService()
        if stopped is not None:
            await stopped


@pytest.fixture
def opened(request: Any) -> Iterator[Any]:
    made: list[Opened] = []

    def make(description: str, workers: int = 2) -> Opened:
        made.append(Opened(description, workers))
        return made[-1]

    yield make
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


def knock(family: int, address: Any) -> socket.socket:
    client = socket.socket(family)
    client.settimeout(20)
    client.connect(address)
    return client


@pytest_twisted.ensureDeferred
async def test_what_arrives_waits_for_whoever_accepts_from_its_queue(opened: Any, harness: Harness) -> None:
    """On IPv4 and IPv6, which have queues of their own on one number."""
    port = opened("0")
    number = port.listener.port_number
    assert len(port.opener.queues) == 2
    clients = [knock(socket.AF_INET, ("127.0.0.1", number)) for _ in range(40)]
    if len(port.opener.queues[0]) == 2:
        clients += [knock(socket.AF_INET6, ("::1", number)) for _ in range(40)]
    one, other = port.worker(), port.worker()
    one[0].accept((0,))
    other[0].accept((1,))
    await harness.eventually(lambda: one[1].count + other[1].count == len(clients))
    assert one[1].count > 0 < other[1].count
    await other[0].close()
    clients += [knock(socket.AF_INET, ("127.0.0.1", number)) for _ in range(40)]
    one[0].accept((0, 1))
    await harness.eventually(lambda: one[1].count + other[1].count == len(clients))
    one[0].accept(())
    clients += [knock(socket.AF_INET, ("127.0.0.1", number)) for _ in range(10)]
    third = port.worker()
    third[0].accept((0, 1))
    await harness.eventually(lambda: third[1].count == 10)
    for client in clients:
        client.close()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")
@pytest.mark.parametrize("workers", [1, 2])
def test_how_many_are_accepted_in_a_turn(opened: Any, workers: int) -> None:
    """From a queue of its own all who wait there; from one for all a single one, or whoever is first would have all."""
    port = opened("tcp:0:interface=127.0.0.1", workers)
    clients = [knock(socket.AF_INET, ("127.0.0.1", port.listener.port_number)) for _ in range(40)]
    inherited, factory = port.worker()
    inherited.accept((0,))
    ((accepting,),) = inherited._ports.values()
    accepting.doRead()
    first = factory.count
    accepting.doRead()
    if workers == 1:
        assert (first, factory.count) == (1, 2)
    else:
        assert first == factory.count > 0
    assert factory.transports == {"TcpConnection"}
    for client in clients:
        client.close()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_stays_when_a_worker_goes(opened: Any, harness: Harness, tmp_path: Path) -> None:
    path = tmp_path / "clients.sock"
    port = opened(f"unix:{path}:mode=600")
    assert len(port.opener.queues) == 1
    inherited, factory = port.worker()
    inherited.accept((0,))
    knock(socket.AF_UNIX, str(path)).close()
    await harness.eventually(lambda: factory.count == 1)
    await inherited.close()
    assert path.stat().st_mode & 0o777 == 0o600
    waiting = knock(socket.AF_UNIX, str(path))
    again, factory = port.worker()
    again.accept((0,))
    await harness.eventually(lambda: factory.count == 1)
    waiting.close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_another_has_is_taken(opened: Any, shared: bool) -> None:
    """Also where the other one would share it."""
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(CannotServe, match=f"port tcp:{number}:interface=127.0.0.1 is taken"):
            opened(f"tcp:{number}:interface=127.0.0.1")
