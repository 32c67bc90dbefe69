"""States beside the streams: what is asked of Redis, when, and that every read is answered."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from marketfeed.boundaries import Snapshots
from marketfeed.model.streams import snapshot_key
from marketfeed.redis.commands import CommandRefused, KeyedCommands, OutOfReach
from marketfeed.redis.snapshots import REACH_SECONDS, RedisSnapshots, SnapshotPlaces
from tests.conftest import LogCapture
from tests.strategies import property_test


class FakeCommands:
    """A link that is there or not; what was asked for is answered in order, when the test says so."""

    def __init__(self) -> None:
        self.is_up = True
        self.refuses = False
        self.asked: list[tuple[bytes | str | int, ...]] = []
        self.waiting: deque[Deferred[Any]] = deque()

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        assert key == words[1]
        if not self.is_up:
            return fail(OutOfReach("there is no connection"))
        self.asked.append(words)
        if self.refuses:
            return fail(CommandRefused("no"))
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def place_of(self, key: bytes) -> object:
        return None

    def answer(self, *values: Any) -> None:
        for value in values:
            self.waiting.popleft().callback(value)

    def lose(self) -> None:
        self.is_up = False
        waiting, self.waiting = self.waiting, deque()
        for each in waiting:
            each.errback(OutOfReach("the connection was closed"))


if TYPE_CHECKING:
    _commands: KeyedCommands = FakeCommands()
    _snapshots: Snapshots = RedisSnapshots(Clock(), FakeCommands(), SnapshotPlaces("", 1))


class World:
    """Snapshots, the commands that they use, and what was read: stream → state."""

    def __init__(self, prefix: str = "", max_payload: int = 10) -> None:
        self.clock = Clock()
        self.commands = FakeCommands()
        self.snapshots = RedisSnapshots(self.clock, self.commands, SnapshotPlaces(prefix, max_payload))
        Service.startService(self.snapshots)
        self.read: dict[str, bytes | None] = {}

    def ask(self, *streams: str) -> None:
        for stream in streams:
            self.snapshots.read(stream).addCallback(partial(self.read.__setitem__, stream))


def lines(logged: LogCapture) -> list[str]:
    return [str(formatEvent(event)) for event in logged.events]


def test_a_state_is_the_string_at_a_key_of_its_own() -> None:
    """Behind the prefix; one byte more is asked for than may be, and no more."""
    world = World("md:")
    world.ask("depth@A")
    assert world.commands.asked == [("GETRANGE", b"md:snapshot:depth@A", "0", "10")]
    world.commands.answer(b'{"u":1}')
    assert world.read == {"depth@A": b'{"u":1}'}
    assert snapshot_key("", "ticker@B") == "snapshot:ticker@B"


@pytest.mark.parametrize(("value", "read"), [(b"", None), (b"x" * 10, b"x" * 10), (b"x" * 11, None)])
def test_what_is_empty_or_too_large_is_as_good_as_none(value: bytes, read: bytes | None, logged: LogCapture) -> None:
    """The latter is said in the log."""
    world = World()
    world.ask("depth@A")
    world.commands.answer(value)
    assert world.read == {"depth@A": read}
    assert lines(logged) == [
        "redis: the state at snapshot:depth@A cannot be used: it is larger than --max-payload, 10 bytes "
        "(0 more since the last such line)"
    ] * (len(value) > 10)


def test_a_key_that_may_not_be_read(logged: LogCapture) -> None:
    """It may be all of them: there is one line a minute, with the server's words."""
    world = World()
    world.ask("depth@A", "depth@B", "depth@C")
    for waiting in list(world.commands.waiting):
        waiting.errback(CommandRefused("WRONGTYPE Operation against a key"))
    assert world.read == {"depth@A": None, "depth@B": None, "depth@C": None}
    world.clock.advance(60)
    world.ask("depth@D")
    world.commands.waiting[-1].errback(CommandRefused("NOPERM no"))
    first, second = lines(logged)
    assert "snapshot:depth@A cannot be used: WRONGTYPE Operation against a key (0 more" in first
    assert "snapshot:depth@D cannot be used: NOPERM no (2 more" in second
    world.clock.advance(60)
    world.ask("depth@E")
    world.commands.waiting[-1].errback(CommandRefused("NOPERM no"))
    assert len(lines(logged)) == 2, "that nothing may be read is no news any more"


def test_answers_that_come_at_once() -> None:
    """However many reads there are, none is answered from inside another."""
    world = World()
    world.commands.refuses = True
    world.ask("depth@A", "depth@B")
    assert world.read == {"depth@A": None, "depth@B": None}


def test_many_reads_are_sent_together_but_not_all() -> None:
    """Each answer makes room for one more, in the order of asking."""
    world = World()
    names = [f"depth@{number}" for number in range(100)]
    world.ask(*names)
    assert len(world.commands.asked) == 64
    for number in range(100):
        world.commands.answer(b"%d" % number)
        assert len(world.commands.waiting) == min(64, 99 - number)
    assert world.read == {name: name.partition("@")[2].encode() for name in names}


def test_a_link_that_comes_a_moment_later() -> None:
    """What was asked for before is read then, in the same order."""
    world = World()
    world.commands.is_up = False
    world.ask("depth@A", "depth@B")
    world.clock.advance(REACH_SECONDS - 0.5)
    assert not world.read
    world.commands.is_up = True
    world.clock.advance(0.2)
    world.commands.answer(b"1", b"2")
    assert len(world.read) == 2
    assert not world.clock.getDelayedCalls()


def test_a_link_that_is_lost_is_waited_for() -> None:
    """A read is harmless, and may be asked for again."""
    world = World()
    world.ask("depth@A")
    world.commands.lose()
    world.commands.is_up = True
    world.clock.advance(0.2)
    world.commands.answer(b"1")
    assert world.read == {"depth@A": b"1"}


def test_a_server_that_stays_out_of_reach(logged: LogCapture) -> None:
    """No read takes longer than it may, however many there are; then there is no state."""
    world = World()
    world.commands.is_up = False
    names = [f"depth@{number}" for number in range(1000)]
    world.ask(*names)
    for _ in range(20):
        world.clock.advance(0.2)
    assert world.read == dict.fromkeys(names)
    assert len(lines(logged)) == 1
    assert not world.clock.getDelayedCalls()


def test_nobody_wants_it_any_more() -> None:
    """What has not been sent is not asked for, and an answer that comes is nobody's."""
    world = World()
    reads = [world.snapshots.read(f"depth@{number}") for number in range(66)]
    for read in (reads[0], reads[64]):
        read.addErrback(lambda _: None)
        read.cancel()
    world.commands.answer(b"0")
    assert [words[1] for words in world.commands.asked[64:]] == [b"snapshot:depth@65"]


def test_a_reader_that_fails_harms_nobody_else() -> None:
    """Its fault is its own, as with any Deferred."""
    world = World()
    world.snapshots.read("depth@A").addCallback(lambda _: 1 / 0).addErrback(
        lambda failure: failure.trap(ZeroDivisionError)
    )
    world.ask("depth@B")
    world.commands.answer(b"1", b"2")
    assert world.read == {"depth@B": b"2"}


def test_an_answer_of_nothing() -> None:
    """A server in between may say that there is none."""
    world = World()
    world.ask("depth@A", "depth@B")
    world.commands.answer(None, b"2")
    assert world.read == {"depth@A": None, "depth@B": b"2"}


def test_the_end() -> None:
    """Everybody is answered, before it and behind it; no timer is left."""
    world = World()
    world.ask("depth@A")
    world.commands.lose()
    world.ask("depth@B")
    world.snapshots.stopService()
    assert world.read == {"depth@A": None, "depth@B": None}
    world.ask("depth@C")
    assert world.read["depth@C"] is None
    assert not world.clock.getDelayedCalls()


def test_the_end_while_answers_are_on_their_way(logged: LogCapture) -> None:
    """They are answered when the link ends."""
    world = World()
    world.ask("depth@A")
    world.snapshots.stopService()
    world.commands.lose()
    assert world.read == {"depth@A": None}
    assert not world.clock.getDelayedCalls()


@property_test
@given(st.lists(st.sampled_from(("ask", "answer", "refuse", "lose", "come back", "wait", "cancel")), max_size=60))
def test_every_read_is_answered_once(script: list[str]) -> None:
    """Whatever happens to the link meanwhile."""
    world = World()
    answers: list[list[bytes | None]] = []
    reads: list[Deferred[Any]] = []
    for what in script:
        if what == "ask":
            got: list[bytes | None] = []
            answers.append(got)
            reads.append(
                world.snapshots.read(f"depth@{len(answers)}").addCallbacks(
                    got.append, lambda _, got=got: got.append(None)
                )
            )
        elif what == "answer" and world.commands.waiting:
            world.commands.answer(b"1")
        elif what == "refuse" and world.commands.waiting:
            world.commands.waiting.popleft().errback(CommandRefused("no"))
        elif what == "lose":
            world.commands.lose()
        elif what == "come back":
            world.commands.is_up = True
        elif what == "wait":
            world.clock.advance(0.5)
        elif what == "cancel" and reads:
            reads.pop().cancel()
    world.snapshots.stopService()
    world.commands.lose()
    assert all(len(got) == 1 for got in answers)
    assert not world.clock.getDelayedCalls()
