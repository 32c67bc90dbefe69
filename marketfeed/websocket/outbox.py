"""Everything that is written to a client passes here, so that no frame is ever cut by another.

1. While nothing waits the outbox is *direct*: bytes go to the socket's own `send`, past the transport; with TLS to
   OpenSSL's `write`, which encrypts them and sends them.
2. What the socket does not take waits. The client is then *backlogged* until the transport, which holds the outbox
   as its pull producer, has asked for all of it. New frames wait behind.
3. What waits are whole frames: the rest of a frame that was cut goes to the transport first, and in one piece. Which
   of them are left out is the backlog's to say.
4. At most `limit` bytes wait, or the rest of a single frame that was cut. One more, and the client is a slow consumer:
   nothing of what waits is sent any more, except for the close (docs/protocol.md#slow-clients).
5. With TLS a record is taken whole or not at all. One that is not taken goes to the transport, which offers the same
   bytes again before any others: it counts as cut, and so do the frames that it is of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from twisted.internet.interfaces import IPullProducer, ISSLTransport
from zope.interface import implementer

from marketfeed.boundaries import LONGEST_SEND, WOULD_BLOCK
from marketfeed.hub.counts import Traffic
from marketfeed.hub.groups import Group
from marketfeed.websocket.backlog import Backlog, Thinned
from marketfeed.wire.frames import frame_end

__all__ = ["Outbox", "OutboxOwner", "OutboxTransport", "unsent"]

_CHUNK = 65536  # bytes handed to the transport at a time, beyond the first frame
_ROOM_FOR_CLOSE = 1024


class OutboxTransport(Protocol):
    """The part of a Twisted transport that an outbox uses."""

    dataBuffer: bytes  # with what follows: what it has not sent yet
    offset: int
    _tempDataLen: int
    under_way: int  # with TLS: how many bytes it is to offer first, as they have been offered before

    def write(self, data: bytes) -> None: ...
    def registerProducer(self, producer: Any, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def abortConnection(self) -> None: ...
    def getHandle(self) -> Any: ...


def unsent(transport: OutboxTransport) -> int:
    """Bytes that a transport has been given and its socket has not taken."""
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen


_NOTHING = Thinned()
"""Of who has kept up so far."""


def _send_nowhere(data: bytes | memoryview) -> int:
    return len(data)


class OutboxOwner(Protocol):
    """The connection that an outbox belongs to."""

    def overflowed(self) -> None:
        """More than the limit would wait: end this client."""

    def backlog_changed(self, waiting: int) -> None:
        """A backlog has begun with `waiting` bytes, or with 0 it is over."""

    def drained(self) -> None:
        """The transport has sent all that it was given, and nothing waits here."""

    def notice(self) -> bytes:
        """Something has been left out of what waits: frames that are to go before the next of it, perhaps none."""


@implementer(IPullProducer)
class Outbox:
    """One client's outbox, in which at most `limit` bytes wait. `traffic`: where it counts what it sends."""

    __slots__ = (
        *("_closed", "_handed", "_has_moved", "_left", "_owner", "_tls", "_traffic", "_transport"),
        *("_unsent", "_waiting", "audience", "direct", "hears_events", "limit", "send"),
        *("share", "thinned", "window"),
    )

    def __init__(
        self, transport: OutboxTransport, limit: int, owner: OutboxOwner, traffic: Traffic | None = None
    ) -> None:
        self._transport = transport
        self._traffic = traffic or Traffic()
        self.limit = limit
        self._owner: OutboxOwner | None = owner
        self._waiting: Backlog | None = None
        self._handed = 0
        self._has_moved = False
        self._unsent = 0
        self._closed = False
        self._left = 0
        self.thinned = _NOTHING
        self.window = 0
        self.hears_events = True
        self.audience: Any = None
        self.share: Any = None
        self._tls = ISSLTransport.providedBy(transport)
        self.direct = True
        handle = transport.getHandle()
        self.send: Callable[[bytes | memoryview], int] = handle.write if self._tls else handle.send

    @property
    def waiting_bytes(self) -> int:
        """What waits here, and what the transport was handed and has not sent."""
        return self._handed + (0 if self._waiting is None else self._waiting.size)

    @property
    def left_bytes(self) -> int:
        """What waits, or waited when the connection was closed."""
        return self._left if self._closed else self.waiting_bytes

    @property
    def is_drained(self) -> bool:
        """Nothing waits here, and the transport has not more than it likes."""
        return self.direct

    @property
    def room(self) -> int:
        """How many bytes may wait here besides those that do."""
        return max(0, self.limit - self.waiting_bytes)

    @property
    def has_caught_up(self) -> bool:
        """Nothing waits here."""
        return self._waiting is None

    @property
    def is_behind(self) -> bool:
        """Half of what may wait here does."""
        return self._waiting is not None and self._handed + 2 * self._waiting.size > self.limit

    # What the protocol and the hub call.

    def write(self, frames: bytes) -> None:
        """Send whole frames: replies, events, pings, closes, the handshake."""
        if self.direct:
            sent = self._offer(frames)
            if sent != len(frames) and not self.stalled(frames, sent):
                self.overflow()
        elif not self._closed:
            self._put(frames, is_event=False)

    def write_plain(self, data: bytes) -> None:
        """Send what is no frames, before there are any: an answer of HTTP. It waits, whatever its size."""
        if not self.direct:
            self.write(data)
            return
        sent = self._offer(data)
        if sent != len(data):
            self._keep(data[sent:])

    def send_long(self, data: bytes) -> int:
        """`send`, of any number of bytes: with TLS, as many records of them as the socket takes."""
        if not self._tls:
            return self.send(data)
        left = memoryview(data)
        try:
            while left:
                left = left[self.send(left[:LONGEST_SEND]) :]
        except WOULD_BLOCK:
            pass
        return len(data) - len(left)

    def _offer(self, data: bytes) -> int:
        """How much of `data` the socket is rid of; all of it, when the socket is gone."""
        if not data:
            return 0  # TLS would make a record of it
        try:
            sent = self.send(data) if len(data) <= LONGEST_SEND else self.send_long(data)
        except WOULD_BLOCK:
            return 0
        except OSError:
            self.failed()
            return len(data)
        self._traffic.sent += sent
        return sent

    def tell(self, event: bytes) -> None:
        """Send a control event, which no merging crosses, nor the place of one that this client does not hear."""
        if not self.hears_events:
            if self._waiting is not None:
                self._waiting.part()
        elif self.direct:
            self.write(event)
        elif not self._closed:
            self._put(event, is_event=True)

    def wait(self, group: Group, frames: list[bytes]) -> bool:
        """Send publications when there is room; False: there is none, and the caller is to call `overflow`."""
        if self._closed:
            return True
        return all(self._backlog().add(group, frame, self.limit - self.waiting_bytes) for frame in frames)

    def stalled(self, data: bytes, sent: int) -> bool:
        """The socket took `sent` bytes of `data`; keep the rest, and let the transport ask for more.

        False: it is more than may wait, and the caller is to call `overflow`. Only the frame that was cut is kept then.
        """
        rest = data[sent:] if sent else data
        under_way = min(len(rest), LONGEST_SEND) if self._tls else 0
        fits = len(rest) <= self.limit or frame_end(data, sent + (under_way or 1)) == len(data)
        if not fits:
            rest = data[sent : frame_end(data, sent + under_way)]
        if rest:
            self._keep(rest)
        return fits

    def _keep(self, rest: bytes) -> None:
        """What the socket did not take waits from now on."""
        self.direct = False
        if self._tls:
            self._transport.under_way = min(len(rest), LONGEST_SEND)
        self._backlog().put(rest)
        if self._owner is not None:
            self._owner.backlog_changed(self.waiting_bytes)
        self._transport.registerProducer(self, False)

    def failed(self) -> None:
        """The socket is gone: let the transport find out in its own time, and write nothing more."""
        self.close()
        self._transport.abortConnection()

    def forget(self, groups: Collection[Group]) -> None:
        """Drop the publications of `groups` that still wait here, and what is to be told of them."""
        if self.thinned.streams:
            for group in groups:
                self.thinned.streams.pop(group.spelling, None)
        if self._waiting is not None:
            self._waiting.forget(groups)

    def take_progress(self) -> bool:
        """Whether the client has taken something of its backlog since this was last asked."""
        left = unsent(self._transport)
        has_moved = self._has_moved or left < self._unsent
        self._has_moved = False
        self._unsent = left
        return has_moved

    def overflow(self) -> None:
        if self._owner is not None:
            self._owner.overflowed()

    def discard(self) -> None:
        """Drop everything that waits here, and make room for a close.

        What the transport already has ends at the end of a frame.
        """
        self._waiting = None
        self.limit = self._handed + _ROOM_FOR_CLOSE

    def close(self) -> None:
        """The connection is gone; nothing is written from now on."""
        self._left = self.left_bytes
        self._closed = True
        self.direct = False
        self.send = _send_nowhere
        self._waiting = None
        self._traffic.backlogged.discard(self)
        self._handed = 0
        self._owner = None

    def finish(self) -> None:
        """Hand everything that waits to the transport and let go of it, so that `loseConnection` sends it first."""
        if self._closed:
            return
        waiting, self._waiting = self._waiting, None
        if waiting:
            self._pass_on(waiting.take(waiting.size))
        if not self.direct:
            self._transport.unregisterProducer()
        self.close()

    # What the transport calls.

    def resumeProducing(self) -> None:
        """The transport has sent what it had."""
        is_at_frame = self._handed > 0
        if is_at_frame:  # and not because the outbox has just been registered
            self._has_moved = True
        self._handed = 0
        if self._closed:
            return
        if self._waiting:
            notice = b""
            if self.thinned.streams and is_at_frame and self._owner is not None:
                notice = self._owner.notice()
            chunk = notice + self._waiting.take(_CHUNK)
            self._handed = len(chunk)
            self._pass_on(chunk)
            return
        was_backlogged = self._waiting is not None
        self._waiting = None
        self._traffic.backlogged.discard(self)
        self._transport.unregisterProducer()
        self.direct = True
        if self._owner is not None:
            if was_backlogged:
                self._owner.backlog_changed(0)
            self._owner.drained()

    stopProducing = close  # the transport is gone

    def _put(self, frames: bytes, *, is_event: bool) -> None:
        if self.waiting_bytes + len(frames) > self.limit:
            self.overflow()
        else:
            self._backlog().put(frames, is_event=is_event)

    def _pass_on(self, data: bytes) -> None:
        self._traffic.sent += len(data)
        self._transport.write(data)

    def _backlog(self) -> Backlog:
        if self._waiting is None:
            if self.thinned is _NOTHING:
                self.thinned = Thinned()
            self._waiting = Backlog(self.thinned)
            self._traffic.backlogged.add(self)
        return self._waiting
