"""How frames are read, beyond what Autobahn looks at: what a peer may send without end, and messages at the limit."""

from __future__ import annotations

import inspect
import zlib
from itertools import pairwise
from typing import Any

import pytest
import txaio.tx
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.websocket.parser import FrameReader
from tests.strategies import property_test
from tests.websocket.test_lean import (
    CLOSE,
    COMPRESSED,
    CONTINUATION,
    MAX_MESSAGE,
    PING,
    TEXT,
    Server,
    deflated,
    frame,
    opened,
    reads,
)


@pytest.fixture(autouse=True)
def _own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autobahn's timers use the clock that a test makes; afterwards it is what it was."""
    monkeypatch.setattr(txaio.tx.config, "loop", txaio.tx.config.loop)


def endless(size: int = 2**40) -> bytes:
    """The head of a ping that announces `size` bytes."""
    return bytes((0x80 | PING, 0xFF)) + size.to_bytes(8, "big") + b"\0\0\0\0"


def messages(server: Server) -> list[Any]:
    return [event[1] for event in server.protocol.events if event[0] == "message"]


def kept(protocol: Any) -> int:
    """Bytes and pieces of what was received that a connection holds on to."""
    total = 0
    for name in ("data", "frame_data", "message_data", "control_frame_data"):
        value = getattr(protocol, name, None) or b""
        total += len(value) if isinstance(value, bytes) else sum(len(piece) + 1 for piece in value)
    deflate = protocol._perMessageCompress
    return total + (len(deflate._decompressor.unused_data) if deflate is not None and deflate._decompressor else 0)


class TestWithoutEnd:
    """Whatever a peer goes on sending, what is kept of it does not grow past the largest message."""

    def flood(self, server: Server, data: bytes) -> None:
        for _ in range(200):
            server.receive(data)
            assert kept(server.protocol) < 2 * MAX_MESSAGE

    @pytest.mark.parametrize("size", [0, 1])
    def test_empty_fragments(self, size: int) -> None:
        """They are allowed, and any number of them is an empty message."""
        server = opened()
        server.receive(frame(b"a" * size, TEXT, fin=False))
        self.flood(server, 20 * frame(b"", CONTINUATION, fin=False))
        server.receive(frame(b"b", CONTINUATION))
        assert messages(server) == [b"a" * size + b"b"]

    @pytest.mark.parametrize("whole", [True, False], ids=["one frame", "fragments"])
    def test_tiny_pieces(self, whole: bool) -> None:
        """A message of the largest size is kept in few pieces, however it was cut: each takes some fifty bytes."""
        server = opened()
        text = bytes(range(32, 127)) * 10
        pieces = [text[at : at + 2] for at in range(0, len(text), 2)]
        if whole:
            said = [frame(text, TEXT)[:8], *(frame(text, TEXT)[at : at + 1] for at in range(8, 8 + len(text)))]
        else:
            kinds = [TEXT] + [CONTINUATION] * (len(pieces) - 1)
            said = [frame(piece, kind, fin=False) for piece, kind in zip(pieces, kinds, strict=True)]
        most = 0
        for piece in said:
            server.receive(piece)
            protocol = server.protocol
            most = max(most, len(protocol.message_data or ()), len(protocol.frame_data or ()))
        if not whole:
            server.receive(frame(b"", CONTINUATION))
        assert messages(server) == [text]
        assert 100 < most <= 257

    def test_compressed_fragments_that_hold_nothing(self) -> None:
        """Blocks of deflate may be empty as well."""
        server = opened()
        nothing = deflated(b"") + b"\0\0\xff\xff"
        server.receive(frame(nothing, TEXT, rsv=COMPRESSED, fin=False))
        self.flood(server, 20 * frame(b"\0\0\0\xff\xff", CONTINUATION, fin=False))
        server.receive(frame(deflated(b"text"), CONTINUATION))
        assert messages(server) == [b"text"]

    def test_data_behind_the_last_block(self) -> None:
        """What follows a finished stream of deflate would be ignored, and kept: 1007."""
        server = opened()
        last = zlib.compressobj(6, zlib.DEFLATED, -15)
        server.receive(frame(last.compress(b"text") + last.flush(), TEXT, rsv=COMPRESSED, fin=False))
        self.flood(server, frame(b"x" * 900, CONTINUATION, fin=False))
        assert server.protocol.localCloseCode == 1007
        assert messages(server) == []

    def test_a_message_of_a_finished_stream(self) -> None:
        """As RFC 7692, section 7.2.3.4, has it: the last block, and one byte of an empty one behind it."""
        server = opened()
        for text in (b"one", b"two"):
            last = zlib.compressobj(6, zlib.DEFLATED, -15)
            server.receive(frame(last.compress(text) + last.flush() + b"\0", TEXT, rsv=COMPRESSED))
        assert messages(server) == [b"one", b"two"]

    @pytest.mark.parametrize(
        "data",
        [
            endless(),
            frame(b"x", 3) + endless(),
            frame(b"x" * (MAX_MESSAGE + 1), TEXT, fin=False),
            frame(b"\xff", TEXT, fin=False),
            frame(deflated(b"x" * 100_000), TEXT, rsv=COMPRESSED, fin=False),
            frame(b"\xff", TEXT, rsv=COMPRESSED, fin=False),
        ],
        ids=["control frame", "behind a violation", "too large", "not UTF-8", "bomb", "no deflate"],
    )
    @pytest.mark.parametrize(
        "flood", [b"x" * 1000, frame(b"x" * 900, CONTINUATION, fin=False)], ids=["bytes", "frames"]
    )
    def test_what_follows_a_violation(self, data: bytes, flood: bytes) -> None:
        """It is skipped until the peer answers our close, which it has some seconds for."""
        server = opened()
        server.receive(data)
        assert server.protocol.localCloseCode in (1002, 1007, 1009)
        self.flood(server, flood)
        assert server.transport.value().count(b"\x88") == 1


class TestAfterAViolation:
    VIOLATIONS = (
        frame(b"x", 3),
        frame(b"x", TEXT, masked=False),
        frame(b"", PING, wide=2),
        frame(b"x" * 126, PING),
        frame(b"\xff", TEXT),
        frame(b"\xff", TEXT, fin=False),
        frame(b"x" * 1001, TEXT),
        frame(deflated(b"x" * 100_000), TEXT, rsv=COMPRESSED),
        frame(b"\xff", TEXT, rsv=COMPRESSED),
        frame(b"\x03" * 9, TEXT, rsv=COMPRESSED),
        frame(b"x", TEXT, rsv=1, fin=False) + frame(b"x", TEXT, rsv=1),
    )

    @pytest.mark.parametrize("data", VIOLATIONS, ids=range(len(VIOLATIONS)))
    @pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
    def test_the_answer_to_our_close_is_read(self, data: bytes, chunk: int) -> None:
        """However the bytes are cut, and whether the peer has sent more before it; then the connection ends."""
        server = opened()
        for at in range(0, len(data), chunk):
            server.receive(data[at : at + chunk])
        assert not server.transport.disconnecting
        said = frame(b"more", TEXT) + frame(b"p", PING) + frame(b"\x03\xeabye", CLOSE)
        for at in range(0, len(said), chunk):
            server.receive(said[at : at + chunk])
        assert server.transport.disconnecting
        assert server.protocol.wasClean
        assert server.transport.value().count(b"\x88") == 1
        assert messages(server) == []

    def test_a_close_in_the_same_read_counts(self) -> None:
        """It stands behind the message that was not read to its end."""
        for data in self.VIOLATIONS:
            server = opened()
            server.receive(data + frame(b"\x03\xe8", CLOSE))
            assert server.transport.disconnecting, data


class TestTheLimit:
    """`--max-message` is the size of a message as it is read, not as it was sent."""

    @property_test
    @given(
        st.integers(MAX_MESSAGE - 3, MAX_MESSAGE + 3),
        st.binary(min_size=40, max_size=40),
        st.sampled_from((0, 1, 6)),
        st.lists(st.integers(0, 1100), max_size=4).map(sorted),
        st.integers(1, 1200),
    )
    def test_a_compressed_message(self, size: int, noise: bytes, level: int, cuts: list[int], chunk: int) -> None:
        """However well it is compressed, fragmented and cut, it is read if it is not too large."""
        payload = (noise.hex().encode() * 20)[:size]
        deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
        data = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        edges = [0, *(min(cut, len(data)) for cut in cuts), len(data)]
        fragments = [data[start:stop] for start, stop in pairwise(edges)]
        sent = frame(fragments[0], TEXT, rsv=COMPRESSED, fin=len(fragments) == 1)
        for at, fragment in enumerate(fragments[1:], 2):
            sent += frame(fragment, CONTINUATION, fin=at == len(fragments))
        server = opened()
        for at in range(0, len(sent), chunk):
            server.receive(sent[at : at + chunk])
        if size <= MAX_MESSAGE:
            assert messages(server) == [payload]
        else:
            assert server.protocol.localCloseCode == 1009

    @pytest.mark.parametrize("beyond", [0, 1, 2, 250, 257, 258, 300])
    @pytest.mark.parametrize("chunk", [1, 1 << 20])
    def test_nothing_is_left_in_the_inflater(self, beyond: int, chunk: int) -> None:
        """A long run of one byte takes a few bits: of what the limit cuts off, nothing is in the input any more."""
        limit = 65536
        server = opened(maxMessagePayloadSize=limit, maxFramePayloadSize=limit)
        sent = frame(deflated(b"a" * (limit + beyond)), TEXT, rsv=COMPRESSED)
        for at in range(0, len(sent), chunk):
            server.receive(sent[at : at + chunk])
        assert messages(server) == ([] if beyond else [b"a" * limit])
        assert server.protocol.localCloseCode == (1009 if beyond else None)

    def test_a_compressed_frame_that_announces_too_much(self) -> None:
        """It is refused before any of it has come."""
        server = opened()
        server.receive(bytes((0x80 | COMPRESSED << 4 | TEXT, 0xFF)) + (2**62).to_bytes(8, "big") + b"mask")
        assert server.protocol.localCloseCode == 1009


class TestInternals:
    """One test for each of Autobahn's internals that `marketfeed.websocket.parser` leans on."""

    def test_the_hooks_are_called(self) -> None:
        """`processData` calls those of a frame, which call those of a message."""
        assert {"onFrameBegin", "onFrameData", "onFrameEnd"} <= reads(WebSocketProtocol.processData)
        assert "_onMessageFrameData" in reads(WebSocketProtocol.onFrameData)
        assert "_onMessageFrameBegin" in reads(WebSocketProtocol.onFrameBegin)
        assert reads(WebSocketServerProtocol._onMessageFrameData) == {"onMessageFrameData"}
        assert reads(WebSocketServerProtocol._onMessageFrameBegin) == {"onMessageFrameBegin"}
        for violation in ("_protocol_violation", "_invalid_payload", "_max_message_size_exceeded"):
            assert "_fail_connection" in reads(getattr(WebSocketProtocol, violation))

    def test_how_the_size_of_a_message_is_counted(self) -> None:
        """A compressed one: a frame's length at its beginning, of which each piece is taken off as it is inflated."""
        begin = inspect.getsource(WebSocketProtocol.onMessageFrameBegin)
        assert "self.message_data_total_length += length" in begin
        data = inspect.getsource(WebSocketProtocol.onFrameData)
        assert "self.message_data_total_length - compressedLen" in data
        assert "self.message_data_total_length += uncompressedLen - compressedLen" in data
        assert "max_output_len=max_output_len" in data

    def test_what_a_frame_ends_with(self) -> None:
        """What is left out of one that nobody reads."""
        source = inspect.getsource(WebSocketProtocol.onFrameEnd)
        assert "self.inside_message = False" in source
        assert source.rstrip().endswith("self.current_frame = None")
        assert issubclass(FrameReader, WebSocketServerProtocol)
