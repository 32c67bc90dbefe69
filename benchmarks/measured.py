"""What `benchmarks.scaling` has measured, as it is kept in scaling.json."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import msgspec

__all__ = ["Measured", "RedisMeasured", "Scaling"]


class Measured(msgspec.Struct, frozen=True):
    """One daemon under one load. What happens is by the second, `cpu` in cores, `connect_cpu` in µs for each client,
    latencies in ms, memory in KiB. `flushes`: sendings of what has come; `writes`: clients that each had something for,
    of all flushes; both are too low where several fall into a millisecond. `wakes`: how often it had had nothing to do
    and woke up. `disturbed`: the share of a core, its own or the other, that neither it nor the load had. `workers`:
    None where it was not asked for. The other two are None where an earlier version of the script measured.
    """

    load: str
    round_number: int
    workers: int | None
    cpu: float
    published: float
    deliveries: float
    bytes_sent: float
    flushes: float
    writes: float
    wakes: float | None
    disturbed: float | None
    p50: float | None
    p99: float | None
    generator_busy: float
    connect_cpu: float
    resident_before: int
    resident_connected: int
    is_faultless: bool


class RedisMeasured(msgspec.Struct, frozen=True):
    """The Redis-compatible server: what it took for each publication, in µs, of which so many bytes went to each of its
    subscribers. `at_once`: publications that came to it in one piece.
    """

    subscribers: int
    at_once: int
    cpu_per_publication: float
    bytes_each: float


class Scaling(msgspec.Struct, frozen=True):
    """All of it. `pinned`: the daemon had a core, everything else another."""

    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    pinned: bool
    runs: list[Measured]
    redis: list[RedisMeasured]

    def of(self, load: str, workers: int | None = None) -> list[Measured]:
        """The rounds of one load."""
        return [run for run in self.runs if (run.load, run.workers) == (load, workers)]

    def middle(self, load: str, workers: int | None = None) -> Measured | None:
        """Field by field the median of the rounds; None where there are none."""
        runs = self.of(load, workers)
        if not runs:
            return None
        first = runs[0]
        medians = {}
        for field in Measured.__struct_fields__:
            values = [value for run in runs if isinstance(value := getattr(run, field), int | float)]
            if values and not isinstance(values[0], bool):
                medians[field] = type(values[0])(median(values))
        medians |= {"round_number": 0, "is_faultless": all(run.is_faultless for run in runs)}
        return msgspec.structs.replace(first, **medians)

    def save(self, path: Path) -> None:
        lines = msgspec.json.format(msgspec.json.encode(self), indent=1).decode()
        path.write_text(lines + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Scaling:
        """Raises OSError and `msgspec.DecodeError`."""
        return msgspec.json.decode(path.read_bytes(), type=cls)
