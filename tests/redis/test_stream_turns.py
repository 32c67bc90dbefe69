"""What a source of Redis streams asks for, and in which order, of a server in memory that answers as the test says."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from twisted.internet.task import Clock

from marketfeed.redis.absent_streams import FEW, LOOK_SECONDS
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.read_rounds import LATE_SECONDS
from marketfeed.redis.stream_checks import CHECKS
from marketfeed.redis.stream_reads import BYTES, LEAST
from marketfeed.redis.streams import RedisStreams
from tests.redis.memory import Connection, Endpoint, resp
from tests.redis.streams import Heard

Command = tuple[bytes, ...]


def array(parts: Iterable[bytes]) -> bytes:
    each = list(parts)
    return b"*%d\r\n" % len(each) + b"".join(each)


def entry(number: int, size: int = 1) -> bytes:
    return array([resp(b"%d-0" % number), array([resp(b"d"), resp(b"x" * size)])])


def extent(last: int, count: int = 1) -> bytes:
    """XINFO of a stream from which nothing was ever removed."""
    fields: list[bytes] = [resp(b"length"), b":%d\r\n" % count, resp(b"last-generated-id"), resp(b"%d-0" % last)]
    fields += [resp(b"max-deleted-entry-id"), resp(b"0-0"), resp(b"entries-added"), b":%d\r\n" % count]
    return array([*fields, resp(b"first-entry"), entry(1)])


GONE = b"-ERR no such key\r\n"
NOTHING = b"*-1\r\n"
ROLELESS = b"-NOPERM no permission to run INFO\r\n"
"""The answer to INFO as the link logs in: a server whose role is not known is not asked for it again."""


class World:
    """A source, its link, and the other one, on which wishes end a wait."""

    def __init__(self, count: int = 0) -> None:
        """`count`: streams that are wanted before the link is there."""
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.heard = Heard()
        self.source = RedisStreams(self.clock, self.endpoint, RedisAddress(), self.heard)
        self.source.startService()
        self.want(count)
        self.link = self.connect()
        self.link.answer(ROLELESS)
        assert self.link.asked() == [(b"CLIENT", b"ID"), (b"INFO", b"server")]
        self.link.say(b":7\r\n" + resp(b"run_id:1\r\n"))
        self.other = self.connect()

    def connect(self) -> Connection:
        return self.endpoint.link()

    def want(self, count: int) -> None:
        for number in range(count):
            self.source.want(f"trade@{number}")

    def check(self, answer: bytes) -> int:
        """Answer a check of streams that are new; how many there were."""
        commands = self.link.asked()
        assert all(command[:2] == (b"XINFO", b"STREAM") for command in commands)
        self.link.say(answer * len(commands))
        return len(commands)

    def read(self) -> Command:
        """The read that has come."""
        (command,) = [command for command in self.link.asked() if command[0] == b"XREAD"]
        return command

    def stop(self) -> None:
        self.source.stopService()
        self.clock.advance(0)
        assert self.clock.getDelayedCalls() == []


def test_reads_and_checks_take_turns() -> None:
    """However many streams are wanted: what flows already goes on flowing, and no read waits meanwhile."""
    world = World()
    world.source.want("depth@A")
    assert world.check(extent(5)) == 1
    world.link.asked()
    world.want(3 * CHECKS)
    world.link.say(NOTHING)
    checked = 0
    while checked < 3 * CHECKS:
        checked += world.check(extent(5))
        command = world.read()
        assert b"depth@A" in command
        assert (b"BLOCK" in command) == (checked == 3 * CHECKS)
        world.link.say(NOTHING)
    world.stop()


def test_names_that_do_not_exist_are_left_out_of_the_reads() -> None:
    """All but a few; the others are looked at in turn, on the other link."""
    world = World(FEW + 10)
    assert world.check(GONE) == CHECKS
    world.read()
    world.link.say(NOTHING)
    assert world.check(GONE) == FEW + 10 - CHECKS
    command = world.read()
    assert command[command.index(b"STREAMS") + 1 :] == (
        *[b"trade@%d" % number for number in range(FEW)],
        *[b"0-0"] * FEW,
    )
    assert world.heard.count("confirmed") == FEW + 10
    world.other.asked()
    world.clock.advance(LOOK_SECONDS)
    (look,) = [command for command in world.other.asked() if command[0] == b"XREAD"]
    keys = [b"trade@%d" % number for number in range(FEW, FEW + 10)]
    assert look == (b"XREAD", b"COUNT", b"1", b"STREAMS", *keys, *[b"0-0"] * 10)
    world.stop()


def test_a_hot_stream_among_many_is_read_by_itself() -> None:
    """While the read of all of them has a rest, in large portions that grow, until there is no more."""
    world = World(CHECKS)
    world.check(extent(5))
    command = world.read()
    assert command[2] == b"%d" % LEAST
    world.link.say(array([array([resp(b"trade@7"), array(entry(6 + at) for at in range(LEAST))])]))
    last, counts = 5 + LEAST, []
    for _ in range(3):
        read, look = world.link.asked()
        assert read[:2] == (b"XREAD", b"COUNT")
        assert read[3:] == (b"STREAMS", b"trade@7", b"%d-0" % last)
        assert look == (b"XREVRANGE", b"trade@7", b"%d-0" % last, b"-", b"COUNT", b"1")
        counts.append(int(read[2]))
        found = array(entry(last + 1 + at) for at in range(counts[-1]))
        world.link.say(array([array([resp(b"trade@7"), found])]) + array([entry(last)]))
        last += counts[-1]
        while not world.link.value():
            world.clock.advance(0)
    assert counts == sorted(counts)
    assert counts[0] >= 50 * LEAST
    assert world.heard.of("publish", "trade@7") == [("x", f"{number}-0") for number in range(6, last + 1)]
    world.stop()


def test_large_entries_are_read_in_small_numbers() -> None:
    """As soon as one has been seen."""
    world = World(1)
    world.check(extent(5))
    assert int(world.read()[2]) == 1000
    world.link.say(array([array([resp(b"trade@0"), array([entry(6, 100_000)])])]))
    world.clock.advance(0.1)
    assert int(world.read()[2]) <= BYTES // 100_000
    world.stop()


def test_a_late_answer_is_left_and_asked_for_again() -> None:
    """Nobody knows what was trimmed meanwhile: all streams are watched over then, each once."""
    world = World(2)
    world.check(extent(5))
    world.link.asked()
    world.clock.advance(LATE_SECONDS + 0.1)
    world.link.say(array([array([resp(b"trade@1"), array([entry(9)])])]))
    assert world.heard.count("publish") == 0
    assert [command[0] for command in world.link.asked()] == [b"XREVRANGE", b"XINFO"] * 2  # it is their turn, too
    world.link.say(2 * (array([entry(5)]) + extent(9)))
    commands = world.link.asked()
    assert commands[0][3:] == (b"STREAMS", b"trade@0", b"trade@1", b"5-0", b"5-0")
    assert [command[0] for command in commands[1:]] == [b"XREVRANGE", b"XINFO"] * 2
    found = array([array([resp(b"trade@1"), array([entry(9)])])])
    world.link.say(found + 2 * (array([entry(5)]) + extent(9)))
    assert world.heard.of("publish") == [("x", "9-0")]
    assert world.heard.count("confirmed") == 2
    assert b"BLOCK" in world.read()
    world.stop()


def test_a_link_that_is_lost_between_two_slices() -> None:
    """What was not published yet is read again on the next, behind what was."""
    world = World(1)
    world.check(extent(5))
    world.link.asked()
    world.link.say(array([array([resp(b"trade@0"), array(entry(6 + at, 50_000) for at in range(3))])]))
    assert world.heard.of("publish")[-1][1] == "6-0"
    world.link.cut()
    assert world.heard.events[-1] == ("lost",)
    world.clock.advance(0)
    world.link = world.connect()
    world.link.answer(ROLELESS)
    world.link.asked()
    world.link.say(b":8\r\n" + resp(b"run_id:1\r\n"))
    assert (b"XREVRANGE", b"trade@0", b"6-0", b"-", b"COUNT", b"1") in world.link.asked()
    assert world.heard.count("publish") == 1
    world.stop()


def turn(world: World, position: int, last: int, count: int) -> None:
    """Let the stream have its turn, at the end of a read that brings nothing."""
    commands: list[Command] = [(b"XREAD",)]
    while commands[0][0] == b"XREAD":
        world.clock.advance(LATE_SECONDS / 2)
        world.link.say(NOTHING)
        commands = world.link.asked()
    assert [command[0] for command in commands] == [b"XREVRANGE", b"XINFO"]
    world.link.say(array([entry(position)]) + extent(last, count))
    assert world.read()[-1] == b"%d-0" % position


@pytest.mark.parametrize("lost", [0, 1])
def test_a_stream_that_never_rests_is_counted_all_the_same(lost: int) -> None:
    """Whenever it has its turn there is more of it than was read: it is compared when that is, and told behind it."""
    world = World(1)
    world.check(extent(5))
    world.read()
    world.link.say(array([array([resp(b"trade@0"), array([entry(6)])])]))
    world.read()
    turn(world, 6, 9 + lost, 5 + lost)  # 5 to 9, of which 7 to 9 are not read yet
    for numbers in ((7,), (8, 9 + lost, 11)):
        assert world.heard.count("missed") == 0
        world.link.say(array([array([resp(b"trade@0"), array(map(entry, numbers))])]))
        world.read()
    assert world.heard.events[-1][0] == ("missed" if lost else "publish")
    turn(world, 11, 11, 6 + lost)
    assert world.heard.count("missed") == lost, "it is told once, and what came behind the count is not forgotten"
    world.link.say(array([array([resp(b"trade@0"), array([entry(12)])])]))
    world.read()
    turn(world, 12, 12, 8 + lost)
    assert world.heard.count("missed") == lost + 1
    world.stop()
