"""Listening to channels and patterns: what is asked of the server, what the sink hears, in which order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.link_keeper import QUIET_SECONDS, SILENT_SECONDS
from marketfeed.redis.listener import ASK_SECONDS, BUSY_SECONDS, ListenerSink, RedisListener
from marketfeed.redis.topology import Node
from tests.redis.memory import PONG, Connection, Endpoint, resp, stop

COMMANDS = [(b"PSUBSCRIBE", b"depth@*"), (b"SUBSCRIBE", b"trade@A")]
ONE = b"*3\r\n$10\r\npsubscribe\r\n$7\r\ndepth@*\r\n:1\r\n"
BOTH = ONE + b"*3\r\n$9\r\nsubscribe\r\n$7\r\ntrade@A\r\n:2\r\n"


INFO = b"$18\r\nrun_id:a1b2c3d4e5f\r\n"
MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"


def replica(offset: int, state: bytes = b"connected") -> bytes:
    return b"*5\r\n$5\r\nslave\r\n$1\r\nm\r\n:6379\r\n$%d\r\n%b\r\n:%d\r\n" % (len(state), state, offset)


class FakeSink:
    """Keeps what it hears. `retries`: what it says about a refusal. `good_at`: what it was told of the last link."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.retries = True
        self.good_at = math.nan

    def arrived(self) -> None:
        self.heard.append(("arrived",))

    def publication(self, subscription: bytes, channel: bytes, payload: bytes) -> None:
        self.heard.append(("publication", subscription, channel, payload))

    def flush(self) -> None:
        self.heard.append(("flush",))

    def complete(self) -> None:
        self.heard.append(("complete",))

    def refused(self, subscription: bytes, why: str) -> bool:
        self.heard.append(("refused", subscription, why))
        return self.retries

    def lost(self, good_at: float) -> None:
        self.heard.append(("lost",))
        self.good_at = good_at

    def take(self) -> list[tuple[object, ...]]:
        heard, self.heard = self.heard, []
        return heard


if TYPE_CHECKING:
    _sink: ListenerSink = FakeSink()


class World:
    """A listener, its sink, and the server that it meets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.sink = FakeSink()
        self.roles = Endpoint(self.clock)
        self.certain_at = math.inf
        roles = RedisCommands(self.clock, self.roles, RedisAddress())
        self.listener = RedisListener(
            self.clock,
            Node("redis", RedisAddress(), self.endpoint),
            COMMANDS,
            self.sink,
            roles,
            self.clock.seconds,
            lambda: self.certain_at,
        )
        self.listener.startService()

    def connect(self, role: bytes = MASTER) -> Connection:
        """A link that has asked for its subscriptions."""
        connection = self.endpoint.link(PONG, INFO, role)
        assert connection.asked() == COMMANDS
        return connection

    def subscribe(self, role: bytes = MASTER) -> Connection:
        """A link whose subscriptions are confirmed."""
        connection = self.connect(role)
        connection.say(BOTH)
        assert self.sink.take()[-3:] == [("arrived",), ("complete",), ("flush",)]
        return connection

    def stop(self) -> None:
        stop(self.listener, self.clock)
        assert ("lost",) not in self.sink.take()


def test_publications_come_byte_for_byte_in_order() -> None:
    """With the subscription that they come for; those of one read between `arrived` and `flush`."""
    world = World()
    connection = world.subscribe()
    one = resp([b"pmessage", b"depth@*", b"depth@\xff", b"\x00\r\n"])
    another = resp([b"message", b"trade@A", b""])
    connection.say(one + another + one[:9])
    connection.say(one[9:])
    assert world.sink.take() == [
        ("arrived",),
        ("publication", b"depth@*", b"depth@\xff", b"\x00\r\n"),
        ("publication", b"trade@A", b"trade@A", b""),
        ("flush",),
        ("arrived",),
        ("publication", b"depth@*", b"depth@\xff", b"\x00\r\n"),
        ("flush",),
    ]
    world.stop()


def test_it_is_complete_when_all_is_confirmed() -> None:
    """Not before the last confirmation, whatever comes before it."""
    world = World()
    connection = world.connect()
    connection.say(BOTH[:50])
    assert ("complete",) not in world.sink.take()
    connection.say(BOTH[50:])
    assert world.sink.take() == [("arrived",), ("complete",), ("flush",)]
    world.stop()


def test_a_loss_is_heard_and_all_is_subscribed_anew() -> None:
    """On a link of its own; an attempt that fails is a loss as well."""
    world = World()
    world.subscribe().cut()
    assert world.sink.take() == [("lost",)]
    world.subscribe()
    world.stop()
    world = World()
    world.endpoint.refuse(ConnectionError("no"))
    assert world.sink.take() == [("lost",)]
    world.subscribe()
    world.stop()


def test_a_replica_that_loses_its_master_is_a_loss() -> None:
    """It answers every PING, so the sink hears when it had all; and nobody listens there before it has its master."""
    world = World()
    connection = world.subscribe(replica(7))
    roles = world.roles.accept()
    roles.answer(b"+PONG\r\n")
    for offset in (8, 9, 9):
        world.clock.advance(ASK_SECONDS)
        connection.answer(resp([b"pong", b""]))
        roles.answer(INFO, replica(offset))
    world.sink.take()
    world.clock.advance(ASK_SECONDS)
    connection.answer(resp([b"pong", b""]))
    roles.answer(INFO, replica(9, b"connect"))
    world.clock.advance(0)
    assert not connection.is_open
    assert world.sink.take()[-2:] == [("flush",), ("lost",)]
    assert world.sink.good_at == pytest.approx(world.clock.seconds() - 3 * ASK_SECONDS)
    again = world.endpoint.link(PONG, INFO, replica(-1, b"connect"))
    world.clock.advance(0)
    assert not again.is_open
    assert world.sink.take() == [("lost",)]
    world.subscribe(replica(9))
    world.stop()


def test_a_refusal_names_the_subscription() -> None:
    """The sink decides whether it is asked for again."""
    world = World()
    connection = world.connect()
    connection.say(ONE + b"-NOPERM no\r\n")
    assert ("refused", b"trade@A", "NOPERM no") in world.sink.take()
    world.clock.advance(0)
    assert not connection.is_open
    world.subscribe()
    world.stop()


def test_a_refusal_may_be_the_end() -> None:
    """Then the link stays as it is until the listener is stopped."""
    world = World()
    world.sink.retries = False
    connection = world.connect()
    connection.say(b"-NOPERM no\r\n")
    assert world.sink.take() == [("arrived",), ("refused", b"depth@*", "NOPERM no"), ("flush",)]
    world.clock.advance(0)
    assert connection.is_open
    world.stop()


def test_what_answers_nothing_ends_the_link() -> None:
    """An error that no command asked for, and bytes that are not Redis' protocol."""
    for nonsense in (b"-ERR what?\r\n", b"+OK\r\n", b"HTTP/1.1 200 OK\r\n"):
        world = World()
        connection = world.subscribe()
        connection.say(nonsense)
        world.clock.advance(0)
        assert not connection.is_open
        assert world.sink.take() == [("arrived",), ("flush",), ("lost",)]
        world.stop()


def test_a_quiet_link_is_kept_alive_and_a_silent_one_is_lost() -> None:
    """An answer to a PING is a sign of life, and no publication."""
    world = World()
    connection = world.subscribe()
    for _ in range(int(2 * QUIET_SECONDS)):
        world.clock.advance(ASK_SECONDS)
        assert connection.asked() == [(b"PING",)]
        connection.say(resp([b"pong", b""]))
        assert world.sink.take() == [("arrived",), ("flush",)]
    world.clock.advance(QUIET_SECONDS)
    assert connection.asked() == [(b"PING",), (b"PING",)], "ours, and the one that its keeper wants answered"
    world.clock.advance(SILENT_SECONDS)
    world.clock.advance(0)
    assert world.sink.take() == [("lost",)]
    world.stop()


def test_a_busy_server_has_not_answered() -> None:
    """Neither a PING, which is asked again, nor a subscription; nobody hears of it, and the link stays."""
    busy = b"-BUSY Redis is busy running a script.\r\n"
    world = World()
    connection = world.connect()
    connection.say(busy + resp([b"subscribe", b"trade@A"]))
    assert world.sink.take() == [("arrived",), ("flush",)]
    world.clock.advance(BUSY_SECONDS)
    assert connection.asked() == [COMMANDS[0]]
    connection.say(busy)
    world.clock.advance(BUSY_SECONDS)
    connection.answer(ONE)
    assert ("complete",) in world.sink.take()
    world.clock.advance(ASK_SECONDS)
    connection.answer(busy)
    world.clock.advance(ASK_SECONDS)
    connection.answer(resp([b"pong", b""]))
    assert world.sink.take() == [
        ("arrived",),
        ("flush",),
        ("arrived",),
        ("flush",),
    ]
    assert connection.is_open
    world.stop()
    world = World()
    world.connect().say(busy)
    world.stop()


def test_all_has_come_when_a_later_question_is_answered() -> None:
    """On the same link: what was published before has come by then. However many want to know, one PING at a time."""
    world = World()
    connection = world.subscribe()
    ends: list[tuple[str, bool]] = []

    def catch_up(name: str) -> None:
        world.listener.catch_up().addCallback(lambda has: ends.append((name, has)))

    catch_up("one")
    assert connection.asked() == [(b"PING",)]
    catch_up("two")
    catch_up("three")
    assert (connection.asked(), ends) == ([], [])
    connection.say(resp([b"message", b"trade@A", b"1"]) + resp([b"pong", b""]))
    assert ends == [("one", True)]
    connection.answer(b"-BUSY Redis is busy running a script.\r\n")
    assert ends == [("one", True)]
    world.clock.advance(ASK_SECONDS)
    connection.answer(resp([b"pong", b""]))
    assert ends[1:] == [("two", True), ("three", True)]
    world.stop()


@pytest.mark.parametrize("answer", [None, b"-NOPERM no\r\n", b"-BUSY a script is running\r\n"])
def test_nobody_knows_whether_all_has_come(answer: bytes | None) -> None:
    """The link is lost first, or its server does not answer the question, or there is none."""
    world = World()
    connection = world.subscribe()
    ends: list[bool] = []
    for _ in range(2):
        world.listener.catch_up().addCallback(ends.append)
    if answer is None:
        connection.cut()
    else:
        connection.say(answer)
    stop(world.listener, world.clock)
    world.listener.catch_up().addCallback(ends.append)
    assert ends == [False] * 3


def test_an_answer_says_no_more_than_was_asked() -> None:
    """Not even while two questions are under way: ours, and that of the link's keeper."""
    world = World()
    connection = world.subscribe()
    world.clock.advance(ASK_SECONDS)
    world.clock.advance(QUIET_SECONDS)
    assert connection.asked() == [(b"PING",), (b"PING",)]
    connection.say(resp([b"pong", b""]))
    link = world.listener.link
    assert link is not None
    assert link.good_at == pytest.approx(ASK_SECONDS)
    world.clock.advance(ASK_SECONDS)
    connection.say(resp([b"pong", b""]))
    assert link.good_at == pytest.approx(ASK_SECONDS + QUIET_SECONDS)
    world.stop()
