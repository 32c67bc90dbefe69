"""What is made here of the books of others (docs/market-data.md#the-best-of-the-book)."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import settings

from marketfeed.boundaries import TooManyStreams
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Shape
from tests.compiled import replaces_methods
from tests.conftest import LogCapture
from tests.fakes import FakeArchive, FakeSnapshots
from tests.rooms import LINGER, Client, Room

Levels = list[tuple[str, str]]


def book(bids: Levels, asks: Levels, ids: tuple[int, int] | None = None, **fields: Any) -> bytes:
    numbers = {} if ids is None else {"U": ids[0], "u": ids[1]}
    return json.dumps({"e": "depth", "a": asks, "b": bids, **numbers, **fields}).encode()


def whole(bids: Levels | None = None, asks: Levels | None = None, last: int = 1) -> bytes:
    sides = bids or [("10", "1"), ("9", "2")], asks or [("11", "3")]
    return book(*sides, (last, last), snapshot=True, E=1000 + last)


def got(client: Client) -> list[Any]:
    """What a client has got since the last call: data of publications, and gaps in short."""
    messages = client.outbox.messages
    client.outbox.writes.clear()
    found = []
    for message in messages:
        if isinstance(message, list):
            found.append(message[0])
        elif message["data"]["e"] == "gap":
            data = message["data"]
            found.append(("gap", data["reason"], data["from"], data["to"]))
        else:
            found.append(message["data"])
    return found


def best(client: Client) -> list[tuple[str, str, str, str]]:
    return [(data["b"], data["B"], data["a"], data["A"]) for data in got(client)]


@pytest.fixture
def watcher(room: Room) -> Client:
    client = Client(room).join("bookTicker@A")
    room.source.confirm()
    assert got(client) == ["joined"]
    return client


def test_the_best_prices(room: Room, watcher: Client) -> None:
    """As soon as the book is known, and whenever one of them changes, or its quantity."""
    assert list(room.source.wanted) == ["depth@A"]
    room.source.publish("depth@A", book([("10", "1")], [], (1, 1)))
    assert got(watcher) == [], "of a book that is not known nothing is said"
    room.source.publish("depth@A", whole(last=2))
    assert got(watcher) == [{"e": "bookTicker", "u": 2, "s": "A", "b": "10", "B": "1", "a": "11", "A": "3", "E": 1002}]
    for bids, asks in (([("9", "5")], []), ([("8", "5")], [("12", "1")]), ([("10", "1")], [("11", "3")])):
        last = room.hub._registry._streams["depth@A"].state.last + 1  # type: ignore[union-attr,operator]
        room.source.publish("depth@A", book(bids, asks, (last, last)))
        assert got(watcher) == [], "the best are the same"
    room.source.publish("depth@A", book([("10", "4")], [], (6, 6)))
    room.source.publish("depth@A", book([], [("10.5", "4")], (7, 7)))
    room.source.publish("depth@A", book([("10", "0")], [("10.5", "0"), ("11", "0"), ("12", "0")], (8, 8)))
    assert best(watcher) == [
        ("10", "4", "11", "3"), ("10", "4", "10.5", "4"), ("9", "5", "0.00000000", "0.00000000"),
    ]  # fmt: skip
    room.end(watcher)


def test_once_in_a_flush(room: Room, watcher: Client) -> None:
    """What comes together is looked at once, and what has come and gone in between is never seen."""
    room.hub.publish("depth@A", whole())
    room.hub.publish("depth@A", book([("10.1", "9")], [], (2, 2)))
    room.hub.publish("depth@A", book([("10.1", "0"), ("10", "7")], [], (3, 3)))
    room.hub.flush()
    assert best(watcher) == [("10", "7", "11", "3")]
    room.end(watcher)


def test_the_best_levels(room: Room) -> None:
    """As many as the name says, every 100 ms or 1000 ms, and only when they have changed."""
    names = ("depth5@A", "a@depth10", "depth20@A@1000ms")
    clients = [Client(room).join(name) for name in names]
    room.source.confirm()
    levels = {side: [(str(100 + sign * step), "1") for step in range(1, 31)] for side, sign in (("b", -1), ("a", 1))}
    room.source.publish("depth@A", whole(levels["b"], levels["a"]))
    for client, count, name in zip(clients, (5, 10, 20), ("depth5", "depth10", "depth20"), strict=True):
        joined, data = got(client)
        assert list(data) == ["e", "s", "lastUpdateId", "bids", "asks", "E"]
        assert (joined, data["e"], data["s"], data["lastUpdateId"], data["E"]) == ("joined", name, "A", 1, 1001)
        assert [data["bids"], data["asks"]] == [[list(level) for level in levels[side][:count]] for side in "ba"]
    room.source.publish("depth@A", book([("93", "7")], [], (2, 2)))
    room.source.publish("depth@A", book([("93", "8")], [], (3, 3)))
    room.clock.advance(0.1)
    assert [[data["bids"][6] for data in got(client)] for client in clients] == [[], [["93", "8"]], []]
    room.clock.advance(0.9)
    assert [[data["bids"][6] for data in got(client)] for client in clients] == [[], [], [["93", "8"]]]
    room.end(*clients)


def test_the_state_comes_always(room: Room, watcher: Client) -> None:
    """Whether a client asks for states or not: it may be long until something changes."""
    room.source.publish("depth@A", whole())
    for wants_state in (False, True):
        for name in ("bookTicker@A", "depth5@A"):
            client = Client(room).join(name, wants_state=wants_state)
            joined, data = got(client)
            assert (joined, data["e"], data["s"]) == ("joined", name.partition("@")[0], "A")
            client.end()
    room.end(watcher)


def test_it_waits_for_a_state_that_is_looked_for() -> None:
    """What somebody keeps beside the stream is the first book."""
    snapshots = FakeSnapshots()
    snapshots.states["depth@A"] = whole(last=7)
    room = Room(snapshots=snapshots)
    client = Client(room).join("bookTicker@A")
    room.source.confirm()
    joined, data = got(client)
    assert (joined, data["u"]) == ("joined", 7)
    room.end(client)


def test_it_has_no_offsets(room: Room) -> None:
    """Who comes back is told that something is missing, and gets the state; nothing is kept."""
    client = Client(room, shape=Shape.OFFSET).join("bookTicker@A", "depth@A")
    room.source.confirm()
    room.source.publish("depth@A", whole())
    assert [list(each) for each in client.outbox.messages[1:]] == [["stream", "data", "offset"], ["stream", "data"]]
    since = dict.fromkeys(("bookTicker@A", "depth@A"), client.outbox.messages[1]["offset"])
    again = Client(room, shape=Shape.OFFSET).join("bookTicker@A", "depth@A", since=since)
    assert again.recovered == {"bookTicker@A": False, "depth@A": True}
    assert [each["e"] for each in got(again)[1:]] == ["bookTicker"]
    entries: list[Any] = []
    room.hub.history(room.kinds.parse("bookTicker@A"), 10, 1000).addCallback(entries.append)
    assert entries == [[]]
    room.end(client, again)


def test_a_book_that_is_not_known_any_more(room: Room, watcher: Client) -> None:
    """Is a gap until it is known again; the jump that is the reason is told as well."""
    room.source.publish("depth@A", whole())
    got(watcher)
    room.clock.advance(2)
    before = room.now_ms
    room.source.publish("depth@A", book([], [], (2, 2)))
    room.clock.advance(3)
    room.source.publish("depth@A", book([("10", "9")], [], (9, 9)))
    assert got(watcher) == [
        ("gap", "sequence", before, room.now_ms), ("gap", "book-unknown", before, None),
    ]  # fmt: skip
    late = Client(room).join("bookTicker@A")
    assert got(late) == ["joined", ("gap", "book-unknown", before, None)]
    room.source.publish("depth@A", book([("10", "8")], [], (10, 10)))
    assert got(watcher) == got(late) == []
    room.clock.advance(3)
    room.source.publish("depth@A", whole(last=11))
    for client in (watcher, late):
        gap, data = got(client)
        assert (gap, data["u"]) == (("gap", "book-unknown", before, room.now_ms), 11)
    room.end(watcher, late)


def test_the_gaps_of_its_base(room: Room, watcher: Client) -> None:
    """Are its own: lost and refused, and what is not known behind them is a gap of its own."""
    room.source.publish("depth@A", whole())
    got(watcher)
    began = room.now_ms
    room.source.lose(began)
    assert got(watcher) == [("gap", "source-down", began, None)]
    room.clock.advance(1)
    late = Client(room).join("bookTicker@A")
    assert got(late) == ["joined", ("gap", "source-down", began, None)], "what it was is not sent for what it is"
    room.source.confirm()
    room.hub.flush()
    over = [("gap", "source-down", began, room.now_ms), ("gap", "book-unknown", began, None)]
    assert got(watcher) == got(late) == over
    room.source.publish("depth@A", book([("10", "9")], [], (2, 2)))
    for client in (watcher, late):
        gap, data = got(client)
        assert (gap, data["B"]) == (("gap", "book-unknown", began, room.now_ms), "9")
    room.source.refuse("depth@A")
    refused = room.now_ms
    assert got(watcher) == [("gap", "source-refused", refused, None)]
    room.source.confirm("depth@A")
    room.hub.flush()
    assert [each[1] for each in got(watcher)] == ["source-refused", "book-unknown"]
    room.end(watcher, late)


def test_a_book_that_was_lost_twice_is_as_unknown(room: Room, watcher: Client) -> None:
    """And what is seen just before a loss is told before it, also where it waits for its time."""
    slow = Client(room).join("depth5@A@1000ms")
    room.source.publish("depth@A", whole())
    for client in (watcher, slow):
        got(client)
    room.hub.publish("depth@A", book([("10", "9")], [], (2, 2)))
    for _ in range(2):
        room.source.lose()
        room.source.confirm()
        room.hub.flush()
    for client in (watcher, slow):
        data, *gaps = got(client)
        assert data["e"] in ("bookTicker", "depth5")
        assert [(gap[1], gap[3] is None) for gap in gaps] == [
            ("source-down", True), ("source-down", False), ("book-unknown", True),
            ("source-down", True), ("source-down", False), ("book-unknown", True),
        ]  # fmt: skip
    room.end(watcher, slow)


def test_a_silent_engine_is_one_for_what_is_made_of_its_books() -> None:
    """And speaks again for it, too."""
    kinds = [msgspec.structs.replace(kind, silence=1.0) if kind.name == "depth" else kind for kind in BUILT_IN]
    room = Room(kinds=StreamKinds(kinds))
    client = Client(room).join("bookTicker@A")
    room.source.confirm()
    room.source.publish("depth@A", whole())
    for _ in range(4):
        room.clock.advance(1)
    assert [each[:2] for each in got(client)[2:]] == [("gap", "engine-silent")]
    late = Client(room).join("bookTicker@A")
    assert [each[:2] for each in got(late)[2:]] == [("gap", "engine-silent")]
    room.source.publish("depth@A", book([("10", "9")], [], (2, 2)))
    for each in (client, late):
        gap, data = got(each)
        assert (gap[:2], gap[3], data["B"]) == (("gap", "engine-silent"), room.now_ms, "9")
    room.end(client, late)


def test_where_an_archive_has_what_was_missed_nothing_is_unknown() -> None:
    """A book that goes on after a loss is the book."""
    room = Room(FakeArchive())
    client = Client(room).join("bookTicker@A")
    room.source.confirm(after="0-0")
    room.hub.publish("depth@A", whole(), "1-0")
    room.hub.flush()
    got(client)
    room.source.lose()
    late = Client(room).join("bookTicker@A")
    joined, data, gap = got(late)
    assert (joined, data["e"], gap[1]) == ("joined", "bookTicker", "source-down")
    room.source.confirm(after="1-0")
    room.hub.publish("depth@A", book([("10", "9")], [], (2, 2)), "2-0")
    room.hub.flush()
    assert [each[1] if isinstance(each, tuple) else each["B"] for each in got(client)] == [
        "source-down",
        "source-down",
        "9",
    ]
    room.end(client, late)


def test_too_many_levels_are_no_book() -> None:
    """As for everybody else."""
    room = Room(max_book_levels=3)
    client = Client(room).join("depth5@A")
    room.source.confirm()
    room.source.publish("depth@A", whole())
    assert len(got(client)) == 2
    room.source.publish("depth@A", book([("1", "1")], [], (2, 2)))
    assert [each[1] for each in got(client)] == ["book-unknown"]
    room.source.publish("depth@A", whole(last=3))
    assert [each[1] if isinstance(each, tuple) else each["lastUpdateId"] for each in got(client)] == ["book-unknown"]
    room.clock.advance(0.1)
    assert [each["lastUpdateId"] for each in got(client)] == [3]
    room.end(client)


def test_before_the_gap_comes_what_waited(room: Room) -> None:
    """And what was seen last is not sent behind it."""
    client = Client(room).join("depth5@A@1000ms")
    room.source.confirm()
    room.source.publish("depth@A", whole())
    room.source.publish("depth@A", book([("10", "7")], [], (2, 2)))
    got(client)
    room.source.publish("depth@A", book([("10", "8")], [], (9, 9)))
    data, jump, unknown = got(client)
    assert (data["bids"][0], jump[1], unknown[1]) == (["10", "7"], "sequence", "book-unknown")
    room.clock.advance(2)
    assert got(client) == []
    room.end(client)


def test_a_fault_that_somebody_else_finds_first_is_told() -> None:
    """A request for the book, for example, long before it is time to look."""
    room = Room(strict=False)
    client = Client(room).join("depth20@A@1000ms")
    room.source.confirm()
    room.source.publish("depth@A", whole())
    room.source.publish("depth@A", book([("10", "7")], [], (2, 2)))
    room.source.publish("depth@A", book([("x", "7")], [], (3, 3)))
    got(client)
    assert [kept.depth(5) for _, kept in room.hub.books] == [None]
    room.clock.advance(1)
    (gap,) = [each for each in got(client) if isinstance(each, tuple)]
    assert gap[1] == "book-unknown"
    room.end(client)


def test_a_time_that_no_double_can_be_spoils_no_book(room: Room) -> None:
    """What an update says besides its levels and its ids is nobody's business."""
    window, ticker = Client(room).join("depth@A@1000ms"), Client(room).join("bookTicker@A")
    room.source.confirm()
    room.source.publish("depth@A", whole())
    for client in (window, ticker):
        got(client)
    for last in (b"2", b"3"):
        update = b'{"e":"depth","E":1e999,"T":7,"U":?,"u":?,"a":[],"b":[["10","?"]]}'
        room.source.publish("depth@A", update.replace(b"?", last))
    room.clock.advance(1)
    assert [(data["u"], data["B"], data["E"]) for data in got(ticker)] == [(2, "2", 7), (3, "3", 7)]
    (merged,) = window.outbox.texts
    assert b'"U":2,"u":3' in merged
    room.end(window, ticker)


def test_the_base_is_there_for_as_long_as_it_is_needed(room: Room) -> None:
    """One for all that is made of it, and for who watches it by itself."""
    ticker = Client(room).join("bookTicker@A")
    levels = Client(room).join("depth5@A", "depth20@A")
    assert room.source.calls == [("want", "depth@A")]
    assert room.hub.streams == {"depth@A", "bookTicker@A", "depth5@A", "depth20@A"}
    room.source.confirm()
    plain = Client(room).join("depth@A")
    room.source.publish("depth@A", whole())
    ticker.end()
    levels.end()
    room.clock.advance(LINGER)
    base = room.hub._registry._streams["depth@A"]
    assert (base.derived, base.taps, list(room.hub._registry._streams)) == ([], {}, ["depth@A"])
    room.source.publish("depth@A", book([("10", "9")], [], (2, 2)))
    assert len(got(plain)) == 3
    ticker = Client(room).join("bookTicker@A")
    assert got(ticker)[1]["B"] == "9"
    ticker.end()
    room.clock.advance(LINGER)
    plain.end()
    room.clock.advance(LINGER)
    room.clock.advance(LINGER)
    room.assert_empty()


def test_it_ends_with_the_hub() -> None:
    """Whatever lingers."""
    room = Room()
    client = Client(room).join("bookTicker@A", "depth5@B")
    room.source.confirm()
    client.end()
    room.hub.stopService()
    room.assert_empty()


def test_room_is_for_what_clients_name() -> None:
    """The stream behind it is asked for all the same, never more of those than names."""
    room = Room(max_distinct_streams=2)
    clients = [Client(room).join("bookTicker@A")]
    with pytest.raises(TooManyStreams):
        Client(room).join("bookTicker@B")
    room.end(*clients)


def test_a_kind_of_the_name_that_is_declared_is_the_engines() -> None:
    """It is published, and nothing is made."""
    room = Room(kinds=StreamKinds((*BUILT_IN, StreamKind("bookTicker", LossPolicy.LATEST))))
    client = Client(room).join("bookTicker@A")
    room.source.confirm()
    assert list(room.source.wanted) == ["bookTicker@A"]
    room.source.publish("bookTicker@A", b'{"e":"bookTicker","mine":1}')
    assert got(client) == ["joined", {"e": "bookTicker", "mine": 1}]
    room.end(client)


def test_what_fails_is_told_and_is_nobody_elses(
    room: Room, logged: LogCapture, monkeypatch: pytest.MonkeyPatch, watcher: Client
) -> None:
    """Neither its base, nor what else is made of it."""
    other, plain = Client(room).join("depth5@A"), Client(room).join("depth@A")
    kind = next(kind for kind in BUILT_IN if kind.name == "bookTicker")
    assert kind.from_book is not None
    stream = room.hub._registry._streams["bookTicker@A"]
    broken = msgspec.structs.replace(kind, from_book=msgspec.structs.replace(kind.from_book, write=lambda _: b"" + 1))  # type: ignore[operator]
    monkeypatch.setattr(stream, "kind", broken)
    room.source.publish("depth@A", whole())
    assert len(logged.flush_failures(TypeError)) == 1
    assert [len(got(client)) for client in (watcher, other, plain)] == [0, 2, 2]
    room.end(watcher, other, plain)


# A million updates, or some of them.


def _levels(side: dict[int, int], sign: int, most: int) -> list[list[str]]:
    return [[f"{price / 100:.2f}", str(side[price])] for price in sorted(side, reverse=sign < 0)[:most]]


def test_after_very_many_updates_it_is_the_book(room: Room) -> None:
    """Never crossed, for the engine's is not; never older than its interval; at the end what the engine has."""
    updates = 1_000_000 if settings.default is not None and settings.default.max_examples > 1000 else 10_000
    chance = random.Random(11)
    names = ("bookTicker@A", "depth5@A", "depth20@A", "depth20@A@1000ms")
    clients = [Client(room).join(name) for name in names]
    room.source.confirm()
    sides: dict[str, dict[int, int]] = {"b": {}, "a": {}}
    middle = 100_000
    seen: dict[str, Any] = dict.fromkeys(names)
    right_at = dict.fromkeys(names, 0.0)

    def expected(count: int) -> tuple[Any, Any]:
        return _levels(sides["b"], -1, count), _levels(sides["a"], 1, count)

    def check() -> None:
        now = room.clock.seconds()
        for client, name, count, age in zip(clients, names, (1, 5, 20, 20), (0, 0.1, 0.1, 1.0), strict=True):
            for data in got(client):
                if data == "joined":
                    continue
                if count == 1:
                    seen[name] = ([[data["b"], data["B"]]], [[data["a"], data["A"]]])
                else:
                    seen[name] = (data["bids"], data["asks"])
                bids, asks = seen[name]
                if bids and asks and float(asks[0][0]):
                    assert float(bids[0][0]) < float(asks[0][0]), "crossed"
            if seen[name] == expected(count):
                right_at[name] = now
            else:
                assert now - right_at[name] <= age + 0.0101, f"{name} is too old"

    for number in range(1, updates + 1):
        is_whole = number % 50_000 == 1
        middle += chance.choice((-1, 0, 0, 0, 1))
        rows: dict[str, dict[int, int]] = {"b": {}, "a": {}}
        for side, sign in (("b", -1), ("a", 1)):
            for price in [price for price in sides[side] if sign * (price - middle) <= 0]:
                rows[side][price] = 0  # the engine's book is never crossed
            for _ in range(chance.randint(0, 2)):
                rows[side][middle + sign * (1 + int(chance.expovariate(0.02)))] = chance.choice((0, 1, 2, 3))
            sides[side].update(rows[side])
            sides[side] = {price: quantity for price, quantity in sides[side].items() if quantity}
        told = sides if is_whole else rows
        levels = {side: [(f"{price / 100:.2f}", str(each)) for price, each in told[side].items()] for side in "ba"}
        more = {"snapshot": True} if is_whole else {}
        room.source.publish("depth@A", book(levels["b"], levels["a"], (number, number), **more))
        if updates < 100_000:
            check()
        if number % 3 == 0:
            room.clock.advance(0.01)
            check()
    room.clock.advance(1)
    check()
    for name, count in zip(names, (1, 5, 20, 20), strict=True):
        assert seen[name] == expected(count)
    room.end(*clients)


def bids_of(client: Client) -> list[Any]:
    """The quantity of the best bid of each publication since the last call; gaps as they are."""
    return [each if isinstance(each, tuple) else each["bids"][0][1] for each in got(client)]


def changed(room: Room, client: Client, *quantities: int) -> Any:
    """Let the best bid have these quantities, one after the other, which the client has not seen yet."""
    state = room.hub._registry._streams["depth@A"].state
    for quantity in quantities:
        last = state.last + 1  # type: ignore[union-attr,operator]
        room.source.publish("depth@A", book([("10", str(quantity))], [], (last, last)))
    assert bids_of(client) == []
    return state


@pytest.fixture
def looker(room: Room) -> Client:
    """Somebody who has seen a book, and whose window is open."""
    client = Client(room).join("depth5@A")
    room.source.confirm()
    room.source.publish("depth@A", whole())
    assert len(got(client)) == 2
    return client


def test_a_book_is_looked_at_when_something_is_due(room: Room, looker: Client) -> None:
    """What comes in between is merged then, all at once; one publication is made of all of it."""
    counts = room.hub.counts.of("depth5")
    state = changed(room, looker, 5, 6, 7)
    assert (len(state._pending), counts.published) == (3, 1)
    room.clock.advance(0.1)
    assert bids_of(looker) == ["7"]
    assert (len(state._pending), counts.published) == (0, 2)
    room.end(looker)


def test_who_joins_sees_the_book_of_now(room: Room, looker: Client) -> None:
    """And whoever was there sees the same, when that is due."""
    changed(room, looker, 5, 6)
    other = Client(room).join("depth5@A")
    slow = Client(room).join("depth5@A@1000ms")
    assert [got(client)[1]["bids"][0] for client in (other, slow)] == [["10", "6"]] * 2
    changed(room, looker, 7)
    room.clock.advance(0.1)
    assert [bids_of(client) for client in (looker, other)] == [["7"]] * 2
    room.end(looker, other, slow)


def test_what_is_deeper_than_anybody_looks_leaves_nothing_to_wait_for(room: Room, looker: Client) -> None:
    """After a period in which nothing was to be seen, what is to be seen goes at once."""
    room.source.publish("depth@A", book([], [(str(price), "1") for price in range(11, 17)], (2, 2)))
    room.clock.advance(0.1)
    assert len(got(looker)) == 1
    room.source.publish("depth@A", book([], [("16", "2")], (3, 3)))
    room.clock.advance(0.1)
    assert got(looker) == []
    room.source.publish("depth@A", book([("10", "5")], [], (4, 4)))
    assert bids_of(looker) == ["5"]
    room.end(looker)


@pytest.mark.parametrize(
    "end",
    [
        "jump",
        "loss",
        "unordered",
        "large",
        "missed",
        "refused",
        "stop",
        pytest.param("failure", marks=replaces_methods),
    ],
)
def test_what_was_not_looked_at_is_told_before_the_book_ends(
    end: str, monkeypatch: pytest.MonkeyPatch, logged: LogCapture
) -> None:
    """However it ends: the last that was known of it, and then that it is not known."""
    room = Room(max_book_levels=60)
    client = Client(room).join("depth5@A")
    room.source.confirm()
    room.source.publish("depth@A", whole())
    assert len(got(client)) == 2
    changed(room, client, 5, 6)
    if end == "jump":
        room.source.publish("depth@A", book([("10", "9")], [], (9, 9)))
    elif end == "loss":
        room.source.lose(room.now_ms)
    elif end == "unordered":
        room.hub._registry._streams["depth@A"].state.record(b"{")  # type: ignore[union-attr]
        room.hub._derivations.touch(room.hub._registry._streams["depth@A"])
        room.hub.flush()
    elif end == "large":
        room.source.publish("depth@A", book([(str(price), "1") for price in range(1, 99)], [], (4, 4)))
    elif end == "failure":
        monkeypatch.setattr(PublicationReader, "read", lambda reader, payload: 1 / 0)
        room.source.publish("depth@A", b"{}")
        assert logged.flush_failures(ZeroDivisionError)
    elif end == "missed":
        room.hub.missed("depth@A", 1.0)
    elif end == "refused":
        room.source.refuse("depth@A")
    else:
        room.hub.stopService()
    last, *gaps = bids_of(client)
    assert last == "6"
    assert [reason for _, reason, *_ in gaps] == {
        "jump": ["sequence", "book-unknown"],
        "failure": ["book-unknown", "sequence"],
        "loss": ["source-down"],
        "missed": ["sequence"],
        "refused": ["source-refused"],
        "stop": [],
    }.get(end, ["book-unknown"])
    if end != "stop":
        room.end(client)
