"""The last quarter of an hour, a sample a second: what the status page draws, so that it is full at first sight.

1. A sample is a row of numbers. Rates are those of its second; what is a length of time is of what ended in it.
2. Each has a number, one more than the one before it. Whoever has some asks for those behind the last one.
3. The peak of what has a limit is since the start.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec
from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from marketfeed.api.metrics import Parts
from marketfeed.runtime.file_limit import open_files
from marketfeed.runtime.histogram import Histogram
from marketfeed.runtime.logs import Log
from marketfeed.runtime.memory import resident_memory

__all__ = ["KEPT", "Limit", "Sample", "Samples"]

KEPT = 900
_SECOND = 1.0


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One second. Sizes in bytes, times in s; None where there was nothing to measure. `at`: ms since 1970."""

    seq: int
    at: int
    clients: int
    streams: int
    publications: int
    deliveries: int
    engine_p50: float | None
    engine_p99: float | None
    fanout_p50: float | None
    fanout_p99: float | None
    loop_delay: float | None
    memory: int
    backlog: int
    backlogged: int
    history: int
    cpu: float
    bad: int
    dropped: int
    conflated: int
    gaps: int
    closes: int
    refusals: int
    reconnects: int


class Limit(msgspec.Struct, frozen=True):
    """What has a limit: the present number, the most that there were since the start, the most that may be, None for
    any number; and what raises it.
    """

    value: int
    peak: int
    limit: int | None
    option: str


class Samples(Service):
    """Takes a sample each second while it runs. `peaks`: the most that there was of what has a limit.

    `seq`: the number of the last one; where it begins with another than 0, others were taken in this place before.
    """

    log = Log()

    def __init__(
        self,
        parts: Parts,
        resident: Callable[[], int] = resident_memory,
        cpu_seconds: Callable[[], float] = time.process_time,
        files: Callable[[], int | None] = open_files,
        seq: int = 0,
    ) -> None:
        self._parts = parts
        self._resident = resident
        self._cpu_seconds = cpu_seconds
        self._open_files = files
        self._rows: deque[Sample] = deque(maxlen=KEPT)
        self._before = self._sums()
        counts = parts.hub.counts
        self._lags = _Changes(counts.engine_lag), _Changes(counts.fanout_lag), _Changes(parts.loop.delays)
        self._loop = LoopingCall(self._look)
        self._loop.clock = parts.clock
        self.seq = seq
        self.peaks = dict.fromkeys(("clients", "streams", "memory", "history", "files"), 0)

    def startService(self) -> None:
        Service.startService(self)
        self._loop.start(_SECOND, now=False)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._loop.running:
            self._loop.stop()

    @property
    def last(self) -> Sample | None:
        """The newest; None before there is one."""
        return self._rows[-1] if self._rows else None

    def since(self, seq: int) -> list[Sample]:
        """Those behind the one of this number, oldest first: all that there are, if it is unknown."""
        rows = self._rows
        behind = self.seq - seq
        if not 0 <= behind <= len(rows):
            behind = len(rows)
        return list(islice(rows, len(rows) - behind, None))

    def newest(self, seconds: int) -> list[Sample]:
        """Those of so many last seconds, oldest first."""
        begin = (self._parts.now() - seconds) * 1000
        return [sample for sample in self.since(max(0, self.seq - seconds)) if sample.at > begin]

    def limits(self) -> dict[str, Limit]:
        """What has a limit at this moment, by name."""
        parts, hub, last = self._parts, self._parts.hub, self.last
        memory = self._resident() if last is None else last.memory
        limits = {
            "clients": (len(parts.clients), parts.clients.max_connections, "--max-connections"),
            "streams": (hub.overview.streams_held, hub.limits.max_distinct_streams, "--max-distinct-streams"),
            "memory": (memory, parts.memory.limit or None, "--memory-limit"),
            "history": (hub.overview.history_bytes, hub.limits.history_bytes, "--history-bytes"),
        }
        files = self._open_files()
        if files is not None:
            limits["files"] = (files, parts.files, "LimitNOFILE, ulimit -n")
        return {
            name: Limit(value, max(value, self.peaks[name]), limit, option)
            for name, (value, limit, option) in limits.items()
        }

    def _look(self) -> None:
        try:
            self._take()
        except Exception:  # or it would be the last time
            self.log.failure("internal error")

    def _take(self) -> None:
        parts, hub = self._parts, self._parts.hub
        before, sums = self._before, self._sums()
        self._before = sums
        of_second = {name: value - before[name] for name, value in sums.items()}
        elapsed = max(of_second.pop("clock"), 0.001)
        engine, fanout, delays = [each.take() for each in self._lags]
        waiting = [each.waiting_bytes for each in hub.counts.traffic.backlogged]
        self.seq += 1
        sample = Sample(
            seq=self.seq,
            at=int(parts.now() * 1000),
            clients=len(parts.clients),
            streams=hub.overview.streams_held,
            engine_p50=engine(0.5),
            engine_p99=engine(0.99),
            fanout_p50=fanout(0.5),
            fanout_p99=fanout(0.99),
            loop_delay=delays(1.0),
            memory=self._resident(),
            backlog=sum(waiting),
            backlogged=len(waiting),
            history=hub.overview.history_bytes,
            cpu=of_second.pop("cpu") / elapsed,
            **{name: int(value) for name, value in of_second.items()},
        )
        self._rows.append(sample)
        for name, limit in self.limits().items():
            self.peaks[name] = limit.peak

    def _sums(self) -> dict[str, float]:
        """What only grows."""
        parts, counts = self._parts, self._parts.hub.counts
        return {
            "clock": parts.clock.seconds(),
            "cpu": self._cpu_seconds(),
            "publications": counts.published,
            "deliveries": counts.delivered,
            "bad": sum(parts.hub.drops.values()),
            "conflated": sum(each.conflated for each in counts.kinds.values()),
            "dropped": sum(sum(each.dropped.values()) for each in counts.kinds.values()),
            "gaps": sum(counts.gaps.values()),
            "closes": sum(parts.clients.closes.values()),
            "refusals": sum(parts.refusals.requests.values()),
            "reconnects": sum(link.reconnects for link in parts.links()),
        }


class _Changes:
    """What has come to a histogram since it was last looked at."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._before = histogram.counts

    def take(self) -> Callable[[float], float | None]:
        """A function of a share: the bound that so much of what has come does not exceed; None: nothing has come."""
        before, counts = self._before, self._histogram.counts
        self._before = counts
        bounds = self._histogram.bounds
        grown = [now - then for then, now in zip(before, counts, strict=True)]

        def quantile(share: float) -> float | None:
            if not grown[-1]:
                return None
            at = next(at for at, count in enumerate(grown) if count >= share * grown[-1])
            return bounds[min(at, len(bounds) - 1)]

        return quantile
