"""Subscriptions and fan-out: who watches which stream, and one publication on its way to all of them.

1. A stream is wanted from the source while somebody holds it (`wanted`). Its subscribers form groups, one for each
   spelling and shape; a publication is framed once per group (`groups`).
2. Publications wait in their groups until `flush`, then each client gets all of them in one write (`fanout`). Within a
   stream the order is the order of arrival.
3. Whatever joins or leaves flushes first; then, in one call, the membership is changed and the answer written
   (`joins`).
4. What is published is kept for those who come later: history and state of a stream are as new as its last publication.
5. What may be missing is said before what comes behind it (`gaps`).
6. One client's failure ends that client only, and a publication that fails is a gap of its own stream. Nothing here
   raises into a source because of either.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import count

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Answers, Archive, Clock, Entry, NoBook, Snapshots, Source, Subscriber
from marketfeed.hub.drops import Drops
from marketfeed.hub.fanout import send_group, send_groups
from marketfeed.hub.gaps import Gaps
from marketfeed.hub.groups import Audiences, Group, Shared, end_faulty, is_member
from marketfeed.hub.history import CountedHistory, EntryHistory, Histories, History
from marketfeed.hub.join import Join
from marketfeed.hub.portions import Portions, Work
from marketfeed.hub.queries import Queries
from marketfeed.hub.readiness import Readiness
from marketfeed.hub.registry import StreamRegistry
from marketfeed.hub.shares import keep, pay
from marketfeed.hub.snapshots import SnapshotFinder
from marketfeed.hub.stream import LiveStream
from marketfeed.hub.subscribe import Subscriptions
from marketfeed.model.publications import BadPublication, PublicationReader
from marketfeed.model.rate import TokenBucket
from marketfeed.model.sequence import NumberedReader
from marketfeed.model.state import MAX_LEVELS, BookState
from marketfeed.model.streams import BadStreamName, StreamKinds, StreamName
from marketfeed.runtime.logs import Log
from marketfeed.wire.dialects import Shape
from marketfeed.wire.messages import GapReason

__all__ = ["Hub", "HubLimits"]

_REFUSAL_LINES = 100
"""Refused streams that are logged one after the other, before it is one a second: which they are, clients say."""
_SWEEP_SECONDS = 1.0


class HubLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub is told by the operator; see the options of the same names."""

    channel_prefix: str = ""
    strict: bool = True
    max_payload: int = 262144
    max_distinct_streams: int = 50000
    max_book_levels: int = MAX_LEVELS
    linger: float = 5.0
    history: int = 1000
    history_seconds: float = 300.0
    history_bytes: int = 268435456


class Hub(Service):
    """Brings publications from the source to the subscribers. It is the source's `Sink`."""

    log = Log()

    def __init__(
        self,
        clock: Clock,
        limits: HubLimits,
        now: Callable[[], float] = time.time,
        kinds: StreamKinds | None = None,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._now = now
        self._kinds = kinds or StreamKinds()
        self._histories = Histories(limits.history, limits.history_seconds, limits.history_bytes)
        self._epoch = secrets.token_hex(4)
        self._epochs = count()
        self._archive: Archive | None = None
        self._finder: SnapshotFinder | None = None
        self._registry = StreamRegistry(clock, limits.linger, limits.max_distinct_streams, self._make, self._dropped)
        self._readiness = Readiness(clock, self._now_ms)
        self.portions = Portions(clock)
        """What clients have asked for and takes more than a turn."""
        self._subscriptions = Subscriptions(
            clock, self._registry, self._readiness, self._change, self.flush, self.portions, limits.strict
        )
        self._queries = Queries(clock, self._registry, self._make, limits.strict)
        self._drops = Drops(clock, limits.strict)
        self._gaps = Gaps()
        self._audiences = Audiences()
        self._dirty: list[Group] = []
        self._flushed: list[Group] = []
        self._reached: list[str] = []  # the streams that have come as far as their seeds since the last flush
        self._kept: set[str] = set()
        self._down_since: int | None = None
        self._refusal_lines = TokenBucket(1, _REFUSAL_LINES, clock.seconds())
        self._expiring: Work | None = None
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = clock
        self.source_reached = False
        self.published = 0
        self.delivered = 0
        self.drops = self._drops.counts

    def feed_from(self, source: Source, archive: Archive | None = None, snapshots: Snapshots | None = None) -> None:
        """Say where publications come from, their past, and their states. Called once, before the first client."""
        self._registry.source = source
        self._archive = self._subscriptions.archive = self._queries.archive = archive
        if snapshots is not None:
            self._finder = SnapshotFinder(self._clock, snapshots, self._seeded)

    def startService(self) -> None:
        Service.startService(self)
        self._registry.open()
        self._sweeper.start(_SWEEP_SECONDS, now=False)

    def stopService(self) -> None:
        Service.stopService(self)
        self._queries.close()
        if self._sweeper.running:
            self._sweeper.stop()
        self.portions.close()
        self._subscriptions.close()
        self._readiness.close(self._registry.all)
        self._registry.close()
        self._drops.close()

    @property
    def streams(self) -> frozenset[str]:
        """The streams that have clients at this moment, or are kept ready."""
        return self._registry.in_use

    # Joining and leaving.

    def join(
        self,
        subscriber: Subscriber,
        shape: Shape,
        streams: Mapping[str, StreamName],
        answers: Answers,
        *,
        since: Mapping[str, str] | None = None,
        wants_state: bool = False,
    ) -> Join:
        """See `HubPort`. Raises `TooManyStreams`."""
        join = Join(subscriber, shape, answers, since or {}, wants_state)
        self._subscriptions.begin(join, streams)
        return join

    def cancel(self, join: Join) -> None:
        """The client of an unfinished join is gone."""
        self._subscriptions.cancel(join)

    def unsubscribe(self, subscriber: Subscriber, groups: Iterable[Group]) -> None:
        """Take `subscriber` out of `groups`: once this returns, nothing more of their streams reaches it."""
        self.flush()
        left = list(groups)
        subscriber.forget(left)
        self._change(subscriber, (), left)

    def leave(self, subscriber: Subscriber, groups: Iterable[Group]) -> None:
        """The client is gone, or about to be closed."""
        self._change(subscriber, (), groups)

    def reshape(self, subscriber: Subscriber, groups: Iterable[Group], shape: Shape) -> dict[str, Group]:
        """Let `subscriber` get the same streams in another shape; returns its groups by spelling."""
        self.flush()
        moved, left = {}, []
        for group in groups:
            if not is_member(subscriber, group):
                continue  # the flush has ended this client
            other = group.stream.group(group.spelling, shape, group.window, group.wants_state)
            moved[group.spelling] = other
            if other is not group:
                group.stream.holders += 1
                left.append(group)
        self._change(subscriber, moved.values(), left)
        return moved

    def _change(self, subscriber: Subscriber, join: Collection[Group], leave: Iterable[Group] = ()) -> None:
        left = self._audiences.change(subscriber, join, leave)
        for group in left:
            if not group.audiences:
                del group.stream.groups[group.key]
        for group in join:
            if group.stream.payer is None:  # as who paid left, this client was not in it yet
                pay(group.stream, subscriber)
        self._registry.release_all([group.stream for group in left], subscriber)

    # What was, and what is.

    def history(self, name: StreamName, limit: int, max_bytes: int) -> Deferred[list[Entry] | None]:
        """The newest publications of a stream that are kept, oldest first: at most `limit`, of `max_bytes` in all.

        None: where they are kept is out of reach.
        """
        return self._queries.history(name, limit, max_bytes)

    def book(self, name: StreamName) -> Deferred[BookState | NoBook]:
        """The book of a depth stream, which is wanted for a while from now on; or why there is none after some seconds.

        Whoever does not want it any more cancels it.
        """
        return self._queries.book(name)

    # What the source says.

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        live = self._registry.find(stream)
        if live is None:
            return
        try:
            data = live.reader.read(payload)
        except BadPublication as bad:
            self._drops.count(live, bad)
            if self._limits.strict or bad.data is None:
                if offset is not None:
                    live.history.pass_over(offset)
                return
            data = bad.data
        except Exception:
            self._failed(live, offset)
            return
        try:
            self.published += 1
            now = self._now()
            history = live.history
            history.add(data, now, offset)
            record = live.record
            jumps = record is not None and record(data)
            if jumps and not live.was_lost:  # otherwise it is part of a gap that was told
                self._missed(live, now)
            live.heard = now
            live.was_lost = False
            shared: Shared | None = {} if len(live.groups) > 1 else None
            for group in live.groups.values():
                frame = group.framed(data, (group.has_offsets and history.latest) or "", shared)
                if not group.frames:
                    self._dirty.append(group)
                group.frames.append(frame)
            if jumps:
                self._look_for(live)
        except Exception:
            self._failed(live, offset)

    def flush(self) -> None:
        if self._gaps:
            self._gaps.tell_healed(self._now_ms())
        if self._reached:
            self._push_reached()
        dirty = self._dirty
        if not dirty:
            return
        self._dirty = []
        self._flushed = dirty
        for group in dirty:
            self.delivered += len(group.frames) * group.size
        slow = send_group(dirty[0]) if len(dirty) == 1 else send_groups(dirty)
        for subscriber in dict.fromkeys(slow):
            try:
                subscriber.overflow()
            except Exception:
                end_faulty(subscriber)

    def behind(self) -> list[Subscriber]:
        audiences = {audience for group in self._flushed for audience in group.audiences}
        return [member for each in audiences for member in each.members if not member.direct and member.is_behind]

    def confirmed(self, stream: str, after: str | None = None) -> None:
        self.reached()
        live = self._registry.find(stream)
        if live is None:
            return
        now = self._now()
        history = live.history
        if isinstance(history, EntryHistory) and after is not None and after != history.latest:
            if live.confirmed:
                self._missed(live, now)
                live.heard = now
                if self._registry.find(stream) is not live:
                    return  # what was sent before has ended its last client
            self._begin_anew(live, history, after)
        elif live.confirmed:
            return
        if isinstance(history, CountedHistory):
            history.new_epoch(self._new_epoch())
            live.was_lost = True
            if live.state is not None:  # it may have heard the end of an earlier subscription
                live.state.lose()
        live.confirmed = True
        if live.was_lost:  # otherwise what comes next follows the last publication
            live.heard = now
        self._gaps.heal(live)
        self._look_for(live)
        self._readiness.settled(live)

    def missed(self, stream: str, seconds: float) -> None:
        live = self._registry.find(stream)
        if live is None or not live.confirmed:
            return
        now = self._now()
        live.heard = min(live.heard, now - seconds)
        self._missed(live, now)
        live.heard = now
        if self._registry.find(stream) is live:  # or what was sent before has ended its last client
            if isinstance(live.history, EntryHistory):
                self._begin_anew(live, live.history, live.history.latest or "0-0")
                live.history.make_void()
            self._look_for(live)

    def refused(self, stream: str, why: str) -> None:
        live = self._registry.find(stream)
        if live is None:
            return
        if self._refusal_lines.take(self._clock.seconds()):
            self.log.error("the source refuses {stream}: {why}", stream=stream, why=why)
        if live.gap is None or live.gap[0] != GapReason.SOURCE_REFUSED:
            self.flush()
            since = live.gap[1] if live.gap is not None else self._now_ms()
            self._gaps.open([live], GapReason.SOURCE_REFUSED, since)
        self._flows_no_more(live)
        self._readiness.settled(live)

    def reached(self) -> None:
        self._down_since = None
        self.source_reached = True

    def lost(self, last_good: int | None) -> None:
        self.flush()
        if last_good is not None or self._down_since is None:  # or it is a further attempt in vain
            self._down_since = last_good if last_good is not None else self._now_ms()
        for stream in self._registry.all:
            self._flows_no_more(stream)
        opened = [stream for stream in self._registry.all if stream.gap is None]
        self._gaps.open(opened, GapReason.SOURCE_DOWN, self._down_since)
        for stream in [stream for stream in self._registry.all if stream.joins]:
            self._readiness.settled(stream)

    def discovered(self, stream: str) -> None:
        if stream in self._kept:
            return
        try:
            name = self._kinds.parse(stream)
        except BadStreamName:
            return  # a channel that is none of ours
        kept = self._registry.hold_if_room(name) if str(name) == stream else None
        if kept is not None:
            keep(kept)
            self._kept.add(stream)

    # What follows from it.

    def _make(self, name: StreamName) -> LiveStream:
        key = str(name)
        source = name, (key, self._limits.channel_prefix + key), self._limits.max_payload
        ids = name.kind.ids
        reader = PublicationReader(*source) if ids is None else NumberedReader(*source, field=ids)
        history: History = (
            CountedHistory(self._histories, self._new_epoch())
            if self._archive is None
            else EntryHistory(self._histories)
        )
        stream = LiveStream(key, reader, name.kind.loss, history, ids)
        if isinstance(stream.state, BookState):
            stream.state.reached = partial(self._reached.append, key)
            stream.state.max_levels = self._limits.max_book_levels
            stream.state.too_large = partial(self._drops.too_many_levels, key, self._limits.max_book_levels)
        if self._down_since is not None:
            stream.gap = (GapReason.SOURCE_DOWN, self._down_since)
        return stream

    def _dropped(self, stream: LiveStream) -> None:
        self._flushed = []  # its groups, perhaps, and they hold it
        stream.history.close()
        self._gaps.forget(stream)
        if self._finder is not None:
            self._finder.forget(stream)

    def _new_epoch(self) -> str:
        return f"{self._epoch}.{next(self._epochs):x}"

    @staticmethod
    def _begin_anew(stream: LiveStream, history: EntryHistory, after: str) -> None:
        """The source goes on elsewhere than behind the last publication."""
        history.reset(after)
        stream.was_lost = True
        if stream.state is not None:
            stream.state.lose()

    def _flows_no_more(self, stream: LiveStream) -> None:
        if stream.confirmed:
            stream.confirmed = False
            if stream.state is not None and self._archive is None:  # an archive says later what was missed
                stream.state.lose()
        if self._finder is not None:
            self._finder.forget(stream)

    def _failed(self, stream: LiveStream, offset: str | None) -> None:
        """A publication of `stream` has raised, which is being handled: some of its clients, at least, miss it."""
        self._drops.failed(stream)
        history = stream.history
        if isinstance(history, CountedHistory):
            history.new_epoch(self._new_epoch())
        elif offset is not None:
            history.reset(offset)
        if stream.state is not None:
            stream.state.lose()
        self._missed(stream, self._now())

    def _look_for(self, stream: LiveStream) -> None:
        """Look for its state, unless what was sent before has ended its last client, and with it the stream."""
        if self._finder is not None and self._registry.find(stream.name) is stream:
            self._finder.look_for(stream)

    def _missed(self, stream: LiveStream, now: float) -> None:
        """Something is missing in `stream`: say so before what is about to be published."""
        self.flush()
        self._gaps.missed(stream, int(stream.heard * 1000), int(now * 1000), self._clock.seconds())

    def _seeded(self, stream: LiveStream, is_found: bool) -> None:
        """The state was looked for."""
        if is_found:
            self._push_state(stream)
            self.flush()
        self._readiness.settled(stream)

    def _push_reached(self) -> None:
        """Some streams have come as far as their seeds."""
        reached, self._reached[:] = self._reached[:], ()
        for name in reached:
            stream = self._registry.find(name)
            if stream is not None and self._finder is not None and self._finder.is_awaited(stream):
                self._push_state(stream)

    def _push_state(self, stream: LiveStream) -> None:
        """A seed has completed the state. It is for those who are in already, too: they have been told of a gap."""
        snapshot = None if stream.state is None else stream.state.snapshot()
        if snapshot is None:
            return
        stream.was_lost = False  # what does not continue this state is news
        shared: Shared = {}
        for group in stream.groups.values():
            if group.wants_state:
                if not group.frames:
                    self._dirty.append(group)
                group.frames.append(group.framed(snapshot, stream.history.latest or "", shared))

    def _sweep(self) -> None:
        try:
            if self._expiring is None:
                self._expiring = self.portions.begin(self._expire())
            self._gaps.tell_missed(self._now_ms(), self._clock.seconds())
            if self._finder is not None:
                self._finder.look_again()
        except Exception:  # or it would be the last time
            self.log.failure("internal error")

    def _expire(self) -> Work:
        """Drop what is too old of what is kept: with many streams it is much."""
        try:
            yield from self._histories.expiring(self._now())
        finally:
            self._expiring = None

    def _now_ms(self) -> int:
        return int(self._now() * 1000)
