"""The last publications of a stream, for a client on its way in (docs/protocol.md#rewind).

1. What is rewound ends where the stream ends as the client joins, so that the live publications follow it, and nothing
   is missing in it that nobody was told of.
2. It comes from the history. Where that has too few, and an archive has more, those before it come from there, if they
   are shown to be what the history goes on from.
3. There may be less than was asked for: no more is kept, is out of reach, or fits. Then it is the newest.
4. Of a kind that says which publications are final it is these, for the others are overtaken.
"""

from __future__ import annotations

from collections.abc import Sequence

from marketfeed.boundaries import Archive, Entry
from marketfeed.hub.history import Note
from marketfeed.hub.recovery import read_entries
from marketfeed.hub.stream import LiveStream
from marketfeed.model.kinds.kind import View

__all__ = ["Rewind", "shares"]

_LOOK_IN_US = 5


class Rewind:
    """At most `most` publications of one stream, each of which takes `overhead` bytes besides its own."""

    def __init__(self, stream: LiveStream, most: int, overhead: int, view: View = View.ENGINE) -> None:
        self.stream = stream
        self._made = stream.made(view) if view else None
        self._notes: dict[str, Note] = {}  # of those that the history had, if the client gets another view
        self.entries: list[Entry] = []
        self.frames: list[bytes] = []  # of the first of them
        self._most = most
        self._overhead = overhead
        self._last: str | None = None  # up to where it has come; None: not begun
        self._has_asked = False
        self._is_state_last = False

    @property
    def needs_archive(self) -> bool:
        """Whether more may be in the archive than in the history, which has not been asked for."""
        history = self.stream.history
        is_archived = not (self._has_asked or history.is_counted or history.latest is None)
        return is_archived and history.kept < self._most

    @property
    def size(self) -> int:
        """The bytes that all of it takes, at most."""
        return sum([len(data) for _, data in self.entries]) + self._overhead * len(self.entries)

    @property
    def cost(self) -> int:
        """What the first `advance` takes, in µs, about."""
        kept = self.stream.history.kept
        return _LOOK_IN_US + (min(self._most, kept) // 4 if self.stream.kind.is_final is None else kept)

    @property
    def count(self) -> int:
        """How many publications the client gets."""
        return len(self.entries) + self._is_state_last

    async def ask(self, archive: Archive, max_bytes: int, strict: bool) -> None:
        """Get from the archive what there is up to this moment."""
        self._has_asked = True
        history = self.stream.history
        until, known = history.latest, [offset for offset, _ in history.newest(history.kept, max_bytes)]
        found = await archive.newest(self.stream.name, self._most, max_bytes, until)
        entries = read_entries(self.stream, found or [], strict)
        if entries and [offset for offset, _ in entries[len(entries) - len(known) :]] == known:
            self._last = until
            self._add(entries)

    def advance(self, max_bytes: int) -> None:
        """Take over what the history has by now. `max_bytes`: more of it is not needed."""
        history = self.stream.history
        more = None if self._last is None else history.since(self._last)
        if more is None:  # this has not begun, or something came in between
            self.entries, self.frames = [], []
            is_all = self.stream.kind.is_final is None
            more = history.newest(self._most if is_all else history.kept, max_bytes if is_all else history.size)
        self._last = history.latest
        self._add(more)
        if self._made is not None:
            for offset, _ in more:
                note = history.note(offset)
                if note is not None:
                    self._notes[offset] = note
        if self.entries and history.is_void(self.entries[0][0]):
            self._drop(sum([history.is_void(offset) for offset, _ in self.entries]))
        self._drop(len(self.entries) - self._most)

    def seen(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Some of them, in order, as the client gets them."""
        if self._made is None:
            return entries
        replay = self._made.replay(None)
        return [(offset, replay.make(offset, data, self._notes.get(offset))) for offset, data in entries]

    def leave_out(self, state: bytes) -> None:
        """Leave out the newest if it is this one: the client gets it as the state, behind the others."""
        if self.entries and self.entries[-1][1] == state:
            del self.entries[-1]
            del self.frames[len(self.entries) :]
            self._is_state_last = True

    def fit(self, room: int) -> None:
        """Drop the oldest until the rest takes no more than so many bytes."""
        kept = 0
        for _, data in reversed(self.entries):
            room -= len(data) + self._overhead
            if room < 0:
                break
            kept += 1
        self._drop(len(self.entries) - kept)

    def _add(self, entries: list[Entry]) -> None:
        is_final = self.stream.kind.is_final
        self.entries += entries if is_final is None else [entry for entry in entries if is_final(entry[1])]

    def _drop(self, count: int) -> None:
        """Drop the oldest ones."""
        if count > 0:
            del self.entries[:count]
            del self.frames[:count]


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How much of `room` each of some gets that want so much: what it wants, or at least as much as any other one."""
    got = [0] * len(wanted)
    for place, at in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        got[at] = min(wanted[at], max(0, room) // (len(wanted) - place))
        room -= got[at]
    return got
