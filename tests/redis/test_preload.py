"""Streams that are kept ready: which are found, where they are looked for, and how often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hiredis import pack_command
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

import marketfeed.redis.preload
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.stream_globs import parse_glob
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.channel_sampler import ChannelSampler
from marketfeed.redis.commands import CommandRefused, OutOfReach
from marketfeed.redis.preload import LOOK_SECONDS, Preload
from tests.conftest import LogCapture
from tests.redis.memory import Endpoint

KINDS = (*BUILT_IN, StreamKind("orders", LossPolicy.KEEP, private=True))


class FakeKeys:
    """A server whose SCAN gives these keys in steps, or fails; what it matches is the test's to know.

    `pause`: seconds that each step takes.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.steps: list[list[bytes]] = [[]]
        self.fault: Exception | None = None
        self.pause = 0.0
        self._coming: IDelayedCall | None = None
        self.asked: list[tuple[bytes | str, ...]] = []

    def ask(self, *words: bytes | str) -> Deferred[Any]:
        self.asked.append(words)
        if self.fault is not None:
            return fail(self.fault)
        at = int(words[1])
        cursor = b"0" if at + 1 == len(self.steps) else b"%d" % (at + 1)
        answer = Deferred[Any]()
        self._coming = self._clock.callLater(self.pause, answer.callback, [cursor, self.steps[at]])
        return answer

    def forget(self) -> None:
        """What is on its way does not come."""
        if self._coming is not None and self._coming.active():
            self._coming.cancel()

    def take(self) -> list[tuple[bytes | str, ...]]:
        asked, self.asked = self.asked, []
        return asked


class World:
    """A service for these patterns, what it has found, and the keys of the server."""

    def __init__(self, *patterns: str, prefix: str = "", by_streams: bool = False) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.keys = FakeKeys(self.clock)
        self.found: list[str] = []
        self.preload = Preload(
            self.clock,
            lambda: [self.keys],
            self.found.append,
            [parse_glob(pattern, KINDS) for pattern in patterns],
            prefix,
            None if by_streams else self.listen,
        )

    def listen(self, patterns: Sequence[bytes], heard: Callable[[bytes], None]) -> IService:
        return ChannelSampler(self.clock, self.endpoint, RedisAddress(), patterns, heard)

    def start(self, *steps: list[bytes]) -> World:
        self.keys.steps = list(steps) or [[]]
        self.preload.startService()
        self.clock.advance(0)
        return self

    def stop(self) -> None:
        ended = self.preload.stopService()
        self.clock.advance(0)
        assert ended.called
        self.keys.forget()
        assert self.clock.getDelayedCalls() == []


def test_names_are_ready_from_the_start() -> None:
    """Nothing is looked for, then; private streams are as good as others."""
    world = World("depth@A", "orders@alice").start()
    assert world.found == ["depth@A", "orders@alice"]
    assert not world.keys.asked
    assert not world.endpoint.is_waiting
    world.stop()


def test_streams_are_looked_for_among_their_keys() -> None:
    """By pattern and type, step by step; what stands before the pattern means itself."""
    world = World("depth@*", "*@A", "trade@B", prefix="m*:", by_streams=True)
    world.start([b"m*:depth@A"], [], [b"m*:depth@B", b"m*:depth@\xff", b"m*:depth@A@100ms", b"m*:other@A"])
    for _ in range(6):
        world.clock.advance(0)
    assert world.found == ["trade@B", "depth@A", "depth@B"]
    assert world.keys.take() == [
        ("SCAN", cursor, "MATCH", pattern, "COUNT", b"500", b"TYPE", b"stream")
        for pattern in (rb"m\*:depth@*", rb"m\*:*@A")
        for cursor in (b"0", b"1", b"2")
    ]
    assert not world.endpoint.is_waiting, "Redis knows the streams itself"
    world.stop()


def test_without_streams_the_seeds_are_looked_at() -> None:
    """And somebody listens."""
    world = World("depth@*", prefix="md:").start([b"md:snapshot:depth@A"])
    assert world.keys.take() == [("SCAN", b"0", "MATCH", b"md:snapshot:depth@*", "COUNT", b"500")]
    server = world.endpoint.accept()
    server.answer(b"+PONG\r\n")
    assert server.asked() == [(b"PSUBSCRIBE", b"md:depth@*")]
    for channel in (b"md:depth@B", b"md:depth@A", b"md:depth@B", b"md:depth@", b"md:trade@C"):
        server.say(pack_command((b"pmessage", b"md:depth@*", channel, b"{}")))
    assert world.found == ["depth@A", "depth@B"]
    world.stop()


def test_what_comes_later_is_found_later() -> None:
    """Each stream is said once."""
    world = World("depth@*").start([b"snapshot:depth@A"])
    world.keys.steps = [[b"snapshot:depth@A", b"snapshot:depth@B"]]
    world.clock.advance(LOOK_SECONDS - 0.1)
    assert world.found == ["depth@A"]
    world.clock.advance(0.1)
    world.clock.advance(0)
    assert world.found == ["depth@A", "depth@B"]
    world.stop()


def test_a_look_that_takes_long_is_taken_seldom() -> None:
    """It takes a twentieth of the time at most: other people's keys may be many."""
    world = World("depth@*")
    world.keys.pause = 1.0
    world.start([], [])
    for _ in range(2):
        world.clock.advance(1)
    assert len(world.keys.take()) == 2
    world.clock.advance(37.9)
    assert not world.keys.asked
    world.clock.advance(0.1)
    assert len(world.keys.take()) == 1
    world.stop()


def test_a_link_that_comes_later_is_waited_for(logged: LogCapture) -> None:
    """For it comes soon, as a rule; whoever keeps it says that it is not there."""
    world = World("depth@*")
    world.keys.fault = OutOfReach("there is no connection")
    world.start([b"snapshot:depth@A"])
    world.clock.advance(0.4)
    world.keys.fault = None
    world.clock.advance(0.1)
    world.clock.advance(0)
    assert world.found == ["depth@A"]
    assert not logged.events
    world.stop()


def test_a_refusal_is_logged_when_it_is_new(logged: LogCapture) -> None:
    """It does not end the looks."""
    world = World("depth@*")
    world.keys.fault = CommandRefused("NOPERM no")
    world.start([b"snapshot:depth@A"])
    world.clock.advance(LOOK_SECONDS)
    world.keys.fault = None
    world.clock.advance(LOOK_SECONDS)
    world.clock.advance(0)
    world.keys.fault = CommandRefused("NOPERM no")
    world.clock.advance(LOOK_SECONDS)
    assert [event["why"] for event in logged.events] == ["NOPERM no", "NOPERM no"]
    assert world.found == ["depth@A"]
    world.stop()


def test_a_fault_of_ours_does_not_end_the_looks(logged: LogCapture) -> None:
    """It is logged, each time."""
    world = World("depth@*")
    world.keys.fault = ArithmeticError()
    world.start([b"snapshot:depth@A"])
    world.keys.fault = None
    world.clock.advance(LOOK_SECONDS)
    world.clock.advance(0)
    assert world.found == ["depth@A"]
    assert len(logged.flush_failures(ArithmeticError)) == 1
    world.stop()


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch, logged: LogCapture) -> None:
    """More are said in the log, once."""
    monkeypatch.setattr(marketfeed.redis.preload, "MOST_STREAMS", 2)
    world = World("depth@*").start([b"snapshot:depth@%d" % number for number in range(4)])
    assert world.found == ["depth@0", "depth@1"]
    assert len(logged.events) == 1
    world.stop()


def test_the_end_in_the_middle_of_a_look() -> None:
    """Nothing is asked any more."""
    world = World("depth@*")
    world.keys.pause = 1.0
    world.start([], [])
    world.stop()
    world.clock.advance(10)
    assert len(world.keys.asked) == 1
