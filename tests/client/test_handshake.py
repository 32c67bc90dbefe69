"""From a connection to a WebSocket: what is answered, who is let in, and that all that was counted is given back."""

from __future__ import annotations

import base64
import hashlib

import pytest
import txaio.tx
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone

from marketfeed.client.http import MAX_HEAD
from tests.client.server import Server, pieces_of, trade
from tests.strategies import property_test
from tests.wire import KEY, TEXT, frames_of, handshake, say


@pytest.fixture(autouse=True)
def _own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server sets Autobahn's clock; afterwards it is what it was."""
    monkeypatch.setattr(txaio.tx.config, "loop", txaio.tx.config.loop)


HEADERS = (
    *("Host", "Connection", "Upgrade", "Origin", "Sec_WebSocket_Key", "Sec_WebSocket_Version"),
    *("Sec_WebSocket_Protocol", "Sec_WebSocket_Extensions", "Sec_WebSocket_Origin", "X_Forwarded_For"),
)
ODD_VALUES = (
    *("8", "13", "null", "http://[", "http://x:99999", "http://x:y", "://", "x:80", "[::1]:80", ";", "=", "a;b=c"),
    *("permessage-deflate; client_max_window_bits=x", "permessage-deflate;;", "permessage-deflate, permessage-bzip2"),
)


class TestHandshake:
    def test_a_request_becomes_a_websocket(self) -> None:
        """The answer proves that the key was read (RFC 6455, section 4.2.2), and names the server without a version."""
        wire = Server().connect()
        wire.receive(handshake())
        accept = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        assert wire.sent == (
            b"HTTP/1.1 101 Switching Protocols\r\nServer: marketfeed\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def test_frames_may_come_with_the_request(self) -> None:
        """A client need not wait for the answer."""
        wire = Server().connect()
        wire.receive(handshake() + say({"method": "PING"}) + say({"method": "PING", "id": 2})[:9])
        answer, _, rest = wire.sent.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert list(frames_of(rest)) == [(TEXT, b'{"result":"PONG"}')]

    def test_a_request_may_come_byte_by_byte(self) -> None:
        """Nothing is answered before it is complete."""
        wire = Server().connect()
        for byte in handshake()[:-1]:
            wire.receive(bytes((byte,)))
        assert not wire.sent
        wire.receive(b"\n")
        assert wire.sent.startswith(b"HTTP/1.1 101 ")

    def test_the_streams_of_the_path_are_subscribed(self) -> None:
        """They come in the dialect of the path."""
        server = Server()
        wire = server.open("/stream?streams=trade@A/a@trade")
        server.source.confirm()
        server.source.publish("trade@A", trade())
        assert [message["stream"] for message in wire.messages] == ["trade@A", "a@trade"]

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"GET /healthz HTTP/1.1\r\n\r\n", 200),
            (b"OPTIONS / HTTP/1.1\r\n\r\n", 204),
            (b"nonsense\r\n\r\n", 400),
            (handshake("/ws/nonsense@A"), 400),
            (handshake(Host=None), 400),
            (handshake(Connection="close"), 400),
            (handshake(Sec_WebSocket_Key="short"), 400),
            (handshake(Sec_WebSocket_Version="12"), 400),
            (handshake(Sec_WebSocket_Version=None), 400),
            (handshake(Origin="nonsense"), 400),
            (handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
            (handshake("/#fragment"), 400),
            (handshake("/nothing"), 404),
            (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
            (handshake(Upgrade=None), 426),
        ],
        ids=lambda value: repr(value)[:50],
    )
    def test_what_is_no_websocket_is_answered_in_plain_http(self, data: bytes, status: int) -> None:
        """Once; then the connection ends, whatever else was sent with the request."""
        server = Server()
        wire = server.connect()
        wire.receive(data + handshake())
        wire.settle()
        head, _, body = wire.sent.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert int(lines[0].split()[1]) == status
        assert "Connection: close" in lines
        assert status == 204 or f"Content-Length: {len(body)}" in lines
        assert wire.lost is not None
        assert wire.lost.check(ConnectionDone)
        server.assert_empty()

    def test_head_gets_no_body(self) -> None:
        """But its length."""
        wire = Server().connect()
        wire.receive(b"HEAD /healthz HTTP/1.1\r\n\r\n")
        assert wire.sent.endswith(b"Content-Length: 3\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n")

    def test_the_versions_that_are_spoken_are_named(self) -> None:
        """As RFC 6455, section 4.4, has it."""
        wire = Server().connect()
        wire.receive(handshake(Sec_WebSocket_Version="99"))
        assert b"\r\nSec-WebSocket-Version: 13,8\r\n" in wire.sent

    def test_readiness_is_asked_for_each_time(self) -> None:
        """It may change."""
        server = Server()
        for ready, status in ((False, b"503"), (True, b"200")):
            server.ready = ready
            wire = server.connect()
            wire.receive(b"GET /readyz HTTP/1.1\r\n\r\n")
            assert wire.sent.split()[1] == status

    def test_no_byte_of_a_refused_request_comes_back(self) -> None:
        """Autobahn would repeat headers in its answer and its log."""
        for header in ("Sec_WebSocket_Key", "Sec_WebSocket_Version", "Upgrade", "Connection", "Host", "Origin"):
            wire = Server().connect()
            wire.receive(handshake(**{header: "secret<script>:x"}))
            sent = wire.sent
            assert sent.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 426 ")), header
            assert b"secret" not in sent

    @pytest.mark.parametrize("size", [MAX_HEAD + 1, MAX_HEAD + 1000])
    @pytest.mark.parametrize("complete", [True, False])
    def test_a_head_without_end_is_refused(self, size: int, complete: bool) -> None:
        """As soon as it is too large, complete or not; no more of it is kept."""
        server = Server()
        wire = server.connect()
        data = b"GET / HTTP/1.1\r\nA: ".ljust(size, b"x")
        wire.receive(data + b"\r\n\r\n" if complete else data)
        assert wire.sent.startswith(b"HTTP/1.1 400 ")
        wire.settle()
        server.assert_empty()

    def test_a_head_of_the_greatest_size_is_read(self) -> None:
        """To the last byte."""
        wire = Server().connect()
        filler = "x" * (MAX_HEAD - len(handshake(A="")) + 4)
        wire.receive(handshake(A=filler))
        assert wire.sent.startswith(b"HTTP/1.1 101 ")

    def test_half_a_request_is_waited_for_in_vain(self) -> None:
        """408 after 10 s."""
        server = Server()
        wire = server.connect()
        wire.receive(handshake()[:-1])
        server.clock.advance(9.9)
        assert not wire.sent
        server.clock.advance(0.2)
        assert wire.sent.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        wire.settle()
        server.assert_empty()

    def test_a_websocket_is_not_timed_out(self) -> None:
        """The time-out is the handshake's alone."""
        server = Server()
        wire = server.open()
        server.clock.advance(1000)
        assert wire.lost is None

    def test_a_peer_that_does_not_take_its_answer_is_dropped(self) -> None:
        """5 s after the refusal; the time-out of the handshake means nothing any more."""
        server = Server()
        wire = server.connect()
        wire.socket.room = 0
        server.clock.advance(9)
        wire.receive(b"GET /nothing HTTP/1.1\r\n\r\n")
        server.clock.advance(4.9)
        wire.settle()
        assert b"408" not in wire.buffered
        assert wire.lost is None
        server.clock.advance(0.1)
        wire.settle()
        assert wire.lost is not None
        server.assert_empty()

    def test_what_follows_a_refusal_is_not_kept(self) -> None:
        """A TLS transport goes on delivering until its peer has closed too."""
        wire = Server().connect()
        wire.receive(b"POST / HTTP/1.1\r\n\r\n")
        for _ in range(100):
            wire.protocol.dataReceived(b"x" * 1000)
        assert len(wire.protocol.data) < 1000

    def test_a_full_server_refuses_websockets_only(self) -> None:
        """With when to come back; health is still told."""
        server = Server(max_connections=1)
        first = server.open()
        wire = server.connect()
        wire.receive(handshake())
        answer = wire.sent
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 30\r\n" in answer
        wire = server.connect()
        wire.receive(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert wire.sent.startswith(b"HTTP/1.1 200 ")
        first.hang_up()
        server.open()

    @pytest.mark.parametrize(
        ("offered", "chosen"), [("a", b"a"), ("a, b", b"a"), (", b", b"b"), ("", None), (",", None)]
    )
    def test_the_first_subprotocol_is_agreed_to(self, offered: str, chosen: bytes | None) -> None:
        """A browser that asked for one fails without; an empty one is none."""
        wire = Server().connect()
        wire.receive(handshake(Sec_WebSocket_Protocol=offered))
        answer = wire.sent
        assert answer.startswith(b"HTTP/1.1 101 ")
        if chosen is None:
            assert b"Protocol:" not in answer
        else:
            assert b"\r\nSec-WebSocket-Protocol: " + chosen + b"\r\n" in answer

    @property_test
    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=3))
    def test_any_bytes_wait_or_are_refused(self, data: bytes, cuts: list[int]) -> None:
        """Nothing else can come of them, and nothing is left."""
        server = Server()
        wire = server.connect()
        for piece in pieces_of(data, cuts):
            wire.receive(piece)
        wire.settle()
        assert wire.sent[:13] in (b"", b"HTTP/1.1 400 ")
        wire.hang_up()
        server.assert_empty()

    @property_test
    @given(
        st.dictionaries(
            st.sampled_from(HEADERS),
            st.none() | st.sampled_from(ODD_VALUES) | st.text(st.characters(min_codepoint=32, max_codepoint=255)),
            max_size=4,
        )
    )
    def test_any_headers_are_accepted_or_refused(self, headers: dict[str, str | None]) -> None:
        """With a status of PROTOCOL.md, section 8, and nothing is left."""
        server = Server()
        wire = server.connect()
        wire.receive(handshake(**headers))
        assert wire.sent[9:12] in (b"101", b"400", b"426")
        wire.settle()
        wire.hang_up()
        server.assert_empty()
