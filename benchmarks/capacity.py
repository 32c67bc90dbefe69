"""How many clients a server can have: they are doubled while all is well, and then it is seen what is between. Pure."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.workloads import Climb
from marketfeed.commands.bench.report import Report

__all__ = ["is_well", "most_clients"]

_PRECISION = 1.1
"""How many clients are too many is known when it is less than so many times what is not."""
_KEPT_UP = 0.98
"""The share of the messages that were to be published below which the engine was held up, not the server asked."""


def is_well(report: Report, p99_ms: float, rate: float) -> bool:
    """Nobody missed anything, and of all that was published as fast as it should be 99 in 100 were in time."""
    latency = report.latency_ms
    if latency is None or not report.is_faultless or report.published_per_second < _KEPT_UP * rate:
        return False
    return latency.p99 <= p99_ms


def most_clients(measure: Callable[[int], Report], climb: Climb, rate: float) -> Report:
    """The report of the most clients with whom all was well; if there was none, that of one client.

    `measure`: a run with so many clients. `rate`: publications a second.
    """
    low, high, held = 0, climb.most + 1, None
    clients = min(climb.first, climb.most)
    while held is None or high > max(low * _PRECISION, low + 1):
        report = measure(clients)
        if is_well(report, climb.p99_ms, rate):
            low, held = clients, report
        elif clients == 1:
            return report
        else:
            high = clients
        clients = min(low * 2, climb.most) if low and high > climb.most else max((low + high) // 2, 1)
        if low == climb.most:
            break
    return held
