"""What the simulation of one daemon says of the loads that it knows nothing of, beside what was measured. Pure."""

from __future__ import annotations

import msgspec

from benchmarks.cost import Cost
from benchmarks.loads import LOADS, Load
from benchmarks.measured import Measured, Scaling
from benchmarks.node import Outcome, bench_traffic, run_node

__all__ = ["TOLERANCE", "Forecast", "forecast", "forecasts"]

TOLERANCE = 0.25
"""The error of a forecast of the processor time of a delivery up to which the simulation is held to be right."""
_SECONDS = 2.0
_COUNTED = 200
"""Clients of a flush for which it takes longer than a millisecond, so that the daemon counts all of them."""


class Forecast(msgspec.Struct, frozen=True):
    load: Load
    measured: Measured
    simulated: Outcome

    @property
    def measured_cpu(self) -> float:
        """µs of a delivery."""
        return self.measured.cpu / self.measured.deliveries * 1e6

    @property
    def error(self) -> float:
        """Of that, as a share of what was measured."""
        return self.simulated.cpu_per_delivery / self.measured_cpu - 1


def forecast(cost: Cost, load: Load, measured: Measured) -> Forecast:
    """One load. What depends on those who make the load is as it was measured: the bytes of a message, and how many
    publications come together, because their one core publishes nothing while it reads.
    """
    is_counted = measured.writes >= _COUNTED * measured.flushes
    turns = measured.flushes if is_counted else max(measured.wakes or 0.0, measured.flushes)
    together = max(measured.published / turns, 1.0)
    if load.window is not None and is_counted:
        load = msgspec.structs.replace(load, window=round(together))
    traffic = bench_traffic(load, measured.bytes_sent / measured.deliveries, _SECONDS, together)
    return Forecast(load, measured, run_node(cost, traffic, _SECONDS))


def forecasts(scaling: Scaling, cost: Cost) -> list[Forecast]:
    """All loads that the model is not fitted to."""
    checked = [(load, scaling.middle(load.key)) for load in LOADS if load.is_checked]
    return [forecast(cost, load, measured) for load, measured in checked if measured is not None]
