"""Everything that is written to a client passes here, so that no frame is ever cut by another.

1. While nothing waits the outbox is *direct*: bytes go to the socket's own `send`, past the transport.
2. What the socket does not take waits. The client is then *backlogged* until the transport, which holds the outbox
   as its pull producer, has asked for all of it. New frames wait behind.
3. What waits are whole frames: the rest of a frame that was cut goes to the transport first, and in one piece.
4. At most `limit` bytes wait. One more, and the client is a slow consumer: nothing of what waits is sent any more,
   except for the close (PROTOCOL.md, section 7).
5. A TLS connection is never direct. The transport is told to buffer until it pauses the outbox, its push producer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IPullProducer, IPushProducer, ISSLTransport
from zope.interface import implementer

__all__ = ["Outbox", "OutboxOwner", "OutboxTransport"]

_CHUNK = 65536  # bytes handed to the transport at a time, beyond the first frame
_ROOM_FOR_CLOSE = 1024


class OutboxTransport(Protocol):
    """The part of a Twisted transport that an outbox uses."""

    def write(self, data: bytes) -> None: ...
    def registerProducer(self, producer: Any, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def abortConnection(self) -> None: ...
    def getHandle(self) -> Any: ...


def _send_nowhere(data: bytes) -> int:
    return len(data)


class OutboxOwner(Protocol):
    """The connection that an outbox belongs to."""

    def overflowed(self) -> None:
        """More than the limit would wait: end this client."""

    def backlog_changed(self, waiting: int) -> None:
        """A backlog has begun with `waiting` bytes, or with 0 it is over."""


@implementer(IPullProducer, IPushProducer)
class Outbox:
    """One client's outbox, in which at most `limit` bytes wait."""

    __slots__ = (
        "_closed",
        "_handed",
        "_limit",
        "_owner",
        "_paused",
        "_tls",
        "_transport",
        "_waiting",
        "batch",
        "direct",
        "send",
        "waiting_bytes",
    )

    def __init__(self, transport: OutboxTransport, limit: int, owner: OutboxOwner) -> None:
        self._transport = transport
        self._limit = limit
        self._owner: OutboxOwner | None = owner
        self._waiting: deque[tuple[object, bytes]] | None = None
        self._handed = 0
        self._paused = False
        self._closed = False
        self.waiting_bytes = 0
        self.batch: list[bytes] = []
        self._tls = ISSLTransport.providedBy(transport)
        self.direct = not self._tls
        self.send: Callable[[bytes], int] = _send_nowhere
        if self._tls:
            transport.registerProducer(self, True)
        else:
            self.send = transport.getHandle().send

    # What the protocol and the hub call.

    def write(self, frames: bytes) -> None:
        """Send whole frames: replies, events, pings, closes, the handshake."""
        if self.direct:
            try:
                sent = self.send(frames)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.failed()
                return
            if sent != len(frames):
                self.stalled(frames, sent)
        elif not self._closed and not self._enqueue(None, frames):
            self.overflow()

    def wait(self, group: object, frames: list[bytes]) -> bool:
        """Send publications when there is room; False: there is none, and the caller is to call `overflow`."""
        if self._closed:
            return True
        return all(self._enqueue(group, frame) for frame in frames)

    def stalled(self, data: bytes, sent: int) -> None:
        """The socket took `sent` bytes of `data`; keep the rest, and let the transport ask for more."""
        self.direct = False
        self._waiting = deque(((None, data[sent:] if sent else data),))
        self.waiting_bytes = len(data) - sent
        if self._owner is not None:
            self._owner.backlog_changed(self.waiting_bytes)
        self._transport.registerProducer(self, False)

    def failed(self) -> None:
        """The socket is gone: let the transport find out in its own time, and write nothing more."""
        self.close()
        self._transport.abortConnection()

    def forget(self, group: object) -> None:
        """Drop the publications of `group` that still wait here."""
        if self._waiting:
            kept = deque(item for item in self._waiting if item[0] is not group)
            self._waiting = kept
            self.waiting_bytes = self._handed + sum(len(frame) for _, frame in kept)

    def overflow(self) -> None:
        if self._owner is not None:
            self._owner.overflowed()

    def discard(self) -> None:
        """Drop everything that waits here, and make room for a close.

        What the transport already has ends at the end of a frame.
        """
        self._waiting = None
        self.waiting_bytes = self._handed
        self._limit = self._handed + _ROOM_FOR_CLOSE

    def close(self) -> None:
        """The connection is gone; nothing is written from now on."""
        self._closed = True
        self.direct = False
        self.send = _send_nowhere
        self._waiting = None
        self.waiting_bytes = self._handed = 0
        self._owner = None

    def finish(self) -> None:
        """Hand everything that waits to the transport and let go of it, so that `loseConnection` sends it first."""
        if self._closed:
            return
        waiting, self._waiting = self._waiting, None
        if waiting:
            self._transport.write(b"".join(frame for _, frame in waiting))
        if self._tls or not self.direct:
            self._transport.unregisterProducer()
        self.close()

    # What the transport calls.

    def resumeProducing(self) -> None:
        """The transport has sent what it had."""
        self._paused = False
        self.waiting_bytes -= self._handed
        self._handed = 0
        if self._closed:
            return
        while self._waiting:
            chunk = self._next_chunk(self._waiting)
            if not self._tls:
                self._handed = len(chunk)
                self._transport.write(chunk)
                return
            self.waiting_bytes -= len(chunk)
            self._transport.write(chunk)
            if self._paused:
                return
        was_backlogged = self._waiting is not None
        self._waiting = None
        if not self._tls:
            self._transport.unregisterProducer()
            self.direct = True
        if was_backlogged and self._owner is not None:
            self._owner.backlog_changed(0)

    def pauseProducing(self) -> None:
        """The transport, TLS, has more than it likes."""
        self._paused = True

    def stopProducing(self) -> None:
        """The transport is gone."""
        self.close()

    @staticmethod
    def _next_chunk(waiting: deque[tuple[object, bytes]]) -> bytes:
        frames = [waiting.popleft()[1]]
        size = len(frames[0])
        while waiting and size + len(waiting[0][1]) <= _CHUNK:
            frames.append(waiting.popleft()[1])
            size += len(frames[-1])
        return b"".join(frames)

    def _enqueue(self, group: object, frame: bytes) -> bool:
        if self._tls and not self._paused and not self._waiting:
            self._transport.write(frame)
            return True
        if self.waiting_bytes + len(frame) > self._limit:
            return False
        if self._waiting is None:
            self._waiting = deque()
            if self._tls and self._owner is not None:
                self._owner.backlog_changed(len(frame))
        self._waiting.append((group, frame))
        self.waiting_bytes += len(frame)
        return True
