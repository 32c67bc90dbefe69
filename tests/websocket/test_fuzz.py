"""Whatever a peer sends, only what docs/protocol.md has comes of it: no other answer, no failure logged, nothing left.

These are properties for the ordinary tests; `make fuzz` tries some hundred times as many examples of each.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest_twisted  # type: ignore[import-untyped]
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.error import ConnectionLost
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from marketfeed.runtime.logs import Out, _Json, _Text
from marketfeed.wire.close_codes import CLOSE_REASONS
from marketfeed.wire.messages import ErrorCode
from tests.by_hand import CLOSE, PONG, TEXT, close_code, frame, frames_of, handshake, say
from tests.conftest import LogCapture
from tests.fakes import FakeMemory
from tests.guard import DEADLINE
from tests.limits import session_limits
from tests.noise import GOOD, SECRETS, SOON, guards, handshakes, paths, pieces, requests, streams_of_frames
from tests.rooms import trade
from tests.strategies import property_test
from tests.websocket.server import SECONDS_TO_CLOSE, Server, Wire

STATUSES = frozenset((101, 200, 204, 400, 401, 403, 404, 405, 408, 426, 429, 503))
CODES = frozenset((1000, *(reason.code for reason in CLOSE_REASONS)))
UNASKED = ("gap", "quality", "serverShutdown", "expiring")
DEFLATE = "permessage-deflate; client_max_window_bits"
HANDSHAKE_SECONDS = 11
DEEP = b'{"id":' + b"[" * 9000 + b"]" * 9000 + b"}"

cuts = st.lists(st.integers(0, 600), max_size=5)


class Nowhere(Out):
    def __init__(self) -> None:
        pass

    def write(self, text: str, level: object) -> None:
        assert text.endswith("\n")


@contextmanager
def nothing_left(server: Server) -> Iterator[None]:
    """At the end no client, stream or timer is left, and every event could be written to both kinds of log.

    None of them holds any part of a token.
    """
    capture = LogCapture()
    observers = (capture, _Text(Nowhere()), _Json(Nowhere()))
    for observer in observers:
        globalLogPublisher.addObserver(observer)
    try:
        yield
    finally:
        for observer in observers:
            globalLogPublisher.removeObserver(observer)
    assert [event["log_failure"].getTraceback() for event in capture.failures()] == []
    shown = repr(capture.events)
    assert not [secret for secret in SECRETS if secret in shown]
    server.assert_empty()
    assert not server.source.wanted


def assert_http(sent: bytes) -> int:
    """`sent` is one plain answer, or the answer to a handshake and whole frames; returns the status."""
    head, end, rest = sent.partition(b"\r\n\r\n")
    assert end
    line, *headers = head.decode("ascii").split("\r\n")
    version, status, _ = line.split(" ", 2)
    assert version == "HTTP/1.1"
    assert int(status) in STATUSES
    fields = dict(header.split(": ", 1) for header in headers)
    if status == "101":
        assert_frames(rest)
    else:
        assert fields["Connection"] == "close"
        assert len(rest) in (0, int(fields.get("Content-Length", "0")))  # 0: the answer to HEAD
    return int(status)


def assert_frames(sent: bytes) -> list[tuple[int, bytes]]:
    """`sent` is whole frames, texts of JSON and then a close with a code of docs/protocol.md#refusals-and-closes."""
    frames = list(frames_of(sent))
    for at, (opcode, payload) in enumerate(frames):
        if opcode == CLOSE:
            assert close_code(payload) in CODES
            payload[2:].decode()
            assert at == len(frames) - 1
        elif opcode == TEXT:
            json.loads(payload)
        else:
            assert opcode == PONG
    return frames


def leave(wire: Wire, how: str) -> None:
    """The connection ends: its peer hangs up, is lost, or waits for what the server does about it."""
    if how == "wait":
        wire.protocol.factory.clock.pump([1.0] * HANDSHAKE_SECONDS)  # type: ignore[attr-defined]
        wire.settle()
    if how == "lost":
        wire.connectionLost(Failure(ConnectionLost()))
    wire.hang_up()


def assert_freed(wire: Wire) -> None:
    """Nothing holds a connection that is gone, not even a cycle."""
    gone = weakref.ref(wire.protocol)
    del wire.protocol
    if gone() is not None:
        gc.collect(0)  # a traceback of an example before may hold it
    assert gone() is None


ends = st.sampled_from(("hang up", "lost", "wait"))


class TestHandshakes:
    @property_test
    @example(handshake("http://[/"), [], "hang up", 0, {})
    @example(handshake()[:-1], [], "wait", 0, {})
    @example(handshake(Origin="https://localhost"), [], "wait", 0, {"auth": "required", "per_address": 2})
    @given(
        st.lists(handshakes | streams_of_frames, min_size=1, max_size=3).map(b"".join),
        cuts,
        ends,
        st.integers(0, 7),
        guards,
    )
    def test_any_bytes(self, data: bytes, cuts: list[int], end: str, state: int, guard: dict[str, Any]) -> None:
        """One answer with a documented status, or none yet, which is 408 when nothing more comes in time.

        Whatever becomes of it, who was there before stays.
        """
        memory = FakeMemory()
        server = Server(**guard, memory=memory)
        with nothing_left(server):
            other = server.open(Authorization=f"Bearer {GOOD}")
            server.ready = not state & 1
            server.users.draining = state & 2 == 2
            memory.is_full = state & 4 == 4
            wire = server.connect()
            for piece in pieces(data, cuts):
                wire.receive(piece)
            wire.settle()
            sent = wire.sent
            status = assert_http(sent) if sent else None
            assert (wire.lost is None) or status is not None
            if end == "wait" and status is None:
                server.clock.advance(HANDSHAKE_SECONDS)
                wire.settle()
                assert assert_http(wire.sent) == 408
            if status not in (None, 101):
                assert wire.lost is not None
            leave(wire, end)
            other.receive(say({"method": "PING"}))
            assert other.messages == [{"result": "PONG"}]
            other.hang_up()
        assert_freed(wire)


class TestRequests:
    @property_test
    @example("/", [DEEP], True, 1000, 1024, "hang up")
    @given(
        paths,
        st.lists(requests, max_size=8),
        st.booleans(),
        st.sampled_from((3, 1000)),
        st.sampled_from((2, 1024)),
        ends,
    )
    def test_any_texts(
        self, path: str, said: list[bytes], at_once: bool, burst: int, max_streams: int, end: str
    ) -> None:
        """Each is answered with at most one reply: a result, or an error with a documented code and the same id."""
        limits = session_limits(request_burst=burst, max_streams=max_streams)
        server = Server(limits=limits, auth="optional", max_message=65536)
        server.source.at_once = at_once
        with nothing_left(server):
            wire = server.open(path)
            server.source.confirm()
            for payload in said:
                server.hub.publish("trade@A", trade())
                wire.receive(frame(payload))
                server.source.confirm()
                wire.settle()
                frames = assert_frames(wire.sent)
                if frames and frames[-1][0] == CLOSE:
                    assert close_code(frames[-1][1]) in (1007, 1009)
                    break
                replies = [reply for reply in map(reply_of, frames) if reply is not None]
                assert len(replies) <= 1
                if not replies:
                    assert is_quiet(path, payload)
                elif (expected := id_of(payload)) is not None:
                    assert replies[0].get("id", None) == expected
            leave(wire, end)
        assert_freed(wire)


def reply_of(received: tuple[int, bytes]) -> dict[str, Any] | None:
    """A reply's fields, whatever its dialect; None for what is no reply. Its error's code is a documented one."""
    message = json.loads(received[1])
    data = message["data"] if "stream" in message else message
    if data.get("e") in ("trade", *UNASKED):
        return None
    error = data if data.get("e") == "error" else data.get("error")
    if error is None:
        assert "result" in data
    else:
        ErrorCode(error["code"])
        assert isinstance(error["msg"], str)
        assert error["msg"].isprintable()
    return dict(data)


def is_quiet(path: str, payload: bytes) -> bool:
    """Whether a request may go without a reply: on /, without an id, a change of subscription."""
    request = json.loads(payload)
    return path == "/" and "id" not in request and request["method"] in ("SUBSCRIBE", "UNSUBSCRIBE")


def id_of(payload: bytes) -> int | str | None:
    """The id that a reply must have; None where it may have none."""
    try:
        msgspec.json.decode(payload)  # which knows half a surrogate pair for no text, and has no NaN
        request = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    request_id = request.get("id") if isinstance(request, dict) else None
    if isinstance(request_id, str) and len(request_id) <= 36 and request_id.isprintable():
        return request_id
    return request_id if type(request_id) is int and -(2**63) <= request_id < 2**63 else None


actions: dict[str, Callable[[Server, Wire], None]] = {
    "confirm": lambda server, _: server.source.confirm(),
    "refuse": lambda server, _: [server.source.refuse(stream) for stream in list(server.source.wanted)] and None,
    "lose": lambda server, _: server.source.lose(),
    "publish": lambda server, _: server.source.publish("trade@A", *(trade(number) for number in range(30))),
    "wait": lambda server, _: server.clock.advance(SECONDS_TO_CLOSE),
    "stop reading": lambda _, wire: setattr(wire.socket, "room", 10),
    "read": lambda _, wire: setattr(wire.socket, "room", None),
    "turn": lambda _, wire: wire.settle(),
}


class TestFrames:
    @property_test
    @given(
        paths,
        st.lists(streams_of_frames | st.sampled_from(sorted(actions)), max_size=8),
        cuts,
        st.booleans(),
        ends,
        st.sampled_from((None, GOOD, SOON)),
    )
    def test_any_bytes(
        self, path: str, script: list[bytes | str], cuts: list[int], deflate: bool, end: str, token: str | None
    ) -> None:
        """Whole frames come back, a documented close ends them, and other clients do not notice."""
        server = Server(limits=session_limits(request_burst=20), auth="optional", per_address=2)
        with nothing_left(server):
            other = server.open()
            server.watch(other, "ticker@B")
            headers = {"Sec_WebSocket_Extensions": DEFLATE if deflate else None}
            wire = server.open(path, **headers, Authorization=token and f"Bearer {token}")
            for each in script:
                if isinstance(each, str):
                    actions[each](server, wire)
                    continue
                for piece in pieces(each, cuts):
                    if wire.reading:
                        wire.receive(piece)
            wire.socket.room = None
            wire.settle()
            is_cut = wire.aborted and "stop reading" in script  # it was given its time
            frames = [] if is_cut else assert_frames(wire.sent)
            if frames and frames[-1][0] == CLOSE:
                server.clock.pump([1.0] * SECONDS_TO_CLOSE)
                wire.settle()
                assert wire.lost is not None
            assert len(server.users) == 1 + (wire.lost is None)
            other.settle()
            assert other.lost is None
            other.hang_up()
            leave(wire, end)
        assert_freed(wire)


class TestOverTcp:
    @pytest_twisted.ensureDeferred
    async def test_no_descriptor_is_left(self) -> None:
        """The same over real sockets, whose peer says all at once that it has to say and waits for the end."""
        reactor: Any = global_reactor
        server = Server(auth="optional", per_address=1)
        server.source.at_once = True
        port = reactor.listenTCP(0, server.factory, interface="127.0.0.1")
        try:
            await deferToThread(self._talk, reactor, server, port.getHost().port)
        finally:
            await port.stopListening()

    def _talk(self, reactor: Any, server: Server, port: int) -> None:
        """In a thread of its own, as the daemon runs in the test's."""

        @settings(property_test, max_examples=max(10, property_test.max_examples // 4))
        @given(handshakes | paths.map(handshake), streams_of_frames)
        def any_bytes(first: bytes, then: bytes) -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as peer:
                try:
                    peer.sendall(first + then)
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(65536):
                        pass
                except ConnectionError:
                    pass  # refused while more was on its way
            blockingCallFromThread(reactor, server.assert_empty)

        gc.collect()  # what other tests have left to the collector would be gone in between
        before = len(os.listdir("/dev/fd"))
        any_bytes()
        assert len(os.listdir("/dev/fd")) == before
