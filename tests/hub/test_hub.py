"""The hub: each of its rules one at a time, and any sequence of events against a dict of sets."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock

from marketfeed.boundaries import TooManyStreams
from marketfeed.hub.groups import Group
from marketfeed.hub.histories import Histories
from marketfeed.hub.hub import Hub
from marketfeed.hub.readiness import CONFIRM_SECONDS
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Shape
from tests.conftest import LogCapture
from tests.fakes import FakeSource
from tests.limits import hub_limits
from tests.rooms import KINDS, LINGER, Client, Room, depth, member, trade
from tests.strategies import machine_test


def test_stopping_ends_joins_and_lingering_and_waits_for_nobody() -> None:
    """After the hub has stopped no timer is left, and who leaves later leaves at once."""
    room = Room()
    stays = member(room, "trade@A")
    member(room, "trade@B").end()
    waits = Client(room).join("trade@C", "trade@D")
    room.hub.stopService()
    assert not room.timers
    assert list(room.source.wanted) == ["trade@A"]
    waits.end()
    stays.end()
    room.assert_empty()


def test_spellings_and_shapes_get_the_same_publication_each_in_its_own_frame(room: Room) -> None:
    """Every frame echoes the client's spelling; a raw client gets the engine's bytes alone."""
    canonical, reversed_ = member(room, "trade@A"), member(room, "a@trade")
    raw = member(room, "trade@A", shape=Shape.DATA)
    room.source.publish("trade@A", trade(7))
    assert canonical.outbox.texts == [b'{"stream":"trade@A","data":' + trade(7) + b"}"]
    assert reversed_.outbox.texts == [b'{"stream":"a@trade","data":' + trade(7) + b"}"]
    assert raw.outbox.texts == [trade(7)]


# Flushing, and the order.


def test_publications_wait_for_the_flush_and_go_in_one_write(room: Room) -> None:
    """Nothing is sent before the source has delivered all that arrived together."""
    client = member(room, "trade@A", "trade@B")
    room.hub.publish("trade@A", trade(1))
    room.hub.publish("trade@B", trade(2))
    room.hub.publish("trade@A", trade(3))
    assert not client.outbox.writes
    room.hub.flush()
    assert len(client.outbox.writes) == 1
    messages = client.take()
    assert [message for message in messages if message[0] == "trade@A"] == [("trade@A", 1), ("trade@A", 3)]
    assert ("trade@B", 2) in messages
    room.hub.flush()
    assert not client.outbox.writes


def test_what_is_published_and_delivered_is_counted(room: Room) -> None:
    """One publication to three groups of two members in all is one published, and one delivered to each spelling."""
    member(room, "trade@A", "a@trade")
    member(room, "trade@A", shape=Shape.DATA)
    room.source.publish("trade@A", trade(1), trade(2))
    assert (room.hub.counts.published, room.hub.counts.delivered) == (2, 6)


def test_a_stream_that_is_not_wanted_is_not_looked_at(room: Room) -> None:
    """One that lingers, or whose first join still waits, is: who comes next may want what it publishes."""
    member(room, "trade@A").end()
    waiting = Client(room).join("trade@B")
    for name in ("trade@X", "trade@A", "trade@B"):
        room.source.publish(name, b"bad", trade())
    assert (room.hub.counts.published, room.hub.counts.delivered, room.hub.drops) == (2, 0, Counter({"not-json": 2}))
    assert waiting.take() == []


# Leaving, and other shapes.


def test_after_unsubscribing_nothing_more_arrives(room: Room) -> None:
    """What had arrived goes out before the reply; what waits for a slow client is dropped; nothing comes after."""
    quick, slow = member(room, "trade@A", "depth@A", "trade@B"), member(room, "trade@A", "trade@B")
    slow.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    room.hub.publish("trade@B", trade(2))
    quick.unsubscribe("trade@A", "depth@A")
    slow.unsubscribe("trade@A")
    room.source.publish("trade@A", trade(3))
    room.source.publish("trade@B", trade(4))
    slow.outbox.drain()
    assert quick.take() == [("trade@A", 1), ("trade@B", 2), ["left", "trade@A", "depth@A"], ("trade@B", 4)]
    assert slow.take() == [("trade@B", 2), ["left", "trade@A"], ("trade@B", 4)]


def test_who_is_gone_gets_nothing_of_what_is_pending(room: Room) -> None:
    """Leaving needs no flush: the client is closed."""
    leaver, stays = member(room, "trade@A"), member(room, "trade@A")
    room.hub.publish("trade@A", trade(1))
    room.hub.leave(leaver.outbox, leaver.groups.values())
    room.hub.flush()
    assert leaver.take() == []
    assert stays.take() == [("trade@A", 1)]


def test_the_last_to_go_takes_what_is_pending_along(room: Room) -> None:
    """A group that emptied before its flush harms nobody, nor whoever joins anew."""
    member_ = member(room, "trade@A")
    room.hub.publish("trade@A", trade(1))
    member_.end()
    again = Client(room).join("trade@A")
    room.source.publish("trade@A", trade(2))
    assert again.take() == [["joined", "trade@A"], ("trade@A", 2)]


def test_leaving_twice_is_leaving_once(room: Room) -> None:
    """A group that the client is not in is no reason to give back its stream."""
    client, other = member(room, "trade@A"), member(room, "trade@A")
    groups = list(client.groups.values())
    client.end()
    room.hub.leave(client.outbox, groups)
    room.clock.advance(LINGER)
    room.source.publish("trade@A", trade(1))
    assert other.take() == [("trade@A", 1)]


def test_reshaping_changes_how_publications_look_and_misses_none(room: Room) -> None:
    """What arrived before comes in the old shape, the rest in the new; doing it again changes nothing."""
    client, other = member(room, "trade@A", "a@trade"), member(room, "trade@A")
    room.hub.publish("trade@A", trade(1))
    client.reshape(Shape.DATA)
    room.source.publish("trade@A", trade(2))
    client.reshape(Shape.DATA)
    room.source.publish("trade@A", trade(3))
    client.reshape(Shape.ENVELOPE)
    room.source.publish("trade@A", trade(4))
    raw = [(None, 2)] * 2 + [(None, 3)] * 2
    assert client.take() == [("trade@A", 1), ("a@trade", 1), *raw, ("trade@A", 4), ("a@trade", 4)]
    assert other.take() == [("trade@A", number) for number in (1, 2, 3, 4)]
    room.end(client, other)


def test_leaving_many_streams_at_once_is_one_request_to_the_outbox(room: Room) -> None:
    """A client with a long backlog is not looked through once for each of a thousand streams."""
    client = member(room, "trade@A", "trade@B", "trade@C")
    forgotten: list[list[object]] = []
    client.outbox.forget = lambda groups: forgotten.append(list(groups))  # type: ignore[method-assign]
    left = [client.groups[spelling] for spelling in ("trade@A", "trade@C")]
    client.unsubscribe("trade@A", "trade@C")
    assert forgotten == [left]


# One client's failure.


def test_a_client_that_is_too_slow_in_several_streams_is_ended_once(room: Room) -> None:
    """The second group of one flush finds no room either; ending the client twice would drop its close frame."""
    slow, healthy = member(room, "trade@A", "trade@B", queue=1), member(room, "trade@A", "trade@B")
    slow.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    room.hub.publish("trade@B", trade(2))
    room.hub.flush()
    assert slow.outbox.overflows == 1
    assert healthy.take() == [("trade@A", 1), ("trade@B", 2)]


def test_clients_of_what_was_flushed_last_may_be_behind(room: Room) -> None:
    """Those who do not keep up, each once; others are of no interest to who has more of the same."""
    client, other, third = (member(room, "trade@A", "a@trade"), member(room, "trade@B"), member(room, "trade@A"))
    for each in (client, other):
        each.outbox.stall()
    room.source.publish("trade@A", trade(1))
    assert room.hub.behind() == []
    for each in (client, other):
        each.outbox.limit = 2 * client.outbox.waiting_bytes - 1
    assert room.hub.behind() == [client.outbox]
    client.outbox.drain()
    assert room.hub.behind() == []
    room.source.publish("trade@B", trade(1), trade(2))
    assert room.hub.behind() == [other.outbox]
    other.end()
    assert room.hub.behind() == []
    assert not third.outbox.waiting


def test_a_client_that_is_ended_inside_its_reshape_leaves_nothing_behind(room: Room) -> None:
    """The flush before a reshape may end the client, who must not be moved into another group then."""
    client, other = member(room, "trade@A", queue=1), member(room, "trade@A")
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    client.reshape(Shape.DATA)
    assert client.outbox.overflows == 1
    assert not client.groups
    room.end(other)


def test_a_client_that_is_ended_inside_its_unsubscribe_leaves_nothing_behind(room: Room) -> None:
    """The same for the flush before leaving."""
    client = member(room, "trade@A", "trade@B", queue=1)
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    client.unsubscribe("trade@A")
    assert client.outbox.overflows == 1
    room.clock.advance(LINGER)
    room.assert_empty()


# Jumps of the ids, and what is due once a second.


def test_a_jump_is_told_before_the_publication_that_shows_it(room: Room) -> None:
    """From the last publication to this one; what was pending goes out first."""
    client, other = member(room, "depth@A", "trade@A"), member(room, "depth@B")
    room.source.publish("depth@A", depth(1))
    since = room.now_ms
    room.clock.advance(2)
    room.hub.publish("trade@A", trade(7))
    room.hub.publish("depth@A", depth(3))
    room.hub.flush()
    gap = ("gap", ["depth@A"], "sequence", since, room.now_ms)
    assert client.take() == [("depth@A", 1), ("trade@A", 7), gap, ("depth@A", 3)]
    assert other.take() == []
    room.source.publish("depth@A", depth(4))
    assert client.take() == [("depth@A", 4)]


def test_a_publication_without_the_ids_of_its_kind_is_bad() -> None:
    """Also where the kind itself demands nothing of its publications."""
    orders = StreamKind("orders", LossPolicy.KEEP, ids="seq")
    room = Room()
    client = Client(room)
    client.hub.join(client.outbox, client.shape, {"orders@A": StreamKinds([orders]).parse("orders@A")}, client)
    room.source.confirm()
    client.take()
    for payload in (b'{"seq":1}', b"{}", b'{"seq":"2"}', b'{"seq":2}'):
        room.source.publish("orders@A", payload)
    assert client.hub.counts.published == 2
    room.end(client)


def test_ids_of_any_kind_that_jump_are_told() -> None:
    """Where they are declared: between good publications, whether one was bad or none came."""
    trades = msgspec.structs.replace(BUILT_IN[0], ids="t")
    room = Room()
    client = Client(room)
    client.hub.join(client.outbox, client.shape, {"trade@A": StreamKinds([trades]).parse("trade@A")}, client)
    room.source.confirm()
    client.take()
    for number, jumps in ((7, False), (8, False), (10, True), (11, False), (1, True), (1, False)):
        room.clock.advance(1)
        since, _ = room.now_ms - 1000, room.source.publish("trade@A", trade(number))
        gap = [("gap", ["trade@A"], "sequence", since, room.now_ms)]
        assert client.take() == gap * jumps + [("trade@A", number)]
    room.source.publish("trade@A", trade(2).replace(b'"t":2', b'"x":2'))
    assert client.take() == []
    room.clock.advance(1)
    room.source.publish("trade@A", trade(3))
    assert [message[0] for message in client.take()] == ["gap", "trade@A"]
    room.source.lose(5)
    room.source.confirm()
    room.source.publish("trade@A", trade(9))
    assert [message[-1] for message in client.take()] == [None, room.now_ms, 9]
    room.end(client)


def test_a_stream_that_keeps_jumping_is_told_once_a_second_and_in_full(room: Room) -> None:
    """What had to wait is told by itself, when nothing more is published, from the first jump's beginning on."""
    client = member(room, "depth@A")
    room.source.publish("depth@A", depth(1), depth(3))
    room.clock.advance(0.25)
    began = room.now_ms - 250
    room.source.publish("depth@A", depth(5))
    room.clock.advance(0.25)
    room.source.publish("depth@A", depth(7))
    gaps = [message for message in client.take() if message[0] == "gap"]
    assert gaps == [("gap", ["depth@A"], "sequence", began, began)]
    room.clock.advance(0.5)
    assert client.take() == [("gap", ["depth@A"], "sequence", began, room.now_ms)]
    room.clock.advance(5)
    assert client.take() == []


def test_what_is_too_old_in_many_streams_goes_in_several_turns(room: Room) -> None:
    """However many streams have published in the same second, nobody waits for all of them to be looked at."""
    names = [f"trade@M{number}" for number in range(2000)]
    client = Client(room).join(*names)
    while client.waiting is not None:
        room.turn()
        room.source.confirm()
    for name in names:
        room.hub.publish(name, trade(1))
    room.hub.flush()
    full = room.hub._upstream.histories.size
    room.clock.rightNow += 302
    room.turn()
    sizes = [full, room.hub._upstream.histories.size]
    while room.hub.portions:
        room.turn()
        sizes.append(room.hub._upstream.histories.size)
    assert sizes[-1] == 0
    assert max(before - after for before, after in pairwise(sizes)) <= full / 2
    client.end()


def test_a_hub_that_was_never_started_can_be_stopped() -> None:
    """A start may fail before its turn comes."""
    hub = Hub(Clock(), hub_limits())
    hub.feed_from(FakeSource(hub))
    hub.stopService()


def test_a_fault_in_the_sweep_is_not_its_last(room: Room, logged: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and the next one takes place."""
    monkeypatch.setattr(Histories, "expiring", lambda histories, now: 1 // 0)
    room.clock.advance(1)
    room.clock.advance(1)
    assert len(logged.flush_failures(ZeroDivisionError)) == 2


# Any sequence of events.

SPELLINGS = ["trade@A", "a@trade", "trade@B", "depth@A@100ms", "ticker@A"]
STREAMS = sorted({str(KINDS.parse(spelling)) for spelling in SPELLINGS})
PAYLOADS = {
    "trade": b'{"e":"trade","t":%d,"m":true,"p":"1","q":"2","s":"A"}',
    "depth": b'{"e":"depth","t":%d,"a":[],"b":[]}',
    "ticker": b'{"e":"ticker","t":%d,"c":"1","s":"A"}',
}
Gap = tuple[str, int]


def rate_of(spelling: str) -> int:
    return KINDS.parse(spelling).rate


class Known:
    """What the model knows of a stream that the source is asked for."""

    def __init__(self) -> None:
        self.confirmed = False
        self.gap: Gap | None = None
        self.expires: float | None = None


class Wish:
    """A join that is not answered yet: the streams that it waits for, and until when."""

    def __init__(self, spellings: list[str], missing: set[str], since: int, deadline: float | None) -> None:
        self.spellings = spellings
        self.missing = missing
        self.since = since
        self.deadline = deadline


class Subscription:
    """One spelling of one client from its reply to its end: what is to arrive, and what the client was told."""

    def __init__(self) -> None:
        self.due: deque[int] = deque()
        self.may_miss = False
        self.gap: Gap | None = None


class ModelClient(Client):
    """A client that tells the model when it is answered and when it ends, and checks each message that it reads."""

    def __init__(self, machine: HubMachine, slot: int) -> None:
        super().__init__(machine.room, shape=Shape(slot % 3), queue=200, window=(0, 9, 15)[slot])
        self.machine = machine
        self.promised: dict[str, list[Subscription]] = {spelling: [] for spelling in SPELLINGS}
        self.live: dict[str, Subscription] = {}

    def joined(
        self, groups: dict[str, Group], recovered: dict[str, bool] | None, rewound: dict[str, int] | None
    ) -> None:
        try:
            self.machine.answered(self, list(groups))
        except Exception as fault:  # which the hub would take for the session's
            self.machine.faults.append(fault)
        super().joined(groups, recovered, rewound)

    def left(self, spellings: Sequence[str]) -> None:
        for spelling in spellings:
            for subscription in (*self.promised[spelling], *filter(None, [self.live.get(spelling)])):
                subscription.may_miss |= not self.outbox.direct  # what waited is dropped
        self.machine.leave(self, spellings)

    def end(self) -> None:
        if not self.ended:
            spellings = list(self.groups)
            super().end()
            self.machine.gone(self, spellings)

    @property
    def reads(self) -> bool:
        return self.outbox.direct and not self.outbox.ended

    def read(self) -> None:
        if self.reads:
            for message in self.take():
                self._check(message)

    def _check(self, message: Any) -> None:
        match message:
            case ["joined", *spellings]:
                for spelling in spellings:
                    assert spelling not in self.live
                    self.live[spelling] = self.promised[spelling].pop(0)
            case ["left", *spellings]:
                for spelling in spellings:
                    left = self.live.pop(spelling)
                    assert left.may_miss or not left.due or rate_of(spelling)
            case ("gap", spellings, reason, since, None):
                for spelling in spellings:
                    assert self.live[spelling].gap != (reason, since), "told twice"
                    self.machine.check_all_before(spelling, (reason, since), self.live[spelling].due)
                    self.live[spelling].gap = (reason, since)
            case ("gap", spellings, reason, since, until):
                assert until >= since
                for spelling in spellings:
                    assert self.live[spelling].gap == (reason, since)
                    self.live[spelling].gap = None
            case (spelling, number):
                subscription, rate = self._subscription(spelling, number)
                if rate:  # it stands for all before it, and may be what came just before the client
                    while subscription.due and subscription.due[0] <= number:
                        subscription.due.popleft()
                else:
                    assert subscription.due.popleft() == number
                assert subscription.gap is None, "a publication inside a gap"
            case _:
                raise AssertionError(f"nobody sends {message}")

    def _subscription(self, spelling: str | None, number: int) -> tuple[Subscription, int]:
        """Which one this message is for, and its rate."""
        if spelling is not None:
            return self.live[spelling], rate_of(spelling)
        stream = self.machine.published[number]  # a raw client cannot tell its spellings apart
        mine = ((each, rate_of(name)) for name, each in self.live.items() if str(KINDS.parse(name)) == stream)
        return next((each, rate) for each, rate in mine if rate or (each.due and each.due[0] == number))


slots = st.integers(0, 2)
any_of = st.integers(0, 59)
"""Picks one of up to five things, whichever there are."""
some_spellings = st.lists(st.sampled_from(SPELLINGS), min_size=1, max_size=3, unique=True)


class HubMachine(RuleBasedStateMachine):
    """The hub against a model: for each stream the set of its members, who waits for it, and what the source said."""

    MAX_STREAMS = 3
    LINGER = 3.7  # so that no stream expires in the very moment in which a confirmation is overdue

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(max_distinct_streams=self.MAX_STREAMS, linger=self.LINGER)
        self.hub, self.source, self.clock = self.room.hub, self.room.source, self.room.clock
        self.known: dict[str, Known] = {}
        self.members: dict[str, set[tuple[ModelClient, str]]] = {name: set() for name in STREAMS}
        self.wishes: dict[ModelClient, Wish] = {}
        self.published: dict[int, str] = {}
        self.first_in: dict[tuple[str, Gap], int] = {}  # the number of the first publication that each gap could have
        self.down_since: int | None = None
        self.faults: list[Exception] = []
        self.joining: ModelClient | None = None
        self.clients = [ModelClient(self, slot) for slot in range(3)]

    # The model.

    def holders(self, stream: str) -> int:
        waiting = [spelling for wish in self.wishes.values() for spelling in wish.spellings]
        return len(self.members[stream]) + sum(str(KINDS.parse(spelling)) == stream for spelling in waiting)

    def answered(self, client: ModelClient, spellings: list[str]) -> None:
        """The hub answers a join: that is right when nothing is missing."""
        wish = self.wishes[client]
        assert not wish.missing
        assert wish.spellings == spellings
        del self.wishes[client]
        for spelling in spellings:
            subscription = Subscription()
            client.promised[spelling].append(subscription)
            self.members[str(KINDS.parse(spelling))].add((client, spelling))
        if client.ended:
            self.leave(client, spellings)

    def gone(self, client: ModelClient, spellings: list[str]) -> None:
        """A client has ended; a join that it is in the middle of making is answered yet."""
        if client in self.wishes and client is not self.joining:
            given_back = self.wishes[client].spellings
            while given_back:
                self._release(str(KINDS.parse(given_back.pop(0))))
            del self.wishes[client]
        self.leave(client, spellings)

    def leave(self, client: ModelClient, spellings: Sequence[str]) -> None:
        for spelling in spellings:
            stream = str(KINDS.parse(spelling))
            if (client, spelling) in self.members[stream]:
                self.members[stream].remove((client, spelling))
                self._release(stream)

    def _gap(self, stream: str, gap: Gap) -> None:
        self.known[stream].gap = gap
        self.first_in.setdefault((stream, gap), len(self.published))

    def check_all_before(self, spelling: str, gap: Gap, due: deque[int]) -> None:
        """A client reads that a gap begins: what was published before it has been read. What is due came after it."""
        assert not due or due[0] >= self.first_in[str(KINDS.parse(spelling)), gap], "told before what came before it"

    def _release(self, stream: str) -> None:
        if not self.holders(stream):
            if len(self.known) <= self.MAX_STREAMS:
                self.known[stream].expires = self.clock.seconds() + self.LINGER
            else:
                del self.known[stream]

    # What clients do.

    def client(self, slot: int) -> ModelClient:
        if self.clients[slot].ended:
            self.clients[slot] = ModelClient(self, slot)
        return self.clients[slot]

    @initialize(wishes=st.lists(some_spellings, min_size=2, max_size=3), confirmed=st.booleans())
    def begin(self, wishes: list[list[str]], confirmed: bool) -> None:
        for slot, spellings in enumerate(wishes):
            self.join(slot, spellings)
        if confirmed:
            self.confirm_all()

    @rule(slot=slots, spellings=some_spellings)
    def join(self, slot: int, spellings: list[str]) -> None:
        client = self.client(slot)
        new = [spelling for spelling in spellings if spelling not in client.groups]
        if client.waiting is not None or not new:
            return
        names = list(dict.fromkeys(str(KINDS.parse(spelling)) for spelling in new))
        in_use = {name for name in self.known if self.holders(name)}
        if len(in_use.union(names)) > self.MAX_STREAMS:
            with pytest.raises(TooManyStreams):
                client.join(*new)
            return
        for name in names:
            if name not in self.known:
                self.known[name] = Known()
                if self.down_since is not None:
                    self._gap(name, ("source-down", self.down_since))
            self.known[name].expires = None
        missing = {name for name in names if not self.known[name].confirmed and self.known[name].gap is None}
        deadline = self.clock.seconds() + CONFIRM_SECONDS if missing else None
        self.wishes[client] = Wish(new, missing, self.room.now_ms, deadline)
        self.joining = client
        client.join(*new)
        self.joining = None
        assert (client.waiting is not None) == bool(missing)

    @rule(slot=slots, spellings=some_spellings)
    def unsubscribe(self, slot: int, spellings: list[str]) -> None:
        client = self.client(slot)
        mine = [spelling for spelling in client.groups if spelling in spellings]
        client.unsubscribe(*mine)

    @rule(slot=slots, shape=st.sampled_from(Shape))
    def reshape(self, slot: int, shape: Shape) -> None:
        client = self.client(slot)
        if client.waiting is None:
            client.reshape(shape)
            assert not client.groups or not client.ended

    @precondition(lambda self: len(self.published) > 3)
    @rule(slot=slots)
    def disconnect(self, slot: int) -> None:
        self.client(slot).end()

    @rule(slot=slots, takes=st.sampled_from([0, 3, 80]))
    def fill_socket(self, slot: int, takes: int) -> None:
        self.client(slot).outbox.takes.append(takes)

    @precondition(lambda self: len(self.published) > 10)
    @rule(slot=slots)
    def break_socket(self, slot: int) -> None:
        self.client(slot).outbox.takes.append(BrokenPipeError())

    @rule(slot=slots)
    def read_on(self, slot: int) -> None:
        self.client(slot).outbox.drain()

    # What the source says.

    def members_of(self, stream: str) -> list[Subscription]:
        return [
            client.promised[spelling][-1] if client.promised[spelling] else client.live[spelling]
            for client, spelling in self.members[stream]
        ]

    def _publish(self, stream: str) -> None:
        number = len(self.published)
        self.published[number] = stream
        for subscription in self.members_of(stream):
            subscription.due.append(number)
        self.hub.publish(stream, PAYLOADS[stream.partition("@")[0]] % number)

    @property
    def flowing(self) -> list[str]:
        return [stream for stream, known in self.known.items() if known.confirmed]

    @precondition(lambda self: self.flowing)
    @rule(picks=st.lists(any_of, min_size=1, max_size=4))
    def publish(self, picks: list[int]) -> None:
        for pick in picks:
            self._publish(self.flowing[pick % len(self.flowing)])

    @rule(pick=any_of)
    def publish_what_nobody_gets(self, pick: int) -> None:
        """The source may be late to hear that a stream is wanted no longer, and early with one that joins wait for."""
        unwatched = [stream for stream in STREAMS if not self.members[stream]]
        if unwatched:
            self._publish(unwatched[pick % len(unwatched)])

    @precondition(lambda self: len(self.flowing) < len(self.known))
    @rule(pick=any_of)
    def confirm(self, pick: int) -> None:
        waiting = [stream for stream, known in self.known.items() if not known.confirmed]
        self._confirm(waiting[pick % len(waiting)])

    def _confirm(self, stream: str) -> None:
        known = self.known[stream]
        known.confirmed, known.gap, self.down_since = True, None, None
        for wish in self.wishes.values():
            wish.missing.discard(stream)
        self.source.confirm(stream)

    def confirm_all(self) -> None:
        for stream in [stream for stream, known in self.known.items() if not known.confirmed]:
            if stream in self.known:  # the flush before an answer may have ended its last client
                self._confirm(stream)

    @precondition(lambda self: self.known)
    @rule(pick=any_of)
    def refuse(self, pick: int) -> None:
        stream, known = list(self.known.items())[pick % len(self.known)]
        if known.gap is None or known.gap[0] != "source-refused":
            self._gap(stream, ("source-refused", known.gap[1] if known.gap else self.room.now_ms))
        known.confirmed = False
        for wish in self.wishes.values():
            wish.missing.discard(stream)
        self.source.refuse(stream)

    @precondition(lambda self: self.flowing or self.wishes)
    @rule(ago=st.none() | st.integers(0, 2000))
    def lose(self, ago: int | None) -> None:
        last_good = None if ago is None else self.room.now_ms - ago
        self.down_since = self.room.now_ms if last_good is None else last_good
        for stream, known in self.known.items():
            known.confirmed = False
            self._gap(stream, known.gap or ("source-down", self.down_since))
        for wish in self.wishes.values():
            wish.missing.clear()
        self.source.lose(last_good)

    @precondition(lambda self: self.down_since is not None)
    @rule()
    def reach(self) -> None:
        self.down_since = None
        self.source.reach()

    @rule(seconds=st.sampled_from([0.05, 1, 3, 3]))
    def wait(self, seconds: float) -> None:
        self.hub.flush()  # as a source does, before any time passes
        until = self.clock.seconds() + seconds
        while due := [call.getTime() for call in self.clock.getDelayedCalls() if call.getTime() <= until]:
            self._wait_until(min(due))
        self._wait_until(until)
        if seconds > 0.1:
            for client in self.clients:
                client.read()
                late = [spelling for spelling, each in client.live.items() if rate_of(spelling) and each.due]
                assert not (client.reads and late), "later than its rate"

    def _wait_until(self, moment: float) -> None:
        for wish in self.wishes.values():
            if wish.deadline is not None and wish.deadline <= moment:
                late, wish.missing = wish.missing, set()
                for stream in late:
                    self._gap(stream, self.known[stream].gap or ("source-down", wish.since))
                for other in self.wishes.values():
                    other.missing -= late
        for stream, known in list(self.known.items()):
            if known.expires is not None and known.expires <= moment:
                del self.known[stream]
        self.clock.rightNow = moment
        self.clock.advance(0)

    # What holds.

    @rule()
    def flush(self) -> None:
        """Everybody who reads has got everything, and knows exactly which of his streams flow."""
        self.hub.flush()
        for client in self.clients:
            client.read()
            if client.reads:
                assert not any(each.due for spelling, each in client.live.items() if not rate_of(spelling))
                gaps = {spelling: subscription.gap for spelling, subscription in client.live.items()}
                model = {name: self.known[name].gap for name in self.known}
                mine = [
                    spelling for spelling in SPELLINGS if (client, spelling) in self.members[str(KINDS.parse(spelling))]
                ]
                assert gaps == {spelling: model[str(KINDS.parse(spelling))] for spelling in mine}

    @invariant()
    def as_the_model_has_it(self) -> None:
        assert not self.faults
        assert set(self.source.wanted) == set(self.known)
        assert self.hub.streams == {stream for stream in self.known if self.holders(stream)}
        deadlines = [wish.deadline for wish in self.wishes.values()]
        expires = [known.expires for known in self.known.values() if known.expires is not None]
        timers = Counter(self.room.timers)
        for deadline in deadlines:
            if deadline is not None:
                timers[deadline] -= 1
                assert timers[deadline] >= 0
        lingers = list(timers.elements())
        assert len(lingers) <= 1
        assert not expires or lingers[0] <= min(expires)
        for client in self.clients:
            client.read()
            if client.outbox.overflows:
                assert client.ended
                assert not client.outbox.late
            elif client.outbox.failures:
                client.end()

    def teardown(self) -> None:
        self.flush()
        for client in self.clients:
            client.end()
        self.wait(4)
        self.room.assert_empty()


def test_any_sequence_of_events_leaves_every_client_with_its_streams() -> None:
    """Joins, leaves, losses, refusals, slow and broken clients in any order: each gets its streams whole, in order."""
    run_state_machine_as_test(HubMachine, settings=machine_test(2, 50))
