"""What healthy clients notice of attacks: 1,000 of them on a hot stream, first in peace, then beside each attack.

    python -m benchmarks.attacks [--seconds 8] [--clients 1000] [--rate 50] [--only NAME …]

It prints a table in Markdown. The daemon has a core of its own, as in benchmarks.run; the attacker, a process of
`benchmarks.attackers`, has whatever the load generator leaves of the other. A fresh daemon for each; the attack has
begun before the clients connect. The exit status is 1 when somebody lost something.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.attackers import ATTACKS, Attack
from benchmarks.processes import Cores, Failed, Stage
from benchmarks.table import number
from benchmarks.workloads import SERVERS
from marketfeed.commands.bench.report import Report

__all__ = ["main", "markdown"]

STREAM = "trade@TATA_INR"
"""What the attackers subscribe to where they want to be in the way."""
_LONGEST = 120.0
_KIB = 1024


class Row(msgspec.Struct, frozen=True):
    """One run; `attack` is None for the one in peace."""

    attack: Attack | None
    report: Report


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description="Measure beside attacks.")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run (default: %(default)g)")
    parser.add_argument("--clients", type=int, default=1000, help="healthy ones (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=50.0, help="messages a second (default: %(default)g)")
    keys = [attack.key for attack in ATTACKS]
    parser.add_argument("--only", action="append", choices=keys, help="this attack; may be repeated")
    arguments = parser.parse_args(argv)
    attacks = [attack for attack in ATTACKS if not arguments.only or attack.key in arguments.only]
    options = ["--clients", str(arguments.clients), "--streams", STREAM, "--rate", f"{arguments.rate:g}"]
    options += ["--seconds", f"{arguments.seconds:g}", "--warm-up", "1", "--json"]
    try:
        rows = _measure([None, *attacks], options)
    except Failed as fault:
        sys.stderr.write(f"attacks: {fault}\n")
        return 1
    sys.stdout.write(markdown(rows))
    return 0 if all(row.report.is_faultless for row in rows) else 1


def _measure(attacks: Sequence[Attack | None], options: Sequence[str]) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="marketfeed-attacks-") as directory:
        stage = Stage(Path(directory), Cores.found())
        with stage.redis():
            for attack in attacks:
                rows.append(Row(attack, _one(stage, attack, options)))
                sys.stderr.write(f"{_title(attack)}: {_told(rows[-1].report)}\n")
    return rows


def _one(stage: Stage, attack: Attack | None, options: Sequence[str]) -> Report:
    with stage.server(SERVERS[0]) as (pid, port):
        if attack is None:
            return stage.load(port, pid, options, publishes=True)
        with stage.attacker(attack.key, port, _LONGEST):
            return stage.load(port, pid, options, publishes=True)


def _title(attack: Attack | None) -> str:
    return "None" if attack is None else attack.title


def _told(report: Report) -> str:
    latency = report.latency_ms
    return "nothing arrived" if latency is None else f"p50 {latency.p50:.2f} ms, p99 {latency.p99:.2f} ms"


def markdown(rows: Sequence[Row]) -> str:
    """The table; the first row is the one in peace."""
    lines = ["| attack | p50 ms | p99 ms | p99 : in peace | lost | memory MiB |", "|---|---:|---:|---:|---:|---:|"]
    quiet = rows[0].report
    for row in rows:
        latency, before = row.report.latency_ms, quiet.latency_ms
        assert latency is not None
        assert before is not None
        ratio = "" if row is rows[0] else number(latency.p99 / before.p99)
        lines.append(
            f"| {_title(row.attack)} | {number(latency.p50)} | {number(latency.p99)} | {ratio} | "
            f"{_faults(row.report):,} | {_memory(row, quiet)} |"
        )
    return "\n".join(lines) + "\n"


def _faults(report: Report) -> int:
    """What was lost, came twice or out of order, and clients that were closed."""
    return report.lost + report.duplicated + report.out_of_order + sum(report.closed.values())


def _memory(row: Row, quiet: Report) -> str:
    """Resident memory at the end: of the first row, and by how much the others have more."""
    mine, its = row.report.server, quiet.server
    assert mine is not None
    assert its is not None
    if row.attack is None:
        return f"{mine.resident_after / _KIB:.1f}"
    return f"{(mine.resident_after - its.resident_after) / _KIB:+.1f}"


if __name__ == "__main__":
    sys.exit(main())
