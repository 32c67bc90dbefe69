"""A discrete simulation of one daemon's turns: what has come meanwhile goes out together in the next flush. Pure.

1. While a turn lasts, publications pile up; the next turn takes all of them, as far as one read from Redis reaches. So
   a daemon that has more to do writes to each client less often, and costs less for each message: it gives way in
   latency long before it falls behind.
2. A turn takes the processor time that the model says, and nothing else runs on its core.
3. In a closed loop all messages of the window come again as soon as they have gone out.
4. Who watches what is as `marketfeed bench` deals it out, or drawn at random by a seed: the same at every run.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from benchmarks.cost import Cost, full_writes
from benchmarks.loads import Load
from marketfeed.commands.bench.crowd import share_out
from marketfeed.redis.link import READ_BYTES

__all__ = ["FRAME", "REDIS_FRAME", "Outcome", "Traffic", "bench_traffic", "popular_traffic", "run_node"]

FRAME = 33
"""Bytes that a publication's payload grows by until it is on the wire, with names like those of the benchmarks."""
REDIS_FRAME = 60
"""The same on its way from Redis."""


class Traffic(msgspec.Struct, frozen=True):
    """What one daemon has to do. `audiences`: by stream, the clients who watch it. `arrivals`: of each publication the
    time in seconds and the stream; None: a closed loop over `window` of them, over all streams in turn. `size`: bytes
    of a message on the wire; `levels`: of both sides of a book.
    """

    clients: int
    audiences: Sequence[Sequence[int]]
    size: float
    levels: int = 0
    arrivals: Sequence[tuple[float, int]] | None = None
    window: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """What is by the second, `cpu` in cores; latencies in ms from the arrival of a publication to the end of its flush,
    of every publication. `is_behind`: at the end more waited than a turn would take.
    """

    cpu: float
    published: float
    deliveries: float
    writes: float
    flushes: float
    p50: float
    p99: float
    is_behind: bool

    @property
    def cpu_per_delivery(self) -> float:
        """µs."""
        return self.cpu / self.deliveries * 1e6 if self.deliveries else 0.0


def bench_traffic(load: Load, size: float, seconds: float, together: float = 1.0) -> Traffic:
    """A load as `marketfeed bench` makes it: streams in turn, evenly in time, but so many together, on the average."""
    audiences: list[list[int]] = [[] for _ in range(load.streams)]
    for client in range(load.clients):
        for stream in share_out(client, load.per_client, load.streams):
            audiences[stream].append(client)
    arrivals = None
    if load.rate is not None:
        numbers = range(int(load.rate * seconds))
        arrivals = [(int(number / together) * together / load.rate, number % load.streams) for number in numbers]
    return Traffic(load.clients, audiences, size, 2 * load.levels, arrivals, load.window or 0)


def popular_traffic(
    clients: int, streams: int, per_client: int, rate: float, skew: float, payload: int, seconds: float, seed: int = 1
) -> Traffic:
    """Publications at random moments. The stream of rank k has a share of k^-skew of the publications, and the same of
    the clients' wishes; with a `skew` of 0 all are alike.
    """
    source = random.Random(seed)
    shares = list(accumulate(rank**-skew for rank in range(1, streams + 1)))
    audiences: list[list[int]] = [[] for _ in range(streams)]
    for client in range(clients):
        wanted: set[int] = set()
        while len(wanted) < min(per_client, streams):
            wanted.update(source.choices(range(streams), cum_weights=shares, k=per_client - len(wanted)))
        for stream in sorted(wanted):
            audiences[stream].append(client)
    count = int(rate * seconds)
    moments = sorted(source.random() * seconds for _ in range(count))
    chosen = source.choices(range(streams), cum_weights=shares, k=count)
    return Traffic(clients, audiences, payload + FRAME, arrivals=list(zip(moments, chosen, strict=True)))


def run_node(cost: Cost, traffic: Traffic, seconds: float) -> Outcome:
    """Let it turn for so long."""
    each = cost.delivery + cost.byte * traffic.size
    publication = cost.publication + cost.level * traffic.levels
    idle = (cost.second + cost.client * traffic.clients) / 1e6
    now = busy = 0.0
    published = deliveries = writes = flushes = 0
    late: list[float] = []
    inbox = _Inbox(traffic)
    while now < seconds and (batch := inbox.take(now)):
        reached, messages = _reached(traffic.audiences, batch)
        begun = max(now, batch[0][0])
        took = cost.flush + publication * len(batch) + cost.write * reached + each * messages
        took += cost.full * full_writes(reached, messages)
        took = (took + cost.wake_cpu((begun - now) * 1000)) / 1e6 / (1 - idle)
        now = begun + took
        busy += took
        published += len(batch)
        deliveries += messages
        writes += reached
        flushes += 1
        late += [now - moment for moment, _ in batch]
    lasted = now if traffic.arrivals is None else max(now, seconds)
    late.sort()
    return Outcome(
        cpu=busy * (1 - idle) / lasted + idle,
        published=published / lasted,
        deliveries=deliveries / lasted,
        writes=writes / lasted,
        flushes=flushes / lasted,
        p50=late[len(late) // 2] * 1000 if late else 0.0,
        p99=late[len(late) * 99 // 100] * 1000 if late else 0.0,
        is_behind=inbox.waiting(now) > inbox.most,
    )


class _Inbox:
    """What has come and not been taken. `most`: what a turn takes of it at most, which is one read from Redis."""

    def __init__(self, traffic: Traffic) -> None:
        self._arrivals = traffic.arrivals
        self._window = traffic.window
        self._streams = len(traffic.audiences)
        self._next = 0
        self.most = int(READ_BYTES / (traffic.size - FRAME + REDIS_FRAME))

    def take(self, now: float) -> Sequence[tuple[float, int]]:
        """What one turn takes that begins now, or as soon as there is something; nothing when no more comes."""
        first = self._next
        if self._arrivals is None:
            self._next += self._window
            return [(now, number % self._streams) for number in range(first, self._next)]
        begins = max(now, self._arrivals[first][0]) if first < len(self._arrivals) else now
        self._next = min(bisect_right(self._arrivals, begins, first, key=_moment), first + self.most)
        return self._arrivals[first : self._next]

    def waiting(self, now: float) -> int:
        """Publications that have come by now and were not taken."""
        return 0 if self._arrivals is None else bisect_right(self._arrivals, now, self._next, key=_moment) - self._next


def _moment(arrival: tuple[float, int]) -> float:
    return arrival[0]


def _reached(audiences: Sequence[Sequence[int]], batch: Sequence[tuple[float, int]]) -> tuple[int, int]:
    """How many clients a turn has something for, and how many messages."""
    times = Counter(stream for _, stream in batch)
    messages = sum(count * len(audiences[stream]) for stream, count in times.items())
    if len(times) == 1:
        return len(audiences[batch[0][1]]), messages
    return len(set().union(*(audiences[stream] for stream in times))), messages
