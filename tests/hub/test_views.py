"""What clients know of the market: it is what the engine has, or they have been told of a gap.

Real outboxes over sockets that are slow, a hub with everything that it does in later turns, and an engine that keeps
its own book. The model is the engine; a client believes only what it has read.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import marketfeed.hub.join
import marketfeed.hub.portions
from marketfeed.hub.groups import Group
from marketfeed.hub.join import Join
from marketfeed.websocket.outbox import Outbox
from marketfeed.wire.deflate import inflate
from marketfeed.wire.dialects import Shape
from marketfeed.wire.frames import frame_end, text_frame
from tests.books import update
from tests.fakes import FakeSnapshots, FakeTransport
from tests.rooms import KINDS, Room
from tests.strategies import machine_test

ORDERED, UNORDERED = "depth@A", "depth@B"
"""A book whose updates have ids, and one whose updates have none."""
STREAMS = (ORDERED, UNORDERED, "ticker@A", "trade@A")
Levels = dict[str, str]


class Engine:
    """What is true: two books, and the number of the newest ticker and trade."""

    def __init__(self) -> None:
        self.books: dict[str, Levels] = {ORDERED: {}, UNORDERED: {}}
        self.numbers = dict.fromkeys(STREAMS, 0)

    def publication(self, stream: str, price: int, quantity: int, *, is_whole: bool) -> bytes:
        """The next one."""
        number = self.numbers[stream] = self.numbers[stream] + 1
        if stream in self.books:
            book = self.books[stream]
            change = [[str(price), str(quantity)]]
            book |= {str(price): str(quantity)}
            if not quantity:
                del book[str(price)]
            rows = list(book.items()) if is_whole else change
            return update(b=rows, E=number, **self._ids(stream), **({"snapshot": True} if is_whole else {}))
        if stream == "ticker@A":
            return self.state(stream)
        return b'{"e":"trade","t":%d,"m":true,"p":"1","q":"1","s":"A"}' % number

    def state(self, stream: str) -> bytes:
        """What somebody keeps beside the stream."""
        if stream == "ticker@A":
            return b'{"e":"ticker","c":"%d","s":"A"}' % self.numbers[stream]
        return update(b=list(self.books[stream].items()), **self._ids(stream))

    def _ids(self, stream: str) -> dict[str, int]:
        number = self.numbers[stream]
        return {"U": number, "u": number} if stream == ORDERED else {}

    def knows(self, stream: str, view: Any) -> bool:
        """Whether `view` is what is true."""
        return bool(view == self.books.get(stream, self.numbers[stream]))


class View:
    """What a client knows: by stream a book or a number; None where it knows that it does not know."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.offsets: dict[str, str] = {}
        self.open: set[str] = set()  # a gap of these is, and whatever comes meanwhile need not be all

    def read(self, message: Any) -> None:
        """One message."""
        if isinstance(message, list):
            _, joined, recovered, counted = message
            self.open.difference_update(joined)
            for stream in joined:
                if not recovered.get(stream):
                    self.known[stream] = counted if stream == "trade@A" else None
            return
        stream, data = message["stream"], message["data"]
        if stream == "!gap":
            self.known |= dict.fromkeys(data["streams"])
            (self.open.update if data["to"] is None else self.open.difference_update)(data["streams"])
            return
        self.offsets.pop(stream, None)  # of an earlier one: who resumes from there gets this one again
        if "offset" in message:
            self.offsets[stream] = message["offset"]
        known = self.known[stream]
        if stream == "ticker@A":
            number = int(data["c"])
            assert known is None or number > known, "nothing comes twice"
            self.known[stream] = number
        elif stream == "trade@A":
            is_next = known is None or data["t"] == known + 1
            assert is_next or stream in self.open, "something is missing, and nothing was said"
            self.known[stream] = data["t"]
        elif data.get("snapshot") or known is not None:
            levels = ({} if data.get("snapshot") else known) | dict(data["b"])
            self.known[stream] = {price: quantity for price, quantity in levels.items() if quantity != "0"}


class Viewer:
    """A client with an outbox of its own, and what it has read."""

    def __init__(self, machine: ViewMachine, *, shape: Shape, window: int, limit: int, view: View | None) -> None:
        self.machine = machine
        self.hub = machine.room.hub
        self.shape = shape
        self.transport = FakeTransport()
        self.outbox = Outbox(self.transport, limit, self)
        self.outbox.window = window
        self.view = View() if view is None else view
        self.groups: dict[str, Group] = {}
        self.waiting: Join | None = None
        self.at = 0
        self.ended = False

    def join(self, streams: list[str], *, wants_state: bool, since: dict[str, str] | None = None) -> None:
        names = {stream: KINDS.parse(stream) for stream in streams}
        join = self.hub.join(self.outbox, self.shape, names, self, since=since, wants_state=wants_state)
        self.waiting = None if join.finished else join

    def joined(
        self, groups: dict[str, Group], recovered: dict[str, bool] | None, rewound: dict[str, int] | None
    ) -> None:
        if self.ended:
            self.hub.leave(self.outbox, groups.values())
            return
        self.groups |= groups
        self._reply(["joined", list(groups), recovered or {}, self.machine.engine.numbers["trade@A"]])

    def _reply(self, reply: list[Any]) -> None:
        self.outbox.write(text_frame(msgspec.json.encode(reply)))

    def refused(self, why: str) -> None:
        """More than its queue, or somebody else's share."""

    def settled(self) -> None:
        self.waiting = None

    def overflowed(self) -> None:
        self.end()

    def backlog_changed(self, waiting: int) -> None:
        """It is slow, or no longer."""

    def drained(self) -> None:
        """Nobody here asks."""

    def notice(self) -> bytes:
        """Nobody here is told."""
        return b""

    def unsubscribe(self, streams: list[str]) -> None:
        left = [self.groups[stream] for stream in streams if stream in self.groups]
        self.read()
        self.hub.unsubscribe(self.outbox, left)
        for group in left:
            self.groups.pop(group.spelling, None)

    def reshape(self, shape: Shape) -> None:
        self.groups = self.hub.reshape(self.outbox, self.groups.values(), shape)
        self.shape = shape

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.outbox.close()
            if self.waiting is not None:
                self.hub.cancel(self.waiting)
            groups, self.groups = self.groups, {}
            self.hub.leave(self.outbox, groups.values())

    def read(self) -> None:
        """Read all that has arrived; a frame may have come in part."""
        received = bytes(self.transport.socket.received)
        while self.at < len(received) - 10:
            end = self.at + frame_end(received[self.at :], 1)
            if end > len(received):
                return
            self.view.read(msgspec.json.decode(inflate(received[self.at : end])))
            self.at = end

    def drain(self) -> None:
        self.transport.socket.room = None
        while self.transport.is_writing:
            self.transport.turn()
        self.read()


clients = st.integers(0, 3)
some = st.lists(st.sampled_from(STREAMS), min_size=1, max_size=4, unique=True)
streams = st.sampled_from((ORDERED, ORDERED, UNORDERED, UNORDERED, "ticker@A", "trade@A"))
levels = st.tuples(st.integers(1, 4), st.integers(0, 3))


class ViewMachine(RuleBasedStateMachine):
    """The engine publishes; some of it is lost on the way; clients come, read slowly, leave, and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine()
        self.snapshots = FakeSnapshots()
        self.snapshots.read = self.read_seed  # type: ignore[method-assign]
        self.room = Room(snapshots=self.snapshots, linger=1.0, history=6)
        self.source = self.room.source
        self.has_seeds = False
        self.is_down = False
        self.viewers: list[Viewer] = []
        self.away: list[tuple[Shape, View]] = []

    def read_seed(self, stream: str) -> Any:
        """What is true when it is answered. There is none of the book that has no ids: nothing could order it."""
        is_kept = self.has_seeds and stream != UNORDERED
        return self.snapshots._ask(stream, lambda: self.engine.state(stream) if is_kept else None)

    def viewer(self, pick: int) -> Viewer | None:
        self.viewers = [viewer for viewer in self.viewers if not viewer.ended]
        return self.viewers[pick % len(self.viewers)] if self.viewers else None

    # What the engine does, and what becomes of it.

    def _publish(self, stream: str, level: tuple[int, int], *, is_heard: bool, is_whole: bool = False) -> None:
        payload = self.engine.publication(stream, *level, is_whole=is_whole)
        if is_heard and stream in self.source.wanted and not self.is_down:
            self.room.hub.publish(stream, payload)

    @rule(what=st.lists(st.tuples(streams, levels), min_size=1, max_size=5), is_whole=st.integers(0, 4))
    def publish(self, what: list[tuple[str, tuple[int, int]]], is_whole: int) -> None:
        for number, (stream, level) in enumerate(what):
            is_heard = stream in self.source.confirmed
            self._publish(stream, level, is_heard=is_heard, is_whole=number == is_whole)
        self.room.hub.flush()

    @rule(level=levels)
    def publish_behind_its_state(self, level: tuple[int, int]) -> None:
        """The state beside the stream is ahead of the stream."""
        payload = self.engine.publication(ORDERED, *level, is_whole=False)
        self.snapshots.answer()
        if ORDERED in self.source.confirmed:
            self.room.source.publish(ORDERED, payload)

    @rule(level=levels, count=st.integers(1, 2))
    def jump(self, level: tuple[int, int], count: int) -> None:
        """Something is lost without a sign, but for the ids of what comes next."""
        for _ in range(count):
            self._publish(ORDERED, level, is_heard=False)
        self._publish(ORDERED, level, is_heard=ORDERED in self.source.confirmed)
        self.room.hub.flush()

    @rule(stream=streams, level=levels, is_whole=st.booleans(), is_lost=st.booleans())
    def publish_in_flight(self, stream: str, level: tuple[int, int], is_whole: bool, is_lost: bool) -> None:
        """An earlier subscription is heard yet, and the next is not confirmed: what lies between is lost."""
        if stream in self.source.wanted and stream not in self.source.confirmed and not self.is_down:
            self._publish(stream, level, is_heard=True, is_whole=is_whole)
            if is_lost:
                self._publish(stream, level, is_heard=False)
            self.room.hub.flush()

    @rule()
    def lose(self) -> None:
        self.is_down = True
        self.source.lose(self.room.now_ms)

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        waiting = [stream for stream in self.source.wanted if stream not in self.source.confirmed]
        if waiting:
            self.is_down = False
            self.source.confirm(data.draw(st.sampled_from(waiting)))

    @rule()
    def confirm_all(self) -> None:
        self.is_down = False
        self.source.reach()
        self.source.confirm()

    @rule(stream=streams)
    def refuse(self, stream: str) -> None:
        if stream in self.source.wanted and not self.is_down:
            self.source.refuse(stream)

    # States beside the streams, and time.

    @rule(has_seeds=st.booleans(), late=st.booleans())
    def keep_states(self, has_seeds: bool, late: bool) -> None:
        self.has_seeds, self.snapshots.late = has_seeds, late

    @rule(count=st.integers(1, 3))
    def answer(self, count: int) -> None:
        self.snapshots.answer(count)

    @rule()
    def turn(self) -> None:
        self.room.turn()

    @rule(seconds=st.sampled_from([0.3, 1.1, 6.0]))
    def wait(self, seconds: float) -> None:
        self.room.clock.advance(seconds)

    # What clients do.

    @rule(
        streams=some,
        shape=st.sampled_from([Shape.ENVELOPE, Shape.OFFSET, Shape.OFFSET]),
        window=st.sampled_from([0, 0, 9, 15]),
        limit=st.sampled_from([1 << 20, 1 << 20, 2000]),
        wants_state=st.sampled_from([True, True, False]),
    )
    def come(self, streams: list[str], shape: Shape, window: int, limit: int, wants_state: bool) -> None:
        if len(self.viewers) < 6:
            viewer = Viewer(self, shape=shape, window=window, limit=limit, view=None)
            self.viewers.append(viewer)
            viewer.join(streams, wants_state=wants_state)

    @rule(pick=clients, streams=some, wants_state=st.booleans())
    def join_more(self, pick: int, streams: list[str], wants_state: bool) -> None:
        viewer = self.viewer(pick)
        if viewer is not None and viewer.waiting is None:
            more = [stream for stream in streams if stream not in viewer.groups]
            if more:
                viewer.join(more, wants_state=wants_state)

    @rule(pick=clients)
    def go_away(self, pick: int) -> None:
        """Its connection is cut, wherever it is: it remembers what it has read."""
        viewer = self.viewer(pick)
        if viewer is not None:
            viewer.read()
            viewer.end()
            if viewer.shape is Shape.OFFSET and viewer.view.offsets:
                self.away.append((viewer.shape, viewer.view))

    @precondition(lambda self: self.away)
    @rule(wants_state=st.booleans(), limit=st.sampled_from([1 << 20, 2000]))
    def come_back(self, wants_state: bool, limit: int) -> None:
        """With the offset of the last that it has read of each stream."""
        shape, view = self.away.pop(0)
        viewer = Viewer(self, shape=shape, window=0, limit=limit, view=view)
        self.viewers.append(viewer)
        viewer.join(list(view.offsets), wants_state=wants_state, since=dict(view.offsets))

    @rule(pick=clients, streams=some)
    def unsubscribe(self, pick: int, streams: list[str]) -> None:
        viewer = self.viewer(pick)
        if viewer is not None:
            viewer.unsubscribe(streams)

    @rule(pick=clients)
    def reshape(self, pick: int) -> None:
        viewer = self.viewer(pick)
        if viewer is not None and viewer.waiting is None:
            viewer.reshape(Shape.ENVELOPE if viewer.shape is Shape.OFFSET else Shape.OFFSET)

    @rule(pick=clients, room=st.sampled_from([0, 0, 30, 300]))
    def stall(self, pick: int, room: int) -> None:
        viewer = self.viewer(pick)
        if viewer is not None:
            viewer.transport.socket.room = room

    @rule(pick=clients)
    def read_on(self, pick: int) -> None:
        viewer = self.viewer(pick)
        if viewer is not None:
            viewer.drain()

    @rule()
    def compare(self) -> None:
        """Once all that is late has been told, and read."""
        self.room.clock.advance(2.5)
        self.room.hub.flush()
        for viewer in self.viewers:
            if not viewer.ended:
                viewer.drain()
                self._compare(viewer)

    def _compare(self, viewer: Viewer) -> None:
        for stream in viewer.groups:
            known = viewer.view.known[stream]
            if stream not in viewer.view.open:
                assert known is None or self.engine.knows(stream, known), f"{stream}: {known}"

    def teardown(self) -> None:
        self.compare()
        self.snapshots.answer()
        for viewer in self.viewers:
            viewer.end()
        self.room.clock.advance(10)
        self.room.assert_empty()
        assert not len(self.room.hub.portions)


@pytest.mark.parametrize("slowly", [False, True])
def test_what_clients_know_is_true(slowly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`slowly`: each step of what may be done in later turns has a turn of its own."""
    if slowly:
        monkeypatch.setattr(marketfeed.hub.portions, "AT_ONCE", -1)
        monkeypatch.setattr(marketfeed.hub.portions, "_TURN", 1)
        monkeypatch.setattr(marketfeed.hub.join, "_TOGETHER", 1)
    run_state_machine_as_test(ViewMachine, settings=machine_test(2, 50))
