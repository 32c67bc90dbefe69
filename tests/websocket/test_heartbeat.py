"""The sweep over all clients: when each is pinged, and who is ended for not answering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.websocket.connections import BUCKETS, Connection, UserManager
from marketfeed.websocket.heartbeat import Heartbeat
from marketfeed.wire.messages import ServerShutdown
from tests.conftest import LogCapture
from tests.strategies import property_test
from tests.websocket.server import Server, Wire

INTERVAL, PATIENCE = 20.0, 60.0
TICK = INTERVAL / BUCKETS
PING, PONG, CLOSE_4009 = b"\x89\x00", b"\x8a\x80mask", b"\x88\x1d\x0f\xa9no pong within the time-out"


class Visited:
    """A client that notes when it is visited."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.beats: list[float] = []
        self.aborted = False
        self.fault: Exception | None = None
        self.on_beat: Callable[[], None] = lambda: None

    def beat(self, now: float, patience: float) -> None:
        assert now == self.clock.seconds()
        assert PATIENCE - TICK < patience <= PATIENCE
        self.beats.append(now)
        self.on_beat()
        if self.fault is not None:
            raise self.fault

    def abort(self) -> None:
        self.aborted = True

    def send_away(self, farewell: ServerShutdown, *, at_once: bool) -> None:
        raise AssertionError("nobody drains")


if TYPE_CHECKING:
    _connection: Connection = Visited(Clock())


class Ward:
    """A heartbeat over clients, on a clock."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.clock = Clock()
        self.users = UserManager(self.clock, 1000, 0.0, self.clock.seconds)
        self.heartbeat = Heartbeat(self.clock, self.users, interval, PATIENCE)
        self.heartbeat.startService()

    def visited(self, count: int) -> list[Visited]:
        clients = [Visited(self.clock) for _ in range(count)]
        for client in clients:
            self.users.add(client)
        return clients

    def wait(self, seconds: float) -> None:
        """Let time pass, in steps much shorter than a tick."""
        for _ in range(round(seconds / TICK * 4)):
            self.clock.advance(TICK / 4)


@pytest.fixture
def ward() -> Iterator[Ward]:
    yield (ward := Ward())
    ward.heartbeat.stopService()
    assert not ward.clock.getDelayedCalls()


# When.


def test_every_client_is_visited_once_an_interval(ward: Ward) -> None:
    """As regularly as a clock, whenever it came."""
    early = ward.visited(30)
    ward.wait(7.3)
    late = ward.visited(30)
    ward.wait(5 * INTERVAL)
    for client in early + late:
        assert len(client.beats) in (5, 6)
        gaps = [later - sooner for sooner, later in zip(client.beats, client.beats[1:], strict=False)]
        assert all(abs(gap - INTERVAL) < TICK / 2 for gap in gaps)


@pytest.mark.parametrize("count", [1, 19, 20, 21, 107])
def test_the_visits_are_spread_over_the_interval(ward: Ward, count: int) -> None:
    """At no moment more than a twentieth of the clients: their answers do not come all at once either."""
    clients = ward.visited(count)
    ward.wait(INTERVAL)
    moments = Counter(beat for client in clients for beat in client.beats)
    assert sum(moments.values()) == count
    assert max(moments.values()) == -(-count // BUCKETS)
    assert len(moments) == min(count, BUCKETS)


def test_a_moment_of_standing_still_leaves_nobody_out(ward: Ward) -> None:
    """A process that was held up goes on where it was; it does not make up for it with a flood of pings."""
    clients = ward.visited(BUCKETS)
    ward.wait(INTERVAL / 2)
    before = sum(len(client.beats) for client in clients)
    ward.clock.advance(3 * INTERVAL)
    assert sum(len(client.beats) for client in clients) <= before + 1
    ward.wait(INTERVAL)
    assert all(client.beats for client in clients)


def test_an_interval_of_0_pings_nobody() -> None:
    """And needs no timer."""
    ward = Ward(interval=0)
    (client,) = ward.visited(1)
    assert not ward.clock.getDelayedCalls()
    ward.clock.advance(10_000)
    ward.heartbeat.stopService()
    assert not client.beats


def test_a_heartbeat_that_is_stopped_can_be_started_again(ward: Ward) -> None:
    """No visits in between, and no timer."""
    (client,) = ward.visited(1)
    ward.wait(INTERVAL)
    ward.heartbeat.stopService()
    assert not ward.clock.getDelayedCalls()
    ward.wait(2 * INTERVAL)
    assert len(client.beats) == 1
    ward.heartbeat.startService()
    ward.wait(INTERVAL)
    assert len(client.beats) == 2


# Whatever clients do.


def test_a_client_that_fails_is_ended_and_the_others_are_visited(ward: Ward, logged: LogCapture) -> None:
    """The sweep goes on, in this tick and in all that follow; the fault is logged."""
    clients = ward.visited(3 * BUCKETS)
    for client in clients[20:40]:
        client.fault = ValueError("broken")
    ward.wait(2 * INTERVAL)
    assert all(len(client.beats) == 2 for client in clients)
    assert [client.aborted for client in clients] == [False] * 20 + [True] * 20 + [False] * 20
    assert len(logged.flush_failures(ValueError)) == 40


def test_clients_may_leave_during_their_visit(ward: Ward) -> None:
    """What is ended in the midst of a sweep is gone from it; the rest of its share is visited."""
    clients = [Visited(ward.clock) for _ in range(3 * BUCKETS)]
    numbers = [ward.users.add(client) for client in clients]
    for client, number in zip(clients, numbers, strict=True):
        client.on_beat = lambda number=number: ward.users.remove(number)  # type: ignore[misc]
    ward.wait(2 * INTERVAL)
    assert [len(client.beats) for client in clients] == [1] * len(clients)
    assert len(ward.users) == 0


@property_test
@given(st.lists(st.integers(0, 60)))
def test_the_shares_are_all_clients_each_once(comings_and_goings: list[int]) -> None:
    """Whoever comes and goes, in any order: the register and its shares say the same, and shares are about equal."""
    users = UserManager(Clock(), 1000, 0.0, lambda: 0.0)
    known: dict[int, Any] = {}
    for choice in comings_and_goings:
        if choice in known:
            users.remove(choice)
            users.remove(choice)
            del known[choice]
        else:
            user = Visited(Clock())
            known[users.add(user)] = user
        shares = [users.bucket(number) for number in range(BUCKETS)]
        assert Counter(user for share in shares for user in share) == Counter(known.values()) == Counter(users)
        assert len(users) == len(known)
        for number, share in enumerate(shares):
            assert share == [user for user_id, user in known.items() if user_id % BUCKETS == number]


# Real connections.


class Clients:
    """Real connections under the heartbeat."""

    def __init__(self) -> None:
        self.server = Server(client_queue=1 << 20)
        self.server.source.at_once = True
        self.clock, self.users, self.source = self.server.clock, self.server.users, self.server.source
        self.heartbeat = Heartbeat(self.clock, self.users, INTERVAL, PATIENCE)
        self.heartbeat.startService()
        self.wires: list[Wire] = []

    def connect(self) -> Wire:
        wire = self.server.open("/ws/trade@A")
        assert not wire.sent
        self.wires.append(wire)
        return wire

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)
            for wire in self.wires:
                wire.settle()

    def end(self) -> None:
        for wire in self.wires:
            wire.hang_up()
        self.heartbeat.stopService()
        self.server.assert_empty()


@pytest.fixture
def clients() -> Iterator[Clients]:
    yield (clients := Clients())
    clients.end()


def test_a_client_that_answers_is_pinged_once_an_interval(clients: Clients) -> None:
    """And stays, for ever."""
    wire = clients.connect()
    for _ in range(20):
        clients.wait(INTERVAL)
        assert wire.sent == PING
        wire.receive(PONG)
    assert len(clients.users) == 1


def test_a_client_that_leaves_a_ping_unanswered_is_closed_with_4009(clients: Clients) -> None:
    """Not before its time, with one ping on the way; and if it does not answer the close either, it is cut off."""
    wire, other = clients.connect(), clients.connect()
    clients.wait(INTERVAL)
    assert wire.sent == PING
    other.receive(PONG)
    for _ in range(2):
        clients.wait(INTERVAL)
        other.receive(PONG)
        assert wire.sent == b""
    clients.wait(INTERVAL)
    other.receive(PONG)
    assert wire.sent == CLOSE_4009
    clients.wait(INTERVAL)
    assert wire.lost is not None
    assert len(clients.users) == 1
    assert other.lost is None


def test_the_time_is_up_though_a_tick_comes_early(clients: Clients) -> None:
    """Timers are late by a little, now more, now less: that is not worth another interval."""
    wire = clients.connect()
    clients.wait(INTERVAL - TICK)
    while wire.protocol._pinged is None:
        clients.clock.advance(TICK / 7)  # so that the ping is late by up to that
    clients.wait(PATIENCE)
    assert wire.sent == PING + CLOSE_4009


def test_a_late_answer_is_an_answer(clients: Clients) -> None:
    """The time counts from the ping that is unanswered, not from one that was answered late."""
    wire = clients.connect()
    for _ in range(10):
        clients.wait(INTERVAL)
        assert wire.sent == PING
        clients.wait(INTERVAL)
        clients.wait(INTERVAL)
        wire.receive(PONG)
    assert wire.sent == b""


def test_a_client_is_not_blamed_for_a_process_that_stood_still(clients: Clients) -> None:
    """Its answer waits to be read: that is done in the turns of the reactor before it has its next visit."""
    wires = [clients.connect() for _ in range(BUCKETS)]
    clients.wait(INTERVAL - TICK)
    pinged = [wire for wire in wires if wire.sent == PING]
    assert len(pinged) == BUCKETS - 1
    clients.clock.advance(10 * PATIENCE)
    for wire in wires:
        wire.receive(PONG)
    clients.wait(2 * TICK)
    assert len(clients.users) == BUCKETS
    assert all(wire.sent in (b"", PING) for wire in wires)


def test_a_client_whose_backlog_moves_is_spared(clients: Clients) -> None:
    """A ping waits behind what waits before it: a client that takes something in time is there."""
    wire = clients.connect()
    wire.socket.room = 0
    data = b'{"e":"trade","t":1,"m":true,"p":"1","q":"1","s":"A","x":"%b"}' % (b"x" * 60_000)
    clients.source.publish("trade@A", *[data] * 10)
    for _ in range(8):
        wire.socket.room += 30_000
        clients.wait(PATIENCE - TICK)
    assert wire.lost is None
    assert wire.protocol.outbox.waiting_bytes
    while wire.protocol.state == wire.protocol.STATE_OPEN:
        clients.wait(TICK)
    wire.socket.room = None
    wire.settle()
    received = wire.sent
    assert PING in received
    assert received.endswith(CLOSE_4009)
    clients.wait(INTERVAL)
    assert wire.lost is not None


def test_a_client_that_takes_nothing_is_not_spared_for_its_backlog(clients: Clients) -> None:
    """What begins to wait is no sign of life."""
    wire = clients.connect()
    clients.wait(INTERVAL)
    wire.socket.room = 0
    data = b'{"e":"trade","t":1,"m":true,"p":"1","q":"1","s":"A"}'
    for _ in range(3):
        clients.wait(INTERVAL - TICK)
        clients.source.publish("trade@A", data)
        clients.wait(TICK)
    assert wire.protocol.state != wire.protocol.STATE_OPEN
    clients.wait(INTERVAL)
    assert wire.lost is not None


def test_nothing_follows_a_close(clients: Clients) -> None:
    """A connection that waits for the answer to its close is pinged no more."""
    wires = [clients.connect() for _ in range(BUCKETS)]
    for wire in wires:
        wire.protocol.send_away(ServerShutdown(0, 0), at_once=False)
        assert wire.sent
    clients.wait(4 * TICK)
    assert not any(wire.sent for wire in wires)
    clients.wait(INTERVAL)
    assert len(clients.users) == 0
