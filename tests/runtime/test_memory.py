"""The memory guard: limits as they are written, what the system grants, and when new clients are refused."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.runtime.memory import (
    MemoryBound,
    MemoryGuard,
    MemoryLimit,
    available_memory,
    parse_memory_limit,
    resident_memory,
    trim_memory,
)
from tests.conftest import LogCapture
from tests.strategies import property_test

MIB = 1 << 20
GIB = 1 << 30
HOST = 8 * GIB
NO_LIMIT = "9223372036854771712\n"  # what cgroups of version 1 say


class TestLimit:
    @pytest.mark.parametrize(
        ("text", "limit"),
        [
            ("1073741824", MemoryLimit(size=GIB)),
            ("512MiB", MemoryLimit(size=512 * MIB)),
            ("512Mi", MemoryLimit(size=512 * MIB)),
            ("512M", MemoryLimit(size=512 * MIB)),
            ("512m", MemoryLimit(size=512 * MIB)),
            ("2G", MemoryLimit(size=2 * GIB)),
            ("1TiB", MemoryLimit(size=1024 * GIB)),
            ("1024K", MemoryLimit(size=MIB)),
            ("85%", MemoryLimit(percent=85)),
            ("1%", MemoryLimit(percent=1)),
            ("100%", MemoryLimit(percent=100)),
            ("0", MemoryLimit()),
            ("0MiB", MemoryLimit()),
            ("off", MemoryLimit()),
            ("OFF", MemoryLimit()),
        ],
    )
    def test_what_is_accepted(self, text: str, limit: MemoryLimit) -> None:
        """A letter without `i` is a power of 1024 too, as it is for Docker and systemd."""
        assert parse_memory_limit(text) == limit

    @pytest.mark.parametrize(
        "text",
        ["", "512", "1023K", "512MB", "85", "0%", "101%", "85.5%", "1.5GiB", "-1", "1 GiB", "\u0661GiB", "1GiB\n"],
    )
    def test_what_is_not_accepted(self, text: str) -> None:
        """The message says what would be; `512MB` might be either, and 512 bytes are a forgotten unit."""
        with pytest.raises(ValueError, match=r"^a size from 1MiB up, such as .+MiB.+ a share from 1% to 100%, or off$"):
            parse_memory_limit(text)

    @given(
        st.just(MemoryLimit())
        | st.builds(MemoryLimit, size=st.integers(MIB, 10**15) | st.integers(1, 10**6).map(lambda mib: mib * MIB))
        | st.builds(MemoryLimit, percent=st.integers(1, 100))
    )
    @property_test
    def test_its_text_can_be_read_again(self, limit: MemoryLimit) -> None:
        """So that a default can be shown."""
        assert parse_memory_limit(str(limit)) == limit

    @given(st.text(max_size=12) | st.from_regex(r"[0-9]{0,20}[KMGTkmgt%]?[iI]?[bB]?", fullmatch=True))
    @property_test
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """With a ValueError; what is read is one of the three kinds."""
        try:
            limit = parse_memory_limit(text)
        except ValueError:
            return
        assert not (limit.size and limit.percent)
        assert 0 <= limit.percent <= 100
        assert limit.size == 0 or limit.size >= MIB

    @pytest.mark.parametrize("text", ["off", "85%", "512MiB", "2GiB", "3TiB", "2000KiB", "1073741825"])
    def test_it_is_shown_in_the_largest_unit_that_fits(self, text: str) -> None:
        """Without a rest."""
        assert str(parse_memory_limit(text)) == text


def system(root: Path, cgroup: str = "", **files: str) -> Path:
    """A system whose host has 8 GiB. `cgroup`: of the process; `files`: below /sys/fs/cgroup, `__` for `/`."""
    written = {"proc/meminfo": f"MemFree: 1 kB\nMemTotal:  {HOST >> 10} kB\n", "proc/self/cgroup": cgroup}
    written |= {f"sys/fs/cgroup/{name.replace('__', '/')}": text for name, text in files.items()}
    for name, text in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


class TestAvailable:
    def test_the_least_of_all_cgroups_above(self, tmp_path: Path) -> None:
        """Version 2: a parent may grant less than its child, and `max` is no limit."""
        root = system(
            tmp_path,
            "0::/system.slice/feed.service\n",
            **{
                "memory.max": "max\n",
                "system.slice__memory.max": f"{GIB}\n",
                "system.slice__feed.service__memory.max": f"{2 * GIB}\n",
            },
        )
        assert available_memory(root) == MemoryBound(GIB, "cgroup")
        (root / "sys/fs/cgroup/system.slice/feed.service/memory.max").write_text(f"{MIB}\n")
        assert available_memory(root) == MemoryBound(MIB, "cgroup")

    @pytest.mark.parametrize("path", ["/", "/../..", "/kubepods/pod1/container", "/a/../../../../../outside"])
    def test_in_a_container(self, path: str, tmp_path: Path) -> None:
        """The root is the container's own cgroup, whatever path is told; nothing outside of it is read."""
        root = system(tmp_path, f"0::{path}\n", **{"memory.max": f"{GIB}\n"})
        (root / "outside").mkdir()
        (root / "outside" / "memory.max").write_text("5")
        assert available_memory(root) == MemoryBound(GIB, "cgroup")

    def test_version_1(self, tmp_path: Path) -> None:
        """The memory controller has a tree of its own."""
        root = system(
            tmp_path,
            "12:cpu,cpuacct:/cpu\n5:memory:/docker/1\n1:name=systemd:/x\n",
            **{"memory__memory.limit_in_bytes": NO_LIMIT, "memory__docker__1__memory.limit_in_bytes": f"{GIB}\n"},
            **{"memory__cpu__memory.limit_in_bytes": "1\n"},
        )
        assert available_memory(root) == MemoryBound(GIB, "cgroup")

    def test_both_versions_at_once(self, tmp_path: Path) -> None:
        """Version 2 is mounted elsewhere then."""
        root = system(
            tmp_path,
            "5:memory:/\n0::/user\n",
            **{"memory__memory.limit_in_bytes": NO_LIMIT, "unified__user__memory.max": f"{GIB}\n"},
        )
        assert available_memory(root) == MemoryBound(GIB, "cgroup")

    @pytest.mark.parametrize(
        ("cgroup", "files"),
        [
            ("", {}),
            ("0::/\n", {"memory.max": "max\n"}),
            ("0::/\n", {"memory.max": ""}),
            ("0::/\n", {"memory.max": f"{2 * HOST}\n"}),
            ("5:memory:/\n", {"memory__memory.limit_in_bytes": NO_LIMIT}),
            ("nonsense\n\n0\n", {}),
            ("3:cpu:/\n", {"memory.max": "1\n"}),
        ],
        ids=["no cgroup", "no limit", "empty", "more than there is", "version 1", "nonsense", "another controller"],
    )
    def test_otherwise_it_is_the_host_s(self, cgroup: str, files: dict[str, str], tmp_path: Path) -> None:
        """All of its memory."""
        assert available_memory(system(tmp_path, cgroup, **files)) == MemoryBound(HOST, "host")

    def test_where_nothing_can_be_read(self, tmp_path: Path) -> None:
        """There is no bound, and no error."""
        assert available_memory(tmp_path) is None
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_bytes(b"\xff MemTotal: many kB\n")
        (tmp_path / "proc/self").write_text("a file")
        assert available_memory(tmp_path) is None

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
    def test_here(self) -> None:
        """This process has something, and less than there is."""
        bound = available_memory()
        assert bound is not None
        assert 0 < resident_memory() < bound.size
        assert bound.owner in ("cgroup", "host")


class TestResident:
    def test_pages_are_counted(self, tmp_path: Path) -> None:
        """The second number."""
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/statm").write_text("9000 1000 500 1 0 700 0\n")
        assert resident_memory(tmp_path) == 1000 * os.sysconf("SC_PAGE_SIZE")

    @pytest.mark.parametrize("text", ["", "1", "1 many"])
    def test_what_cannot_be_read_is_an_error(self, text: str, tmp_path: Path) -> None:
        """Of the file, or of what is in it."""
        with pytest.raises(OSError, match="statm"):
            resident_memory(tmp_path)
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/statm").write_text(text)
        with pytest.raises(ValueError, match=r"statm|invalid literal"):
            resident_memory(tmp_path)


class TestTrim:
    def test_the_c_library_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """To leave nothing over."""
        asked = []

        class Library:
            def __init__(self, name: None) -> None: ...
            def malloc_trim(self, left: Any) -> None:
                asked.append(left.value)

        monkeypatch.setattr(ctypes, "CDLL", Library)
        trim_memory()
        assert asked == [0]

    def test_a_library_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or a system that shows none, or a Python that cannot ask it: nothing happens."""
        monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
        trim_memory()

        def fail(name: None) -> None:
            raise OSError("no such library")

        monkeypatch.setattr(ctypes, "CDLL", fail)
        trim_memory()
        monkeypatch.setitem(sys.modules, "ctypes", None)
        trim_memory()

    @pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
    def test_freed_memory_really_goes_back(self) -> None:
        """Frames that one late object keeps on the heap: without the call they stay with the process."""
        frames = [bytes(900) for _ in range(50_000)]
        late = bytes(900)
        high = resident_memory()
        frames.clear()
        trim_memory()
        assert resident_memory() < high - 30 * MIB
        del late


class Process:
    """A process whose resident memory a test decides. `freed`: what goes back when it is trimmed."""

    def __init__(self) -> None:
        self.resident = 0
        self.freed = 0
        self.trims = 0
        self.fault: Exception | None = None

    def read(self) -> int:
        if self.fault is not None:
            raise self.fault
        return self.resident

    def trim(self) -> None:
        self.trims += 1
        self.resident -= self.freed
        self.freed = 0


class TestGuard:
    @pytest.fixture(autouse=True)
    def parts(self, logged: LogCapture) -> Iterator[None]:
        """A guard of 1000 MiB, at work."""
        self.clock = Clock()
        self.process = Process()
        self.logged = logged
        self.guard = self.make("1000MiB", MemoryBound(8 * GIB, "host"))
        self.guard.startService()
        logged.events.clear()
        yield
        if self.guard.running:
            self.guard.stopService()
        assert not self.clock.getDelayedCalls()

    def make(self, limit: str, bound: MemoryBound | None) -> MemoryGuard:
        return MemoryGuard(self.clock, parse_memory_limit(limit), lambda: bound, self.process.read, self.process.trim)

    def use(self, mib: int) -> bool:
        """Let the process have so much, until the next look. Whether the guard is full then."""
        self.process.resident = mib * MIB
        self.clock.advance(1)
        return self.guard.is_full

    def lines(self) -> list[str]:
        return [event["log_format"].format(**event) for event in self.logged.events]

    def test_above_the_limit_it_is_full_and_then_no_more(self) -> None:
        """Each is logged once, with the figures as fields."""
        assert [self.use(mib) for mib in (999, 1000, 1001, 1500, 900, 800)] == [False, False, True, True, False, False]
        assert self.lines() == [
            "memory: 1001 MiB of 1000 MiB: new clients are refused",
            "memory: 900 MiB of 1000 MiB: new clients are welcome again",
        ]
        assert [(event["resident_mib"], event["limit_mib"]) for event in self.logged.events] == [
            (1001, 1000),
            (900, 1000),
        ]

    def test_it_does_not_flap(self) -> None:
        """It is full until 2 % below the limit."""
        assert [self.use(mib) for mib in (1001, 999, 1001, 981, 980)] == [True, True, True, True, False]
        assert not self.use(999)
        assert len(self.logged.events) == 2

    def test_what_was_freed_goes_back_first(self) -> None:
        """A process that only keeps what it has freed is not full, and nothing is logged."""
        self.process.freed = 100 * MIB
        assert not self.use(1050)
        assert self.process.trims == 1
        assert not self.logged.events

    def test_what_is_freed_while_it_is_full_goes_back_too(self) -> None:
        """That is tried again every 10 s, not at each look."""
        self.use(500)
        assert self.process.trims == 0
        assert self.use(1050)
        for _ in range(9):
            assert self.use(1050)
        assert self.process.trims == 1
        self.process.freed = 60 * MIB
        assert not self.use(1040)
        assert self.process.trims == 2

    @pytest.mark.parametrize("fault", [OSError(2, "No such file"), ValueError("nonsense"), RuntimeError("anything")])
    def test_memory_that_cannot_be_read_is_not_full(self, fault: Exception) -> None:
        """That is logged once, until it can be read again; the looks go on."""
        assert self.use(2000)
        self.process.fault = fault
        assert not self.use(2000)
        assert not self.use(2000)
        assert self.lines()[1:] == [f"memory: it cannot be read, and counts as enough: {fault}"]
        self.process.fault = None
        assert self.use(2000)
        self.process.fault = fault
        assert not self.use(2000)
        assert len(self.logged.events) == 4

    def test_trimming_that_fails_does_not_end_the_looks(self) -> None:
        """It counts as memory that cannot be read, until the next look."""

        def fail() -> None:
            raise RuntimeError("no trim")

        self.process.trim = fail  # type: ignore[method-assign]
        self.guard.stopService()
        self.guard = self.make("1000MiB", None)
        self.guard.startService()
        assert not self.use(1001)
        assert self.use(1001)
        assert not self.use(1)

    def test_it_looks_at_once(self) -> None:
        """A process that starts with too much of it never lets anybody in."""
        self.guard.stopService()
        self.process.resident = 1001 * MIB
        self.guard.startService()
        assert self.guard.is_full

    def test_when_it_stops_it_is_not_full(self) -> None:
        """And leaves no timer behind."""
        assert self.use(2000)
        self.guard.stopService()
        assert not self.guard.is_full
        assert not self.clock.getDelayedCalls()

    def test_a_share(self) -> None:
        """Of what there is when it starts."""
        self.guard.stopService()
        self.guard = self.make("85%", MemoryBound(2000 * MIB, "cgroup"))
        self.guard.startService()
        assert self.guard.limit == 1700 * MIB
        assert self.lines() == ["memory: no new clients above 1700 MiB; the cgroup has 2000 MiB"]
        assert not self.use(1700)
        assert self.use(1701)

    def test_a_share_of_what_nobody_knows(self) -> None:
        """Is no limit, which is said."""
        self.guard.stopService()
        self.guard = self.make("85%", None)
        self.guard.startService()
        assert self.guard.limit == 0
        assert self.lines() == ["memory: no limit, for neither a cgroup nor the host says how much there is"]
        assert not self.use(10**6)

    def test_a_size_that_is_more_than_there_is(self) -> None:
        """Would never be reached: that is said."""
        self.guard.stopService()
        self.guard = self.make("2000MiB", MemoryBound(1000 * MIB, "cgroup"))
        self.guard.startService()
        assert self.lines()[1:] == ["memory: the limit of 2000 MiB is more than the cgroup has"]

    @pytest.mark.parametrize("bound", [None, MemoryBound(GIB, "host")])
    def test_off(self, bound: MemoryBound | None) -> None:
        """Nothing is looked at, nothing said."""
        self.guard.stopService()
        self.guard = self.make("off", bound)
        self.guard.startService()
        assert not self.clock.getDelayedCalls()
        assert not self.use(10**6)
        assert not self.logged.events

    @given(st.lists(st.integers(900, 1100), max_size=40))
    @property_test
    def test_it_is_full_exactly_by_its_rule(self, course: list[int]) -> None:
        """Against the rule written down in two lines."""
        full = self.guard.is_full
        for mib in course:
            full = mib > (980 if full else 1000)
            assert self.use(mib) == full


def test_the_real_parts_fit_together(logged: LogCapture) -> None:
    """A Python of less than 1 MiB there is none."""
    clock = Clock()
    guard = MemoryGuard(clock, MemoryLimit(size=MIB))
    guard.startService()
    assert guard.is_full
    assert any(re.search("new clients are refused", text) for text in logged.formats())
    guard.stopService()
