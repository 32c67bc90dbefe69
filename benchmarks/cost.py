"""The model of what one daemon costs: so much for each thing that happens, fitted to what was measured. Pure.

    CPU/s = wake·wakes·(1 - exp(-idle/cool)) + flush·flushes + publication·published + write·writes
            + full·writes·(1 - writes/deliveries) + delivery·deliveries + byte·bytes + level·levels
            + client·clients + second
    CPU of a client that comes = connect + subscription·its streams
    memory = resident + client·clients + subscription·subscriptions

1. The fit is by least squares of the errors in shares of what was measured, so that a small load counts like a large
   one; a load of less than `_SMALL` of a core counts less, because the clock of processes has steps of 10 ms.
2. No cost is below 0: what would be is left out, and the others are fitted anew.
3. A turn costs more the longer the process had nothing to do before it: caches have gone cold. `idle` is that time.
   `cool` is the one of a few that fits best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from benchmarks.loads import LOADS, Load
from benchmarks.measured import Measured, Scaling

__all__ = [
    "Cost",
    "Events",
    "RedisCost",
    "Residual",
    "events_of",
    "fit",
    "fit_redis",
    "residuals",
]

_SMALL = 0.05
_COOLS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Events(msgspec.Struct, frozen=True):
    """What happens in a second; `wakes`: turns before which there was nothing to do, for `idle` ms each; `clients`: who
    are there; `seconds`: 1.
    """

    wakes: float
    idle: float
    flushes: float
    published: float
    writes: float
    deliveries: float
    bytes_sent: float
    levels: float
    clients: float
    seconds: float = 1.0

    @property
    def full_writes(self) -> float:
        """All but the share that messages by themselves would have had."""
        return full_writes(self.writes, self.deliveries)


class Cost(msgspec.Struct, frozen=True):
    """What one of each takes, in µs of a processor: to wake up after much more than `cool` ms, a flush, a publication
    that comes, a write to one client, what one of many messages takes more than one of one, a message in it, a byte of
    that, a level of a book, a client that is there for a second, the process for a second; a client that comes, and
    each stream that it comes for. Memory in KiB: the process, a client, each of its streams.
    """

    wake: float
    cool: float
    flush: float
    publication: float
    write: float
    full: float
    delivery: float
    byte: float
    level: float
    client: float
    second: float
    connect: float
    subscription: float
    resident: float
    client_kib: float
    subscription_kib: float

    def cpu(self, events: Events) -> float:
        """Cores."""
        rest = sum(getattr(self, name) * getattr(events, event) for name, event in _CPU.items() if name != "wake")
        return (events.wakes * self.wake_cpu(events.idle) + rest) / 1e6

    def wake_cpu(self, idle: float) -> float:
        """µs of a turn before which there was nothing to do for `idle` ms."""
        return self.wake * coldness(idle, self.cool)

    def connect_cpu(self, per_client: float) -> float:
        """µs of a client that comes for so many streams."""
        return self.connect + self.subscription * per_client

    def memory(self, clients: float, per_client: float) -> float:
        """KiB."""
        return self.resident + clients * (self.client_kib + per_client * self.subscription_kib)


_CPU = {
    "wake": "wakes",
    "flush": "flushes",
    "publication": "published",
    "write": "writes",
    "full": "full_writes",
    "delivery": "deliveries",
    "byte": "bytes_sent",
    "level": "levels",
    "client": "clients",
    "second": "seconds",
}


class Residual(msgspec.Struct, frozen=True):
    """What the model says of a load beside what was measured, and the least and the most of the rounds, in cores."""

    load: Load
    measured: float
    least: float
    most: float
    model: float

    @property
    def error(self) -> float:
        """As a share of what was measured."""
        return self.model / self.measured - 1


class RedisCost(msgspec.Struct, frozen=True):
    """µs of a processor of the Redis-compatible server: a publication, and each subscriber of it."""

    publication: float
    subscriber: float

    def cpu(self, published: float, subscribers: float) -> float:
        """Cores, all shards together."""
        return published * (self.publication + self.subscriber * subscribers) / 1e6


def events_of(load: Load, run: Measured) -> Events:
    """What happened in a second of a run."""
    levels = run.published * 2 * load.levels
    flushes = run.wakes or 0.0 if load.wakes_for_each else run.flushes
    wakes = 0.0 if load.rate is None else flushes
    writes = flushes if load.wakes_for_each else run.writes
    idle = max(1 - run.cpu, 0.0) / wakes * 1000 if wakes else 0.0
    return Events(wakes, idle, flushes, run.published, writes, run.deliveries, run.bytes_sent, levels, load.clients)


def fit(scaling: Scaling) -> Cost:
    """The costs of what has been measured. Raises ValueError where a load is missing."""
    fitted = [(load, _middle(scaling, load)) for load in LOADS if not load.is_checked]
    cpu = _fit_cpu([(events_of(load, run), run.cpu) for load, run in fitted if load.publishes or load.seconds > 5])
    idle = [(load, run) for load, run in fitted if not load.publishes]
    connect, subscription = _not_negative(
        [[1.0, float(load.per_client)] for load, _ in idle],
        [run.connect_cpu for _, run in idle],
        [1 / run.connect_cpu for _, run in idle],
    )
    grown = [(run.resident_connected - run.resident_before) / load.clients for load, run in idle]
    client_kib, subscription_kib = _not_negative(
        [[1.0, float(load.per_client)] for load, _ in idle], grown, [1 / each for each in grown]
    )
    resident = float(np.median([run.resident_before for _, run in fitted]))
    memory = {"resident": resident, "client_kib": client_kib, "subscription_kib": subscription_kib}
    return Cost(**cpu, connect=connect, subscription=subscription, **memory)


def fit_redis(scaling: Scaling, at_once: int) -> RedisCost:
    """What publications cost that come so many at once. Raises ValueError where nothing of it has been measured."""
    runs = [run for run in scaling.redis if run.at_once == at_once]
    if not runs:
        raise ValueError(f"of {at_once} publications at once nothing has been measured")
    publication, subscriber = _not_negative(
        [[1.0, float(run.subscribers)] for run in runs],
        [run.cpu_per_publication for run in runs],
        [1 / run.cpu_per_publication for run in runs],
    )
    return RedisCost(publication, subscriber)


def residuals(scaling: Scaling, cost: Cost) -> list[Residual]:
    """The loads that the model is fitted to, by what it says of each."""
    found = []
    for load in LOADS:
        run = scaling.middle(load.key)
        if run is not None and load.publishes and not load.is_checked:
            rounds = [each.cpu for each in scaling.of(load.key)]
            found.append(Residual(load, run.cpu, min(rounds), max(rounds), cost.cpu(events_of(load, run))))
    return found


def _middle(scaling: Scaling, load: Load) -> Measured:
    run = scaling.middle(load.key)
    if run is None:
        raise ValueError(f"the load {load.key} has not been measured")
    return run


def _fit_cpu(measured: Sequence[tuple[Events, float]]) -> dict[str, float]:
    """The costs of what happens, and `cool`."""
    wanted = [cpu * 1e6 for _, cpu in measured]
    weights = [1 / max(cpu, _SMALL) for _, cpu in measured]
    best: dict[str, float] = {}
    least = math.inf
    for cool in _COOLS:
        rows = [
            [
                getattr(events, event) * (coldness(events.idle, cool) if name == "wake" else 1.0)
                for name, event in _CPU.items()
            ]
            for events, _ in measured
        ]
        found = _not_negative(rows, wanted, weights)
        errors = np.array(weights) * (np.array(rows) @ np.array(found) - np.array(wanted))
        if (size := float(errors @ errors)) < least:
            least, best = size, {**dict(zip(_CPU, found, strict=True)), "cool": cool}
    return best


def full_writes(writes: float, deliveries: float) -> float:
    """None of those with one message each, and nearly all of those with many."""
    return writes * (1 - writes / deliveries) if deliveries else 0.0


def coldness(idle: float, cool: float) -> float:
    """How much of what it may cost to wake up it costs after `idle` ms."""
    return -math.expm1(-idle / cool)


def _not_negative(
    rows: Sequence[Sequence[float]], measured: Sequence[float], weights: Sequence[float]
) -> Sequence[float]:
    """The least squares of the weighted errors, with no coefficient below 0."""
    scale = np.array(weights)
    matrix, wanted = np.array(rows) * scale[:, None], np.array(measured) * scale
    kept = [column for column in range(matrix.shape[1]) if matrix[:, column].any()]
    found: Mapping[int, float] = {}
    while kept:
        size = np.linalg.norm(matrix[:, kept], axis=0)  # or columns of large numbers would drown the others
        solved, *_ = np.linalg.lstsq(matrix[:, kept] / size, wanted, rcond=None)
        found = dict(zip(kept, (solved / size).tolist(), strict=True))
        worst = min(kept, key=lambda column: found[column] * size[kept.index(column)])
        if found[worst] >= 0:
            break
        kept.remove(worst)
    return [found.get(column, 0.0) if column in kept else 0.0 for column in range(matrix.shape[1])]
