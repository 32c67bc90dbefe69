"""What waits for one client who does not keep up, thinned out by the loss policy of each stream.

1. Frames leave in the order in which they came, and whole.
2. `keep`: everything waits. `latest`: only the newest of a stream waits. `merge`: what comes is merged into what waits
   of the stream, as its kind has it (`merging`): depth updates where nothing is missing between them. A snapshot
   discards what waited before it (docs/protocol.md#slow-clients).
3. Nothing is merged or replaced across a control event, so that a gap is told where it is; nor across a change of the
   stream's shape, so that within a stream the order stays what it was.
4. `size` is what the waiting frames take; for merged ones an estimate, from above (`Message.size`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from marketfeed.hub.groups import Group, overhead
from marketfeed.model.kinds.kind import LossPolicy
from marketfeed.model.merging import Message

__all__ = ["Backlog", "Thinned"]

_FEW = 64  # dropped ones that are not worth moving the rest for


class Thinned:
    """What has been left out for one client, since it came, in publications."""

    __slots__ = ("merged", "replaced", "streams")

    def __init__(self) -> None:
        self.streams: dict[str, bool] = {}
        """Those of which something has been, by spelling, and whether the client knows; until it knows that it has
        caught up."""
        self.replaced = 0
        """A newer one, or a snapshot, went in their place."""
        self.merged = 0
        """They went as a part of the update before them."""


class _Entry:
    __slots__ = ("depth", "frame", "group", "is_merged", "offset", "size")

    def __init__(self, group: Group | None, frame: bytes) -> None:
        self.group = group
        self.frame = frame
        self.size = len(frame)
        self.depth: Message | None = None
        self.is_merged = False
        self.offset = ""  # of the last that was merged into this


class Backlog:
    """The waiting frames of one client. `thinned`: where it counts what it leaves out."""

    __slots__ = ("_dropped", "_entries", "_left_out", "_thinned", "size")

    def __init__(self, thinned: Thinned | None = None) -> None:
        self._left_out = thinned or Thinned()
        self._entries: deque[_Entry] = deque()
        self._dropped = 0  # of the entries: they have a size of 0, for to take them out would be to look at all
        self._thinned: dict[str, list[_Entry]] = {}  # by spelling: what may be merged or replaced yet
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def put(self, frames: bytes, *, is_event: bool = False) -> None:
        """Whole frames that are not publications, or the rest of one that was cut.

        `is_event`: a control event, so that what comes after it does not touch what came before.
        """
        if is_event:
            self.part()
        self._append(_Entry(None, frames))

    def part(self) -> None:
        """What comes from now on does not touch what came before, as behind a control event."""
        self._thinned.clear()

    def add(self, group: Group, frame: bytes, room: int) -> bool:
        """A publication. False: it takes more than `room` bytes, and what waits is of no use any more."""
        loss = group.stream.loss
        if loss is LossPolicy.KEEP:
            if len(frame) > room:
                return False
            self._append(_Entry(group, frame))
            return True
        before = self.size
        waiting = self._thinned.setdefault(group.spelling, [])
        if waiting and waiting[0].group is not group:
            waiting.clear()  # the client has changed the shape
        if loss is LossPolicy.MERGE:
            self._merge(waiting, group, frame)
        elif waiting:
            self._resize(waiting[0], len(frame))
            waiting[0].frame = frame
            self._left_out.replaced += 1
            self._left_out.streams.setdefault(group.spelling, False)
            group.stream.counts.conflated += 1
        else:
            self._keep(waiting, _Entry(group, frame))
        return self.size - before <= room

    def forget(self, groups: Collection[Group]) -> None:
        """Drop the publications of `groups`."""
        for group in groups:
            self._thinned.pop(group.spelling, None)
        dropped = set(groups)
        self._entries = deque([entry for entry in self._entries if entry.size and entry.group not in dropped])
        self._dropped = 0
        self.size = sum([entry.size for entry in self._entries])

    def take(self, most: int) -> bytes:
        """The first frame, and as many of the next as fit in `most` bytes with it."""
        frames = []
        taken = 0
        entries = self._entries
        while entries and (not taken or taken + entries[0].size <= most):
            entry = entries.popleft()
            self._dropped -= not entry.size
            self.size -= entry.size
            taken += entry.size
            frames.append(entry.frame if entry.group is None else self._leave(entry.group, entry))
        return b"".join(frames)

    def _leave(self, group: Group, entry: _Entry) -> bytes:
        waiting = self._thinned.get(group.spelling)
        if waiting and waiting[0] is entry:
            del waiting[0]
        if entry.is_merged:
            assert entry.depth is not None
            return group.framed(entry.depth.to_bytes(), entry.offset)
        return entry.frame

    def _append(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self.size += entry.size

    def _keep(self, waiting: list[_Entry], entry: _Entry) -> None:
        waiting.append(entry)
        self._append(entry)

    def _resize(self, entry: _Entry, size: int) -> None:
        self.size += size - entry.size
        entry.size = size

    def _merge(self, waiting: list[_Entry], group: Group, frame: bytes) -> None:
        entry = _Entry(group, frame)
        if not waiting:
            self._keep(waiting, entry)
            return
        last = waiting[-1]
        if last.depth is None:  # the first is not read before there is a second
            last.depth = group.depth(last.frame)
        depth = entry.depth = group.depth(frame)
        if last.depth is None or depth is None:  # forwarded unchecked, and not what depth streams hold
            waiting.clear()
            self._keep(waiting, entry)
        elif depth.is_snapshot:
            group.stream.counts.conflated += len(waiting)
            self._left_out.streams.setdefault(group.spelling, False)
            self._discard(waiting)
            self._keep(waiting, entry)
        elif last.depth.can_take(depth):
            last.offset = group.offset(frame)
            self._merge_into(last, last.depth, depth, group)
        else:
            if not last.is_merged:
                last.depth = None  # it takes more memory than the frame, and nothing merges into it any more
            self._keep(waiting, entry)

    def _merge_into(self, entry: _Entry, earlier: Message, later: Message, group: Group) -> None:
        if not entry.is_merged:
            earlier = entry.depth = earlier.copy()  # what groups hand out is shared
            entry.is_merged = True
            entry.frame = b""
        earlier.take(later)
        self._left_out.merged += 1
        self._left_out.streams.setdefault(group.spelling, False)
        group.stream.counts.conflated += 1
        self._resize(entry, earlier.size + overhead(group.spelling, group.shape))

    def _discard(self, waiting: list[_Entry]) -> None:
        """Drop what waits of a stream, before its snapshot. What waits of others is not looked at: it may be much."""
        self._left_out.replaced += len(waiting)
        self.size -= sum([entry.size for entry in waiting])
        for entry in waiting:
            entry.group = entry.depth = None
            entry.frame = b""
            entry.size = 0
        self._dropped += len(waiting)
        waiting.clear()
        if self._dropped > _FEW and 2 * self._dropped > len(self._entries):
            self._entries = deque([entry for entry in self._entries if entry.size])
            self._dropped = 0
