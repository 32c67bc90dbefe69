"""One client on its way into streams: what it asks for, and what it gets between the reply and the live streams.

1. It gets what it has missed, or the states. Books are written, and framed, before the client joins, a step at a time.
   The client then gets each as it was, and behind it what was published since: together what it would have been told of
   the book at that moment. What was missed is framed so, too.
2. A book that was begun anew since, or of which what was published since is not kept, is written once more.
3. As soon as it is certain that all of it is more than there is room for, nothing more is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Answers, Subscriber
from marketfeed.hub.groups import Group, overhead
from marketfeed.hub.portions import Work
from marketfeed.hub.readiness import Wait
from marketfeed.hub.recovery import Recovery, replayed
from marketfeed.hub.stream import LiveStream
from marketfeed.model.book_state import BookState
from marketfeed.model.kinds.kind import View
from marketfeed.model.streams import StreamName
from marketfeed.wire.dialects import Shape

__all__ = ["Join", "TooLarge"]

_REPLY = 512
"""The bytes of a reply and of a gap event, besides the streams that they name."""
_NAMED = 10  # bytes of a stream in them, besides its name
_FRAMED_IN_US = 2000
_MADE_IN_US = 20
_COMPRESSED_IN_US = 40
_TOGETHER = 100  # missed publications that are framed in one step
_EACH_IN_US = 2
_EACH_COMPRESSED_IN_US = 15
_EACH_MERGED_IN_US = 15
_EACH_MADE_IN_US = 10
_MERGED_IN_US = 16
"""Bytes that are merged in a µs."""


class TooLarge(Exception):
    """What a client would get is more than may wait for it."""


class FramedBook(msgspec.Struct, frozen=True, gc=False):
    """A book as it was at `offset`, for one client. `beginning`: what it is a continuation of."""

    beginning: object
    offset: str
    size: int
    frame: bytes


class Join(msgspec.Struct, eq=False):
    """A client's wish to join streams."""

    subscriber: Subscriber
    shape: Shape
    answers: Answers
    since: Mapping[str, str]
    wants_state: bool
    rates: Mapping[str, int] = {}  # by spelling; what is not in it has none
    views: Mapping[str, View] = {}  # the same
    asked: deque[tuple[str, StreamName]] = msgspec.field(default_factory=deque)
    streams: dict[str, LiveStream] = {}
    recoveries: dict[str, Recovery] = {}
    books: dict[str, FramedBook] = {}  # by spelling
    wait: Wait | None = None
    work: Work | None = None
    pause: tuple[IDelayedCall, Deferred[None]] | None = None
    is_late: bool = False
    finished: bool = False
    written: int = 0  # bytes of states, and of what was missed, that were put together

    def view(self, spelling: str) -> View:
        """As what the client gets this stream."""
        return self.views.get(spelling, View.ENGINE)

    def write(self) -> Work:
        """Write what takes long of what the client gets. Raises `TooLarge`."""
        if not self.recoveries and not any(isinstance(stream.state, BookState) for stream in self.streams.values()):
            return
        room = self._room()
        replays = self._replays(room)
        for spelling in replays:
            yield from self._frame_missed(spelling)
        if self.wants_state:
            yield from self._write_books(replays, room)

    def _frame_missed(self, spelling: str) -> Work:
        recovery = self.recoveries[spelling]
        recovery.advance()
        group, window, conflation = self._group(spelling, recovery.stream), self.subscriber.window, recovery.conflation
        while missed := recovery.entries[recovery.done : recovery.done + _TOGETHER]:
            size = sum([len(data) for _, data in missed])
            made = _EACH_MADE_IN_US if group.made is not None else 0
            if conflation is not None:
                yield len(missed) * (_EACH_MERGED_IN_US + made) + size // _MERGED_IN_US
                for offset, data in recovery.take(len(missed)):
                    conflation.add(data, offset)
            else:
                each = _EACH_COMPRESSED_IN_US if window else _EACH_IN_US
                yield len(missed) * (each + made) + size // (_COMPRESSED_IN_US if window else _FRAMED_IN_US)
                recovery.frames += [group.framed(data, offset) for offset, data in recovery.take(len(missed))]

    def _write_books(self, replays: Mapping[str, int], room: int) -> Work:
        used = sum(replays.values())
        for spelling, stream in self.streams.items():
            state = stream.state
            if not isinstance(state, BookState) or spelling in replays or spelling in self.books:
                continue
            yield from state.settling()
            yield state.cost
            beginning, offset, snapshot = state.beginning, stream.history.latest or "", state.snapshot()
            if snapshot is None:
                continue
            group = self._group(spelling, stream)
            if group.made is not None:
                yield state.cost + len(snapshot) // _MADE_IN_US
                beginning, offset, snapshot = state.beginning, stream.history.latest or "", state.snapshot()
                if snapshot is None:
                    continue
                snapshot = group.made.state(snapshot, stream.heard)
            size = len(snapshot) + overhead(spelling, self.shape)
            used += size
            self.written += size
            if used > room:
                raise TooLarge
            yield size // (_COMPRESSED_IN_US if self.subscriber.window else _FRAMED_IN_US)
            frame = group.framed(snapshot, offset)
            self.books[spelling] = FramedBook(beginning, offset, size, frame)

    def prelude(self) -> tuple[list[bytes], set[str]]:
        """All that the client gets at this moment, in the order in which it named its streams; and which are recovered.

        Raises `TooLarge` where the states are more than there is room for; of what it has missed it gets what there is
        room for.
        """
        if not self.recoveries and not self.wants_state and not any(map(_always_has_state, self.streams.values())):
            return [], set()
        room = self._room()
        replays = self._replays(room)
        used = sum(replays.values())
        self.written += used
        frames: list[bytes] = []
        for spelling, stream in self.streams.items():
            if spelling in replays:
                frames += self._replayed(self._group(spelling, stream), self.recoveries[spelling])
            elif self.wants_state or _always_has_state(stream):
                size = 0
                for more, frame in self._state(spelling, self._group(spelling, stream)):
                    size += more
                    frames.append(frame)
                used += size
                if size and used > room:
                    raise TooLarge
        return frames, set(replays)

    @staticmethod
    def _replayed(group: Group, recovery: Recovery) -> list[bytes]:
        """All that was missed, or what stands for it at the client's rate."""
        rest, conflation = recovery.rest(), recovery.conflation
        if conflation is None:
            return recovery.frames + [group.framed(data, offset) for offset, data in rest]
        for offset, data in rest:
            conflation.add(data, offset)
        return [group.framed(data, offset) for offset, data in conflation.take()]

    def _state(self, spelling: str, group: Group) -> Iterator[tuple[int, bytes]]:
        """The state of a stream: frames, each with the bytes that it takes at most."""
        stream, written, state = group.stream, self.books.get(spelling), group.stream.state
        if isinstance(state, BookState) and written is not None and state.beginning is written.beginning:
            since = stream.history.since(written.offset)
            if since is not None and state.is_complete:
                yield written.size, written.frame
                for offset, data in replayed(stream, written.offset, since, group.made):
                    yield len(data) + overhead(spelling, self.shape), group.framed(data, offset)
                return
        snapshot = None if state is None else state.snapshot()
        if snapshot is not None:
            if group.made is not None:
                snapshot = group.made.state(snapshot, stream.heard)
            size = len(snapshot) + overhead(spelling, self.shape)
            self.written += size
            yield size, group.framed(snapshot, stream.history.latest or "")

    def _room(self) -> int:
        """Bytes beside the reply."""
        return self.subscriber.room - _REPLY - sum([2 * (len(spelling) + _NAMED) for spelling in self.streams])

    def _replays(self, room: int) -> dict[str, int]:
        """The bytes that what is replayed takes at most, by spelling: only what there is room for."""
        replays: dict[str, int] = {}
        for spelling, recovery in self.recoveries.items():
            size = recovery.size(room)
            if size is not None:
                replays[spelling] = size
                room -= size
        return replays

    def _group(self, spelling: str, stream: LiveStream) -> Group:
        """A group that frames as the client's own will, and has no members."""
        rate = self.rates.get(spelling, 0)
        view = self.view(spelling)
        return Group(stream, spelling, self.shape, self.subscriber.window, self.wants_state, rate, view)


def _always_has_state(stream: LiveStream) -> bool:
    """What is made of other publications has no other beginning: it may be long until something changes."""
    return stream.kind.from_candles or stream.kind.from_book is not None
