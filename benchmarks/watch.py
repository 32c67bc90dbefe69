"""Who else used the cores while a daemon was measured, and how often that woke up. Linux tells; elsewhere: nobody."""

from __future__ import annotations

import os
import re
import resource
import socket
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import Cores
from benchmarks.redis_cost import used_by_redis

__all__ = ["Watch"]

_WAKES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")


class _Moment(NamedTuple):
    """Seconds of both cores, busy and in all; of the daemon; of the load with the Redis-compatible server."""

    server: tuple[float, float]
    load: tuple[float, float]
    daemon: float
    generator: float
    wakes: int


class Watch:
    """From `with` to its end. `disturbed`: the share of one of the cores that others had, the larger of both."""

    def __init__(self, cores: Cores, pid: int, redis: str) -> None:
        self._cores = cores
        self._pid = pid
        self._redis = redis
        self.disturbed = 0.0
        self.wakes = 0

    def __enter__(self) -> Watch:
        self._begun = self._look()
        return self

    def __exit__(self, *_: object) -> None:
        begun, now = self._begun, self._look()
        shares = []
        for core, own in (("server", "daemon"), ("load", "generator")):
            busy, total = (
                after - before for after, before in zip(getattr(now, core), getattr(begun, core), strict=True)
            )
            shares.append((busy - getattr(now, own) + getattr(begun, own)) / total if total else 0.0)
        self.disturbed = max(*shares, 0.0)
        self.wakes = now.wakes - begun.wakes

    def _look(self) -> _Moment:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._redis)
            redis = used_by_redis(connection)
        generator = children.ru_utime + children.ru_stime + redis
        wakes = _WAKES.search(_read(f"{self._pid}/status"))
        return _Moment(
            self._core(self._cores.server),
            self._core(self._cores.load),
            self._daemon(),
            generator,
            int(wakes[1]) if wakes else 0,
        )

    def _daemon(self) -> float:
        fields = _read(f"{self._pid}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0

    @staticmethod
    def _core(number: int | None) -> tuple[float, float]:
        found = re.search(rf"^cpu{number} (.*)$", _read("stat"), re.MULTILINE)
        if found is None:
            return 0.0, 0.0
        ticks = [int(text) for text in found[1].split()][:8]  # the last two are part of the first two
        return (sum(ticks) - sum(ticks[3:5])) / _TICKS, sum(ticks) / _TICKS


def _read(name: str) -> str:
    try:
        return Path("/proc", name).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
