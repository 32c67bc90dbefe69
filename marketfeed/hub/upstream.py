"""The source, and what it says of streams: they are confirmed, refused, lost, and their states are found.

1. What is pending goes out before anything is said of a stream, and what is said before what comes behind it.
2. What may be missing is told, as a gap or a jump (`gaps`); then nobody gets a history or a state that leaves it out.
3. Whoever waits for a stream goes on as soon as it is known whether it flows (`readiness`).
4. What is sent may end a client, and with the last one its stream: who goes on looks whether it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Protocol

import msgspec

from marketfeed.boundaries import Archive, Clock, Source, Subscriber
from marketfeed.hub.absence import Absence
from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.counts import HubCounts
from marketfeed.hub.derived import Derivations, DerivedStream
from marketfeed.hub.drops import Drops
from marketfeed.hub.entry_history import EntryHistory
from marketfeed.hub.faults import Faults
from marketfeed.hub.gaps import Gaps
from marketfeed.hub.groups import Group
from marketfeed.hub.histories import Histories
from marketfeed.hub.history import History
from marketfeed.hub.market_facts import MarketFacts
from marketfeed.hub.no_history import NoHistory
from marketfeed.hub.outages import Outages
from marketfeed.hub.readiness import Readiness
from marketfeed.hub.registry import StreamRegistry
from marketfeed.hub.silence import Silence
from marketfeed.hub.snapshots import SnapshotFinder
from marketfeed.hub.stream import LiveStream
from marketfeed.model.book_state import BookState
from marketfeed.model.rate import TokenBucket
from marketfeed.model.sequence import new_reader
from marketfeed.model.streams import BadStreamName, StreamKinds, StreamName
from marketfeed.runtime.logs import Log
from marketfeed.wire.messages import GapReason

__all__ = ["Fanout", "HubLimits", "Upstream"]

_REFUSAL_LINES = 100
"""Refused streams that are logged one after the other, before it is one a second: which they are, clients say."""


class HubLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub is told by the operator; see the options of the same names."""

    channel_prefix: str
    strict: bool
    max_payload: int
    max_distinct_streams: int
    max_book_levels: int
    linger: float
    history: int
    history_seconds: float
    history_bytes: int


class Fanout(Protocol):
    """Who is in which groups, and what is on its way to them."""

    def flush(self) -> None:
        """Send what is pending."""

    def hasten(self, streams: Iterable[LiveStream]) -> None:
        """Send what is pending, and what waits for its time in the windows of `streams`."""

    def catch_up(self, streams: Iterable[LiveStream]) -> None:
        """Let those of `streams` that are made of books be as new as these are."""

    def change(self, subscriber: Subscriber, join: Collection[Group]) -> None:
        """Put a client into groups, whose streams are held for it."""

    def push(self, stream: LiveStream, snapshot: bytes) -> None:
        """Publish a state to those who want states."""

    def has_missed(self, stream: LiveStream, since: float, now: float) -> None:
        """Something is missing in `stream` between these times, in s since 1970: say so, behind what is pending."""

    def forget(self, stream: LiveStream) -> None:
        """Keep nothing of this stream, which is wanted no longer."""


class Upstream:
    """The source as it is known here, and all the streams that it is asked for. `now`: s since 1970."""

    log = Log()

    def __init__(
        self, clock: Clock, limits: HubLimits, now: Callable[[], float], kinds: StreamKinds, fanout: Fanout
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._now = now
        self._kinds = kinds
        self._fanout = fanout
        self._kept: set[str] = set()
        self._refusal_lines = TokenBucket(1, _REFUSAL_LINES, clock.seconds())
        self.histories = Histories(limits.history, limits.history_seconds, limits.history_bytes)
        self.drops = Drops(clock, limits.strict)
        self.faults = Faults(clock)
        self.counts = HubCounts([kind.name for kind in kinds if not kind.made_from])
        self.gaps = Gaps(self.faults, self.counts.gaps)
        self.derivations = Derivations(self.gaps, self.drops)
        self.outages = Outages()
        self.readiness = Readiness(clock, now)
        self.registry = StreamRegistry(clock, limits.linger, limits.max_distinct_streams, self)
        self.facts = MarketFacts(self.registry.find)
        self.silence = Silence(kinds, lambda: self.registry.all, self.gaps, fanout, now)
        self.absence = Absence(lambda: self.registry.all, self.gaps, fanout)
        self.is_reached = False
        self.arrived: list[str] = []
        """The streams that have come as far as their seeds since the last flush."""
        self.archive: Archive | None = None
        self.source: Source
        self.finder: SnapshotFinder

    def feed_from(self, source: Source) -> None:
        """See `Hub.feed_from`."""
        self.source, self.archive = source, source.archive
        self.finder = SnapshotFinder(self._clock, source.snapshots, self)

    # What the registry asks for, as it begins to have a stream, and has it no longer.

    def make(self, name: StreamName, key: str) -> LiveStream:
        """A stream that is not wanted yet; `key` is its canonical name."""
        reader = new_reader(name, (key, self._limits.channel_prefix + key), self._limits.max_payload)
        counts = self.counts.of(name.kind.name)
        if name.kind.from_book is not None:
            return DerivedStream(key, reader, name.kind, NoHistory(self.histories), counts)
        history = CountedHistory if self.archive is None or name.kind.from_candles else EntryHistory
        stream = LiveStream(key, reader, name.kind, history(self.histories), counts)
        stream.statistics = self.facts
        if isinstance(stream.state, BookState):
            stream.state.reader = reader
            stream.state.numbers = partial(self._number, stream.history)
            stream.state.reached = partial(self.arrived.append, key)
            stream.state.lost = partial(self._book_lost, key)
            stream.state.max_levels = self._limits.max_book_levels
            stream.state.too_large = partial(self.drops.too_many_levels, key, self._limits.max_book_levels)
        return stream

    def _book_lost(self, key: str) -> None:
        """Whoever has found that out: what is made of it is to be looked at."""
        stream = self.registry.find(key)
        if stream is not None:
            self.derivations.touch(stream)

    def _number(self, history: History, seeded: int | None) -> int:
        return history.number(self._now(), seeded)

    def want(self, stream: LiveStream) -> None:
        if isinstance(stream, DerivedStream):
            self.derivations.attach(stream, self.registry.hold(self._base_of(stream)))
            return
        down_since = self.source.want(stream.name)
        if down_since is not None:
            stream.lose(down_since)

    def unwant(self, stream: LiveStream) -> None:
        stream.history.close()
        if isinstance(stream.state, BookState):
            stream.state.replaced = None  # a view of the stream, which has the state in turn
        self.gaps.forget(stream)
        self._fanout.forget(stream)
        if isinstance(stream, DerivedStream):
            self.registry.release(self.derivations.detach(stream), lingers=False)
            return
        self.finder.forget(stream)
        self.source.unwant(stream.name)

    def _base_of(self, stream: DerivedStream) -> StreamName:
        """What it is made of."""
        assert stream.kind.from_book is not None
        return self._kinds.parse(f"{stream.kind.from_book.of}@{stream.name.partition('@')[2]}")

    # What the source says, as `Sink` has it.

    def confirmed(self, name: str, after: str | None) -> None:
        self.is_reached = True
        stream = self.registry.find(name)
        if stream is None:
            return
        now = self._now()
        if stream.confirmed:
            if not stream.history.skips(after):
                return
            self._fanout.has_missed(stream, stream.heard, now)
            if self.registry.find(name) is not stream:
                return
        gap = stream.confirm(now, after)
        if gap is not None:
            self.gaps.closed(stream, gap)
        for each in stream.derived:
            gap = each.confirm(now, None)
            if gap is not None:
                self.gaps.closed(each, gap)
        self.derivations.touch(stream)
        if (self.silence.takes(stream) or self.absence.takes(stream)) and stream.gap is not None:
            silent = [stream, *[each for each in stream.derived if each.fall_silent(*stream.gap)]]
            self._fanout.hasten(silent)
            self.gaps.opened(silent)
            if self.registry.find(name) is not stream:
                return
        self.finder.look_for(stream)
        self._settled(stream)

    def missed(self, name: str, seconds: float) -> None:
        stream = self.registry.find(name)
        if stream is None or not stream.confirmed:
            return
        now = self._now()
        self._fanout.has_missed(stream, min(stream.heard, now - seconds), now)
        stream.miss(now)
        self.derivations.touch(stream)
        self.look_for(stream)

    def refused(self, name: str, why: str) -> None:
        stream = self.registry.find(name)
        if stream is None:
            return
        if self._refusal_lines.take(self._clock.seconds()):
            self.log.error("the source refuses {stream}: {why}", stream=name, why=why)
        family = [stream, *stream.derived]
        if stream.gap is None or stream.gap[0] != GapReason.SOURCE_REFUSED:
            self._fanout.hasten(family)
        now = int(self._now() * 1000)
        self.gaps.opened([each for each in family if each.refuse(now)])
        self.derivations.touch(stream)
        self.finder.forget(stream)
        self._settled(stream)

    def _settled(self, stream: LiveStream) -> None:
        """It has become known of a stream, and of what is made of it, whether it flows, or its state was looked for."""
        self.readiness.settled(stream)
        for each in list(stream.derived):
            self.readiness.settled(each)

    def speaks(self, stream: LiveStream) -> None:
        """A stream that has a gap is about to publish."""
        if stream.kind.from_candles:
            self.absence.end()
        else:
            self.silence.end(stream.kind.name)

    def reached(self, link: str) -> None:
        self.outages.over(link, int(self._now() * 1000))
        self.is_reached = True

    def lost(self, since: int, names: Collection[str], link: str) -> None:
        streams = [stream for stream in map(self.registry.find, names) if stream is not None]
        for stream in streams:
            self.finder.forget(stream)
        streams += [each for stream in streams for each in stream.derived]
        self._fanout.hasten(streams)
        told = self.gaps.opened([stream for stream in streams if stream.lose(since)])
        if link:
            self.outages.lost(link, since, told)
        for stream in streams:
            self.derivations.touch(stream)
        for stream in [stream for stream in streams if self.readiness.is_awaited(stream)]:
            self.readiness.settled(stream)

    def discovered(self, name: str) -> None:
        if name in self._kept:
            return
        try:
            parsed = self._kinds.parse(name)
        except BadStreamName:
            return  # a channel that is none of ours
        kept = self.registry.hold_if_room(parsed.source) if str(parsed) == name else None
        if kept is not None:
            kept.keep()
            self._kept.add(name)

    # The states.

    def look_for(self, stream: LiveStream) -> None:
        """Look for its state, unless what was sent before has ended its last client, and with it the stream."""
        if self.registry.find(stream.name) is stream:
            self.finder.look_for(stream)

    def has_sought(self, stream: LiveStream, is_found: bool) -> None:
        if is_found:
            self._push_state(stream)
            self._fanout.flush()
        self._settled(stream)

    def push_arrived(self) -> None:
        """Some streams have come as far as their seeds."""
        arrived, self.arrived[:] = self.arrived[:], ()
        for name in arrived:
            stream = self.registry.find(name)
            if stream is not None and self.finder.is_awaited(stream):
                self._push_state(stream)

    def _push_state(self, stream: LiveStream) -> None:
        """A seed has completed the state. It is for those who are in already, too: they have been told of a gap."""
        snapshot = stream.completed()
        if snapshot is not None:
            self._fanout.push(stream, snapshot)
