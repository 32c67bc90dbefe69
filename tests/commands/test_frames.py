"""Frames cut as a client gets them, and written as it sends them: what no server may send is refused."""

from __future__ import annotations

import zlib

import pytest
from autobahn.websocket.xormasker import create_xor_masker

from marketfeed.commands.frames import CLOSE, MAX_MESSAGE, PING, PONG, BadFrames, cut, masked_frame
from tests import by_hand
from tests.by_hand import BINARY, CONTINUATION, TEXT


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, deflated: bool = False) -> bytes:
    """A frame as a server sends it."""
    return by_hand.frame(payload, opcode, fin=fin, rsv=4 if deflated else 0, mask=None)


def unmasked(sent: bytes) -> tuple[int, bytes]:
    """The first byte and the payload of one frame that a client has sent."""
    size = sent[1] & 0x7F
    start = {126: 8, 127: 14}.get(size, 6)
    assert sent[1] & 0x80
    if size > 125:
        size = int.from_bytes(sent[2 : start - 4], "big")
    assert len(sent) == start + size
    return sent[0], bytes(create_xor_masker(sent[start - 4 : start], size).process(sent[start:]))


def test_a_message_may_be_in_parts() -> None:
    """With control frames amid them, which come first; what is behind it is left."""
    data = frame(b"a", fin=False) + frame(b"?", PING) + frame(b"b", CONTINUATION)
    found = cut(data + frame(b"c"))
    assert found == (b"ab", [(PING, b"?")], len(data))
    assert all(cut(data[:size]) is None for size in range(len(data)))


def test_a_close_may_have_a_code() -> None:
    """1005 where it has none."""
    codes = []
    for payload in (b"\x0f\xa8slow", b""):
        found = cut(b"\x81\x00" + frame(payload, CLOSE), 2)
        assert found is not None
        codes += [control.close_code for control in found[1]]
    assert codes == [4008, 1005]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x81\x81maskx", "a masked frame"),
        (frame(b"", 3), "a frame that begins with 0x83"),
        (frame(b"x", fin=False) + frame(b"", PING, fin=False), "a frame that begins with 0x09"),
        (frame(b"", PING, deflated=True), "a frame that begins with 0xc9"),
        (frame(bytes(126), PING), "a frame that begins with 0x89"),
        (bytes((0xA1, 0)), "a frame that begins with 0xa1"),
        (frame(b"x", fin=False) + frame(b"x", CONTINUATION, deflated=True), "a frame that begins with 0xc0"),
        (frame(b"\xc3", fin=False) + frame(b"(", CONTINUATION), "a text that is not UTF-8"),
        (frame(b"x", CONTINUATION), "a frame that begins with 0x80"),
        (frame(b"x", fin=False) + frame(b"y"), "a frame that begins with 0x81"),
        (bytes((0x81, 127)) + (1 << 40).to_bytes(8, "big"), "a message of more than"),
        (frame(b"\xff\xff", deflated=True), "a message that cannot be inflated"),
    ],
)
def test_what_no_server_may_send(sent: bytes, why: str) -> None:
    """It is refused with a word about what it was."""
    with pytest.raises(BadFrames, match=why):
        cut(sent)


def test_compression_that_was_not_offered() -> None:
    """A frame that is deflated all the same is refused."""
    with pytest.raises(BadFrames, match="a frame that begins with 0xc1"):
        cut(frame(b"\x03\0", deflated=True), may_deflate=False)


def test_text_and_binary() -> None:
    """A character may be in two frames; what is no text may be anything."""
    data = frame(b"\xc3", fin=False) + frame(b"\xa9", CONTINUATION)
    assert cut(data) == ("\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), [], len(data))
    assert cut(frame(b"\xff", BINARY)) == (b"\xff", [], 3)


def test_a_message_that_inflates_without_bounds() -> None:
    """A few bytes may not fill the memory."""
    deflater = zlib.compressobj(wbits=-15)
    bomb = deflater.compress(bytes(MAX_MESSAGE + 1)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(BadFrames, match="a message of more than"):
        cut(frame(bomb.removesuffix(b"\0\0\xff\xff"), deflated=True))


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_clients_frame_is_masked(size: int) -> None:
    """With another mask each time; its length has the shortest form (RFC 6455, section 5.2)."""
    payload = (b"marketfeed" * (size // 10 + 1))[:size]
    assert unmasked(masked_frame(payload, PONG)) == (0x8A, payload)
    assert len(masked_frame(payload)) == size + 6 + (0 if size < 126 else 2 if size < 65536 else 8)
    assert len({masked_frame(b"")[2:] for _ in range(20)}) > 1
