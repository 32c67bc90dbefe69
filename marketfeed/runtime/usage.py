"""What this process takes of the machine, as Linux counts it (proc(5), /proc/pid/stat)."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Usage", "process_usage"]


class Usage(NamedTuple):
    """`virtual`, `resident`: bytes; `started`: in s since 1970; `cpu`: s of all its threads."""

    virtual: int
    resident: int
    started: float
    cpu: float


def process_usage() -> Usage:
    """At this moment. Raises OSError, ValueError or IndexError where there is no such file."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    user, system, start, virtual, pages = [int(fields[at]) for at in (11, 12, 19, 20, 21)]
    ticks = os.sysconf("SC_CLK_TCK")
    return Usage(virtual, pages * os.sysconf("SC_PAGE_SIZE"), _boot() + start / ticks, (user + system) / ticks)


@cache
def _boot() -> float:
    """When the machine started."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise ValueError("/proc/stat has no btime")
