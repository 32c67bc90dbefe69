"""Frames, read back by RFC 6455, section 5.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.wire.frames import frame_end, masked_text, text_frame, text_header
from tests.strategies import property_test

LENGTHS = [0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 1 << 20]


def read_frame(frame: bytes) -> tuple[int, bytes]:
    """The first byte of a frame, and its payload; fails for a length that is not written in the fewest bytes."""
    first, length, rest = frame[0], frame[1], frame[2:]
    assert not length & 0x80, "a server does not mask"
    if length == 126:
        length, rest = int.from_bytes(rest[:2], "big"), rest[2:]
        assert length > 125
    elif length == 127:
        length, rest = int.from_bytes(rest[:8], "big"), rest[8:]
        assert 65535 < length < 1 << 63
    assert len(rest) == length
    return first, rest


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths(length: int) -> None:
    """A frame is final, a text, unmasked, without extension bits, at every border of the length's encoding."""
    payload = b"x" * length
    frame = text_frame(payload)
    assert read_frame(frame) == (0x80 | 0x1, payload)
    assert frame == text_header(length) + payload


@property_test
@given(st.lists(st.sampled_from(LENGTHS[:-1]), min_size=1, max_size=4), st.data())
def test_where_a_frame_ends(lengths: list[int], data: st.DataObject) -> None:
    """At every byte of it, from the second one on; at its first, the one before has just ended."""
    frames = [text_frame(b"x" * length) for length in lengths]
    ends = [0]
    for frame in frames:
        ends.append(ends[-1] + len(frame))
    at = data.draw(st.integers(0, ends[-1]) | st.sampled_from(ends))
    assert frame_end(b"".join(frames), at) == min(end for end in ends if end >= at)


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "8100"),
        (5, "8105"),
        (125, "817d"),
        (126, "817e007e"),
        (256, "817e0100"),
        (65535, "817effff"),
        (65536, "817f0000000000010000"),
        (2**40, "817f0000010000000000"),
    ],
)
def test_headers(length: int, header: str) -> None:
    """The headers, byte for byte; the first, 256 and 65536 are lengths of the RFC's own examples (section 5.7)."""
    assert text_header(length).hex() == header


@property_test
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_payload(first: bytes, second: bytes) -> None:
    """Frames that follow one another can be told apart."""
    stream = text_frame(first) + text_frame(second)
    border = len(stream) - len(text_frame(second))
    assert read_frame(stream[:border])[1] == first
    assert read_frame(stream[border:])[1] == second


def masked(payload: bytes, mask: bytes, *, first: int = 0x81) -> bytes:
    """A client's frame with this first byte."""
    header = text_header(len(payload))
    head = bytes((first, header[1] | 0x80)) + header[2:]
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class TestMaskedText:
    @property_test
    @given(st.text(min_size=1, max_size=300), st.binary(min_size=4, max_size=4))
    def test_a_whole_message_is_read(self, text: str, mask: bytes) -> None:
        """Whatever its length and its mask."""
        assert masked_text(masked(text.encode(), mask)) == text.encode()

    @pytest.mark.parametrize("length", [1, 125, 126, 127, 254, 255, 65535])
    def test_lengths(self, length: int) -> None:
        """Every border of the length's encoding, up to what has two bytes."""
        assert masked_text(masked(b"x" * length, b"abcd")) == b"x" * length

    @property_test
    @given(st.text(min_size=1, max_size=200), st.data())
    def test_less_or_more_is_not(self, text: str, data: st.DataObject) -> None:
        """Half a frame is not, nor what has something behind it."""
        frame = masked(text.encode(), b"abcd")
        assert masked_text(frame[: data.draw(st.integers(0, len(frame) - 1))]) is None
        assert masked_text(frame + data.draw(st.binary(min_size=1, max_size=200))) is None

    @pytest.mark.parametrize(
        "frame",
        [
            masked(b"a", b"abcd", first=0x01),
            masked(b"a", b"abcd", first=0xC1),
            masked(b"a", b"abcd", first=0x82),
            masked(b"a", b"abcd", first=0x80),
            masked(b"", b"abcd"),
            masked(b"x" * 65536, b"abcd"),
            masked(b"\xff", b"abcd"),
            masked(b"\xed\xa0\x80", b"abcd"),
            text_frame(b"12345"),
            text_frame(b"x" * 126),
            b"\x81\xfe\x00\x05abcd" + b"x" * 5,
        ],
        ids=lambda frame: frame[:12].hex(),
    )
    def test_everything_else_is_left_to_others(self, frame: bytes) -> None:
        """Fragments, compression, other kinds, no mask, a length in more bytes than it needs, what is no UTF-8."""
        assert masked_text(frame) is None

    @property_test
    @given(st.binary(max_size=40))
    def test_any_bytes(self, data: bytes) -> None:
        """Nothing is raised, and nothing is read that the same bytes would not be made of again."""
        payload = masked_text(data)
        if payload is not None:
            assert masked(payload, data[2:6]) == data
