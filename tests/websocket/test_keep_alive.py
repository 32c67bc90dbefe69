"""Several requests on one connection: in order, bounded in bytes and time, and nothing is left of any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone

from marketfeed.boundaries import NoBook
from marketfeed.http.head import MAX_HEAD
from marketfeed.websocket.handshake import HANDSHAKE_SECONDS, KEPT_SECONDS
from tests.by_hand import handshake, say
from tests.fakes import FakeBook, FakeBooks
from tests.noise import pieces
from tests.strategies import property_test
from tests.websocket.server import SECONDS_TO_CLOSE, Server, Wire

ASK = b"GET /api/v3/depth?symbol=A HTTP/1.1\r\n\r\n"
BAD = b"GET /api/v3/depth HTTP/1.1\r\n\r\n"


def answers(sent: bytes) -> Iterator[tuple[int, bool]]:
    """The status of each answer, and whether the connection goes on behind it. Nothing but whole answers was sent."""
    while sent:
        head, _, sent = sent.partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        fields = dict(header.split(": ", 1) for header in headers)
        goes_on = fields["Connection"] == "keep-alive"
        assert goes_on == (fields.get("Keep-Alive") == f"timeout={KEPT_SECONDS}")
        length = int(fields.get("Content-Length", "0"))
        assert len(sent) >= length
        sent = sent[length:]
        yield int(line.split()[1]), goes_on


def turn(server: Server, wire: Wire) -> list[tuple[int, bool]]:
    """Let everything be answered that was asked."""
    sent = b""
    for _ in range(50):
        server.clock.advance(0)
        wire.settle()
        sent += wire.sent
    return list(answers(sent))


def connected(books: FakeBooks | None = None, **options: int) -> tuple[Server, Wire]:
    server = Server(books=books or FakeBooks(FakeBook()), **options)
    return server, server.connect()


def assert_gone(server: Server, wire: Wire) -> None:
    """The connection has ended, and nothing is left of it."""
    wire.settle()
    assert wire.lost is not None
    assert server.factory.handshakes.unread == 0
    assert not server.factory.handshakes.idle
    server.assert_empty()


class TestRequests:
    def test_one_after_the_other(self) -> None:
        """Refusals too; each is counted by what it was for."""
        server, wire = connected()
        for request, status in ((ASK, 200), (BAD, 400), (ASK.replace(b"GET", b"OPTIONS"), 204), (ASK, 200)):
            wire.receive(request)
            assert turn(server, wire) == [(status, True)]
        assert server.factory.handshakes.answered == {("depth", 200): 2, ("depth", 400): 1, ("depth", 204): 1}
        wire.hang_up()
        assert_gone(server, wire)

    def test_several_at_once_are_answered_in_order_a_turn_for_each(self) -> None:
        """However many there are, the others are served in between."""
        server, wire = connected()
        wire.receive(ASK + BAD + ASK)
        assert list(answers(wire.sent)) == [(200, True)]
        assert turn(server, wire) == [(400, True), (200, True)]
        wire.hang_up()
        assert_gone(server, wire)

    def test_what_comes_while_an_answer_is_found_out_waits(self) -> None:
        """As much of it as one request may have."""
        books = FakeBooks()
        server, wire = connected(books)
        wire.receive(ASK + BAD)
        wire.receive(ASK)
        assert server.factory.handshakes.unread == len(BAD + ASK)
        books.give(FakeBook())
        assert turn(server, wire) == [(200, True), (400, True)]
        books.give(NoBook.INCOMPLETE)
        assert turn(server, wire) == [(503, True)]
        wire.hang_up()
        assert_gone(server, wire)

    @pytest.mark.parametrize("more", [b"x" * (MAX_HEAD + 1), ASK * 1000])
    def test_more_than_that_ends_it_behind_the_answer(self, more: bytes) -> None:
        """Nothing of it is kept."""
        books = FakeBooks()
        server, wire = connected(books)
        wire.receive(ASK)
        for _ in range(3):
            wire.receive(more)
            assert not wire.protocol.data
        books.give(FakeBook())
        assert turn(server, wire) == [(200, False)]
        assert_gone(server, wire)

    @pytest.mark.parametrize(
        "request_",
        [
            ASK.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n"),
            ASK.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: Close\r\n"),
            ASK.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nContent-Length: 38\r\n"),
            ASK.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"),
            b"GET /healthz HTTP/1.1\r\n\r\n",
            b"GET /nothing HTTP/1.1\r\n\r\n",
        ],
    )
    def test_what_it_ends_behind(self, request_: bytes) -> None:
        """Who says so, a body that nobody reads, and all that is not for market data: what follows is no request."""
        server, wire = connected()
        wire.receive(ASK)
        assert turn(server, wire) == [(200, True)]
        wire.receive(request_ + BAD)
        ((_, goes_on),) = turn(server, wire)
        assert not goes_on
        assert_gone(server, wire)

    def test_a_body_of_nothing_is_none(self) -> None:
        """Some clients say so."""
        server, wire = connected()
        wire.receive(ASK.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nContent-Length: 0\r\n"))
        assert turn(server, wire) == [(200, True)]
        wire.hang_up()

    def test_a_websocket_may_follow(self) -> None:
        """Then it is one, and no request any more."""
        server, wire = connected(max_connections=1)
        wire.receive(ASK + handshake() + say({"method": "PING"}))
        server.clock.advance(0)
        assert b"HTTP/1.1 101 " in wire.sent
        wire.receive(say({"method": "PING"}))
        assert wire.messages == [{"result": "PONG"}]
        server.clock.advance(2 * KEPT_SECONDS)
        assert wire.lost is None
        wire.hang_up()
        assert_gone(server, wire)

    @property_test
    @given(
        st.lists(st.sampled_from((ASK, BAD, ASK.replace(b"GET", b"HEAD"))), max_size=6),
        st.lists(st.integers(0, 80), max_size=12),
        st.booleans(),
    )
    def test_any_number_in_any_pieces(self, requests: list[bytes], cuts: list[int], in_turns: bool) -> None:
        """One answer for each, in order, whether they come together or one by one."""
        server, wire = connected()
        sent = b""
        for piece in pieces(b"".join(requests), cuts):
            wire.receive(piece)
            if in_turns:
                server.clock.advance(0)
        for _ in range(20):
            server.clock.advance(0)
        wire.settle()
        sent = wire.sent
        statuses = [int(part.split()[0]) for part in sent.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [400 if request == BAD else 200 for request in requests]
        wire.hang_up()
        assert_gone(server, wire)


class TestTime:
    def test_one_that_is_idle_ends_without_a_word(self) -> None:
        """After longer than proxies keep one."""
        server, wire = connected()
        wire.receive(ASK)
        turn(server, wire)
        server.clock.advance(KEPT_SECONDS - 1)
        assert not wire.disconnecting
        server.clock.advance(1)
        wire.settle()
        assert not wire.sent
        assert wire.lost is not None
        assert wire.lost.check(ConnectionDone)
        assert_gone(server, wire)

    def test_a_request_has_as_long_as_the_first_one(self) -> None:
        """From its first byte on."""
        server, wire = connected()
        wire.receive(ASK)
        turn(server, wire)
        server.clock.advance(KEPT_SECONDS - 1)
        wire.receive(ASK[:5])
        server.clock.advance(HANDSHAKE_SECONDS - 0.1)
        assert not wire.sent
        server.clock.advance(0.2)
        assert turn(server, wire) == [(408, False)]
        assert_gone(server, wire)

    @pytest.mark.parametrize(("taken", "is_cut"), [(1_000, True), (20_000, False)])
    def test_the_next_one_is_read_when_the_answer_was_taken(self, taken: int, is_cut: bool) -> None:
        """By who takes some of it all the time. Who does not is cut off."""
        book = FakeBook(5000)
        server, wire = connected(FakeBooks(book))
        wire.socket.room = 0
        wire.receive(ASK.replace(b"=A", b"=A&limit=5000") + BAD)
        for _ in range(20):
            wire.socket.room = taken
            wire.settle()
            server.clock.advance(SECONDS_TO_CLOSE)
        assert wire.aborted == is_cut
        wire.socket.room = None
        if not is_cut:
            assert turn(server, wire) == [(200, True), (400, True)]
            wire.hang_up()
        assert_gone(server, wire)

    def test_who_hangs_up_in_the_midst_of_an_answer(self) -> None:
        """Nothing is left."""
        server, wire = connected(FakeBooks(FakeBook(5000)))
        wire.socket.room = 100
        wire.receive(ASK.replace(b"=A", b"=A&limit=5000") + BAD)
        wire.hang_up()
        assert_gone(server, wire)


class TestRoom:
    def test_idle_ones_make_room_first(self) -> None:
        """For those that ask for something: these are never ended for their sake."""
        server = Server(books=FakeBooks(FakeBook()), max_handshakes=3)
        idle = [server.connect(), server.connect()]
        for wire in idle:
            wire.receive(ASK)
            turn(server, wire)
        half = [server.connect() for _ in range(3)]
        for wire in (*idle, *half):
            wire.settle()
        assert [wire.aborted for wire in (*idle, *half)] == [True, True, False, False, False]
        last = server.connect()
        half[0].settle()
        assert half[0].aborted
        for wire in (*half, last):
            wire.hang_up()
        server.assert_empty()

    def test_none_is_kept_when_the_server_ends(self) -> None:
        """Those that are idle end at once, the others behind their answer, which says so."""
        books = FakeBooks(FakeBook())
        server = Server(books=books)
        wires = [server.connect() for _ in range(3)]
        wires[0].receive(ASK)
        turn(server, wires[0])
        books.at_once = None
        wires[1].receive(ASK)
        server.factory.handshakes.keep_no_more()
        wires[0].settle()
        assert wires[0].lost is not None
        books.give(FakeBook())
        assert turn(server, wires[1]) == [(200, False)]
        books.at_once = FakeBook()
        wires[2].receive(ASK)
        assert turn(server, wires[2]) == [(200, False)]
        for wire in wires:
            assert_gone(server, wire)
