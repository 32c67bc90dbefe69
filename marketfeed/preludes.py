"""What a client gets between the reply to its SUBSCRIBE and the live streams: what it has missed, or the state.

1. Books are written, and framed, before the client joins, a step at a time. The client then gets each as it was, and
   behind it what was published since: together what it would have been told of the book at that moment.
2. A book that was begun anew since, or of which what was published since is not kept, is written once more.
3. As soon as it is certain that all of it is more than there is room for, nothing more is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from marketfeed.boundaries import Entry
from marketfeed.groups import Group, LiveStream, overhead
from marketfeed.join import Join
from marketfeed.model.state import BookState
from marketfeed.portions import Work

__all__ = ["TooLarge", "framed_prelude", "write_books"]

_REPLY = 512
"""The bytes of a reply and of a gap event, besides the streams that they name."""
_NAMED = 10  # bytes of a stream in them, besides its name
_FRAMED_IN_US = 2000
_COMPRESSED_IN_US = 40


class TooLarge(Exception):
    """What a client would get is more than may wait for it."""


class WrittenBook(msgspec.Struct, frozen=True, gc=False):
    """A book as it was at `offset`, for one client. `beginning`: what it is a continuation of."""

    beginning: object
    offset: str
    size: int
    frame: bytes


def write_books(join: Join) -> Work:
    """Write the books that a client who joins gets. Raises `TooLarge`."""
    if not any(isinstance(stream.state, BookState) for stream in join.streams.values()):
        return
    room = _room(join)
    replays, used = _replays(join, room)
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
    replays, used = _replays(join, room)
    join.written += used
    frames: list[bytes] = []
    if not replays and not join.wants_state:
        return frames, set()
    for spelling, stream in join.streams.items():
        if spelling in replays:
            group = _group(join, spelling, stream)
            frames += [group.framed(data, offset) for offset, data in replays[spelling]]
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
    if not join.recalls and not join.wants_state:
        return 0
    return join.subscriber.room - _REPLY - sum([2 * (len(spelling) + _NAMED) for spelling in join.streams])


def _replays(join: Join, room: int) -> tuple[Mapping[str, list[Entry]], int]:
    """What is replayed, by spelling, and how many bytes it takes at most: only what there is room for."""
    replays: dict[str, list[Entry]] = {}
    used = 0
    for spelling, recall in join.recalls.items():
        taken = recall.take()
        if taken is not None and (not taken[0] or used + taken[1] <= room):
            replays[spelling] = taken[0]
            used += taken[1]
    return replays, used


def _group(join: Join, spelling: str, stream: LiveStream) -> Group:
    """A group that frames as the client's own will, and has no members."""
    return Group(stream, spelling, join.shape, join.subscriber.window, join.wants_state)
