"""Ending the wait of a blocked command: when it is asked for, how often, and what is known of the permission."""

from __future__ import annotations

import hiredis
import pytest
from twisted.internet.task import Clock

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.unblocker import Unblocker
from tests.conftest import LogCapture
from tests.redis.memory import Connection, Endpoint, resp, stop

WHO = (b"INFO", b"server")
UNBLOCK = (b"CLIENT", b"UNBLOCK", b"7")
INFO = b"# Server\r\nredis_version:7.2.4\r\nrun_id:1234abcd\r\ntcp_port:0\r\n"
OTHER = INFO.replace(b"1234", b"5678")


class World:
    """An unblocker of client 7, and the server that it asks."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.commands = RedisCommands(self.clock, self.endpoint, RedisAddress())
        self.commands.startService()
        self.unblocker = Unblocker(self.clock, self.commands)
        self.is_blocked = True
        self.connection: Connection

    def connect(self) -> None:
        self.connection = self.endpoint.link()

    def answer(self, question: tuple[bytes, ...], answer: bytes) -> None:
        """One question, which is this one, has come; answer it."""
        assert self.connection.asked() == [question]
        self.connection.say(answer)

    def is_asked(self) -> bool:
        """Whether anything has come."""
        return self.connection.asked() != []

    def aim(self) -> None:
        self.unblocker.aim(7, INFO)

    def ready(self) -> World:
        self.connect()
        self.aim()
        self.try_out(b":0\r\n")
        assert self.unblocker.ready
        return self

    def try_out(self, answer: bytes) -> None:
        self.unblocker.try_out()
        self.answer(WHO, resp(INFO))
        self.answer(UNBLOCK, answer)

    def unblock(self) -> None:
        self.unblocker.unblock(lambda: self.is_blocked)

    def stop(self) -> None:
        self.unblocker.rest()
        stop(self.commands, self.clock)


def test_it_is_tried_out_before_it_is_relied_upon() -> None:
    """Once, where there is a client and a link."""
    world = World()
    world.aim()
    world.unblocker.try_out()
    world.connect()
    assert not world.unblocker.ready
    world.unblock()
    assert not world.is_asked()
    world.unblocker.try_out()
    world.try_out(b":0\r\n")
    assert world.unblocker.ready
    world.unblocker.try_out()
    assert not world.is_asked()
    world.stop()


def test_it_is_repeated_until_it_was_of_use() -> None:
    """Or until nothing waits any more."""
    world = World().ready()
    world.unblock()
    world.answer(WHO, resp(INFO))
    for answer in (b":0\r\n", b":0\r\n", b":1\r\n"):
        world.answer(UNBLOCK, answer)
        world.clock.advance(0.05)
    assert not world.is_asked()
    world.unblock()
    world.is_blocked = False
    world.answer(WHO, resp(INFO))
    world.answer(UNBLOCK, b":0\r\n")
    world.clock.advance(1)
    assert not world.is_asked()
    world.stop()


def test_it_does_not_repeat_as_fast_as_it_is_answered() -> None:
    """A server that knows no such client, for whatever reason, is asked some twenty times a second."""
    world = World().ready()
    world.unblock()
    world.answer(WHO, resp(INFO))
    count = 0
    for _ in range(10_000):
        if world.is_asked():
            count += 1
            world.connection.say(b":0\r\n")
            assert not world.is_asked(), "at once"
        world.clock.advance(0.001)
    assert 190 <= count <= 220
    world.stop()


def test_who_asks_meanwhile_has_it_asked_again() -> None:
    """An answer that is on its way may be about an earlier wait."""
    world = World().ready()
    world.unblock()
    world.answer(WHO, resp(INFO))
    world.unblock()
    world.answer(UNBLOCK, b":1\r\n")
    world.unblock()
    world.answer(UNBLOCK, b":1\r\n")
    world.answer(UNBLOCK, b":1\r\n")
    assert not world.is_asked()
    world.stop()


def test_a_stranger_is_not_unblocked(logged: LogCapture) -> None:
    """Client 7 of another server: seen before anything is tried, and again whenever the other link may be a new one."""
    world = World()
    world.connect()
    world.aim()
    world.unblocker.try_out()
    world.answer(WHO, resp(OTHER))
    assert not world.is_asked()
    assert not world.unblocker.ready
    assert sum("wishes are followed" in text for text in logged.formats()) == 1
    world.aim()
    world.try_out(b":0\r\n")
    world.connection.cut()
    world.connect()
    world.unblock()
    world.answer(WHO, resp(OTHER))
    world.unblock()
    assert not world.is_asked()
    world.stop()


def test_where_it_is_forbidden_it_is_not_asked_again(logged: LogCapture) -> None:
    """For this client; the log says it once. Whoever may not ask who the server is does not know whom it unblocks."""
    world = World()
    world.connect()
    world.aim()
    world.unblocker.try_out()
    world.answer(WHO, b"-NOPERM no\r\n")
    world.unblocker.try_out()
    world.aim()
    world.try_out(b"-NOPERM no\r\n")
    world.unblocker.try_out()
    world.unblock()
    assert not world.is_asked()
    assert sum("wishes are followed" in text for text in logged.formats()) == 2
    world.aim()
    world.try_out(b":0\r\n")
    world.stop()


@pytest.mark.parametrize(
    ("client", "info"),
    [
        (hiredis.ReplyError("NOPERM id"), INFO),
        (7, hiredis.ReplyError("NOPERM info")),
        (7, b"# Server\r\n"),
    ],
)
def test_a_link_that_cannot_be_known(client: object, info: object, logged: LogCapture) -> None:
    """Is not unblocked, and the log says why."""
    world = World()
    world.connect()
    world.unblocker.aim(client, info)
    world.unblocker.try_out()
    world.unblock()
    assert not world.is_asked()
    assert sum("wishes are followed" in text for text in logged.formats()) == 1
    world.stop()


def test_answers_about_a_client_that_is_gone_say_nothing_of_the_next() -> None:
    """Neither a permission nor a refusal."""
    world = World()
    world.connect()
    for answer in (b":0\r\n", b"-NOPERM no\r\n"):
        world.unblocker.aim(8, INFO)
        world.unblocker.try_out()
        world.answer(WHO, resp(INFO))
        world.aim()
        world.answer((b"CLIENT", b"UNBLOCK", b"8"), answer)
        assert not world.unblocker.ready
    world.try_out(b":0\r\n")
    assert world.unblocker.ready
    world.stop()


def test_a_link_that_is_lost() -> None:
    """Then nothing can be ended, until the next has been tried out."""
    world = World().ready()
    world.unblock()
    world.connection.cut()
    assert not world.unblocker.ready
    world.connect()
    assert not world.unblocker.ready
    world.try_out(b":0\r\n")
    assert world.unblocker.ready
    world.stop()


def test_it_can_be_stopped_in_the_midst_of_a_pause() -> None:
    """No timer is left."""
    world = World().ready()
    world.unblock()
    world.answer(WHO, resp(INFO))
    world.answer(UNBLOCK, b":0\r\n")
    assert world.clock.getDelayedCalls()
    world.stop()
