"""A client's connection over a scripted socket: once it is open, and every way in which it can end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from marketfeed.access.tokens import TokenVerifier
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.session.session import Session
from marketfeed.wire.close_codes import CLOSE_REASONS, CloseReason
from marketfeed.wire.dialects import Shape
from marketfeed.wire.frames import text_frame
from marketfeed.wire.messages import ServerShutdown
from tests.by_hand import BINARY, CLOSE, PING, TEXT, close_code, frame, frames_of, handshake, say
from tests.conftest import LogCapture
from tests.limits import session_limits
from tests.rooms import ticker, trade
from tests.tokens import key_set, signed
from tests.websocket.server import CLIENT_QUEUE, MAX_MESSAGE, NOW, SECONDS_TO_CLOSE, Server, Wire


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

    def test_a_storm_of_them_does_not_fill_the_log(self, logged: LogCapture) -> None:
        """A hundred lines of those who come, as many of those who go, and then one a second that counts."""
        server = Server(max_connections=2000)
        wires = [server.open() for _ in range(1000)]
        for wire in wires:
            wire.hang_up()
        server.clock.advance(1)
        for word in ("connected", "disconnected"):
            counts = [event["count"] for event in logged.events if f" {word} " in str(event["log_format"])]
            assert counts == [1] * 100 + [900]

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


class TestClosing:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (frame(b"x" * (MAX_MESSAGE + 1)), 1009),
            (frame(b"\xff"), 1007),
            (frame(b"x", mask=None), 1002),
            (frame(b"x", BINARY), 1003),
        ],
    )
    def test_what_no_client_may_send(self, data: bytes, code: int) -> None:
        """Its close says why, it is sent nothing more, and other clients do not notice."""
        server = Server()
        other, wire = server.open(), server.open()
        server.watch(other)
        server.watch(wire)
        wire.receive(data)
        assert wire.closed_with == code
        assert (
            server.hub._registry._streams["trade@A"].groups["trade@A", Shape.DATA, 0, False, 0, View.ENGINE].size == 1
        )
        wire.receive(say({"method": "PING"}) + frame(b"\xff") + frame(b"x", PING))
        assert not wire.sent  # after the close nothing is answered
        server.source.publish("trade@A", trade())
        assert not wire.sent
        assert other.messages == [json.loads(trade())]
        server.clock.advance(SECONDS_TO_CLOSE)
        wire.settle()
        assert wire.lost is not None
        assert len(server.users) == 1

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
        server = Server(limits=session_limits(request_burst=1, request_rate=1))
        wire = server.open()
        wire.receive(30 * say({"method": "PING", "id": 1}))
        *answers, (opcode, payload) = wire.frames
        assert len(answers) == 20
        assert (opcode, payload) == (CLOSE, b"\x0f\xbdtoo many requests")
        wire.receive(frame(payload, CLOSE))
        wire.settle()
        server.assert_empty()
        assert logged.events[-1]["reason"] == "closed by the server with 4029 too many requests"

    @pytest.mark.parametrize("reason", CLOSE_REASONS, ids=lambda reason: str(reason.code))
    def test_nothing_follows_a_close(self, reason: CloseReason) -> None:
        """Not even a second one, whatever comes in."""
        wire = Server().open()
        wire.protocol.close_with(reason)
        assert wire.frames == [(CLOSE, reason.code.to_bytes(2, "big") + reason.meaning.encode())]
        wire.protocol.onMessage(b'{"method":"PING"}', False)
        wire.protocol.close_with(reason)
        assert not wire.sent

    def test_small_frames_are_not_held_back(self) -> None:
        """Nagle's algorithm would wait for the answer to the one before."""
        assert Server().connect().no_delay is True


class TestSlowClient:
    def test_a_client_that_does_not_read_is_sent_away(self, logged: LogCapture) -> None:
        """Past its queue it loses its streams at once, gets 4008 behind the frame that was cut, and has 5 s for it."""
        server = Server()
        other, wire = server.open(), server.open()
        server.watch(other)
        server.watch(wire)
        wire.socket.room = 30
        count = 0
        while (
            server.hub._registry._streams["trade@A"].groups["trade@A", Shape.DATA, 0, False, 0, View.ENGINE].size == 2
        ):
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
    """A client of alice, whose token expires in so many seconds, and who hears of that."""
    return hearing(server.open(path, Authorization=f"Bearer {server.token(seconds, **claims)}"))


def hearing(wire: Wire) -> Wire:
    """A client who has set the property `events`."""
    wire.receive(say({"method": "SET_PROPERTY", "params": ["events", True]}))
    (answer,) = wire.messages
    assert answer.get("data", answer)["result"] is None
    return wire


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
        wire = with_token(server, 130)
        pass_by(server, 80)
        (event,) = wire.messages
        assert event["e"] == "expiring"
        wire.receive(say({"method": "AUTH", "params": [server.token(600)], "id": 1}))
        assert wire.messages == [{"result": None, "id": 1}]
        pass_by(server, 500)
        assert not wire.sent
        pass_by(server, 50)
        (event,) = wire.messages
        assert event["expiresAt"] == int((NOW + 680) * 1000)
        pass_by(server, 51)
        assert wire.closed_with == 4401
        assert len(server.clock.getDelayedCalls()) == 1  # for the answer to the close
        wire.hang_up()
        server.assert_empty()

    def test_a_renewal_that_ends_soon(self) -> None:
        """Is told of when half of it is over: who renews it then is not told again and again."""
        server = Server(auth="optional")
        wire = hearing(server.open())
        wire.receive(say({"method": "AUTH", "params": [server.token(30)], "id": 1}))
        assert wire.messages == [{"result": None, "id": 1}]
        pass_by(server, 14)
        assert not wire.sent
        pass_by(server, 2)
        assert [message["e"] for message in wire.messages] == ["expiring"]
        pass_by(server, 15)
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

    @pytest.mark.parametrize("path", ["/", "/stream", "/ws"])
    def test_who_does_not_hear_events_is_ended_all_the_same(self, path: str) -> None:
        """On the paths of clients made for Binance nobody hears of it who has not asked for that."""
        server = Server(auth="required")
        wire = server.open(path, Authorization=f"Bearer {server.token(70)}")
        pass_by(server, 60)
        assert len(wire.messages) == (path == "/")
        pass_by(server, 11)
        assert wire.closed_with == 4401

    def test_who_begins_to_hear_events_late_is_told_in_time(self) -> None:
        """When half of what is left then is over, and no more than once."""
        server = Server(auth="required")
        wire = server.open("/ws", Authorization=f"Bearer {server.token(30)}")
        pass_by(server, 16)
        assert not wire.sent
        hearing(wire)
        pass_by(server, 6)
        assert not wire.sent
        pass_by(server, 2)
        assert [message["e"] for message in wire.messages] == ["expiring"]
        hearing(wire)
        pass_by(server, 2)
        assert not wire.sent

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
        wire = with_token(server, 130)
        server.watch(wire)
        wire.socket.room = 0
        while CLIENT_QUEUE - wire.protocol.outbox.waiting_bytes > 60:
            server.source.publish("trade@A", trade())
        pass_by(server, 71)
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


class TestQuality:
    @pytest.mark.parametrize("path", ["/", "/stream", "/ws"])
    @pytest.mark.parametrize("hears", [True, False])
    def test_a_slow_client_is_told_what_is_left_out(self, path: str, hears: bool) -> None:
        """In its dialect, where it hears events: before what is left, and when nothing waits any more."""
        server = Server()
        wire = server.open(path)
        wire.receive(say({"method": "SET_PROPERTY", "params": ["events", hears]}))
        wire.receive(say({"method": "SUBSCRIBE", "params": ["ticker@A"], "id": 1}))
        server.source.confirm()
        assert len(wire.messages) == 2
        wire.socket.room = 0
        for number in range(9):
            server.source.publish("ticker@A", ticker(number))
        wire.socket.room = None
        wire.settle()
        server.clock.advance(1)
        told = [message.get("data", message) for message in wire.messages]
        quality = [(each["level"], each["streams"]) for each in told if each["e"] == "quality"]
        assert quality == [("thinned", ["ticker@A"]), ("live", ["ticker@A"])] * hears
        assert [each["t"] for each in told if each["e"] == "ticker"] == [0, 8]
        assert not hears or [each["e"] for each in told] == ["ticker", "quality", "ticker", "quality"]
        wire.hang_up()
        server.assert_empty()

    def test_whoever_leaves_takes_the_timer_along(self) -> None:
        """It is told nothing more."""
        server = Server()
        wire = server.open("/")
        wire.receive(say({"method": "SUBSCRIBE", "params": ["ticker@A"]}))
        server.source.confirm()
        wire.socket.room = 0
        for number in range(9):
            server.source.publish("ticker@A", ticker(number))
        wire.socket.room = None
        wire.settle()
        assert len(server.clock.getDelayedCalls()) == 1
        wire.hang_up()
        server.assert_empty()
