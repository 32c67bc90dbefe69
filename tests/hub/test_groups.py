"""Groups: one for each spelling, shape, window and wish for state; framed once, and read back."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.hub.groups import Audience, is_member, overhead
from marketfeed.model.book import DepthMessage
from marketfeed.wire.dialects import Shape
from tests.fakes import AT, FakeSubscriber, make_group, make_stream, payloads
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
        assert len(group.framed(data, AT)) <= len(data) + group.overhead
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
        assert len(group.framed(data, offset)) <= size + group.overhead
    assert group.overhead == overhead("a@trade", shape)


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
