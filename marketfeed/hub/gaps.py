"""What clients are told about publications that may be missing (docs/protocol.md).

1. A gap that is open is told to who is there as it opens, and to who joins while it lasts. It is closed, by an event
   with the same beginning, before the next publication.
2. A jump in the engine's ids is told before the publication that shows it, and in full: a stream that jumps more than
   once a second is told about once a second, with the beginning of the first and the end of the last.
3. A jump that a lost link has caused is part of that gap, which has been told.
4. Every client hears in one event of all its streams with the same reason and beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from marketfeed.boundaries import Subscriber
from marketfeed.hub.groups import Audience, Group, end_faulty, is_member
from marketfeed.hub.stream import LiveStream
from marketfeed.wire.dialects import event_text
from marketfeed.wire.frames import text_frame
from marketfeed.wire.messages import Gap, GapReason

__all__ = ["Gaps", "gap_frame", "tell_open"]

_TOLD_SECONDS = 1.0
"""A sequence gap of a stream is told this often at most."""


class Gaps:
    """The gaps that are open, and those that wait to be told."""

    def __init__(self) -> None:
        self._healed: dict[LiveStream, tuple[str, int]] = {}
        self._missed: dict[LiveStream, None] = {}

    def __bool__(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._healed or self._missed)

    def open(self, streams: list[LiveStream], reason: str, since: int) -> None:
        """Publications of these streams may be missing behind `since`, ms since 1970: the last moment known good."""
        opened = {}
        for stream in streams:
            opened[stream] = stream.gap = (reason, since)
        _tell(opened, None)

    def heal(self, stream: LiveStream) -> None:
        """The gap of this stream is over; `tell_healed` says so."""
        if stream.gap is not None:
            self._healed[stream] = stream.gap
            stream.gap = None

    def tell_healed(self, now: int) -> None:
        """Say which gaps are over. `now`: ms since 1970."""
        if self._healed:
            healed, self._healed = self._healed, {}
            _tell(healed, now)

    def missed(self, stream: LiveStream, since: int, now: int, seconds: float) -> None:
        """There is a jump between what the stream published at `since` and at `now`, both in ms since 1970."""
        if stream.missed is None:
            stream.missed = since
        if seconds - stream.told >= _TOLD_SECONDS:
            self._tell_missed(stream, now, seconds)
        else:
            self._missed[stream] = None

    def tell_missed(self, now: int, seconds: float) -> None:
        """Say which jumps had to wait, and may be told now."""
        for stream in [stream for stream in self._missed if seconds - stream.told >= _TOLD_SECONDS]:
            self._tell_missed(stream, now, seconds)

    def forget(self, stream: LiveStream) -> None:
        """The stream is wanted no longer."""
        self._healed.pop(stream, None)
        self._missed.pop(stream, None)

    def _tell_missed(self, stream: LiveStream, now: int, seconds: float) -> None:
        assert stream.missed is not None
        since, stream.missed = stream.missed, None
        stream.told = seconds
        self._missed.pop(stream, None)
        _tell({stream: (GapReason.SEQUENCE, since)}, now)


def _tell(gaps: Mapping[LiveStream, tuple[str, int]], until: int | None) -> None:
    told: dict[tuple[Audience, str, int], list[Group]] = {}
    for stream, (reason, since) in gaps.items():
        for group in stream.groups.values():
            for audience in group.audiences:
                told.setdefault((audience, reason, since), []).append(group)
    for (audience, reason, since), groups in told.items():
        spellings = [group.spelling for group in groups]
        frame = gap_frame(spellings, reason, since, until, groups[0].shape.is_enveloped)
        for member in list(audience.members):
            if member in audience.members:  # not ended by what was written before
                try:
                    member.tell(frame)
                except Exception:
                    end_faulty(member)


def tell_open(subscriber: Subscriber, groups: Iterable[Group]) -> None:
    """Tell one who has joined these groups, all of one shape, which of their streams have an open gap."""
    gaps: dict[tuple[str, int], list[Group]] = {}
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
