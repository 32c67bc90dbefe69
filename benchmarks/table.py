"""The results as docs/benchmarks.md and its chart. Pure: the same results make the same bytes."""

from __future__ import annotations

import textwrap
from statistics import median

from benchmarks.chart import Bar, Panel, bar_chart
from benchmarks.results import FIGURES, Figure, Range, Results, figures_of, ratio
from benchmarks.workloads import OURS, SERVERS, WORKLOADS, Server, Workload
from marketfeed.commands.bench.report import Report

__all__ = ["chart", "markdown", "number", "quote"]

_WIDTH = 115  # of a line of text

_HEAD = """\
# Benchmarks

<!-- Made by `{command}` from benchmarks/results.json; change benchmarks/table.py, not this file. -->

![The median of each workload: marketfeed, uWebSockets.js and Node ws](images/benchmarks.svg)

"""

_METHOD = """\
## How it was measured

{how}

The load generator is `marketfeed bench`, which can be pointed at any deployment. It opens the clients, publishes
numbered trades or order books to Redis, and checks for each client that every number arrives once and in order. All
servers get the same bytes of the same Redis-compatible server, through a Unix socket, and confirm a subscription only
when Redis has confirmed it.

- *As fast as it goes*: a fixed number of messages is under way. Each delivery makes room for the next, so nothing
  queues up without end, and the rate is what the server can do.
{paced}
- **≥** marks a rate at which the load generator's core was busy for more than nine tenths of the time and the
  server's was not: the server can do at least this. The CPU time per delivery does not depend on it.
- *faults*: messages lost, duplicated or out of order, and connections closed, all rounds together. *load*: how busy
  the load generator's core was, Redis included.
{latency}
- A cell is the median, with the least and the most of all rounds; the best of a column is set in bold. A ratio is the
  median of the rounds' own ratios, because absolute figures drift with the machine and only what was measured side by
  side compares.

"""

_SERVERS_NOTE = """\
The figures of marketfeed include what the others leave out: every publication is validated, and what waits for each
client is counted and bounded, with the loss policy of its streams. History and order books are kept for those who
come later.

"""


def markdown(results: Results) -> str:
    """docs/benchmarks.md."""
    measured = [workload for workload in WORKLOADS if results.of(workload.key, OURS)]
    parts = [_HEAD.format(command=results.command)]
    parts += [_section(results, workload) for workload in measured]
    parts.append(_servers(results))
    parts.append(_method(results))
    facts = {**results.machine, "Date": results.date, **results.versions}
    parts.append("| | |\n|---|---|\n" + "".join(f"| {_cell(name)} | {_cell(text)} |\n" for name, text in facts.items()))
    return "".join(parts)


_PACED = "- *Paced*: a fixed rate, well below what any of the servers can do, so that cost and latency compare."
_DUE = (
    " A message tells when it was due, not when it was sent: where the load generator or Redis is late, that is part "
    "of the latency."
)
_ALL = "- Latency is of all messages that were published while it was measured, also of those that arrive later. It is"
_ARRIVED = "- Latency is of the messages that arrived while it was measured,"
_SPAN = (
    " from the moment of publishing to the moment when the client has read the message, and includes the time for "
    "which the one load generator reads its other clients. It compares; by itself it says little."
)


def _method(results: Results) -> str:
    """How it was measured, by the version of the load generator that did it."""
    has_all = all(run.report.timed is not None for run in results.runs)
    paced, latency = (_PACED + _DUE, _ALL + _SPAN) if has_all else (_PACED, _ARRIVED + _SPAN)
    bullets = [textwrap.fill(text, width=_WIDTH, subsequent_indent="  ") for text in (paced, latency)]
    return _METHOD.format(how=_how(results), paced=bullets[0], latency=bullets[1])


def quote(results: Results) -> str:
    """README's table: what each workload's servers are compared by, their medians, and where and when that was."""
    servers = [server for server in SERVERS if any(run.server == server.key for run in results.runs)]
    rows = [["", "", *(server.title for server in servers)], ["---", "---", *["---:"] * len(servers)]]
    for workload in WORKLOADS:
        if not any(results.of(workload.key, server.key) for server in servers):
            continue
        figure = FIGURES[workload.figures[0]]
        best = _best(results, workload, figure)
        cells = []
        for server in servers:
            reports = results.of(workload.key, server.key)
            if not reports:
                cells.append("")
                continue
            found = figures_of(reports, figure)
            shown = "n/a" if found is None else _bound(found) + number(found.median)
            cells.append(f"**{shown}**" if found is not None and number(found.median) == best else shown)
        better = "more" if figure.more_is_better else "less"
        rows.append([workload.title, f"{figure.title}, {better} is better", *cells])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    where = ", ".join(_cell(text) for text in results.machine.values())
    return f"{table}\nMedians of {results.rounds}, one core a server; {where}; {results.date}.\n"


def _how(results: Results) -> str:
    rounds = "one round" if results.rounds == 1 else f"{results.rounds} rounds"
    pinned = "Each server is pinned to one core; the load generator and Redis share another."
    free = "Nothing is pinned to a core, so servers and load share what there is."
    return textwrap.fill(
        f"`{results.command}` makes this page, on one machine and over its loopback interface: {rounds} over the "
        f"servers, which take turns (A B C A B C), {results.seconds:g} seconds a run after a warm-up, and a fresh "
        f"process for each run. {pinned if results.pinned else free}",
        width=_WIDTH,
    )


def chart(results: Results) -> str:
    """docs/images/benchmarks.svg: what each workload's servers are compared by."""
    panels = []
    for workload in WORKLOADS:
        figure = FIGURES[workload.figures[0]]
        bars = [
            Bar(server.title, found.median, _bound(found) + number(found.median), server.script is None)
            for server in _present(results, workload)
            if (found := figures_of(results.of(workload.key, server.key), figure)) is not None
        ]
        if bars:
            better = "more is better" if figure.more_is_better else "less is better"
            panels.append(Panel(workload.title, f"{figure.title}, {better}", bars))
    foot = f"Median of {results.rounds}, {results.date}, one core a server. How: docs/benchmarks.md"
    return bar_chart("marketfeed beside other servers", panels, foot)


def _section(results: Results, workload: Workload) -> str:
    figures = [FIGURES[key] for key in workload.figures]
    best = [_best(results, workload, figure) for figure in figures]
    compared = figures[0]
    better = "more" if compared.more_is_better else "less"
    head = ["", *(figure.title for figure in figures), f"{OURS} : this", "faults", "load"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for server in _present(results, workload):
        reports = results.of(workload.key, server.key)
        cells = [_figure(figures_of(reports, figure), top) for figure, top in zip(figures, best, strict=True)]
        faults = sum(
            report.lost + report.duplicated + report.out_of_order + report.unasked + sum(report.closed.values())
            for report in reports
        )
        rows.append(
            [server.title, *cells, _ratio(results, workload, server), f"{faults:,}", f"{_busy(workload, reports):.0%}"]
        )
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return (
        f"## {workload.title}\n\n{workload.text}\n\n{lines}\n"
        f"The ratio is that of {compared.title}, of which {better} is better. "
        f"`marketfeed bench {' '.join(workload.options)}`\n\n"
    )


def _ratio(results: Results, workload: Workload, server: Server) -> str:
    """How we compare to that server, as far as the load generator could tell."""
    compared = FIGURES[workload.figures[0]]
    quotient = ratio(results, workload.key, server.key, compared)
    ours, theirs = (figures_of(results.of(workload.key, key), compared) for key in (OURS, server.key))
    if server.key == OURS or quotient is None or ours is None or theirs is None:
        return ""
    if ours.is_lower_bound and theirs.is_lower_bound:
        return "not known"
    return f"{_bound(ours)}{'≤ ' if theirs.is_lower_bound else ''}{number(quotient)}"


def _busy(workload: Workload, reports: list[Report]) -> float:
    """How busy the load generator's core was, in the part of the test that counts."""
    if {"connects", "storm"}.intersection(workload.figures):
        return median(report.generator_busy_connecting for report in reports)
    return median(report.generator_busy for report in reports)


def _servers(results: Results) -> str:
    present = {run.server for run in results.runs}
    lines = [f"- **{server.title}**: {server.text}\n" for server in SERVERS if server.key in present]
    return "## The servers\n\n" + "".join(lines) + "\n" + (_SERVERS_NOTE if len(lines) > 1 else "")


def _present(results: Results, workload: Workload) -> list[Server]:
    return [server for server in SERVERS if results.of(workload.key, server.key)]


def _best(results: Results, workload: Workload, figure: Figure) -> str:
    """The best median of all servers, as it is shown, whoever has it."""
    found = [figures_of(results.of(workload.key, server.key), figure) for server in SERVERS]
    medians = [each.median for each in found if each is not None]
    if not medians:
        return ""
    return number(max(medians) if figure.more_is_better else min(medians))


def _figure(found: Range | None, best: str) -> str:
    if found is None:
        return "n/a"
    shown = number(found.median)
    return (
        f"{_bound(found)}{f'**{shown}**' if shown == best else shown} ({number(found.least)} to {number(found.most)})"
    )


def _bound(found: Range) -> str:
    return "≥ " if found.is_lower_bound else ""


def number(value: float) -> str:
    """Three figures; millions as such."""
    if value >= 1e6:
        return f"{_three(value / 1e6)} M"
    return _three(value)


def _three(value: float) -> str:
    if value < 999.5:
        return f"{value:#.3g}".removesuffix(".")
    digits = len(str(int(value))) - 3
    return f"{round(value / 10**digits) * 10**digits:,}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
