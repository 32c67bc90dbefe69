"""What a client gets between the reply to its SUBSCRIBE and the live streams: what it has missed, or the state.

1. Books are written, and framed, before the client joins, a step at a time. The client then gets each as it was, and
   behind it what was published since: together what it would have been told of the book at that moment. What was
   missed is framed so, too.
2. A book that was begun anew since, or of which what was published since is not kept, is written once more.
3. As soon as it is certain that all of it is more than there is room for, nothing more is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from marketfeed.hub.groups import Group, overhead
from marketfeed.hub.join import Join
from marketfeed.hub.portions import Work
from marketfeed.hub.stream import LiveStream
from marketfeed.model.state import BookState

__all__ = ["TooLarge", "framed_prelude", "write_prelude"]

_REPLY = 512
"""The bytes of a reply and of a gap event, besides the streams that they name."""
_NAMED = 10  # bytes of a stream in them, besides its name
_FRAMED_IN_US = 2000
_COMPRESSED_IN_US = 40
_TOGETHER = 100  # missed publications that are framed in one step
_EACH_IN_US = 2
_EACH_COMPRESSED_IN_US = 15


class TooLarge(Exception):
    """What a client would get is more than may wait for it."""


class WrittenBook(msgspec.Struct, frozen=True, gc=False):
    """A book as it was at `offset`, for one client. `beginning`: what it is a continuation of."""

    beginning: object
    offset: str
    size: int
    frame: bytes


def write_prelude(join: Join) -> Work:
    """Write what takes long of what a client who joins gets. Raises `TooLarge`."""
    if not join.recoveries and not any(isinstance(stream.state, BookState) for stream in join.streams.values()):
        return
    room = _room(join)
    replays = _replays(join, room)
    for spelling in replays:
        yield from _frame_missed(join, spelling)
    if join.wants_state:
        yield from _write_books(join, replays, room)


def _frame_missed(join: Join, spelling: str) -> Work:
    recovery = join.recoveries[spelling]
    recovery.advance()
    group, window = _group(join, spelling, recovery.stream), join.subscriber.window
    while missed := recovery.entries[len(recovery.frames) : len(recovery.frames) + _TOGETHER]:
        size = sum([len(data) for _, data in missed])
        each = _EACH_COMPRESSED_IN_US if window else _EACH_IN_US
        yield len(missed) * each + size // (_COMPRESSED_IN_US if window else _FRAMED_IN_US)
        recovery.frames += [group.framed(data, offset) for offset, data in missed]


def _write_books(join: Join, replays: Mapping[str, int], room: int) -> Work:
    used = sum(replays.values())
    for spelling, stream in join.streams.items():
        state = stream.state
        if not isinstance(state, BookState) or spelling in replays or spelling in join.books:
            continue
        yield from state.settling()
        yield state.cost
        beginning, offset, snapshot = state.beginning, stream.history.latest or "", state.snapshot()
        if snapshot is None:
            continue
        size = len(snapshot) + overhead(spelling, join.shape)
        used += size
        join.written += size
        if used > room:
            raise TooLarge
        yield size // (_COMPRESSED_IN_US if join.subscriber.window else _FRAMED_IN_US)
        frame = _group(join, spelling, stream).framed(snapshot, offset)
        join.books[spelling] = WrittenBook(beginning, offset, size, frame)


def framed_prelude(join: Join) -> tuple[list[bytes], set[str]]:
    """All that a client gets at this moment, in the order in which it named its streams; and which are recovered.

    Raises `TooLarge` where the states are more than there is room for; of what it has missed it gets what there is room
    for.
    """
    room = _room(join)
    replays = _replays(join, room)
    used = sum(replays.values())
    join.written += used
    frames: list[bytes] = []
    if not replays and not join.wants_state:
        return frames, set()
    for spelling, stream in join.streams.items():
        if spelling in replays:
            frames += _missed(join, spelling)
        elif join.wants_state:
            size = 0
            for more, frame in _state(join, spelling, _group(join, spelling, stream)):
                size += more
                frames.append(frame)
            used += size
            if size and used > room:
                raise TooLarge
    return frames, set(replays)


def _state(join: Join, spelling: str, group: Group) -> Iterator[tuple[int, bytes]]:
    """The state of a stream: frames, each with the bytes that it takes at most."""
    stream, written, state = group.stream, join.books.get(spelling), group.stream.state
    if isinstance(state, BookState) and written is not None and state.beginning is written.beginning:
        since = stream.history.since(written.offset)
        if since is not None and state.is_complete:
            yield written.size, written.frame
            for offset, data in since:
                yield len(data) + group.overhead, group.framed(data, offset)
            return
    snapshot = None if state is None else state.snapshot()
    if snapshot is not None:
        size = len(snapshot) + group.overhead
        join.written += size
        yield size, group.framed(snapshot, stream.history.latest or "")


def _room(join: Join) -> int:
    """Bytes beside the reply."""
    if not join.recoveries and not join.wants_state:
        return 0
    return join.subscriber.room - _REPLY - sum([2 * (len(spelling) + _NAMED) for spelling in join.streams])


def _replays(join: Join, room: int) -> dict[str, int]:
    """The bytes that what is replayed takes at most, by spelling: only what there is room for."""
    replays: dict[str, int] = {}
    for spelling, recovery in join.recoveries.items():
        size = recovery.size(room)
        if size is not None:
            replays[spelling] = size
            room -= size
    return replays


def _missed(join: Join, spelling: str) -> list[bytes]:
    """What a client has missed of a stream, framed; most of it has been before."""
    recovery = join.recoveries[spelling]
    group = _group(join, spelling, recovery.stream)
    return recovery.frames + [group.framed(data, offset) for offset, data in recovery.rest()]


def _group(join: Join, spelling: str, stream: LiveStream) -> Group:
    """A group that frames as the client's own will, and has no members."""
    return Group(stream, spelling, join.shape, join.subscriber.window, join.wants_state)
