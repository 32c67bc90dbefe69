"""A testee for conformance: the daemon's protocol, factory and outbox, with a client that gets back what it sends.

Only what a message means is another than in the daemon: text and binary are echoed, compressed where that was agreed
upon and saves something.
"""

from __future__ import annotations

import math
from typing import Any

from marketfeed.websocket.autobahn_protocol import limited
from marketfeed.websocket.connection import ClientProtocol
from marketfeed.websocket.read_throttle import ReadRate
from marketfeed.wire.deflate import compressed_frame
from marketfeed.wire.frames import text_frame
from tests.websocket.server import Server

__all__ = ["EchoProtocol", "EchoServer"]

_TEXT_OR_BINARY = 0x81 ^ 0x82


class EchoProtocol(ClientProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.state != self.STATE_OPEN:
            return
        window = self.outbox.window
        echo = (compressed_frame(payload, window) if window else None) or text_frame(payload)
        if isBinary:
            echo = bytes((echo[0] ^ _TEXT_OR_BINARY,)) + echo[1:]
        self.outbox.write(echo)


class EchoServer(Server):
    """The factory of echoing connections. `max_message`, `client_queue`: bytes, by default those of the options."""

    def __init__(self, *, max_message: int = 65536, client_queue: int = 1 << 20, **more: Any) -> None:
        super().__init__(max_message=max_message, client_queue=client_queue, **more)
        self.factory.protocol = limited(EchoProtocol, max_message)

    def unthrottle(self) -> None:
        """Read whatever a peer sends at once."""
        self.factory.read_rate = ReadRate(step=0.0, burst=math.inf, most=math.inf)
