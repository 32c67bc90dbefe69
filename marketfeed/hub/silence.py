"""An engine that has fallen silent, while the source is as good as ever (docs/operations/data.md#a-silent-engine).

1. A kind is watched while streams of it flow, if its declaration says how long it may be silent.
2. It is silent when none of them has published for so long. All of them have a gap then, from the last publication on,
   or from when the first of them began to flow; and so has each that begins to flow while it lasts.
3. The next publication of any of them ends all these gaps, and goes behind their end.
4. Nothing has been missed: histories and states stay as they are.

Publications pay nothing for it: once a second somebody looks when the streams have published last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from marketfeed.hub.gaps import Gaps, Hastens
from marketfeed.hub.stream import LiveStream
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.logs import Log
from marketfeed.wire.messages import GapReason

__all__ = ["Silence"]

_LOOK_SECONDS = 1.0
_REASON = GapReason.ENGINE_SILENT


class _Watch(msgspec.Struct):
    """A kind of which streams flow; times in s since 1970. `since`: in ms, from when on it is silent, if it is."""

    last: float
    since: int | None = None


class Silence:
    """What is known of it, of all kinds. `streams`: those that are wanted at present; `now`: s since 1970."""

    log = Log()

    def __init__(
        self,
        kinds: StreamKinds,
        streams: Callable[[], Iterable[LiveStream]],
        gaps: Gaps,
        fanout: Hastens,
        now: Callable[[], float],
    ) -> None:
        self._kinds = kinds
        self._streams = streams
        self._gaps = gaps
        self._fanout = fanout
        self._now = now
        self._watches: dict[str, _Watch] = {}

    @property
    def kinds(self) -> dict[str, int]:
        """The kinds that are silent, and since when in ms since 1970."""
        return {name: watch.since for name, watch in self._watches.items() if watch.since is not None}

    def look(self) -> None:
        """Once a second: see who has published."""
        limits = {kind.name: kind.silence for kind in self._kinds if kind.silence}
        if not limits:
            return
        now = self._now()
        flowing = set()
        for stream in self._streams():
            name = stream.kind.name
            if name not in limits or not stream.confirmed:
                continue
            flowing.add(name)
            watch = self._watches.get(name)
            if watch is None:
                watch = self._watches[name] = _Watch(max(stream.heard, now - _LOOK_SECONDS))
            if stream.heard > watch.last and not stream.was_lost:  # it was heard publishing
                watch.last = stream.heard
            if now - watch.last < limits[name]:
                del limits[name]  # the others need not be looked at
                if not limits:
                    return
        for name, seconds in limits.items():
            if name not in flowing:
                self._watches.pop(name, None)
            elif self._watches[name].since is None:
                self._begin(name, self._watches[name], seconds)

    def takes(self, stream: LiveStream) -> bool:
        """`stream` flows now. Whether its kind is silent, so that it has a gap, which is to be told."""
        watch = self._watches.get(stream.kind.name)
        return watch is not None and watch.since is not None and stream.fall_silent(_REASON, watch.since)

    def end(self, name: str) -> None:
        """A stream of this kind that has a gap is about to publish."""
        watch = self._watches.get(name)
        if watch is None or watch.since is None:
            return  # the gap has another reason
        now = self._now()
        seconds = now - watch.since / 1000
        self.log.info("the engine publishes {kind} again, after {seconds:.0f} s", kind=name, seconds=seconds)
        watch.last, watch.since = now, None
        for stream in self._streams():
            gap = stream.speak(_REASON) if _is_of(stream, name) else None
            if gap is not None:
                self._gaps.closed(stream, gap)

    def _begin(self, name: str, watch: _Watch, seconds: float) -> None:
        watch.since = since = int(watch.last * 1000)
        silent = [stream for stream in self._streams() if _is_of(stream, name) and stream.fall_silent(_REASON, since)]
        line = "the engine is silent: nothing on any of {streams} streams of the kind {kind} for {seconds:g} s"
        self.log.warn(line, streams=len(silent), kind=name, seconds=seconds)
        self._fanout.hasten(silent)
        self._gaps.opened(silent)


def _is_of(stream: LiveStream, name: str) -> bool:
    """Whether it is of this kind, or made of one that is."""
    kind = stream.kind
    return kind.name == name or (kind.from_book is not None and kind.from_book.of == name)
