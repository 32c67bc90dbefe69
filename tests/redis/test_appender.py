"""Appending to streams: what the server is sent, what is counted, and that nothing grows without end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.redis import appender as redis_appender
from marketfeed.redis import entries as redis_entries
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.entries import Loss
from marketfeed.redis.link_keeper import QUIET_SECONDS
from marketfeed.redis.routed_appender import RoutedAppender
from marketfeed.redis.topology import Node, OneServer
from tests.conftest import LogCapture
from tests.redis.memory import Connection, Endpoint, stop
from tests.strategies import property_test

ADDED = b"$3\r\n1-0\r\n"


class World:
    """An appender and its server."""

    def __init__(self, maxlen: int = 100) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.appender = RoutedAppender(self.clock, OneServer(Node("redis", RedisAddress(), self.endpoint)), maxlen)
        self.entries = self.appender.entries
        (self.part,) = self.appender.each()
        self.appender.startService()

    def connect(self) -> Connection:
        return self.endpoint.link()

    def stop(self) -> None:
        stop(self.appender, self.clock)


def test_what_is_sent() -> None:
    """All of a batch in order, with the limit of the stream if there is one."""
    for maxlen, words in ((100, (b"MAXLEN", b"~", b"100")), (0, ())):
        world = World(maxlen)
        connection = world.connect()
        assert world.appender.ready
        world.appender.publish([("a", b"\xff"), ("b", b"")])
        connection.say(ADDED)
        assert connection.asked() == [
            (b"XADD", b"a", *words, b"*", b"d", b"\xff"),
            (b"XADD", b"b", *words, b"*", b"d", b""),
        ]
        connection.say(b"-OOM no\r\n")
        assert (world.entries.added, world.entries.lost) == (1, 1)
        world.stop()


def test_one_entry_goes_first() -> None:
    """On a new link: whether the server takes any is not known before it has taken one."""
    world = World()
    connection = world.connect()
    world.appender.publish([("a", b"1"), ("a", b"2")])
    assert [command[-1] for command in connection.asked()] == [b"1"]
    world.appender.publish([("b", b"3")])
    assert connection.asked() == []
    connection.say(ADDED)
    assert [command[-1] for command in connection.asked()] == [b"2", b"3"]
    world.appender.publish([("b", b"4")])
    assert [command[-1] for command in connection.asked()] == [b"4"]
    world.stop()


def test_the_end_waits_for_answers() -> None:
    """And for what waits; not for the answers of a link that is lost, which count as lost."""
    world = World()
    connection = world.connect()
    idle: list[object] = []
    world.appender.all_answered().addCallback(idle.append)
    assert idle == [None]
    world.appender.publish([("a", b"1"), ("a", b"2")])
    world.appender.all_answered().addCallback(idle.append)
    connection.say(ADDED)
    assert idle == [None]
    connection.cut()
    assert idle == [None, None]
    assert (world.entries.added, world.entries.lost) == (1, 1)
    world.stop()


def test_what_comes_while_there_is_no_link_waits(logged: LogCapture) -> None:
    """In order, behind what waited before it; what was under way is lost, for nobody knows whether it was added."""
    world = World()
    world.appender.publish([("a", b"1"), ("a", b"2")])
    connection = world.connect()
    connection.say(ADDED)
    world.appender.publish([("a", b"3")])
    assert [command[-1] for command in connection.asked()] == [b"1", b"2", b"3"]
    connection.say(ADDED)
    connection.cut()
    world.appender.publish([("a", b"4"), ("b", b"5")])
    assert (world.entries.added, world.entries.lost) == (2, 1)
    assert any("the connection was lost before" in str(event.get("why")) for event in logged.events)
    connection = world.connect()
    connection.say(ADDED)
    connection.say(ADDED)
    assert [command[-1] for command in connection.asked()] == [b"4", b"5"]
    assert (world.entries.added, world.entries.lost) == (4, 1)
    world.stop()


def test_no_more_waits_than_there_is_room_for(logged: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more is lost and counted, and so is what still waits at the end; it is said, but not for each of them."""
    monkeypatch.setattr(redis_entries, "MOST_BYTES", 100 * (redis_entries.ENTRY_BYTES + 2))
    world = World()
    for _ in range(150):
        world.appender.publish([("a", b"1")])
    assert world.entries.lost == 50
    assert 0 < sum("entries are lost" in text for text in logged.formats()) < 10
    connection = world.connect()
    connection.say(ADDED)
    assert len(connection.asked()) == 100
    world.appender.publish([("a", b"1"), ("a", b"1")])
    assert world.entries.lost == 51
    assert world.entries.losses[Loss.NO_ROOM] == 51
    world.stop()
    assert (world.entries.added, world.entries.lost) == (1, 151)
    assert world.entries.losses[Loss.LINK_LOST] + world.entries.losses[Loss.ENDED] == 100


def test_no_more_is_under_way_than_may_be_lost_with_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest follows the answers."""
    monkeypatch.setattr(redis_appender, "UNDER_WAY", 3 * (redis_entries.ENTRY_BYTES + 2))
    world = World()
    connection = world.connect()
    world.appender.publish([("a", b"%d" % number) for number in range(10)])
    connection.say(ADDED)
    assert [command[-1] for command in connection.asked()] == [b"0", b"1", b"2", b"3"]
    connection.say(ADDED * 2)
    assert [command[-1] for command in connection.asked()] == [b"4", b"5"]
    connection.cut()
    assert world.entries.lost == 3
    connection = world.connect()
    world.appender.publish([("a", b"x" * 10_000)])
    connection.say(ADDED)
    connection.say(ADDED * 3)
    assert [command[-1] for command in connection.asked()] == [b"6", b"7", b"8", b"9", b"x" * 10_000]
    world.stop()


FAULTS = ["READONLY You can't write against a read only replica.", "LOADING no", "MASTERDOWN no", "CLUSTERDOWN no"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_is_not_the_one_to_write_to(fault: str) -> None:
    """The link ends once all is answered, and nothing of it is lost: it goes first on the next link."""
    world = World()
    connection = world.connect()
    world.appender.publish([("a", b"1")])
    connection.say(ADDED)
    world.appender.publish([("a", b"2"), ("b", b"3")])
    connection.asked()
    connection.say(f"-{fault}\r\n".encode())
    assert not world.appender.ready
    world.appender.publish([("a", b"4")])
    assert connection.asked() == [], "nothing is sent to it any more"
    world.clock.advance(0)
    assert connection.is_open
    connection.say(f"-{fault}\r\n".encode())
    world.clock.advance(0)
    assert not connection.is_open
    connection = world.connect()
    assert [command[-1] for command in connection.asked()] == [b"2"], "whether this one takes it is not known"
    connection.say(f"-{fault}\r\n".encode())
    world.clock.advance(0)
    assert not connection.is_open
    connection = world.connect()
    assert [command[-1] for command in connection.asked()] == [b"2"]
    connection.say(ADDED)
    assert [command[-1] for command in connection.asked()] == [b"3", b"4"]
    connection.say(ADDED * 2)
    assert (world.entries.added, world.entries.lost) == (4, 0)
    world.stop()


def test_a_server_that_runs_a_script() -> None:
    """It is asked again after a while, on the same link, with one entry first. A PING is nobody's entry."""
    world = World()
    connection = world.connect()
    busy = b"-BUSY Redis is busy running a script.\r\n"
    world.clock.advance(QUIET_SECONDS)
    assert connection.asked() == [(b"PING",)]
    connection.say(busy)
    world.appender.publish([("a", b"1")])
    connection.say(ADDED)
    world.appender.publish([("a", b"2"), ("a", b"3")])
    connection.asked()
    connection.say(busy * 2)
    for _ in range(3):
        assert connection.asked() == []
        world.clock.advance(redis_appender.BUSY_SECONDS)
        assert [command[-1] for command in connection.asked()] == [b"2"]
        connection.say(busy)
    world.appender.publish([("a", b"4")])
    world.clock.advance(redis_appender.BUSY_SECONDS)
    connection.say(ADDED)
    assert [command[-1] for command in connection.asked()] == [b"2", b"3", b"4"]
    connection.say(ADDED * 2)
    assert (world.entries.added, world.entries.lost) == (4, 0)
    assert connection.is_open
    world.appender.publish([("a", b"5")])
    connection.say(busy)
    connection.cut()
    world.stop()
    assert (world.entries.added, world.entries.lost) == (4, 1)


def test_what_is_late_is_lost_rather_than_out_of_order(logged: LogCapture) -> None:
    """Where the server refuses an entry for a moment and takes the next one of its stream; and that is counted."""
    world = World()
    connection = world.connect()
    world.appender.publish([("a", b"0")])
    connection.say(ADDED)
    world.appender.publish([("a", b"1"), ("b", b"2"), ("a", b"3"), ("b", b"4")])
    connection.asked()
    busy = b"-BUSY no\r\n"
    connection.say(busy * 2 + ADDED + busy)
    assert (world.entries.added, world.entries.lost) == (2, 1)
    assert any("stream" in str(event.get("why")) for event in logged.events)
    world.clock.advance(redis_appender.BUSY_SECONDS)
    connection.say(ADDED)
    assert [command[-1] for command in connection.asked()] == [b"2", b"4"]
    connection.say(b"-READONLY no\r\n")
    world.clock.advance(0)
    connection = world.connect()
    connection.say(ADDED)
    world.appender.publish([("a", b"5"), ("b", b"6"), ("a", b"7")])
    connection.say(b"-READONLY no\r\n")
    connection.cut()
    assert (world.entries.added, world.entries.lost) == (4, 4), "the server may have the last one of a"
    world.stop()


def test_why_entries_are_lost() -> None:
    """Each reason has a count of its own, from the beginning."""
    world = World()
    connection = world.connect()
    world.appender.publish([("a", b"0")])
    connection.say(ADDED)
    assert world.entries.losses == dict.fromkeys(Loss.ALL, 0)
    world.appender.publish([("a", b"1"), ("b", b"2"), ("b", b"3"), ("c", b"4")])
    connection.say(b"-WRONGTYPE no\r\n-BUSY no\r\n" + ADDED)
    connection.cut()
    world.appender.publish([("a", b"5")])
    world.stop()
    assert world.entries.losses == {
        Loss.NO_ROOM: 0,
        Loss.LINK_LOST: 1,
        Loss.REFUSED: 1,
        Loss.LATE: 1,
        Loss.ENDED: 1,
    }


def test_the_lag_is_the_age_of_the_oldest() -> None:
    """Whether it waits for a link, is under way behind a PING, or was refused for now; nothing that waits is no lag."""
    world = World()
    clock, appender = world.clock, world.appender
    assert appender.lag == 0
    appender.publish([("a", b"1"), ("b", b"2")])
    clock.advance(0.125)
    appender.publish([("a", b"3")])
    assert appender.lag == 0.125
    connection = world.connect()
    began = clock.seconds()
    connection.say(ADDED)
    assert appender.lag == began
    connection.say(b"-BUSY no\r\n")
    assert appender.lag == began
    connection.say(ADDED)
    assert appender.lag == began, "what was refused waits again"
    clock.advance(redis_appender.BUSY_SECONDS)
    connection.say(ADDED)
    assert (appender.lag, world.entries.added) == (0, 3)
    world.part.pinged()
    appender.publish([("a", b"4")])
    clock.advance(2)
    assert appender.lag == 2
    connection.cut()
    assert appender.lag == 0, "nobody waits for what is lost"
    world.stop()


@pytest.mark.parametrize("fault", [*FAULTS, "BUSY no"])
def test_a_server_that_takes_nothing_is_known(fault: str) -> None:
    """From its first refusal until it takes an entry, or refuses one for what it is; whatever the link does."""
    world = World()
    connection = world.connect()
    assert not world.part.refusing
    for other in (ADDED, b"-OOM no\r\n"):
        world.appender.publish([("a", b"1")])
        connection.say(f"-{fault}\r\n".encode())
        assert world.part.refusing
        world.clock.advance(redis_appender.BUSY_SECONDS)
        if not connection.is_open:
            connection = world.connect()
        assert world.part.refusing
        connection.say(other)
        assert not world.part.refusing
    world.stop()


def test_a_refusal_of_what_is_lost_is_forgotten() -> None:
    """On the next link: nothing would ask whether it still holds."""
    world = World()
    connection = world.connect()
    world.appender.publish([("a", b"0")])
    connection.say(ADDED)
    world.appender.publish([("a", b"1"), ("a", b"2")])
    connection.say(b"-READONLY no\r\n")
    connection.cut()
    assert (world.entries.lost, world.part.refusing) == (2, True)
    world.connect()
    assert not world.part.refusing
    world.stop()


def test_an_answer_that_nobody_asked_for() -> None:
    """It ends the link, which cannot be trusted any more."""
    world = World()
    connection = world.connect()
    connection.say(ADDED)
    world.clock.advance(0)
    assert not connection.is_open
    world.stop()


WORDS = st.sampled_from([ADDED, b"-BUSY no\r\n", b"-READONLY no\r\n", b"-OOM no\r\n", b"cut", b"publish", b"wait"])


@property_test
@given(st.lists(WORDS, max_size=40), st.integers(0, 2))
def test_each_entry_is_added_once_in_order_or_counted(steps: list[bytes], streams: int) -> None:
    """Against a server that takes what it says it has taken, whatever else it says and whenever the link is lost."""
    world = World()
    streams += 1
    connection: Connection | None = None
    asked: list[tuple[bytes, ...]] = []
    added: list[tuple[bytes, int]] = []
    count = 0
    for step in steps:
        if connection is None or not connection.is_open:
            connection, asked = world.connect(), []
        if step == b"publish":
            world.appender.publish([(f"s{number % streams}", b"%d" % number) for number in range(count, count + 3)])
            count += 3
        elif step == b"cut":
            connection.cut()
        elif step == b"wait":
            world.clock.advance(redis_appender.BUSY_SECONDS)
        asked += connection.asked()
        if step.startswith((b"-", b"$")) and asked:
            command = asked.pop(0)
            if step == ADDED:
                added.append((command[1], int(command[-1])))
            connection.say(step)
            world.clock.advance(0)
    world.stop()
    assert world.entries.added == len(added)
    assert world.entries.lost == count - len(added)
    assert len(set(added)) == len(added), "never twice"
    for stream in {stream for stream, _ in added}:
        numbers = [number for each, number in added if each == stream]
        assert numbers == sorted(numbers)
