"""Redis PUBLISH/SUBSCRIBE as a source: what the sink hears, in which order, and what the server is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from marketfeed.boundaries import Sink, Subscriber
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.node_source import NodeSource
from marketfeed.redis.ordered_snapshots import OrderedSnapshots
from marketfeed.redis.pubsub import RedisPubSub
from tests.conftest import LogCapture
from tests.fakes import FakeSnapshots
from tests.redis.memory import PONG, Connection, Endpoint, resp, stop

A, B, C = "trade@A", "trade@B", "depth@C"
NOPERM = b"-NOPERM No permissions to access a channel\r\n"
NOW = 1_700_000_000

Event = tuple[object, ...]


class RecordingSink:
    """Keeps what a source says, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.named: list[str] = []  # as lost last

    def publish(self, stream: str, payload: bytes) -> None:
        self.events.append(("publish", stream, payload))

    def flush(self) -> None:
        self.events.append(("flush",))

    def behind(self) -> list[Subscriber]:
        raise AssertionError("nobody is waited for")

    def confirmed(self, stream: str) -> None:
        self.events.append(("confirmed", stream))

    def refused(self, stream: str, why: str) -> None:
        self.events.append(("refused", stream, why))

    def reached(self, link: str) -> None:
        assert link == "redis"
        self.events.append(("reached",))

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        assert link in ("redis", "")
        self.events.append(("lost", since))
        self.named = sorted(streams)

    def take(self) -> list[Event]:
        """What was said since this was last called, the flushes left out."""
        events = [event for event in self.events if event != ("flush",)]
        self.events.clear()
        return events


def message(channel: str, payload: bytes) -> bytes:
    return resp([b"message", channel.encode(), payload])


def confirmation(verb: str, *channels: str) -> bytes:
    return b"".join(resp([verb.encode(), channel.encode(), at + 1]) for at, channel in enumerate(channels))


INFO = b"$18\r\nrun_id:a1b2c3d4e5f\r\n"
MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"


class RoleCommands:
    """Another link to the same server, a master, which answers at once."""

    def ask(self, *words: bytes | str) -> Deferred[Any]:
        return succeed({"INFO": b"run_id:a1b2c3d4e5f", "ROLE": [b"master", 0, []]}[str(words[0])])


class World:
    """A source, and all that it meets. The clock begins at `NOW`, in seconds since 1970.

    `doubt`: of a server of a cluster.
    """

    def __init__(self, prefix: str = "", doubt: Callable[[str], None] | None = None) -> None:
        self.certain_at = math.inf
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.sink = RecordingSink()
        self.commands: Any = RoleCommands()
        self.snapshots = FakeSnapshots()
        self.source = RedisPubSub(
            self.clock,
            self.endpoint,
            RedisAddress(host="cache.example"),
            self.sink,
            self.commands,
            prefix,
            lambda: NOW + self.clock.seconds(),
            doubt=doubt,
            certain_at=lambda: self.certain_at,
        )
        self.ordered = OrderedSnapshots(self.snapshots, self.source.catch_up)
        self.server: Connection

    def start(self) -> World:
        self.source.startService()
        return self

    def connect(self) -> World:
        """The server answers; the link is up."""
        self.server = self.endpoint.link(PONG, INFO, MASTER)
        return self

    def up(self, *streams: str) -> World:
        """A link on which these streams are confirmed, and nothing that is still to be read by the test."""
        self.start().connect()
        for stream in streams:
            self.source.want(stream)
            self.server.answer(confirmation("subscribe", stream))
        self.sink.take()
        return self

    def read(self, stream: str) -> list[bytes | None]:
        """Ask for a state; it is in the list that is returned, as soon as it is given."""
        given: list[bytes | None] = []
        self.ordered.read(stream).addCallback(given.append)
        return given

    def asked(self) -> list[tuple[str, ...]]:
        """The commands that the server has got since this was last called."""
        return [tuple(word.decode() for word in command) for command in self.server.asked()]

    def stop(self) -> None:
        stop(self.source, self.clock)


# Subscriptions.


def test_what_is_wanted_before_there_is_a_link_is_subscribed_on_it() -> None:
    """The sink hears that the source answers first, then of each stream."""
    world = World().start()
    world.source.want(A)
    world.source.want(B)
    world.connect()
    assert world.asked() == [("SUBSCRIBE", A, B)]
    world.server.say(confirmation("subscribe", A, B))
    assert world.sink.take() == [("reached",), ("confirmed", A), ("confirmed", B)]
    world.stop()


def test_wishes_are_sent_at_once_one_command_at_a_time() -> None:
    """What is wished for while a command is unanswered goes together, once it is answered."""
    world = World().start().connect()
    world.source.want(A)
    assert world.asked() == [("SUBSCRIBE", A)]
    world.source.want(B)
    world.source.want(C)
    assert world.asked() == []
    world.server.say(confirmation("subscribe", A))
    assert world.asked() == [("SUBSCRIBE", B, C)]
    world.stop()


def test_the_last_wish_counts() -> None:
    """A stream that is given up is unsubscribed; nobody hears that it had been confirmed."""
    world = World().start().connect()
    world.source.want(A)
    world.source.unwant(A)
    world.server.answer(confirmation("subscribe", A))
    assert world.asked() == [("UNSUBSCRIBE", A)]
    world.server.say(confirmation("unsubscribe", A))
    assert world.asked() == []
    assert world.sink.take() == [("reached",)]
    world.stop()


def test_a_stream_wanted_again_before_its_end_was_sent_is_confirmed_at_once() -> None:
    """The server has nothing to say about it, so its new subscribers would wait in vain."""
    world = World().up(A)
    world.source.want(B)
    world.source.unwant(A)
    world.source.want(A)
    assert world.sink.take() == [("confirmed", A)]
    world.server.answer(confirmation("subscribe", B))
    assert world.asked() == []
    assert world.sink.take() == [("confirmed", B)]
    world.stop()


def test_the_prefix_is_between_us_and_the_server() -> None:
    """Channels have it, streams have not."""
    world = World(prefix="prod:").start().connect()
    world.source.want(A)
    assert world.asked() == [("SUBSCRIBE", f"prod:{A}")]
    world.server.say(confirmation("subscribe", f"prod:{A}") + message(f"prod:{A}", b"1") + message(A, b"2"))
    assert world.sink.take() == [("reached",), ("confirmed", A), ("publish", A, b"1")]
    world.source.unwant(A)
    assert world.asked() == [("UNSUBSCRIBE", f"prod:{A}")]
    world.stop()


def test_refused_streams_are_found_and_the_others_of_their_batch_flow() -> None:
    """The server names no channel; the sink hears which, and why."""
    world = World().start()
    for stream in (A, B, C):
        world.source.want(stream)
    world.connect()
    for _ in range(20):
        for verb, *channels in world.asked():
            assert verb == "SUBSCRIBE"
            world.server.say(NOPERM if C in channels else confirmation("subscribe", *channels))
    events = world.sink.take()
    assert events[0] == ("reached",)
    assert set(events[1:]) == {
        ("confirmed", A),
        ("confirmed", B),
        ("refused", C, "NOPERM No permissions to access a channel"),
    }
    world.stop()


def test_a_refused_stream_is_tried_again_while_the_link_lives() -> None:
    """For a permission that is given ends no link; until then nobody hears of it again."""
    world = World().up(A)
    world.source.want(B)
    world.server.answer(NOPERM)
    assert world.sink.take() == [("refused", B, "NOPERM No permissions to access a channel")]
    tries = []
    for second in range(95):
        world.clock.advance(1)
        for command in world.asked():
            if command == ("PING",):
                world.server.say(b"+PONG\r\n")
            else:
                assert command == ("SUBSCRIBE", B)
                tries.append(second)
                world.server.say(NOPERM if len(tries) < 3 else confirmation("subscribe", B))
    assert len(tries) == 3
    assert tries[2] - tries[1] == 30
    assert world.sink.take() == [("confirmed", B)]
    world.stop()


# Messages.


def test_messages_of_one_read_come_in_order_and_are_flushed_once() -> None:
    """Whatever their number; between them what else happened, in its place."""
    world = World().up(A)
    world.source.want(B)
    data = message(A, b"1") + confirmation("subscribe", B) + message(B, b"2") + message(A, b"3")
    world.server.say(data)
    assert world.sink.events == [
        ("publish", A, b"1"),
        ("confirmed", B),
        ("publish", B, b"2"),
        ("publish", A, b"3"),
        ("flush",),
    ]
    world.stop()


def test_messages_of_streams_that_nobody_wants_are_ignored() -> None:
    """The last ones on their way when a stream is given up, and anything else."""
    world = World().up(A, B)
    world.source.unwant(A)
    world.server.say(message(A, b"1") + message("other", b"2") + message(B, b"3"))
    assert world.sink.take() == [("publish", B, b"3")]
    world.stop()


def test_what_still_comes_of_a_subscription_that_is_ended_does_not_count() -> None:
    """A stream that is wanted again meanwhile begins with its confirmation: what lies in between is not there."""
    world = World().up(A, B)
    world.source.unwant(A)
    assert world.asked() == [("UNSUBSCRIBE", A)]
    world.source.want(A)
    world.server.say(message(A, b"early") + message(B, b"1"))
    world.server.say(confirmation("unsubscribe", A))
    assert world.asked() == [("SUBSCRIBE", A)]
    world.server.say(confirmation("subscribe", A) + message(A, b"first"))
    assert world.sink.take() == [("publish", B, b"1"), ("confirmed", A), ("publish", A, b"first")]
    world.stop()


def test_what_is_neither_message_nor_confirmation_is_ignored() -> None:
    """The answers to our own PING above all, with subscriptions and without."""
    world = World().up(A)
    world.server.say(resp([b"pong", b""]) + b"+PONG\r\n" + b":1\r\n" + resp([b"pmessage", b"*", b"x", b"1"]))
    assert world.sink.take() == []
    assert world.server.is_open
    world.stop()


payloads = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"123.45", b"7", b"", b"\r\n", b"*1\r\n", b"-NOPERM\r\n"])
)


@settings(deadline=None, max_examples=100)
@given(
    sent=st.lists(st.tuples(st.sampled_from([A, B, C, "other"]), payloads), max_size=20),
    cuts=st.lists(st.integers(0, 1000), max_size=10),
)
def test_however_the_bytes_are_cut(sent: Sequence[tuple[str, bytes]], cuts: Sequence[int]) -> None:
    """Payloads come through byte for byte and in order, with one flush at the end of each read."""
    world = World().up(A, B)
    data = b"".join(message(channel, payload) for channel, payload in sent)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges) if start < end]
    for number, piece in enumerate(pieces):
        world.server.say(piece)
        assert world.sink.events.count(("flush",)) == number + 1
        assert world.sink.events[-1] == ("flush",)
    assert world.sink.take() == [("publish", channel, payload) for channel, payload in sent if channel in (A, B)]
    world.stop()


# Losses.


PONGS = (b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", b"+PONG\r\n")


@pytest.mark.parametrize("pong", PONGS)
def test_a_loss_says_when_the_source_was_last_known_good(pong: bytes) -> None:
    """The moment at which the last answer was asked for: what comes later may have been under way for long."""
    world = World().up(A)
    world.clock.advance(1)
    world.clock.advance(0.5)
    world.server.say(pong)
    world.clock.advance(1)
    world.clock.advance(1)
    world.server.say(message(A, b"1"))
    world.server.cut()
    assert world.sink.take() == [("publish", A, b"1"), ("lost", (NOW + 1) * 1000)]
    world.stop()


def test_before_the_first_answer_it_was_good_when_it_came_up() -> None:
    """Nothing could be missed before that; an answer that nobody asked for tells nothing."""
    world = World().up(A)
    world.server.say(PONGS[0])
    world.clock.advance(0.9)
    world.server.cut()
    assert world.sink.take() == [("lost", NOW * 1000)]
    world.stop()


def test_a_silent_link_was_last_good_at_its_last_answer() -> None:
    """Ten seconds before it is given up, and some, but for what came in between."""
    world = World().up(A)
    world.clock.pump([1])
    world.server.say(PONGS[0])
    world.clock.pump([1] * 3)
    world.server.say(message(A, b"1"))
    world.clock.pump([1] * 11)
    assert not world.server.is_open
    assert world.sink.take() == [("publish", A, b"1"), ("lost", (NOW + 1) * 1000)]
    world.stop()


def test_a_source_that_was_never_reached_is_lost_since_the_first_attempt() -> None:
    """Each failed attempt says so, of all that is wanted by then; who wants more is told at once."""
    world = World().start()
    assert world.source.want(A) is None
    world.endpoint.refuse(ConnectionRefusedError())
    assert (world.sink.take(), world.sink.named) == ([("lost", NOW * 1000)], [A])
    assert world.source.want(B) == NOW * 1000
    world.clock.advance(1)
    world.endpoint.refuse(ConnectionRefusedError())
    assert (world.sink.take(), world.sink.named) == ([("lost", NOW * 1000)], [A, B])
    world.clock.advance(1)
    world.connect()
    assert world.source.want(C) is None
    world.stop()


def test_everything_is_subscribed_anew_after_a_loss() -> None:
    """What was wanted then and since, whatever was in flight when the link was lost; nobody has to ask again."""
    world = World().up(A, B)
    world.source.want(C)
    world.server.cut()
    world.source.unwant(B)
    world.sink.take()
    world.connect()
    assert world.asked() == [("SUBSCRIBE", C, A)]
    world.server.say(confirmation("subscribe", C, A) + message(A, b"1"))
    assert world.sink.take() == [("reached",), ("confirmed", C), ("confirmed", A), ("publish", A, b"1")]
    world.stop()


@pytest.mark.parametrize(
    "fault",
    ["LOADING Redis is loading the dataset in memory", "ERR unknown command", "NOAUTH Authentication required."],
)
def test_any_other_error_drops_the_link(fault: str, logged: LogCapture) -> None:
    """A server that does not subscribe us is no use; the next link may find it in a better state."""
    world = World().start().connect()
    world.source.want(A)
    world.server.say(b"-%b\r\n" % fault.encode())
    world.clock.advance(0)
    assert not world.server.is_open
    assert world.sink.take() == [("reached",), ("lost", NOW * 1000)]
    assert any(f": {fault}; trying again" in formatEvent(event) for event in logged.events)
    world.connect()
    assert world.asked() == [("SUBSCRIBE", A)]
    world.stop()


def test_what_came_before_a_fault_of_the_protocol_is_delivered() -> None:
    """The messages before the bad byte are good, and are flushed."""
    world = World().up(A)
    world.server.say(message(A, b"1") + b"?")
    assert world.sink.events == [("publish", A, b"1"), ("flush",)]
    world.clock.advance(0)
    assert world.sink.events[-1] == ("lost", NOW * 1000)
    world.stop()


BUSY = b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n"


def test_a_server_that_runs_a_script_has_not_answered_yet() -> None:
    """It is no loss; the last moment known good stays where it was until it answers."""
    world = World().up(A)
    for _ in range(12):
        world.clock.advance(1)
        assert world.asked() == [("PING",)]
        world.server.say(BUSY)
    assert world.server.is_open
    assert world.sink.take() == []
    world.clock.advance(1)
    world.server.answer(PONGS[0])
    world.server.cut()
    assert world.sink.take() == [("lost", (NOW + 13) * 1000)]
    world.stop()


def test_a_loss_while_a_script_runs() -> None:
    """What was known to be good is what was answered before."""
    world = World().up(A)
    world.clock.advance(1)
    world.server.answer(PONGS[0])
    world.clock.advance(1)
    world.server.answer(BUSY)
    world.server.cut()
    assert world.sink.take() == [("lost", (NOW + 1) * 1000)]
    world.stop()


def test_what_is_refused_while_a_script_runs_is_sent_anew() -> None:
    """As soon as the server answers again, behind which come the wishes of that time."""
    world = World().up(A)
    world.source.want(B)
    world.clock.advance(1)
    assert world.asked() == [("SUBSCRIBE", B), ("PING",)]
    world.server.say(BUSY)
    world.source.want(C)
    world.server.say(BUSY)
    assert world.asked() == []
    world.clock.advance(1)
    world.server.answer(PONGS[0])
    world.server.answer(confirmation("subscribe", B))
    world.server.answer(confirmation("subscribe", C))
    assert world.sink.take() == [("confirmed", B), ("confirmed", C)]
    world.stop()


def test_an_error_belongs_to_what_was_asked_first() -> None:
    """A PING that is refused refuses no channel."""
    world = World().up(A)
    world.clock.advance(1)
    world.source.want(B)
    assert world.asked() == [("PING",), ("SUBSCRIBE", B)]
    world.server.say(BUSY + confirmation("subscribe", B))
    assert world.sink.take() == [("confirmed", B)]
    world.clock.advance(1)
    world.server.answer(NOPERM)
    world.clock.advance(0)
    assert not world.server.is_open
    assert world.sink.take() == [("lost", NOW * 1000)]
    world.stop()


def test_how_long_a_ping_was_unanswered_is_logged(logged: LogCapture) -> None:
    """Whoever looks for the cause sees whether this side, or the server, was behind."""
    world = World().up(A)
    world.clock.advance(1)
    world.clock.advance(3.25)
    world.server.cut()
    lines = [formatEvent(event) for event in logged.events]
    assert "redis: the connection ended with a PING unanswered for 3.2 s" in lines
    world.connect()
    world.server.cut()
    assert [formatEvent(event) for event in logged.events if "unanswered" in formatEvent(event)] == [lines[-2]]
    world.stop()


# The server's role.


def test_a_loss_is_not_later_than_the_role_was_good() -> None:
    """Every PING is answered, and the other link is silent."""
    world = World()
    answers = RoleCommands()
    world.commands.ask = lambda *words: answers.ask(*words) if world.clock.seconds() < 3 else Deferred()
    world.up(A)
    for _ in range(5):
        world.clock.advance(1)
        world.server.answer(PONGS[0])
    world.server.cut()
    assert world.sink.take() == [("lost", (NOW + 2) * 1000)]
    world.stop()


# The end.


def test_stopping_is_no_loss() -> None:
    """The sink hears nothing more, and wishes are nobody's."""
    world = World().up(A)
    world.stop()
    world.source.want(B)
    world.source.unwant(A)
    assert world.sink.events == []
    assert world.asked() == []


def test_it_can_be_stopped_before_it_was_reached() -> None:
    """With wishes that wait, and nobody at the other end."""
    world = World().start()
    world.source.want(A)
    world.stop()
    assert world.sink.events == []


# States.


def test_a_state_is_given_behind_all_that_was_published_before_it_was_read() -> None:
    """Otherwise whoever begins with it would get what is older afterwards. The server answers a PING in its turn."""
    world = World().up(A, B)
    world.snapshots.states = {A: b"12"}
    given = world.read(A)
    assert (given, world.asked()) == ([], [("PING",)])
    world.server.say(message(A, b"11"))
    assert given == []
    world.server.say(message(A, b"12") + PONG)
    assert given == [b"12"]
    assert world.read(B) == [None]
    assert world.asked() == []
    world.stop()


def test_a_ping_that_was_sent_before_says_nothing_of_a_state() -> None:
    """One at a time is under way; the next one is for all who have come meanwhile."""
    world = World().up(A, B)
    world.snapshots.states = {A: b"a", B: b"b"}
    world.clock.advance(1)
    given = [world.read(A), world.read(B)]
    assert world.asked() == [("PING",)]
    world.server.say(PONG)
    assert (given, world.asked()) == ([[], []], [("PING",)])
    world.server.say(PONG)
    assert (given, world.asked()) == ([[b"a"], [b"b"]], [])
    world.stop()


def test_a_state_waits_while_a_script_runs() -> None:
    """What the server refuses for that was no answer."""
    world = World().up(A)
    world.snapshots.states = {A: b"a"}
    given = world.read(A)
    world.server.answer(BUSY)
    assert given == []
    world.clock.advance(1)
    world.server.answer(PONG)
    assert given == [b"a"]
    world.stop()


def test_a_state_is_not_given_on_a_link_that_is_lost() -> None:
    """Nobody knows what had been published by then; nor where there is no link. The loss is told first."""
    world = World().up(A, B)
    world.snapshots.states = {A: b"a", B: b"b"}
    world.clock.advance(1)
    world.asked()
    given = [world.read(A)]
    world.server.say(PONG)
    given.append(world.read(B))
    world.server.cut()
    assert given == [[None], [None]]
    assert world.read(A) == [None]
    assert world.sink.take() == [("lost", (NOW + 1) * 1000)]
    world.stop()


if TYPE_CHECKING:
    _sink: Sink = RecordingSink()
    _source: NodeSource[Any] = World().source
