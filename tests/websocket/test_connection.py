"""A client's connection over a scripted socket: once it is open, frames of any kind, every way in which it can end.

`TestAutobahn` holds one test for each of Autobahn's internals that `marketfeed.websocket.connection` leans on. One that
fails after an update says what has to be looked at again.
"""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import pytest
import txaio.tx
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from marketfeed.access.tokens import TokenVerifier
from marketfeed.model.streams import LossPolicy, StreamKind
from marketfeed.session.context import SessionLimits
from marketfeed.session.session import Session
from marketfeed.websocket.connection import ClientProtocol
from marketfeed.wire.dialects import Shape
from marketfeed.wire.frames import text_frame
from marketfeed.wire.messages import CLOSE_REASONS, ServerShutdown
from tests.by_hand import BINARY, CLOSE, PING, PONG, TEXT, close_code, frame, frames_of, handshake, say
from tests.conftest import LogCapture
from tests.strategies import property_test
from tests.tokens import key_set, signed
from tests.websocket.server import CLIENT_QUEUE, MAX_MESSAGE, NOW, SECONDS_TO_CLOSE, Server, Wire, pieces_of, trade


@pytest.fixture(autouse=True)
def _own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `ClientFactory` sets Autobahn's clock; afterwards it is what it was."""
    monkeypatch.setattr(txaio.tx.config, "loop", txaio.tx.config.loop)


class TestConversation:
    def test_requests_are_answered_and_publications_delivered(self) -> None:
        """The whole way, in the dialect of the path."""
        server = Server()
        wire = server.open("/")
        wire.receive(say({"method": "SUBSCRIBE", "params": ["trade@A"], "id": 1}))
        server.source.confirm()
        server.source.publish("trade@A", trade(1), trade(2))
        reply, first, second = wire.messages
        assert reply == {"stream": "!reply", "data": {"e": "reply", "id": 1, "result": None}}
        assert (first["data"]["t"], second["data"]["t"]) == (1, 2)

    def test_a_message_may_come_in_pieces(self) -> None:
        """Of frames, with a ping between them, and of bytes."""
        wire = Server().open()
        request = json.dumps({"method": "PING", "id": "é"}, ensure_ascii=False).encode()
        cut = request.index(b"\xc3") + 1
        data = frame(request[:cut], fin=False) + frame(b"p", PING) + frame(request[cut:], 0)
        for byte in data:
            wire.receive(bytes((byte,)))
        assert wire.frames == [(PONG, b"p"), (TEXT, '{"result":"PONG","id":"é"}'.encode())]

    @pytest.mark.parametrize("payload", [b"", b"hello", b"x" * 125])
    def test_a_ping_is_answered(self, payload: bytes) -> None:
        """With its payload; a pong nobody asked for is not."""
        wire = Server().open()
        wire.receive(frame(payload, PING) + frame(payload, PONG))
        assert wire.frames == [(PONG, payload)]

    def test_a_message_of_the_greatest_size_is_read(self) -> None:
        """In one frame and in several."""
        wire = Server().open()
        request = json.dumps({"method": "PING", "x": "x" * 2000}).encode()[: MAX_MESSAGE - 2] + b'"}'
        wire.receive(frame(request) + frame(request[:500], fin=False) + frame(request[500:], 0))
        assert len(request) == MAX_MESSAGE
        assert wire.messages == [{"result": "PONG"}] * 2

    def test_a_client_that_asks_too_much_is_not_read_from(self) -> None:
        """Until its SUBSCRIBE is confirmed."""
        server = Server()
        wire = server.open()
        wire.receive(say({"method": "SUBSCRIBE", "params": ["trade@A"]}) + 20 * say({"method": "PING"}))
        assert not wire.reading
        server.source.confirm()
        assert wire.reading
        assert len(wire.messages) == 21

    def test_an_internal_error_ends_that_client_only(self, monkeypatch: pytest.MonkeyPatch, logged: LogCapture) -> None:
        """It is logged, and told with 1011."""
        server = Server()
        other, wire = server.open(), server.open()
        server.watch(other)
        with monkeypatch.context() as patch:
            patch.setattr(Session, "receive", lambda *_: 1 / 0)
            wire.receive(say({"method": "PING"}))
        assert wire.closed_with == 1011
        (event,) = logged.flush_failures(ZeroDivisionError)
        assert event["client"] == wire.protocol.client_id
        server.source.publish("trade@A", trade())
        assert other.messages == [json.loads(trade())]

    def test_an_internal_error_at_the_beginning_is_told_too(
        self, monkeypatch: pytest.MonkeyPatch, logged: LogCapture
    ) -> None:
        """Behind the answer to the handshake."""
        server = Server()
        monkeypatch.setattr(Session, "begin", lambda *_: 1 / 0)
        wire = server.open()
        assert not wire.sent
        assert logged.flush_failures(ZeroDivisionError)

    def test_what_comes_and_goes_is_logged(self, logged: LogCapture) -> None:
        """Each client with its number, its peer, its dialect, its age and why it left; nothing of what it sent."""
        server = Server()
        wire = server.open("/stream?token=secret", Cookie="secret")
        server.clock.advance(12.5)
        wire.receive(frame(b"\x03\xe8bye", CLOSE))
        wire.settle()
        connected, disconnected = [event for event in logged.events if event["log_level"].name == "info"]
        assert connected["client"] == disconnected["client"] == wire.protocol.client_id
        assert (connected["peer"], connected["dialect"]) == ("192.0.2.7:50007", "combined")
        assert (disconnected["age"], disconnected["reason"]) == (12.5, "closed by the client with 1000")
        assert (disconnected["code"], disconnected["closed_by"], disconnected["streams"]) == (1000, "client", 0)
        assert (disconnected["peer"], "user" in disconnected) == (connected["peer"], False)
        assert "secret" not in repr(logged.events)

    def test_whose_token_it_is_is_logged(self, logged: LogCapture) -> None:
        """As a fact of its own, where there is one; the token is not."""
        server = Server(verifier=TokenVerifier(lambda: key_set("HS256"), lambda: NOW))
        token = signed(exp=NOW + 3600)
        bearer, nobody = server.open(f"/ws?token={token}"), server.open()
        connected = [event for event in logged.events if "connected" in event["log_format"]]
        assert [formatEvent(event) for event in connected] == [
            f"client {server.users.run}-1 connected from 192.0.2.7:50007, raw, user alice",
            f"client {server.users.run}-2 connected from 192.0.2.7:50007, raw",
        ]
        assert [event.get("user") for event in connected] == ["alice", None]
        assert token not in repr(logged.events)
        for wire in (bearer, nobody):
            wire.hang_up()
        assert [event.get("user") for event in logged.events[-2:]] == ["alice", None]
        server.assert_empty()

    def test_an_end_has_its_facts(self, logged: LogCapture) -> None:
        """In fields: who closed it and with which code, what it had, and what waited for it as its end began."""
        server = Server()
        wire = server.open("/ws/trade@A/ticker@A/depth@A")
        server.source.confirm()
        wire.socket.room = 0
        server.source.publish("trade@A", trade(1), trade(2))
        server.source.publish("ticker@A", *[b'{"e":"ticker","c":"1","s":"A","h":"1"}'] * 4)
        level = b'{"e":"depth","s":"A","U":%d,"u":%d,"b":[["1","2"]],"a":[]}'
        server.source.publish("depth@A", *[level % (number, number) for number in range(1, 7)])
        waiting = wire.protocol.outbox.waiting_bytes
        assert waiting > 100
        wire.hang_up()
        event = logged.events[-1]
        assert {name: event[name] for name in ("code", "closed_by", "streams", "waiting", "replaced", "merged")} == {
            "code": 1006,
            "closed_by": "nobody",
            "streams": 3,
            "waiting": waiting,
            "replaced": 3,
            "merged": 5,
        }
        assert formatEvent(event) == (
            f"client {server.users.run}-1 disconnected after 0.0 s: connection lost: ConnectionDone; "
            f"192.0.2.7:50007, 3 streams, {waiting} bytes waiting, 3 publications replaced, 5 merged"
        )
        server.assert_empty()

    def test_what_waited_is_known_though_the_transport_has_let_go(self, logged: LogCapture) -> None:
        """Twisted's stops its producer before it tells the protocol."""
        server = Server()
        wire = server.open("/ws/trade@A")
        server.source.confirm()
        wire.socket.room = 0
        server.source.publish("trade@A", trade(1), trade(2))
        waiting = wire.protocol.outbox.waiting_bytes
        wire.protocol.outbox.stopProducing()
        wire.hang_up()
        assert logged.events[-1]["waiting"] == waiting > 0
        server.assert_empty()

    def test_no_two_clients_have_one_id(self) -> None:
        """Neither of one process nor of two."""
        servers = [Server(), Server()]
        wires = [server.open() for server in servers for _ in range(3)]
        assert len({wire.protocol.client_id for wire in wires}) == 6
        for wire in wires:
            wire.hang_up()

    def test_a_refusal_is_logged(self, logged: LogCapture) -> None:
        """With its status, and nothing of the request."""
        server = Server()
        wire = server.connect()
        wire.receive(b"GET /secret HTTP/1.1\r\n\r\n")
        (event,) = logged.events
        assert (event["log_level"].name, event["status"], event["peer"]) == ("info", 404, "192.0.2.7:50007")
        assert "secret" not in repr(logged.events)


TOO_LARGE = [
    frame(b"x" * (MAX_MESSAGE + 1)),
    frame(b"x" * MAX_MESSAGE, fin=False) + frame(b"x", 0),
    frame(b"", announced=2**62),
    frame(b"", BINARY, announced=2**62),
]
NOT_UTF8 = [
    frame(b"\xff"),
    frame(b"\xc3"),
    frame(b"\xc3", fin=False) + frame(b"\x28", 0),
    frame(b"\xed\xa0\x80"),
    frame(b"\x03\xe8\xff", CLOSE),
]
VIOLATIONS = [
    frame(b"x", mask=None),
    *(frame(b"x", rsv=rsv) for rsv in range(1, 8)),
    *(frame(b"x", opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    frame(b"x", 0),
    frame(b"x", fin=False) + frame(b"x"),
    frame(b"x", fin=False) + frame(b"x", BINARY),
    frame(b"x", PING, fin=False),
    frame(b"x" * 126, PING),
    frame(b"x" * 126, CLOSE),
    frame(b"x", CLOSE),
    frame(b"x" * 10, length_bytes=2),
    frame(b"x" * 10, length_bytes=8),
    frame(b"", announced=2**63),
    frame(b"", announced=2**64 - 1),
    *(frame(code.to_bytes(2, "big"), CLOSE) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)),
]


class TestClosing:
    @pytest.mark.parametrize("data", TOO_LARGE, ids=range(len(TOO_LARGE)))
    def test_a_message_too_large(self, data: bytes) -> None:
        """1009, as soon as its length is known."""
        self._refuses(data, 1009)

    @pytest.mark.parametrize("data", NOT_UTF8, ids=range(len(NOT_UTF8)))
    def test_text_that_is_none(self, data: bytes) -> None:
        """1007."""
        self._refuses(data, 1007)

    @pytest.mark.parametrize("data", VIOLATIONS, ids=range(len(VIOLATIONS)))
    def test_a_violation_of_the_protocol(self, data: bytes) -> None:
        """1002."""
        self._refuses(data, 1002)

    def test_a_binary_message(self) -> None:
        """1003."""
        self._refuses(frame(b"x", BINARY), 1003)

    def _refuses(self, data: bytes, code: int) -> None:
        server = Server()
        other, wire = server.open(), server.open()
        server.watch(other)
        server.watch(wire)
        wire.receive(data)
        assert wire.closed_with == code
        assert server.hub._registry._streams["trade@A"].groups["trade@A", Shape.DATA, 0, False].size == 1
        wire.receive(say({"method": "PING"}) + frame(b"\xff") + frame(b"x", PING))
        assert not wire.sent  # after the close nothing is answered
        server.source.publish("trade@A", trade())
        assert not wire.sent
        assert other.messages == [json.loads(trade())]
        server.clock.advance(SECONDS_TO_CLOSE)
        wire.settle()
        assert wire.lost is not None
        assert len(server.users) == 1

    @pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9going away", b"\x0f\xa0", b"\x13\x87"])
    def test_a_client_that_closes_gets_its_answer(self, payload: bytes) -> None:
        """1000, and the connection ends in order."""
        server = Server()
        wire = server.open()
        server.watch(wire)
        wire.receive(frame(payload, CLOSE))
        wire.settle()
        assert wire.closed_with == 1000
        assert wire.lost is not None
        assert wire.lost.check(ConnectionDone)
        server.assert_empty()

    def test_the_outbox_lets_go_of_a_connection_that_closes(self) -> None:
        """What is written too late goes nowhere."""
        server = Server()
        refused, closed = server.connect(), server.open()
        refused.receive(b"GET / HTTP/1.1\r\n\r\n")
        closed.receive(frame(b"", CLOSE))
        for wire in (refused, closed):
            assert wire.producer is None
            wire.protocol.outbox.write(b"late")
            wire.settle()
            assert wire.lost is not None
            assert wire.lost.check(ConnectionDone)
            assert b"late" not in wire.sent
        server.assert_empty()

    def test_the_answer_to_a_close_goes_behind_all_that_waits(self) -> None:
        """A client that reads on gets everything that was sent before."""
        server = Server()
        wire = server.open()
        server.watch(wire)
        wire.socket.room = 10
        for number in range(5):
            server.source.publish("trade@A", trade(number))
        wire.receive(frame(b"", CLOSE))
        wire.socket.room = None
        wire.settle()
        *publications, (opcode, _) = wire.frames
        assert publications == [(TEXT, trade(number)) for number in range(5)]
        assert opcode == CLOSE
        assert wire.lost is not None
        server.assert_empty()

    @pytest.mark.parametrize("data", [frame(b"", CLOSE), frame(b"\x03\xe8", CLOSE)], ids=["bare", "1000"])
    def test_a_client_that_answers_our_close_ends_in_order(self, data: bytes) -> None:
        """At once, not with a reset: what was sent before the close may still be on its way."""
        server = Server()
        wire = server.open()
        wire.receive(frame(b"x", BINARY))
        wire.receive(data)
        wire.settle()
        assert wire.lost is not None
        assert wire.lost.check(ConnectionDone)
        server.assert_empty()

    @pytest.mark.parametrize("data", [frame(b"x", CLOSE), frame(b"\x03\xe7", CLOSE)], ids=["one byte", "code 999"])
    def test_the_answer_to_a_bad_close_arrives(self, data: bytes) -> None:
        """Behind all that waits, although nothing more is expected of this client."""
        server = Server()
        wire = server.open()
        server.watch(wire)
        wire.socket.room = 10
        server.source.publish("trade@A", trade())
        wire.receive(data)
        wire.socket.room = None
        wire.settle()
        publication, (opcode, payload) = wire.frames
        assert publication == (TEXT, trade())
        assert (opcode, close_code(payload)) == (CLOSE, 1002)
        assert wire.lost is not None
        assert wire.lost.check(ConnectionDone)
        server.assert_empty()

    def test_a_client_that_does_not_answer_our_close_is_dropped(self) -> None:
        """After some seconds."""
        server = Server()
        wire = server.open()
        wire.receive(frame(b"x", BINARY))
        server.clock.advance(3.9)
        assert not wire.aborted
        server.clock.advance(1.2)
        wire.settle()
        assert wire.aborted
        server.assert_empty()

    def test_a_client_that_goes_without_a_word(self, logged: LogCapture) -> None:
        """Leaves nothing, and the log says how it went."""
        server = Server()
        wire = server.open()
        server.watch(wire)
        wire.connectionLost(Failure(ConnectionLost()))
        server.assert_empty()
        assert logged.events[-1]["reason"] == "connection lost: ConnectionLost"

    def test_a_peer_that_goes_before_its_handshake(self, logged: LogCapture) -> None:
        """Was never a client: nothing is logged."""
        server = Server()
        wire = server.connect()
        wire.receive(b"GET ")
        wire.hang_up()
        server.assert_empty()
        assert not logged.events

    def test_too_many_requests(self, logged: LogCapture) -> None:
        """4029, and what comes after it is not looked at."""
        server = Server(limits=SessionLimits(request_burst=1, request_rate=1))
        wire = server.open()
        wire.receive(30 * say({"method": "PING", "id": 1}))
        *answers, (opcode, payload) = wire.frames
        assert len(answers) == 20
        assert (opcode, payload) == (CLOSE, b"\x0f\xbdtoo many requests")
        wire.receive(frame(payload, CLOSE))
        wire.settle()
        server.assert_empty()
        assert logged.events[-1]["reason"] == "closed by the server with 4029 too many requests"


class TestSlowClient:
    def test_a_client_that_does_not_read_is_sent_away(self, logged: LogCapture) -> None:
        """Past its queue it loses its streams at once, gets 4008 behind the frame that was cut, and has 5 s for it."""
        server = Server()
        other, wire = server.open(), server.open()
        server.watch(other)
        server.watch(wire)
        wire.socket.room = 30
        count = 0
        while server.hub._registry._streams["trade@A"].groups["trade@A", Shape.DATA, 0, False].size == 2:
            server.source.publish("trade@A", trade(count))
            count += 1
        assert CLIENT_QUEUE - 100 < count * len(text_frame(trade())) < CLIENT_QUEUE + 200
        wire.socket.room = None
        wire.settle()
        *publications, (opcode, payload) = wire.frames
        assert publications == [(TEXT, trade(0))]
        assert (opcode, payload) == (CLOSE, b"\x0f\xa8slow consumer")
        assert len(other.messages) == count
        server.clock.advance(SECONDS_TO_CLOSE)
        wire.settle()
        event = logged.events[-1]
        assert event["reason"] == "closed by the server with 4008 slow consumer"
        assert (event["code"], event["closed_by"], event["streams"]) == (4008, "server", 1)
        assert CLIENT_QUEUE - 100 < event["waiting"] <= CLIENT_QUEUE
        other.hang_up()
        server.assert_empty()

    def test_a_client_that_reads_nothing_at_all_is_dropped(self) -> None:
        """The close cannot reach it."""
        server = Server()
        wire = server.open()
        server.watch(wire)
        wire.socket.room = 0
        for number in range(100):
            server.source.publish("trade@A", trade(number))
        server.clock.advance(SECONDS_TO_CLOSE)
        wire.settle()
        assert wire.aborted
        server.assert_empty()

    def test_replies_count_too(self) -> None:
        """A client that asks and does not read is slow as well, and nothing follows its close."""
        server = Server()
        wire = server.open()
        wire.socket.room = 0
        wire.receive(1000 * say({"method": "PING"}))
        wire.socket.room = None
        wire.settle()
        *replies, (opcode, payload) = wire.frames
        assert replies == [(TEXT, b'{"result":"PONG"}')]
        assert (opcode, close_code(payload)) == (CLOSE, 4008)

    def test_a_change_that_sends_too_much_is_not_answered_after_the_close(self) -> None:
        """The close is the last frame."""
        server = Server()
        wire = server.open()
        server.watch(wire)
        wire.socket.room = 0
        server.source.publish("trade@A", trade())
        for number in range(CLIENT_QUEUE // len(text_frame(trade())) + 1):
            server.hub.publish("trade@A", trade(number))
        wire.receive(say({"method": "UNSUBSCRIBE", "params": ["trade@A"]}))
        wire.socket.room = None
        wire.settle()
        _, (opcode, payload) = wire.frames
        assert (opcode, close_code(payload)) == (CLOSE, 4008)

    def test_a_flood_of_pings_is_answered_or_ends_the_client(self) -> None:
        """Pongs pass the outbox like everything else."""
        server = Server()
        wire = server.open()
        wire.receive(100 * frame(b"x" * 100, PING))
        assert len(wire.frames) == 100
        wire.socket.room = 0
        wire.receive(100 * frame(b"x" * 100, PING))
        wire.socket.room = None
        wire.settle()
        *_, (opcode, payload) = wire.frames
        assert (opcode, close_code(payload)) == (CLOSE, 4008)


class TestSentAway:
    @pytest.mark.parametrize("path", ["/", "/stream", "/ws"])
    def test_a_client_is_told_before_it_is_closed(self, path: str) -> None:
        """serverShutdown in its dialect, then 1012."""
        server = Server()
        wire = server.open(path)
        wire.protocol.send_away(ServerShutdown(5, 6), at_once=False)
        (_, event), (opcode, payload) = wire.frames
        data = {"e": "serverShutdown", "E": 5, "reconnectAfter": 6}
        assert json.loads(event) == (data if path == "/ws" else {"stream": "!serverShutdown", "data": data})
        assert (opcode, close_code(payload)) == (CLOSE, 1012)
        wire.receive(frame(b"\x03\xf4", CLOSE))
        wire.settle()
        server.assert_empty()

    def test_at_once_nobody_waits_for_the_answer(self) -> None:
        """Farewell, close, end of the connection."""
        server = Server()
        wire = server.open()
        wire.protocol.send_away(ServerShutdown(5, 6), at_once=True)
        wire.settle()
        assert len(wire.frames) == 2
        assert wire.lost is not None
        assert wire.lost.check(ConnectionDone)
        wire.protocol.send_away(ServerShutdown(5, 6), at_once=True)
        wire.protocol.abort()
        server.assert_empty()

    def test_who_is_closing_already_is_not_told(self) -> None:
        """There is one close only; at once, the connection ends all the same."""
        server = Server()
        wire = server.open()
        wire.receive(frame(b"x", BINARY))
        wire.protocol.send_away(ServerShutdown(5, 6), at_once=True)
        wire.settle()
        assert wire.closed_with == 1003
        server.assert_empty()

    @pytest.mark.parametrize("at_once", [True, False])
    def test_a_client_can_be_ended_without_a_word(self, at_once: bool) -> None:
        """Even when it has been sent away, and does not read."""
        server = Server()
        wire = server.open()
        wire.socket.room = 0
        wire.protocol.send_away(ServerShutdown(5, 6), at_once=at_once)
        wire.protocol.abort()
        wire.settle()
        assert wire.aborted
        server.assert_empty()


ORDERS = StreamKind("orders", LossPolicy.KEEP, private=True)


def with_token(server: Server, seconds: float, path: str = "/ws", **claims: Any) -> Wire:
    """A client of alice, whose token expires in so many seconds."""
    return server.open(path, Authorization=f"Bearer {server.token(seconds, **claims)}")


def pass_by(server: Server, seconds: int) -> None:
    server.clock.pump([1.0] * seconds)


class TestToken:
    @pytest.mark.parametrize("path", ["/", "/stream", "/ws"])
    def test_a_client_hears_before_its_token_expires(self, path: str) -> None:
        """A minute before, in its dialect; then 4401, and it is gone from everywhere."""
        server = Server(auth="required", per_address=1)
        wire = with_token(server, 3600, path)
        pass_by(server, 3539)
        assert not wire.sent
        pass_by(server, 2)
        ((_, event),) = wire.frames
        data = {"e": "expiring", "E": int((NOW + 3540) * 1000), "expiresAt": int((NOW + 3600) * 1000)}
        assert json.loads(event) == (data if path == "/ws" else {"stream": "!expiring", "data": data})
        wire.receive(say({"method": "SUBSCRIBE", "params": ["trade@A"]}))
        server.source.confirm()
        server.source.publish("trade@A", trade())
        assert wire.messages
        pass_by(server, 60)
        assert wire.frames == [(CLOSE, b"\x11\x31token missing, bad or expired")]
        assert not server.hub.streams
        wire.receive(frame(b"\x11\x31", CLOSE))
        wire.settle()
        server.assert_empty()

    def test_a_renewal_in_time(self) -> None:
        """Is answered, and the new token's end is what counts; the old one is not heard of again."""
        server = Server(auth="required")
        wire = with_token(server, 70)
        pass_by(server, 20)
        (event,) = wire.messages
        assert event["e"] == "expiring"
        wire.receive(say({"method": "AUTH", "params": [server.token(600)], "id": 1}))
        assert wire.messages == [{"result": None, "id": 1}]
        pass_by(server, 500)
        assert not wire.sent
        pass_by(server, 50)
        (event,) = wire.messages
        assert event["expiresAt"] == int((NOW + 620) * 1000)
        pass_by(server, 51)
        assert wire.closed_with == 4401
        assert len(server.clock.getDelayedCalls()) == 1  # for the answer to the close
        wire.hang_up()
        server.assert_empty()

    def test_a_renewal_that_ends_soon(self) -> None:
        """Is answered first; what there is to say of it comes after."""
        server = Server(auth="optional")
        wire = server.open()
        wire.receive(say({"method": "AUTH", "params": [server.token(30)], "id": 1}))
        assert wire.messages == [{"result": None, "id": 1}]
        pass_by(server, 1)
        assert [message["e"] for message in wire.messages] == ["expiring"]
        pass_by(server, 30)
        assert wire.closed_with == 4401

    def test_a_renewal_that_fails(self) -> None:
        """Changes nothing: the old token goes on, and ends."""
        server = Server(auth="required")
        wire = with_token(server, 10)
        for token in (server.token(600, sub="bob"), server.token(-600), "nonsense"):
            wire.receive(say({"method": "AUTH", "params": [token]}))
            assert [message["error"]["code"] for message in wire.messages] == [6]
        pass_by(server, 11)
        assert [opcode for opcode, _ in wire.frames] == [TEXT, CLOSE]
        assert wire.protocol.localCloseCode == 4401

    def test_private_streams(self) -> None:
        """Each user has its own, and hears when it is not its any more."""
        server = Server(auth="required", kinds=(ORDERS,))
        alice, bob = with_token(server, 600), with_token(server, 600, sub="bob")
        server.source.at_once = True
        for wire, code in ((alice, None), (bob, 5)):
            wire.receive(say({"method": "SUBSCRIBE", "params": ["orders@alice"]}))
            assert [message.get("error", {}).get("code") for message in wire.messages] == [code]
        alice.receive(say({"method": "AUTH", "params": [server.token(600, streams=["trade@*"])], "id": 2}))
        reply, error = alice.messages
        assert (reply, error["error"]["code"]) == ({"result": None, "id": 2}, 5)
        assert "orders@alice" not in server.hub.streams

    def test_the_streams_of_a_path_need_permission_too(self) -> None:
        """The client hears that they are not subscribed."""
        server = Server(auth="required", kinds=(ORDERS,))
        wire = server.connect()
        wire.receive(handshake("/ws/orders@bob", Authorization=f"Bearer {server.token(streams=['orders@${sub}'])}"))
        _, _, rest = wire.sent.partition(b"\r\n\r\n")
        ((_, payload),) = frames_of(rest)
        assert json.loads(payload)["error"]["code"] == 5
        assert not server.source.wanted

    def test_the_notice_may_be_one_message_too_many(self) -> None:
        """A client that is too slow for it ends as any slow client, and no timer outlives it."""
        server = Server(auth="required", per_address=1)
        wire = with_token(server, 70)
        server.watch(wire)
        wire.socket.room = 0
        while CLIENT_QUEUE - wire.protocol.outbox.waiting_bytes > 60:
            server.source.publish("trade@A", trade())
        pass_by(server, 11)
        assert wire.protocol.localCloseCode == 4008
        pass_by(server, SECONDS_TO_CLOSE)
        wire.settle()
        assert wire.lost is not None
        server.assert_empty()

    @pytest.mark.parametrize("end", ["hang up", "close", "binary", "send away", "abort"])
    def test_whoever_leaves_before_takes_the_timer_along(self, end: str) -> None:
        """However it leaves."""
        server = Server(auth="required")
        wire = with_token(server, 600)
        assert len(server.clock.getDelayedCalls()) == 1
        if end == "close":
            wire.receive(frame(b"", CLOSE))
        elif end == "binary":
            wire.receive(frame(b"x", BINARY) + frame(b"\x03\xeb", CLOSE))
        elif end == "send away":
            wire.protocol.send_away(ServerShutdown(5, 6), at_once=True)
        elif end == "abort":
            wire.protocol.abort()
        wire.settle()
        wire.hang_up()
        server.assert_empty()

    def test_a_page_that_is_only_to_be_told_hears_of_no_shutdown(self) -> None:
        """It has its close already."""
        server = Server(auth="required")
        wire = server.connect()
        wire.receive(handshake(Origin="https://localhost"))
        _, _, rest = wire.sent.partition(b"\r\n\r\n")
        assert [opcode for opcode, _ in frames_of(rest)] == [CLOSE]
        wire.protocol.send_away(ServerShutdown(5, 6), at_once=True)
        wire.settle()
        assert not wire.sent
        server.assert_empty()

    def test_why_a_client_left_is_logged(self, logged: LogCapture) -> None:
        """With the meaning of the code, not with the token."""
        server = Server(auth="required")
        wire = with_token(server, 1)
        pass_by(server, 2)
        wire.receive(frame(b"\x11\x31", CLOSE))
        wire.settle()
        assert logged.events[-1]["reason"] == "closed by the server with 4401 token missing, bad or expired"


frames_any_way = st.builds(
    frame,
    st.binary(max_size=20)
    | st.sampled_from((b'{"method":"PING"}', b'{"method":"SUBSCRIBE","params":["trade@A"]}', b"x" * 126, b"x" * 1001)),
    st.integers(0, 15),
    fin=st.booleans(),
    rsv=st.sampled_from((0, 0, 0, 1, 4, 7)),
    mask=st.binary(min_size=4, max_size=4) | st.just(b"mask") | st.none(),
    length_bytes=st.none() | st.just(8),
)
good_frames = st.sampled_from(
    (
        say({"method": "PING", "id": 1}),
        say({"method": "SUBSCRIBE", "params": ["trade@A", "a@depth"]}),
        say({"method": "UNSUBSCRIBE", "params": ["trade@A"]}),
        frame(b"ping", PING),
        frame(b'{"method":', fin=False),
        frame(b'"PING"}', 0),
        frame(b"\xc3\xa9"),
        frame(b"\x03\xe8", CLOSE),
    )
)
noise = st.lists(st.binary(max_size=60) | frames_any_way | good_frames | good_frames, max_size=8)
documented = frozenset((1000, *(reason.code for reason in CLOSE_REASONS)))


class TestNoise:
    @property_test
    @given(noise, st.booleans())
    def test_any_bytes_have_a_documented_outcome(self, sent: list[bytes], confirm: bool) -> None:
        """Whole frames come back, a close is the last of them, with a code of docs/protocol.md, and nothing is left."""
        server = Server()
        other, wire = server.open(), server.open()
        server.watch(other, "ticker@B")
        for data in sent:
            wire.receive(data)
            if confirm:
                server.source.confirm()
        received = wire.frames
        assert all(opcode in (TEXT, PONG, CLOSE) for opcode, _ in received)
        closes = [payload for opcode, payload in received if opcode == CLOSE]
        if closes:
            assert received[-1] == (CLOSE, closes[0])
            assert close_code(closes[0]) in documented
            server.clock.advance(SECONDS_TO_CLOSE)
            wire.settle()
            assert wire.lost is not None
        assert len(server.users) == 2 - bool(closes)
        server.source.publish("ticker@B", b'{"e":"ticker","c":"1","s":"B"}')
        assert len(other.messages) == 1
        wire.hang_up()
        other.hang_up()
        server.assert_empty()

    @property_test
    @given(noise.map(b"".join), st.lists(st.integers(0, 500), max_size=6))
    def test_how_bytes_are_cut_makes_no_difference(self, data: bytes, cuts: list[int]) -> None:
        """The network may split them anywhere."""
        server = Server()
        whole, pieces = server.open(), server.open()
        whole.receive(data)
        for piece in pieces_of(data, cuts):
            pieces.receive(piece)
        assert pieces.sent == whole.sent
        server.clock.advance(SECONDS_TO_CLOSE)
        for wire in (whole, pieces):
            wire.settle()
        assert (pieces.lost is None) == (whole.lost is None)


class TestAutobahn:
    def test_the_states_of_a_connection(self) -> None:
        """`close_with` and `send_text` act in OPEN, `dataReceived` not in CLOSED."""
        wire = Server().connect()
        protocol = wire.protocol
        assert protocol.state == protocol.STATE_CONNECTING
        wire.receive(handshake())
        assert protocol.state == protocol.STATE_OPEN
        wire.receive(frame(b"x", BINARY))
        assert protocol.state == protocol.STATE_CLOSING
        wire.receive(frame(b"", CLOSE))
        assert protocol.state == protocol.STATE_CLOSED

    def test_every_option_is_an_attribute_of_the_class(self) -> None:
        """Autobahn copies onto each instance what CONFIG_ATTRS names; a new option must be added to ours.

        Left out are those that only Autobahn's own reading of the request asks for.
        """
        options = set(WebSocketServerProtocol.CONFIG_ATTRS)
        assert options > {"failByDrop", "tcpNoDelay", "perMessageCompressionAccept"}
        factory = Server().factory
        assert factory.protocol.CONFIG_ATTRS == []
        missing = {option for option in options if option not in vars(factory.protocol)}
        assert missing == {
            "versions",
            "webStatus",
            "perMessageCompressionAccept",  # a method of ours
            "serveFlashSocketPolicy",
            "flashSocketPolicy",
            "allowedOrigins",
            "allowedOriginsPatterns",
            "allowNullOrigin",
            "maxConnections",
            "trustXForwardedFor",
        }
        wire = Server().open()
        assert not options & vars(wire.protocol).keys()

    def test_small_frames_are_not_held_back(self) -> None:
        """`connectionMade` reads tcpNoDelay before Autobahn's own copy exists, and ignores that it fails."""
        assert Server().connect().no_delay is True

    def test_compression_that_is_offered_is_taken(self) -> None:
        """`perMessageCompressionAccept` is called as a plain function, with the offers alone."""
        wire = Server().connect()
        wire.receive(handshake(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"))
        answer = wire.sent
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover" in answer

    @pytest.mark.parametrize("origin", ["null", "file://", "https://example.com", "capacitor://localhost"])
    def test_any_origin_passes(self, origin: str) -> None:
        """`allowNullOrigin` is read from the factory, `allowedOriginsPatterns` from the protocol."""
        Server().open(Origin=origin)

    def test_all_that_autobahn_writes_passes_send_data(self) -> None:
        """Pongs, closes and the answer to the handshake keep their place behind what waits."""
        server = Server()
        wire = server.open()
        server.watch(wire)
        wire.socket.room = 1
        server.source.publish("trade@A", trade())
        wire.receive(frame(b"p", PING))
        wire.receive(frame(b"x", BINARY))
        wire.socket.room = None
        wire.settle()
        assert [opcode for opcode, _ in wire.frames] == [TEXT, PONG, CLOSE]

    def test_a_connection_is_dropped_through_two_hooks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`dropConnection` calls `unregisterProducer`, which is not to touch the outbox, then `_closeConnection`."""
        calls = []
        monkeypatch.setattr(ClientProtocol, "unregisterProducer", lambda _: calls.append("unregister"))
        monkeypatch.setattr(ClientProtocol, "_closeConnection", lambda _, abort: calls.append(f"abort={abort}"))
        wire = Server().open()
        wire.protocol.dropConnection(abort=True)
        assert calls == ["unregister", "abort=True"]
        wire.hang_up()

    @pytest.mark.parametrize("reason", CLOSE_REASONS, ids=lambda reason: str(reason.code))
    def test_a_close_frame_may_have_any_code(self, reason: Any) -> None:
        """`sendCloseFrame` takes those that `sendClose` refuses, and `onMessage` may come after it."""
        wire = Server().open()
        wire.protocol.close_with(reason)
        assert wire.frames == [(CLOSE, reason.code.to_bytes(2, "big") + reason.meaning.encode())]
        wire.protocol.onMessage(b'{"method":"PING"}', False)
        wire.protocol.close_with(reason)
        assert not wire.sent

    def test_timers_are_those_of_the_factory(self) -> None:
        """They use txaio's clock, which is one for all, and are cut to whole seconds."""
        server = Server()
        assert txaio.tx.config.loop is server.clock
        server.clock.advance(0.9)
        wire = server.open()
        assert not server.clock.getDelayedCalls()
        wire.receive(frame(b"x", BINARY))
        (call,) = server.clock.getDelayedCalls()
        assert call.getTime() == 5.0
        assert wire.protocol.closeHandshakeTimeoutCall is not None
        wire.hang_up()
        assert not server.clock.getDelayedCalls()

    @pytest.mark.parametrize("end", ["hang up", "close", "refused", "aborted"])
    def test_a_connection_that_is_gone_leaves_no_cycle(self, end: str) -> None:
        """`is_closed` has the protocol as its result: what is frozen with `gc.freeze` would stay for ever."""
        gc.collect()
        gc.disable()
        try:
            server = Server()
            if end == "refused":
                wire = server.connect()
                wire.receive(b"GET / HTTP/1.1\r\n\r\n")
            else:
                wire = server.open("/ws/trade@A")
                server.source.confirm()
                wire.receive(say({"method": "PING"}))
            if end == "close":
                wire.receive(frame(b"", CLOSE))
            elif end == "aborted":
                wire.protocol.abort()
            wire.settle()
            if end == "hang up":
                wire.hang_up()
            assert wire.lost is not None
            gone = weakref.ref(wire.protocol)
            del wire.protocol, wire
            assert gone() is None
        finally:
            gc.enable()

    def test_a_failed_handshake_calls_fail_handshake(self) -> None:
        """With the text, which is not to be sent, and any headers."""
        parameters = WebSocketServerProtocol.failHandshake.__code__.co_varnames[:4]
        assert parameters == ("self", "reason", "code", "responseHeaders")
        assert ClientProtocol.failHandshake.__code__.co_varnames[:4] == parameters

    def test_the_request_is_handed_on_where_autobahn_reads_it(self) -> None:
        """`processHandshake` reads `data`, and leaves there what came behind the request."""
        wire = Server().connect()
        wire.receive(handshake() + b"\x81")
        assert wire.protocol.data == b"\x81"

    def test_autobahn_says_nothing(self, logged: LogCapture) -> None:
        """Its loggers are levelled, and those of the protocol's class are not this one's."""
        server = Server()
        for data in (handshake(Host=None), handshake() + frame(b"x", mask=None), handshake() + frame(b"\xff")):
            wire = server.connect()
            wire.receive(data)
            server.clock.advance(SECONDS_TO_CLOSE)
            wire.settle()
        assert not [event for event in logged.events if not event["log_namespace"].startswith("marketfeed.")]

    def test_violations_are_answered_not_dropped(self) -> None:
        """`failByDrop` is False, and then every check goes on to the end of the bad frame."""
        assert Server().factory.protocol.failByDrop is False
        assert WebSocketProtocol.CLOSE_STATUS_CODE_PROTOCOL_ERROR == 1002
        assert WebSocketProtocol.CLOSE_STATUS_CODE_INVALID_PAYLOAD == 1007
        assert WebSocketProtocol.CLOSE_STATUS_CODE_MESSAGE_TOO_BIG == 1009
