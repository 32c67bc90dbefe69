"""Streams that are made here of the books of others: the best prices, and the best levels
(docs/market-data.md#the-best-of-the-book).

1. Such a stream holds the one of which it is made, its base, which the source is asked for. It flows while that flows,
   and has its gaps.
2. Books are looked at once in a flush, those of which something has come. What is to be seen of one is published where
   it is not what was published last. A stream of which nothing is due yet, for everybody has it at a rate, is looked at
   when something is, when somebody joins it, and before its book ends: then it is what it would have been.
3. Nothing is said before a book is known for the first time. From when on one that was known is not known any more the
   stream has a gap, which is over with the next publication.
4. It has no offsets, and only the newest publication is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from marketfeed.hub.drops import Drops
from marketfeed.hub.gaps import Gaps
from marketfeed.hub.groups import Group, frame_for
from marketfeed.hub.stream import LiveStream, OpenGap
from marketfeed.model.book_state import BookState
from marketfeed.model.kinds.kind import BookView, FromBook
from marketfeed.model.ladder import BestLevels
from marketfeed.model.levels import Row
from marketfeed.wire.messages import GapReason

__all__ = ["Derivations", "DerivedStream"]

_FEED = "derived"
"""Among the taps of a base."""


class DerivedStream(LiveStream):
    """A stream that is made of `base`, which it has from `Derivations.attach` on."""

    __slots__ = ("base", "has_shown", "market", "seen")

    base: LiveStream
    market: str
    has_shown: bool
    """Something was published, ever: whoever has it is to be told when it is not so any more."""
    seen: tuple[Sequence[Row], Sequence[Row]] | None
    """What was last published of the book; None: nothing was, or it is known that it is not so any more."""

    @property
    def has_state_sought(self) -> bool:
        return self.base.is_sought

    def confirm(self, now: float, after: str | None) -> OpenGap | None:
        """Its base flows. A book that is not known is not known by that."""
        self.confirmed = True
        gap = self.gap
        if gap is None or gap[0] == GapReason.BOOK_UNKNOWN:
            return None
        self.gap = None
        return gap

    @property
    def may_wait(self) -> bool:
        """Nobody gets anything of it now, whatever is to be seen."""
        if self.at_once or self.gap is not None or self.seen is None:
            return False
        return all(tap.is_open for tap in self.taps.values())

    @property
    def looking_cost(self) -> int:
        state = self.base.state
        return state.reading_cost if self.is_stale and isinstance(state, BookState) else 0

    def lose_sight(self) -> bool:
        """The book is not known. Whether a gap has opened: while there is another one, that is told behind it."""
        assert self.state is not None
        self.state.lose()
        self.seen = None
        if not self.has_shown or self.gap is not None:
            return False
        self.gap = (GapReason.BOOK_UNKNOWN, int(self.heard * 1000))
        return True


class _Feed:
    """What a base says to who looks at its book: that something has come."""

    __slots__ = ("_base", "_derivations")

    is_open = False

    def __init__(self, base: LiveStream, derivations: Derivations) -> None:
        self._base = base
        self._derivations = derivations

    def add(self, data: bytes, offset: str) -> None:
        self._derivations.touched[self._base] = None


class Derivations:
    """All of these streams, and the books at which they look."""

    def __init__(self, gaps: Gaps, drops: Drops) -> None:
        self._gaps = gaps
        self._drops = drops
        self.touched: dict[LiveStream, None] = {}
        """The bases of which something has come, or has become known, since the last look."""

    def attach(self, stream: DerivedStream, base: LiveStream) -> None:
        """Make `stream` of `base` from now on."""
        stream.base, stream.market, stream.seen = base, base.name.partition("@")[2], None
        stream.has_shown = stream.is_stale = False
        stream.confirmed, stream.gap = base.confirmed, base.gap
        base.derived.append(stream)
        if _FEED not in base.taps:
            base.taps[_FEED] = _Feed(base, self)
            if isinstance(base.state, BookState):
                base.state.watch(partial(self._see_end, base))
        self.touch(base)

    def detach(self, stream: DerivedStream) -> LiveStream:
        """It is wanted no longer; returns its base."""
        base = stream.base
        base.derived.remove(stream)
        if not base.derived:
            del base.taps[_FEED]
            self.touched.pop(base, None)
            if isinstance(base.state, BookState):
                base.state.look_away()
        return base

    def touch(self, base: LiveStream) -> None:
        """Its book may be known, or not be known, otherwise than by a publication."""
        if base.derived:
            self.touched[base] = None

    def look(self, dirty: list[Group]) -> list[LiveStream]:
        """Publish what is to be seen of the books that were touched. `dirty`: the groups that have something to send.

        Returns the streams that have a gap now, which is to be told behind what they had to send.
        """
        touched, self.touched = self.touched, {}
        unknown: list[LiveStream] = []
        for base in touched:
            state = base.state
            if not isinstance(state, BookState):
                continue
            can_wait = not (state.is_wanting or state.may_be_too_large)
            due: list[DerivedStream] = []
            for stream in base.derived:
                assert isinstance(stream, DerivedStream)
                if can_wait and (stream.is_stale or stream.may_wait):
                    stream.is_stale = True
                    stream.heard = base.heard
                else:
                    due.append(stream)
            if due:
                unknown += self._look_at(base, state, due, dirty)
        return unknown

    def catch_up(self, streams: Iterable[LiveStream], dirty: list[Group]) -> list[LiveStream]:
        """The same for those of `streams` that were not looked at, as nothing of them was due."""
        stale: dict[LiveStream, list[DerivedStream]] = {}
        for stream in dict.fromkeys(streams):
            if stream.is_stale and isinstance(stream, DerivedStream):
                stale.setdefault(stream.base, []).append(stream)
        unknown: list[LiveStream] = []
        for base, those in stale.items():
            assert isinstance(base.state, BookState)
            unknown += self._look_at(base, base.state, those, dirty)
        return unknown

    def _see_end(self, base: LiveStream) -> None:
        """A book is about to end: see what was not looked at."""
        stale = [stream for stream in base.derived if stream.is_stale and isinstance(stream, DerivedStream)]
        state = base.state
        if stale and isinstance(state, BookState) and state.is_complete:
            self._look_at(base, state, stale, [])

    def _look_at(
        self, base: LiveStream, state: BookState, streams: list[DerivedStream], dirty: list[Group]
    ) -> list[LiveStream]:
        """Publish what is to be seen in these streams of one base; returns those that have a gap now."""
        made = [(stream, stream.kind.from_book) for stream in streams]
        best = state.best(max([how.levels for _, how in made if how is not None]))
        unknown: list[LiveStream] = []
        for stream, how in made:
            assert how is not None
            stream.is_stale = False
            if best is None:
                if stream.lose_sight():
                    unknown.append(stream)
                continue
            try:
                self._see(stream, how, state, best, dirty)
            except Exception:  # one that cannot be written
                self._drops.failed(stream)
        return unknown

    def _see(
        self, stream: DerivedStream, how: FromBook, state: BookState, best: BestLevels, dirty: list[Group]
    ) -> None:
        base = stream.base
        stream.heard = base.heard
        seen = best.bids[: how.levels], best.asks[: how.levels]
        if seen == stream.seen:
            return
        gap = stream.speak(GapReason.BOOK_UNKNOWN)
        if gap is not None:
            self._gaps.closed(stream, gap)
        stream.seen = seen
        stream.has_shown = True
        time = int(base.heard * 1000) if best.time is None else best.time
        data = how.write(BookView(stream.market, state.number, *seen, time))
        stream.counts.published += 1
        stream.counts.last = base.counts.last
        assert stream.state is not None
        stream.state.record(data)
        frame_for(stream.at_once, data, "", dirty)
        for tap in stream.taps.values():
            tap.add(data, "")
