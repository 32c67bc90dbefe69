"""One client on its way into streams: what it asks for, and what it gets between the reply and the live streams.

1. It gets what it has missed, or the states. Books are written, and framed, before the client joins, a step at a time.
   The client then gets each as it was, and behind it what was published since: together what it would have been told of
   the book at that moment. What was missed is framed so, too, and the last publications (`rewind`).
2. A book that was begun anew since, or of which what was published since is not kept, is written once more.
3. As soon as it is certain that all of it is more than there is room for, nothing more is written. Of the last
   publications it gets what fits besides, in half of the room: the rest is for what is published next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Answers, Entry, Subscriber
from marketfeed.hub.groups import Group, overhead
from marketfeed.hub.portions import Work
from marketfeed.hub.readiness import Wait
from marketfeed.hub.recovery import Recovery, replayed
from marketfeed.hub.rewind import Rewind, shares
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
    rates: dict[str, int] = {}  # by spelling; what is not in it has none
    views: dict[str, View] = {}  # the same
    rewind: int = 0
    asked: deque[tuple[str, StreamName]] = msgspec.field(default_factory=deque)
    streams: dict[str, LiveStream] = {}
    recoveries: dict[str, Recovery] = {}
    rewinds: dict[str, Rewind] = {}
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
        has_books = self.wants_state and any(isinstance(stream.state, BookState) for stream in self.streams.values())
        if not (self.recoveries or self.rewinds or has_books):
            return
        room = self._room()
        replays = self._replays(room)
        for spelling in replays:
            yield from self._frame_missed(spelling)
        if self.wants_state:
            yield from self._write_books(replays, room)
        if self.rewinds:
            yield from self._frame_rewound((room - sum(replays.values())) // 2)

    def _frame_rewound(self, room: int) -> Work:
        for rewind in self.rewinds.values():
            yield rewind.cost
            rewind.advance(room)
        self._share_out(room)
        for spelling, rewind in self.rewinds.items():
            group = self._group(spelling, rewind.stream)
            while rest := rewind.entries[len(rewind.frames) : len(rewind.frames) + _TOGETHER]:
                yield self._framing(rest)
                rewind.frames += [group.framed(data, offset) for offset, data in rewind.seen(rest)]

    def _share_out(self, room: int) -> None:
        """Let the last publications take so many bytes, those of each stream as many as those of any other one."""
        rewinds = self.rewinds.values()
        for rewind, share in zip(rewinds, shares([rewind.size for rewind in rewinds], room), strict=True):
            rewind.fit(share)

    def _framing(self, entries: list[Entry]) -> int:
        """What it takes to frame them, in µs."""
        size = sum([len(data) for _, data in entries])
        if self.subscriber.window:
            return len(entries) * _EACH_COMPRESSED_IN_US + size // _COMPRESSED_IN_US
        return len(entries) * _EACH_IN_US + size // _FRAMED_IN_US

    def _frame_missed(self, spelling: str) -> Work:
        recovery = self.recoveries[spelling]
        recovery.advance()
        group, conflation = self._group(spelling, recovery.stream), recovery.conflation
        while missed := recovery.entries[recovery.done : recovery.done + _TOGETHER]:
            size = sum([len(data) for _, data in missed])
            made = _EACH_MADE_IN_US * len(missed) if group.made is not None else 0
            if conflation is not None:
                yield len(missed) * _EACH_MERGED_IN_US + made + size // _MERGED_IN_US
                for offset, data in recovery.take(len(missed)):
                    conflation.add(data, offset)
            else:
                yield self._framing(missed) + made
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

        Raises `TooLarge` where the states are more than there is room for; of what it has missed, and of the last
        publications, it gets what there is room for.
        """
        is_bare = not (self.recoveries or self.rewinds or self.wants_state)
        if is_bare and not any(stream.kind.always_has_state for stream in self.streams.values()):
            return [], set()
        room = self._room()
        replays = self._replays(room)
        used = sum(replays.values())
        self.written += used
        for rewind in self.rewinds.values():
            rewind.advance(room)
        frames: dict[str, list[bytes]] = {}
        for spelling, stream in self.streams.items():
            if spelling in replays:
                frames[spelling] = self._replayed(self._group(spelling, stream), self.recoveries[spelling])
            elif self.wants_state or stream.kind.always_has_state:
                self._part_with_state(spelling, stream)
                size = 0
                frames[spelling] = []
                for more, frame in self._state(spelling, self._group(spelling, stream)):
                    size += more
                    frames[spelling].append(frame)
                used += size
                if size and used > room:
                    raise TooLarge
        return self._with_rewound(frames, (room - used) // 2), set(replays)

    def _part_with_state(self, spelling: str, stream: LiveStream) -> None:
        """The state comes once, though it may be the last publication."""
        rewind = self.rewinds.get(spelling)
        state = None if rewind is None or stream.state is None else stream.state.snapshot()
        if rewind is not None and state is not None:
            rewind.leave_out(state)

    def _with_rewound(self, frames: dict[str, list[bytes]], room: int) -> list[bytes]:
        """The last publications of each stream, and behind them its frames."""
        self._share_out(room)
        every: list[bytes] = []
        for spelling, stream in self.streams.items():
            rewind = self.rewinds.get(spelling)
            if rewind is not None:
                group = self._group(spelling, stream)
                every += rewind.frames
                rest = rewind.seen(rewind.entries[len(rewind.frames) :])
                every += [group.framed(data, offset) for offset, data in rest]
            every += frames.get(spelling, ())
        return every

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
