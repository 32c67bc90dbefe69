"""Appending to streams: what the server is sent, what is counted, and that nothing grows without end."""

from __future__ import annotations

from twisted.internet.task import Clock

from marketfeed.redis_address import RedisAddress
from marketfeed.source import redis_appender
from marketfeed.source.redis_appender import RedisAppender
from tests.conftest import LogCapture
from tests.source.memory import Connection, Endpoint


class World:
    """An appender and its server."""

    def __init__(self, maxlen: int = 100) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.appender = RedisAppender(self.clock, self.endpoint, RedisAddress(), maxlen)
        self.appender.startService()

    def connect(self) -> Connection:
        while not self.endpoint.is_waiting:
            self.clock.advance(0.05)
        connection = self.endpoint.accept()
        connection.answer(b"+PONG\r\n")
        return connection

    def stop(self) -> None:
        ended: list[object] = []
        self.appender.stopService().addBoth(ended.append)
        self.clock.advance(0)
        assert ended == [None]
        assert self.clock.getDelayedCalls() == []


def test_what_is_sent() -> None:
    """All of a batch in order, with the limit of the stream if there is one."""
    for maxlen, words in ((100, (b"MAXLEN", b"~", b"100")), (0, ())):
        world = World(maxlen)
        connection = world.connect()
        assert world.appender.ready
        world.appender.publish([("a", b"\xff"), ("b", b"")])
        assert connection.asked() == [
            (b"XADD", b"a", *words, b"*", b"d", b"\xff"),
            (b"XADD", b"b", *words, b"*", b"d", b""),
        ]
        connection.say(b"$3\r\n1-0\r\n+PONG\r\n-OOM no\r\n")
        assert (world.appender.added, world.appender.lost) == (1, 1)
        world.stop()


def test_the_end_waits_for_answers() -> None:
    """Or for the loss of the link, which counts them as lost."""
    world = World()
    connection = world.connect()
    idle: list[object] = []
    world.appender.all_answered().addCallback(idle.append)
    assert idle == [None]
    world.appender.publish([("a", b"1"), ("a", b"2")])
    world.appender.all_answered().addCallback(idle.append)
    connection.say(b"$3\r\n1-0\r\n")
    assert idle == [None]
    connection.cut()
    assert idle == [None, None]
    assert (world.appender.added, world.appender.lost) == (1, 1)
    world.stop()


def test_without_a_link_entries_are_lost_and_counted(logged: LogCapture) -> None:
    """It is said, but not for each of them."""
    world = World()
    for _ in range(100):
        world.appender.publish([("a", b"1")])
    assert world.appender.lost == 100
    assert 0 < sum("entries are lost" in text for text in logged.formats()) < 10
    world.connect()
    world.stop()


def test_a_server_that_does_not_answer() -> None:
    """So many bytes wait for it, and what is more is lost and counted."""
    world = World()
    world.connect()
    half = b"x" * (redis_appender.MOST_BYTES // 2)
    world.appender.publish([("a", half), ("a", half), ("a", b"1"), ("a", b"")])
    assert world.appender.lost == 1
    world.stop()
    assert world.appender.lost == 4
