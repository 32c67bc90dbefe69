"""One publication on its way to all who watch its stream, and what waits for the next flush. This is the hot path.

1. A publication is read once, kept once, and framed once for each group. One that is bad, or raises, changes nothing
   for any other.
2. What waits goes out in one flush, each client's share in one write. What is to be said before it has been put in
   front of it by then.
3. What is rarely due, the hub does (`Besides`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from marketfeed.boundaries import Subscriber
from marketfeed.hub.fanout import send_group, send_groups
from marketfeed.hub.flush_sampler import FlushSampler
from marketfeed.hub.groups import Group, Shared
from marketfeed.hub.stream import LiveStream
from marketfeed.hub.upstream import Upstream
from marketfeed.model.publications import BadPublication

__all__ = ["IS_COMPILED", "Besides", "Publishing"]

IS_COMPILED = not __file__.endswith(".py")
"""Whether this module is compiled, and with it all that are (tools/compiling.py)."""


class Besides(Protocol):
    """Who does what is due besides, of few publications."""

    def failed(self, stream: LiveStream, offset: str | None) -> None:
        """A publication of `stream` has raised, which is being handled."""

    def has_missed(self, stream: LiveStream, since: float, now: float) -> None:
        """Something is missing in `stream` between these times, in s since 1970: say so, behind what is pending."""

    def tell_over(self) -> None:
        """Some gaps are over."""

    def look_at_books(self) -> None:
        """Some books have changed of which something is made."""


class Publishing:
    """Takes what a source publishes, and sends it. `now`: s since 1970.

    `dirty`: the groups that have something to send; whoever gives a group something that had nothing adds it.
    """

    __slots__ = (
        "_besides", "_counts", "_derivations", "_faults", "_flushed", "_gaps", "_now", "_sampler", "_streams",
        "_traffic", "_upstream", "dirty",
    )  # fmt: skip

    def __init__(self, upstream: Upstream, sampler: FlushSampler, besides: Besides, now: Callable[[], float]) -> None:
        self._upstream = upstream
        self._sampler = sampler
        self._besides = besides
        self._now = now
        self._streams = upstream.registry.by_name
        self._gaps = upstream.gaps
        self._derivations = upstream.derivations
        self._faults = upstream.faults
        self._traffic = upstream.counts.traffic
        self.dirty: list[Group] = []
        self._flushed: list[Group] = []

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        """One publication, as `Sink` has it."""
        live = self._streams.get(stream)
        if live is None:
            return
        try:
            data = live.reader.read(payload)
        except BadPublication as bad:
            forwarded = self._upstream.drops.count(live, bad)
            if forwarded is None:
                if offset is not None:
                    live.history.pass_over(offset)
                return
            data = forwarded
        except Exception:
            self._besides.failed(live, offset)
            return
        try:
            if live.gap is not None:
                self._upstream.speaks(live)
            counts = live.counts
            counts.published += 1
            counts.last = now = self._now()
            history = live.history
            history.add(data, now, offset)
            record = live.record
            jumps = record is not None and record(data)
            if jumps and not (live.was_lost or live.gap):  # otherwise it is part of a gap that was told
                self._besides.has_missed(live, live.heard, now)
            live.heard = now
            live.was_lost = False
            groups = live.at_once
            shared: Shared | None = {} if len(groups) > 1 else None
            for group in groups:
                frame = group.published(data, (history.latest or "") if group.has_offsets else "", shared)
                if not group.frames:
                    self.dirty.append(group)
                group.frames.append(frame)
            if live.taps:
                for tap in live.taps.values():
                    tap.add(data, history.latest or "")
            if jumps:
                self._upstream.look_for(live)
        except Exception:
            self._besides.failed(live, offset)

    def flush(self) -> None:
        """Send what waits, behind what is to be said before it."""
        if self._gaps.over:
            self._besides.tell_over()
        if self._upstream.arrived:
            self._upstream.push_arrived()
        if self._derivations.touched:
            self._besides.look_at_books()
        dirty = self.dirty
        if not dirty:
            return
        self.dirty = []
        self._flushed = dirty
        first = dirty[0]
        sampler = self._sampler
        sample = sampler.begin(dirty) if first.stream.heard >= sampler.due else None
        traffic = self._traffic
        slow = (
            send_group(first, traffic, self._faults) if len(dirty) == 1 else send_groups(dirty, traffic, self._faults)
        )
        if sample is not None:
            sampler.end(sample)
        for subscriber in dict.fromkeys(slow):
            try:
                subscriber.overflow()
            except Exception:
                self._faults.end(subscriber)

    def behind(self) -> list[Subscriber]:
        """Clients of what was flushed last for whom much waits."""
        audiences = {audience for group in self._flushed for audience in group.audiences}
        return [member for each in audiences for member in each.members if not member.direct and member.is_behind]

    def forget_flushed(self) -> None:
        """Hold no group any more of what was flushed last."""
        self._flushed = []
