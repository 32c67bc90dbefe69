"""What comes before the live streams: books that are written in turns of their own, and are right as they are sent."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.model.book_state import BookState
from marketfeed.wire.dialects import Shape
from tests.books import replay, update
from tests.conftest import LogCapture
from tests.fakes import FakeArchive
from tests.rooms import Client, Room, member, trade
from tests.strategies import property_test

STATE = {"wants_state": True}


def snapshot(last: int, levels: int = 1) -> bytes:
    return update([[f"{5000 + level}", "2"] for level in range(levels)], [["1", "7"]], U=last, u=last, snapshot=True)


def room_with(*books: str, levels: int = 2000, **limits: Any) -> tuple[Room, Client]:
    """A room in which somebody watches these books."""
    room = Room(max_payload=1 << 20, **limits)
    keeper = Client(room, queue=1 << 30).join(*books)
    room.source.confirm()
    for name in books:
        room.source.publish(name, snapshot(1, levels))
    keeper.outbox.writes.clear()
    return room, keeper


def turns(room: Room) -> int:
    """Let everything happen that does not wait for time to pass; how many turns it took."""
    count = 0
    while any(time <= room.clock.seconds() for time in room.timers):
        room.turn()
        count += 1
    return count


def data_of(messages: list[Any]) -> list[Any]:
    return [message["data"] for message in messages if isinstance(message, dict)]


def test_books_that_take_long_are_written_in_turns_of_their_own() -> None:
    """And what is published meanwhile follows the book that it changes."""
    names = [f"depth@M{number}" for number in range(4)]
    room, keeper = room_with(*names)
    client = Client(room).join(*names, **STATE)
    assert client.waiting is not None
    room.turn()
    room.turn()
    for number in (2, 3):
        room.source.publish("depth@M0", update(b=[["1", str(number)]], U=number, u=number))
    assert client.outbox.messages == []
    assert turns(room) >= 3
    assert client.settlings == 1
    reply, *messages = client.outbox.messages
    assert reply == ["joined", *names]
    assert [(message["stream"], message["data"]["u"]) for message in messages] == [
        ("depth@M0", 1),
        ("depth@M0", 2),
        ("depth@M0", 3),
        *[(name, 1) for name in names[1:]],
    ]
    assert all(message["data"].get("snapshot", False) == (message["data"]["u"] == 1) for message in messages)
    room.end(client, keeper)


def test_small_books_are_answered_at_once() -> None:
    """There is nothing to put off."""
    room, keeper = room_with("depth@A", levels=50)
    client = Client(room).join("depth@A", **STATE)
    assert client.waiting is None
    assert len(client.outbox.messages) == 2
    room.end(client, keeper)


def test_no_more_is_written_than_there_is_room_for() -> None:
    """Of twenty books the first two are more than may wait: the others are nobody's business."""
    names = [f"depth@M{number}" for number in range(20)]
    room, keeper = room_with(*names, levels=500)
    written: list[BookState] = []
    write = BookState.snapshot
    with patch.object(BookState, "snapshot", lambda state: (written.append(state), write(state))[1]):
        client = Client(room, queue=12_000).join(*names, **STATE)
        turns(room)
    assert "larger than --client-queue" in client.refusal
    assert client.outbox.messages == []
    assert 1 <= len(written) <= 2
    assert client.settlings == 1
    room.end(client, keeper)


@pytest.mark.parametrize("count", range(8))
def test_who_goes_while_books_are_written_leaves_nothing(count: int) -> None:
    """In whichever turn."""
    names = [f"depth@M{number}" for number in range(4)]
    room, keeper = room_with(*names)
    client = Client(room).join(*names, **STATE)
    for _ in range(count):
        room.turn()
    client.end()
    assert not len(room.hub.portions)
    turns(room)
    assert client.answers == client.outbox.writes.count(b"") == 0 or count > 4
    room.end(keeper)


def test_a_fault_in_writing_is_that_clients_end(logged: LogCapture) -> None:
    """It is logged, and the others get their books."""
    room, keeper = room_with("depth@A", "depth@B")
    client, other = Client(room).join("depth@A", **STATE), Client(room).join("depth@B", **STATE)
    write = BookState.snapshot
    bad = room.hub._registry.find("depth@A")
    assert bad is not None
    with patch.object(BookState, "snapshot", lambda state: 1 // (state is not bad.state) and write(state)):
        turns(room)
    assert len(logged.flush_failures(ZeroDivisionError)) == 1
    assert client.outbox.failures == 1
    assert len(other.outbox.messages) == 2
    room.end(client, other, keeper)


def test_what_is_recovered_may_fall_behind_while_books_are_written() -> None:
    """It is taken up again, and the books are not written twice."""
    archive = FakeArchive()
    room = Room(archive, history=2, max_payload=1 << 20)
    keeper = Client(room, queue=1 << 30).join("trade@A", "depth@A")
    room.source.confirm(after="0-0")

    def publish(*numbers: int) -> None:
        for number in numbers:
            archive.add("trade@A", f"{number}-0", trade(number))
            room.source.publish("trade@A", trade(number), offsets=[f"{number}-0"])

    publish(1, 2, 3)
    room.source.publish("depth@A", snapshot(1, 2000), offsets=["1-0"])
    written: list[BookState] = []
    write = BookState.snapshot
    with patch.object(BookState, "snapshot", lambda state: (written.append(state), write(state))[1]):
        client = Client(room).join("trade@A", "depth@A", since={"trade@A": "0-0"}, **STATE)
        room.turn()
        publish(4, 5, 6, 7, 8)
        turns(room)
    assert client.recovered == {"trade@A": True}
    messages = data_of(client.outbox.messages)
    assert [message["t"] for message in messages if message["e"] == "trade"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [message["u"] for message in messages if message["e"] == "depth"] == [1]
    assert len(written) == 1
    room.end(client, keeper)


@pytest.mark.parametrize("at_once", [-1, 1 << 30])
def test_whoever_is_let_in_has_room_for_all_of_it(at_once: int) -> None:
    """However much may wait for a client that takes nothing, and whether its books are written at once or in turns."""
    names = [f"depth@M{number}" for number in range(30)]
    room, keeper = room_with(*names, levels=1)
    refused = []
    for queue in range(1000, 8000, 100):
        client = Client(room, queue=queue)
        client.outbox.takes.append(0)
        with patch("marketfeed.hub.portions.AT_ONCE", at_once):
            client.join(*names, **STATE)
            turns(room)
        assert client.outbox.overflows == 0
        refused.append(bool(client.refusal))
        client.end()
    assert refused == sorted(refused, reverse=True)
    assert set(refused) == {True, False}
    room.end(keeper)


def test_where_there_is_no_state_no_room_is_needed() -> None:
    """A client for whom nothing may wait is let in: there is nothing to refuse."""
    room = Room()
    client = Client(room, queue=1).join("depth@A", "trade@A", **STATE)
    room.source.confirm()
    assert client.take() == [["joined", "depth@A", "trade@A"]]
    room.end(client)


EVENTS = st.sampled_from(
    ("next", "next", "next", "jump", "snapshot", "unordered", "bad", "loss", "confirm", "turn", "turn", "turn")
)


@property_test
@given(st.sampled_from((1000, 2, 0)), st.lists(EVENTS, max_size=8), st.lists(EVENTS, max_size=12))
@example(1000, [], ["turn", "turn", "next", "jump", "snapshot", "turn"])
@example(1000, [], ["turn", "turn", "turn", "loss"])
def test_a_book_is_the_one_of_the_moment_of_the_reply(history: int, before: list[str], meanwhile: list[str]) -> None:
    """Whatever happens while it is written, a step in each turn; or none, where there is none at that moment. What is
    published then comes once, and in order."""
    room = Room(history=history, strict=False)
    machine = _Engine(room)
    for event in before:
        machine.happen(event)
    with patch("marketfeed.hub.portions.AT_ONCE", -1), patch("marketfeed.hub.portions._TURN", 1):
        machine.join()
        for event in [*meanwhile, *["turn"] * 20]:
            machine.happen(event)
    for event in ("confirm", "next", "jump", "snapshot", "next"):
        machine.happen(event)
    machine.check()
    room.end(machine.client, machine.keeper)


class _Engine:
    """One book, somebody who watches it, and a client who joins."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.keeper = member(room, "depth@A", "depth@B", queue=1 << 30)
        self.client = _Joining(room)
        self.last = 1
        for name in ("depth@A", "depth@B"):
            room.source.publish(name, snapshot(1, 3))

    def join(self) -> None:
        self.client.join("depth@A", "depth@B", **STATE)

    def happen(self, event: str) -> None:
        if event == "turn":
            self.room.turn()
        elif event == "loss":
            self.room.source.lose()
        elif event == "confirm":
            self.room.source.confirm()
        elif "depth@A" in self.room.source.confirmed:
            self.last += 3 if event == "jump" else 1
            level, ids = [["1", str(self.last)]], {"U": self.last, "u": self.last}
            data = {
                "unordered": update(b=level),
                "bad": b'{"e":"depth","a":[["x","1"]],"b":[]}',
                "snapshot": snapshot(self.last, 2),
            }.get(event) or update([[str(self.last), "1"]], level, **ids)
            self.client.published(data)
            self.room.hub.publish("depth@A", data)

    def check(self) -> None:
        self.room.hub.flush()
        client = self.client
        reply, *messages = [message for message in client.outbox.messages if "gap" not in str(message)]
        assert reply == ["joined", "depth@A", "depth@B"]
        mine = [json.dumps(message["data"]).encode() for message in messages if message["stream"] == "depth@A"]
        later = [json.dumps(json.loads(data)).encode() for data in client.later]
        assert mine[len(mine) - len(later) :] == later
        prelude = mine[: len(mine) - len(later)]
        assert bool(prelude) == (client.book is not None)
        if client.book is not None:
            assert json.loads(prelude[0])["snapshot"] is True
            assert replay(prelude) == replay([client.book])
            ids = [(data["U"], data["u"]) for data in map(json.loads, prelude) if "u" in data]
            assert all(first == last + 1 for (_, last), (first, _) in pairwise(ids))
        assert any(message["stream"] == "depth@B" for message in messages) == (client.other is not None)


class _Joining(Client):
    """Remembers what the books are at the moment of its reply, and what is published from then on."""

    def __init__(self, room: Room) -> None:
        super().__init__(room, shape=Shape.OFFSET, queue=1 << 30)
        self.room = room
        self.later: list[bytes] = []
        self.book: bytes | None = None
        self.other: bytes | None = None

    def joined(self, groups: Any, recovered: Any, rewound: Any) -> None:
        self.book, self.other = [
            None if stream is None or stream.state is None else stream.state.snapshot()
            for stream in map(self.room.hub._registry.find, ("depth@A", "depth@B"))
        ]
        super().joined(groups, recovered, rewound)

    def published(self, data: bytes) -> None:
        if self.answers:
            self.later.append(data)
