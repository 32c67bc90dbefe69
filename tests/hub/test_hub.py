"""The hub: each of its rules one at a time, and any sequence of events against a dict of sets."""

from __future__ import annotations

import json
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
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
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

import marketfeed.hub.registry
from marketfeed.boundaries import Entry, NoBook, TooManyStreams
from marketfeed.hub.groups import Group
from marketfeed.hub.history import Histories
from marketfeed.hub.hub import Hub, HubLimits
from marketfeed.hub.queries import BOOK_SECONDS, KEPT_SECONDS
from marketfeed.hub.readiness import CONFIRM_SECONDS
from marketfeed.model.state import BookState
from marketfeed.model.streams import BUILT_IN, LossPolicy, StreamKind, StreamKinds
from marketfeed.wire.deflate import compressed_body, compressed_frame, inflate
from marketfeed.wire.dialects import Shape
from tests.conftest import LogCapture
from tests.fakes import FakeArchive, FakeSnapshots, FakeSource, FakeSubscriber, payloads
from tests.rooms import EPOCH, KINDS, LINGER, Client, Room, member, trade
from tests.strategies import machine_test

# Rule 1: what is wanted from the source.


def test_a_stream_is_wanted_at_its_first_subscriber_only(room: Room) -> None:
    """Further subscribers, and further spellings, do not reach the source."""
    Client(room).join("trade@A")
    Client(room).join("trade@A", "a@trade")
    Client(room, shape=Shape.DATA).join("depth@A")
    assert room.source.calls == [("want", "trade@A"), ("want", "depth@A")]
    assert room.hub.streams == {"trade@A", "depth@A"}


def test_a_stream_lingers_after_its_last_subscriber(room: Room) -> None:
    """It is unwanted when the last has been gone for the linger time, and not before."""
    first, last = member(room, "trade@A"), member(room, "trade@A")
    first.end()
    room.clock.advance(LINGER)
    last.unsubscribe("trade@A")
    assert not room.hub.streams
    room.clock.advance(LINGER - 0.1)
    assert "trade@A" in room.source.wanted
    room.clock.advance(0.1)
    room.assert_empty()


def test_who_comes_back_in_time_finds_the_stream_flowing(room: Room) -> None:
    """A page reload does not flap the channel, and is answered at once."""
    member(room, "trade@A").end()
    room.clock.advance(LINGER - 0.1)
    client = Client(room).join("trade@A")
    assert client.take() == [["joined", "trade@A"]]
    room.clock.advance(10 * LINGER)
    assert room.source.calls == [("want", "trade@A")]


def test_without_linger_a_stream_is_unwanted_at_once() -> None:
    """`--linger 0` needs no timer."""
    room = Room(linger=0)
    member(room, "trade@A").end()
    room.assert_empty()


def test_who_leaves_before_the_confirmation_leaves_nothing_behind(room: Room) -> None:
    """A cancelled join gives back its streams, its timer and its place."""
    client, other = Client(room).join("trade@A", "depth@A"), Client(room).join("trade@A")
    client.end()
    client.end()
    assert room.hub.streams == {"trade@A"}
    room.source.confirm("trade@A")
    assert client.take() == []
    assert other.take() == [["joined", "trade@A"]]
    other.end()
    room.clock.advance(LINGER)
    room.assert_empty()


def test_a_server_at_its_limit_takes_all_of_a_request_or_nothing() -> None:
    """`--max-distinct-streams` counts streams that have clients; those that are there already cost nothing."""
    room = Room(max_distinct_streams=2)
    client = member(room, "trade@A")
    with pytest.raises(TooManyStreams):
        Client(room).join("trade@A", "trade@B", "trade@C")
    assert list(room.source.wanted) == ["trade@A"]
    other = Client(room).join("trade@A", "a@trade", "trade@B")
    with pytest.raises(TooManyStreams):
        Client(room).join("trade@C")
    client.end()
    other.end()
    room.clock.advance(LINGER)
    room.assert_empty()


def test_lingering_streams_take_nobodys_place() -> None:
    """A stream without clients is not counted, and past the limit none lingers."""
    room = Room(max_distinct_streams=2)
    member(room, "trade@A", "trade@B").end()
    client = Client(room).join("trade@C", "trade@D")
    assert len(room.source.wanted) == 4
    client.end()
    assert set(room.source.wanted) == {"trade@A", "trade@B"}
    room.clock.advance(LINGER)
    room.assert_empty()


def test_not_everything_lingers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever subscribes to ever new streams and leaves them does not fill the memory with them."""
    monkeypatch.setattr(marketfeed.hub.registry, "_MOST_LINGERING", 2)
    room = Room()
    for index in range(5):
        member(room, f"trade@M{index}").end()
    assert set(room.source.wanted) == {"trade@M0", "trade@M1"}
    room.clock.advance(LINGER)
    member(room, "trade@M5").end()
    assert set(room.source.wanted) == {"trade@M5"}
    room.clock.advance(LINGER)
    room.assert_empty()


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


def test_two_spellings_of_one_client_get_each_publication_twice(room: Room) -> None:
    """Leaving one spelling keeps the other."""
    client = member(room, "trade@A", "a@trade")
    room.source.publish("trade@A", trade(1))
    assert client.take() == [("trade@A", 1), ("a@trade", 1)]
    client.unsubscribe("trade@A")
    client.take()
    room.source.publish("trade@A", trade(2))
    assert client.take() == [("a@trade", 2)]


# Rule 2: flushing, and the order.


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
    assert (room.hub.published, room.hub.delivered) == (2, 6)


def test_a_stream_that_is_not_wanted_is_not_looked_at(room: Room) -> None:
    """One that lingers, or whose first join still waits, is: who comes next may want what it publishes."""
    member(room, "trade@A").end()
    waiting = Client(room).join("trade@B")
    for name in ("trade@X", "trade@A", "trade@B"):
        room.source.publish(name, b"bad", trade())
    assert (room.hub.published, room.hub.delivered, room.hub.drops) == (2, 0, Counter({"not-json": 2}))
    assert waiting.take() == []


# Rule 3: joining and leaving.


def test_who_joins_gets_what_comes_after_the_reply_and_nothing_before_it(room: Room) -> None:
    """Publications that arrived before the join are flushed to the others first."""
    first = member(room, "trade@A")
    room.hub.publish("trade@A", trade(1))
    second = Client(room).join("trade@A")
    room.hub.publish("trade@A", trade(2))
    room.hub.flush()
    assert first.take() == [("trade@A", 1), ("trade@A", 2)]
    assert second.take() == [["joined", "trade@A"], ("trade@A", 2)]


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
    client.end()
    other.end()
    room.clock.advance(LINGER)
    room.assert_empty()


def test_each_client_gets_what_it_can_inflate(room: Room) -> None:
    """Clients who differ in their windows are in different groups; a change of shape does not change the window."""
    clients = {window: member(room, "trade@A", window=window) for window in (0, 9, 15)}
    other = member(room, "trade@A", window=9)
    assert clients[9].groups == other.groups
    assert len({client.groups["trade@A"] for client in clients.values()}) == 3
    large = trade()[:-1] + b',"x":"%b"}' % (b"x" * 1000)
    for enveloped in (True, False):
        room.source.publish("trade@A", large)
        frames = {window: client.outbox.writes.pop() for window, client in clients.items()}
        assert other.outbox.writes.pop() is frames[9]
        (payload,) = payloads(frames[0])
        assert payload == (b'{"stream":"trade@A","data":%b}' % large if enveloped else large)
        for window in (9, 15):
            assert frames[window][0] == 0xC1
            assert inflate(frames[window]) == payload
        for client in (*clients.values(), other):
            client.reshape(Shape.DATA)
            assert client.groups["trade@A"].window == client.outbox.window
    for client in (*clients.values(), other):
        client.end()
    room.clock.advance(LINGER)
    room.assert_empty()


def test_what_is_the_same_is_compressed_once(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who spells a stream alike shares the compressed bytes, whatever else differs; so do all who want data alone."""
    spellings = ("depth@A", "a@depth", "depth@A@100ms", "depth@A@1000ms", "a@depth@100ms", "a@depth@1000ms")
    windows = (0, *range(9, 16))
    clients = [
        (client, shape, window)
        for shape in Shape
        for window in windows
        for wants_state in (False, True)
        for client in [Client(room, shape=shape, window=window)]
        if client.join(*spellings, wants_state=wants_state)
    ]
    room.source.confirm()
    for client, _, _ in clients:
        client.outbox.writes.clear()
    compressed: list[bytes] = []

    def counting(payload: bytes, window: int) -> bytes | None:
        compressed.append(payload)
        return compressed_frame(payload, window)

    monkeypatch.setattr("marketfeed.hub.groups.compressed_frame", counting)
    rows = b",".join([b'["10%d.50","%d"]' % (number, number) for number in range(45)])
    data = b'{"e":"depth","t":1,"a":[%b],"b":[]}' % rows
    for _ in range(2):
        compressed.clear()
        room.source.publish("depth@A", data)
        assert len(data).bit_length() == 10
        assert len(set(compressed)) == 1 + 2 * len(spellings)
        assert len(compressed) == 2 * (1 + 2 * len(spellings)), "for windows of 9 bits, and for all larger ones"
    for client, shape, window in clients:
        frames = list(each_frame(b"".join(client.outbox.writes)))
        assert len(frames) == 2 * len(spellings)
        for frame in frames:
            assert (frame[0] == 0xC1) == bool(window)
            body = frame[4:] + b"\0\0\xff\xff"
            text = zlib.decompressobj(-window).decompress(body) if window else frame[4:]
            assert data in text
            assert (text == data) == (shape is Shape.DATA)
            assert (b'"offset"' in text) == (shape is Shape.OFFSET)


def test_a_large_publication_is_compressed_a_few_times_whatever_is_asked_for(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each spelling: with 48 connections that would be for longer than a turn may take."""
    spellings = ("depth@A", "a@depth", "depth@A@100ms", "a@depth@100ms", "depth@A@1000ms", "a@depth@1000ms")
    clients = [
        Client(room, shape=shape, window=window).join(*spellings) for shape in Shape for window in (0, *range(9, 16))
    ]
    room.source.confirm()
    for client in clients:
        client.outbox.writes.clear()
    compressed: list[int] = []

    def counting(data: bytes, window: int) -> bytes:
        compressed.append(window)
        return compressed_body(data, window)

    monkeypatch.setattr("marketfeed.hub.groups.compressed_body", counting)
    monkeypatch.setattr("marketfeed.hub.groups.compressed_frame", None)
    rows = b",".join([b'["10%d.50","%d"]' % (number, number) for number in range(200)])
    data = b'{"e":"depth","t":1,"a":[%b],"b":[]}' % rows
    room.source.publish("depth@A", data)
    assert len(compressed) == 3
    for client in clients:
        frames = list(each_frame(b"".join(client.outbox.writes)))
        assert len(frames) == len(spellings)
        for frame, spelling in zip(frames, spellings, strict=True):
            body = frame[4:] + b"\0\0\xff\xff"
            window = client.outbox.window
            text = zlib.decompressobj(-window).decompress(body) if window else frame[4:]
            assert len(frame) < len(data) / 2 or not window
            if client.shape is Shape.DATA:
                assert text == data
            else:
                message = json.loads(text)
                assert (message["stream"], message["data"]) == (spelling, json.loads(data))
                assert ("offset" in message) == (client.shape is Shape.OFFSET)


def each_frame(received: bytes) -> Iterator[bytes]:
    """The frames, each of 126 to 65535 bytes."""
    while received:
        size = 4 + (received[1] if received[1] < 126 else int.from_bytes(received[2:4], "big"))
        assert received[1] == 126
        yield received[:size]
        received = received[size:]


def test_leaving_many_streams_at_once_is_one_request_to_the_outbox(room: Room) -> None:
    """A client with a long backlog is not looked through once for each of a thousand streams."""
    client = member(room, "trade@A", "trade@B", "trade@C")
    forgotten: list[list[object]] = []
    client.outbox.forget = lambda groups: forgotten.append(list(groups))  # type: ignore[method-assign]
    left = [client.groups[spelling] for spelling in ("trade@A", "trade@C")]
    client.unsubscribe("trade@A", "trade@C")
    assert forgotten == [left]


# Rule 4: confirmations and gaps.


def test_the_reply_waits_for_the_confirmation_of_every_stream(room: Room) -> None:
    """One reply, once all of a request's streams flow; later work is taken up after it."""
    client = Client(room).join("trade@A", "depth@A")
    room.source.confirm("trade@A")
    assert client.take() == []
    assert client.settlings == 0
    room.source.confirm("depth@A")
    assert client.take() == [["joined", "trade@A", "depth@A"]]
    assert client.settlings == 1
    assert not room.timers


def test_a_join_that_need_not_wait_is_answered_before_it_returns(room: Room) -> None:
    """`settled` is for joins that were waited for; an empty one is no exception."""
    member(room, "trade@A")
    client = Client(room).join("trade@A")
    empty = Client(room).join()
    assert client.take() == [["joined", "trade@A"]]
    assert empty.take() == [["joined"]]
    assert client.settlings == empty.settlings == 0


def test_a_source_may_confirm_at_once(room: Room) -> None:
    """A stream that is subscribed still is confirmed inside `want`: the join need not wait, even after a loss."""
    room.source.at_once = True
    room.source.lose(5)
    client = Client(room).join("trade@A", "depth@A")
    room.source.publish("trade@A", trade(1))
    assert client.take() == [["joined", "trade@A", "depth@A"], ("trade@A", 1)]


def test_a_late_confirmation_is_not_waited_for(room: Room, logged: LogCapture) -> None:
    """After five seconds the client is answered, and told that nothing flows; the gap ends before a publication."""
    client = Client(room).join("trade@A", "depth@A")
    began = room.now_ms
    room.source.confirm("depth@A")
    room.clock.advance(CONFIRM_SECONDS - 0.1)
    assert client.take() == []
    room.clock.advance(0.1)
    gap = ("gap", ["trade@A"], "source-down", began)
    assert client.take() == [["joined", "trade@A", "depth@A"], (*gap, None)]
    assert client.settlings == 1
    room.clock.advance(2)
    room.hub.confirmed("trade@A")
    room.source.publish("trade@A", trade(1))
    assert client.take() == [(*gap, room.now_ms), ("trade@A", 1)]
    assert len([text for text in logged.formats() if text.startswith("no confirmation within")]) == 1


def test_each_join_waits_its_own_five_seconds(room: Room) -> None:
    """For a stream whose confirmation is overdue nobody waits any more; for another each waits his own time."""
    first = Client(room).join("trade@A")
    since = room.now_ms
    room.clock.advance(3)
    second = Client(room).join("trade@A", "trade@B")
    room.clock.advance(2)
    third = Client(room).join("trade@A")
    gap = ("gap", ["trade@A"], "source-down", since, None)
    assert first.take() == third.take() == [["joined", "trade@A"], gap]
    assert second.take() == []
    room.clock.advance(3)
    later = ("gap", ["trade@B"], "source-down", since + 3000, None)
    assert second.take() == [["joined", "trade@A", "trade@B"], gap, later]


def test_a_loss_answers_those_too_whose_stream_is_overdue_already(room: Room) -> None:
    """Nobody waits for a source that is unreachable, though the stream's gap began before."""
    Client(room).join("trade@A")
    since = room.now_ms
    room.clock.advance(3)
    second = Client(room).join("trade@A")
    room.clock.advance(2)
    room.source.lose(5)
    assert second.take() == [["joined", "trade@A"], ("gap", ["trade@A"], "source-down", since, None)]


def test_while_the_source_is_unreachable_joins_are_answered_at_once(room: Room) -> None:
    """A gap since the source was last good follows the reply; when the source is back, joins wait again."""
    room.source.lose(EPOCH * 1000 - 400)
    client = Client(room).join("trade@A", "a@trade")
    gap = ("gap", ["trade@A", "a@trade"], "source-down", EPOCH * 1000 - 400)
    assert client.take() == [["joined", "trade@A", "a@trade"], (*gap, None)]
    room.source.reach()
    waits = Client(room).join("trade@B")
    assert waits.take() == []
    room.clock.advance(1)
    room.source.confirm()
    room.hub.flush()
    assert client.take() == [(*gap, room.now_ms)]
    assert waits.take() == [["joined", "trade@B"]]


def test_a_source_that_was_never_good_is_lost_since_now(room: Room) -> None:
    """Before the first success there is no last good moment to name."""
    waiting = Client(room).join("trade@A")
    room.clock.advance(1)
    room.source.lose(None)
    assert waiting.take() == [["joined", "trade@A"], ("gap", ["trade@A"], "source-down", room.now_ms, None)]
    assert waiting.settlings == 1
    assert not room.hub.source_reached
    room.clock.advance(1)
    room.source.lose(None)
    gap = ("gap", ["trade@B"], "source-down", room.now_ms - 1000, None)
    assert Client(room).join("trade@B").take()[1:] == [gap], "a further attempt in vain begins nothing"
    room.source.reach()
    assert room.hub.source_reached


def test_a_loss_is_told_to_every_client_once_for_all_of_its_streams(room: Room) -> None:
    """Each gets its own spellings in its own dialect, after what arrived before the loss."""
    one, two = member(room, "trade@A", "a@trade", "depth@A"), member(room, "depth@A", shape=Shape.DATA)
    room.hub.publish("trade@A", trade(1))
    room.source.lose(5)
    before = [("trade@A", 1), ("a@trade", 1)]
    assert one.take() == [*before, ("gap", ["trade@A", "a@trade", "depth@A"], "source-down", 5, None)]
    assert two.outbox.texts == [b'{"e":"gap","streams":["depth@A"],"reason":"source-down","from":5,"to":null}']
    room.source.lose(9)
    assert one.take() == []


def test_gaps_are_control_events(room: Room) -> None:
    """What waits for a slow client before such an event, and what comes after it, is kept apart."""
    client = member(room, "trade@A")
    room.source.lose(5)
    room.source.reach()
    room.source.confirm()
    room.hub.flush()
    room.source.lose(9)
    late = Client(room).join("trade@A")
    assert [message["data"]["to"] for message in client.outbox.messages] == [None, room.now_ms, None]
    assert client.outbox.events == client.outbox.writes
    assert late.outbox.events == late.outbox.writes[1:]


def test_a_gap_ends_before_the_next_publication_with_the_same_from(room: Room) -> None:
    """Recovery is told stream by stream as it is confirmed, in one event for those that came back together."""
    client = member(room, "trade@A", "trade@B", "trade@C")
    room.source.lose(5)
    client.take()
    room.clock.advance(3)
    room.source.reach()
    room.hub.flush()
    assert client.take() == []
    room.hub.confirmed("trade@A")
    room.hub.confirmed("trade@C")
    room.source.publish("trade@C", trade(1))
    assert client.take() == [("gap", ["trade@A", "trade@C"], "source-down", 5, room.now_ms), ("trade@C", 1)]
    room.hub.confirmed("trade@B")
    room.hub.flush()
    assert client.take() == [("gap", ["trade@B"], "source-down", 5, room.now_ms)]
    room.source.confirm()
    room.hub.flush()
    assert client.take() == []


def test_a_loss_right_after_a_recovery_is_told_in_order(room: Room) -> None:
    """Found and lost again before anything was published: the first gap ends, the second begins."""
    client = member(room, "trade@A")
    room.source.lose(5)
    room.source.confirm()
    room.clock.advance(1)
    room.source.lose(700)
    first, second = ("gap", ["trade@A"], "source-down", 5), ("gap", ["trade@A"], "source-down", 700)
    assert client.take() == [(*first, None), (*first, room.now_ms), (*second, None)]


def test_who_joins_between_a_recovery_and_its_flush_hears_of_no_gap(room: Room) -> None:
    """The gap of the others ends before the newcomer is there."""
    client = member(room, "trade@A")
    room.source.lose(5)
    room.source.confirm()
    newcomer = Client(room).join("trade@A")
    room.source.publish("trade@A", trade(1))
    assert newcomer.take() == [["joined", "trade@A"], ("trade@A", 1)]
    assert client.take()[1:] == [("gap", ["trade@A"], "source-down", 5, room.now_ms), ("trade@A", 1)]


def test_a_gap_that_ended_while_the_stream_was_dropped_is_told_to_nobody() -> None:
    """A recovery that nobody is left to hear of is forgotten with its stream."""
    room = Room(linger=0)
    client = member(room, "trade@A")
    room.source.lose(5)
    room.source.confirm()
    client.end()
    room.assert_empty()
    room.hub.flush()


def test_a_refused_stream_is_answered_and_never_waited_for(room: Room, logged: LogCapture) -> None:
    """The client is told why nothing flows: who waited at the refusal, and who asks afterwards."""
    client = Client(room).join("trade@A", "trade@B")
    room.source.confirm("trade@B")
    room.source.refuse("trade@A")
    gap = ("gap", ["trade@A"], "source-refused", room.now_ms)
    assert client.take() == [["joined", "trade@A", "trade@B"], (*gap, None)]
    later = Client(room).join("trade@A")
    assert later.take() == [["joined", "trade@A"], (*gap, None)]
    room.source.refuse("trade@A")
    assert client.take() == []
    room.clock.advance(4)
    room.source.confirm("trade@A")
    room.source.publish("trade@A", trade(1))
    assert client.take() == later.take() == [(*gap, room.now_ms), ("trade@A", 1)]
    assert logged.formats().count("the source refuses {stream}: {why}") == 2


def test_a_refusal_after_a_loss_says_since_when_nothing_flows(room: Room) -> None:
    """The gap has another reason now; it is the same gap, also when the source is lost once more."""
    client = member(room, "trade@A", "trade@B")
    room.source.lose(5)
    client.take()
    room.source.reach()
    room.source.refuse("trade@A")
    assert client.take() == [("gap", ["trade@A"], "source-refused", 5, None)]
    room.source.lose(8)
    assert client.take() == []
    room.source.confirm()
    room.hub.flush()
    refused = ("gap", ["trade@A"], "source-refused", 5, room.now_ms)
    down = ("gap", ["trade@B"], "source-down", 5, room.now_ms)
    assert client.take() == [refused, down]


def test_refused_streams_do_not_fill_the_log(room: Room, logged: LogCapture) -> None:
    """A client may ask for any number of them: after a hundred lines there is one a second."""
    for index in range(300):
        Client(room).join(f"trade@M{index}")
        room.source.refuse(f"trade@M{index}")
    assert logged.formats().count("the source refuses {stream}: {why}") == 100
    room.clock.advance(1)
    room.source.refuse("trade@M0", "trade@M1")
    assert logged.formats().count("the source refuses {stream}: {why}") == 101


def test_a_stream_refused_in_the_midst_of_its_flow_gets_its_gap_after_what_arrived(room: Room) -> None:
    """Permission can be withdrawn; the gap begins now, and right after a recovery that one is told first."""
    client = member(room, "trade@A")
    room.hub.publish("trade@A", trade(1))
    room.source.refuse("trade@A")
    gap = ("gap", ["trade@A"], "source-refused", room.now_ms)
    assert client.take() == [("trade@A", 1), (*gap, None)]
    room.clock.advance(1)
    room.source.confirm("trade@A")
    room.source.refuse("trade@A")
    assert client.take() == [(*gap, room.now_ms), ("gap", ["trade@A"], "source-refused", room.now_ms, None)]


def test_news_of_a_stream_that_nobody_wants_changes_nothing(room: Room) -> None:
    """Confirmations and refusals may cross with an unwant."""
    room.hub.confirmed("trade@X")
    room.hub.refused("trade@X", "no permission")
    room.assert_empty()


# Bad publications.


def test_bad_publications_are_dropped_and_counted_by_reason(room: Room) -> None:
    """Strict: only what its kind requires is forwarded."""
    client = member(room, "trade@A")
    room.source.publish("trade@A", b"{", b"[]", b'{"e":"trade"}', trade(1), b'{"e":"ticker"}', b"\xff")
    assert client.take() == [("trade@A", 1)]
    assert room.hub.drops == Counter({"not-json": 1, "not-object": 1, "bad-field": 2, "not-utf8": 1})
    assert room.hub.published == 1


def test_drops_are_logged_once_a_second_for_each_stream(room: Room, logged: LogCapture) -> None:
    """The line says what was wrong and how many there were; another stream has a line of its own."""
    member(room, "trade@A", "trade@B")

    def lines() -> list[tuple[str, int]]:
        events = [event for event in logged.events if str(event.get("log_format")).startswith("bad publication")]
        logged.events.clear()
        assert all(event["reason"] == "not-json" and event["what"] == "dropped" for event in events)
        return [(event["stream"], event["count"]) for event in events]

    room.source.publish("trade@A", *[b"{"] * 50)
    assert lines() == [("trade@A", 1)]
    room.source.publish("trade@B", b"{")
    assert lines() == [("trade@B", 1)]
    room.clock.advance(0.9)
    room.source.publish("trade@A", b"{")
    assert lines() == []
    room.clock.advance(0.1)
    assert lines() == [("trade@A", 50)]  # without waiting for the next
    room.source.publish("trade@A", b"{")
    room.hub.stopService()
    assert lines() == [("trade@A", 1)]


def test_a_lenient_server_forwards_any_object_and_counts_all_the_same(logged: LogCapture) -> None:
    """`--validate warn`: defects are counted and logged; what is no JSON object is dropped even so."""
    room = Room(strict=False)
    client = member(room, "trade@A", shape=Shape.DATA)
    room.source.publish("trade@A", b'{"e":"new"}', b"[]")
    room.clock.advance(1)
    room.source.publish("trade@A", b"7")
    assert client.outbox.texts == [b'{"e":"new"}']
    assert room.hub.drops == Counter({"bad-field": 1, "not-object": 2})
    lines = [event["what"] for event in logged.events if str(event.get("log_format")).startswith("bad publication")]
    assert lines == ["forwarded", "dropped"]


def test_a_wrapped_publication_may_name_its_channel() -> None:
    """Engines wrap under the stream's name, with the prefix or without it; clients see neither wrapping."""
    room = Room(channel_prefix="live.")
    client = member(room, "trade@A", shape=Shape.DATA)
    for name in (b"trade@A", b"live.trade@A", b"test.trade@A"):
        room.source.publish("trade@A", b'{"stream":"' + name + b'","data":' + trade() + b"}")
    assert client.outbox.texts == [trade()] * 2
    assert room.hub.drops == Counter({"wrong-stream": 1})


def test_a_publication_beyond_the_limit_is_dropped() -> None:
    """`--max-payload` is in bytes of the payload."""
    room = Room(max_payload=len(trade()))
    client = member(room, "trade@A")
    room.source.publish("trade@A", trade(), trade() + b" ")
    assert client.take() == [("trade@A", 1)]
    assert room.hub.drops == Counter({"too-large": 1})


# Rule 5: one client's failure.


def test_a_client_whose_socket_fails_is_alone_in_it(room: Room) -> None:
    """The others get the publication, the source hears nothing."""
    broken, healthy = member(room, "trade@A"), member(room, "trade@A")
    broken.outbox.takes.append(BrokenPipeError())
    room.source.publish("trade@A", trade(1))
    assert broken.outbox.failures == 1
    assert healthy.take() == [("trade@A", 1)]
    broken.end()
    room.source.publish("trade@A", trade(2))
    assert healthy.take() == [("trade@A", 2)]


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


def test_a_client_ended_by_one_event_is_not_sent_the_next(room: Room) -> None:
    """Behind a close frame nothing is sent: neither the rest of the gaps of a loss, nor those of a join."""
    client = member(room, "trade@A", "trade@B", queue=1)
    room.source.lose(5)
    room.source.reach()
    room.source.refuse("trade@A")
    client.take()
    client.outbox.stall()
    room.source.confirm()
    room.hub.flush()
    assert (client.outbox.overflows, client.outbox.late) == (1, [])
    room.source.lose(9)
    joiner = Client(room, queue=1)
    joiner.outbox.stall()
    joiner.join("trade@A")
    assert (joiner.outbox.overflows, joiner.outbox.late) == (1, [])


def test_a_waiting_client_that_a_flush_ends_is_not_answered(room: Room) -> None:
    """Completing a join flushes first, which may be one publication too many for the client who joins."""
    client = member(room, "trade@A", queue=1)
    client.join("trade@B")
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    room.source.confirm("trade@B")
    assert client.outbox.overflows == 1
    assert client.answers == client.settlings == 0
    room.clock.advance(LINGER)
    room.assert_empty()


def test_a_client_that_is_ended_inside_its_join_can_leave_in_the_answer(room: Room) -> None:
    """The flush inside `join` may end the client before its session knows of the join: `answer` still gets groups."""
    member(room, "trade@B").end()
    client = member(room, "trade@A", queue=1)
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    client.join("trade@B")
    assert client.outbox.overflows == 1
    assert client.outbox.late == []
    room.clock.advance(LINGER)
    room.assert_empty()


def test_a_client_that_is_ended_inside_its_reshape_leaves_nothing_behind(room: Room) -> None:
    """The flush before a reshape may end the client, who must not be moved into another group then."""
    client, other = member(room, "trade@A", queue=1), member(room, "trade@A")
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    client.reshape(Shape.DATA)
    assert client.outbox.overflows == 1
    assert not client.groups
    other.end()
    room.clock.advance(LINGER)
    room.assert_empty()


def test_a_client_that_is_ended_inside_its_unsubscribe_leaves_nothing_behind(room: Room) -> None:
    """The same for the flush before leaving."""
    client = member(room, "trade@A", "trade@B", queue=1)
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    client.unsubscribe("trade@A")
    assert client.outbox.overflows == 1
    room.clock.advance(LINGER)
    room.assert_empty()


class Faulty:
    """A session that has a fault in what it does at one point of a join."""

    def __init__(self, point: str) -> None:
        self.point = point

    def _reach(self, point: str) -> None:
        if point == self.point:
            raise ZeroDivisionError("a fault in a session")

    def joined(self, groups: dict[str, Group], recovered: dict[str, bool] | None) -> None:
        self._reach("joined")

    def refused(self, why: str) -> None:
        self._reach("refused")

    def settled(self) -> None:
        self._reach("settled")


@pytest.mark.parametrize("late", [False, True])
def test_a_fault_in_a_waiting_session_ends_that_client_only(room: Room, logged: LogCapture, late: bool) -> None:
    """What a session raises when its join completes does not reach the source, nor keep the others waiting."""
    streams = {"trade@A": KINDS.parse("trade@A")}
    broken, careless = [FakeSubscriber(), FakeSubscriber()], FakeSubscriber()
    room.hub.join(broken[0], Shape.ENVELOPE, streams, Faulty("joined"))
    room.hub.join(careless, Shape.ENVELOPE, streams, Faulty(""))
    room.hub.join(broken[1], Shape.ENVELOPE, streams, Faulty("settled"))
    healthy = Client(room).join("trade@A")
    if late:
        room.clock.advance(CONFIRM_SECONDS)
    else:
        room.source.confirm("trade@A")
    assert healthy.take()[0] == ["joined", "trade@A"]
    assert [subscriber.failures for subscriber in (*broken, careless)] == [1, 1, 0]
    assert len(logged.flush_failures(ZeroDivisionError)) == 2


def test_a_fault_in_a_session_that_need_not_wait_is_its_own(room: Room) -> None:
    """Inside `join` there is a caller to tell."""
    member(room, "trade@A")
    with pytest.raises(ZeroDivisionError):
        room.hub.join(FakeSubscriber(), Shape.ENVELOPE, {"trade@A": KINDS.parse("trade@A")}, Faulty("joined"))


# State, history, and jumps of the ids.


def depth(first: int, last: int | None = None, *, is_snapshot: bool = False) -> bytes:
    snapshot = b',"snapshot":true' if is_snapshot else b""
    last = first if last is None else last
    return b'{"e":"depth","t":%d,"a":[],"b":[["1","%d"]],"U":%d,"u":%d%b}' % (last, last, first, last, snapshot)


def ticker(number: int) -> bytes:
    return b'{"e":"ticker","t":%d,"c":"1","s":"A"}' % number


def offsets(client: Client) -> list[str]:
    """The offsets of the publications that a client has got since the last call."""
    got = [message["offset"] for message in client.outbox.messages]
    client.outbox.writes.clear()
    return got


def entries(result: Deferred[list[Entry] | None]) -> list[Entry] | None:
    found: list[list[Entry] | None] = []
    result.addCallback(found.append)
    return found[0]


def found(result: Deferred[BookState | None]) -> list[BookState | None]:
    """The book when it is there."""
    books: list[BookState | None] = []
    result.addCallback(books.append)
    return books


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
    assert client.hub.published == 2
    client.end()
    room.clock.advance(LINGER)
    room.assert_empty()


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
    client.end()
    room.clock.advance(LINGER)
    room.assert_empty()


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


def test_a_jump_right_behind_a_loss_is_part_of_its_gap(room: Room) -> None:
    """It has been told; the next one has not."""
    client = member(room, "depth@A")
    room.source.publish("depth@A", depth(1))
    room.source.lose(5)
    room.source.confirm()
    room.source.publish("depth@A", depth(9))
    assert [message[-1] for message in client.take()] == [1, None, room.now_ms, 9]
    room.source.publish("depth@A", depth(11))
    assert client.take() == [("gap", ["depth@A"], "sequence", room.now_ms, room.now_ms), ("depth@A", 11)]


def test_a_jump_right_behind_a_seed_is_told(room: Room) -> None:
    """The client had a state, which does not lead to what comes next: nobody has told it of a gap."""
    snapshots = FakeSnapshots()
    snapshots.states["depth@A"] = depth(5, is_snapshot=True)
    room = Room(snapshots=snapshots)
    client = Client(room).join("depth@A", wants_state=True)
    room.source.confirm()
    del snapshots.states["depth@A"]
    assert [message["data"]["u"] for message in client.outbox.messages[1:]] == [5]
    client.outbox.writes.clear()
    room.source.publish("depth@A", depth(9))
    assert client.take() == [("gap", ["depth@A"], "sequence", room.now_ms, room.now_ms), ("depth@A", 9)]


@pytest.mark.parametrize("late", [False, True])
def test_a_state_found_after_a_jump_goes_to_those_who_want_it(late: bool) -> None:
    """Behind what was published before, which it has in it, and before what comes next; to nobody else."""
    snapshots = FakeSnapshots()
    snapshots.late = late
    room = Room(snapshots=snapshots)
    client = Client(room, shape=Shape.OFFSET).join("depth@A", wants_state=True)
    plain = Client(room).join("depth@A")
    room.source.confirm()
    snapshots.answer()
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    client.take()
    plain.take()
    last = 9 if late else 8
    snapshots.states["depth@A"] = depth(last, is_snapshot=True)
    room.clock.advance(1)
    room.hub.publish("depth@A", depth(8))
    room.hub.publish("depth@A", depth(9))
    snapshots.answer()
    room.source.publish("depth@A", depth(10))
    gap, *messages = client.outbox.messages
    assert gap["data"]["reason"] == "sequence"
    books = [(message["data"]["u"], message["data"].get("snapshot")) for message in messages]
    assert [u for u, snapshot in books if not snapshot] == [8, 9, 10]
    states = [at for at, (_, snapshot) in enumerate(books) if snapshot]
    assert [books[at] for at in states] == [(last, True)]
    assert [u for u, _ in books[: states[0]]] == list(range(8, last + 1))
    assert messages[states[0]]["offset"] == messages[states[0] - 1]["offset"]
    assert [message[-1] for message in plain.take()[1:]] == [8, 9, 10]


def test_a_state_is_looked_for_again_while_it_is_incomplete() -> None:
    """The hub's sweep does it: who is in gets it when it is there."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots)
    client = Client(room).join("ticker@A", wants_state=True)
    room.source.confirm()
    assert client.take() == [["joined", "ticker@A"]]
    room.hub.publish("ticker@B", ticker(0))
    snapshots.states["ticker@A"] = ticker(7)
    for _ in range(4):
        room.clock.advance(1)
        assert client.take() == []
    room.clock.advance(1)
    assert client.take() == [("ticker@A", 7)]
    room.clock.advance(100)
    assert snapshots.asked == ["ticker@A"] * 2


@pytest.mark.parametrize("again", [False, True])
def test_a_state_that_came_with_the_stream_is_not_sent_again(again: bool) -> None:
    """There is no seed. Some seconds after a confirmation the state is complete by itself, which who is in knows."""
    room = Room(snapshots=FakeSnapshots())
    client = Client(room).join("ticker@A", "depth@A", wants_state=True)
    room.source.confirm()
    if again:
        room.source.publish("depth@A", depth(1, is_snapshot=True))
        room.source.lose(5)
        room.source.confirm()
    room.source.publish("ticker@A", ticker(2))
    room.source.publish("depth@A", depth(2, is_snapshot=not again))
    client.take()
    room.clock.pump([1] * 100)
    assert client.take() == []
    assert Client(room).join("depth@A", wants_state=True).take()[1:] == [("depth@A", 2)]


def test_a_seed_ahead_of_the_stream_goes_to_those_who_are_in_when_the_stream_has_come_so_far() -> None:
    """In the flush that brings it there, once; who comes later gets it as he joins, and not again."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots)
    client = Client(room).join("depth@A", wants_state=True)
    plain = Client(room).join("depth@A")
    room.source.confirm()
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    snapshots.states["depth@A"] = depth(9, is_snapshot=True)
    room.clock.advance(1)
    room.source.publish("depth@A", depth(8))
    client.take()
    plain.take()
    assert Client(room).join("depth@A", wants_state=True).take() == [["joined", "depth@A"]]
    room.hub.publish("depth@A", depth(9))
    room.hub.publish("depth@A", depth(10))
    late = Client(room).join("depth@A", wants_state=True)
    assert late.take() == [["joined", "depth@A"], ("depth@A", 10)]
    books = [(message["data"]["u"], message["data"].get("snapshot")) for message in client.outbox.messages]
    assert books == [(9, None), (10, None), (10, True)]
    assert plain.take() == [("depth@A", 9), ("depth@A", 10)]
    room.clock.pump([1] * 100)
    assert late.take() == []


def test_a_stream_whose_last_client_a_jump_ends_is_not_looked_for() -> None:
    """What is pending goes out before the jump is told; without linger the stream may be gone by then."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots, linger=0)
    client = Client(room, queue=1).join("depth@A")
    room.source.confirm()
    room.source.publish("depth@A", depth(1))
    asked = len(snapshots.asked)
    client.outbox.stall()
    room.clock.advance(2)
    room.hub.publish("depth@A", depth(2))
    room.hub.publish("depth@A", depth(9))
    assert client.ended
    room.clock.pump([1] * 200)
    assert len(snapshots.asked) == asked
    room.assert_empty()


def test_a_stream_whose_last_client_a_confirmation_ends_is_forgotten() -> None:
    """The same where the source goes on elsewhere."""
    snapshots = FakeSnapshots()
    archive = FakeArchive()
    room = Room(archive, snapshots, linger=0)
    client = Client(room, queue=1).join("depth@A")
    room.source.confirm(after="4-0")
    room.source.publish("depth@A", depth(1), offsets=["5-0"])
    asked = len(snapshots.asked)
    client.outbox.stall()
    room.hub.publish("depth@A", depth(2), "6-0")
    room.hub.confirmed("depth@A", "9-0")
    assert client.ended
    room.clock.pump([1] * 200)
    assert len(snapshots.asked) == asked
    room.assert_empty()


@pytest.mark.parametrize("name", ["ticker@A", "depth@A"])
def test_what_was_heard_before_a_confirmation_is_no_state_behind_it(name: str) -> None:
    """Between the end of one subscription and the beginning of the next anything may have been missed."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots)
    client = Client(room).join(name, wants_state=True)
    heard = ticker(1) if name == "ticker@A" else b'{"e":"depth","t":1,"a":[],"b":[["1","1"]],"snapshot":true}'
    room.source.publish(name, heard)
    room.source.confirm()
    assert client.take() == [["joined", name]]
    assert snapshots.asked == [name]
    assert Client(room).join(name, wants_state=True).take() == [["joined", name]]


def test_a_book_of_too_many_levels_is_not_given_out_and_is_said(logged: LogCapture) -> None:
    """Its publications go out as ever. The log has few lines, however many books there are."""
    room = Room(max_book_levels=2)
    names = [f"depth@M{number}" for number in range(30)]
    client = member(room, *names)
    for name in names:
        room.source.publish(name, depth(1, is_snapshot=True))
        for price in (b"2", b"3"):
            room.hub.publish(name, b'{"e":"depth","t":5,"a":[["%b","1"]],"b":[],"U":2,"u":2}' % price)
        room.hub.flush()
        assert Client(room).join(name, wants_state=True).take() == [["joined", name]]
        room.source.publish(name, depth(3, is_snapshot=True))
        assert Client(room).join(name, wants_state=True).take() == [["joined", name], (name, 3)]
    assert len(client.take()) == 4 * len(names)
    lines = [event for event in logged.events if str(event.get("log_format")).startswith("the book of")]
    assert (lines[0]["stream"], lines[0]["most"]) == ("depth@M0", 2)
    assert len(lines) == 10


@pytest.mark.parametrize("end", ["lost", "refused", "unwanted"])
def test_an_answer_behind_the_end_of_the_flow_is_nobodys(end: str) -> None:
    """What is found then may be old, and is looked for again when the stream flows again."""
    snapshots = FakeSnapshots()
    snapshots.late = True
    snapshots.states["ticker@A"] = ticker(7)
    room = Room(snapshots=snapshots, linger=0)
    client = Client(room).join("ticker@A", wants_state=True)
    room.source.confirm()
    match end:
        case "lost":
            room.source.lose(5)
        case "refused":
            room.source.refuse("ticker@A")
        case _:
            client.end()
            client = Client(room).join("ticker@A", wants_state=True)
    client.take()
    snapshots.answer()
    assert client.take() == []
    room.source.confirm()
    snapshots.answer()
    assert client.take()[-1] == ("ticker@A", 7)


def test_without_an_archive_each_confirmation_begins_an_epoch(room: Room) -> None:
    """What may have been missed makes every earlier offset void; while the source is lost, they hold."""
    client = member(room, "trade@A", shape=Shape.OFFSET)
    room.source.publish("trade@A", trade(1), trade(2))
    first, second = offsets(client)
    epoch = first.rpartition("-")[0]
    assert second == f"{epoch}-2"
    room.source.lose(5)
    during = Client(room).join("trade@A", since={"trade@A": first})
    assert during.recovered == {"trade@A": True}
    room.source.confirm()
    after = Client(room).join("trade@A", since={"trade@A": second})
    assert after.recovered == {"trade@A": False}
    client.outbox.writes.clear()
    room.source.publish("trade@A", trade(3))
    (third,) = offsets(client)
    assert third.rpartition("-")[2] == "1"
    assert third.rpartition("-")[0] != epoch
    room.hub.confirmed("trade@A")
    assert Client(room).join("trade@A", since={"trade@A": third}).recovered == {"trade@A": True}


@pytest.mark.parametrize("is_whole", [False, True])
def test_with_an_archive_a_confirmation_says_whether_anything_was_missed(is_whole: bool) -> None:
    """Where it goes on where it was, history and state go on; otherwise both begin anew."""
    archive = FakeArchive()
    archive.reached = False
    room = Room(archive)
    client = Client(room).join("depth@A", wants_state=True)
    room.source.confirm(after="4-0")
    room.source.publish("depth@A", depth(1, is_snapshot=True), depth(2), offsets=["5-0", "6-0"])
    heard = room.now_ms
    room.source.lose(5)
    room.clock.advance(2)
    room.source.confirm(after="6-0" if is_whole else "8-0")
    room.hub.flush()
    client.take()
    other = Client(room).join("depth@A", since={"depth@A": "5-0"})
    assert other.recovered == {"depth@A": is_whole}
    newcomer = Client(room).join("depth@A", wants_state=True)
    assert len(newcomer.outbox.messages) == (2 if is_whole else 1)
    room.hub.publish("depth@A", depth(4), "9-0")
    room.hub.flush()
    gap = ("gap", ["depth@A"], "sequence", heard, room.now_ms)
    assert client.take() == ([gap] if is_whole else []) + [("depth@A", 4)]


def test_a_source_that_has_to_skip_something_says_so_by_confirming_anew() -> None:
    """The stream flows on from elsewhere: its jump is told, and nothing from before can be resumed."""
    archive = FakeArchive()
    archive.reached = False
    room = Room(archive)
    client = Client(room).join("ticker@A", wants_state=True)
    room.source.confirm(after="4-0")
    room.source.publish("ticker@A", ticker(1), offsets=["5-0"])
    heard = room.now_ms
    room.clock.advance(2)
    client.take()
    room.hub.confirmed("ticker@A", "5-0")
    assert client.take() == []
    room.hub.confirmed("ticker@A", "9-0")
    assert client.take() == [("gap", ["ticker@A"], "sequence", heard, room.now_ms)]
    assert Client(room).join("ticker@A", since={"ticker@A": "5-0"}).recovered == {"ticker@A": False}
    assert Client(room).join("ticker@A", wants_state=True).take() == [["joined", "ticker@A"]]


def test_what_was_missed_unnoticed_makes_the_offsets_until_then_void() -> None:
    """The archive has all that is behind them, but nobody who comes with one was told what is missing before it."""
    archive = FakeArchive()
    room = Room(archive)
    client = Client(room).join("depth@A", wants_state=True)
    room.source.confirm(after="4-0")
    room.source.publish("depth@A", depth(1, is_snapshot=True), offsets=["5-0"])
    heard = room.now_ms
    room.clock.advance(2)
    for number in (7, 8):
        archive.add("depth@A", f"{number}-0", depth(number - 5))
        room.source.publish("depth@A", depth(number - 5), offsets=[f"{number}-0"])
    during = Client(room).join("depth@A", since={"depth@A": "7-0"})
    assert during.recovered == {"depth@A": True}
    for each in (client, during):
        each.take()
    room.hub.missed("depth@A", 2.0)
    gap = ("gap", ["depth@A"], "sequence", heard, room.now_ms)
    assert client.take() == during.take() == [gap]
    for offset in ("5-0", "7-0", "8-0"):
        later = Client(room).join("depth@A", since={"depth@A": offset})
        assert later.recovered == {"depth@A": offset == "8-0"}
    assert Client(room).join("depth@A", wants_state=True).take() == [["joined", "depth@A"]]
    room.hub.confirmed("depth@A", "2-0")  # ids were set back
    archive.add("depth@A", "3-0", depth(9))
    room.source.publish("depth@A", depth(9), offsets=["3-0"])
    assert Client(room).join("depth@A", since={"depth@A": "2-0"}).recovered == {"depth@A": True}


@pytest.mark.parametrize("how", ["missed", "confirmed"])
def test_what_a_quiet_stream_loses_is_told(how: str) -> None:
    """Nothing has come since it was confirmed: what the source says to have lost is part of no gap told before."""
    archive = FakeArchive()
    archive.reached = False
    room = Room(archive)
    client = Client(room).join("trade@A")
    room.source.confirm(after="4-0")
    known = room.now_ms
    client.take()
    for end in ("7-0", "9-0"):
        room.clock.advance(5)
        if how == "missed":
            room.hub.missed("trade@A", 5)
        else:
            room.hub.confirmed("trade@A", end)
        assert client.take() == [("gap", ["trade@A"], "sequence", known, room.now_ms)]
        known = room.now_ms


def test_bad_publications_are_passed_over(logged: LogCapture) -> None:
    """A client that comes back behind one has missed nothing by it."""
    archive = FakeArchive()
    archive.reached = False
    room = Room(archive)
    first = Client(room, shape=Shape.OFFSET).join("trade@A")
    room.source.confirm(after="4-0")
    first.take()
    room.source.publish("trade@A", trade(1), b"bad", trade(2), b"bad", offsets=["5-0", "6-0", "7-0", "8-0"])
    assert offsets(first) == ["5-0", "7-0"]
    for offset, missed in (("6-0", [2]), ("7-0", []), ("8-0", [])):
        client = Client(room).join("trade@A", since={"trade@A": offset})
        assert client.recovered == {"trade@A": True}
        assert [number for _, number in client.take()[1:]] == missed
    room.source.lose(5)
    room.source.confirm(after="8-0")
    assert Client(room).join("trade@A", since={"trade@A": "5-0"}).recovered == {"trade@A": True}


def test_history_is_the_newest_that_are_kept(room: Room) -> None:
    """Of a stream that is wanted; of another there is none. Old ones go by themselves."""
    client = member(room, "trade@A", shape=Shape.OFFSET)
    room.source.publish("trade@A", trade(1), trade(2), trade(3))
    known = offsets(client)
    kept = list(zip(known, (trade(1), trade(2), trade(3)), strict=True))
    name = KINDS.parse("trade@A")
    assert entries(room.hub.history(name, 100, 1 << 20)) == kept
    assert entries(room.hub.history(name, 2, 1 << 20)) == kept[1:]
    assert entries(room.hub.history(name, 100, len(trade(1)))) == kept[2:]
    assert entries(room.hub.history(KINDS.parse("trade@B"), 100, 1 << 20)) == []
    for _ in range(302):
        room.clock.advance(1)
    assert entries(room.hub.history(name, 100, 1 << 20)) == []
    assert room.source.calls == [("want", "trade@A")]


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


def test_history_is_the_archives_where_there_is_one() -> None:
    """Read as publications are, whether the stream is wanted or not."""
    archive = FakeArchive()
    room = Room(archive)
    archive.add("trade@A", "5-0", b'{"stream":"trade@A","data":' + trade(1) + b"}")
    archive.add("trade@A", "6-0", b"bad")
    name = KINDS.parse("trade@A")
    assert entries(room.hub.history(name, 10, 1 << 20)) == [("5-0", trade(1))]
    Client(room).join("trade@A")
    assert entries(room.hub.history(name, 10, 1 << 20)) == [("5-0", trade(1))]
    assert archive.asked == [("trade@A", 10, 1 << 20)] * 2
    archive.reached = False
    assert entries(room.hub.history(name, 10, 1 << 20)) is None


def test_who_waits_for_a_book_may_go(room: Room) -> None:
    """Nothing of its wait is left, and the stream goes as others do."""
    book = room.hub.book(KINDS.parse("depth@A"))
    book.addErrback(lambda failure: failure.trap(CancelledError) and None)
    assert room.hub.streams == {"depth@A"}
    book.cancel()
    room.source.confirm()
    room.clock.advance(KEPT_SECONDS)
    room.clock.advance(LINGER)
    room.assert_empty()


def test_a_book_is_given_as_soon_as_it_is_complete() -> None:
    """Whoever asks waits for it; without room there is none."""
    room = Room(max_distinct_streams=1)
    name = KINDS.parse("depth@A")
    early = found(room.hub.book(name))
    room.source.confirm()
    room.clock.advance(2)
    late = found(room.hub.book(name))
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    assert early == late == []
    room.clock.advance(0.1)
    assert early == late != []
    (book,) = found(room.hub.book(name))
    assert [book] == early
    assert isinstance(book, BookState)
    assert book.last == 1
    assert found(room.hub.book(KINDS.parse("depth@B"))) == [NoBook.INCOMPLETE]
    room.source.lose(5)
    lost = found(room.hub.book(name))
    room.clock.advance(BOOK_SECONDS)
    assert lost == [NoBook.INCOMPLETE]


@pytest.mark.parametrize("every", [7, 13, 59])
def test_who_polls_gets_a_book(every: int) -> None:
    """However seldom: the stream is wanted until the next time, and a snapshot of its engine is remembered."""
    room = Room()
    name, answers = KINDS.parse("depth@A"), []
    snapshots = iter(range(1, 10_000))
    for second in range(max(4 * every, 120)):
        if second % every == 0:
            answers.append(found(room.hub.book(name)))
            room.source.confirm()
        if second % 31 == 30:
            room.source.publish("depth@A", depth(next(snapshots), is_snapshot=True))
        room.clock.advance(0.5)
        room.clock.advance(0.5)
    assert isinstance(answers[-1][0], BookState)
    assert room.source.calls == [("want", "depth@A")]
    for _ in range(2):
        room.clock.advance(KEPT_SECONDS)
    room.assert_empty()


def test_a_book_that_cannot_be_had() -> None:
    """After five seconds, which is said of a market of which nothing is known; at the end of the hub at once."""
    room = Room()
    confirmed = [found(room.hub.book(KINDS.parse(f"depth@{market}"))) for market in "AB"]
    room.source.confirm()
    room.source.publish("depth@A", depth(1))
    other = found(room.hub.book(KINDS.parse("depth@C")))
    assert found(room.hub.book(KINDS.parse("ticker@A"))) == [NoBook.INCOMPLETE]
    room.clock.advance(BOOK_SECONDS - 0.01)
    assert confirmed == [[], []]
    room.clock.advance(0.1)
    assert confirmed == [[NoBook.INCOMPLETE], [NoBook.UNKNOWN]]
    assert other == [NoBook.INCOMPLETE]
    at_end = Room(linger=0)
    books = [found(at_end.hub.book(KINDS.parse(f"depth@{market}"))) for market in "ABC"]
    at_end.hub.stopService()
    assert books == [[NoBook.INCOMPLETE]] * 3
    at_end.assert_empty()


def test_streams_that_are_kept_for_those_who_ask_are_not_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many, the one that was asked for longest ago is kept no longer."""
    monkeypatch.setattr("marketfeed.hub.queries._MOST_KEPT", 2)
    room = Room(linger=0)
    for market in "ABAC":
        found(room.hub.book(KINDS.parse(f"depth@{market}")))
    room.clock.advance(BOOK_SECONDS + 1)
    assert room.hub.streams == {"depth@A", "depth@C"}
    room.clock.advance(KEPT_SECONDS)
    room.assert_empty()


def test_what_is_discovered_is_kept_without_clients() -> None:
    """By its canonical name, once, and while there is room; whoever comes finds it flowing and its state ready."""
    room = Room(max_distinct_streams=2)
    for name in ("ticker@A", "ticker@A", "a@ticker", "nonsense", "other@A", "trade@A", "trade@B"):
        room.hub.discovered(name)
    assert room.hub.streams == {"ticker@A", "trade@A"}
    assert room.source.calls == [("want", "ticker@A"), ("want", "trade@A")]
    room.source.confirm()
    room.source.publish("ticker@A", ticker(1))
    client = Client(room).join("ticker@A", wants_state=True)
    assert client.take() == [["joined", "ticker@A"], ("ticker@A", 1)]
    client.end()
    room.clock.advance(LINGER)
    assert room.hub.streams == {"ticker@A", "trade@A"}


def test_a_hub_that_was_never_started_can_be_stopped() -> None:
    """A start may fail before its turn comes."""
    hub = Hub(Clock(), HubLimits())
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


class Known:
    """What the model knows of a stream that the source is asked for."""

    def __init__(self, gap: Gap | None) -> None:
        self.confirmed = False
        self.gap = gap
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

    def joined(self, groups: dict[str, Group], recovered: dict[str, bool] | None) -> None:
        try:
            self.machine.answered(self, list(groups))
        except Exception as fault:  # which the hub would take for the session's
            self.machine.faults.append(fault)
        super().joined(groups, recovered)

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
                    assert left.may_miss or not left.due
            case ("gap", spellings, reason, since, None):
                for spelling in spellings:
                    assert self.live[spelling].gap != (reason, since), "told twice"
                    self.live[spelling].gap = (reason, since)
            case ("gap", spellings, reason, since, until):
                assert until >= since
                for spelling in spellings:
                    assert self.live[spelling].gap == (reason, since)
                    self.live[spelling].gap = None
            case (spelling, number):
                subscription = self._subscription(spelling, number)
                assert subscription.due.popleft() == number
                assert subscription.gap is None, "a publication inside a gap"
            case _:
                raise AssertionError(f"nobody sends {message}")

    def _subscription(self, spelling: str | None, number: int) -> Subscription:
        if spelling is not None:
            return self.live[spelling]
        stream = self.machine.published[number]  # a raw client cannot tell its spellings apart
        mine = (each for name, each in self.live.items() if str(KINDS.parse(name)) == stream)
        return next(each for each in mine if each.due and each.due[0] == number)


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
            down = None if self.down_since is None else ("source-down", self.down_since)
            self.known.setdefault(name, Known(down)).expires = None
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
            known.gap = ("source-refused", known.gap[1] if known.gap else self.room.now_ms)
        known.confirmed = False
        for wish in self.wishes.values():
            wish.missing.discard(stream)
        self.source.refuse(stream)

    @precondition(lambda self: self.flowing or self.wishes)
    @rule(ago=st.none() | st.integers(0, 2000))
    def lose(self, ago: int | None) -> None:
        last_good = None if ago is None else self.room.now_ms - ago
        self.down_since = self.room.now_ms if last_good is None else last_good
        for known in self.known.values():
            known.confirmed = False
            known.gap = known.gap or ("source-down", self.down_since)
        for wish in self.wishes.values():
            wish.missing.clear()
        self.source.lose(last_good)

    @precondition(lambda self: self.down_since is not None)
    @rule()
    def reach(self) -> None:
        self.down_since = None
        self.source.reach()

    @rule(seconds=st.sampled_from([1, 3, 3]))
    def wait(self, seconds: float) -> None:
        until = self.clock.seconds() + seconds
        while due := [call.getTime() for call in self.clock.getDelayedCalls() if call.getTime() <= until]:
            self._wait_until(min(due))
        self._wait_until(until)

    def _wait_until(self, moment: float) -> None:
        for wish in self.wishes.values():
            if wish.deadline is not None and wish.deadline <= moment:
                late, wish.missing = wish.missing, set()
                for stream in late:
                    self.known[stream].gap = self.known[stream].gap or ("source-down", wish.since)
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
                assert not any(subscription.due for subscription in client.live.values())
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
