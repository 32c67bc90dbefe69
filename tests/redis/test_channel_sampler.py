"""Listening now and then: what is asked of the server and when, what is heard, and what is said in the log."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.channel_sampler import LISTEN_SECONDS, PERIOD_SECONDS, ChannelSampler
from tests.conftest import LogCapture
from tests.redis.memory import Connection, Endpoint, resp, stop

PATTERNS = (b"depth@*", b"ticker@?")
LISTEN = [(b"PSUBSCRIBE", pattern) for pattern in PATTERNS]
PAUSE = [(b"PUNSUBSCRIBE", pattern) for pattern in PATTERNS]
NOPERM = b"-NOPERM No permissions to access a channel\r\n"


class World:
    """A sampler, what it has heard, and the server that it meets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.heard: list[bytes] = []
        self.sampler = ChannelSampler(self.clock, self.endpoint, RedisAddress(), PATTERNS, self.heard.append)
        self.sampler.startService()

    def connect(self) -> Connection:
        """A link whose login is done."""
        return self.endpoint.link()

    def wait(self, connection: Connection, seconds: float) -> list[tuple[bytes, ...]]:
        """What the server is asked meanwhile, signs of life left out."""
        asked = []
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)
            for command in connection.asked():
                if command == (b"PING",):
                    connection.say(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
                else:
                    asked.append(command)
        return asked

    def stop(self) -> None:
        stop(self.sampler, self.clock)


def test_it_listens_for_a_part_of_the_time() -> None:
    """Again and again, at once to begin with."""
    world = World()
    connection = world.connect()
    assert connection.asked() == LISTEN
    assert not world.wait(connection, LISTEN_SECONDS - 0.2)
    assert world.wait(connection, 0.4) == PAUSE
    assert not world.wait(connection, PERIOD_SECONDS - LISTEN_SECONDS - 0.4)
    assert world.wait(connection, 0.4) == LISTEN
    world.stop()


def test_the_channels_are_heard() -> None:
    """Each as often as something comes, also what is still on its way after the time; nothing else is."""
    world = World()
    connection = world.connect()
    connection.say(b"*3\r\n$10\r\npsubscribe\r\n$7\r\ndepth@*\r\n:1\r\n")
    connection.say(
        resp([b"pmessage", b"depth@*", b"depth@A", b"{}"]) + resp([b"pmessage", b"depth@*", b"depth@\xff", b""])
    )
    world.wait(connection, LISTEN_SECONDS + 0.1)
    connection.say(resp([b"pmessage", b"ticker@?", b"ticker@A", b"{}"]))
    connection.say(resp([b"message", b"ticker@B", b"{}"]) + b"+PONG\r\n")
    assert world.heard == [b"depth@A", b"depth@\xff", b"ticker@A"]
    world.stop()


def test_a_new_link_begins_anew() -> None:
    """Whether the old one was lost while it listened or in between."""
    world = World()
    for seconds in (0.1, LISTEN_SECONDS + 1):
        connection = world.connect()
        assert connection.asked() == LISTEN
        world.wait(connection, seconds)
        connection.cut()
        while not world.endpoint.is_waiting:
            world.clock.advance(0.05)
        world.endpoint.refuse(ConnectionRefusedError())
    connection = world.connect()
    assert connection.asked() == LISTEN
    assert world.wait(connection, LISTEN_SECONDS + 0.1) == PAUSE
    world.stop()


def test_a_refusal_is_logged_once(logged: LogCapture) -> None:
    """The link is good all the same, and what is permitted is heard."""
    world = World()
    connection = world.connect()
    connection.say(NOPERM + resp([b"pmessage", b"ticker@?", b"ticker@A", b"{}"]))
    world.wait(connection, PERIOD_SECONDS)
    connection.say(NOPERM)
    assert world.heard == [b"ticker@A"]
    errors = [event["why"] for event in logged.events if event["log_level"].name == "error"]
    assert errors == [NOPERM[1:-2].decode()]
    world.stop()


@pytest.mark.parametrize("seconds", [0, LISTEN_SECONDS + 1])
def test_the_end(seconds: float) -> None:
    """At any moment, without a link too."""
    world = World()
    world.stop()
    world = World()
    world.wait(world.connect(), seconds)
    world.stop()
