"""Ending the wait of a blocked command: when it is asked for, how often, and what is known of the permission."""

from __future__ import annotations

from twisted.internet.task import Clock

from marketfeed.redis_address import RedisAddress
from marketfeed.source.redis_commands import RedisCommands
from marketfeed.source.unblocker import Unblocker
from tests.conftest import LogCapture
from tests.source.memory import Connection, Endpoint

ASKED = [(b"CLIENT", b"UNBLOCK", b"7")]


class World:
    """An unblocker of client 7, and the server that it asks."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.commands = RedisCommands(self.clock, self.endpoint, RedisAddress())
        self.commands.startService()
        self.unblocker = Unblocker(self.commands)
        self.is_blocked = True

    def connect(self) -> Connection:
        while not self.endpoint.is_waiting:
            self.clock.advance(0.05)
        connection = self.endpoint.accept()
        connection.answer(b"+PONG\r\n")
        return connection

    def ready(self) -> Connection:
        connection = self.connect()
        self.unblocker.aim(7)
        self.unblocker.try_out()
        connection.answer(b":0\r\n")
        assert self.unblocker.ready
        return connection

    def unblock(self) -> None:
        self.unblocker.unblock(lambda: self.is_blocked)

    def stop(self) -> None:
        ended: list[object] = []
        self.commands.stopService().addBoth(ended.append)
        self.clock.advance(0)
        assert ended == [None]
        assert self.clock.getDelayedCalls() == []


def test_it_is_tried_out_before_it_is_relied_upon() -> None:
    """Once, where there is a client and a link."""
    world = World()
    world.unblocker.aim(7)
    world.unblocker.try_out()
    connection = world.connect()
    assert not world.unblocker.ready
    world.unblock()
    assert connection.asked() == []
    world.unblocker.try_out()
    world.unblocker.try_out()
    connection.answer(b":0\r\n")
    assert world.unblocker.ready
    world.unblocker.try_out()
    assert connection.asked() == []
    world.stop()


def test_it_is_repeated_until_it_was_of_use() -> None:
    """Or until nothing waits any more."""
    world = World()
    connection = world.ready()
    world.unblock()
    connection.answer(b":0\r\n", b":0\r\n", b":1\r\n")
    assert connection.asked() == []
    world.unblock()
    world.is_blocked = False
    connection.answer(b":0\r\n")
    assert connection.asked() == []
    world.stop()


def test_who_asks_meanwhile_has_it_asked_again() -> None:
    """An answer that is on its way may be about an earlier wait."""
    world = World()
    connection = world.ready()
    world.unblock()
    world.unblock()
    connection.answer(b":1\r\n")
    connection.answer(b":1\r\n")
    assert connection.asked() == []
    world.stop()


def test_where_it_is_forbidden_it_is_not_asked_again(logged: LogCapture) -> None:
    """For this client; the log says it once."""
    world = World()
    connection = world.connect()
    world.unblocker.aim(7)
    world.unblocker.try_out()
    connection.answer(b"-NOPERM no\r\n")
    world.unblocker.try_out()
    world.unblock()
    assert connection.asked() == []
    assert sum("wishes are followed" in text for text in logged.formats()) == 1
    world.unblocker.aim(7)
    world.unblocker.try_out()
    assert connection.asked() == ASKED
    world.stop()


def test_answers_about_a_client_that_is_gone_say_nothing_of_the_next() -> None:
    """Neither a permission nor a refusal."""
    world = World()
    connection = world.connect()
    for answer in (b":0\r\n", b"-NOPERM no\r\n"):
        world.unblocker.aim(8)
        world.unblocker.try_out()
        world.unblocker.aim(7)
        connection.answer(answer)
        assert not world.unblocker.ready
    world.unblocker.try_out()
    assert connection.asked() == ASKED
    world.stop()


def test_a_link_that_is_lost() -> None:
    """Then nothing can be ended, until the next has been tried out."""
    world = World()
    connection = world.ready()
    world.unblock()
    connection.cut()
    assert not world.unblocker.ready
    connection = world.connect()
    assert not world.unblocker.ready
    world.unblocker.try_out()
    connection.answer(b":0\r\n")
    assert world.unblocker.ready
    world.stop()
