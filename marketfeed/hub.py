"""Subscriptions and fan-out: who watches which stream, and one publication on its way to all of them.

1. A stream is wanted from the source at its first subscriber, and unwanted when the last has been gone for the linger
   time. Its subscribers form groups, one for each spelling and shape; a publication is framed once per group.
2. Publications wait in their groups until `flush`, then each client gets all of them in one write. Within a stream
   the order is the order of arrival.
3. Whatever joins or leaves flushes first; then, in one call, the membership is changed and the answer written.
4. A client joins a stream when the source has confirmed it. Where that takes too long, or the source is out of reach,
   it joins all the same, and hears of a gap that is open. A gap is closed before the next publication.
5. One client's failure ends that client only. Nothing here raises into a source because of a client.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec
from twisted.application.service import Service

from marketfeed.boundaries import Clock, Source, Subscriber
from marketfeed.fanout import Audience, Audiences, Group, Join, LiveStream, is_member, send_group, send_groups
from marketfeed.logs import Log
from marketfeed.model.dialects import event_text
from marketfeed.model.frames import text_frame
from marketfeed.model.messages import Gap, GapReason
from marketfeed.model.publications import BadPublication, PublicationReader
from marketfeed.model.ratelimit import TokenBucket
from marketfeed.model.streams import StreamName

__all__ = ["CONFIRM_SECONDS", "Group", "Hub", "HubLimits", "Join", "TooManyStreams"]

CONFIRM_SECONDS = 5.0
"""How long a client waits for the source's confirmation before it is answered without (PROTOCOL.md, section 4)."""

_MOST_LINGERING = 4096
"""Streams without clients, or one client that names ever new ones could fill the memory with them."""
_DROP_LOG_SECONDS = 1.0
_REFUSAL_LINES = 100
"""Refused streams that are logged one after the other, before it is one a second: which they are, clients say."""


def _nothing() -> None:
    return None


class TooManyStreams(Exception):
    """The process has no room for another distinct stream."""


class HubLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub is told by the operator; see the options of the same names."""

    channel_prefix: str = ""
    strict: bool = True
    max_payload: int = 262144
    max_distinct_streams: int = 50000
    linger: float = 5.0


class Hub(Service):
    """Brings publications from the source to the subscribers. It is the source's `Sink`."""

    log = Log()

    def __init__(self, clock: Clock, limits: HubLimits, now: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._limits = limits
        self._now = now
        self._source: Source
        self._streams: dict[str, LiveStream] = {}
        self._in_use = 0
        self._audiences = Audiences()
        self._dirty: list[Group] = []
        self._healed: dict[LiveStream, tuple[str, int]] = {}
        self._down_since: int | None = None
        self._refusal_lines = TokenBucket(1, _REFUSAL_LINES, clock.seconds())
        self.source_reached = False
        self.published = 0
        self.delivered = 0
        self.drops: Counter[str] = Counter()

    def feed_from(self, source: Source) -> None:
        """Say where publications come from. Called once, before the first client."""
        self._source = source

    def stopService(self) -> None:
        Service.stopService(self)
        for stream in list(self._streams.values()):
            for join in list(stream.joins):
                self.cancel(join)
            if stream.linger is not None:
                self._drop(stream)

    @property
    def streams(self) -> frozenset[str]:
        """The streams that have clients at this moment."""
        return frozenset(name for name, stream in self._streams.items() if stream.holders)

    # Joining and leaving.

    def join(
        self,
        subscriber: Subscriber,
        enveloped: bool,
        streams: Mapping[str, StreamName],
        answer: Callable[[dict[str, Group]], None],
        settled: Callable[[], None] = _nothing,
    ) -> Join:
        """Let `subscriber` join `streams` (spelling → stream), all of them or none.

        `answer` is called with the groups (spelling → group) once publications flow, perhaps before this returns; it
        writes the reply. It may find that the flush before it has ended the client, who leaves these groups then.
        `settled` is called when the answer was later than this, and all that belongs to the join has been written.
        Raises `TooManyStreams`.
        """
        fresh = {name for name in map(str, streams.values()) if not self._is_in_use(name)}
        if self._in_use + len(fresh) > self._limits.max_distinct_streams:
            raise TooManyStreams
        join = Join(subscriber, enveloped, answer, settled, self._now_ms())
        for spelling, name in streams.items():
            stream = join.streams[spelling] = self._hold(name)
            if not stream.confirmed and stream.gap is None:
                stream.joins[join] = None
                join.missing[stream] = None
        if join.missing:
            join.timer = self._clock.callLater(CONFIRM_SECONDS, self._too_late, join)
        else:
            self._complete(join)
        return join

    def cancel(self, join: Join) -> None:
        """The client of an unfinished join is gone."""
        if not join.finished:
            self._finish(join)
            for stream in join.streams.values():
                self._release(stream)

    def unsubscribe(self, subscriber: Subscriber, groups: Iterable[Group]) -> None:
        """Take `subscriber` out of `groups`: once this returns, nothing more of their streams reaches it."""
        self.flush()
        left = list(groups)
        subscriber.forget(left)
        self._change(subscriber, (), left)

    def leave(self, subscriber: Subscriber, groups: Iterable[Group]) -> None:
        """The client is gone, or about to be closed."""
        self._change(subscriber, (), groups)

    def reshape(self, subscriber: Subscriber, groups: Iterable[Group], enveloped: bool) -> dict[str, Group]:
        """Let `subscriber` get the same streams in another shape; returns its groups by spelling."""
        self.flush()
        moved, left = {}, []
        for group in groups:
            if not is_member(subscriber, group):
                continue  # the flush has ended this client
            other = moved[group.spelling] = group.stream.group(group.spelling, enveloped, group.window)
            if other is not group:
                group.stream.holders += 1
                left.append(group)
        self._change(subscriber, moved.values(), left)
        return moved

    def _hold(self, name: StreamName) -> LiveStream:
        key = str(name)
        stream = self._streams.get(key)
        if stream is None:
            reader = PublicationReader(name, (key, self._limits.channel_prefix + key), self._limits.max_payload)
            stream = self._streams[key] = LiveStream(key, reader, name.kind.loss)
            if self._down_since is not None:
                stream.gap = (GapReason.SOURCE_DOWN, self._down_since)
            self.log.debug("wanted: {stream}", stream=key)
            self._source.want(key)
        if stream.holders == 0:
            self._in_use += 1
            if stream.linger is not None:
                stream.linger.cancel()
                stream.linger = None
        stream.holders += 1
        return stream

    def _release(self, stream: LiveStream) -> None:
        stream.holders -= 1
        if stream.holders:
            return
        self._in_use -= 1
        lingering = len(self._streams) - self._in_use  # this one among them
        has_room = lingering <= _MOST_LINGERING and len(self._streams) <= self._limits.max_distinct_streams
        if self.running and self._limits.linger and has_room:
            stream.linger = self._clock.callLater(self._limits.linger, self._drop, stream)
        else:
            self._drop(stream)

    def _drop(self, stream: LiveStream) -> None:
        if stream.linger is not None and stream.linger.active():
            stream.linger.cancel()
        stream.linger = None  # a call that has been made keeps its argument, this stream
        del self._streams[stream.name]
        self._healed.pop(stream, None)
        self.log.debug("wanted no longer: {stream}", stream=stream.name)
        self._source.unwant(stream.name)

    def _is_in_use(self, name: str) -> bool:
        stream = self._streams.get(name)
        return stream is not None and stream.holders > 0

    def _change(self, subscriber: Subscriber, join: Collection[Group], leave: Iterable[Group]) -> None:
        for group in self._audiences.change(subscriber, join, leave):
            stream = group.stream
            if not group.audiences:
                del stream.groups[group.spelling, group.enveloped, group.window]
            self._release(stream)

    def _complete(self, join: Join) -> None:
        self.flush()
        if join.finished:
            return  # the flush has ended this client
        was_waiting = join.timer is not None
        self._finish(join)
        subscriber = join.subscriber
        groups = {
            spelling: stream.group(spelling, join.enveloped, subscriber.window)
            for spelling, stream in join.streams.items()
        }
        self._change(subscriber, groups.values(), ())
        join.answer(groups)
        gaps: dict[tuple[str, int], list[str]] = {}
        for spelling, stream in join.streams.items():
            if stream.gap is not None:
                gaps.setdefault(stream.gap, []).append(spelling)
        for (reason, since), spellings in gaps.items():
            if is_member(subscriber, groups[spellings[0]]):  # not ended by what was written before
                subscriber.tell(_gap_frame(spellings, reason, since, None, join.enveloped))
        if was_waiting:
            join.settled()

    def _complete_late(self, join: Join) -> None:
        """Complete a join outside of its client's own request: a fault there is the end of that client only."""
        try:
            self._complete(join)
        except Exception:
            self.log.failure("a client failed as its subscription took effect")
            join.subscriber.failed()

    def _finish(self, join: Join) -> None:
        join.finished = True
        for stream in join.missing:
            stream.joins.pop(join, None)
        if join.timer is not None and join.timer.active():
            join.timer.cancel()
        join.timer = None

    def _too_late(self, join: Join) -> None:
        for stream in join.missing:
            if not stream.confirmed and stream.gap is None:
                stream.gap = (GapReason.SOURCE_DOWN, join.since)
        self.log.warn(
            "no confirmation within {seconds} s for {count} streams, {stream} among them",
            seconds=CONFIRM_SECONDS,
            count=len(join.missing),
            stream=next(iter(join.missing)).name,
        )
        self._complete_late(join)

    # What the source says.

    def publish(self, stream: str, payload: bytes) -> None:
        live = self._streams.get(stream)
        if live is None or not live.groups:
            return
        try:
            data = live.reader.read(payload)
        except BadPublication as bad:
            self._count_drop(live, bad)
            if self._limits.strict or bad.data is None:
                return
            data = bad.data
        self.published += 1
        for group in live.groups.values():
            if not group.frames:
                self._dirty.append(group)
            group.frames.append(group.framed(data))

    def flush(self) -> None:
        if self._healed:
            healed, self._healed = self._healed, {}
            self._announce(healed, self._now_ms())
        dirty = self._dirty
        if not dirty:
            return
        self._dirty = []
        for group in dirty:
            self.delivered += len(group.frames) * group.size
        slow = send_group(dirty[0]) if len(dirty) == 1 else send_groups(dirty)
        for subscriber in dict.fromkeys(slow):
            subscriber.overflow()

    def confirmed(self, stream: str) -> None:
        self._down_since = None
        self.source_reached = True
        live = self._streams.get(stream)
        if live is None or live.confirmed:
            return
        live.confirmed = True
        if live.gap is not None:
            self._healed[live] = live.gap
            live.gap = None
        self._stop_waiting(live)

    def refused(self, stream: str, why: str) -> None:
        live = self._streams.get(stream)
        if live is None:
            return
        if self._refusal_lines.take(self._clock.seconds()):
            self.log.error("the source refuses {stream}: {why}", stream=stream, why=why)
        live.confirmed = False
        if live.gap is None or live.gap[0] != GapReason.SOURCE_REFUSED:
            since = live.gap[1] if live.gap is not None else self._now_ms()
            live.gap = (GapReason.SOURCE_REFUSED, since)
            self.flush()
            self._announce({live: live.gap}, None)
        self._stop_waiting(live)

    def reached(self) -> None:
        self._down_since = None
        self.source_reached = True

    def lost(self, last_good: int | None) -> None:
        self.flush()
        if last_good is not None or self._down_since is None:  # or it is a further attempt in vain
            self._down_since = last_good if last_good is not None else self._now_ms()
        opened = {}
        for stream in self._streams.values():
            stream.confirmed = False
            if stream.gap is None:
                opened[stream] = stream.gap = (GapReason.SOURCE_DOWN, self._down_since)
        self._announce(opened, None)
        for stream in [stream for stream in self._streams.values() if stream.joins]:
            self._stop_waiting(stream)

    def _stop_waiting(self, stream: LiveStream) -> None:
        for join in list(stream.joins):
            join.missing.pop(stream, None)
            stream.joins.pop(join, None)
            if not join.missing:
                self._complete_late(join)

    def _count_drop(self, stream: LiveStream, bad: BadPublication) -> None:
        self.drops[bad.reason] += 1
        stream.drops += 1
        now = self._clock.seconds()
        if now - stream.drops_logged >= _DROP_LOG_SECONDS:
            self.log.warn(
                "bad publication on {stream}, {what}: {reason}: {fault} ({count} since the last such line)",
                stream=stream.name,
                what="dropped" if self._limits.strict or bad.data is None else "forwarded",
                reason=bad.reason,
                fault=bad.fault,
                count=stream.drops,
            )
            stream.drops = 0
            stream.drops_logged = now

    def _announce(self, gaps: Mapping[LiveStream, tuple[str, int]], until: int | None) -> None:
        """Tell every client of these streams, each in one event for all of its streams with the same beginning."""
        told: dict[tuple[Audience, str, int], list[Group]] = {}
        for stream, (reason, since) in gaps.items():
            for group in stream.groups.values():
                for audience in group.audiences:
                    told.setdefault((audience, reason, since), []).append(group)
        for (audience, reason, since), groups in told.items():
            spellings = [group.spelling for group in groups]
            frame = _gap_frame(spellings, reason, since, until, groups[0].enveloped)
            for member in list(audience.members):
                if member in audience.members:  # not ended by what was written before
                    member.tell(frame)

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _gap_frame(streams: list[str], reason: str, since: int, until: int | None, enveloped: bool) -> bytes:
    return text_frame(event_text(Gap(streams, reason, since, until), enveloped))
