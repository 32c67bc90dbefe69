"""The findings as the tables of docs/scaling.md, each between its marks. Pure: the same make the same bytes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from benchmarks.cost import Cost, RedisCost, events_of, residuals
from benchmarks.fleet import Storm
from benchmarks.forecast import Forecast
from benchmarks.loads import LOADS, WORKER_LOADS
from benchmarks.measured import Scaling
from benchmarks.plan import Plan
from benchmarks.storms import SCENARIOS
from benchmarks.table import number

__all__ = ["Findings", "filled", "tables"]


class Findings(msgspec.Struct, frozen=True):
    """All that follows from the measurements. `storms`: of the recommended plan, by the key of the scenario."""

    scaling: Scaling
    cost: Cost
    redis: RedisCost
    forecasts: list[Forecast]
    plans: list[Plan]
    storms: dict[str, Storm]


def tables(findings: Findings, only: Collection[str] | None = None) -> dict[str, str]:
    """Each table by the name that its marks have; that of workers, if any were measured."""
    has_workers = any(run.workers for run in findings.scaling.runs)
    return {
        name: make(findings)
        for name, make in _MAKERS.items()
        if (only is None or name in only) and (name != "workers" or has_workers)
    }


def filled(page: str, findings: Findings) -> str:
    """The page with these tables between its marks. Raises ValueError for a table that it has no place for."""
    for name, text in tables(findings).items():
        marked = re.compile(rf"(<!-- {name}: made by [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
        page, times = marked.subn(lambda found, text=text: f"{found[1]}{text}{found[2]}", page)
        if times != 1:
            raise ValueError(f"docs/scaling.md: expected one place for the table {name}, found {times}")
    return page


def _measured(findings: Findings) -> str:
    rows = []
    for each in residuals(findings.scaling, findings.cost):
        load, run = each.load, findings.scaling.middle(each.load.key)
        assert run is not None
        what = f"{load.per_client} of {load.streams:,}" if load.streams > 1 else "1"
        rows.append(
            [
                f"{load.clients:,}",
                what,
                number(run.published),
                f"{run.bytes_sent / run.deliveries:,.0f}",
                number(run.deliveries),
                number(run.deliveries / events_of(load, run).writes),
                f"{each.measured:.1%} ({each.least:.1%} to {each.most:.1%})",
                f"{each.model:.1%}",
                f"{each.error:+.0%}",
            ]
        )
    head = ["clients", "streams of each", "publications/s", "bytes a message", "deliveries/s", "messages a write"]
    return _table([*head, "core, measured", "model", "error"], rows)


def _memory(findings: Findings) -> str:
    rows = []
    for load in LOADS:
        run = findings.scaling.middle(load.key)
        if load.publishes or run is None:
            continue
        grown = (run.resident_connected - run.resident_before) / load.clients
        model = findings.cost.client_kib + load.per_client * findings.cost.subscription_kib
        rows.append(
            [
                f"{load.clients:,}",
                str(load.per_client),
                f"{grown:.2f}",
                f"{model:.2f}",
                number(run.connect_cpu),
                number(findings.cost.connect_cpu(load.per_client)),
            ]
        )
    return _table(["clients", "streams of each", "KiB a client", "model", "CPU µs to let one in", "model"], rows)


_LEAST = 0.01
_NAMED = (
    ("wake", "to wake up, after a while without anything to do", "µs", 1.0),
    ("cool", "the while, after which it is two thirds of that", "ms", 1.0),
    ("flush", "a turn that has something to send", "µs", 1.0),
    ("publication", "a publication that comes", "µs", 1.0),
    ("write", "a write to one client, of however many messages", "µs", 1.0),
    ("full", "what one of many messages takes more than one of one", "µs", 1.0),
    ("delivery", "a message in it", "µs", 1.0),
    ("byte", "a KiB of that", "µs", 1024.0),
    ("level", "a level of an order book that is kept", "µs", 1.0),
    ("client", "a client that is there, a second", "µs", 1.0),
    ("second", "the process, a second", "µs", 1.0),
    ("connect", "a client that comes", "µs", 1.0),
    ("subscription", "each stream that it comes for", "µs", 1.0),
    ("client_kib", "memory of a client", "KiB", 1.0),
    ("subscription_kib", "memory of each stream of a client", "KiB", 1.0),
    ("resident", "memory of the process", "MiB", 1 / 1024),
)


def _costs(findings: Findings) -> str:
    rows = [[what, _cost(getattr(findings.cost, name) * factor, unit)] for name, what, unit, factor in _NAMED]
    return _table(["what", "cost"], rows)


def _cost(value: float, unit: str) -> str:
    return f"{number(value)} {unit}" if value >= _LEAST else f"less than {_LEAST} {unit}"


def _forecasts(findings: Findings) -> str:
    rows = []
    for each in findings.forecasts:
        load, run, said = each.load, each.measured, each.simulated
        pace = f"{load.rate:,.0f}/s" if load.rate is not None else f"{load.window:,} under way"
        rows.append(
            [
                f"{load.clients:,}",
                f"{load.per_client} of {load.streams:,}" if load.streams > 1 else "1",
                pace,
                f"{run.bytes_sent / run.deliveries:,.0f}",
                number(each.measured_cpu),
                number(said.cpu_per_delivery),
                f"{each.error:+.0%}",
            ]
        )
    head = ["clients", "streams of each", "publications", "bytes a message", "CPU µs a delivery", "simulated", "error"]
    return _table(head, rows)


def _redis(findings: Findings) -> str:
    runs = findings.scaling.redis
    rows = []
    for subscribers in sorted({run.subscribers for run in runs}):
        cells = [f"{subscribers:,}"]
        for at_once in (1, 100):
            each = sorted(
                run.cpu_per_publication for run in runs if (run.subscribers, run.at_once) == (subscribers, at_once)
            )
            middle = each[len(each) // 2]
            cells.append(f"{number(middle)} ({number(each[0])} to {number(each[-1])})")
        model = findings.redis.publication + findings.redis.subscriber * subscribers
        rows.append([*cells, number(model)])
    head = ["daemons", "µs a publication, one by one", "100 at once", "model of 100 at once"]
    return _table(head, rows)


def _plans(findings: Findings) -> str:
    plans = findings.plans
    rows = [
        ["messages a second to each client", *(f"{plan.messages:,.0f}" for plan in plans)],
        ["publications a second that a worker reads", *(f"{plan.usual.published:,.0f}" for plan in plans)],
        ["clients of a worker, usually", *(f"{plan.clients_usually:,}" for plan in plans)],
        ["clients of a worker, without a zone", *(f"{plan.clients_without_a_zone:,}" for plan in plans)],
        ["**workers**, a core each", *(f"**{plan.workers:,}**" for plan in plans)],
        ["core busy, usually", *(f"{plan.usual.cpu:.0%}" for plan in plans)],
        ["p50, p99 in a worker, usually", *(_late(plan.usual.p50, plan.usual.p99) for plan in plans)],
        ["p50, p99 without a zone", *(_late(plan.without_a_zone.p50, plan.without_a_zone.p99) for plan in plans)],
        ["messages in a write, usually", *(number(plan.usual.deliveries / plan.usual.writes) for plan in plans)],
        ["egress to clients, Gbit/s", *(f"{plan.egress:,.0f}" for plan in plans)],
        ["egress of a worker, Mbit/s", *(f"{plan.egress / plan.workers * 1000:,.0f}" for plan in plans)],
        ["Redis: cores, 100 publications at once", *(f"{plan.redis_cpu:,.1f}" for plan in plans)],
        ["Redis: cores, one by one", *(f"{plan.redis_cpu_singly:,.1f}" for plan in plans)],
        ["Redis: egress to workers, Gbit/s", *(f"{plan.redis_egress:,.1f}" for plan in plans)],
        ["memory of all workers, GiB", *(f"{plan.memory:,.0f}" for plan in plans)],
    ]
    return _table(["", *(plan.demand.title for plan in plans)], rows)


def _late(p50: float, p99: float) -> str:
    return f"{p50:,.0f} ms, {p99:,.0f} ms"


def _storms(findings: Findings) -> str:
    rows = []
    for scenario in SCENARIOS:
        storm = findings.storms[scenario.key]
        rows.append(
            [
                scenario.title,
                f"{storm.peak:,.0f}",
                *(_seconds(storm.time_of(share)) for share in (0.5, 0.99, 1.0)),
                f"{storm.longest_turn * 1000:,.0f}",
                f"{storm.unheard:,}",
                f"{storm.given_up:,}",
                f"{storm.refused:,}",
            ]
        )
    head = ["", "attempts/s, at most", "half back, s", "99 %, s", "all, s", "longest turn, ms", "not heard"]
    return _table([*head, "given up", "refused"], rows)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


def _where(findings: Findings) -> str:
    scaling = findings.scaling
    facts = {**scaling.machine, "Date": scaling.date, **scaling.versions}
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {text} |\n" for name, text in facts.items())


def _workers(findings: Findings) -> str:
    rows = []
    for key in WORKER_LOADS:
        for workers in sorted({run.workers for run in findings.scaling.runs if run.workers}):
            run = findings.scaling.middle(key, workers)
            if run is None:
                continue
            each = number(run.cpu / run.deliveries * 1e6) if run.deliveries else ""
            rows.append([key, str(workers), number(run.deliveries), each, number(run.connect_cpu)])
    return _table(["load", "workers", "deliveries/s", "CPU µs a delivery", "CPU µs to let one in"], rows)


_MAKERS = {
    "measured": _measured,
    "memory": _memory,
    "workers": _workers,
    "costs": _costs,
    "forecasts": _forecasts,
    "redis": _redis,
    "plans": _plans,
    "storms": _storms,
    "where": _where,
}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is words, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
