"""From a connection to a WebSocket: what is answered, who is let in, and that all that was counted is given back."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

import marketfeed.websocket.handshake
from marketfeed.boundaries import NoBook
from marketfeed.http.head import MAX_HEAD
from marketfeed.websocket.connection import ClientProtocol
from marketfeed.websocket.handshake import HANDSHAKE_SECONDS
from marketfeed.wire.messages import ServerShutdown
from tests.by_hand import BINARY, CLOSE, KEY, PING, TEXT, frame, frames_of, handshake, say
from tests.conftest import LogCapture
from tests.fakes import FakeBook, FakeBooks
from tests.rooms import trade
from tests.strategies import property_test
from tests.websocket.server import PEER, SECONDS_TO_CLOSE, Server, Wire


class TestHandshake:
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

    @pytest.mark.parametrize("chunk", [1, 1000])
    def test_tls_where_none_is_spoken_is_refused_at_once(self, chunk: int) -> None:
        """Nothing that could be waited for would make it a request."""
        server = Server()
        wire = server.connect()
        hello = bytes.fromhex("160301020001000001fc0303") + bytes(500)
        for at in range(0, 2 * chunk if chunk == 1 else len(hello), chunk):
            wire.receive(hello[at : at + chunk])
        sent = wire.sent
        assert sent.startswith(b"HTTP/1.1 400 ")
        assert b"this is a TLS handshake; expected HTTP" in sent
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


ASK = b"GET /api/v3/depth?symbol=A HTTP/1.1\r\nConnection: close\r\n\r\n"


class TestAsking:
    def ask(self, request: bytes = ASK) -> tuple[Server, FakeBooks, Wire]:
        """A server whose book takes its time, and somebody who has asked for it, and wants nothing else."""
        books = FakeBooks()
        server = Server(books=books)
        wire = server.connect()
        wire.receive(request)
        assert len(books.waiting) == 1
        assert not wire.sent
        return server, books, wire

    def gone(self, server: Server, books: FakeBooks, wire: Wire) -> None:
        """The connection has ended, and nobody waits for anything."""
        wire.settle()
        assert wire.lost is not None
        assert not books.waiting
        server.assert_empty()

    @pytest.mark.parametrize("book", [NoBook.INCOMPLETE, FakeBook()])
    def test_a_book_is_answered_when_it_is_there(self, book: FakeBook | NoBook) -> None:
        """Or when there will be none; then the connection ends."""
        server, books, wire = self.ask()
        books.give(book)
        wire.settle()
        head, _, body = wire.sent.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 " if isinstance(book, NoBook) else b"HTTP/1.1 200 ")
        assert {b"Content-Type: application/json", b"Connection: close", b"Content-Length: %d" % len(body)} <= {
            *head.split(b"\r\n")
        }
        assert isinstance(book, NoBook) or body == book.depth(100)
        self.gone(server, books, wire)

    def test_a_book_that_is_there(self) -> None:
        """HEAD gets its length only."""
        server = Server(books=FakeBooks(FakeBook()))
        wires = [server.connect(), server.connect()]
        for wire, request in zip(wires, (ASK, ASK.replace(b"GET", b"HEAD")), strict=True):
            wire.receive(request)
            wire.settle()
        answer = wires[0].sent
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert wires[1].sent == answer[: answer.index(b"\r\n\r\n") + 4]
        server.assert_empty()

    @pytest.mark.parametrize("tail", [b"", b"GET /heal", ASK + handshake(), b"x" * 100_000])
    def test_what_comes_meanwhile_is_not_kept(self, tail: bytes) -> None:
        """With the request or behind it; there is one answer."""
        server, books, wire = self.ask(ASK + tail)
        for _ in range(3):
            wire.receive(tail)
            assert not wire.protocol.data
        assert server.factory.handshakes.unread == 0
        books.give(FakeBook())
        wire.settle()
        assert wire.sent.count(b"HTTP/1.1") == 1
        self.gone(server, books, wire)

    def test_who_hangs_up_is_not_waited_for(self) -> None:
        """Nobody is asked any more."""
        server, books, wire = self.ask()
        wire.hang_up()
        self.gone(server, books, wire)

    def test_it_takes_as_long_as_a_request_at_most(self) -> None:
        """Counted from the moment at which the request was complete; then it is as if the book were not."""
        books = FakeBooks()
        server = Server(books=books)
        wire = server.connect()
        wire.receive(ASK[:-1])
        server.clock.advance(HANDSHAKE_SECONDS - 1)
        wire.receive(ASK[-1:])
        server.clock.advance(HANDSHAKE_SECONDS - 0.1)
        assert not wire.sent
        server.clock.advance(0.2)
        assert wire.sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
        self.gone(server, books, wire)

    def test_who_waits_for_a_book_may_have_to_make_room(self) -> None:
        """It is no client; nothing is asked for it any more."""
        books = FakeBooks()
        server = Server(books=books, max_handshakes=1)
        first = server.connect()
        first.receive(ASK)
        second = server.connect()
        assert first.aborted
        assert not books.waiting
        second.hang_up()
        self.gone(server, books, first)
        assert not first.sent

    def test_a_fault_of_ours_is_an_answer_too(self, logged: LogCapture) -> None:
        """It is logged, and nobody is left waiting."""
        server, books, wire = self.ask()
        books.waiting.pop().errback(ArithmeticError())
        wire.settle()
        assert wire.sent.startswith(b"HTTP/1.1 500 ")
        assert len(logged.flush_failures(ArithmeticError)) == 1
        self.gone(server, books, wire)

    @pytest.mark.parametrize("fault", ["late", "ours"])
    def test_a_page_can_read_every_answer(self, fault: str, logged: LogCapture) -> None:
        """In JSON, also where it is too late, or where the fault is ours."""
        server, books, wire = self.ask(ASK[:-2] + b"Origin: http://localhost\r\n\r\n")
        if fault == "late":
            server.clock.advance(HANDSHAKE_SECONDS)
        else:
            books.waiting.pop().errback(ArithmeticError())
            assert len(logged.flush_failures(ArithmeticError)) == 1
        wire.settle()
        head, _, body = wire.sent.partition(b"\r\n\r\n")
        assert b"\r\nAccess-Control-Allow-Origin: http://localhost\r\n" in head
        assert b"\r\nContent-Type: application/json\r\n" in head
        assert head.startswith(b"HTTP/1.1 503 " if fault == "late" else b"HTTP/1.1 500 ")
        assert json.loads(body)["code"] == (-1008 if fault == "late" else -1000)
        self.gone(server, books, wire)

    def test_a_late_answer_to_head_has_no_body(self) -> None:
        """As any other."""
        server, books, wire = self.ask(ASK.replace(b"GET", b"HEAD"))
        server.clock.advance(HANDSHAKE_SECONDS)
        answer = wire.sent
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"\r\n\r\n")
        self.gone(server, books, wire)

    @pytest.mark.parametrize(("taken", "is_whole"), [(20_000, True), (16_384, True), (1_000, False), (0, False)])
    def test_a_long_answer_is_sent_for_as_long_as_it_is_taken(self, taken: int, is_whole: bool) -> None:
        """At 16 KiB in five seconds, at least: who takes less, or nothing, is cut off."""
        book = FakeBook(5000)
        server = Server(books=FakeBooks(book))
        wire = server.connect()
        wire.socket.room = 0
        wire.receive(ASK.replace(b" HTTP", b"&limit=5000 HTTP"))
        for _ in range(20):
            wire.socket.room = taken
            wire.settle()
            server.clock.advance(SECONDS_TO_CLOSE)
        assert wire.aborted != is_whole
        assert wire.sent.endswith(book.depth(5000) or b"") == is_whole
        wire.settle()
        server.assert_empty()

    def test_an_address_behind_a_proxy(self) -> None:
        """Is that of the client."""
        server = Server(books=FakeBooks(FakeBook()), proxies=[PEER], rest_rate=1)
        statuses = []
        for address in ("198.51.100.1", "198.51.100.2", "198.51.100.1"):
            wire = server.connect()
            wire.receive(ASK[:-2] + f"X-Forwarded-For: {address}\r\n\r\n".encode())
            statuses.append(wire.sent.split()[1])
        assert statuses == [b"200", b"200", b"429"]


class TestRoom:
    def test_the_oldest_unfinished_handshake_makes_room(self) -> None:
        """One more than there may be, and the one that has had longest is ended, without a word; no other is."""
        server = Server(max_handshakes=3)
        client = server.open("/ws/trade@A")
        server.source.confirm()
        wires = [server.connect() for _ in range(5)]
        for wire in (client, *wires):
            wire.settle()
        assert [wire.aborted for wire in wires] == [True, True, False, False, False]
        assert not b"".join(wire.sent for wire in wires)
        for wire in wires[2:]:
            wire.receive(handshake())
            assert wire.sent.startswith(b"HTTP/1.1 101 ")
        server.source.publish("trade@A", trade())
        assert len(client.messages) == 1
        for wire in (client, *wires):
            wire.hang_up()
        server.assert_empty()

    def test_who_has_sent_a_request_counts_no_more(self) -> None:
        """However many clients there are."""
        server = Server(max_handshakes=1)
        clients = [server.open() for _ in range(5)]
        half = server.connect()
        half.receive(handshake()[:-1])
        assert not any(wire.aborted for wire in (half, *clients))
        server.connect()
        assert half.aborted

    def test_who_has_been_answered_and_stays_counts(self) -> None:
        """A TLS connection, say, whose peer does not close its side: it is no client, and costs as much as one."""
        server = Server(max_handshakes=2)
        refused = server.connect()
        refused.socket.room = 0
        refused.receive(b"GET / HTTP/1.1\r\n\r\n")
        others = [server.connect(), server.connect()]
        assert [wire.aborted for wire in (refused, *others)] == [True, False, False]
        refused.settle()
        for wire in others:
            wire.hang_up()
        server.assert_empty()

    def test_what_unfinished_requests_take_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In bytes, of all together: the oldest make room, and what is kept of none is counted."""
        monkeypatch.setattr(marketfeed.websocket.handshake, "_MOST_UNREAD", 1000)
        server = Server()
        client = server.open()
        silent = server.connect()
        wires = [server.connect() for _ in range(4)]
        for wire in wires:
            for _ in range(4):
                wire.receive(b"A" * 100)
        assert [wire.aborted for wire in (silent, *wires)] == [True, True, True, False, False]
        assert server.factory.handshakes.unread == 800
        newcomer = server.connect()
        newcomer.receive(handshake()[:100])
        newcomer.receive(handshake()[100:])
        assert newcomer.sent.startswith(b"HTTP/1.1 101 ")
        wires[2].receive(b"\r\n\r\n")
        assert server.factory.handshakes.unread == 400
        server.clock.advance(HANDSHAKE_SECONDS)
        assert server.factory.handshakes.unread == 0
        for wire in (silent, *wires, newcomer, client):
            wire.settle()
            wire.hang_up()
        assert server.factory.handshakes.unread == 0
        server.assert_empty()

    def test_one_that_is_ended_to_make_room_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its transport may have more to deliver, TLS for one: that ends nobody."""
        monkeypatch.setattr(marketfeed.websocket.handshake, "_MOST_UNREAD", 1000)
        server = Server()
        wire = server.connect()
        wire.receive(b"A" * 1001)
        assert wire.aborted
        wire.protocol.dataReceived(b"A" * 1001)
        wire.settle()
        assert server.factory.handshakes.unread == 0
        server.assert_empty()

    def test_half_a_handshake_does_not_outlive_its_time(self) -> None:
        """Also when it was ended to make room: nothing is sent to it, and no timer waits for it."""
        server = Server(max_handshakes=1)
        first, second = server.connect(), server.connect()
        server.clock.advance(HANDSHAKE_SECONDS)
        first.settle()
        second.settle()
        assert not first.sent
        assert second.sent.startswith(b"HTTP/1.1 408 ")
        server.assert_empty()

    @property_test
    @given(st.integers(1, 4), st.lists(st.sampled_from(("connect", "ask", "refused", "hang up")), max_size=30))
    def test_beside_a_list(self, most: int, script: list[str]) -> None:
        """Whatever comes in between, those are ended that came first, and only as many as are too many."""
        server = Server(max_handshakes=most)
        waiting: list[Wire] = []
        others: list[Wire] = []
        for what in script:
            if what == "connect":
                waiting.append(server.connect())
                if len(waiting) > most:
                    oldest = waiting.pop(0)
                    assert oldest.aborted
                    others.append(oldest)
            elif waiting:
                wire = waiting.pop()
                others.append(wire)
                if what == "hang up":
                    wire.hang_up()
                else:
                    wire.receive(handshake() if what == "ask" else b"nonsense\r\n\r\n")
                    wire.settle()
            assert not any(wire.aborted for wire in waiting)
        for wire in (*waiting, *others):
            wire.settle()
            wire.hang_up()
        server.assert_empty()


class TestAccess:
    @pytest.mark.parametrize(
        ("more", "headers", "status", "expected"),
        [
            ({"per_address": 1}, {}, b"429 Too Many Requests", b"\r\nRetry-After: 30\r\n"),
            ({"auth": "required"}, {"Authorization": None}, b"401 Unauthorized", b"\r\nWWW-Authenticate: Bearer\r\n"),
            ({"origins": ()}, {"Origin": "https://evil.example"}, b"403 Forbidden", b"pages of this origin may not"),
        ],
    )
    def test_who_may_not_come_in_is_refused_before_the_upgrade(
        self, more: dict[str, Any], headers: dict[str, str | None], status: bytes, expected: bytes
    ) -> None:
        """In plain HTTP, which ends the connection; who came before is not touched, and nothing is left."""
        server = Server(**more)
        good = {"Authorization": f"Bearer {server.token()}"}
        before = server.open(**good)
        wire = server.connect()
        wire.receive(handshake(**{**good, **headers}))
        wire.settle()
        answer = wire.sent
        assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert expected in answer
        assert answer.count(b"HTTP/1.1 ") == 1
        assert wire.lost is not None
        assert wire.lost.check(ConnectionDone)
        assert len(server.users) == 1
        before.receive(say({"method": "PING"}))
        assert before.messages == [{"result": "PONG"}]
        before.hang_up()
        server.assert_empty()

    def test_plain_requests_are_not_counted(self) -> None:
        """A load balancer may ask as often as it likes."""
        server = Server(connect_rate=1, per_address=1)
        for _ in range(5):
            wire = server.connect()
            wire.receive(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert wire.sent.startswith(b"HTTP/1.1 200 ")
        server.open()

    @pytest.mark.parametrize("token", ["", "?token=x", "?token=EXPIRED"])
    def test_a_page_with_a_bad_token_is_told(self, token: str) -> None:
        """It gets 101, then close 4401 and nothing else, whatever it asked for in its path or sent along."""
        server = Server(auth="required", per_address=5)
        token = token.replace("EXPIRED", server.token(-100))
        wire = server.connect()
        wire.receive(
            handshake(f"/ws/trade@A{token}", Origin="https://localhost")
            + say({"method": "SUBSCRIBE", "params": ["trade@A"], "id": 1})
            + say({"method": "AUTH", "params": [server.token()], "id": 2})
            + frame(b"p", PING)
            + frame(b"\xff")
        )
        answer, _, rest = wire.sent.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert list(frames_of(rest)) == [(CLOSE, b"\x11\x31token missing, bad or expired")]
        assert not server.source.wanted
        wire.receive(frame(b"\x11\x31", CLOSE))
        wire.settle()
        assert not wire.sent
        assert wire.lost is not None
        server.assert_empty()

    def test_a_page_that_does_not_answer_is_dropped(self) -> None:
        """It counts as a client until it is gone, and no longer."""
        server = Server(auth="required", per_address=1)
        wire = server.connect()
        wire.receive(handshake(Origin="https://localhost"))
        assert len(server.users) == 1
        server.clock.advance(SECONDS_TO_CLOSE)
        wire.settle()
        assert wire.lost is not None
        server.assert_empty()

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            ("marketfeed, bearer.TOKEN", b"marketfeed"),
            ("bearer.TOKEN, marketfeed", b"marketfeed"),
            ("bearer.TOKEN,other,marketfeed", b"marketfeed"),
            ("bearer.TOKEN, other", b"other"),
            ("bearer.TOKEN", None),
            ("marketfeed", b"marketfeed"),
        ],
    )
    @pytest.mark.parametrize("auth", ["off", "optional"])
    def test_a_token_is_no_subprotocol(self, offered: str, chosen: bytes | None, auth: str) -> None:
        """`marketfeed` is agreed to, and the token never repeated, whether or not anybody looks at it."""
        server = Server(auth=auth)
        wire = server.connect()
        wire.receive(handshake(Sec_WebSocket_Protocol=offered.replace("TOKEN", server.token())))
        head = wire.sent
        assert head.startswith(b"HTTP/1.1 101 ")
        agreed = [line for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Protocol: ")]
        assert agreed == ([] if chosen is None else [b"Sec-WebSocket-Protocol: " + chosen])
        assert b"bearer" not in head


def over(server: Server, *, opens: bool) -> Wire:
    """A connection that is counted, open or not."""
    wire = server.connect()
    wire.receive(handshake(Sec_WebSocket_Key=KEY if opens else "short"))
    return wire


def hung_up(server: Server) -> Wire:
    wire = over(server, opens=True)
    wire.hang_up()
    return wire


def lost(server: Server) -> Wire:
    wire = over(server, opens=True)
    wire.connectionLost(Failure(ConnectionLost()))
    return wire


def closed_by_the_client(server: Server) -> Wire:
    wire = over(server, opens=True)
    wire.receive(frame(b"\x03\xe8", CLOSE))
    return wire


def closed_by_the_server(server: Server) -> Wire:
    wire = over(server, opens=True)
    wire.receive(frame(b"x", BINARY))
    server.clock.advance(SECONDS_TO_CLOSE)
    return wire


def too_slow(server: Server) -> Wire:
    wire = over(server, opens=True)
    wire.socket.room = 0
    wire.receive(1000 * say({"method": "PING"}))
    server.clock.advance(SECONDS_TO_CLOSE)
    return wire


def aborted(server: Server) -> Wire:
    wire = over(server, opens=True)
    wire.protocol.abort()
    return wire


def sent_away(server: Server) -> Wire:
    wire = over(server, opens=True)
    wire.protocol.send_away(ServerShutdown(5, 6), at_once=True)
    return wire


def bad_handshake(server: Server) -> Wire:
    """Which is seen only when the client has been let in."""
    return over(server, opens=False)


def bad_handshake_unread(server: Server) -> Wire:
    """The answer to which the peer does not take."""
    wire = server.connect()
    wire.socket.room = 0
    wire.receive(handshake(Sec_WebSocket_Key="short"))
    server.clock.advance(SECONDS_TO_CLOSE)
    return wire


def refused(server: Server) -> Wire:
    """In plain HTTP, before it is known who asks."""
    wire = server.connect()
    wire.receive(b"GET / HTTP/1.1\r\n\r\n")
    return wire


def another_request_behind(server: Server) -> Wire:
    """Which is no frame, and no second handshake."""
    wire = server.connect()
    wire.receive(handshake() + handshake())
    server.clock.advance(SECONDS_TO_CLOSE)
    return wire


def another_request_behind_a_bad_one(server: Server) -> Wire:
    wire = server.connect()
    wire.receive(handshake(Sec_WebSocket_Key="short") + handshake())
    return wire


def socket_gone_at_the_answer(server: Server) -> Wire:
    wire = server.connect()
    wire.socket.script.append(OSError(errno.EPIPE, "broken pipe"))
    wire.receive(handshake())
    return wire


def expired(server: Server) -> Wire:
    wire = server.connect()
    wire.receive(handshake(Authorization=f"Bearer {server.token(10)}"))
    server.clock.pump([1.0] * 20)
    return wire


def page_without_a_good_token(server: Server) -> Wire:
    wire = server.connect()
    wire.receive(handshake("/?token=x", Origin="https://localhost"))
    server.clock.advance(SECONDS_TO_CLOSE)
    return wire


class TestGivenBack:
    @pytest.mark.parametrize(
        "end",
        [
            *(hung_up, lost, closed_by_the_client, closed_by_the_server, too_slow, aborted, sent_away),
            *(refused, bad_handshake, bad_handshake_unread, another_request_behind, another_request_behind_a_bad_one),
            *(socket_gone_at_the_answer, expired, page_without_a_good_token),
        ],
        ids=lambda end: end.__name__,
    )
    def test_however_a_connection_ends(self, end: Callable[[Server], Wire]) -> None:
        """Its place is free again, once; that of another client from there stays taken. And nothing holds it."""
        server = Server(per_address=2, auth="optional")
        other = server.open()
        gc.collect()
        gc.disable()  # for it would hide a cycle
        try:
            wire = end(server)
            wire.settle()
            assert wire.lost is not None
            gone = weakref.ref(wire.protocol)
            del wire.protocol
            assert gone() is None
        finally:
            gc.enable()
        assert server.admission.counts._counts == {PEER: 1}
        third, fourth = server.open(), server.connect()
        fourth.receive(handshake())
        assert fourth.sent.startswith(b"HTTP/1.1 429 ")
        fourth.settle()
        for each in (other, third):
            each.hang_up()
        server.assert_empty()

    def test_an_error_as_it_opens(self, monkeypatch: pytest.MonkeyPatch, logged: LogCapture) -> None:
        """A fault of ours, which Twisted logs before it ends the connection."""
        server = Server(per_address=1, auth="optional")
        wire = server.connect()
        with monkeypatch.context() as patch:
            patch.setattr(ClientProtocol, "renew", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                wire.receive(handshake())
        wire.connectionLost(Failure(ZeroDivisionError()))
        server.assert_empty()
        server.open()

    def test_who_never_asked(self) -> None:
        """Was not counted, and takes nobody's place away."""
        server = Server(per_address=1)
        first, half = server.open(), server.connect()
        half.receive(handshake()[:-1])
        half.hang_up()
        assert server.admission.counts._counts == {PEER: 1}
        first.hang_up()
        server.assert_empty()


class TestLog:
    def test_a_client_behind_a_proxy_is_shown(self, logged: LogCapture) -> None:
        """Where it is, not where its proxy is; one that is not behind any, with its port."""
        server = Server(proxies=["10.0.0.0/8", "unix"])
        for peer, forwarded, _ in SHOWN:
            server.open(peer=peer, X_Forwarded_For=forwarded)
        assert [event["peer"] for event in logged.events] == [shown for _, _, shown in SHOWN]

    def test_so_is_one_that_is_refused(self, logged: LogCapture) -> None:
        """For whoever looks for the reason."""
        server = Server(proxies=["10.0.0.0/8", "unix"], max_connections=0)
        for peer, forwarded, _ in SHOWN:
            server.connect(peer).receive(handshake(X_Forwarded_For=forwarded))
        assert [event["peer"] for event in logged.events] == [shown for _, _, shown in SHOWN]
        assert {event["status"] for event in logged.events} == {503}

    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            ("/ws?token=TOKEN", {}),
            ("/stream?streams=trade@A&token=TOKEN", {}),
            ("/ws", {"Authorization": "Bearer TOKEN"}),
            ("/ws", {"Authorization": "Bearer TOKEN, Bearer x"}),
            ("/ws", {"Sec_WebSocket_Protocol": "marketfeed, bearer.TOKEN"}),
            ("/ws", {"Sec_WebSocket_Protocol": "bearer.TOKEN, bearer.TOKEN"}),
            ("/ws", {"Sec_WebSocket_Protocol": "bearer.TOKEN", "Sec_WebSocket_Key": "short"}),
            ("/TOKEN", {}),
            ("/ws#TOKEN", {}),
            ("/ws/TOKEN@A", {}),
            ("/ws/trade@A&token=TOKEN", {}),
            ("/stream?streams=trade@A?token=TOKEN", {}),
        ],
    )
    def test_no_token_is_ever_shown(self, path: str, headers: dict[str, str], logged: LogCapture) -> None:
        """Not in the log, with all that is for debugging, and not in an answer but as the name of a stream."""
        for auth, origin, seconds in itertools.product(("off", "required"), (None, "https://localhost"), (60, -60)):
            server = Server(auth=auth, origins=())
            token = server.token(seconds)
            wire = server.connect()
            sent = {name: value.replace("TOKEN", token) for name, value in headers.items()}
            wire.receive(handshake(path.replace("TOKEN", token), Origin=origin, **sent))
            wire.receive(say({"method": "AUTH", "params": [token], "id": 1}))
            answer = wire.sent
            wire.hang_up()
            assert answer
            assert logged.events
            shown = repr(logged.events).encode()
            for secret in (part[:20].encode() for part in token.split(".")):
                assert secret not in shown
                assert secret not in answer or b"bad stream name" in answer


SHOWN = [
    (PEER, "198.51.100.9", "192.0.2.7:50007"),
    ("2001:db8::1", None, "[2001:db8::1]:50007"),
    ("::ffff:192.0.2.7", None, "192.0.2.7:50007"),
    ("10.0.0.1", None, "10.0.0.1:50007"),
    ("10.0.0.1", "198.51.100.9", "198.51.100.9"),
    ("::ffff:10.0.0.1", "203.0.113.1, 198.51.100.9", "198.51.100.9"),
    ("10.0.0.1", "2001:DB8::0:1", "2001:db8::1"),
    (None, None, "a local socket"),
    (None, "198.51.100.9", "198.51.100.9"),
]
"""The connection's peer, X-Forwarded-For, and what the log has."""
