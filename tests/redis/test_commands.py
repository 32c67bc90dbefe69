"""A link for ordinary commands: replies in order, and a fault for each question that has none."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import CommandRefused, OutOfReach, RedisCommands
from marketfeed.redis.link_keeper import QUIET_SECONDS, SILENT_SECONDS
from tests.redis.memory import Connection, Endpoint, stop


class World:
    """Commands, and the server that answers them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.commands = RedisCommands(self.clock, self.endpoint, RedisAddress())
        self.commands.startService()

    def connect(self) -> Connection:
        return self.endpoint.link()

    def ask(self, *words: bytes | str) -> list[Any]:
        """What the question fires with, once it does; a fault as itself."""
        outcome: list[Any] = []
        asked: Deferred[Any] = self.commands.ask(*words)
        asked.addErrback(lambda failure: failure.value).addCallback(outcome.append)
        return outcome

    def stop(self) -> None:
        stop(self.commands, self.clock)


def test_replies_belong_to_questions_in_order() -> None:
    """An error is the fault of its own question alone."""
    world = World()
    connection = world.connect()
    outcomes = [world.ask("GET", "a"), world.ask(b"GET", b"\xff\r\n"), world.ask("PING")]
    assert connection.asked() == [(b"GET", b"a"), (b"GET", b"\xff\r\n"), (b"PING",)]
    connection.say(b"$1\r\n1\r\n-ERR no\r\n+PO")
    connection.say(b"NG\r\n")
    (one,), (refusal,), (pong,) = outcomes
    assert (one, pong) == (b"1", b"PONG")
    assert isinstance(refusal, CommandRefused)
    assert str(refusal) == "ERR no"
    world.stop()


def test_without_a_link_nothing_is_asked() -> None:
    """Before there is one, after it is lost, and what was unanswered by then."""
    world = World()
    assert not world.commands.ready
    (early,) = world.ask("PING")
    connection = world.connect()
    assert world.commands.ready
    waiting = world.ask("PING")
    connection.cut()
    (late,) = world.ask("PING")
    assert [type(fault) for fault in (early, waiting[0], late)] == [OutOfReach] * 3
    world.connect()
    assert world.commands.ready
    world.stop()


def test_a_sign_of_life_is_no_reply() -> None:
    """The keeper's question is answered in its turn; a server that does not answer it ends all questions."""
    world = World()
    connection = world.connect()
    world.clock.advance(QUIET_SECONDS)
    outcome = world.ask("GET", "a")
    connection.say(b"+PONG\r\n:7\r\n")
    assert outcome == [7]
    outcome = world.ask("GET", "a")
    world.clock.advance(QUIET_SECONDS)
    world.clock.advance(SILENT_SECONDS)
    world.clock.advance(0)
    assert [str(fault) for fault in outcome] == ["silent for 10 s"]
    world.stop()


def test_an_answer_to_nothing_ends_the_link() -> None:
    """Whatever it answers, the next one would be taken for another's."""
    world = World()
    connection = world.connect()
    connection.say(b":1\r\n")
    world.clock.advance(0)
    assert not connection.is_open
    world.stop()


def test_whoever_loses_interest_does_not_take_the_reply_of_another() -> None:
    """The reply of a question that was cancelled is nobody's."""
    world = World()
    connection = world.connect()
    asked = world.commands.ask("GET", "a")
    asked.addErrback(lambda _: None)
    asked.cancel()
    outcome = world.ask("GET", "b")
    connection.say(b":1\r\n:2\r\n")
    assert outcome == [2]
    world.stop()
