"""Exchanges on a link: all replies of some commands at once, and nothing else."""

from __future__ import annotations

from typing import Any

import hiredis
from twisted.internet.task import Clock

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.redis.reader_link import Exchange, ReaderLink
from tests.redis.memory import Connection, Endpoint


class World(LinkKeeper[ReaderLink]):
    """Who keeps the link, and the server."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        super().__init__(self.clock, self.endpoint, RedisAddress(), "test")
        self.got: list[list[Any]] = []
        self.idles: list[Exchange] = []
        self.startService()
        self.server: Connection = self.endpoint.accept()
        self.server.answer(b"+PONG\r\n")

    def make_link(self) -> ReaderLink:
        return ReaderLink(self.clock, self, lambda: 1000 + self.clock.seconds())

    def up(self) -> ReaderLink:
        """The link, which is up."""
        assert self.link is not None
        return self.link

    def go_on(self) -> None:
        self.idles.append(self.up().exchange)

    def exchange(self, *names: str) -> None:
        self.up().ask(b"".join(hiredis.pack_command((name,)) for name in names), len(names), self.got.append)

    def stop(self) -> None:
        self.stopService()
        self.clock.advance(0)
        assert self.clock.getDelayedCalls() == []


def test_an_exchange_ends_with_its_last_reply() -> None:
    """Errors are replies; a sign of life is none."""
    world = World()
    world.exchange("A", "B", "C")
    assert world.up().exchange is Exchange.ASKED
    assert world.server.asked() == [(b"A",), (b"B",), (b"C",)]
    world.server.say(b":1\r\n+PONG\r\n-ERR no\r\n*-")
    assert world.got == []
    world.server.say(b"1\r\n")
    ((one, refusal, nothing),) = world.got
    assert (one, nothing) == (1, None)
    assert isinstance(refusal, hiredis.ReplyError)
    assert world.idles == [Exchange.NONE]
    world.exchange("D")
    world.server.say(b":4\r\n")
    assert world.got[1:] == [[4]]
    world.stop()


def test_it_was_good_when_the_last_answered_exchange_began() -> None:
    """Not when its answers came, nor when something was heard that answers nothing."""
    world = World()
    world.clock.advance(1)
    world.exchange("A")
    world.clock.advance(1)
    world.server.say(b"+PONG\r\n")
    assert world.up().good_at == 1000
    world.clock.advance(1)
    world.server.say(b":1\r\n")
    assert world.up().good_at == 1001
    world.stop()


def test_what_nobody_asked_for_ends_the_link() -> None:
    """But a sign of life."""
    world = World()
    world.server.say(b"+PONG\r\n")
    world.clock.advance(0)
    assert world.server.is_open
    world.server.say(b":1\r\n")
    world.clock.advance(0)
    assert not world.server.is_open
    world.stop()
