"""Compressed frames, read by an inflater of the other side's window: RFC 7692, section 7.2."""

from __future__ import annotations

import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.wire.deflate import LEAST, compressed_body, compressed_frame, frame_around, inflate, useful_window
from marketfeed.wire.frames import text_frame
from tests.strategies import property_test

WINDOWS = range(9, 16)
TEXT, COMPRESSED_TEXT = 0x81, 0xC1  # final, and the first reserved bit


def unframed(frame: bytes) -> tuple[int, bytes]:
    """First byte and payload of the one frame that is there, whose length is written as short as can be."""
    first, size = frame[0], frame[1]
    assert size < 128, "masked"
    start = 2
    if size == 126:
        start, size = 4, int.from_bytes(frame[2:4], "big")
        assert size > 125
    elif size == 127:
        start, size = 10, int.from_bytes(frame[2:10], "big")
        assert size > 65535
    assert len(frame) == start + size
    return first, frame[start:]


def inflated(body: bytes, window: int) -> bytes:
    """What a client with this window reads. It keeps nothing of the messages before, and needs nothing of them."""
    reader = zlib.decompressobj(-window)
    payload = reader.decompress(body + b"\x00\x00\xff\xff")
    assert not reader.unused_data
    assert not reader.eof
    return payload


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


words = st.lists(st.sampled_from(("1000.50", '"a":', '["', '"]', "0", "TATA_INR")), min_size=60, max_size=400)
repeated = st.builds(bytes.__mul__, st.binary(min_size=1, max_size=300), st.integers(1, 300))
payloads = words.map(" ".join).map(str.encode) | repeated | st.binary(min_size=LEAST, max_size=3 * LEAST)


@property_test
@given(payloads, st.sampled_from(WINDOWS))
def test_a_frame_inflates_to_the_payload(payload: bytes, window: int) -> None:
    """With an inflater of exactly that window; a frame is smaller than what it stands for, or there is none."""
    frame = compressed_frame(payload, window)
    if frame is None:
        assert inflate(text_frame(payload)) == payload
        return
    first, body = unframed(frame)
    assert first == COMPRESSED_TEXT
    assert len(body) < len(payload) >= LEAST
    assert inflated(body, window) == payload
    assert inflate(frame) == payload


@property_test
@given(st.binary(max_size=200), payloads, st.binary(max_size=100), st.sampled_from(WINDOWS))
def test_what_is_compressed_once_may_stand_between_anything(
    head: bytes, payload: bytes, tail: bytes, window: int
) -> None:
    """With an inflater of exactly that window, too."""
    frame = frame_around(head, compressed_body(payload, window), tail)
    first, body = unframed(frame)
    assert first == COMPRESSED_TEXT
    assert inflated(body, window) == head + payload + tail
    assert inflate(frame) == head + payload + tail


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [511, 512, 513, 1023, 1024, 32_767, 32_768, 32_769, 65_536, 300_000])
def test_no_window_is_reached_beyond(window: int, size: int) -> None:
    """A repetition from further back than the window is not referred to, however large the message."""
    start = noise(300)
    payload = start + noise(size - 600) + start if size > 600 else start + start[: size - 300]
    payload += b" " * (3000 + size // 10)  # or it would not be worth compressing
    frame = compressed_frame(payload, window)
    assert frame is not None
    assert inflated(unframed(frame)[1], window) == payload


@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_is_used_as_far_as_it_goes(window: int) -> None:
    """What repeats within the window is written once."""
    part = noise((1 << window) // 3)  # zlib looks back 262 bytes less than the window
    frame = compressed_frame(part * 4, window)
    assert frame is not None
    assert len(frame) < 1.3 * len(part)


def test_a_larger_window_than_the_message_needs_changes_nothing() -> None:
    """The frame of a short message is the same for every client that could read it."""
    payload = json.dumps([["1000.50", str(number)] for number in range(40)]).encode()
    assert len({compressed_frame(payload, window) for window in range(10, 16)}) == 1


@property_test
@given(payloads, st.sampled_from(WINDOWS), st.sampled_from(WINDOWS))
def test_windows_of_as_many_useful_bits_make_the_same_frame(payload: bytes, one: int, other: int) -> None:
    """And a client can read what was compressed for a smaller window than its own."""
    if useful_window(len(payload), one) == useful_window(len(payload), other):
        assert compressed_frame(payload, one) == compressed_frame(payload, other)
    assert useful_window(len(payload), one) <= one


@pytest.mark.parametrize("size", [0, 1, 125, LEAST - 1])
def test_what_is_small_is_not_compressed(size: int) -> None:
    """Whatever it could save, it would not be worth the time."""
    assert compressed_frame(b"a" * size, 15) is None
    assert compressed_frame(b"a" * LEAST, 15) is not None


@property_test
@given(st.integers(LEAST, 70_000), st.sampled_from(WINDOWS))
def test_what_cannot_be_compressed_is_not(size: int, window: int) -> None:
    """Deflated noise is longer than noise."""
    assert compressed_frame(noise(size), window) is None


@property_test
@given(payloads, st.sampled_from(WINDOWS))
def test_the_same_payload_makes_the_same_frame(payload: bytes, window: int) -> None:
    """Nothing of earlier messages is in it, so that who comes later can read it too."""
    assert compressed_frame(payload, window) == compressed_frame(payload, window)


@property_test
@given(st.binary(max_size=300) | st.sampled_from((65_535, 65_536, 70_000)).map(noise))
def test_an_uncompressed_frame_is_read_back(payload: bytes) -> None:
    """Headers of every length."""
    frame = text_frame(payload)
    assert unframed(frame) == (TEXT, payload)
    assert inflate(frame) == payload
