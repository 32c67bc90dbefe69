"""The protocol beside Autobahn's own: what it leaves out, what it holds a peer to, and that nobody outside can tell."""

from __future__ import annotations

import gc
import weakref
import zlib
from itertools import pairwise
from typing import Any

import pytest
from autobahn.websocket.protocol import WebSocketProtocol
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.websocket.autobahn_protocol import AutobahnProtocol
from tests.by_hand import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, deflated, frame, handshake
from tests.strategies import property_test
from tests.websocket.beside import (
    COMPRESSED,
    DEFLATE,
    MAX_MESSAGE,
    Ours,
    Plain,
    Server,
    Transport,
    act,
    opened,
)

# What a peer may send.

texts = st.text(max_size=40).map(str.encode) | st.sampled_from(
    (b"a" * 125, b"a" * 126, b"x" * 999, b"x" * 1000, b"x" * 1001, b"\xff", b"\xe2\x82", b"a" * 70_000)
)
codes = st.sampled_from((1000, 1001, 1004, 1005, 1006, 1011, 1012, 1016, 2999, 3000, 4999, 5000, 0, 65535))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A data message in one frame or several, compressed or not, with control frames in between."""
    payload = draw(texts)
    is_compressed = draw(st.booleans())
    if is_compressed:
        payload = deflated(payload)
        if draw(st.booleans()):
            payload = draw(st.sampled_from((payload[:-1], b"\xff" + payload, payload + b"!")))
    cuts = sorted({0, *draw(st.lists(st.integers(0, len(payload)), max_size=3)), len(payload)})
    pieces = [payload[start:stop] for start, stop in pairwise(cuts)] or [b""]
    frames = []
    for at, piece in enumerate(pieces):
        opcode = CONTINUATION if at else draw(st.sampled_from((TEXT, TEXT, BINARY)))
        is_last = at == len(pieces) - 1
        frames.append(frame(piece, opcode, fin=is_last, rsv=COMPRESSED if is_compressed and not at else 0))
        if not is_last and draw(st.booleans()):
            frames.append(draw(controls))
    return b"".join(frames)


controls = st.builds(frame, texts.filter(lambda text: len(text) < 126), st.sampled_from((PING, PONG)))
closes = st.builds(
    lambda code, reason: frame(code.to_bytes(2, "big") + reason, CLOSE),
    codes,
    st.sampled_from((b"", b"bye", b"\xff", "größer".encode())),
) | st.sampled_from((frame(b"", CLOSE), frame(b"\x03", CLOSE)))
faulty = st.builds(
    frame,
    st.sampled_from((b"", b"{}", b"a" * 126)),
    st.integers(0, 15),
    fin=st.booleans(),
    rsv=st.integers(0, 7),
    mask=st.sampled_from((b"mask", None)),
    length_bytes=st.sampled_from((None, None, 2, 8)),
)
pieces = st.tuples(st.just("peer"), messages() | messages() | controls | closes | faulty) | st.tuples(
    st.just("server"), st.sampled_from(("message", "ping", "pong", "close", "wait"))
)


class TestBesideAutobahn:
    """Whatever a peer does, both servers do the same."""

    @property_test
    @given(st.lists(pieces, max_size=8), st.lists(st.integers(0, 3000), max_size=6), st.booleans())
    @example([("peer", frame(deflated(b"a" * 100_000), TEXT, rsv=COMPRESSED)), ("peer", frame(b"", CLOSE))], [], True)
    @example([("server", "close"), ("peer", frame(b"\x03\xe8", CLOSE))], [], True)
    @example([("server", "close"), ("server", "wait")], [], False)
    @example([("peer", frame(b"\xff", TEXT)), ("peer", frame(b"\xff", TEXT)), ("peer", frame(b"", CLOSE))], [], False)
    def test_a_conversation(self, script: list[tuple[str, Any]], cuts: list[int], deflate: bool) -> None:
        """Messages in fragments, compressed or not, pings, closes from both sides, and all that breaks the protocol."""
        outcomes = []
        for kind in (Plain, Ours):
            server = Server(kind)
            server.receive(handshake(Sec_WebSocket_Extensions=DEFLATE if deflate else None))
            for who, what in script:
                if who == "server":
                    act(server, what)
                    continue
                edges = sorted({0, *(cut for cut in cuts if cut < len(what)), len(what)})
                for start, stop in pairwise(edges):
                    server.receive(what[start:stop])
            before = server.outcome
            server.lose()
            outcomes.append((before, server.outcome))
        plain, ours = outcomes
        assert ours == plain

    @pytest.mark.parametrize("chunk", [1, 7, 4096])
    def test_a_long_conversation(self, chunk: int) -> None:
        """Everything that is right, however the bytes are cut: read, answered, and closed cleanly from each side."""
        said = [
            frame(b"one", TEXT),
            frame(b"tw", TEXT, fin=False) + frame(b"", PING) + frame(b"o", CONTINUATION, fin=False),
            frame(b"", PONG) + frame(b"!", CONTINUATION),
            frame(deflated(b"three" * 50), TEXT, rsv=COMPRESSED),
            frame(deflated(b"four" * 50)[:9], TEXT, rsv=COMPRESSED, fin=False)
            + frame(b"now", PING)
            + frame(deflated(b"four" * 50)[9:], CONTINUATION),
            frame(b"\0\1", BINARY),
            frame("größer".encode(), TEXT),
        ]
        outcomes = []
        for kind in (Plain, Ours):
            for closes in ("peer", "server"):
                server = opened(kind)
                for each in said:
                    for start in range(0, len(each), chunk):
                        server.receive(each[start : start + chunk])
                act(server, "message")
                if closes == "server":
                    act(server, "close")
                server.receive(frame(b"\x03\xe8bye", CLOSE))
                before = server.outcome
                server.lose()
                assert server.protocol.events[-1][:2] == ("close", True)
                outcomes.append((before, server.outcome))
        assert outcomes[:2] == outcomes[2:]
        payloads = [event[1] for event in outcomes[0][1][1] if event[0] == "message"]
        assert payloads == [b"one", b"two!", b"three" * 50, b"four" * 50, b"\0\1", "größer".encode()]

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Sec_WebSocket_Protocol": "one, two"},
            {"Sec_WebSocket_Version": "8"},
            {"Connection": "keep-alive, UPGRADE", "Upgrade": "WebSocket"},
            {"Sec_WebSocket_Extensions": DEFLATE},
            {"Sec_WebSocket_Extensions": "permessage-deflate"},
            {"Sec_WebSocket_Extensions": "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
            {"Sec_WebSocket_Extensions": "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9"},
            {"Sec_WebSocket_Extensions": "x-unknown; a=b, permessage-deflate"},
            {"Sec_WebSocket_Extensions": "x-unknown"},
        ],
    )
    def test_a_handshake(self, headers: dict[str, str]) -> None:
        """The same answer, to the byte, and frames that came with the request are read."""
        outcomes = []
        for kind in (Plain, Ours):
            server = Server(kind)
            server.receive(handshake(**headers) + frame(b"early", TEXT) + frame(b"later", TEXT)[:5])
            outcomes.append(server.outcome)
        assert outcomes[0] == outcomes[1]
        assert ("message", b"early", False) in outcomes[0][1]


class TestWhatIsLeftOut:
    def test_a_connection_keeps_next_to_nothing_of_its_own(self) -> None:
        """What does not differ from connection to connection is the class's."""
        protocol = Server(Ours).protocol
        assert set(vars(protocol)) == {"connected", "factory", "transport", "state", "outbox", "throttle"}

    def test_what_comes_whole_is_not_given_to_autobahn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A message by itself and an empty pong, as long as nothing else is under way."""
        given: list[bytes] = []
        monkeypatch.setattr(AutobahnProtocol, "consumeData", lambda protocol: given.append(protocol.data))
        protocol = Server(Ours).protocol
        protocol.state = WebSocketProtocol.STATE_OPEN
        whole = [frame("größer".encode(), TEXT), frame(b"a" * 125, TEXT), frame(b"a" * 126, TEXT), frame(b"", PONG)]
        for each in whole:
            protocol.dataReceived(each)
        assert [event[1] for event in protocol.events] == ["größer".encode(), b"a" * 125, b"a" * 126, b""]
        assert not given
        for each in (frame(b"a", TEXT) * 2, frame(b"\xff", TEXT), frame(b"a" * (MAX_MESSAGE + 1), TEXT), whole[0][:-1]):
            protocol.data = b""
            protocol.dataReceived(each)
            assert given.pop() == each
        protocol.dataReceived(whole[0][-1:])
        assert given == [whole[0]]
        assert len(protocol.events) == len(whole)

    def test_the_windows_of_a_peer_are_not_kept_between_messages(self) -> None:
        """An inflater takes 40 KiB and more; each message of the client is read by a new one."""
        server = opened()
        for text in (b"one" * 100, b"two" * 100):
            message = frame(deflated(text), TEXT, rsv=COMPRESSED)
            server.receive(message[:9])
            assert server.protocol._perMessageCompress._decompressor is not None
            server.receive(message[9:])
            assert server.protocol._perMessageCompress._decompressor is None
        assert server.protocol._perMessageCompress._compressor is None
        assert [event[1] for event in server.protocol.events[1:]] == [b"one" * 100, b"two" * 100]

    @pytest.mark.parametrize("moment", ["connected", "open", "closing", "closed", "violated"])
    def test_a_connection_that_is_gone_leaves_nothing_behind(self, moment: str) -> None:
        """No timer, and no cycle: it is freed without the collector."""
        server = Server(Ours)
        if moment != "connected":
            server.receive(handshake(Sec_WebSocket_Extensions=DEFLATE))
            server.receive(frame(deflated(b"{}"), TEXT, rsv=COMPRESSED) + frame(b"half", TEXT, fin=False))
        if moment == "closing":
            act(server, "close")
        elif moment == "closed":
            server.receive(frame(b"\x03\xe8", CLOSE))
        elif moment == "violated":
            server.receive(frame(b"", 3))
        gc.collect()
        gc.disable()
        try:
            server.lose()
            assert not server.clock.getDelayedCalls()
            watched = weakref.ref(server.protocol)
            del server.protocol
            server.transport = Transport()
            assert watched() is None
        finally:
            gc.enable()

    def test_data_after_the_end_is_not_read(self) -> None:
        """A TLS transport goes on until its peer has closed too; what comes then is not even kept."""
        server = opened()
        server.receive(frame(b"\x03\xe8", CLOSE))
        assert server.protocol.state == WebSocketProtocol.STATE_CLOSED
        server.protocol.dataReceived(frame(b"more", TEXT) * 100)
        assert server.protocol.data == b""
        assert server.protocol.events[-1] == ("open",)


def endless(size: int = 2**40) -> bytes:
    """The head of a ping that announces `size` bytes."""
    return bytes((0x80 | PING, 0xFF)) + size.to_bytes(8, "big") + b"\0\0\0\0"


def read_by(server: Server) -> list[Any]:
    """The messages that have been read."""
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
        assert read_by(server) == [b"a" * size + b"b"]

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
        assert read_by(server) == [text]
        assert 100 < most <= 257

    def test_compressed_fragments_that_hold_nothing(self) -> None:
        """Blocks of deflate may be empty as well."""
        server = opened()
        nothing = deflated(b"") + b"\0\0\xff\xff"
        server.receive(frame(nothing, TEXT, rsv=COMPRESSED, fin=False))
        self.flood(server, 20 * frame(b"\0\0\0\xff\xff", CONTINUATION, fin=False))
        server.receive(frame(deflated(b"text"), CONTINUATION))
        assert read_by(server) == [b"text"]

    def test_data_behind_the_last_block(self) -> None:
        """What follows a finished stream of deflate would be ignored, and kept: 1007."""
        server = opened()
        last = zlib.compressobj(6, zlib.DEFLATED, -15)
        server.receive(frame(last.compress(b"text") + last.flush(), TEXT, rsv=COMPRESSED, fin=False))
        self.flood(server, frame(b"x" * 900, CONTINUATION, fin=False))
        assert server.protocol.localCloseCode == 1007
        assert read_by(server) == []

    def test_a_message_of_a_finished_stream(self) -> None:
        """As RFC 7692, section 7.2.3.4, has it: the last block, and one byte of an empty one behind it."""
        server = opened()
        for text in (b"one", b"two"):
            last = zlib.compressobj(6, zlib.DEFLATED, -15)
            server.receive(frame(last.compress(text) + last.flush() + b"\0", TEXT, rsv=COMPRESSED))
        assert read_by(server) == [b"one", b"two"]

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
        frame(b"x", TEXT, mask=None),
        frame(b"", PING, length_bytes=2),
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
        assert read_by(server) == []

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
        data = deflated(payload, level)
        edges = [0, *(min(cut, len(data)) for cut in cuts), len(data)]
        fragments = [data[start:stop] for start, stop in pairwise(edges)]
        sent = frame(fragments[0], TEXT, rsv=COMPRESSED, fin=len(fragments) == 1)
        for at, fragment in enumerate(fragments[1:], 2):
            sent += frame(fragment, CONTINUATION, fin=at == len(fragments))
        server = opened()
        for at in range(0, len(sent), chunk):
            server.receive(sent[at : at + chunk])
        if size <= MAX_MESSAGE:
            assert read_by(server) == [payload]
        else:
            assert server.protocol.localCloseCode == 1009

    @pytest.mark.parametrize("beyond", [0, 1, 2, 250, 257, 258, 300])
    @pytest.mark.parametrize("chunk", [1, 1 << 20])
    def test_nothing_is_left_in_the_inflater(self, beyond: int, chunk: int) -> None:
        """A long run of one byte takes a few bits: of what the limit cuts off, nothing is in the input any more."""
        limit = 65536
        server = opened(max_message=limit)
        sent = frame(deflated(b"a" * (limit + beyond)), TEXT, rsv=COMPRESSED)
        for at in range(0, len(sent), chunk):
            server.receive(sent[at : at + chunk])
        assert read_by(server) == ([] if beyond else [b"a" * limit])
        assert server.protocol.localCloseCode == (1009 if beyond else None)

    def test_a_compressed_frame_that_announces_too_much(self) -> None:
        """It is refused before any of it has come."""
        server = opened()
        server.receive(bytes((0x80 | COMPRESSED << 4 | TEXT, 0xFF)) + (2**62).to_bytes(8, "big") + b"mask")
        assert server.protocol.localCloseCode == 1009
