"""The streams that are wanted from the source, and for whose sake.

1. A stream is wanted at its first holder, and unwanted when the last has been gone for the linger time: the reload of a
   page does not flap the channel.
2. A stream that is kept ready has the operator for a holder, for good.
3. What lingers is bounded: one client that names ever new streams fills no memory.
4. No more streams have holders than is allowed. Room that is set aside for a stream is taken once, and is the stream's
   own as soon as it has a holder.
5. Many streams that are released at once are taken up a portion at a time, between which everybody else is served.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock, Subscriber, TooManyStreams
from marketfeed.hub.shares import Share
from marketfeed.hub.stream import LiveStream
from marketfeed.model.streams import StreamName
from marketfeed.runtime.logs import Log

if TYPE_CHECKING:
    from marketfeed.hub.upstream import Upstream

__all__ = ["StreamRegistry"]

_MOST_LINGERING = 4096
_PORTION = 100
"""Streams that are released in one turn of the reactor, of more than this."""


class StreamRegistry:
    """All streams of a process by name. `linger`: seconds; `max_distinct`: streams that may have holders."""

    log = Log()

    def __init__(self, clock: Clock, linger: float, max_distinct: int, upstream: Upstream) -> None:
        self._clock = clock
        self._linger = linger
        self.max_distinct = max_distinct
        self._upstream = upstream
        self._streams: dict[str, LiveStream] = {}
        self.find: Callable[[str], LiveStream | None] = self._streams.get
        """The stream of that name, if it is wanted: the dict's own method."""
        self._lingering: dict[LiveStream, float] = {}  # until when; all linger as long, so the oldest is first
        self._timer: IDelayedCall | None = None
        self._reserved: Counter[str] = Counter()  # names, as often as room was set aside for them
        self._fresh = 0  # of these, those that have no holder
        self._is_open = False
        self._released: deque[tuple[LiveStream, Subscriber]] = deque()
        self._turn: IDelayedCall | None = None

    def open(self) -> None:
        """From now on streams linger."""
        self._is_open = True

    def close(self) -> None:
        """Nothing lingers any more."""
        self._is_open = False
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._release_portion(len(self._released))
        for stream in list(self._lingering):
            self._drop(stream)
        self._set_timer()

    @property
    def by_name(self) -> dict[str, LiveStream]:
        """All of them, those that linger too, for reading: always this dict."""
        return self._streams

    @property
    def all(self) -> Iterable[LiveStream]:
        """All of them, those that linger too."""
        return self._streams.values()

    @property
    def in_use(self) -> frozenset[str]:
        """Those that have holders at this moment."""
        return frozenset(name for name, stream in self._streams.items() if stream.holders)

    @property
    def held(self) -> int:
        """How many have holders at this moment."""
        return len(self._streams) - len(self._lingering)

    def check(self, names: Collection[StreamName], share: Share | None) -> None:
        """Raises `TooManyStreams` unless all of `names` could be held, and those that nobody has be paid for."""
        if (
            share is not None
            and not share.has_room(len(names))
            and not share.has_room(self._count_unpaid(names, share))
        ):
            raise TooManyStreams(f"clients of one address may have {share.most} streams that nobody else has")
        room = self.max_distinct - len(self._streams) + len(self._lingering) - self._fresh
        if len(names) > room and self._count_fresh(names) > room:
            raise TooManyStreams("this server has no room for another one")

    def _count_fresh(self, names: Collection[StreamName]) -> int:
        """How many of `names` have no holder yet, nor room set aside."""
        return len({key for key in map(str, names) if key not in self._reserved and not self._has_holder(key)})

    def _count_unpaid(self, names: Collection[StreamName], share: Share) -> int:
        """How many of `names` nobody has yet, and are not set aside for this share."""
        return len({key for key in map(str, names) if not self._has_holder(key) and key not in share.reserved})

    def reserve(self, names: Collection[StreamName], share: Share | None = None) -> None:
        """Set room aside for all of `names`. Raises `TooManyStreams`, as `check` does."""
        self.check(names, share)
        self._fresh += self._count_fresh(names)
        self._reserved.update(map(str, names))
        if share is not None:
            share.reserved.update(
                [key for key in map(str, names) if key in share.reserved or not self._has_holder(key)]
            )

    def unreserve(self, name: StreamName, share: Share | None = None) -> None:
        """Give back what was set aside for one of the names."""
        key = str(name)
        if share is not None and key in share.reserved:
            share.reserved[key] -= 1
            if not share.reserved[key]:
                del share.reserved[key]
        self._reserved[key] -= 1
        if not self._reserved[key]:
            del self._reserved[key]
            self._fresh -= not self._has_holder(key)

    def _has_holder(self, key: str) -> bool:
        stream = self._streams.get(key)
        return stream is not None and stream.holders > 0

    def hold(self, name: StreamName, payer: Subscriber | None = None) -> LiveStream:
        """A stream, wanted from now on until it is released as often as it was held. `payer`: whose wish it is."""
        key = str(name)
        stream = self._streams.get(key)
        if self._reserved and key in self._reserved and not self._has_holder(key):
            self._fresh -= 1
        if stream is None:
            stream = self._streams[key] = self._upstream.make(name, key)
            self.log.debug("wanted: {stream}", stream=key)
            stream.hold(payer)
            self._upstream.want(stream)
            return stream
        if stream.holders == 0:
            del self._lingering[stream]
            if not self._lingering:
                self._set_timer()
        stream.hold(payer)
        return stream

    def hold_known(self, name: StreamName, payer: Subscriber) -> LiveStream | None:
        """The same, of a stream that has holders, so that nothing else comes of it; None: it has none."""
        stream = self._streams.get(str(name))
        if stream is None or not stream.holders:
            return None
        stream.hold(payer)
        return stream

    def hold_if_room(self, name: StreamName) -> LiveStream | None:
        """The same, by itself; None without the room."""
        try:
            self.check((name,), None)
        except TooManyStreams:
            return None
        return self.hold(name)

    def release(self, stream: LiveStream, payer: Subscriber | None = None, *, lingers: bool = True) -> None:
        """One holder less. `payer`: whose wish it was. `lingers`: it has not done so already for another one's sake."""
        if stream.release(payer):
            return
        if self._reserved and stream.name in self._reserved:
            self._fresh += 1
        self._lingering[stream] = self._clock.seconds() + self._linger
        has_room = len(self._lingering) <= _MOST_LINGERING and len(self._streams) <= self.max_distinct
        if not (self._is_open and self._linger and has_room and lingers):
            self._drop(stream)
        elif self._timer is None:
            self._timer = self._clock.callLater(self._linger, self._sweep)

    def release_all(self, streams: Sequence[LiveStream], payer: Subscriber) -> None:
        """One holder less for each of `streams`."""
        if len(streams) > _PORTION and self._is_open:
            self._released.extend([(stream, payer) for stream in streams])
            if self._turn is None:
                self._turn = self._clock.callLater(0, self._next_turn)
        else:
            for stream in streams:
                self.release(stream, payer)

    def _next_turn(self) -> None:
        self._turn = None
        self._release_portion(_PORTION)
        if self._released:
            self._turn = self._clock.callLater(0, self._next_turn)

    def _release_portion(self, most: int) -> None:
        for _ in range(min(most, len(self._released))):
            self.release(*self._released.popleft())

    def _sweep(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for stream, until in list(self._lingering.items()):
            if until > now:
                break
            self._drop(stream)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for until in self._lingering.values():
            self._timer = self._clock.callLater(max(0.0, until - self._clock.seconds()), self._sweep)
            break

    def _drop(self, stream: LiveStream) -> None:
        del self._lingering[stream]
        del self._streams[stream.name]
        self.log.debug("wanted no longer: {stream}", stream=stream.name)
        self._upstream.unwant(stream)
