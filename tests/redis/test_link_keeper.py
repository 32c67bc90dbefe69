"""A link that is kept, in memory: when it is used, signs of life, attempts without end, and its end at any moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IResolutionReceiver, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent

from marketfeed.redis.address import RedisAddress, parse_redis_url
from marketfeed.redis.link import RedisLink
from marketfeed.redis.link_keeper import LinkKeeper
from tests.conftest import LogCapture
from tests.redis.memory import PONG, Connection, Endpoint, stop
from tests.strategies import property_test

OK = b"+OK\r\n"
SECRET = "a secret"
PLAIN = parse_redis_url("redis://cache.example:6379")
FULL = RedisAddress(username="feed", password=SECRET, database=3)
REFUSED = error.ConnectionRefusedError()


class Keeper(LinkKeeper[RedisLink]):
    """Records when a link is up, and down."""

    def __init__(self, clock: Any, endpoint: IStreamClientEndpoint, address: RedisAddress = PLAIN) -> None:
        super().__init__(clock, endpoint, address, "cache")
        self.events: list[str] = []
        self.on_up: Callable[[], None] = lambda: None
        self.on_down: Callable[[], None] = lambda: None

    def make_link(self) -> RedisLink:
        return RedisLink(self._clock)

    def link_up(self, link: RedisLink) -> None:
        assert link is self.link
        self.events.append("up")
        self.on_up()

    def link_down(self, link: RedisLink | None) -> None:
        assert self.link is None
        self.events.append("none" if link is None else "down")
        self.on_down()


class World:
    """A keeper, and all that it meets."""

    def __init__(self, address: RedisAddress = PLAIN, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.endpoint = Endpoint(self.clock)
        self.keeper = Keeper(self.clock, self.endpoint, address)

    def start(self) -> World:
        self.keeper.startService()
        return self

    def connect(self) -> Connection:
        """A link that is up; one that waits for a new attempt gets it."""
        return self.endpoint.link()

    def next_attempt(self) -> float:
        """Wait for the next attempt; the pause before it, in seconds."""
        before = self.clock.seconds()
        while not self.endpoint.is_waiting:
            (call,) = self.clock.getDelayedCalls()
            self.clock.advance(call.getTime() - self.clock.seconds())
        return self.clock.seconds() - before

    def fail(self, times: int, fault: Exception) -> list[float]:
        """Let so many attempts fail; the pause after each."""
        pauses = []
        for _ in range(times):
            self.endpoint.refuse(fault)
            pauses.append(self.next_attempt())
        return pauses

    def stop(self) -> None:
        """Stop it, and see that nothing is left: no timer, no connection, no further attempt."""
        stop(self.keeper, self.clock)
        assert not any(connection.is_open for connection in self.endpoint.connections)
        assert not self.endpoint.is_waiting
        events, attempts = list(self.keeper.events), len(self.endpoint.attempts)
        self.clock.advance(1000)
        assert (self.keeper.events, len(self.endpoint.attempts)) == (events, attempts)


def causes(logged: LogCapture, level: LogLevel = LogLevel.error) -> list[str]:
    """Why there was no connection, of each line of that level."""
    return [event["cause"] for event in logged.events if event["log_level"] is level and "cause" in event]


def text_of(logged: LogCapture) -> str:
    return "\n".join(formatEvent(event) for event in logged.events)


# The login.


WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


def test_a_link_is_used_when_its_login_is_done() -> None:
    """Not before."""
    world = World(FULL).start()
    connection = world.endpoint.accept()
    for answer in (OK, OK, PONG):
        assert world.keeper.events == []
        connection.answer(answer)
    assert world.keeper.events == ["up"]
    world.stop()
    assert world.keeper.events == ["up", "down"]


def test_a_login_that_fails_is_one_line(logged: LogCapture) -> None:
    """What the server objects to is said, with the server's own words; the link is closed, and tried again."""
    world = World(FULL).start()
    connection = world.endpoint.accept()
    connection.answer(WRONGPASS)
    world.clock.advance(0)
    assert not connection.is_open
    assert world.keeper.events == ["none"]
    assert causes(logged) == ["the login was refused: WRONGPASS invalid username-password pair or user is disabled."]
    assert len([event for event in logged.events if event["log_level"] > LogLevel.debug]) == 1
    world.next_attempt()
    world.stop()
    assert SECRET not in text_of(logged)


def test_a_silent_server_is_given_up(logged: LogCapture) -> None:
    """Ten seconds later somebody else gets a chance."""
    world = World(FULL).start()
    connection = world.endpoint.accept()
    world.clock.advance(9.9)
    assert connection.is_open
    world.clock.advance(0.2)
    world.clock.advance(0)
    assert not connection.is_open
    assert causes(logged) == ["no answer within 10 s, is it a Redis server?"]
    world.stop()


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_a_connection_that_ends_during_the_login(answered: int, logged: LogCapture) -> None:
    """It is one more failed attempt."""
    world = World(FULL).start()
    connection = world.endpoint.accept()
    connection.answer(*[OK] * answered)
    connection.cut()
    assert causes(logged) == ["the connection was closed"]
    world.next_attempt()
    world.stop()


def test_a_connection_that_ends_before_the_login(logged: LogCapture) -> None:
    """Even if it was lost before anybody heard of it, attempts go on."""
    world = World().start()
    world.endpoint.accept(at_once=Connection.cut)
    assert causes(logged) == ["the connection was closed"]
    world.connect()
    world.stop()


# The ways to fail.


@pytest.mark.parametrize("moment", ["connecting", "logging in", "up"])
def test_a_connection_that_fails_is_one_line(moment: str, logged: LogCapture) -> None:
    """It is not made, it is lost during the login, or later."""
    world = World().start()
    if moment == "connecting":
        world.endpoint.refuse(REFUSED)
    else:
        connection = world.connect() if moment == "up" else world.endpoint.accept()
        connection.cut(REFUSED)
    assert causes(logged) == ["connection refused"]
    assert world.keeper.events == (["up", "down"] if moment == "up" else ["none"])
    world.stop()


def test_what_a_link_says_against_the_protocol_ends_it(logged: LogCapture) -> None:
    """After a byte that makes no sense nothing on that link can be believed."""
    world = World().start()
    connection = world.connect()
    connection.say(b"?\r\n")
    world.clock.advance(0)
    assert not connection.is_open
    assert causes(logged) == ["the answer is not in Redis' protocol, is it a Redis server?"]
    assert world.keeper.events == ["up", "down"]
    world.stop()


def test_a_fault_of_ours_is_logged_and_costs_one_link(logged: LogCapture) -> None:
    """A user that raises must not leave the daemon without a link for good."""
    world = World().start()

    def raise_it() -> None:
        raise ZeroDivisionError

    world.keeper.on_up = raise_it
    connection = world.connect()
    world.clock.advance(0)
    assert not connection.is_open
    world.keeper.on_up, world.keeper.on_down = (lambda: None), raise_it
    world.connect().cut()
    world.keeper.on_down = lambda: None
    world.connect()
    assert world.keeper.events == ["up", "down", "up", "down", "up"]
    assert len(logged.flush_failures(ZeroDivisionError)) == 2
    world.stop()


# Attempts.


def test_the_pauses_grow_to_a_limit_and_are_jittered() -> None:
    """From a fifth of a second to about five seconds, each up to a quarter longer or shorter."""
    runs = [World().start() for _ in range(12)]
    pauses = [world.fail(8, REFUSED) for world in runs]
    for turn, expected in enumerate([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]):
        seen = [run[turn] for run in pauses]
        assert all(0.75 * expected <= pause <= 1.25 * expected for pause in seen)
        assert len(set(seen)) > 1, "many daemons would all come back at the same moment"
    for world in runs:
        world.stop()


@pytest.mark.parametrize("lasted", [1.01, 4.8, 60.0])
def test_the_pauses_begin_anew_after_a_good_link(lasted: float) -> None:
    """However often it is lost again: each time clients have had their data for longer than they waited."""
    world = World().start()
    world.fail(5, REFUSED)
    for _ in range(5):
        connection = world.connect()
        ends = world.clock.seconds() + lasted
        for _ in range(int(lasted) // 4):
            world.clock.advance(4)
            connection.say(b"+\r\n")
        world.clock.advance(ends - world.clock.seconds())
        connection.cut()
        assert world.next_attempt() <= 0.25
    world.stop()


def test_the_pauses_go_on_growing_after_a_link_that_flaps() -> None:
    """A server that takes the login and then hangs up is not to be stormed."""
    world = World().start()
    world.fail(3, REFUSED)
    for least in (1.2, 2.4, 3.75):
        connection = world.connect()
        world.clock.advance(0.9)
        connection.cut()
        assert world.next_attempt() >= least
    world.stop()


def test_a_link_that_flaps_is_not_made_anew_at_once() -> None:
    """After less than a second of life a second passes; attempts that fail afterwards have their own pauses."""
    pauses = set()
    for _ in range(5):
        world = World().start()
        connection = world.connect()
        world.clock.advance(0.9)
        connection.cut()
        pauses.add(world.next_attempt())
        assert world.fail(1, REFUSED)[0] <= 0.5
        world.stop()
    assert all(1 <= pause <= 1.25 for pause in pauses)
    assert len(pauses) > 1, "many daemons would all come back at the same moment"


def test_a_link_that_lasted_a_second_does_not_flap() -> None:
    """The next one is tried at once."""
    world = World().start()
    connection = world.connect()
    world.clock.advance(1)
    connection.cut()
    assert world.next_attempt() <= 0.25
    world.stop()


def test_attempts_go_on_for_ever(logged: LogCapture) -> None:
    """A night without a server is no reason to give up."""
    world = World().start()
    world.fail(5000, REFUSED)
    world.connect()
    assert world.keeper.events.count("up") == 1
    world.stop()


def test_a_cause_is_logged_when_it_is_new(logged: LogCapture) -> None:
    """An outage is one line in the log, not one each second; a connection makes every cause new."""
    world = World().start()
    world.fail(4, REFUSED)
    assert causes(logged) == ["connection refused"]
    assert causes(logged, LogLevel.debug) == ["connection refused"] * 3
    world.fail(2, error.TimeoutError())
    world.fail(1, REFUSED)
    assert causes(logged) == ["connection refused", "no connection within the time-out", "connection refused"]
    for _ in range(2):
        world.connect().cut()
    assert causes(logged)[3:] == ["the connection was closed"] * 2
    world.stop()


def test_the_log_says_who_where_why_and_when_next(logged: LogCapture) -> None:
    """The line is enough to know which server is meant and that nobody needs to act twice."""
    world = World(RedisAddress(host="cache.example", username="feed", password=SECRET)).start()
    world.endpoint.refuse(REFUSED)
    (line,) = [formatEvent(event) for event in logged.events if "cause" in event]
    start = "cache: no connection to redis://feed:***@cache.example:6379: connection refused; trying again, next in 0."
    assert line.startswith(start)
    connection = (world.next_attempt(), world.endpoint.accept())[1]
    connection.answer(OK, PONG)
    assert "cache: connected to redis://feed:***@cache.example:6379" in text_of(logged)
    world.stop()


# Signs of life.


def test_a_quiet_link_is_asked_and_lives_on_when_it_answers(logged: LogCapture) -> None:
    """Five seconds without a byte: PING. Whatever comes is a sign of life, and half an hour of it is fine."""
    world = World().start()
    connection = world.connect()
    world.clock.advance(4.9)
    assert connection.asked() == []
    for _ in range(360):
        world.clock.advance(0.2)
        assert connection.asked() == [(b"PING",)]
        connection.say(PONG)
        world.clock.advance(4.9)
        assert connection.asked() == []
    assert connection.is_open
    assert causes(logged) == []
    world.stop()


def test_a_link_with_traffic_is_not_asked() -> None:
    """Publications are signs of life too, even half of one."""
    world = World().start()
    connection = world.connect()
    connection.say(b"$100000\r\n")
    for _ in range(20):
        world.clock.advance(4)
        connection.say(b"x")
    assert connection.asked() == []
    world.stop()


class StrictClock(Clock):
    """Refuses a delay that ends when it begins: what looks again after it would do so for ever, at the same moment."""

    def callLater(self, when: float, *args: Any, **more: Any) -> Any:
        assert when == 0 or self.seconds() + when > self.seconds(), f"{when} is lost in {self.seconds()}"
        return super().callLater(when, *args, **more)


@property_test
@given(up_at=st.floats(0, 1e9), heard_after=st.floats(0, 4.9))
@example(up_at=3.34, heard_after=1.95)
def test_the_moment_of_a_look_is_reached_however_it_is_rounded(up_at: float, heard_after: float) -> None:
    """Five seconds after the last byte the server is asked, once."""
    world = World(clock=StrictClock())
    world.clock.advance(up_at)
    connection = world.start().connect()
    world.clock.advance(heard_after)
    connection.say(b"+\r\n")
    world.clock.advance(4.999)
    assert connection.asked() == []
    for _ in range(2):  # a timer that is set while others are looked at waits for the next time
        world.clock.advance(0.001)
    assert connection.asked() == [(b"PING",)]
    world.stop()


def test_a_link_that_stays_silent_is_lost(logged: LogCapture) -> None:
    """Ten seconds after the last byte, five after the question, it is cut, and a new one is tried at once."""
    world = World().start()
    connection = world.connect()
    world.clock.advance(3)
    connection.say(b"+\r\n")
    world.clock.pump([2, 2.9, 0.1, 4.9])
    assert connection.asked() == [(b"PING",)]
    assert connection.is_open
    world.clock.advance(0.2)
    world.clock.advance(0)
    assert not connection.is_open
    assert causes(logged) == ["silent for 10 s"]
    assert world.keeper.events == ["up", "down"]
    assert world.next_attempt() <= 0.25
    world.stop()


def test_a_jump_of_the_clock_is_no_silence(logged: LogCapture) -> None:
    """Time that passes at once, as after a suspension, says nothing about the server: it is asked first."""
    world = World().start()
    connection = world.connect()
    world.clock.advance(3600)
    assert connection.asked() == [(b"PING",)]
    connection.say(PONG)
    world.clock.advance(4.9)
    assert connection.is_open
    assert causes(logged) == []
    world.stop()


def test_an_answer_just_in_time_counts() -> None:
    """A server that takes almost five seconds to answer is slow, not lost."""
    world = World().start()
    connection = world.connect()
    for _ in range(10):
        world.clock.advance(5)
        assert connection.asked() == [(b"PING",)]
        world.clock.advance(4.99)
        connection.say(PONG)
        world.clock.advance(0.01)
    assert connection.is_open
    world.stop()


# Stopping at any moment.


def _connecting(world: World) -> None:
    world.start()


def _first_command(world: World) -> None:
    world.start().endpoint.accept()


def _second_command(world: World) -> None:
    world.start().endpoint.accept().answer(OK)


def _refused(world: World) -> None:
    world.start().endpoint.accept().answer(WRONGPASS)


def _no_answer(world: World) -> None:
    world.start().endpoint.accept()
    world.clock.advance(10)


def _up(world: World) -> None:
    world.start().endpoint.accept().answer(OK, OK, PONG)


def _asked_for_life(world: World) -> None:
    _up(world)
    world.clock.advance(6)


def _found_silent(world: World) -> None:
    _asked_for_life(world)
    world.clock.advance(4)


def _lost(world: World) -> None:
    _up(world)
    world.endpoint.connections[0].cut()


def _refused_connection(world: World) -> None:
    world.start().endpoint.refuse(REFUSED)


def _second_attempt(world: World) -> None:
    world.start().fail(1, REFUSED)


def _never(world: World) -> None:
    """It was not even started."""


MOMENTS = [
    _never,
    _connecting,
    _first_command,
    _second_command,
    _refused,
    _no_answer,
    _up,
    _asked_for_life,
    _found_silent,
    _lost,
    _refused_connection,
    _second_attempt,
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_it_can_be_stopped_at_any_moment(moment: Callable[[World], None]) -> None:
    """That ends whatever goes on, the connection too, and leaves no timer; afterwards it is as good as new."""
    world = World(FULL)
    moment(world)
    world.stop()
    assert world.keeper.events.count("up") == world.keeper.events.count("down")
    world.start()
    world.endpoint.accept().answer(OK, OK, PONG)
    assert world.keeper.events[-1] == "up"
    world.stop()


def test_a_fault_of_ours_does_not_keep_it_from_stopping(logged: LogCapture) -> None:
    """Whatever is done about the end."""
    world = World(FULL)
    _up(world)

    def raise_it() -> None:
        raise ZeroDivisionError

    world.keeper.on_down = raise_it
    world.stop()
    assert len(logged.flush_failures(ZeroDivisionError)) == 1


def test_stopping_waits_for_the_connection_to_be_closed() -> None:
    """Afterwards the server has one client less, for sure."""
    world = World(FULL)
    _up(world)
    ended: list[object] = []
    world.keeper.stopService().addBoth(ended.append)
    assert ended == []
    world.clock.advance(0)
    assert ended == [None]


class _NoAnswer:
    """A name resolver that is never done."""

    def resolveHostName(self, receiver: IResolutionReceiver, *_: object, **__: object) -> None:
        receiver.resolutionBegan(None)


@pytest.mark.parametrize("kind", ["unix", "tcp", "host", "name"])
def test_it_can_be_stopped_while_a_real_endpoint_connects(kind: str) -> None:
    """Twisted's endpoints have an error of their own for being cancelled; a black hole must not hold the daemon."""
    reactor = MemoryReactorClock()
    endpoint = {
        "unix": lambda: UNIXClientEndpoint(reactor, "/a/socket"),
        "tcp": lambda: TCP4ClientEndpoint(reactor, "192.0.2.1", 6379),
        "host": lambda: HostnameEndpoint(reactor, b"192.0.2.1", 6379),
        "name": lambda: HostnameEndpoint(reactor, b"cache.example", 6379),
    }[kind]()
    if kind == "name":
        reactor.installNameResolver(_NoAnswer())
    keeper = Keeper(reactor, endpoint)
    keeper.startService()
    ended: list[object] = []
    done: Deferred[None] = keeper.stopService()
    done.addBoth(ended.append)
    assert ended == [None]
    assert reactor.getDelayedCalls() == []
    assert keeper.events == []
