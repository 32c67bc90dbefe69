"""How many clients a server carries: they are raised until latency passes what is still good. Pure.

1. Each step is a load test of its own. It holds if everything arrived once and in order, and 99 of 100 messages within
   `LATENCY_MS`. One that does not is done a second time, for a machine may have had something else to do.
2. Clients are doubled until a step does not hold, then the step between is tried until what holds and what does not are
   within a tenth of each other.
3. What was found is the last step that held. How busy everybody was is told of the step that did not: that is where
   it is seen who was at an end, the server or the load generator.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from marketfeed.commands.bench.report import Report

__all__ = ["LATENCY_MS", "climb", "holds"]

LATENCY_MS = 100.0
"""The most that p99 may be."""
_NEARNESS = 0.1
_FEWEST = 8
"""Where not even an eighth of the clients of the first step are carried, nobody looks closer."""


def holds(report: Report) -> bool:
    """Whether the clients of this step had what they should, in time."""
    latency = report.latency_ms
    return report.is_faultless and latency is not None and latency.p99 <= LATENCY_MS


def climb(measure: Callable[[int], Report], first: int, most: int) -> Report:
    """The report of the most clients that are carried, at most `most`; of none where even an eighth of `first` are too
    many. `measure`: the report of so many clients.
    """
    held: Report | None = None
    fallen: Report | None = None
    good, bad = 0, most + 1
    clients = min(first, most)
    fewest = max(clients // _FEWEST, 1)
    while True:
        report = measure(clients)
        if not holds(report):
            report = measure(clients)
        if holds(report):
            held, good = report, clients
        else:
            fallen, bad = report, clients
        if fallen is None:
            if good == most:
                break
            clients = min(2 * good, most)
            continue
        if bad - good <= max(good * _NEARNESS, 1) or bad <= fewest:
            break
        clients = (good + bad) // 2
    if held is None:
        assert fallen is not None
        return msgspec.structs.replace(fallen, clients=0)
    return held if fallen is None else _with_load_of(held, fallen)


def _with_load_of(held: Report, fallen: Report) -> Report:
    server = held.server
    if server is not None and fallen.server is not None:
        server = msgspec.structs.replace(server, cpu=fallen.server.cpu)
    return msgspec.structs.replace(held, generator_busy=fallen.generator_busy, server=server)
