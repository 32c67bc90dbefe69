"""One test for each of Autobahn's internals that `marketfeed.websocket.autobahn_protocol` leans on, named after it.

One that fails after an update of Autobahn says what has to be looked at again.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import txaio.tx
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflate, PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from twisted.internet.task import Clock

from marketfeed.websocket.closing import CLOSE_SECONDS
from tests.by_hand import CLOSE, PING, PONG, TEXT, deflated, frame, handshake
from tests.conftest import LogCapture
from tests.internals import reads
from tests.websocket.beside import COMPRESSED, Ours, Plain, Server, act, opened

NEVER_RUN = {
    *("__init__", "connectionMade", "_connectionMade", "setTrackTimings", "transport_details", "processHandshake"),
    *("succeedHandshake", "failHandshake", "_onOpen", "onOpenHandshakeTimeout", "_sendAutoPing", "fire"),
    *("dataReceived", "_dataReceived", "onMessageEnd", "sendData", "_trigger", "_send", "_closeConnection"),
    *("sendMessage", "beginMessage", "beginMessageFrame", "sendMessageFrameData", "endMessage", "sendMessageFrame"),
    *("sendPreparedMessage", "connectionLost", "unregisterProducer"),
}
"""Autobahn's functions that ours replaces or has no use for: what they read it need not have."""


def autobahn_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions of Autobahn's that ours inherits, overridden or not."""
    for each in Ours.__mro__:
        if each.__module__.startswith("autobahn."):
            for name, member in vars(each).items():
                function = getattr(member, "fget", member)
                if inspect.isfunction(function):
                    yield name, function


class TestInstance:
    """What Autobahn sets on every instance, and the class has in its place."""

    def test_instance_attributes(self) -> None:
        """The same values; what the class does not have is not read by anything that runs."""
        plain, ours = Server(Plain).protocol, Server(Ours).protocol
        missing = {name for name in vars(plain) if not hasattr(ours, name)}
        for name in missing:
            readers = {reader for reader, function in autobahn_functions() if name in reads(function)}
            assert readers <= NEVER_RUN, f"{name} is read by {readers - NEVER_RUN}"
        replaced = {"factory", "transport", "utf8validator", "trafficStats", "peer", "is_closed"}
        has = {"openHandshakeTimeoutCall", "_valid_events", "_results"}
        for name in vars(plain).keys() - missing - replaced - has:
            assert getattr(ours, name) == getattr(plain, name), name

    def test_functions_that_never_run(self) -> None:
        """Neither in a conversation, nor at its beginning, nor at its end."""
        functions = list(autobahn_functions())
        assert {name for name, _ in functions} >= NEVER_RUN
        never = {function.__code__ for name, function in functions if name in NEVER_RUN}
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

    def test_CONFIG_ATTRS(self) -> None:
        """An option that is new in Autobahn, or has another default, is to be decided about."""
        defaults, ours = vars(WebSocketServerFactory(reactor=Clock())), Server(Ours).protocol
        known = {name for name in WebSocketServerProtocol.CONFIG_ATTRS if hasattr(ours, name)}
        assert {name for name in known if getattr(ours, name) != defaults[name]} == {
            *("maxFramePayloadSize", "maxMessagePayloadSize", "failByDrop", "closeHandshakeTimeout"),
        }
        assert set(WebSocketServerProtocol.CONFIG_ATTRS) - known == {
            *("versions", "webStatus", "perMessageCompressionAccept", "serveFlashSocketPolicy", "flashSocketPolicy"),
            *("allowedOrigins", "allowedOriginsPatterns", "allowNullOrigin", "maxConnections", "trustXForwardedFor"),
            *("logOctets", "trackTimings", "autoFragmentSize", "openHandshakeTimeout", "tcpNoDelay"),
            *("autoPingTimeout", "autoPingSize"),
        }

    def test_autoPingInterval(self) -> None:
        """Nothing begins the pings that Autobahn sends by itself."""
        ours = opened().protocol
        assert not ours.autoPingInterval
        assert ours.autoPingPending is ours.autoPingPendingCall is ours.autoPingTimeoutCall is None

    def test_trafficStats(self) -> None:
        """They are only added to: one object can stand for all connections."""
        for name, function in autobahn_functions():
            for line in re.findall(r"self\.trafficStats.*", inspect.getsource(function)):
                assert re.match(r"self\.trafficStats(\.\w+ \+=|\.__json__\(\)| = TrafficStats\(\))", line), (name, line)
        assert isinstance(Ours.trafficStats, TrafficStats)

    def test_is_closed(self) -> None:
        """Autobahn fires it, perhaps twice, and asks nothing else of it; nothing is kept."""
        stand_in = opened().protocol.is_closed
        before = dict(vars(stand_in))
        txaio.resolve(stand_in, self)
        txaio.resolve(stand_in, self)
        assert vars(stand_in) == before

    def test_tcpNoDelay(self) -> None:
        """`connectionMade` reads it before Autobahn's own copy exists, and ignores that it fails: ours is asked for."""
        assert "tcpNoDelay" in reads(WebSocketServerProtocol.connectionMade)

    def test_log(self, logged: LogCapture) -> None:
        """One logger of the class, which has a level of its own."""
        server = opened()
        server.receive(frame(b"\xff"))
        server.lose()
        assert logged.formats() == []


class TestReading:
    def test_processData(self) -> None:
        """It calls the hooks of a frame, which call those of a message."""
        assert {"onFrameBegin", "onFrameData", "onFrameEnd"} <= reads(WebSocketProtocol.processData)
        assert "_onMessageFrameData" in reads(WebSocketProtocol.onFrameData)
        assert "_onMessageFrameBegin" in reads(WebSocketProtocol.onFrameBegin)
        assert reads(WebSocketServerProtocol._onMessageFrameData) == {"onMessageFrameData"}
        assert reads(WebSocketServerProtocol._onMessageFrameBegin) == {"onMessageFrameBegin"}

    def test__fail_connection(self) -> None:
        """Every violation comes there, and is answered with its code."""
        for violation in ("_protocol_violation", "_invalid_payload", "_max_message_size_exceeded"):
            assert "_fail_connection" in reads(getattr(WebSocketProtocol, violation))
        assert WebSocketProtocol.CLOSE_STATUS_CODE_PROTOCOL_ERROR == 1002
        assert WebSocketProtocol.CLOSE_STATUS_CODE_INVALID_PAYLOAD == 1007
        assert WebSocketProtocol.CLOSE_STATUS_CODE_MESSAGE_TOO_BIG == 1009

    def test_message_data_total_length(self) -> None:
        """Of a compressed message: a frame's length at its beginning, of which each piece is taken off as inflated."""
        begin = inspect.getsource(WebSocketProtocol.onMessageFrameBegin)
        assert "self.message_data_total_length += length" in begin
        data = inspect.getsource(WebSocketProtocol.onFrameData)
        assert "self.message_data_total_length - compressedLen" in data
        assert "self.message_data_total_length += uncompressedLen - compressedLen" in data
        assert "max_output_len=max_output_len" in data

    def test_onFrameEnd(self) -> None:
        """What is left out of a frame that nobody reads."""
        source = inspect.getsource(WebSocketProtocol.onFrameEnd)
        assert "self.inside_message = False" in source
        assert source.rstrip().endswith("self.current_frame = None")

    def test_onMessageEnd(self) -> None:
        """Ours leaves out the listeners; what else Autobahn's does is to be kept."""
        assert reads(WebSocketProtocol.onMessageEnd) == {
            *("failedByMe", "message_data", "trackedTimings", "_onMessage", "message_is_binary", "fire", "log"),
        }
        assert 'b"".join(self.message_data)' in inspect.getsource(WebSocketProtocol.onMessageEnd)
        assert reads(WebSocketServerProtocol._onMessage) == {"onMessage"}

    def test_data(self) -> None:
        """What has been received is consumed from there, and `_dataReceived` does nothing else but count and log."""
        assert reads(WebSocketProtocol._dataReceived) == {
            *("state", "trafficStats", "logOctets", "logRxOctets", "consumeData"),
        }
        server = Server(Ours)
        server.receive(handshake() + b"\x81")
        assert server.protocol.data == b"\x81"

    def test__decompressor(self) -> None:
        """Where deflate keeps what it inflates with, and makes it anew when it is gone."""
        offer = PerMessageDeflateOffer.parse({"server_max_window_bits": ["11"]})
        accepted = PerMessageDeflateOfferAccept(offer, request_no_context_takeover=True, no_context_takeover=True)
        deflate = PerMessageDeflate.create_from_offer_accept(True, accepted)
        assert deflate.server_max_window_bits == 11
        assert deflate.server_no_context_takeover
        assert deflate._compressor is deflate._decompressor is None
        deflate.start_decompress_message()
        first, deflate._decompressor = deflate._decompressor, None
        deflate.start_decompress_message()
        assert deflate._decompressor is not first


class TestEnding:
    def test_succeedHandshake(self) -> None:
        """What it sets besides, our class has from the start."""
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

    def test_state(self) -> None:
        """Which is CONNECTING, OPEN, CLOSING once a close has been sent, and CLOSED."""
        protocol = (server := Server(Ours)).protocol
        assert protocol.state == protocol.STATE_CONNECTING
        server.receive(handshake())
        assert protocol.state == protocol.STATE_OPEN
        protocol.sendCloseFrame(1003)
        assert protocol.state == protocol.STATE_CLOSING
        server.receive(frame(b"", CLOSE))
        assert protocol.state == protocol.STATE_CLOSED

    def test_sendCloseFrame(self) -> None:
        """It takes any code, `sendClose` does not; nothing follows it, and it is the only one."""
        server = opened()
        server.protocol.sendCloseFrame(1003, b"no")
        server.protocol.sendCloseFrame(1011, b"again")
        server.protocol.sendPong(b"late")
        assert server.transport.value() == b"\x88\x04\x03\xebno"
        assert (server.protocol.localCloseCode, server.protocol.closedByMe) == (1003, True)

    def test_closeHandshakeTimeoutCall(self) -> None:
        """The time for the answer to a close, in whole seconds of the factory's clock, and it can be cancelled."""
        server = opened()
        server.clock.advance(0.9)
        act(server, "close")
        (call,) = server.clock.getDelayedCalls()
        assert call.getTime() == CLOSE_SECONDS
        server.lose()
        assert not server.clock.getDelayedCalls()
        server = opened()
        act(server, "close")
        server.clock.pump([0.5] * 2 * CLOSE_SECONDS)
        assert server.transport.disconnecting

    def test_dropConnection(self) -> None:
        """It goes through two hooks: `unregisterProducer`, which is not to touch the outbox, and `_closeConnection`."""
        calls = []
        server = opened()
        server.protocol.unregisterProducer = lambda: calls.append("unregister")
        server.protocol._closeConnection = lambda abort: calls.append(f"abort={abort}")
        server.protocol.dropConnection(abort=True)
        assert calls == ["unregister", "abort=True"]

    def test_sendData(self) -> None:
        """Pongs and closes pass there, and so keep their place behind what waits."""
        said = []
        server = opened()
        server.protocol.sendData = lambda data, *_: said.append(data[0] & 0x0F)
        server.receive(frame(b"p", PING) + frame(b"", CLOSE))
        assert said == [PONG, CLOSE]

    def test__connectionLost(self) -> None:
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
