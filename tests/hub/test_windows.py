"""Those who want a stream less often than it comes (docs/protocol.md#rates)."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import marketfeed.hub.windows
from marketfeed.hub.groups import Group
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Shape
from tests.compiled import replaces_methods
from tests.conftest import LogCapture
from tests.fakes import FakeArchive
from tests.rooms import Client, Room, depth, member, offsets, ticker, trade
from tests.strategies import machine_test

FAST, SLOW = "depth@A@100ms", "depth@A@1000ms"


def data_of(client: Client) -> list[Any]:
    """The publications that a client has got since the last call."""
    got = [each["data"] for each in client.outbox.messages if isinstance(each, dict) and each["data"]["e"] != "gap"]
    client.outbox.writes.clear()
    return got


def ids(client: Client) -> list[tuple[int, int]]:
    return [(data["U"], data["u"]) for data in data_of(client)]


def test_the_first_at_once_and_then_one_in_so_long(room: Room) -> None:
    """It is what came since the last one, and the clock is the first message's."""
    client = member(room, FAST)
    room.clock.advance(0.03)
    room.source.publish("depth@A", depth(1))
    assert ids(client) == [(1, 1)]
    for number in range(2, 22):
        room.clock.advance(0.0101)
        room.source.publish("depth@A", depth(number))
    assert ids(client) == [(2, 10), (11, 20)]
    room.clock.advance(0.0999)
    assert ids(client) == []
    room.clock.advance(0.0002)
    assert ids(client) == [(21, 21)]
    room.end(client)


def test_who_does_not_say_so_gets_each_at_once(room: Room) -> None:
    """Of the same stream, whoever else wants what."""
    clients = [member(room, spelling) for spelling in ("depth@A", FAST, "a@depth", SLOW)]
    for number in range(1, 10):
        room.source.publish("depth@A", depth(number))
        room.clock.advance(0.021)
    assert [len(ids(client)) for client in clients] == [9, 2, 9, 1]
    room.clock.advance(1)
    assert [ids(client) for client in clients] == [[], [(6, 9)], [], [(2, 9)]]
    room.end(*clients)


def test_of_a_ticker_the_newest(room: Room) -> None:
    """Nothing is merged."""
    client = member(room, "ticker@A@1000ms")
    for number in range(5):
        room.source.publish("ticker@A", ticker(number))
    assert [data["t"] for data in data_of(client)] == [0]
    room.clock.advance(1)
    assert [data["t"] for data in data_of(client)] == [4]
    room.end(client)


def test_a_stream_that_is_quiet_waits_for_nothing(room: Room) -> None:
    """After a period without anything the next one goes at once, and no timer runs in between."""
    client = member(room, FAST)
    for number in range(1, 4):
        room.source.publish("depth@A", depth(number))
        assert ids(client) == [(number, number)]
        room.clock.advance(0.1)
        assert not any(rhythm._timer for rhythm in room.hub._windows._rhythms.values())
    room.end(client)


def test_never_two_within_a_period_of_a_stream_that_comes_just_behind_one(room: Room) -> None:
    """The window stays open for a whole period behind each of them."""
    client = member(room, FAST)
    times: list[float] = []
    for number in range(1, 60):
        room.source.publish("depth@A", depth(number))
        if ids(client):
            times.append(room.clock.seconds())
        for _ in range(number % 7):
            room.clock.advance(0.02)
            if ids(client):
                times.append(room.clock.seconds())
    assert len(times) > 20
    assert min(later - earlier for earlier, later in pairwise(times)) > 0.0999
    room.end(client)


def test_all_streams_of_a_rate_come_together(room: Room) -> None:
    """One timer for all of them: in one write to who watches several, and none is late."""
    kinds = [f"depth@M{number}" for number in range(5)]
    client = member(room, *(f"{name}@100ms" for name in kinds))
    for number, name in enumerate(kinds):
        room.source.publish(name, depth(1))
        room.source.publish(name, depth(2))
        room.clock.advance(0.005 * number)
    assert len(client.outbox.writes) == 5
    room.clock.advance(0.06)
    assert len(client.outbox.writes) == 5 + 1
    assert len(client.take()) == 5 + 5
    client.take()
    room.end(client)


def test_of_very_many_streams_some_come_in_each_turn(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between which everybody else is served."""
    monkeypatch.setattr(marketfeed.hub.windows, "_PORTION", 2)
    names = [f"depth@M{number}" for number in range(5)]
    client = member(room, *(f"{name}@100ms" for name in names))
    for name in names:
        room.source.publish(name, depth(1))
        room.source.publish(name, depth(2))
    client.take()
    room.clock.rightNow += 0.1
    found = []
    for _ in range(4):
        room.turn()
        found.append(len(client.take()))
    assert found == [2, 2, 1, 0]
    room.source.publish(names[0], depth(3))
    room.clock.rightNow += 0.1
    room.turn()
    client.outbox.writes.clear()
    room.hub.stopService()
    assert not room.timers
    client.end()


def test_where_much_has_come_fewer_come_in_each_turn(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is read as it is released, be it in the windows or for the book of which something is made."""
    monkeypatch.setattr(marketfeed.hub.windows, "_READ_US", 30)
    depths, books = [f"depth@M{number}@100ms" for number in range(4)], [f"depth5@N{number}" for number in range(4)]
    client = member(room, *depths, *books)
    for number in range(4):
        for market in "MN":
            room.source.publish(f"depth@{market}{number}", depth(1, is_snapshot=True))
    client.outbox.writes.clear()
    for last in range(2, 8):
        for number in range(4):
            for market in "MN":
                room.source.publish(f"depth@{market}{number}", depth(last))
    room.clock.rightNow += 0.1
    found = []
    for _ in range(9):
        room.turn()
        found.append(len(client.outbox.messages))
        client.outbox.writes.clear()
    assert found == [2, 2, 2, 2, 0, 0, 0, 0, 0]
    room.end(client)


def test_before_a_gap_comes_what_was_before_it(room: Room) -> None:
    """Whatever its reason: the window is not waited for, and what comes behind the gap is not merged with it."""
    client = member(room, FAST)
    room.source.publish("depth@A", depth(1))
    room.source.publish("depth@A", depth(2))
    room.source.publish("depth@A", depth(9))
    began = room.now_ms
    assert client.take() == [(FAST, 1), (FAST, 2), ("gap", [FAST], "sequence", began, began)]
    room.source.publish("depth@A", depth(10))
    room.clock.advance(0.1)
    assert client.take() == [(FAST, 10)]
    room.source.publish("depth@A", depth(11))
    room.source.lose()
    assert client.take() == [(FAST, 11), ("gap", [FAST], "source-down", room.now_ms, None)]
    down = room.now_ms
    room.clock.advance(0.05)
    room.source.confirm()
    room.source.publish("depth@A", depth(12))
    room.clock.advance(0.1)
    assert client.take() == [("gap", [FAST], "source-down", down, room.now_ms - 100), (FAST, 12)]
    room.source.publish("depth@A", depth(13))
    room.source.publish("depth@A", depth(14))
    client.take()
    room.source.refuse("depth@A")
    assert client.take()[-1] == ("gap", [FAST], "source-refused", room.now_ms, None)
    room.end(client)


def test_before_a_silent_engine_comes_what_it_said() -> None:
    """Its silence may be told sooner than the period is over."""
    kinds = [msgspec.structs.replace(kind, silence=1.0) if kind.name == "depth" else kind for kind in BUILT_IN]
    room = Room(kinds=StreamKinds(kinds))
    client = member(room, SLOW)
    room.clock.advance(0.25)
    began = room.now_ms
    room.source.publish("depth@A", depth(1))
    room.source.publish("depth@A", depth(2))
    room.hub._upstream.silence.look()
    room.clock.rightNow += 1
    room.hub._upstream.silence.look()
    assert client.take() == [(SLOW, 1), (SLOW, 2), ("gap", [SLOW], "engine-silent", began, None)]
    room.source.publish("depth@A", depth(3))
    assert client.take() == [("gap", [SLOW], "engine-silent", began, room.now_ms)]
    room.clock.advance(0.001)
    assert client.take() == [(SLOW, 3)], "the period was over"
    room.end(client)


def test_at_the_end_comes_what_there_is(room: Room) -> None:
    """Before the clients are told to come back: nothing is lost by a restart."""
    clients = member(room, FAST), member(room, "ticker@A@1000ms")
    for number in (1, 2):
        room.source.publish("depth@A", depth(number))
        room.source.publish("ticker@A", ticker(number))
    room.hub.stopService()
    assert [client.take() for client in clients] == [
        [(FAST, 1), (FAST, 2)], [("ticker@A@1000ms", 1), ("ticker@A@1000ms", 2)],
    ]  # fmt: skip
    assert not room.timers
    for client in clients:
        client.end()


def test_after_unsubscribe_nothing_comes(room: Room) -> None:
    """What waits goes with it; for others it goes on."""
    leaves, stays = member(room, FAST, "trade@A"), member(room, FAST, SLOW)
    room.source.publish("depth@A", depth(1))
    room.source.publish("depth@A", depth(2))
    leaves.take()
    stays.take()
    leaves.unsubscribe(FAST)
    stays.unsubscribe(SLOW)
    room.clock.advance(2)
    assert leaves.take() == [["left", FAST]]
    assert stays.take() == [["left", SLOW], (FAST, 2)]
    stays.unsubscribe(FAST)
    assert not room.hub._registry._streams["depth@A"].taps
    stays.join(FAST)
    room.source.publish("depth@A", depth(3))
    assert stays.take() == [["left", FAST], ["joined", FAST], (FAST, 3)]
    room.end(leaves, stays)


def test_who_comes_in_between_has_the_state_and_may_get_levels_twice(room: Room) -> None:
    """What waits for the others is merged already. Nothing is missing behind the state."""
    other = member(room, FAST)
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    room.source.publish("depth@A", depth(2))
    room.source.publish("depth@A", depth(3))
    client = Client(room).join(FAST, wants_state=True)
    room.source.publish("depth@A", depth(4))
    room.clock.advance(0.1)
    assert ids(other) == [(1, 1), (2, 4)]
    assert client.outbox.messages[0] == ["joined", FAST]
    del client.outbox.writes[0]
    assert [(data["U"], data["u"]) for data in data_of(client)] == [(3, 3), (2, 4)]
    room.end(other, client)


def test_who_comes_back_gets_all_in_one(room: Room) -> None:
    """With the offset of the last publication in it, from which it goes on."""
    client = member(room, SLOW, shape=Shape.OFFSET)
    for number in range(1, 5):
        room.source.publish("depth@A", depth(number))
    room.clock.advance(1)
    first, second = offsets(client)
    plain = member(room, "depth@A", shape=Shape.OFFSET)
    for number in range(5, 9):
        room.source.publish("depth@A", depth(number))
    numbers = offsets(plain)
    client.end()
    for since, expected in ((first, (2, 8)), (second, (5, 8)), (numbers[1], (7, 8)), (numbers[2], (8, 8))):
        again = Client(room, shape=Shape.OFFSET).join(FAST, since={FAST: since})
        assert again.recovered == {FAST: True}
        del again.outbox.writes[0]
        (message,) = again.outbox.messages
        assert (message["data"]["U"], message["data"]["u"]) == expected
        assert message["offset"] == numbers[-1]
        again.end()
    again = Client(room, shape=Shape.OFFSET).join(FAST, since={FAST: numbers[-1]})
    assert (again.recovered, again.take()) == ({FAST: True}, [["joined", FAST]])
    room.end(plain, again)


def test_who_comes_back_gets_a_message_for_each_run(room: Room) -> None:
    """Where the ids jump nothing is merged, as nothing is for who was there."""
    client = member(room, "depth@A", shape=Shape.OFFSET)
    for number in (1, 2, 3, 7, 8):
        room.source.publish("depth@A", depth(number))
    since = client.outbox.messages[0]["offset"]
    again = Client(room).join(FAST, since={FAST: since})
    del again.outbox.writes[0]
    assert ids(again) == [(2, 3), (7, 8)]
    tick = Client(room)
    room.end(client, again, tick)


def test_who_comes_back_to_a_ticker_gets_the_newest() -> None:
    """Also out of an archive, in portions."""
    archive = FakeArchive(most=2)
    room = Room(archive)
    for number in range(1, 8):
        archive.add("ticker@A", f"{number}-0", ticker(number))
        archive.add("depth@A", f"{number}-0", depth(number))
    names = ["ticker@A@100ms", FAST]
    client = Client(room, shape=Shape.OFFSET).join(*names, since=dict.fromkeys(names, "2-0"))
    room.source.confirm(after="7-0")
    assert client.recovered == dict.fromkeys(names, True)
    assert client.outbox.messages[0] == ["joined", *names]
    del client.outbox.writes[0]
    one, other = client.outbox.messages
    assert (one["data"]["t"], one["offset"]) == (7, "7-0")
    assert (other["data"]["U"], other["data"]["u"], other["offset"]) == (3, 7, "7-0")
    client.outbox.writes.clear()
    room.end(client)


def test_another_shape_at_the_same_rate(room: Room) -> None:
    """Nothing of what waits is lost by it, or comes earlier."""
    client = member(room, FAST)
    room.source.publish("depth@A", depth(1))
    room.source.publish("depth@A", depth(2))
    client.reshape(Shape.DATA)
    room.source.publish("depth@A", depth(3))
    assert client.take() == [(FAST, 1)]
    room.clock.advance(0.1)
    assert [json.loads(text)["u"] for text in client.outbox.texts] == [3]
    client.outbox.writes.clear()
    room.end(client)


def test_a_name_without_a_rate_may_have_one_all_the_same(room: Room) -> None:
    """Whoever says which rate a name has: who spells it alike need not have the same."""
    plain, slow = member(room, "depth@A"), Client(room)
    name = msgspec.structs.replace(room.kinds.parse("depth@A"), rate=100)
    room.hub.join(slow.outbox, slow.shape, {"depth@A": name}, slow)
    for number in (1, 2, 3):
        room.source.publish("depth@A", depth(number))
    room.clock.advance(0.1)
    assert (plain.take(), slow.take()) == (
        [("depth@A", 1), ("depth@A", 2), ("depth@A", 3)],
        [["joined", "depth@A"], ("depth@A", 1), ("depth@A", 3)],
    )
    room.end(plain, slow)


def test_history_is_of_the_stream(room: Room) -> None:
    """Everything that was published, whatever rate stands behind the name."""
    client = member(room, SLOW)
    for number in range(1, 5):
        room.source.publish("depth@A", depth(number))
    entries: list[Any] = []
    room.hub.history(room.kinds.parse(SLOW), 100, 10000).addCallback(entries.extend)
    assert len(entries) == 4
    room.end(client)


def test_a_state_that_is_found_comes_at_once(room: Room) -> None:
    """Behind what waits, so that nothing from before it comes behind it."""
    client = Client(room).join(FAST, wants_state=True)
    room.source.confirm()
    room.source.publish("depth@A", depth(1))
    room.source.publish("depth@A", depth(2))
    client.take()
    stream = room.hub._registry._streams["depth@A"]
    room.hub.push(stream, depth(2, is_snapshot=True))
    room.hub.flush()
    assert [data.get("snapshot") for data in data_of(client)] == [None, True]
    room.end(client)


@replaces_methods
def test_what_fails_is_a_gap_of_its_stream(room: Room, logged: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all other windows, and the next tick, are as before."""
    client = member(room, FAST, "depth@B@100ms")
    for name in ("depth@A", "depth@B"):
        room.source.publish(name, depth(1))
        room.source.publish(name, depth(2))
    client.take()
    framed = Group.framed
    monkeypatch.setattr(
        Group, "framed", lambda group, *rest: 1 // 0 if group.stream.name == "depth@A" else framed(group, *rest)
    )
    room.clock.advance(0.1)
    monkeypatch.undo()
    assert len(logged.flush_failures(ZeroDivisionError)) == 1
    got = client.take()
    assert ("depth@B@100ms", 2) in got
    assert [each[:3] for each in got if each[0] == "gap"] == [("gap", [FAST], "sequence")]
    room.source.publish("depth@A", depth(3))
    room.clock.advance(0.1)
    assert client.take() == [(FAST, 3)]
    room.end(client)


# Any interleaving.

RATES = ("", "@100ms", "@1000ms")


class Watcher:
    """A client that keeps a book as docs/protocol.md says, and knows whether it has one."""

    def __init__(self, machine: BookMachine, rate: str, since: str | None, book: dict[str, str] | None) -> None:
        self.spelling = "depth@A" + rate
        self.client = Client(machine.room, shape=Shape.OFFSET)
        self.offset = since
        self.book = book
        asked = {} if since is None else {self.spelling: since}
        self.client.join(self.spelling, since=asked, wants_state=True)

    def read(self) -> None:
        messages = self.client.outbox.messages
        self.client.outbox.writes.clear()
        for message in messages:
            match message:
                case ["joined", *_]:
                    recovered = self.client.recovered
                    if not (recovered and recovered[self.spelling]):
                        self.book = None
                case {"stream": "!gap"}:
                    self.book = None
                case {"data": data, "offset": offset}:
                    self.offset = offset
                    self._apply(data)
                case _:
                    raise AssertionError(f"nobody sends {message}")

    def _apply(self, data: dict[str, Any]) -> None:
        if data.get("snapshot"):
            self.book = {}
        if self.book is None:
            return
        for side in "ab":
            for price, quantity in data[side]:
                if float(quantity):
                    self.book[side + price] = quantity
                else:
                    self.book.pop(side + price, None)


class Onlooker:
    """A client of what is made of the book, who knows what it was told last, and whether that is so."""

    def __init__(self, room: Room, spelling: str) -> None:
        self.levels = 1 if spelling.startswith("bookTicker") else 2**30
        self.seen: tuple[Any, Any] | None = None
        self.gaps: set[tuple[str, int]] = set()
        self.client = Client(room).join(spelling)

    def read(self) -> None:
        messages = self.client.outbox.messages
        self.client.outbox.writes.clear()
        for message in messages:
            match message:
                case ["joined", *_]:
                    pass
                case {"stream": "!gap", "data": {"reason": reason, "from": since, "to": to}}:
                    if to is None:
                        self.gaps.add((reason, since))
                    elif reason != "sequence":
                        self.gaps = {gap for gap in self.gaps if gap[1] != since}
                case {"data": data}:
                    assert not self.gaps, "a publication inside a gap"
                    self.seen = (
                        ([[data["b"], data["B"]]], [[data["a"], data["A"]]])
                        if self.levels == 1
                        else (data["bids"], data["asks"])
                    )
                case _:
                    raise AssertionError(f"nobody sends {message}")

    def check(self, book: dict[str, str] | None) -> None:
        """What it has is of this book; None: that is not known, and so it is said."""
        if book is None:
            assert self.seen is None or self.gaps
            return
        sides = [
            [[price, book[side + price]] for price in sorted((key[1:] for key in book if key[0] == side), reverse=down)]
            for side, down in (("b", True), ("a", False))
        ]
        if self.levels == 1:
            sides = [side[:1] or [["0.00000000", "0.00000000"]] for side in sides]
        assert not self.gaps
        assert self.seen == tuple(sides)


changes = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("12345"), st.sampled_from("0012345")), min_size=1, max_size=3
)


class BookMachine(RuleBasedStateMachine):
    """An engine with a book, whose updates may be lost on the way, and clients of each rate who come, go and return."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(linger=10000.0)
        self.keeper = member(self.room, "depth@A")
        self.book: dict[str, str] = {}
        self.number = 0
        self.watchers: list[Watcher] = []
        self.gone: list[Watcher] = []
        self.flows = True
        names = ("bookTicker@A", "depth5@A", "depth20@A@1000ms")
        self.onlookers = [Onlooker(self.room, name) for name in names]

    def _publish(self, payload: dict[str, Any], *, is_lost: bool) -> None:
        if self.flows and not is_lost:
            self.room.hub.publish("depth@A", json.dumps(payload).encode())

    def _flush(self) -> None:
        self.room.hub.flush()
        for watcher in self.watchers:
            watcher.read()
        for onlooker in self.onlookers:
            onlooker.read()
        self.keeper.outbox.writes.clear()

    @rule(levels=changes, is_lost=st.integers(0, 9), flushes=st.booleans())
    def update(self, levels: list[tuple[str, str, str]], is_lost: int, flushes: bool) -> None:
        self.number += 1
        for side, price, quantity in levels:
            self.book[side + price] = quantity
        self.book = {key: quantity for key, quantity in self.book.items() if quantity != "0"}
        sides = {side: [[price, quantity] for each, price, quantity in levels if each == side] for side in "ab"}
        self._publish({"e": "depth", "U": self.number, "u": self.number, **sides}, is_lost=is_lost == 0)
        if flushes:
            self._flush()

    @rule()
    def snapshot(self) -> None:
        sides = {side: [[key[1:], quantity] for key, quantity in self.book.items() if key[0] == side] for side in "ab"}
        self._publish({"e": "depth", "U": self.number, "u": self.number, **sides, "snapshot": True}, is_lost=False)

    @rule()
    def flush(self) -> None:
        self._flush()

    @rule(seconds=st.sampled_from((0.01, 0.05, 0.1, 0.4, 1.0)))
    def wait(self, seconds: float) -> None:
        until = self.room.clock.seconds() + seconds
        while self.room.clock.seconds() < until - 1e-9:
            self.room.clock.advance(0.01)
            for watcher in self.watchers:
                watcher.read()

    @precondition(lambda self: self.flows)
    @rule()
    def lose(self) -> None:
        self.flows = False
        self.room.source.lose()
        self._flush()

    @precondition(lambda self: not self.flows)
    @rule()
    def confirm(self) -> None:
        self.flows = True
        self.room.source.confirm()
        self._flush()

    @precondition(lambda self: len(self.watchers) < 4)
    @rule(rate=st.sampled_from(RATES))
    def come(self, rate: str) -> None:
        self.watchers.append(Watcher(self, rate, None, None))

    @rule(name=st.sampled_from(("bookTicker@A", "depth10@A")))
    def look(self, name: str) -> None:
        """Somebody else comes to see what is made of the book."""
        self.onlookers.pop().client.end()
        self.onlookers.insert(0, Onlooker(self.room, name))

    @precondition(lambda self: self.watchers)
    @rule(pick=st.integers(0, 3))
    def leave(self, pick: int) -> None:
        watcher = self.watchers.pop(pick % len(self.watchers))
        watcher.read()
        watcher.client.end()
        self.gone.append(watcher)

    @precondition(lambda self: self.gone and len(self.watchers) < 4)
    @rule(pick=st.integers(0, 9), rate=st.sampled_from(RATES))
    def come_back(self, pick: int, rate: str) -> None:
        before = self.gone.pop(pick % len(self.gone))
        self.watchers.append(Watcher(self, rate, before.offset, before.book))

    @rule()
    def compare(self) -> None:
        """All that was published has come a second later, and who has a book has the engine's, as far as it knows."""
        self._flush()
        self.wait(1.05)
        state = self.room.hub._registry._streams["depth@A"].state
        assert state is not None
        for watcher in self.watchers:
            if self.flows and watcher.book is not None and state.is_complete:
                assert watcher.book == self._known()
        for onlooker in self.onlookers:
            onlooker.read()
            if self.flows:
                onlooker.check(self._known() if state.is_complete else None)

    def _known(self) -> dict[str, str]:
        """The book as far as the daemon has heard of it: what is lost behind the last update nobody knows yet."""
        state = self.room.hub._registry._streams["depth@A"].state
        assert state is not None
        whole = json.loads(state.snapshot() or b"")
        known = {side + price: quantity for side in "ab" for price, quantity in whole[side]}
        if whole["u"] == self.number:
            assert known == self.book
        return known

    def teardown(self) -> None:
        self.compare()
        for watcher in self.watchers:
            watcher.client.end()
        for onlooker in self.onlookers:
            onlooker.client.end()
        self.keeper.end()


def test_whatever_happens_the_book_is_the_engines() -> None:
    """Updates, snapshots, losses, ticks, joins and resumes in any order, at every rate: a book is right."""
    run_state_machine_as_test(BookMachine, settings=machine_test(2, 50))


def test_declared_kinds_have_rates_as_well() -> None:
    """By their loss policy; a kind that keeps everything has none."""
    room = Room(
        kinds=StreamKinds((*BUILT_IN, StreamKind("news", LossPolicy.LATEST), StreamKind("b", LossPolicy.MERGE)))
    )
    client = member(room, "news@A@100ms", "b@A@100ms")
    for number in (1, 2, 3):
        room.source.publish("news@A", b'{"e":"n","t":%d}' % number)
        room.source.publish("b@A", b'{"e":"n","t":%d}' % number)
    room.clock.advance(0.1)
    assert [each for each in client.take() if each[0] == "news@A@100ms"] == [("news@A@100ms", 1), ("news@A@100ms", 3)]
    room.end(client)


def test_other_streams_do_not_notice(room: Room) -> None:
    """Trades are all there, in order."""
    client = member(room, "trade@A", FAST)
    for number in range(1, 4):
        room.source.publish("trade@A", trade(number))
        room.source.publish("depth@A", depth(number))
    room.clock.advance(0.1)
    assert client.take() == [("trade@A", 1), (FAST, 1), ("trade@A", 2), ("trade@A", 3), (FAST, 3)]
    room.end(client)
