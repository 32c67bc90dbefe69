"""Publications as clients made for Binance read them: books kept by differences, whatever comes in between."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from marketfeed.model.book_state import BookState
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Shape
from tests.fakes import FakeArchive, FakeSnapshots
from tests.rooms import EPOCH, Client, Room, member
from tests.strategies import machine_test

KINDS = StreamKinds(rebuilds=True)
NAME = "depth@A"


def paths_room(**options: Any) -> Room:
    return Room(kinds=KINDS, **options)


def read(client: Client) -> list[dict[str, Any]]:
    """The publications since the last call, without their envelopes."""
    got = [each["data"] for each in client.outbox.messages if isinstance(each, dict) and "data" in each]
    client.outbox.writes.clear()
    return got


def publish(room: Room, stream: str, *payloads: dict[str, Any]) -> None:
    room.source.publish(stream, *[json.dumps(payload, separators=(",", ":")).encode() for payload in payloads])


def depth(a: Iterable[list[Any]] = (), b: Iterable[list[Any]] = (), **fields: Any) -> dict[str, Any]:
    return {"e": "depth", "a": list(a), "b": list(b), **fields}


AT = EPOCH * 1000
US = EPOCH * 1_000_000


def test_a_trade() -> None:
    room = paths_room()
    client, house = member(room, "trade@A", on_paths=True), member(room, "trade@A")
    engine = {"e": "trade", "t": 1, "m": True, "p": "100.10", "q": "2", "s": "A"}
    publish(room, "trade@A", engine)
    assert read(client) == [{**engine, "E": AT, "T": AT, "M": True}]
    assert read(house) == [engine]
    publish(room, "trade@A", {**engine, "T": 5})
    assert read(client) == [{**engine, "T": 5, "E": 5, "M": True}]
    publish(room, "trade@A", {**engine, "E": 7, "M": False})
    assert read(client) == [{**engine, "E": 7, "M": False, "T": 7}]


def test_what_lacks_nothing_is_the_engines_own_bytes() -> None:
    room = paths_room()
    client = member(room, "trade@A", "depth@A", "ticker@A", on_paths=True, shape=Shape.DATA)
    trade = b'{ "e":"trade","t":1,"m":true,"p":1.50,"q":"2","s":"A","E":1,"T":2,"M":true}'
    book = b'{"e": "depthUpdate","E":1,"s":"A","U":1,"u":2,"a":[ ["1.50","7"]],"b":[["1.40","0.00000000"]]}'
    ticker = json.dumps(
        {"e": "24hrTicker", "E": 1, "s": "A", "c": "1", **dict.fromkeys("pPwxQbBaAohlvqOCFLn", "1")}
    ).encode()
    for name, data in (("trade@A", trade), ("depth@A", book), ("ticker@A", ticker)):
        room.source.publish(name, data)
        assert client.outbox.writes[-1].endswith(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"e":"depth","a":[],"b":[],"e":"depth"}',
        b'{"e":"depth","a":[],"b":[["1","2"]],"x":{"e":":"}}',
        b'{"e":"depth","b":[],"a":[],"a":[["1","2"]]}',
    ],
)
def test_fields_twice_or_of_other_names_hide_nothing(data: bytes) -> None:
    room = paths_room()
    client = member(room, NAME, on_paths=True)
    room.source.publish(NAME, data)
    expected = {**json.loads(data), "e": "depthUpdate", "E": AT, "s": "A", "U": US, "u": US}
    assert read(client) == [expected]


def test_depth_without_ids() -> None:
    room = paths_room()
    client = member(room, NAME, on_paths=True)
    publish(room, NAME, depth([["1.50", "7"], ["1.60", "0"]]), depth([[1.5, 0]], T=9))
    room.clock.advance(1)
    publish(room, NAME, depth())
    first, second, third = read(client)
    assert first == {
        **depth([["1.50", "7"], ["1.60", "0.00000000"]]),
        "e": "depthUpdate",
        "E": AT,
        "s": "A",
        "U": US,
        "u": US,
    }
    assert second == {
        **depth([["1.50", "0.00000000"]], T=9),
        "e": "depthUpdate",
        "E": 9,
        "s": "A",
        "U": US + 1,
        "u": US + 1,
    }
    assert (third["U"], third["u"], third["E"]) == (US + 2, US + 1_000_000, AT + 1000)


def test_ids_that_the_engine_gives_stay() -> None:
    room = paths_room()
    client = member(room, NAME, on_paths=True)
    publish(room, NAME, depth(U=1, u=9), depth(U=12, u=12))
    assert [(each["U"], each["u"]) for each in read(client) if each["e"] != "gap"] == [(1, 9), (12, 12)]


@pytest.mark.parametrize("ids", [{}, {"U": 44, "u": 44}, {"U": 1, "u": 50}])
def test_a_snapshot_is_a_difference(ids: dict[str, int]) -> None:
    room = paths_room()
    client = member(room, NAME, on_paths=True)
    publish(room, NAME, depth([["2.0", "5"]], [["1.0", "7"]], snapshot=True, **({"U": 1, "u": 42} if ids else {})))
    publish(room, NAME, depth([["2.5", "1"]], **({"U": 43, "u": 43} if ids else {})))
    publish(room, NAME, depth([["2.5", "4"]], [["1.0", "7"], ["0.9", "1"]], snapshot=True, **ids))
    _, before, snapshot = read(client)
    assert snapshot["a"] == [["2.5", "4"], ["2.0", "0.00000000"]]
    assert snapshot["b"] == [["1.0", "7"], ["0.9", "1"]]
    assert snapshot["U"] == before["u"] + 1
    assert snapshot["snapshot"] is True


@pytest.mark.parametrize("has_ids", [True, False])
def test_a_snapshot_is_a_difference_for_who_comes_after_long_without_anybody(has_ids: bool) -> None:
    """Nothing is kept beside snapshots while nobody is there. Whoever comes gets all of the first one all the same."""
    room = paths_room(history_seconds=10)
    early = member(room, NAME, on_paths=True)
    keeper = member(room, NAME)
    levels = [["2.0", "5"]], [["1.0", "7"]]
    for number in (1, 2):
        publish(room, NAME, depth(*levels, snapshot=True, **({"U": number, "u": number} if has_ids else {})))
        early.end()
        room.clock.advance(60)
    late = Client(room, on_paths=True).join(NAME, wants_state=True)
    publish(room, NAME, depth([["2.5", "4"]], levels[1], snapshot=True, **({"U": 3, "u": 3} if has_ids else {})))
    state, snapshot = read(late)
    assert snapshot["a"] == [["2.5", "4"], ["2.0", "0.00000000"]]
    assert snapshot["U"] == state["u"] + 1
    room.end(late, keeper)


def test_what_was_merged_before_a_snapshot_is_gone_if_it_is_not_in_that() -> None:
    """Also where the book before it was not known, as after a gap: what waits says what it had."""
    room = paths_room()
    client = member(room, f"{NAME}@1000ms", on_paths=True)
    publish(room, NAME, depth([["2.0", "5"]], [["1.0", "7"]], snapshot=True, U=1, u=1))
    publish(room, NAME, depth([["2.4", "1"], ["2.5", "1"]], [["0.9", "1"]], U=5, u=5))
    room.clock.advance(1)
    read(client)
    publish(room, NAME, depth([["2.4", "2"], ["2.6", "1"]], U=6, u=6))
    publish(room, NAME, depth([["2.4", "3"]], [["1.0", "6"]], snapshot=True, U=7, u=7))
    publish(room, NAME, depth([["2.7", "1"]], U=8, u=8))
    room.clock.advance(1)
    (merged,) = read(client)
    assert (merged["U"], merged["u"], merged["snapshot"]) == (6, 8, True)
    assert sorted(merged["a"]) == [["2.4", "3"], ["2.6", "0.00000000"], ["2.7", "1"]]
    assert merged["b"] == [["1.0", "6"]]
    room.end(client)


def test_a_snapshot_before_which_nothing_is_known_is_seen_as_a_jump() -> None:
    room = paths_room()
    client = member(room, NAME, on_paths=True)
    publish(room, NAME, depth())
    room.clock.advance(1)
    publish(room, NAME, depth(snapshot=True))
    before, snapshot = read(client)
    assert snapshot["U"] == snapshot["u"] > before["u"] + 1


def test_after_a_gap_an_update_begins_with_its_own_id() -> None:
    room = paths_room()
    client = member(room, NAME, on_paths=True)
    publish(room, NAME, depth())
    room.source.lose()
    room.source.confirm()
    room.clock.advance(1)
    publish(room, NAME, depth())
    got = [each for each in read(client) if each["e"] != "gap"]
    assert got[1]["U"] == got[1]["u"] > got[0]["u"] + 1


def test_rest_counts_alike_with_a_seed_without_ids() -> None:
    """A client that asks for the book before anything has come finds the first update next to it."""
    snapshots = FakeSnapshots()
    snapshots.states[NAME] = json.dumps(depth([["2.0", "5"]])).encode()
    room = paths_room(snapshots=snapshots)
    client = member(room, NAME, on_paths=True)
    book = json.loads(rest(room) or b"")
    room.clock.advance(1)
    publish(room, NAME, depth([["2.00", "7"]]))
    (update,) = read(client)
    assert update["U"] == book["lastUpdateId"] + 1 <= update["u"]
    assert update["a"] == [["2.0", "7"]]
    assert json.loads(rest(room) or b"") == {"lastUpdateId": update["u"], "bids": [], "asks": [["2.0", "7"]]}


def rest(room: Room) -> bytes | None:
    stream = room.hub._registry.find(NAME)
    assert stream is not None
    assert isinstance(stream.state, BookState)
    return stream.state.depth(5000)


def test_aggregated_trades() -> None:
    room = paths_room()
    client, house = member(room, "a@aggTrade", on_paths=True), member(room, "aggTrade@A", shape=Shape.OFFSET)
    assert list(room.source.wanted) == ["trade@A"]
    publish(room, "trade@A", {"e": "trade", "t": 1, "m": True, "p": 100.10, "q": "2", "s": "A", "T": 5})
    expected = {
        "e": "aggTrade",
        "E": 5,
        "s": "A",
        "a": 1,
        "p": 100.1,
        "q": "2",
        "f": 1,
        "l": 1,
        "T": 5,
        "m": True,
        "M": True,
    }
    assert read(client) == [expected]
    (offset,) = [message["offset"] for message in house.outbox.messages]
    assert read(house) == [expected]
    publish(room, "trade@A", {"e": "trade", "t": 2, "m": True, "p": 100.10, "q": "2", "s": "A"})
    again = Client(room).join("aggTrade@A", since={"aggTrade@A": offset})
    assert again.recovered == {"aggTrade@A": True}
    assert read(again) == read(house) == read(client)
    history: list[Any] = []
    room.hub.history(KINDS.parse("aggTrade@A"), 10, 1 << 20).addCallback(history.append)
    assert [json.loads(data)["a"] for _, data in history[0]] == [1, 2]
    assert {group.name for each in (client, house, again) for group in each.groups.values()} == {"aggTrade@A"}


def test_a_state_is_made_alike_and_continues() -> None:
    room = paths_room()
    early = member(room, NAME, on_paths=True)
    publish(room, NAME, depth([["2.0", 5]], snapshot=True))
    read(early)
    late = Client(room, on_paths=True).join(NAME, wants_state=True)
    (state,) = read(late)
    expected = {"e": "depthUpdate", "E": AT, "s": "A", "U": US, "u": US, "snapshot": True}
    assert state == {**depth([["2.0", "5"]]), **expected}
    publish(room, NAME, depth([["2.00", "0"]]))
    assert (
        read(late)
        == read(early)
        == [{**depth([["2.0", "0.00000000"]]), "e": "depthUpdate", "E": AT, "s": "A", "U": US + 1, "u": US + 1}]
    )


def test_the_history_is_made_alike() -> None:
    room = paths_room(history=2)
    client = member(room, NAME, on_paths=True)
    publish(room, NAME, depth(), depth([["1", "1"]], snapshot=True), depth(), depth([["2", "1"]], snapshot=True))
    live = read(client)
    for spelling, on_paths in ((NAME, True), ("a@depth", True), (NAME, False)):
        answers: list[Any] = []
        name = KINDS.parse(spelling, on_paths=on_paths)
        room.hub.history(name, 10, 1 << 20).addCallback(answers.append)
        got = [json.loads(data) for _, data in answers[0]]
        assert (got == live[-2:]) is on_paths
        room.hub.history(name, 10, 1 << 20, answers[0][1][0]).addCallback(answers.append)
        assert ([json.loads(data) for _, data in answers[1]] == live[-2:-1]) is on_paths


def test_entries_have_the_numbers_of_their_ids() -> None:
    """Also those of the archive, in a daemon that has not seen them."""
    archive = FakeArchive()
    room = paths_room(archive=archive)
    client = Client(room, on_paths=True, shape=Shape.OFFSET).join(NAME)
    room.source.confirm(after="5-0")
    for offset in ("7-1", "7-2", "9-0"):
        payload = json.dumps(depth()).encode()
        archive.add(NAME, offset, payload)
        room.hub.publish(NAME, payload, offset)
    room.hub.flush()
    live = read(client)
    assert [(each["E"], each["U"], each["u"]) for each in live] == [(7, 5001, 7001), (7, 7002, 7002), (9, 7003, 9000)]
    other = paths_room(archive=archive)
    again = Client(other, on_paths=True, shape=Shape.OFFSET)
    again.join(NAME, since={NAME: "7-1"})
    other.source.confirm(after="9-0")
    assert again.recovered == {NAME: True}
    assert read(again) == live[1:]
    answers: list[Any] = []
    other.hub.history(KINDS.parse(NAME, on_paths=True), 2, 1 << 20).addCallback(answers.append)
    assert [json.loads(data) for _, data in answers[0]] == live[1:]
    other.hub.history(KINDS.parse(NAME, on_paths=True), 1, 1 << 20, "9-0").addCallback(answers.append)
    assert [json.loads(data) for _, data in answers[1]] == live[1:2]


def test_a_rate_merges_what_was_made() -> None:
    room = paths_room()
    client = member(room, f"{NAME}@100ms", on_paths=True)
    publish(room, NAME, depth([["1.0", "5"], ["3.0", "1"]], snapshot=True))
    publish(room, NAME, depth([["1.00", "0"]]), depth([["2.0", "1"]]))
    publish(room, NAME, depth([["4.0", "1"]], snapshot=True))
    room.clock.advance(0.1)
    first, merged = read(client)
    zero = "0.00000000"
    assert sorted(merged["a"]) == [["1.0", zero], ["2.0", zero], ["3.0", zero], ["4.0", "1"]]
    assert (merged["U"], merged["u"], merged["snapshot"]) == (first["u"] + 1, first["u"] + 3, True)


def test_a_snapshot_that_says_again_what_was_said_goes_on_from_it() -> None:
    """It has no ids of its own: whatever it is merged with begins behind the last one."""
    room = paths_room()
    client, slow = member(room, NAME, on_paths=True), member(room, f"{NAME}@100ms", on_paths=True)
    publish(room, NAME, depth([["1.0", "5"]], U=1, u=40, snapshot=True))
    publish(room, NAME, depth([["1.0", "5"]], U=40, u=40, snapshot=True), depth([["2.0", "1"]], U=41, u=43))
    room.clock.advance(0.1)
    assert [(each["U"], each["u"]) for each in read(client)] == [(1, 40), (41, 40), (41, 43)]
    assert [(each["U"], each["u"]) for each in read(slow)] == [(1, 40), (41, 43)]


def test_a_ticker_has_all_fields_of_one() -> None:
    room = paths_room()
    client = member(room, "ticker@A", on_paths=True, shape=Shape.OFFSET)
    engine = {"e": "ticker", "c": "110", "s": "A", "o": "100", "h": 120}
    publish(room, "ticker@A", engine)
    offset = client.outbox.messages[0]["offset"]
    (got,) = read(client)
    zero = "0.00000000"
    assert got == {
        **engine,
        "e": "24hrTicker",
        "E": AT,
        "p": "10",
        "P": "10.000",
        "w": "110",
        "x": "100",
        "l": "100",
        "Q": zero,
        "b": zero,
        "B": zero,
        "a": zero,
        "A": zero,
        "v": zero,
        "q": zero,
        "O": AT - 86_400_000,
        "C": AT,
        "F": -1,
        "L": -1,
        "n": 0,
    }
    late = Client(room, on_paths=True).join("ticker@A", wants_state=True)
    assert read(late) == [got]
    publish(room, "ticker@A", {**engine, "T": 3})
    again = Client(room, on_paths=True).join("ticker@A", since={"ticker@A": offset})
    assert read(again) == read(client)


@pytest.mark.parametrize("history", [0, 10])
def test_the_state_of_a_ticker_came_when_that_came(history: int) -> None:
    """With Redis streams at the time in its entry's id, whatever bad one is behind it."""
    room = paths_room(archive=FakeArchive(), history=history)
    early = Client(room, on_paths=True).join("ticker@A")
    room.source.confirm(after="0-0")
    for payload, offset in ((b'{"e":"ticker","c":"110","s":"A"}', "1699999999000-3"), (b"{}", "1699999999500-0")):
        room.hub.publish("ticker@A", payload, offset)
    room.hub.flush()
    room.clock.advance(5)
    late = Client(room, on_paths=True).join("ticker@A", wants_state=True)
    (got,) = read(early)
    assert got["E"] == 1699999999000
    assert read(late) == [got]
    room.end(early, late)


def test_a_ticker_has_the_best_prices_of_a_book_that_is_kept_and_keeps_them() -> None:
    room = paths_room()
    client = member(room, "ticker@A", NAME, on_paths=True, shape=Shape.OFFSET)
    publish(room, NAME, depth([["3.0", "1"], ["2.0", 5]], [["1.5", "2"], ["1.0", "9"]], snapshot=True))
    read(client)
    engine = {"e": "ticker", "c": "1", "s": "A"}
    publish(room, "ticker@A", engine, engine)
    first, offset = read(client), None
    assert {name: first[0][name] for name in "bBaA"} == {"b": "1.5", "B": "2", "a": "2.0", "A": "5"}
    publish(room, NAME, depth([["2.0", "0"], ["3.0", "0"]]))
    publish(room, "ticker@A", engine)
    offset = client.outbox.messages[-1]["offset"]
    _, last = read(client)
    assert {name: last[name] for name in "bBaA"} == {"b": "1.5", "B": "2", "a": "0.00000000", "A": "0.00000000"}
    again = Client(room, on_paths=True).join("ticker@A", since={"ticker@A": offset.replace("-3", "-1")})
    assert read(again) == [first[1], last]


def test_statistics_come_before_what_is_made_up() -> None:
    class Known:
        def of(self, market: str) -> dict[str, bytes]:
            return {"o": b'"80"', "n": b"7", "v": b'"12.5"', "c": b'"99"'}

    room = paths_room()
    room.hub._upstream.facts.others = Known()
    client = member(room, "ticker@A", on_paths=True)
    publish(room, "ticker@A", {"e": "ticker", "c": "100", "s": "A", "v": "3"})
    (got,) = read(client)
    assert {name: got[name] for name in ("c", "o", "n", "v", "p", "P", "l", "h", "x")} == {
        "c": "100",
        "o": "80",
        "n": 7,
        "v": "3",
        "p": "20",
        "P": "25.000",
        "l": "80",
        "h": "100",
        "x": "80",
    }


class Engine:
    """A book of which it publishes updates and snapshots; its prices are written in more than one way."""

    def __init__(self, has_ids: bool) -> None:
        self.book: dict[str, dict[Decimal, str]] = {"a": {}, "b": {}}
        self.last = 0 if has_ids else None

    def _ids(self, step: int) -> dict[str, int]:
        if self.last is None:
            return {}
        first, self.last = self.last + 1, self.last + step
        return {"U": first, "u": self.last}

    def update(self, levels: list[tuple[str, str, str]]) -> dict[str, Any]:
        for side, price, quantity in levels:
            self.book[side].pop(Decimal(price), None)
            if Decimal(quantity):
                self.book[side][Decimal(price)] = quantity
        rows = {side: [[p, q] for s, p, q in levels if s == side] for side in "ab"}
        return depth(rows["a"], rows["b"], **self._ids(2))

    def snapshot(self, step: int) -> dict[str, Any]:
        """With a step of 0 it says again what was said."""
        rows = {side: [[str(p), q] for p, q in levels.items()] for side, levels in self.book.items()}
        ids = self._ids(step) if step else {} if self.last is None else {"U": self.last, "u": self.last}
        return depth(rows["a"], rows["b"], snapshot=True, **ids)


class Follower:
    """A client that keeps a book by differences, as python-binance does, by the texts of prices.

    Like ccxt it does not forgive an update that begins before the last one's end, but for the first after a book.
    """

    def __init__(self, room: Room, client: Client, name: str = NAME) -> None:
        self.room = room
        self.client = client
        self.name = name
        self.book: dict[str, dict[str, str]] | None = None
        self.last = 0
        self.has_begun = False
        self.offset: str | None = None
        self.seen: dict[str, bytes] = {}

    def read(self) -> None:
        messages = self.client.outbox.messages
        self.client.outbox.writes.clear()
        for message in messages:
            if not isinstance(message, dict) or message["data"]["e"] == "gap":
                continue
            data = message["data"]
            assert data["e"] == "depthUpdate"
            self.offset = message["offset"]
            self.seen[message["offset"]] = json.dumps(data).encode()
            self.apply(data)

    def apply(self, data: dict[str, Any]) -> None:
        assert data["U"] <= data["u"] + 1
        if self.book is None or data["U"] > self.last + 1:
            self.begin()
        if self.book is None or data["u"] <= self.last:
            return
        assert data["U"] == self.last + 1 if self.has_begun else data["U"] <= self.last + 1
        self.has_begun = True
        self.last = data["u"]
        for side, levels in self.book.items():
            for price, quantity in data[side]:
                if quantity == "0.00000000":
                    levels.pop(price, None)
                else:
                    levels[price] = quantity

    def begin(self) -> None:
        answer = rest(self.room)
        if answer is None:
            self.book = None
            return
        found = json.loads(answer)
        self.last = found["lastUpdateId"]
        self.has_begun = False
        self.book = {"a": dict(found["asks"]), "b": dict(found["bids"])}


prices = st.sampled_from(["1.5", "1.50", "2", "2.0", "2.00", "1e0", "3.25", "3.250"])
levels = st.lists(st.tuples(st.sampled_from("ab"), prices, st.sampled_from(["0", "0.0", "1", "2.5", "7"])), max_size=4)


class Payloads(RuleBasedStateMachine):
    """An engine, its daemon, one client that stays and some that come and go."""

    has_ids = False
    is_archived = False

    def __init__(self) -> None:
        super().__init__()
        self.archive = FakeArchive() if self.is_archived else None
        self.room = paths_room(archive=self.archive, history=8, history_seconds=1e6, history_bytes=1 << 20)
        self.engine = Engine(self.has_ids)
        self.entries = 0
        self.stays = Follower(self.room, Client(self.room, on_paths=True, shape=Shape.OFFSET).join(NAME))
        self.room.source.confirm(after="0-0" if self.archive else None)
        self.comes: list[Follower] = []
        self.away: list[Follower] = []
        self.is_down = False

    def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            payload = json.dumps(message, separators=(",", ":")).encode()
            offset = None
            if self.archive is not None:
                self.entries += 1
                offset = f"{self.entries}-0"
                self.archive.add(NAME, offset, payload)
            self.room.hub.publish(NAME, payload, offset)
        self.room.hub.flush()

    @rule(levels=levels, more=levels)
    def update(self, levels: list[tuple[str, str, str]], more: list[tuple[str, str, str]]) -> None:
        messages = [self.engine.update(levels), self.engine.update(more)]
        if not self.is_down:
            self.send(*messages)

    @rule(step=st.sampled_from([0, 1]))
    def snapshot(self, step: int) -> None:
        message = self.engine.snapshot(step)
        if not self.is_down:
            self.send(message)

    @rule(seconds=st.sampled_from([0.000001, 0.5, 2.0]))
    def wait(self, seconds: float) -> None:
        self.room.clock.advance(seconds)

    @precondition(lambda self: not self.is_archived)
    @rule()
    def lose(self) -> None:
        if self.is_down:
            self.room.source.confirm()
        else:
            self.room.source.lose()
        self.is_down = not self.is_down

    @rule(name=st.sampled_from([NAME, f"{NAME}@100ms"]))
    def come(self, name: str) -> None:
        if not self.is_down and len(self.comes) < 3:
            client = Client(self.room, on_paths=True, shape=Shape.OFFSET).join(name)
            self.comes.append(Follower(self.room, client, name))

    @precondition(lambda self: self.comes)
    @rule()
    def go(self) -> None:
        self.read()
        follower = self.comes.pop(0)
        follower.client.end()
        if follower.offset is not None:
            self.away.append(follower)

    @precondition(lambda self: self.away and not self.is_down)
    @rule()
    def resume(self) -> None:
        self.read()
        follower = self.away.pop()
        client = Client(self.room, on_paths=True, shape=Shape.OFFSET)
        assert follower.offset is not None
        client.join(follower.name, since={follower.name: follower.offset})
        follower.client = client
        recovered = client.recovered == {follower.name: True}
        if not recovered:
            follower.book = None
        follower.read()
        follower.has_begun = False  # what it gets at a rate may hold some of what it has got again
        if recovered and follower.name == NAME:  # otherwise several are one
            for offset, data in follower.seen.items():
                live = self.stays.seen.get(offset, data)
                if self.is_archived and b'"snapshot"' in data:  # what was before it is not in the archive, perhaps
                    assert (json.loads(live)["E"], json.loads(live)["u"]) == (
                        json.loads(data)["E"],
                        json.loads(data)["u"],
                    )
                else:
                    assert live == data, "resumed as it was live"
        self.comes.append(follower)

    def read(self) -> None:
        for follower in (self.stays, *self.comes):
            follower.read()

    @invariant()
    def everybody_who_has_a_book_has_the_engines(self) -> None:
        self.read()
        if self.is_down:
            return
        for follower in (self.stays, *self.comes):
            if follower.book is None or rest(self.room) is None:
                continue
            if follower.last < json.loads(rest(self.room) or b"")["lastUpdateId"]:
                continue  # it is told with the next update
            for side, levels in follower.book.items():
                assert {Decimal(p): q for p, q in levels.items()} == self.engine.book[side]
                assert len({Decimal(p) for p in levels}) == len(levels)

    def teardown(self) -> None:
        for follower in (self.stays, *self.comes):
            follower.client.end()


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize("has_ids", [False, True])
def test_books_kept_by_differences_are_the_engines(has_ids: bool, is_archived: bool) -> None:
    machine = type("Machine", (Payloads,), {"has_ids": has_ids, "is_archived": is_archived})
    run_state_machine_as_test(machine, settings=machine_test(1, 30))


@pytest.mark.parametrize("name", [NAME, f"{NAME}@100ms"])
def test_what_is_said_again_after_a_loss_goes_on_from_what_was_said(name: str) -> None:
    """By its id nothing has been missed; so it does when it is merged with what follows."""
    machine = type("Machine", (Payloads,), {"has_ids": True, "is_archived": False})()
    machine.lose()
    machine.lose()
    machine.come(name)
    machine.everybody_who_has_a_book_has_the_engines()
    for again in (0, 1):
        machine.snapshot(0)
        machine.everybody_who_has_a_book_has_the_engines()
        machine.snapshot(1)
        machine.everybody_who_has_a_book_has_the_engines()
        machine.lose()  # which ends what waits for its time
        machine.everybody_who_has_a_book_has_the_engines()
        assert machine.comes[0].last == again + 1
        machine.lose()
    machine.teardown()
