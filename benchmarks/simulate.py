"""From what was measured to a plan: the model of one daemon, a discrete simulation of it and of a fleet.

    python -m benchmarks.simulate [--print]

It reads scaling.json, which `python -m benchmarks.scaling` writes, and writes the tables of docs/scaling.md and the
plots in docs/images. The same measurements make the same tables. With --print the tables are printed, and nothing is
written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec

from benchmarks import plots
from benchmarks.cost import fit, fit_redis
from benchmarks.forecast import forecasts
from benchmarks.measured import Scaling
from benchmarks.plan import DEMANDS, RECOMMENDED, plan_for
from benchmarks.processes import ROOT
from benchmarks.scaling import RESULTS
from benchmarks.scaling_tables import Findings, filled, tables
from benchmarks.storms import storms

__all__ = ["PAGE", "find", "main"]

PAGE = ROOT / "docs" / "scaling.md"
IMAGES = ROOT / "docs" / "images"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description="From measurements to a plan.")
    parser.add_argument("--print", action="store_true", help="print the tables, and write nothing")
    arguments = parser.parse_args(argv)
    try:
        findings = find(Scaling.load(RESULTS))
    except (OSError, ValueError, msgspec.DecodeError) as fault:
        sys.stderr.write(f"simulate: {fault}\n")
        return 1
    if arguments.print:
        for name, text in tables(findings).items():
            sys.stdout.write(f"{name}\n\n{text}\n")
        return 0
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), findings), encoding="utf-8")
    drawn = plots.draw(findings)
    for name, picture in drawn.items():
        (IMAGES / name).write_bytes(picture)
    sys.stderr.write(f"written: {PAGE.relative_to(ROOT)}, docs/images/{', '.join(drawn)}\n")
    return 0


def find(scaling: Scaling) -> Findings:
    """All that follows from the measurements. Raises ValueError where some are missing."""
    cost, redis, singly = fit(scaling), fit_redis(scaling, 100), fit_redis(scaling, 1)
    plans = [plan_for(cost, redis, singly, demand) for demand in DEMANDS]
    recommended = plans[DEMANDS.index(RECOMMENDED)]
    return Findings(scaling, cost, redis, forecasts(scaling, cost), plans, storms(cost, recommended))


if __name__ == "__main__":
    sys.exit(main())
