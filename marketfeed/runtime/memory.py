"""How much memory the daemon may have, and whether it has too much of it.

1. The limit is a size, or a share of what the process may have at most: the least that its cgroup or one above it
   grants (version 2 or 1), and never more than the host has. What cannot be read is no limit.
2. Above the limit the guard is full; it is no more once resident memory is 2 % below, so that it does not flap.
3. Before the guard says that it is full, what Python has freed and the C library has kept goes back to the system.
4. It goes on looking, whatever happens. Memory that cannot be read counts as not full.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.model.numbers import whole
from marketfeed.runtime.logs import Log

__all__ = ["MemoryBound", "MemoryGuard", "MemoryLimit", "available_memory", "parse_memory_limit", "resident_memory"]

_LOOK_SECONDS = 1.0
_TRIM_SECONDS = 10.0
"""Measured: 25 ms where 280 MB go back, 6 ms where nothing does and half of 560 MB is in holes. Not every second."""
_MARGIN_PERCENT = 2
_MIB = 1 << 20
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"([0-9]{1,18})(?:([KMGT])(?:IB?)?)?", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]{1,3})%")
_ROOT = Path("/")


class MemoryLimit(msgspec.Struct, frozen=True):
    """Resident memory above which no more clients come in: a size in bytes, or percent of what there is; or neither.

    As text it is what `parse_memory_limit` reads.
    """

    size: int = 0
    percent: int = 0

    def __str__(self) -> str:
        if self.percent:
            return f"{self.percent}%"
        if not self.size:
            return "off"
        for unit in "TGMK":
            if self.size % (1 << _UNITS[unit]) == 0:
                return f"{self.size >> _UNITS[unit]}{unit}iB"
        return str(self.size)


def parse_memory_limit(text: str) -> MemoryLimit:
    """Read `1073741824`, `512MiB` (or `512Mi`, `512M`), `85%`, `off`. Raises ValueError with what would be accepted."""
    size, percent = _SIZE.fullmatch(text), _PERCENT.fullmatch(text)
    if text.lower() == "off" or (size and int(size[1]) == 0):
        return MemoryLimit()
    if percent and 1 <= int(percent[1]) <= 100:
        return MemoryLimit(percent=int(percent[1]))
    if size:
        limit = MemoryLimit(size=int(size[1]) << _UNITS[(size[2] or "").upper()])
        if limit.size >= _MIB:  # less than that is a number whose unit was forgotten
            return limit
    raise ValueError("a size from 1MiB up, such as 1073741824, 512MiB or 2GiB, a share from 1% to 100%, or off")


class MemoryBound(msgspec.Struct, frozen=True):
    """The most that the process may have, in bytes, and who says so: `cgroup` or `host`."""

    size: int
    owner: str


def available_memory(root: Path = _ROOT) -> MemoryBound | None:
    """What this process may have at most, or None where nothing says. `root`: where /proc and /sys are found."""
    bounds = [MemoryBound(size, "cgroup") for size in _cgroup_limits(root)]
    host = re.search(r"^MemTotal: +([0-9]+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    if host:
        bounds.append(MemoryBound(int(host[1]) << 10, "host"))
    return min(bounds, key=lambda bound: bound.size, default=None)


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of the process's cgroup and of all above it. See cgroups(7) and proc_pid_cgroup(5).

    In a container the path may be the host's, of which only the last directory is seen, as the root of /sys/fs/cgroup.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for mount in (mounts, mounts / "unified"):
                yield from _limits_upwards(mount, path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_upwards(mounts / "memory", path, "memory.limit_in_bytes")


def _limits_upwards(mount: Path, path: str, name: str) -> Iterator[int]:
    """`max` is no limit; version 1 writes a number beyond every host's memory in its place."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for depth in range(len(parts), -1, -1):
        limit = whole(_read(mount.joinpath(*parts[:depth], name)).strip(), 20)
        if limit is not None:
            yield limit


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def resident_memory(root: Path = _ROOT) -> int:
    """Bytes of this process that are in memory. Raises OSError, or ValueError when they cannot be read."""
    fields = (root / "proc/self/statm").read_text(encoding="ascii").split()
    if len(fields) < 2:
        raise ValueError("/proc/self/statm: expected two numbers or more")
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def trim_memory() -> None:
    """Let the C library give freed memory back, where it can: glibc keeps it, musl and others have no such function."""
    try:
        import ctypes

        trim = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError):
        return
    trim(ctypes.c_size_t(0))


class MemoryGuard(Service):
    """Says whether the process has too much memory to let further clients in. Looks once a second while it runs.

    `available`, `resident`, `trim`: how to find out and what to do, see the functions of these names. `share`: by how
    many processes the limit is divided.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        limit: MemoryLimit,
        available: Callable[[], MemoryBound | None] = available_memory,
        resident: Callable[[], int] = resident_memory,
        trim: Callable[[], None] = trim_memory,
        share: int = 1,
    ) -> None:
        self._clock = clock
        self._share = share
        self._wanted = limit
        self._available = available
        self._resident = resident
        self._trim = trim
        self._next_trim = clock.seconds()
        self._blind = False
        self._loop: LoopingCall | None = None
        self.limit = 0
        """Bytes; 0 while there is none."""
        self.is_full = False

    def startService(self) -> None:
        Service.startService(self)
        self.limit = self._find_limit()
        if self.limit:
            self._loop = LoopingCall(self._look)
            self._loop.clock = self._clock
            self._loop.start(_LOOK_SECONDS)

    def stopService(self) -> None:
        Service.stopService(self)
        self.is_full = False
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def renew(self, limit: MemoryLimit) -> None:
        """Let this be the limit."""
        self._wanted = limit
        if self.running:
            self.stopService()
            self.startService()

    def _find_limit(self) -> int:
        bound, wanted = self._available(), self._wanted
        if wanted.percent and bound is None:
            self.log.warn("memory: no limit, for neither a cgroup nor the host says how much there is")
            return 0
        limit = (wanted.size or (bound.size * wanted.percent // 100 if bound else 0)) // self._share
        if limit and bound is not None:
            facts = {"limit_mib": limit // _MIB, "owner": bound.owner, "most_mib": bound.size // _MIB}
            self.log.info("memory: no new clients above {limit_mib} MiB; the {owner} has {most_mib} MiB", **facts)
            if limit > bound.size:
                self.log.warn("memory: the limit of {limit_mib} MiB is more than the {owner} has", **facts)
        return limit

    def _look(self) -> None:
        try:
            resident = self._resident_trimmed()
        except Exception as fault:
            self.is_full = False
            if not self._blind:
                self._blind = True
                self.log.warn("memory: it cannot be read, and counts as enough: {fault}", fault=fault)
            return
        self._blind = False
        was_full, self.is_full = self.is_full, resident > self._line
        if self.is_full != was_full:
            news = "refused" if self.is_full else "welcome again"
            line = "memory: {resident_mib} MiB of {limit_mib} MiB: new clients are " + news
            self.log.warn(line, resident_mib=resident // _MIB, limit_mib=self.limit // _MIB)

    @property
    def _line(self) -> int:
        """The most that is not full, at present."""
        return self.limit - (self.limit * _MARGIN_PERCENT // 100 if self.is_full else 0)

    def _resident_trimmed(self) -> int:
        """Resident memory; where that is too much, after what was free in it has gone back."""
        resident = self._resident()
        if resident > self._line and self._clock.seconds() >= self._next_trim:
            self._next_trim = self._clock.seconds() + _TRIM_SECONDS
            self._trim()
            resident = self._resident()
        return resident
