"""What waits for a slow client: each loss policy by itself, and any sequence of events against a reference."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from marketfeed.hub.groups import Group
from marketfeed.websocket.backlog import Backlog
from marketfeed.wire.deflate import inflate
from marketfeed.wire.dialects import Shape
from marketfeed.wire.frames import text_frame
from tests.books import Waiting, decoded, depths, replay, update
from tests.fakes import AT, make_group, make_stream, payloads
from tests.rooms import trade
from tests.strategies import machine_test

ROOM = 1 << 30


def reply(number: int) -> bytes:
    return text_frame(b"reply %d" % number)


def event(number: int) -> bytes:
    return text_frame(b"event %d" % number)


def ticker(number: int) -> bytes:
    return b'{"e":"ticker","c":"%d","s":"A","h":"%b"}' % (number, b"1" * (number % 7))


def add(backlog: Backlog, group: Group, *data: bytes, room: int = ROOM) -> None:
    for each in data:
        assert backlog.add(group, group.framed(each, AT), room)


def messages(backlog: Backlog) -> list[Any]:
    """All that waits, taken out: what a client would get."""
    texts = payloads(backlog.take(ROOM))
    assert not backlog
    assert backlog.size == 0
    return [json.loads(text) if text.startswith(b"{") else text.decode() for text in texts]


# Keep.


def test_trades_all_wait_in_order() -> None:
    """`keep`: every frame as it was published, and the size is theirs, to the byte."""
    backlog, group = Backlog(), make_group("trade@A")
    frames = [group.framed(trade(number), AT) for number in range(50)]
    for frame in frames:
        assert backlog.add(group, frame, ROOM)
    assert backlog.size == sum(map(len, frames))
    assert backlog.take(ROOM) == b"".join(frames)


def test_a_trade_for_which_there_is_no_room_is_refused() -> None:
    """As much as there is room for waits, and not a byte more."""
    backlog, group = Backlog(), make_group("trade@A")
    frame = group.framed(trade(1), AT)
    assert not backlog.add(group, frame, len(frame) - 1)
    assert backlog.add(group, frame, len(frame))
    assert backlog.size == len(frame)


# Latest.


def test_only_the_newest_ticker_waits() -> None:
    """`latest`: of each stream one, in the place of the one that it replaces, with the bytes that the engine wrote."""
    backlog, one, two, trades = Backlog(), make_group("ticker@A"), make_group("ticker@B"), make_group("trade@A")
    for number in range(5):
        add(backlog, one, ticker(number))
        add(backlog, trades, trade(number))
        add(backlog, two, ticker(number + 10))
    newest = [one.framed(ticker(4), AT), trades.framed(trade(0), AT), two.framed(ticker(14), AT)]
    newest += [trades.framed(trade(number), AT) for number in range(1, 5)]
    assert backlog.size == sum(map(len, newest))
    assert backlog.take(ROOM) == b"".join(newest)


def test_a_ticker_that_has_left_is_not_replaced() -> None:
    """The next one waits anew, behind what has come since."""
    backlog, group = Backlog(), make_group("ticker@A")
    add(backlog, group, ticker(1))
    backlog.put(reply(1))
    assert backlog.take(1) == group.framed(ticker(1), AT)
    add(backlog, group, ticker(2), ticker(3))
    assert backlog.take(ROOM) == reply(1) + group.framed(ticker(3), AT)


# Merge.


def test_depth_updates_merge_into_the_one_that_waits() -> None:
    """`merge`: one update, from the first one's beginning to the last one's end."""
    backlog, group = Backlog(), make_group("depth@A", shape=Shape.ENVELOPE)
    data = [update(a=[["1.0", str(number)], [str(number), "5"]], U=number, u=number) for number in range(1, 20)]
    add(backlog, group, *data)
    (message,) = messages(backlog)
    assert message["stream"] == "depth@A"
    assert (message["data"]["U"], message["data"]["u"]) == (1, 19)
    assert replay([json.dumps(message["data"]).encode()]) == replay(data)


def test_a_depth_message_that_waits_alone_goes_out_as_the_engine_wrote_it() -> None:
    """Only what was merged is written by the daemon; the rest is not even read."""
    backlog, group = Backlog(), make_group("depth@A")
    data = b'{ "e":"depth",  "a":[["1.00" , 5e0]],"b":[] , "U":1,"u" : 2 }'
    add(backlog, group, data)
    assert not group.depths
    assert payloads(backlog.take(ROOM)) == [data]


def test_where_something_is_missing_both_wait() -> None:
    """Ids with a jump in between are not merged, so that the client can see the jump; what follows merges again."""
    backlog, group = Backlog(), make_group("depth@A")
    add(backlog, group, *(update(U=at, u=at) for at in (1, 2, 5, 6, 9)))
    assert [(data["U"], data["u"]) for data in messages(backlog)] == [(1, 2), (5, 6), (9, 9)]


def test_a_snapshot_discards_what_waited_of_its_stream() -> None:
    """Mergeable or not; and takes the updates behind it into itself. Other streams, and frames before it, stay."""
    backlog, group, other = Backlog(), make_group("depth@A"), make_group("depth@B")
    add(backlog, other, update(U=1, u=1))
    add(backlog, group, update(U=1, u=1), update(U=3, u=3))
    backlog.put(reply(1))
    add(backlog, group, update(U=5, u=5), update(a=[["1", "1"], ["2", "0"]], U=5, u=5, snapshot=True))
    assert backlog.size == len(other.framed(update(U=1, u=1), AT) + reply(1)) + len(
        group.framed(update(a=[["1", "1"], ["2", "0"]], U=5, u=5, snapshot=True), AT)
    )
    add(backlog, group, update(a=[["1.0", "0"], ["3", "7"]], U=6, u=8))
    snapshot = {"e": "depth", "a": [["3", "7"]], "b": [], "U": 5, "u": 8, "snapshot": True}
    assert messages(backlog) == [{"e": "depth", "a": [], "b": [], "U": 1, "u": 1}, "reply 1", snapshot]


def test_snapshots_do_not_look_at_what_waits_of_other_streams() -> None:
    """However much that is; and what they leave behind is bounded."""
    backlog, book, trades = Backlog(), make_group("depth@A"), make_group("trade@A")
    add(backlog, trades, *[trade(number) for number in range(1000)])
    entries = backlog._entries
    add(backlog, book, *[update(b=[["1", str(number)]], snapshot=True) for number in range(1, 501)])
    assert backlog._entries is entries
    backlog.forget([trades])
    add(backlog, book, *[update(b=[["1", str(number)]], snapshot=True) for number in range(501, 1000)])
    assert len(backlog._entries) < 140
    assert [message["b"] for message in messages(backlog)] == [[["1", "999"]]]


def test_what_is_no_depth_message_waits_and_parts_what_may_merge() -> None:
    """`--validate warn` lets it through: it keeps its place, and nothing is merged or discarded across it."""
    odd = b'{"e":"auction"}'
    for before in ([], [update(U=1, u=1)], [update(U=1, u=1), update(U=2, u=2)]):
        backlog, group = Backlog(), make_group("depth@A")
        add(backlog, group, *before, odd, update(U=3, u=3), update(U=4, u=4))
        add(backlog, group, update(U=9, u=9, snapshot=True), odd, update(U=10, u=10, snapshot=True))
        ids = [(data.get("U"), data.get("u")) for data in messages(backlog)]
        assert ids == [(1, len(before))] * bool(before) + [(None, None), (9, 9), (None, None), (10, 10)]


def test_what_is_read_once_is_shared_by_many_clients() -> None:
    """Two clients behind on one stream, merging different parts of it, do not see each other's changes."""
    group = make_group("depth@A")
    frames = [group.framed(update(a=[["1", str(at)], [str(at), "1"]], U=at, u=at), AT) for at in range(1, 6)]
    early, late = Backlog(), Backlog()
    for at, frame in enumerate(frames):
        assert early.add(group, frame, ROOM)
        if at >= 2:
            assert late.add(group, frame, ROOM)
    (first,), (second,) = messages(early), messages(late)
    assert (first["U"], first["u"], len(first["a"])) == (1, 5, 5)
    assert (second["U"], second["u"], len(second["a"])) == (3, 5, 4)


def test_a_merged_message_is_compressed_as_its_group_wants_it() -> None:
    """What the daemon writes itself goes out in the shape, and under the spelling, of all other messages."""
    backlog, group = Backlog(), make_stream("depth@A").group("a@depth@100ms", Shape.ENVELOPE, 9, False)
    rows = [[f"10{at}.50", "1.25"] for at in range(60)]
    add(backlog, group, *(update(a=rows[at : at + 30], U=at, u=at) for at in range(30)))
    assert backlog.size > 0
    frame = backlog.take(ROOM)
    assert frame[0] == 0xC1
    message = json.loads(inflate(frame))
    assert message["stream"] == "a@depth@100ms"
    assert message["data"]["a"] == rows[:59]


@pytest.mark.parametrize("name", ["ticker@A", "depth@A"])
def test_what_does_not_fit_is_told(name: str) -> None:
    """Also where it replaces, or merges into, what waits: the caller ends this client."""
    backlog, group = Backlog(), make_group(name)
    small = group.framed(update(a=[], U=1, u=1), AT)
    large = group.framed(update(a=[[str(at), "1"] for at in range(99)], U=2, u=2), AT)
    assert backlog.add(group, small, len(small))
    assert not backlog.add(group, large, 100)
    assert backlog.size > len(small) + 100 or name == "ticker@A"
    assert backlog.add(make_group(name), small, len(small))


# What parts them.


@pytest.mark.parametrize("name", ["ticker@A", "depth@A"])
def test_nothing_is_thinned_across_a_control_event(name: str) -> None:
    """A gap is told where it is: what came before it and what came after it both wait."""
    backlog, group = Backlog(), make_group(name)
    add(backlog, group, update(U=1, u=1), update(U=2, u=2))
    backlog.put(event(1), is_event=True)
    add(backlog, group, update(U=3, u=3, snapshot=True), update(U=4, u=4))
    ids = [data if isinstance(data, str) else data["u"] for data in messages(backlog)]
    assert ids == [2, "event 1", 4]


@pytest.mark.parametrize("name", ["ticker@A", "depth@A"])
def test_replies_and_pings_do_not_part_what_may_be_thinned(name: str) -> None:
    """A client who asks a lot does not fall back to keeping everything."""
    backlog, group = Backlog(), make_group(name)
    for number in range(1, 10):
        add(backlog, group, update(U=number, u=number))
        backlog.put(reply(number))
    ids = [data if isinstance(data, str) else data["u"] for data in messages(backlog)]
    assert ids == [9, *(f"reply {number}" for number in range(1, 10))]


@pytest.mark.parametrize("name", ["ticker@A", "depth@A"])
def test_nothing_is_thinned_across_a_change_of_shape(name: str) -> None:
    """There and back again: the newest would otherwise stand before older ones of the other shape."""
    backlog, live = Backlog(), make_stream(name)
    enveloped, raw = live.group(name, Shape.ENVELOPE, 0, False), live.group(name, Shape.DATA, 0, False)
    for number, group in enumerate((enveloped, enveloped, raw, raw, enveloped, raw), 1):
        add(backlog, group, update(a=[["1", str(number)]]))
    got = [data.get("data", data)["a"][0][1] for data in messages(backlog)]
    assert got == ["2", "4", "5", "6"]


@pytest.mark.parametrize("name", ["trade@A", "ticker@A", "depth@A"])
def test_what_is_forgotten_is_gone_and_comes_back_anew(name: str) -> None:
    """After an UNSUBSCRIBE nothing of the stream waits; a new SUBSCRIBE begins behind its reply."""
    backlog, group, other = Backlog(), make_group(name), make_group("trade@B")
    add(backlog, group, update(U=1, u=1), update(U=2, u=2))
    add(backlog, other, trade(1))
    backlog.forget([make_group(name), group])
    assert backlog.size == len(other.framed(trade(1), AT))
    backlog.put(reply(1))
    add(backlog, group, update(U=3, u=3))
    assert backlog.take(ROOM) == other.framed(trade(1), AT) + reply(1) + group.framed(update(U=3, u=3), AT)


def test_forgetting_takes_as_long_for_many_streams_as_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that leaves a thousand streams with a long backlog costs one look at each frame, not a thousand."""
    backlog, groups = Backlog(), [make_group(f"trade@{number}") for number in range(200)]
    for group in groups:
        add(backlog, group, trade(1), trade(2))
    looks = 0
    kind = type(backlog._entries[0])
    slot = kind.group  # type: ignore[attr-defined]

    def look(entry: Any) -> Any:
        nonlocal looks
        looks += 1
        return slot.__get__(entry)

    monkeypatch.setattr(kind, "group", property(look))
    backlog.forget(groups[:150])
    assert looks <= 400
    monkeypatch.undo()
    assert len(messages(backlog)) == 100


# Taking.


def test_frames_leave_whole_as_many_as_fit() -> None:
    """At least one, of whatever size, and no part of another."""
    backlog, group = Backlog(), make_group("trade@A")
    frames = [group.framed(b'"%b"' % (b"x" * size), AT) for size in (10, 500, 10, 10, 10)]
    for frame in frames:
        backlog.add(group, frame, ROOM)
    backlog.put(reply(1))
    assert backlog.take(100) == frames[0]
    assert backlog.take(100) == frames[1]
    assert backlog.take(2 * len(frames[2])) == frames[2] + frames[3]
    assert backlog.take(ROOM) == frames[4] + reply(1)
    assert backlog.take(ROOM) == b""
    assert not backlog


# Any sequence.


class BacklogMachine(RuleBasedStateMachine):
    """A backlog and what ought to wait. The groups are of every policy, shape and window; some streams have two."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.waiting = Waiting()
        self.number = 0
        self.groups: dict[str, Group] = {}
        for name in ("trade@A", "ticker@A", "depth@A", "depth@B"):
            live = make_stream(name)
            self.groups[name] = live.group(name, Shape.ENVELOPE, 0, False)
            self.groups[f"{name} raw"] = live.group(name, Shape.DATA, 0, False)
        self.groups["depth@C"] = make_group("depth@C", shape=Shape.ENVELOPE, window=9)
        self.groups["ticker@C"] = make_group("ticker@C", window=15)

    names = st.sampled_from(
        ("trade@A", "ticker@A", "ticker@A raw", "ticker@C", "depth@A", "depth@A raw", "depth@B", "depth@C")
    )
    depth_names = st.sampled_from(("depth@A", "depth@A raw", "depth@B", "depth@B", "depth@C", "depth@C"))

    def _publish(self, name: str, data: bytes) -> None:
        group = self.groups[name]
        assert self.backlog.add(group, group.framed(data, AT), ROOM)
        self.waiting.publish(group, data)

    @rule(name=names)
    def publish(self, name: str) -> None:
        self.number += 1
        make = trade if name.startswith("trade") else ticker
        self._publish(name, make(self.number))

    @rule(name=depth_names, data=depths(False) | depths(True))
    def publish_without_ids(self, name: str, data: bytes) -> None:
        self._publish(name, data)

    @rule(name=depth_names, data=st.data(), first=st.integers(0, 6), span=st.integers(0, 2), whole=st.booleans())
    def publish_with_ids(self, name: str, data: st.DataObject, first: int, span: int, whole: bool) -> None:
        self._publish(name, data.draw(depths(whole and first == 0, str(first), str(first + span))))

    @rule(number=st.integers(0, 99))
    def reply(self, number: int) -> None:
        self.backlog.put(reply(number))
        self.waiting.put(reply(number))

    @rule(number=st.integers(0, 99))
    def event(self, number: int) -> None:
        self.backlog.put(event(number), is_event=True)
        self.waiting.put(event(number), is_event=True)

    @rule(names=st.lists(names, max_size=3))
    def forget(self, names: list[str]) -> None:
        groups = [self.groups[name] for name in names]
        self.backlog.forget(groups)
        self.waiting.forget(groups)

    @rule(most=st.sampled_from((0, 100, 1000, ROOM)))
    def take(self, most: int) -> None:
        before = self.backlog.size
        taken = self.backlog.take(most)
        count = self.waiting.check_taken(taken)
        assert count or not before
        assert count <= 1 or len(taken) <= most

    @invariant()
    def as_much_waits_as_ought_to(self) -> None:
        assert bool(self.backlog) == bool(self.waiting)
        self.waiting.check_size(self.backlog.size)

    def teardown(self) -> None:
        self.take(ROOM)
        assert not self.backlog
        assert not self.waiting
        assert self.backlog.size == 0


def test_any_sequence_leaves_what_ought_to_wait() -> None:
    """Publications of every policy, replies, events, changes of shape, leaving and taking, in any order."""
    run_state_machine_as_test(BacklogMachine, settings=machine_test(1.5, 40))


def test_what_waits_of_an_endless_stream_stays_as_large_as_its_book() -> None:
    """Ten thousand updates and tickers later: one message of each stream, with no more levels than there are prices."""
    backlog = Backlog()
    groups = {name: make_group(name) for name in ("depth@A", "depth@B", "ticker@A")}
    sizes = []
    for number in range(10_000):
        rows = [[f"{100 + number % 50}.50", str(number % 3)]]
        add(backlog, groups["depth@A"], update(a=rows, U=number, u=number))
        add(backlog, groups["depth@B"], update(b=rows, U=number, u=number, snapshot=number % 100 == 0))
        add(backlog, groups["ticker@A"], ticker(number))
        for group in groups.values():
            group.depths.clear()  # as the fan-out does after a flush
        sizes.append(backlog.size)
    assert max(sizes) < 5000
    one, last, two = map(decoded, payloads(backlog.take(ROOM)))
    assert len(one["a"]) == 50
    assert 0 < len(two["b"]) <= 50
    assert last["c"] == "9999"
