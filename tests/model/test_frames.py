"""Frames, read back by RFC 6455, section 5.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.frames import text_frame, text_header
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
