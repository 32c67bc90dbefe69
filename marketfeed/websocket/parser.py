"""How frames are read: Autobahn's parser, held to what one peer may cost and to the limit as it is documented.

1. Nothing that a peer can send without end is kept: no empty fragments, nothing behind the last block of a compressed
   message, nothing of a control frame that is too long, nothing that follows a violation, no number of tiny pieces.
2. After a violation frames are only skipped, for the answer to our close; a second violation means nothing.
3. The size of a message is what it has when it is inflated, however it was fragmented and however its bytes were cut.

It leans on Autobahn's internals, each of which has a test that fails when it changes.
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol

__all__ = ["FrameReader"]

_LONGEST_CONTROL = 125
_MOST_PIECES = 256
"""Pieces in which a message is kept: one of two bytes takes fifty."""
_BEHIND_LAST_BLOCK = (b"", b"\0")  # RFC 7692, section 7.2.3.4: the rest of it is put there by the receiver


class FrameReader(WebSocketServerProtocol):
    """The reading side of a connection."""

    current_frame: Any
    frame_data: list[bytes]
    message_data: list[bytes]
    maxMessagePayloadSize: int
    _isMessageCompressed: bool
    _perMessageCompress: Any

    def _fail_connection(self, code: int = 1002, reason: str = "") -> None:
        if not self.failedByMe:
            super()._fail_connection(code, reason)

    def onFrameData(self, payload: bytes) -> None:
        """Never False, with which Autobahn would leave what is behind this frame unread."""
        frame = self.current_frame
        if frame.opcode > 7:
            if frame.length <= _LONGEST_CONTROL:
                super().onFrameData(payload)
        elif not self.failedByMe:
            if self._isMessageCompressed:
                self.message_data_total_length += len(payload)  # which Autobahn takes off again
            super().onFrameData(payload)
            if self._isMessageCompressed and not self.failedByMe:
                self._check_inflater()

    def onFrameEnd(self) -> None:
        frame = self.current_frame
        if frame.opcode > 7 or not self.failedByMe:
            super().onFrameEnd()
        if frame.opcode < 8 and self.failedByMe:
            self.inside_message = not frame.fin
            self.current_frame = None

    def onMessageFrameBegin(self, length: int) -> None:
        """A compressed frame is counted as it is inflated, unless no message of the permitted size comes to that."""
        if self._isMessageCompressed and length <= 2 * self.maxMessagePayloadSize:
            length = 0
        super().onMessageFrameBegin(length)

    def onMessageFrameData(self, payload: bytes) -> None:
        if payload:
            super().onMessageFrameData(payload)
            if len(self.frame_data) > _MOST_PIECES:
                self.frame_data = [b"".join(self.frame_data)]

    def onMessageFrame(self, payload: list[bytes]) -> None:  # type: ignore[override]  # declared as bytes
        super().onMessageFrame(payload)  # type: ignore[arg-type]
        if len(self.message_data) > _MOST_PIECES:
            self.message_data = [b"".join(self.message_data)]

    def _check_inflater(self) -> None:
        """What Autobahn would drop without a word."""
        inflater, limit = self._perMessageCompress._decompressor, self.maxMessagePayloadSize
        if inflater.unused_data not in _BEHIND_LAST_BLOCK:
            self._invalid_payload("there is data behind the last block of a compressed message")
        elif self.message_data_total_length == limit and inflater.decompress(b"", 1):
            fault = f"received WebSocket message exceeds payload limit of {limit} octets after decompression"
            self._max_message_size_exceeded(limit + 1, limit, fault)
