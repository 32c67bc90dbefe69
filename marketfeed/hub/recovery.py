"""What a client has missed, put together from the history of a stream and the archive behind it.

1. A recovery is whole or it is nothing: it has every publication from the client's offset to the moment at which the
   client joins, in order, or it says that it has not (docs/protocol.md).
2. The archive is asked for what lies before the history, a portion at a time, and for no more than there is room for.
   All recoveries of a client share its room; one that does not fit gives back what it has taken.
3. Where publications were lost unnoticed, an offset from before it was noticed is good for nothing: the archive would
   find all that is behind it, and nobody would say what is missing before it.
4. A client may be ahead of the history: another process, from which it comes, was quicker. Then the history is given
   the time of some questions to come that far, for what it gets until then is not news to that client.
5. What does not fit is found out without looking at each publication, for a client may ask for very many.
6. What the archive holds and the stream's kind does not permit is passed over, as it was when it was published.
"""

from __future__ import annotations

import msgspec

from marketfeed.boundaries import Archive, Entry
from marketfeed.hub.entry_history import number_of
from marketfeed.hub.history import Note
from marketfeed.hub.stream import LiveStream
from marketfeed.hub.views import Made, Replay
from marketfeed.model.conflation import new_conflation
from marketfeed.model.kinds.kind import View
from marketfeed.model.publications import BadPublication

__all__ = ["Recovery", "ReplayRoom", "read_entries"]

_ADDED = 512
"""Bytes of a view in each publication, that are counted in the overhead."""
_ROUNDS = 64
"""Portions after which a recovery that does not reach the history, which moves on, is given up."""


class ReplayRoom(msgspec.Struct):
    """The bytes that the recoveries of one client may take from the archive, all together."""

    left: int


class Recovery:
    """What one stream has published behind `offset`, with `overhead` bytes for each publication.

    `rate`: that of who has missed it; with one it gets what stands for all of it. `view`: as what it gets it.
    """

    def __init__(
        self,
        stream: LiveStream,
        offset: str,
        replay_room: ReplayRoom,
        overhead: int,
        rate: int = 0,
        view: View = View.ENGINE,
    ) -> None:
        self.stream = stream
        self.entries: list[Entry] = []
        self._notes: list[Note | None] = []  # of each
        self.done = 0  # how many of them are in these:
        self.frames: list[bytes] = []
        self.conflation = new_conflation(stream.kind, view) if rate else None
        self._made = stream.made(view) if view else None
        self._replay: Replay | None = None
        self._last = self._offset = offset
        self.is_possible = not stream.history.is_void(offset)
        self._replay_room = replay_room
        self._taken = 0
        self._size = 0  # bytes of the entries
        self._overhead = overhead
        self._rounds = 0

    @property
    def needs_archive(self) -> bool:
        """Whether the history does not reach back to where this has come."""
        history = self.stream.history
        is_archived = self.is_possible and not history.is_counted and history.latest is not None
        return is_archived and not history.reaches(self._last)

    @property
    def is_ahead(self) -> bool:
        """Whether the client is ahead of the history, which may come that far."""
        return self.is_possible and self.stream.history.is_behind(self._last)

    async def ask(self, archive: Archive, strict: bool) -> None:
        """Get one portion from the archive."""
        history = self.stream.history
        until = history.latest
        assert until is not None
        is_ahead = history.is_behind(self._last)
        self._rounds += 1
        portion = await archive.since(self.stream.name, self._last, until, max(1, self._replay_room.left))
        if portion is None or self._rounds > _ROUNDS:
            self._give_up()
            return
        if portion:
            self._last = portion[-1][0]
        elif not is_ahead:
            self._last = until
        if self._made is not None and self._replay is None:
            self._replay = self._made.replay(number_of(self._offset))
        self._add(read_entries(self.stream, portion, strict), None)
        size = sum([len(payload) + self._overhead for _, payload in portion])
        self._taken += size
        self._replay_room.left -= size
        if self._replay_room.left < 0:
            self._give_up()

    def _add(self, entries: list[Entry], notes: list[Note] | None) -> None:
        self.entries += entries
        self._notes += notes or [None] * len(entries)
        self._size += sum([len(data) + self._overhead for _, data in entries])

    def _give_up(self) -> None:
        self.is_possible = False
        self.entries = []
        self._notes = []
        self.frames = []
        self.done = 0
        self._size = 0
        self._replay_room.left += self._taken
        self._taken = 0

    def size(self, most: int) -> int | None:
        """The bytes that all of it takes at this moment, at most; None if it cannot be had, or takes more than `most`.

        Nothing is always had, whatever the room.
        """
        if not self.is_possible or self.stream.history.is_void(self._offset):
            return None
        more = self.stream.history.size_since(self._last, self._overhead, most - self._size)
        return None if more is None or self._size + more > max(0, most) else self._size + more

    def advance(self) -> None:
        """Take over what the history has, which then does not matter any more."""
        history = self.stream.history
        more = history.since(self._last) if self.is_possible else None
        if more:
            if self._made is not None and self._replay is None:
                self._replay = self._made.replay(history.number_at(self._last))
            self._add(more, history.notes_since(self._last) if self._made is not None else None)
            self._last = more[-1][0]

    def take(self, most: int) -> list[Entry]:
        """The next ones, as the client gets them."""
        first, self.done = self.done, min(self.done + most, len(self.entries))
        entries, replay = self.entries[first : self.done], self._replay
        if replay is None:
            return entries
        made = [
            (offset, replay.make(offset, data, note))
            for (offset, data), note in zip(entries, self._notes[first : self.done], strict=True)
        ]
        grown = sum([len(data) for _, data in made]) - sum([len(data) for _, data in entries])
        self._size += max(0, grown - _ADDED * len(made))
        return made

    def rest(self) -> list[Entry]:
        """All of it at this moment that is not done, if `size` says that it can be had; as the client gets it."""
        if self._made is None:
            return self.entries[self.done :] + (self.stream.history.since(self._last) or [])
        self.advance()
        return self.take(len(self.entries))


def replayed(stream: LiveStream, offset: str, entries: list[Entry], made: Made | None) -> list[Entry]:
    """What the history has behind `offset`, the `entries`, as `made` has it."""
    if made is None:
        return entries
    replay, notes = made.replay(stream.history.number_at(offset)), stream.history.notes_since(offset)
    return [(at, replay.make(at, data, note)) for (at, data), note in zip(entries, notes, strict=True)]


def read_entries(stream: LiveStream, entries: list[Entry], strict: bool) -> list[Entry]:
    """What an archive holds, as publications: the data without their wrapping, and without the bad ones."""
    read = []
    for offset, payload in entries:
        try:
            read.append((offset, stream.reader.read(payload)))
        except BadPublication as bad:
            if not strict and bad.data is not None:
                read.append((offset, bad.data))
    return read
