"""The lean protocol beside Autobahn's own: what it leaves out, and that nobody outside can tell.

It leans on Autobahn's internals. `TestInternals` has one test for each; one that fails after an update of Autobahn says
what has to be looked at again.
"""

from __future__ import annotations

import ast
import gc
import inspect
import re
import sys
import textwrap
import weakref
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
import txaio.tx
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflate, PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from marketfeed.http.head import parse_head
from marketfeed.websocket.lean import (
    CLOSE_SECONDS,
    HANDSHAKE_SECONDS,
    LeanServerFactory,
    LeanServerProtocol,
    autobahn_options,
)
from marketfeed.websocket.parser import FrameReader
from tests.conftest import LogCapture
from tests.strategies import property_test

MAX_MESSAGE = 1000
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
COMPRESSED = 4  # of the three reserved bits, the first
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
DEFLATE = "permessage-deflate; client_max_window_bits"


@pytest.fixture(autouse=True)
def _own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autobahn's timers use the clock that a test makes; afterwards it is what it was."""
    monkeypatch.setattr(txaio.tx.config, "loop", txaio.tx.config.loop)


# Two servers.


class Recorder(WebSocketServerProtocol):
    """Notes what a server that is made of Autobahn's protocol is told."""

    @cached_property
    def events(self) -> list[tuple[Any, ...]]:
        return []

    def onOpen(self) -> None:
        self.events.append(("open", self.websocket_protocol_in_use))

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.events.append(("message", payload, isBinary))

    def onPing(self, payload: bytes) -> None:
        self.events.append(("ping", payload))
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        self.events.append(("pong", payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.events.append(("close", wasClean, code, reason))

    def unregisterProducer(self) -> None:
        """There is none."""


class Plain(Recorder, FrameReader):
    """Autobahn as it comes, with the same options; only frames are read as we do it."""

    @staticmethod
    def perMessageCompressionAccept(offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
        """The first offer that Lean would take, accepted as Lean does."""
        usable = [offer for offer in offers if offer.request_max_window_bits in (0, *range(9, 16))]
        if not usable:
            return None
        usable[0].request_no_context_takeover = True
        return PerMessageDeflateOfferAccept(usable[0], request_no_context_takeover=True, no_context_takeover=True)

    def onConnect(self, request: Any) -> str | None:
        return next(iter(request.protocols), None)


class Lean(Recorder, LeanServerProtocol):
    """Ours, which answers a request as `ClientProtocol` does."""

    compress = True
    accepted: bool | None = None

    def processHandshake(self) -> None:
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = parse_head(self.data[:end])
        self.data = self.data[end + 4 :]
        offered = head.headers.get("sec-websocket-protocol", "").split(",")[0].strip()
        self.accepted = self.accept(head.headers, compress=self.compress, protocol=offered or None)


class Transport(StringTransport):
    """A transport in memory that takes TCP's option."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        assert enabled


class Server:
    """One connection, with a clock of its own."""

    def __init__(self, kind: type[Recorder], **more: Any) -> None:
        self.clock = Clock()
        txaio.tx.config.loop = self.clock  # type: ignore[assignment]
        options = autobahn_options(MAX_MESSAGE)
        factory: WebSocketServerFactory = LeanServerFactory(self.clock)
        if kind is Plain:
            factory = WebSocketServerFactory(server="marketfeed", reactor=self.clock)
            factory.setProtocolOptions(
                **{
                    name: value
                    for name, value in options.items()
                    if name in inspect.signature(factory.setProtocolOptions).parameters
                }
            )
        factory.protocol = type(kind.__name__, (kind,), {**(options if kind is Lean else {}), **more})
        self.protocol: Any = factory.buildProtocol(None)
        self.transport = Transport()
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes) -> None:
        """Bytes from the peer, as long as the transport reads."""
        txaio.tx.config.loop = self.clock  # type: ignore[assignment]
        if not self.transport.disconnecting:
            self.protocol.dataReceived(data)

    def lose(self) -> None:
        kind = ConnectionAborted if self.transport.disconnected or self._aborted else ConnectionDone
        self.protocol.connectionLost(Failure(kind()))

    @property
    def _aborted(self) -> bool:
        return bool(getattr(self.transport, "aborting", False))

    @property
    def outcome(self) -> tuple[Any, ...]:
        """All that can be seen from outside."""
        protocol = self.protocol
        return (
            bytes(self.transport.value()),
            protocol.events,
            protocol.state,
            self.transport.disconnecting,
            protocol.wasClean,
            protocol.localCloseCode,
            protocol.remoteCloseCode,
        )


def handshake(path: str = "/", **headers: str | None) -> bytes:
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def opened(kind: type[Recorder] = Lean, extensions: str | None = DEFLATE, **more: Any) -> Server:
    server = Server(kind, **more)
    server.receive(handshake(Sec_WebSocket_Extensions=extensions))
    assert server.transport.value().startswith(b"HTTP/1.1 101 ")
    server.transport.clear()
    return server


def frame(payload: bytes, opcode: int, *, fin: bool = True, rsv: int = 0, masked: bool = True, wide: int = 0) -> bytes:
    """A client's frame. `wide`: the bytes of its length, at least."""
    size = len(payload)
    wide = max(wide, 0 if size < 126 else 2 if size < 65536 else 8)
    head = bytes((fin << 7 | rsv << 4 | opcode, masked << 7 | {0: size, 2: 126, 8: 127}[wide]))
    head += size.to_bytes(wide, "big") if wide else b""
    mask = b"\x11\x22\x33\x44"
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def deflated(payload: bytes) -> bytes:
    """As a client compresses a message by itself."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


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
    masked=st.booleans(),
    wide=st.sampled_from((0, 0, 2, 8)),
)
pieces = st.tuples(st.just("peer"), messages() | messages() | controls | closes | faulty) | st.tuples(
    st.just("server"), st.sampled_from(("message", "ping", "pong", "close", "wait"))
)


def act(server: Server, what: str) -> None:
    """Something that the server does by itself; nothing where its connection does not let it."""
    txaio.tx.config.loop = server.clock  # type: ignore[assignment]
    protocol = server.protocol
    match what:
        case "message" if protocol.state == WebSocketProtocol.STATE_OPEN:
            protocol.sendMessage(b"hello", doNotCompress=True)
        case "ping":
            protocol.sendPing(b"now")
        case "pong":
            protocol.sendPong()
        case "close":
            protocol.sendClose(4000, "enough")
        case "wait":
            server.clock.advance(CLOSE_SECONDS + 1)


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
        for kind in (Plain, Lean):
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
        plain, lean = outcomes
        assert lean == plain

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
        for kind in (Plain, Lean):
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
        for kind in (Plain, Lean):
            server = Server(kind)
            server.receive(handshake(**headers) + frame(b"early", TEXT) + frame(b"later", TEXT)[:5])
            outcomes.append(server.outcome)
        assert outcomes[0] == outcomes[1]
        assert ("message", b"early", False) in outcomes[0][1]


class TestHandshake:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": None},
            {"Host": ""},
            {"Host": "a, b"},
            {"Connection": None},
            {"Connection": "close"},
            {"Connection": "upgraded"},
            {"Sec_WebSocket_Key": None},
            {"Sec_WebSocket_Key": "short"},
            {"Sec_WebSocket_Key": KEY[:-2] + "AA"},
            {"Sec_WebSocket_Key": f"{KEY}, {KEY}"},
            {"Sec_WebSocket_Key": KEY[:-3] + "!=="},
            {"Sec_WebSocket_Version": None},
            {"Sec_WebSocket_Version": "7"},
            {"Sec_WebSocket_Version": "13, 13"},
            {"Sec_WebSocket_Version": "x"},
        ],
    )
    def test_what_is_no_proper_handshake_is_not_accepted(self, headers: dict[str, str | None]) -> None:
        """Nothing is answered; whoever called has something to say about it (RFC 6455, section 4.2.1)."""
        server = Server(Lean)
        server.receive(handshake(**headers))
        assert server.protocol.accepted is False
        assert not server.transport.value()
        assert server.protocol.state == WebSocketProtocol.STATE_CONNECTING

    @pytest.mark.parametrize(
        ("offered", "answered", "window"),
        [
            ("permessage-deflate", "", 15),
            ("permessage-deflate; client_max_window_bits", "", 15),
            ("Permessage-Deflate; Client_Max_Window_Bits=10", "", 15),
            ("permessage-deflate; client_no_context_takeover", "", 15),
            ("permessage-deflate; server_no_context_takeover", "", 15),
            *[(f"permessage-deflate; server_max_window_bits={bits}", bits, bits) for bits in range(9, 16)],
            ('permessage-deflate; server_max_window_bits="12"', 12, 12),
            ("permessage-deflate; server_max_window_bits=8", None, 0),
            ("permessage-deflate; server_max_window_bits=16", None, 0),
            ("permessage-deflate; server_max_window_bits=0", None, 0),
            ("permessage-deflate; server_max_window_bits", None, 0),
            ("permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", None, 0),
            ("permessage-deflate; client_max_window_bits=16", None, 0),
            ("permessage-deflate; mystery", None, 0),
            ("permessage-deflate; server_no_context_takeover=1", None, 0),
            ("permessage-deflate; mystery, permessage-deflate; server_max_window_bits=11", 11, 11),
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "", 15),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", 10, 10),
            ("x-webkit-deflate-frame, permessage-bzip2", None, 0),
            ("", None, 0),
            (",;=,", None, 0),
            ("permessage-deflate" + "; mystery" * 120 + ", permessage-deflate", None, 0),
        ],
    )
    def test_the_first_offer_that_can_be_used_is_taken(self, offered: str, answered: Any, window: int) -> None:
        """Both sides are told to compress each message by itself; what cannot be used is declined and not refused."""
        server = Server(Lean)
        server.receive(handshake(Sec_WebSocket_Extensions=offered))
        response = server.transport.value().decode()
        assert response.startswith("HTTP/1.1 101 ")
        agreed = re.findall(r"Sec-WebSocket-Extensions: (.*)\r\n", response)
        if answered is None:
            assert agreed == []
        else:
            bits = f"; server_max_window_bits={answered}" if answered else ""
            assert agreed == [f"permessage-deflate; server_no_context_takeover{bits}; client_no_context_takeover"]
        assert server.protocol.deflate_window == window

    def test_without_compression_nothing_is_negotiated(self) -> None:
        """`--compression off`: the offer is as good as none, and a compressed frame breaks the protocol."""
        server = opened(compress=False)
        assert server.protocol.deflate_window == 0
        server.receive(frame(deflated(b"{}"), TEXT, rsv=COMPRESSED))
        assert server.transport.value().startswith(b"\x88")
        assert server.protocol.localCloseCode == 1002

    @property_test
    @given(
        st.lists(
            st.sampled_from(
                ("permessage-deflate", "server_max_window_bits", "9", "é", '"', ";", ",", "=", " ", "\t", "x", "8")
            )
        ).map("".join)
        | st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_characters="\x7f"), max_size=40)
    )
    def test_no_offer_breaks_a_handshake(self, offered: str) -> None:
        """Whatever stands in the header, the connection opens, and says what it has agreed to."""
        server = Server(Lean)
        server.receive(handshake(Sec_WebSocket_Extensions=offered))
        response = server.transport.value()
        assert response.startswith(b"HTTP/1.1 101 ")
        assert (b"permessage-deflate" in response) == (server.protocol.deflate_window in range(9, 16))


class TestWhatIsLeftOut:
    def test_a_connection_keeps_next_to_nothing_of_its_own(self) -> None:
        """What does not differ from connection to connection is the class's."""
        protocol = Server(Lean).protocol
        assert set(vars(protocol)) == {"connected", "factory", "transport", "state"}

    def test_what_comes_whole_is_not_given_to_autobahn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A message by itself and an empty pong, as long as nothing else is under way."""
        given: list[bytes] = []
        monkeypatch.setattr(WebSocketProtocol, "consumeData", lambda protocol: given.append(protocol.data))
        protocol = Server(Lean).protocol
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

    def test_a_bomb_is_not_unpacked(self) -> None:
        """Inflating stops at the largest message that is allowed, with 1009, however small the frame."""
        server = opened()
        bomb = deflated(b"a" * 50_000_000)
        assert len(bomb) < 60_000
        parts = [bomb[at : at + 900] for at in range(0, len(bomb), 900)]
        server.receive(frame(parts[0], TEXT, rsv=COMPRESSED, fin=False))
        for part in parts[1:]:
            server.receive(frame(part, CONTINUATION, fin=False))
        assert server.protocol.localCloseCode == 1009
        assert server.transport.value().startswith(b"\x88")
        assert [event[0] for event in server.protocol.events] == ["open"]

    @pytest.mark.parametrize("moment", ["connected", "open", "closing", "closed", "violated"])
    def test_a_connection_that_is_gone_leaves_nothing_behind(self, moment: str) -> None:
        """No timer, and no cycle: it is freed without the collector."""
        server = Server(Lean)
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

    def test_a_request_that_does_not_come_ends_the_connection(self) -> None:
        """Without a word; a protocol that has something to say says it."""
        server = Server(Lean)
        server.receive(handshake()[:-2])
        server.clock.advance(HANDSHAKE_SECONDS - 0.1)
        assert server.protocol.state == WebSocketProtocol.STATE_CONNECTING
        server.clock.advance(0.2)
        assert server.protocol.state == WebSocketProtocol.STATE_CLOSED
        assert server.transport.disconnecting
        assert not server.clock.getDelayedCalls()

    def test_nothing_is_logged(self, logged: LogCapture) -> None:
        """Neither a refusal nor a violation is worth a line of Autobahn's."""
        for data in (b"", handshake(Host=None), handshake(), handshake() + frame(b"", 3) + frame(b"", CLOSE)):
            server = Server(Lean)
            server.receive(data)
            server.lose()
        assert logged.formats() == []

    def test_data_after_the_end_is_not_read(self) -> None:
        """A TLS transport goes on until its peer has closed too; what comes then is not even kept."""
        server = opened()
        server.receive(frame(b"\x03\xe8", CLOSE))
        assert server.protocol.state == WebSocketProtocol.STATE_CLOSED
        server.protocol.dataReceived(frame(b"more", TEXT) * 100)
        assert server.protocol.data == b""
        assert server.protocol.events[-1] == ("open", None)

    def test_nobody_waits_for_what_stands_for_the_deferreds(self) -> None:
        """Autobahn fires them; nothing is kept, and nothing goes wrong when that happens again."""
        server = opened()
        for stand_in in (server.protocol.is_open, server.protocol.is_closed):
            txaio.resolve(stand_in, server.protocol)
            txaio.resolve(stand_in, server.protocol)
            assert vars(stand_in) == {}


# Autobahn's functions that a lean protocol never runs: what they read it need not have.
REPLACED = {"__init__", "_connectionMade", "connectionMade", "processHandshake", "transport_details"}
NEVER_RUN = REPLACED | {
    "succeedHandshake",
    "_onOpen",
    "onOpenHandshakeTimeout",
    "_sendAutoPing",
    "_dataReceived",
    "_trigger",
    "_send",
    "_onMessageEnd_",
    "failHandshake",
    "fire",
}


def autobahn_functions(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions of Autobahn's that `kind` inherits, overridden or not."""
    for each in kind.__mro__:
        if each.__module__.startswith("autobahn."):
            for name, member in vars(each).items():
                function = getattr(member, "fget", member)
                if inspect.isfunction(function):
                    yield name, function


def reads(function: Callable[..., Any]) -> set[str]:
    """The attributes of itself that a method reads."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        if isinstance(node.value, ast.Name) and node.value.id == "self"
    }


class TestInternals:
    """One test for each of Autobahn's internals that `marketfeed.websocket.lean` leans on."""

    def test_what_autobahn_sets_on_an_instance_the_class_has(self) -> None:
        """The same values; what the class does not have is not read by anything that runs."""
        plain, lean = Server(Plain).protocol, Server(Lean).protocol
        missing = {name for name in vars(plain) if not hasattr(lean, name)}
        assert missing == {
            *("_transport_details", "autoPingPendingSeq", "autoPingPendingSent", "versions", "webStatus"),
            *("serveFlashSocketPolicy", "flashSocketPolicy", "allowedOrigins", "allowedOriginsPatterns"),
            *("allowNullOrigin", "maxConnections", "trustXForwardedFor"),
        }
        for name in missing:
            readers = {reader for reader, function in autobahn_functions(Lean) if name in reads(function)}
            assert readers <= NEVER_RUN, f"{name} is read by {readers - NEVER_RUN}"
        of_each = {"factory", "transport", "utf8validator", "openHandshakeTimeoutCall", "trafficStats"}
        replaced = {"peer", "is_open", "is_closed", "send_queue", "_valid_events", "_results"}
        for name in vars(plain).keys() - missing - of_each - replaced:
            assert getattr(lean, name) == getattr(plain, name), name

    def test_the_pings_that_autobahn_sends_by_itself_are_off(self) -> None:
        """Nothing begins them."""
        lean = opened().protocol
        assert not lean.autoPingInterval
        assert lean.autoPingPending is lean.autoPingPendingCall is lean.autoPingTimeoutCall is None

    def test_the_options_are_all_that_autobahn_copies_and_reads(self) -> None:
        """An option that is new in Autobahn, or has another default, is to be decided about."""
        options = autobahn_options(MAX_MESSAGE)
        assert set(options) == {
            *WebSocketProtocol.CONFIG_ATTRS_COMMON,
            *("requireMaskedClientFrames", "maskServerFrames"),
        }
        defaults = vars(WebSocketServerFactory(reactor=Clock()))
        assert {name for name, value in options.items() if defaults[name] != value} == {
            *("maxFramePayloadSize", "maxMessagePayloadSize", "failByDrop"),
            *("openHandshakeTimeout", "closeHandshakeTimeout"),
        }
        assert set(WebSocketServerProtocol.CONFIG_ATTRS) - set(options) == {
            *("versions", "webStatus", "perMessageCompressionAccept", "serveFlashSocketPolicy", "flashSocketPolicy"),
            *("allowedOrigins", "allowedOriginsPatterns", "allowNullOrigin", "maxConnections", "trustXForwardedFor"),
        }

    def test_a_handshake_that_succeeds_opens_as_ours_does(self) -> None:
        """What `succeedHandshake` sets besides, our class has from the start."""
        tree = ast.parse(textwrap.dedent(inspect.getsource(WebSocketServerProtocol.succeedHandshake)))
        assert {
            target.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Attribute)
        } == {
            *("state", "inside_message", "current_frame", "_perMessageCompress", "websocket_protocol_in_use"),
            *("websocket_extensions_in_use", "http_response_data", "openHandshakeTimeoutCall", "autoPingPendingCall"),
        }
        lean = opened(extensions=None).protocol
        assert (lean.inside_message, lean.current_frame, lean.openHandshakeTimeoutCall) == (False, None, None)

    def test_the_functions_that_are_never_run_are_not(self) -> None:
        """Neither in a conversation, nor at its beginning, nor at its end."""
        never = {function.__code__ for name, function in autobahn_functions(Lean) if name in NEVER_RUN}
        run = set()

        def note(current: FrameType, event: str, _: object) -> None:
            run.add(current.f_code)

        sys.setprofile(note)
        try:
            for what in ("message", "ping", "pong", "close", "wait"):
                server = opened()
                server.receive(frame(b"one", TEXT) + frame(b"", PING) + frame(b"", PONG))
                server.receive(frame(deflated(b"two"), TEXT, rsv=COMPRESSED) + frame(b"x" * 1001, TEXT))
                act(server, what)
                server.receive(frame(b"\x03\xe8", CLOSE))
                server.lose()
        finally:
            sys.setprofile(None)
        assert WebSocketProtocol.processData.__code__ in run
        factories = {WebSocketServerFactory.__init__.__code__}
        assert {code.co_qualname for code in run & never - factories} == set()

    def test_the_hooks_of_a_message_end_as_ours_does(self) -> None:
        """Ours leaves out the listeners; what else Autobahn's does is to be kept."""
        source = inspect.getsource(WebSocketProtocol.onMessageEnd)
        assert reads(WebSocketProtocol.onMessageEnd) == {
            *("failedByMe", "message_data", "trackedTimings", "_onMessage", "message_is_binary", "fire", "log"),
        }
        assert 'b"".join(self.message_data)' in source
        assert reads(WebSocketServerProtocol._onMessage) == {"onMessage"}

    def test_a_lost_connection_is_told_to_the_base(self) -> None:
        """The server's own only counts connections, which `connectionMade` has not."""
        source = inspect.getsource(WebSocketServerProtocol._connectionLost)
        statements = re.findall(r"^        (?!\"|:)(\w.*)$", source.split('"""')[2], re.MULTILINE)
        assert statements == [
            "self.log.debug(",
            "WebSocketProtocol._connectionLost(self, reason)",
            "self.factory.countConnections -= 1",
        ]
        assert reads(WebSocketProtocol._connectionLost) == {
            *("log", "factory", "serverConnectionDropTimeoutCall", "autoPingPendingCall", "autoPingTimeoutCall"),
            *("openHandshakeTimeoutCall", "state", "is_closed", "wasServingFlashSocketPolicyFile", "wasClean"),
            *("droppedByMe", "wasNotCleanReason", "_onClose", "remoteCloseCode", "remoteCloseReason"),
        }

    def test_received_data_is_consumed_from_one_attribute(self) -> None:
        """`_dataReceived` does nothing else but count and log."""
        assert reads(WebSocketProtocol._dataReceived) == {
            *("state", "trafficStats", "logOctets", "logRxOctets", "consumeData"),
        }

    def test_the_statistics_are_only_added_to(self) -> None:
        """One object can stand for all connections."""
        for name, function in autobahn_functions(Lean):
            for line in re.findall(r"self\.trafficStats.*", inspect.getsource(function)):
                assert re.match(r"self\.trafficStats(\.\w+ \+=|\.__json__\(\)| = TrafficStats\(\))", line), (name, line)
        assert isinstance(Lean.trafficStats, TrafficStats)

    def test_timers_are_batched_and_can_be_cancelled(self) -> None:
        """The time for the answer to a close, in whole seconds."""
        server = opened()
        assert not server.clock.getDelayedCalls()
        act(server, "close")
        server.clock.pump([0.5] * 2 * CLOSE_SECONDS)
        assert server.protocol.wasCloseHandshakeTimeout
        assert server.transport.disconnecting

    def test_what_a_deflate_offer_and_its_acceptance_have(self) -> None:
        """The names, and what is announced because of them."""
        offer = PerMessageDeflateOffer.parse({"server_max_window_bits": ["11"]})
        assert offer.request_max_window_bits == 11
        assert offer.accept_no_context_takeover
        offer.request_no_context_takeover = True
        accepted = PerMessageDeflateOfferAccept(offer, request_no_context_takeover=True, no_context_takeover=True)
        assert accepted.get_extension_string() == (
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=11; client_no_context_takeover"
        )
        deflate = PerMessageDeflate.create_from_offer_accept(True, accepted)
        assert deflate.server_max_window_bits == 11
        assert deflate.server_no_context_takeover
        assert deflate._compressor is deflate._decompressor is None
        deflate.start_decompress_message()
        first, deflate._decompressor = deflate._decompressor, None
        deflate.start_decompress_message()
        assert deflate._decompressor is not first

    def test_extensions_are_parsed_into_names_and_lists_of_values(self) -> None:
        """As `_usable` takes them apart."""
        parsed = Server(Lean).protocol._parseExtensionsHeader('One; a=1; a="2"; b, two')
        assert parsed == [("one", {"a": ["1", "2"], "b": [True]}), ("two", {})]
