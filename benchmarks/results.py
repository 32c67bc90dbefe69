"""The results of a run of all benchmarks, as they are kept in results.json."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks.workloads import OURS
from marketfeed.commands.bench.report import BUSY, Report

__all__ = ["FIGURES", "Figure", "Range", "Results", "Run", "figures_of", "ratio"]


class Run(msgspec.Struct, frozen=True):
    """One server under one workload. `round_number`: from 1; within a round, the servers are measured in turn."""

    workload: str
    server: str
    round_number: int
    report: Report


class Results(msgspec.Struct, frozen=True):
    """`versions`, `machine`: name and text, in the order in which they are shown. `pinned`: each had a core."""

    date: str
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    seconds: float
    rounds: int
    pinned: bool
    runs: list[Run]

    def of(self, workload: str, server: str) -> list[Report]:
        """The reports of one server under one workload, by round."""
        found = [run for run in self.runs if (run.workload, run.server) == (workload, server)]
        return [run.report for run in sorted(found, key=lambda run: run.round_number)]

    def save(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Raises OSError and `msgspec.DecodeError`."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


class Figure(msgspec.Struct, frozen=True):
    """Something that is measured. `path`: where a report has it, if at all. `limited_by`: where a report has the
    share of its time for which the load generator was busy, if that can make the figure worse than it is."""

    title: str
    path: str
    more_is_better: bool = False
    limited_by: str | None = None

    def read(self, report: Report) -> float | None:
        """The figure, or None where this report has none."""
        return _at(report, self.path)

    def is_lower_bound(self, report: Report) -> bool:
        """The load generator had no time to spare, while the server did."""
        if self.limited_by is None or report.server is None:
            return False
        server = report.server.cpu
        if self.path == "connects_per_second":
            server = report.server.cpu_per_connect * report.connects_per_second / 1e6
        return (_at(report, self.limited_by) or 0.0) > BUSY > server


def _at(report: Report, path: str) -> float | None:
    value: Any = report
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return None if value is None else float(value)


FIGURES = {
    "clients": Figure("clients a core", "clients", True, "generator_busy"),
    "deliveries": Figure("deliveries/s", "deliveries_per_second", True, "generator_busy"),
    "published": Figure("publications/s", "published_per_second", True, "generator_busy"),
    "cpu": Figure("CPU µs per delivery", "server.cpu_per_delivery"),
    "p50": Figure("p50 ms", "latency_ms.p50"),
    "p99": Figure("p99 ms", "latency_ms.p99"),
    "p99_9": Figure("p99.9 ms", "latency_ms.p99_9"),
    "max": Figure("max ms", "latency_ms.max"),
    "memory": Figure("KiB per client", "server.resident_per_client"),
    "storm": Figure("s until the last is served", "storm_seconds"),
    "connect_cpu": Figure("CPU µs per handshake", "server.cpu_per_connect"),
    "connects": Figure("handshakes/s", "connects_per_second", True, "generator_busy_connecting"),
}


class Range(msgspec.Struct, frozen=True):
    """A figure over all rounds. `is_lower_bound`: it is one in most of them."""

    least: float
    median: float
    most: float
    is_lower_bound: bool


def figures_of(reports: list[Report], figure: Figure) -> Range | None:
    """None where no report has the figure."""
    values = [value for report in reports if (value := figure.read(report)) is not None]
    if not values:
        return None
    bounds = sum(figure.is_lower_bound(report) for report in reports)
    return Range(min(values), median(values), max(values), 2 * bounds > len(reports))


def ratio(results: Results, workload: str, server: str, figure: Figure) -> float | None:
    """Ours to that server's: the median of the rounds, because only what was measured in one round compares."""
    pairs = zip(results.of(workload, OURS), results.of(workload, server), strict=False)
    values = [(figure.read(ours), figure.read(theirs)) for ours, theirs in pairs]
    quotients = [ours / theirs for ours, theirs in values if ours is not None and theirs]
    return median(quotients) if quotients else None
