"""Groups: one for each spelling, shape, window and wish for state; framed once, and read back."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.hub.groups import Audience, Audiences, is_member, overhead
from marketfeed.model.book import DepthMessage
from marketfeed.wire.deflate import compressed_body, compressed_frame, inflate
from marketfeed.wire.dialects import Shape
from tests.fakes import AT, FakeSubscriber, make_group, make_stream, payloads
from tests.rooms import KINDS, Client, Room, member, trade
from tests.strategies import property_test, publications


def test_a_stream_has_one_group_for_each_spelling_shape_and_window() -> None:
    """Who spells a stream alike and wants the same shape, compressed alike, shares a group."""
    live = make_stream("depth@A")
    asked = [
        ("depth@A", Shape.ENVELOPE, 0, False),
        ("depth@A", Shape.DATA, 0, False),
        ("a@depth", Shape.ENVELOPE, 0, False),
        ("depth@A", Shape.ENVELOPE, 15, False),
        ("depth@A", Shape.ENVELOPE, 9, True),
        ("depth@A", Shape.ENVELOPE, 0, False),
        ("depth@A", Shape.ENVELOPE, 15, False),
        ("depth@A", Shape.OFFSET, 0, False),
    ]
    groups = [live.group(*key) for key in asked]
    assert groups[0] is groups[5]
    assert groups[3] is groups[6]
    assert len(set(groups)) == 6
    assert live.groups == {group.key: group for group in groups}


@pytest.mark.parametrize("size", [2, 60, 125, 126, 200, 65_535, 65_536, 70_000])
def test_a_publication_is_framed_as_its_group_wants_it(size: int) -> None:
    """The data alone, or in an envelope that echoes the client's spelling; the data's bytes are the engine's."""
    data = b'"' + b"x" * (size - 2) + b'"'
    live = make_stream()
    envelope = b'{"stream":"a@trade","data":' + data
    expected_of = {
        Shape.DATA: data,
        Shape.ENVELOPE: envelope + b"}",
        Shape.OFFSET: envelope + b',"offset":"7-1"}',
    }
    for shape, expected in expected_of.items():
        group = live.group("a@trade", shape, 0, False)
        assert payloads(group.framed(data, AT)) == [expected]
        assert len(group.framed(data, AT)) <= len(data) + overhead(group.spelling, group.shape)
        msgspec.json.decode(expected)


@property_test
@given(publications("depth"), st.sampled_from(Shape), st.sampled_from((0, *range(9, 16))))
def test_a_compressed_publication_is_the_same_publication(data: str, shape: Shape, window: int) -> None:
    """Compressed where that makes it smaller, and only for those who asked; never larger than without."""
    payload = data.encode()
    plain = make_group("depth@A", shape=shape).framed(payload, AT)
    frame = make_group("depth@A", shape=shape, window=window).framed(payload, AT)
    assert len(frame) <= len(plain)
    if frame != plain:
        assert window
        assert frame[0] == 0xC1
        reader = zlib.decompressobj(-window)
        assert [reader.decompress(frame[2 if frame[1] < 126 else 4 :] + b"\0\0\xff\xff")] == payloads(plain)


@property_test
@given(publications("depth"), st.sampled_from(Shape), st.sampled_from((0, 9, 15)))
def test_what_a_frame_holds_is_read_back(data: str, shape: Shape, window: int) -> None:
    """A depth message that waits is found in its frame again, whatever its group made of it."""
    payload = data.encode()
    group = make_group("depth@A", shape=shape, window=window)
    depth = group.depth(group.framed(payload, AT))
    assert depth is not None
    assert group.offset(group.framed(payload, AT)) == (AT if shape is Shape.OFFSET else "")
    assert depth.to_bytes() == DepthMessage.parse(payload).to_bytes()


@pytest.mark.parametrize("data", [b"{}", b'{"a":[],"b":[["x","1"]]}', b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_a_frame_without_a_depth_message_is_nobodys_fault(data: bytes) -> None:
    """`--validate warn` lets such a thing through to a depth stream."""
    group = make_group("depth@A", shape=Shape.ENVELOPE)
    assert group.depth(group.framed(data, AT)) is None


@pytest.mark.parametrize("shape", Shape)
def test_nothing_is_longer_than_its_data_and_the_overhead(shape: Shape) -> None:
    """Also with the longest offset that a source can give: two numbers of 64 bits."""
    offset = "-".join(["9" * 20] * 2)
    for size in (2, 200, 70_000):
        data = b'"' + b"x" * (size - 2) + b'"'
        group = make_stream("trade@A").group("a@trade", shape, 0, False)
        assert len(group.framed(data, offset)) <= size + overhead(group.spelling, group.shape)


def test_a_group_begins_empty() -> None:
    """Nobody is in it, and nothing is pending; the same goes for an audience."""
    group = make_group("trade@A")
    assert not any((group.audiences, group.size, group.frames, group.depths, group.data))
    audience = Audience(frozenset((group,)))
    assert not any((audience.members, audience.batch))


def test_who_is_in_a_group_is_known_by_its_audience() -> None:
    """A client that watches nothing is in none."""
    group, other, client = make_group("trade@A"), make_group("trade@B"), FakeSubscriber()
    assert not is_member(client, group)
    client.audience = Audience(frozenset((group,)))
    assert is_member(client, group)
    assert not is_member(client, other)


changes = st.lists(
    st.tuples(st.integers(0, 4), st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3))), min_size=1, max_size=25
)


@property_test
@given(changes)
def test_audiences_beside_a_dict_of_sets(script: list[tuple[int, set[int], set[int]]]) -> None:
    """Whoever joins and leaves: each set of groups that somebody is in has one audience, and all know of each other."""
    audiences = Audiences()
    groups = [make_group(f"trade@{number}") for number in range(4)]
    members = [FakeSubscriber() for _ in range(5)]
    model: list[set[int]] = [set() for _ in members]
    for who, join, leave in script:
        left = audiences.change(members[who], [groups[each] for each in join], [groups[each] for each in leave])
        assert {groups.index(group) for group in left} == model[who] & leave
        model[who] = (model[who] | join) - (model[who] & leave)
        for number, group in enumerate(groups):
            watching = [member for member, sets in zip(members, model, strict=True) if number in sets]
            assert [is_member(member, group) for member in members] == [number in sets for sets in model]
            assert group.size == len(watching)
            assert {member for audience in group.audiences for member in audience.members} == set(watching)
        assert len(audiences) == len({frozenset(each) for each in model if each})
    for each in members:
        audiences.change(each, [], groups)
        assert each.audience is None
    assert not len(audiences)
    assert not any(group.audiences or group.size for group in groups)


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
    room.end(*clients.values(), other)


def test_what_is_the_same_is_compressed_once(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who spells a stream alike shares the compressed bytes, whatever else differs; so do all who want data alone.

    What goes through a window is another message.
    """
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
        rates = len({KINDS.parse(spelling).rate for spelling in spellings})
        assert len(compressed) == 2 * (rates + 2 * len(spellings)), "for windows of 9 bits, and for all larger ones"
        room.clock.advance(2)
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
    assert len(compressed) == 3 * len({KINDS.parse(spelling).rate for spelling in spellings})
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
