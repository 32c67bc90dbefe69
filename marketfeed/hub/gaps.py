"""What clients are told about publications that may be missing (docs/protocol.md#gaps).

1. A gap that is open is told to who is there as it opens, and to who joins while it lasts. It is closed, by an event
   with the same beginning, before the next publication.
2. A jump in the engine's ids is told before the publication that shows it, and in full: a stream that jumps more than
   once a second is told about once a second, with the beginning of the first and the end of the last.
3. A jump that a lost link has caused is part of that gap, which has been told.
4. Every client hears in one event of all its streams with the same reason and beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from marketfeed.boundaries import Subscriber
from marketfeed.hub.faults import Faults
from marketfeed.hub.groups import Audience, Group, is_member
from marketfeed.hub.stream import LiveStream, OpenGap
from marketfeed.wire.dialects import event_text
from marketfeed.wire.frames import text_frame
from marketfeed.wire.messages import Gap, GapReason

__all__ = ["Gaps", "Hastens", "gap_frame", "tell_open"]


class Hastens(Protocol):
    """Who sends what waits for its time."""

    def hasten(self, streams: Iterable[LiveStream]) -> None:
        """Send what is pending, and what waits for its time in the windows of `streams`."""


class Gaps:
    """The gaps of which there is something to say yet: those that are over, and jumps of the ids that had to wait.

    `counts`: of all that there have been, by reason, one for each stream.
    """

    def __init__(self, faults: Faults, counts: Counter[str] | None = None) -> None:
        self._faults = faults
        self._counts = Counter[str]() if counts is None else counts
        self.over: dict[LiveStream, OpenGap] = {}
        """The gaps of which nobody has been told that they are over."""
        self._untold: dict[LiveStream, None] = {}

    def __bool__(self) -> bool:
        """Whether there is something to tell."""
        return bool(self.over or self._untold)

    def opened(self, streams: Iterable[LiveStream]) -> int:
        """Say that these streams have a gap now, if they have. To how many clients."""
        opened = {stream: stream.gap for stream in streams if stream.gap is not None}
        self._counts.update([reason for reason, _ in opened.values()])
        return self._tell(opened, None)

    def closed(self, stream: LiveStream, gap: OpenGap) -> None:
        """The stream had this gap; `tell_over` says that it is over."""
        self.over[stream] = gap

    def tell_over(self, now: int) -> None:
        """Say which gaps are over. `now`: ms since 1970."""
        over, self.over = self.over, {}
        self._tell(over, now)

    def jumped(self, stream: LiveStream, since: int, now: int, seconds: float) -> None:
        """There is a jump between what the stream published at `since` and at `now`, both in ms since 1970."""
        self._untold[stream] = None
        self._tell_jump(stream, stream.jump(since, seconds), now)

    def tell_jumps(self, now: int, seconds: float) -> None:
        """Say which jumps had to wait, and may be told now."""
        for stream in list(self._untold):
            self._tell_jump(stream, stream.untold(seconds), now)

    def forget(self, stream: LiveStream) -> None:
        """The stream is wanted no longer."""
        self.over.pop(stream, None)
        self._untold.pop(stream, None)

    def _tell_jump(self, stream: LiveStream, since: int | None, now: int) -> None:
        if since is not None:
            self._untold.pop(stream, None)
            self._counts[GapReason.SEQUENCE] += 1
            self._tell(dict.fromkeys((stream, *stream.derived), (GapReason.SEQUENCE, since)), now)

    def _tell(self, gaps: Mapping[LiveStream, OpenGap], until: int | None) -> int:
        """To how many clients."""
        told: dict[tuple[Audience, str, int], list[Group]] = {}
        for stream, (reason, since) in gaps.items():
            for group in stream.groups.values():
                for audience in group.audiences:
                    told.setdefault((audience, reason, since), []).append(group)
        clients = sum(len(audience.members) for audience in {audience for audience, _, _ in told})
        for (audience, reason, since), groups in told.items():
            spellings = [group.spelling for group in groups]
            frame = gap_frame(spellings, reason, since, until, groups[0].shape.is_enveloped)
            for member in list(audience.members):
                if member in audience.members:  # not ended by what was written before
                    try:
                        member.tell(frame)
                    except Exception:
                        self._faults.end(member)
        return clients


def tell_open(subscriber: Subscriber, groups: Iterable[Group]) -> None:
    """Tell one who has joined these groups, all of one shape, which of their streams have an open gap."""
    gaps: dict[OpenGap, list[Group]] = {}
    for group in groups:
        if group.stream.gap is not None:
            gaps.setdefault(group.stream.gap, []).append(group)
    for (reason, since), opened in gaps.items():
        if is_member(subscriber, opened[0]):  # not ended by what was written before
            spellings = [group.spelling for group in opened]
            subscriber.tell(gap_frame(spellings, reason, since, None, opened[0].shape.is_enveloped))


def gap_frame(streams: list[str], reason: str, since: int, until: int | None, is_enveloped: bool) -> bytes:
    """One gap event; `streams` as the client spelled them."""
    return text_frame(event_text(Gap(streams, reason, since, until), is_enveloped))
