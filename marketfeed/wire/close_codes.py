"""The codes with which the server closes a WebSocket: the table of docs/protocol.md#refusals-and-closes."""

from __future__ import annotations

import msgspec

__all__ = ["CLOSE_REASONS", "CloseReason"]


class CloseReason(msgspec.Struct, frozen=True):
    """One way in which the server closes a WebSocket (RFC 6455, section 7.4)."""

    code: int
    meaning: str
    advice: str


PROTOCOL_ERROR = CloseReason(1002, "protocol error", "not retry")
BINARY_FRAME = CloseReason(1003, "binary frame", "not retry")
NOT_UTF8 = CloseReason(1007, "not UTF-8", "not retry")
TOO_LARGE = CloseReason(1009, "message too large", "not retry")
INTERNAL_ERROR = CloseReason(1011, "internal error", "reconnect later")
RESTART = CloseReason(1012, "shutting down or restarting", "reconnect after the hint")
SLOW_CONSUMER = CloseReason(4008, "slow consumer", "reconnect, resume")
NO_PONG = CloseReason(4009, "no pong within the time-out", "reconnect")
TOO_MANY_REQUESTS = CloseReason(4029, "too many requests", "reconnect later")
NO_TOKEN = CloseReason(4401, "token missing, bad or expired", "get a new token")

CLOSE_REASONS = (
    PROTOCOL_ERROR,
    BINARY_FRAME,
    NOT_UTF8,
    TOO_LARGE,
    INTERNAL_ERROR,
    RESTART,
    SLOW_CONSUMER,
    NO_PONG,
    TOO_MANY_REQUESTS,
    NO_TOKEN,
)
