"""The register of clients: who may come in, and how a drain sends everybody away."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from marketfeed.websocket.connections import Connection, UserManager
from marketfeed.wire.messages import ServerShutdown
from tests.conftest import LogCapture
from tests.strategies import property_test

NOW = 1_700_000_000.0


class FakeConnection:
    """A client that leaves when the test says so, or as soon as it is sent away or aborted."""

    def __init__(self, room: Room, *, polite: bool = True) -> None:
        self.room = room
        self.polite = polite
        self.farewell: ServerShutdown | None = None
        self.sent_away_at: float | None = None
        self.at_once = False
        self.aborted = False
        self.user_id = room.users.add(self)

    def send_away(self, farewell: ServerShutdown, *, at_once: bool) -> None:
        assert self.farewell is None, "sent away twice"
        self.farewell, self.at_once = farewell, at_once
        self.sent_away_at = self.room.clock.seconds()
        if self.polite:
            self.leave()

    def abort(self) -> None:
        self.aborted = True
        self.leave()

    def beat(self, now: float, patience: float) -> None:
        raise AssertionError("nobody is pinged here")

    def leave(self) -> None:
        self.room.users.remove(self.user_id)


class Room:
    """A manager of users, and a clock."""

    def __init__(self, drain_seconds: float = 20.0, max_connections: int = 1000) -> None:
        self.clock = Clock()
        self.users = UserManager(self.clock, max_connections, drain_seconds, lambda: NOW + self.clock.seconds())
        self.drained: Deferred[None] | None = None

    def drain(self) -> None:
        self.drained = Deferred.fromCoroutine(self.users.drain())
        self.clock.advance(0)

    @property
    def is_drained(self) -> bool:
        return self.drained is not None and self.drained.called

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))


if TYPE_CHECKING:
    _connection: Connection = FakeConnection(Room())


def test_each_client_has_a_number_of_its_own() -> None:
    """It is not given out again when the client has left."""
    room = Room()
    first, second = FakeConnection(room), FakeConnection(room)
    assert first.user_id != second.user_id
    assert len(room.users) == 2
    first.leave()
    first.leave()
    assert len(room.users) == 1
    assert FakeConnection(room).user_id not in (first.user_id, second.user_id)


def test_a_full_server_lets_nobody_in() -> None:
    """Until somebody leaves; the refusal says when to come back. Who comes for one answer takes nobody's place."""
    room = Room(max_connections=2)
    first = FakeConnection(room)
    assert room.users.refusal() is None
    FakeConnection(room)
    refusal = room.users.refusal()
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (503, (("Retry-After", "30"),))
    assert room.users.refusal(stays=False) is None
    first.leave()
    assert room.users.refusal() is None


def test_a_draining_server_lets_nobody_in() -> None:
    """From the first moment, and also when nobody is there."""
    room = Room()
    room.drain()
    assert room.is_drained
    refusal = room.users.refusal()
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (503, (("Retry-After", "5"),))
    assert room.users.refusal(stays=False) == refusal
    assert not room.clock.getDelayedCalls()


def test_a_drain_is_spread_over_its_time() -> None:
    """No tick sends away many more than its share, and all have been sent when the time is over."""
    room = Room(drain_seconds=10)
    users = [FakeConnection(room) for _ in range(1000)]
    room.drain()
    room.pass_time(5)
    away = [user for user in users if user.farewell]
    assert 450 <= len(away) <= 550
    moments = [user.sent_away_at for user in away]
    assert all(moments.count(moment) == 10 for moment in moments)
    room.pass_time(5)
    assert all(user.farewell and not user.at_once and not user.aborted for user in users)
    assert room.is_drained
    assert not room.clock.getDelayedCalls()


@pytest.mark.parametrize("count", [1, 7, 10, 55, 101, 150, 199, 5000])
def test_however_many_there_are_a_drain_is_even(count: int) -> None:
    """No second sees more than twice the mean, or one client where that is less."""
    room = Room(drain_seconds=10)
    users = [FakeConnection(room) for _ in range(count)]
    room.drain()
    room.pass_time(10.2)
    moments = [user.sent_away_at for user in users if user.sent_away_at is not None]
    assert len(moments) == count
    seconds = Counter(int(moment + 0.001) for moment in moments)
    assert max(seconds.values()) <= max(1, 2 * count / 10)
    assert max(moments) < 10.05
    assert count < 10 or len(seconds) == 10


def test_a_drain_that_has_fallen_behind_catches_up() -> None:
    """The process has had other things to do for two seconds: half a second's worth is sent at once, then the rest."""
    room = Room(drain_seconds=10)
    users = [FakeConnection(room) for _ in range(1000)]
    room.drain()
    room.clock.advance(2)
    assert sum(user.farewell is not None for user in users) == 60
    room.pass_time(1)
    assert sum(user.farewell is not None for user in users) == 210
    room.pass_time(7)
    assert all(user.farewell for user in users)


def test_a_drain_whose_every_turn_is_late_ends_in_its_time() -> None:
    """The process has a turn each half second, and sends away what is due by then."""
    room = Room(drain_seconds=10)
    users = [FakeConnection(room) for _ in range(1000)]
    room.drain()
    room.clock.pump([0.5] * 21)
    assert all(user.farewell for user in users)


@property_test
@given(st.integers(1, 800), st.floats(1, 12), st.lists(st.tuples(st.integers(0, 40), st.floats(0, 4)), max_size=8))
def test_a_drain_is_late_by_what_it_was_held_up(
    count: int, drain_seconds: float, stalls: list[tuple[int, float]]
) -> None:
    """And no second sees more than twice the mean, or one client where that is less, whenever the process is stalled.
    `stalls`: before which turn, and for how long.
    """
    room = Room(drain_seconds=drain_seconds)
    users = [FakeConnection(room) for _ in range(count)]
    room.drain()
    turns = [0.1] * (round(drain_seconds * 10) + 2)
    for turn, stall in stalls:
        turns[min(turn, len(turns) - 1)] += stall
    room.clock.pump(turns)
    moments = sorted(user.sent_away_at for user in users if user.sent_away_at is not None)
    assert len(moments) == count
    most = max(1, int(2 * count / drain_seconds + 0.001))
    assert all(after - before > 0.9999 for before, after in zip(moments, moments[most:], strict=False))


def test_what_has_come_already_is_sent_first() -> None:
    """Nobody is sent away in the turn in which the drain begins."""
    room = Room(drain_seconds=1)
    user = FakeConnection(room)
    drained = Deferred.fromCoroutine(room.users.drain())
    assert user.farewell is None
    room.clock.advance(0)
    assert user.farewell is not None
    assert drained.called


def test_clients_are_asked_back_at_different_moments() -> None:
    """The farewell has the time, and a random pause within 5 s."""
    room = Room(drain_seconds=1)
    users = [FakeConnection(room) for _ in range(200)]
    room.drain()
    room.pass_time(2)
    farewells = [user.farewell for user in users if user.farewell]
    assert all(NOW * 1000 <= farewell.at <= NOW * 1000 + 1000 for farewell in farewells)
    pauses = [farewell.reconnectAfter for farewell in farewells]
    assert all(500 <= pause < 5000 for pause in pauses)
    assert len(set(pauses)) > 100


@pytest.mark.parametrize("late", [True, False])
def test_clients_have_a_moment_to_answer_the_close(late: bool) -> None:
    """The drain ends with the last of them, and 5 s are the most that it waits."""
    room = Room(drain_seconds=1)
    user = FakeConnection(room, polite=False)
    room.drain()
    room.pass_time(4.9)
    assert not room.is_drained
    if late:
        room.pass_time(0.2)
    else:
        user.leave()
    assert user.aborted is late
    assert room.is_drained
    assert not room.clock.getDelayedCalls()


@pytest.mark.parametrize("hurried", [True, False])
def test_a_drain_that_has_no_time_sends_everybody_away_at_once(hurried: bool) -> None:
    """Either it was set up so, or was told to hurry before; nobody's answer is waited for."""
    room = Room(drain_seconds=20 if hurried else 0)
    if hurried:
        room.users.hurry()
    users = [FakeConnection(room) for _ in range(50)]
    room.drain()
    assert all(user.at_once and user.sent_away_at == 0 for user in users)
    assert room.is_drained


def test_a_drain_that_is_hurried_ends_within_moments() -> None:
    """Those still here are sent away together, and who does not answer is not waited for."""
    room = Room(drain_seconds=100)
    users = [FakeConnection(room, polite=False) for _ in range(5000)]
    room.drain()
    room.pass_time(1)
    assert not all(user.farewell for user in users)
    room.users.hurry()
    room.pass_time(0.1)
    assert all(user.farewell for user in users)
    assert not any(user.aborted for user in users)
    room.pass_time(0.2)
    assert all(user.aborted for user in users)
    assert room.is_drained


def test_a_drain_that_waits_for_the_last_answers_can_be_hurried_too() -> None:
    """All have been sent away by then."""
    room = Room(drain_seconds=1)
    user = FakeConnection(room, polite=False)
    room.drain()
    room.pass_time(2)
    room.users.hurry()
    room.pass_time(0.2)
    assert user.aborted
    assert room.is_drained
    assert not room.clock.getDelayedCalls()


def test_who_has_left_meanwhile_does_not_hold_the_drain_up() -> None:
    """All but one go by themselves."""
    room = Room(drain_seconds=10)
    users = [FakeConnection(room) for _ in range(300)]
    room.drain()
    for user in users[1:]:
        user.leave()
    room.pass_time(10.2)
    assert room.is_drained


def test_a_drain_is_over_when_everybody_has_gone() -> None:
    """Be it long before its time."""
    room = Room(drain_seconds=100)
    users = [FakeConnection(room) for _ in range(300)]
    room.drain()
    for user in users:
        if user.farewell is None:
            user.leave()
    room.pass_time(0.2)
    assert room.is_drained
    assert not room.clock.getDelayedCalls()


def test_who_has_gone_takes_none_of_the_time() -> None:
    """Those who are left are sent away as fast as all would have been."""
    room = Room(drain_seconds=10)
    users = [FakeConnection(room, polite=False) for _ in range(300)]
    room.drain()
    for user in users[10:]:
        if user.farewell is None:
            user.leave()
    room.pass_time(1)
    assert all(user.farewell is not None for user in users[:10])
    room.pass_time(6)
    assert room.is_drained


def test_one_failure_does_not_hold_the_drain_up(logged: LogCapture) -> None:
    """A client that cannot be sent away is ended, the others are sent away all the same."""

    class Broken(FakeConnection):
        def send_away(self, farewell: ServerShutdown, *, at_once: bool) -> None:
            raise ZeroDivisionError

    room = Room(drain_seconds=1)
    users = [FakeConnection(room), Broken(room), FakeConnection(room)]
    room.drain()
    room.pass_time(1)
    assert [user.aborted for user in users] == [False, True, False]
    assert room.is_drained
    assert len(logged.flush_failures(ZeroDivisionError)) == 1


@property_test
@given(st.integers(0, 300), st.floats(0, 30), st.data())
def test_every_drain_ends(count: int, drain_seconds: float, data: st.DataObject) -> None:
    """In its time and the grace behind it, whoever answers, leaves or stays silent; each hears one farewell at most."""
    room = Room(drain_seconds=drain_seconds)
    users = [FakeConnection(room, polite=data.draw(st.booleans())) for _ in range(count)]
    leaving = data.draw(st.lists(st.tuples(st.sampled_from(users), st.floats(0, 40)), max_size=5)) if users else []
    for user, moment in leaving:
        room.clock.callLater(moment, user.leave)
    room.drain()
    room.pass_time(drain_seconds + 5.3)
    assert room.is_drained
    assert len(room.users) == 0
    room.pass_time(40)
    assert not room.clock.getDelayedCalls()
