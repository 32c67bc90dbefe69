"""How a connection ends: what was written is still sent, and a line of the log has all that is to be known of it."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.websocket.backlog import Thinned
from marketfeed.websocket.outbox import OutboxTransport, unsent

__all__ = ["CLOSE_SECONDS", "Ending", "Parting", "SendTimeout", "log_end"]

CLOSE_SECONDS = 5
"""How long a peer has for the answer to a close, or for what was sent to it last."""
_LEAST_TAKEN = 16384
"""Bytes of a plain answer that a peer takes in `CLOSE_SECONDS`, or is cut off."""


class SendTimeout:
    """Cuts a connection off whose peer does not take what is left for it.

    `is_patient`: not as long as it takes some of it at a least rate.
    """

    __slots__ = ("_call", "_clock", "_left", "_transport")

    def __init__(self, clock: Clock, transport: OutboxTransport, *, is_patient: bool) -> None:
        self._clock = clock
        self._transport = transport
        self._left = unsent(transport) if is_patient else 0
        self._call: IDelayedCall | None = None
        self._wait()

    def cancel(self) -> None:
        """The connection is gone."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        self._call = self._clock.callLater(CLOSE_SECONDS, self._look)

    def _look(self) -> None:
        self._call = None
        before, self._left = self._left, unsent(self._transport)
        if before - self._left >= _LEAST_TAKEN:
            self._wait()
        else:
            self._transport.abortConnection()


class Ending(NamedTuple):
    """`reason`: in words; `code`: of the close."""

    reason: str
    code: int
    closed_by: str


class Parting(NamedTuple):
    """What a client had as its session ended: its user, streams, bytes that waited."""

    user: str = ""
    streams: int = 0
    waiting: int = 0


def log_end(
    lines: BoundedLog, client: str, age: float, peer: str, end: Ending, parting: Parting, thinned: Thinned
) -> None:
    """A client is gone, after `age` seconds. `thinned`: what has been left out for it."""
    line = "client {client} disconnected after {age:.1f} s: {reason}; {peer}, "
    line += "user {user}, {streams} streams" if parting.user else "{streams} streams"
    if parting.waiting or thinned.replaced or thinned.merged:
        line += ", {waiting} bytes waiting, {replaced} publications replaced, {merged} merged"
    facts = {"client": client, "age": age, **end._asdict(), "peer": peer, **parting._asdict()}
    if not parting.user:
        del facts["user"]
    lines.info("gone", line, **facts, replaced=thinned.replaced, merged=thinned.merged)
