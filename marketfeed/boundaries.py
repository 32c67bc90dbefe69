"""Where the rooms meet: what the hub, the sources and the clients may ask of each other. No logic of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from ssl import SSLWantReadError, SSLWantWriteError
from typing import TYPE_CHECKING, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from marketfeed.hub.groups import Audience, Group
    from marketfeed.hub.join import Join
    from marketfeed.hub.portions import Portions
    from marketfeed.hub.shares import Share
    from marketfeed.hub.stream import LiveStream
    from marketfeed.model.streams import StreamName
    from marketfeed.wire.dialects import Shape

__all__ = [
    "LONGEST_SEND",
    "WOULD_BLOCK",
    "Answers",
    "Archive",
    "Clock",
    "Dated",
    "Entry",
    "HubPort",
    "NoBook",
    "Past",
    "Pasts",
    "Sink",
    "Snapshots",
    "Source",
    "Statistics",
    "Subscriber",
    "TooManyStreams",
    "UnknownOffset",
]


LONGEST_SEND = 16384
"""Bytes that a subscriber's `send` may be given: a record of TLS, which is taken whole or not at all."""

WOULD_BLOCK = (BlockingIOError, SSLWantWriteError, SSLWantReadError)
"""What `send` raises when the socket has room for nothing: its own word for it, and those of OpenSSL."""

Clock = IReactorTime
"""The part of a reactor that tells and keeps the time; its seconds have any beginning."""


Entry = tuple[str, bytes]
"""A publication that is kept: its offset, and its payload as the engine wrote it."""


class Dated(msgspec.Struct, frozen=True):
    """A publication that is kept, and when it came, in ms since 1970: at Redis, where that keeps it, or else here."""

    offset: str
    at: int
    data: bytes


class NoBook(Enum):
    """Why somebody who asks for a book gets none."""

    INCOMPLETE = "incomplete"
    UNKNOWN = "unknown"
    """Nothing has come on its stream, ever, as far as is known here: perhaps nobody trades there."""


class UnknownOffset(Exception):
    """What a client named as an offset is none of the stream, or none that is known here."""


class TooManyStreams(Exception):
    """The process has no room for another distinct stream, or not for this client; the message says which."""


class Source(Protocol):
    """Where publications come from. Streams go by their canonical name.

    A source tells the `Sink` that it was made with, from its start to its stop, which are those of a service of
    Twisted's; `daemon/redis_side.py` makes the one that is chosen.
    """

    @property
    def archive(self) -> Archive | None:
        """The past of its streams; None where it keeps none, but passes publications on."""

    @property
    def snapshots(self) -> Snapshots | None:
        """Their states; None where nobody keeps any."""

    def want(self, stream: str) -> int | None:
        """Deliver this stream from now on; the sink hears `confirmed` or `refused` once that is known.

        Returns since when what serves it is out of reach, in ms since 1970; None: it is not, as far as is known.
        """

    def unwant(self, stream: str) -> None:
        """Deliver this stream no longer."""

    def caught_up(self, stream: str) -> Deferred[str | None]:
        """Wait until all that had been published on a stream by now was delivered.

        Returns the server that has told it: whoever hears the stream from there hears the same, in the same order.
        None: that is not to be known any more. It never fails.
        """


class Archive(Protocol):
    """The past of the streams, where a source keeps it. A Deferred of these never fails."""

    def since(self, stream: str, after: str, until: str, max_bytes: int) -> Deferred[list[Entry] | None]:
        """What was published behind the offset `after`, up to and with `until`, oldest first: a portion of it.

        Whoever wants more asks again, behind the last offset of the portion; an empty one says that nothing is left.
        A portion is a whole number of publications, of about `max_bytes` bytes and at least one. None: not all of it
        is there any more, or `after` is no offset, or the stream's end, as the archive has it, lies before `after` or
        `until`, or the source is out of reach.
        """

    def newest(self, stream: str, limit: int, max_bytes: int, until: str | None = None) -> Deferred[list[Entry] | None]:
        """The newest publications, at most `limit` and `max_bytes` bytes of payload, oldest first.

        `until`: the offset behind which none counts; None: all do. None is the answer where the source is out of reach.
        """

    def first_from(self, stream: str, time: int, limit: int, max_bytes: int) -> Deferred[list[Entry] | None]:
        """The same of the first ones that were added at `time`, in ms since 1970, or later."""

    def last_until(self, stream: str, time: int, limit: int, max_bytes: int) -> Deferred[list[Entry] | None]:
        """The same of the last ones that were added at `time` or earlier."""

    def time_of(self, offset: str) -> int:
        """When what has this offset, which the archive gave, was added: in ms since 1970."""


class Snapshots(Protocol):
    """States that somebody keeps beside the streams. A Deferred of these never fails."""

    def read(self, stream: str) -> Deferred[bytes | None]:
        """The state of a stream as a publication; None when there is none, or it is out of reach.

        Those of a `Source` come behind all that had been published as they were read: what the sink hears of the
        stream after that is not in it, unless the engine writes states ahead of its publications.
        """


class Past(msgspec.Struct, frozen=True, array_like=True):
    """What a process has heard of a stream in an epoch of its own, up to a moment.

    `newest`: the number of the last publication, or 0; `digests`: of the newest ones, oldest first; `origin`: where
    from, and how it is read. Two who have the same `origin` have the same publications, in the same order.
    """

    stream: str
    epoch: str
    newest: int
    digests: list[bytes]
    origin: str


class Pasts(Protocol):
    """What one process, or several, have heard of the streams to which they gave offsets of their own."""

    def of(self, wanted: Sequence[tuple[str, str]]) -> Deferred[list[Past]]:
        """The past of each (stream, epoch), with all that had been published by now; in any order.

        Those that are not known, or not any more, are left out. It never fails.
        """


class Statistics(Protocol):
    """What is known of a market besides what its engine says."""

    def of(self, market: str) -> Mapping[str, bytes]:
        """The fields of a `24hrTicker` that are known, as JSON (docs/protocol.md#payloads)."""


class Sink(Protocol):
    """What a source delivers to. Calls come in the order of events on the source's link."""

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        """One publication, as the engine wrote it. `offset`: its place in the stream, where the source knows one."""

    def flush(self) -> None:
        """All that arrived together has been published: send it."""

    def behind(self) -> list[Subscriber]:
        """Clients of what was flushed last for whom much waits: a source that has more at once lets them catch up."""

    def confirmed(self, stream: str, after: str | None = None) -> None:
        """From now on nothing of this stream is missed. `after`: the offset behind which it goes on, if it has one."""

    def missed(self, stream: str, seconds: float) -> None:
        """In the last `seconds` something of this stream, which is confirmed, was lost. It goes on as before."""

    def discovered(self, stream: str) -> None:
        """A stream that is to be kept ready without clients exists; it may be said again."""

    def refused(self, stream: str, why: str) -> None:
        """The source does not permit this stream."""

    def reached(self, link: str) -> None:
        """What is behind this link of the source answers, and has confirmed nothing yet; or the link is needed no more.

        Links go by the names that they have in the log and the metrics.
        """

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        """These streams are out of reach. `since`: ms since 1970, when that was last known not to be so.

        `link`: whose loss, or further attempt in vain, it is; empty: none is out of reach, they only move.
        """


class Subscriber(Protocol):
    """A client's outbox, as the hub sees it. The fan-out loops use the attributes, everything else the methods."""

    direct: bool
    """Nothing waits, and what `send` takes goes straight to the socket."""
    send: Callable[[bytes | memoryview], int]
    """The socket's own send, or OpenSSL's on it, of at most `LONGEST_SEND` bytes: how many it took.

    Raises one of `WOULD_BLOCK`, or OSError when the socket is gone.
    """
    window: int
    """The bits of the deflate window with which this client reads; 0: it gets nothing compressed."""
    hears_events: bool
    """Whether what `tell` is given is sent to it."""
    share: Share | None
    """The hub's alone: out of which share this client's streams are paid for; None: out of none."""
    audience: Audience | None
    """The hub's alone: with whom this client shares what it watches; None while it watches nothing."""

    @property
    def room(self) -> int:
        """How many bytes may wait for this client besides those that do."""

    def write(self, frames: bytes) -> None:
        """Send whole frames, behind everything sent before."""

    def tell(self, event: bytes) -> None:
        """Send a control event, if this client hears them: what waits before it and what comes after it stay apart."""

    def send_long(self, data: bytes) -> int:
        """`send`, of any number of bytes."""

    @property
    def is_behind(self) -> bool:
        """Half of what may wait for this client does."""

    def stalled(self, data: bytes, sent: int) -> bool:
        """The socket took only the first `sent` bytes of `data`; the rest waits.

        False: it is more than is allowed; call `overflow`.
        """

    def failed(self) -> None:
        """The socket is gone."""

    def wait(self, group: Group, frames: list[bytes]) -> bool:
        """Send publications of `group` when there is room. False: more waits than is allowed; call `overflow`."""

    def forget(self, groups: Collection[Group]) -> None:
        """Drop the publications of `groups` that wait."""

    def overflow(self) -> None:
        """End this client, who is too slow."""


class HubPort(Protocol):
    """What a session may ask of the hub for its client, a `Subscriber`."""

    @property
    def portions(self) -> Portions:
        """What clients have asked for and takes more than a turn."""

    def join(
        self,
        subscriber: Subscriber,
        shape: Shape,
        streams: Mapping[str, StreamName],
        answers: Answers,
        *,
        since: Mapping[str, str] | None = None,
        wants_state: bool = False,
        rewind: int = 0,
    ) -> Join:
        """Let `subscriber` join `streams` (spelling → stream), all of them or none; `answers` hears how it went.

        `since`, spelling → offset: what was published behind it comes first. `wants_state`: otherwise the state comes
        first, where it is known. `rewind`: of the streams without `since` so many of the last publications come first.
        Raises `TooManyStreams`.
        """

    def cancel(self, join: Join) -> None:
        """The client of an unfinished join is gone."""

    def unsubscribe(self, subscriber: Subscriber, groups: Iterable[Group]) -> None:
        """Take `subscriber` out of `groups`: once this returns, nothing more of their streams reaches it."""

    def leave(self, subscriber: Subscriber, groups: Iterable[Group]) -> None:
        """The client is gone, or about to be closed."""

    def reshape(self, subscriber: Subscriber, groups: Iterable[Group], shape: Shape) -> dict[str, Group]:
        """Let `subscriber` get the same streams in another shape; returns its groups by spelling."""

    def hasten(self, streams: Iterable[LiveStream]) -> None:
        """Send what is pending, and what waits for its time of `streams`, to whoever has them."""

    def history(
        self, name: StreamName, limit: int, max_bytes: int, before: str | None = None
    ) -> Deferred[list[Entry] | None]:
        """The newest publications of a stream that are kept, oldest first: at most `limit`, of `max_bytes` in all.

        `before`: the offset from which on none counts. None: where they are kept is out of reach. Raises
        `UnknownOffset` where it cannot be known what is before that.
        """


class Answers(Protocol):
    """What a session does about its join."""

    def joined(
        self, groups: dict[str, Group], recovered: dict[str, bool] | None, rewound: dict[str, int] | None
    ) -> None:
        """The client is in these groups (spelling → group): write the reply. The flush before it may have ended it.

        `recovered`, for those that it has asked for: whether all that it missed follows. `rewound`, for those of which
        it has asked for the last publications: how many of them follow.
        """

    def refused(self, why: str) -> None:
        """The client is in none of the streams: write the error. `why` is for the client to read."""

    def settled(self) -> None:
        """It was answered later than it asked, and all that belongs to the answer has been written."""
