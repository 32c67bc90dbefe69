"""PUBLISHing for the simulated engine: in order while there is a link, and nobody's while there is none."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.publisher import RedisPublisher
from tests.conftest import LogCapture
from tests.redis.memory import PONG, Connection, Endpoint, stop


class World:
    """A publisher, and the server that it meets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.publisher = RedisPublisher(self.clock, self.endpoint, RedisAddress(password="a secret"))
        self.publisher.startService()

    def connect(self) -> Connection:
        """A link that is ready."""
        return self.endpoint.link(b"+OK\r\n", PONG)

    def stop(self) -> None:
        stop(self.publisher, self.clock)
        assert not self.publisher.ready


def complaints(logged: LogCapture) -> list[str]:
    lines = [formatEvent(event) for event in logged.events if event["log_level"] is LogLevel.error]
    return [line for line in lines if "publication" in line]


def test_it_is_ready_between_login_and_loss() -> None:
    """Not before the server has taken the login, and again after the next one."""
    world = World()
    assert not world.publisher.ready
    connection = world.endpoint.accept()
    assert not world.publisher.ready
    connection.answer(b"+OK\r\n")
    assert not world.publisher.ready
    connection.answer(PONG)
    assert world.publisher.ready
    connection.cut()
    assert not world.publisher.ready
    world.connect()
    assert world.publisher.ready
    world.stop()


def test_publications_go_in_order_byte_for_byte() -> None:
    """Names and payloads may hold anything."""
    world = World()
    connection = world.connect()
    world.publisher.publish([("trade@A", b'{"a":1}'), ("trade@é", b"\r\n\x00"), ("trade@A", b"")])
    world.publisher.publish([])
    world.publisher.publish([("trade@B", b"x" * 70000)])
    assert connection.asked() == [
        (b"PUBLISH", b"trade@A", b'{"a":1}'),
        (b"PUBLISH", "trade@é".encode(), b"\r\n\x00"),
        (b"PUBLISH", b"trade@A", b""),
        (b"PUBLISH", b"trade@B", b"x" * 70000),
    ]
    world.stop()


def test_what_is_published_without_a_link_is_nobody_s() -> None:
    """A market does not wait: nothing is kept for later."""
    world = World()
    world.publisher.publish([("trade@A", b"1")])
    connection = world.endpoint.accept()
    world.publisher.publish([("trade@A", b"2")])
    connection.answer(b"+OK\r\n", PONG)
    assert connection.asked() == []
    connection.cut()
    world.publisher.publish([("trade@A", b"3")])
    connection = world.connect()
    world.publisher.publish([("trade@A", b"4")])
    assert connection.asked() == [(b"PUBLISH", b"trade@A", b"4")]
    world.stop()


def test_a_refused_publication_is_logged_once_a_link(logged: LogCapture) -> None:
    """Thousands of publications a second are refused for one and the same reason."""
    world = World()
    for _ in range(2):
        connection = world.connect()
        connection.say(b":1\r\n:0\r\n")
        for _ in range(100):
            connection.say(b"-NOPERM No permissions to access a channel\r\n")
        connection.cut()
    assert (
        complaints(logged)
        == ["redis: a publication, or a state, is refused: NOPERM No permissions to access a channel"] * 2
    )
    world.stop()


def test_a_quiet_link_is_kept_alive() -> None:
    """Its PINGs and their answers are not mistaken for anything else."""
    world = World()
    connection = world.connect()
    for _ in range(3):
        world.clock.advance(5)
        assert connection.asked() == [(b"PING",)]
        world.clock.advance(0.5)
        connection.say(PONG)
    assert world.publisher.ready
    world.stop()
