"""What a load test costs: time and memory of processes, and how busy a core is, as Linux tells in /proc.

Everywhere else there is only this process's own time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

__all__ = ["Usage", "core_share", "is_known", "resident_kib", "usage_of"]

_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


def is_known(pid: int) -> bool:
    """Whether the process can be looked at."""
    return _stat(pid) is not None


class Usage(msgspec.Struct, frozen=True):
    """Processor time so far, in seconds: this process's, the server's. `core`: ticks busy and in all, of our core."""

    own: float
    server: float
    core: tuple[int, int] | None


def usage_of(server_pids: Iterable[int]) -> Usage:
    """What has been used up to now. A server process that has ended counts as nothing."""
    ticks = sum(int(fields[11]) + int(fields[12]) for pid in server_pids if (fields := _stat(pid)) is not None)
    return Usage(time.process_time(), ticks / os.sysconf("SC_CLK_TCK"), _core_ticks())


def core_share(first: Usage, last: Usage) -> float | None:
    """The share of the time between for which our core was busy, whoever used it; None when we have more than one."""
    if first.core is None or last.core is None or first.core[1] == last.core[1]:
        return None
    return (last.core[0] - first.core[0]) / (last.core[1] - first.core[1])


def resident_kib(pids: Iterable[int]) -> int:
    """What these processes have in memory."""
    return sum(int(found[1]) for pid in pids if (found := _RESIDENT.search(_read(f"{pid}/status"))) is not None)


def _core_ticks() -> tuple[int, int] | None:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    if len(cores) != 1:
        return None
    (core,) = cores
    found = re.search(rf"^cpu{core} (.*)$", _read("stat"), re.MULTILINE)
    if found is None:
        return None
    ticks = [int(text) for text in found[1].split()][:8]  # the last two are part of the first two
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def _stat(pid: int) -> list[str] | None:
    """The fields behind the name, which may hold blanks."""
    fields = _read(f"{pid}/stat").rpartition(")")[2].split()
    return fields or None


def _read(name: str) -> str:
    try:
        return Path("/proc", name).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
