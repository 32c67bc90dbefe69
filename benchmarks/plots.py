"""The findings as the plots of docs/scaling.md, in SVG. The same findings make the same bytes, of one matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cost import Cost
from benchmarks.loads import LOADS, Load
from benchmarks.node import Outcome, bench_traffic, run_node
from benchmarks.plan import Plan, node_of
from benchmarks.scaling_tables import Findings
from benchmarks.storms import SCENARIOS

__all__ = ["draw"]

_SIZE = 143.0  # bytes of a message of the hot stream
_RATES = (5, 10, 20, 40, 80, 120, 160, 200, 300, 400, 600, 1000, 2000, 3000)
_SHOWN = ("loss-documented", "narrow-naive", "narrow-documented", "narrow-spread", "drain-hint", "short-hint")
_STORM_SECONDS = 60
_STYLE = {
    "svg.hashsalt": "marketfeed",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(findings: Findings) -> dict[str, bytes]:
    """The pictures by the names of their files."""
    with mpl.rc_context(_STYLE):
        return {
            "scaling-node.svg": _svg(_node(findings)),
            "scaling-plan.svg": _svg(_plans(findings)),
            "scaling-storm.svg": _svg(_storms(findings)),
        }


def _svg(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return b"\n".join(line.rstrip() for line in picture.getvalue().splitlines()) + b"\n"


def _axes(columns: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.4 * columns, 3.2 * rows), layout="constrained", facecolor="white")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _node(findings: Findings) -> Figure:
    """One process: 1,000 clients of one stream, by the rate; simulated, and measured."""
    figure, (busy, cost, batch) = _axes(3)
    simulated = [_hot(findings.cost, rate) for rate in _RATES]
    measured = [
        run
        for load in LOADS
        if (load.clients, load.streams, load.payload, load.levels) == (1000, 1, 0, 0)
        and (run := findings.scaling.middle(load.key)) is not None
    ]
    rates = [run.published for run in measured]
    _both(busy, [each.cpu * 100 for each in simulated], rates, [run.cpu * 100 for run in measured])
    _both(
        cost,
        [each.cpu_per_delivery for each in simulated],
        rates,
        [run.cpu / run.deliveries * 1e6 for run in measured],
    )
    _both(
        batch,
        [each.deliveries / each.writes for each in simulated],
        rates,
        [run.deliveries / run.writes for run in measured],
    )
    busy.set(ylabel="% of a core", ylim=(0, 105))
    cost.set(ylabel="CPU µs of a delivery", yscale="log")
    batch.set(ylabel="messages in a write", yscale="log")
    for axes in (busy, cost, batch):
        axes.set(xlabel="publications a second", xscale="log")
    busy.legend(frameon=False)
    return figure


def _hot(cost: Cost, rate: float) -> Outcome:
    return run_node(cost, bench_traffic(Load("", 1000, rate=rate), _SIZE, 2.0), 2.0)


def _both(axes: Axes, simulated: Sequence[float], rates: Sequence[float], measured: Sequence[float]) -> None:
    axes.plot(_RATES, simulated, label="simulated")
    axes.plot(rates, measured, "o", label="measured")


def _plans(findings: Findings) -> Figure:
    """A worker of each plan, by the clients that it has."""
    figure, (late, busy) = _axes(2)
    for plan in findings.plans:
        counts = [round(plan.clients_without_a_zone * share / 100) for share in range(10, 131, 10)]
        outcomes = [node_of(findings.cost, plan.demand, count) for count in counts]
        label = _label(plan)
        late.plot(counts, [each.p99 for each in outcomes], label=label)
        busy.plot(counts, [each.cpu * 100 for each in outcomes], label=label)
    late.axhline(findings.plans[0].demand.late_ms, color="grey", linestyle=":")
    late.set(xlabel="clients of a worker", ylabel="p99 in the worker, ms", ylim=(0, 300))
    busy.set(xlabel="clients of a worker", ylabel="% of a core", ylim=(0, 105))
    late.legend(frameon=False, fontsize=7)
    return figure


def _label(plan: Plan) -> str:
    demand = plan.demand
    groups = f"{demand.groups} groups" if demand.groups > 1 else "everything"
    return f"{groups}{', some streams busier' if demand.skew else ''}"


def _storms(findings: Findings) -> Figure:
    """The first plan's fleet without a zone."""
    figure, (back, attempts, late) = _axes(3)
    for scenario in SCENARIOS:
        if scenario.key not in _SHOWN:
            continue
        storm = findings.storms[scenario.key]
        times = [step / 10 for step in range(1, min(10 * _STORM_SECONDS, len(storm.back)) + 1)]
        back.plot(times, [100 * there / storm.lost for there in storm.back[: len(times)]], label=scenario.title)
        attempts.plot(times, [10 * there for there in storm.attempts[: len(times)]])
        late.plot(times, [1000 * turn for turn in storm.turns[: len(times)]])
    back.set(ylabel="% of the lost clients back")
    attempts.set(ylabel="attempts a second", yscale="symlog")
    late.set(ylabel="longest turn of a worker, ms")
    for axes in (back, attempts, late):
        axes.set(xlabel="seconds")
    back.legend(frameon=False, fontsize=7)
    return figure
