"""What the machine says of processes."""

from __future__ import annotations

import os

import pytest

from marketfeed.commands.bench.machine import Usage, core_share, is_known, resident_kib, usage_of


def test_this_process_is_known() -> None:
    """It uses time and memory; one that is not there uses nothing."""
    pid = os.getpid()
    assert is_known(pid)
    assert not is_known(1 << 30)
    assert resident_kib([pid]) > 1000
    assert resident_kib([1 << 30]) == 0
    assert usage_of([1 << 30]).server == 0
    assert usage_of([pid]).server > 0


def test_the_share_of_a_core_is_that_of_the_time_between() -> None:
    """None when there is more than one, or no time has passed."""
    first, last = Usage(0, 0, (100, 1000)), Usage(0, 0, (160, 1080))
    assert core_share(first, last) == 0.75
    assert core_share(first, first) is None
    assert core_share(Usage(0, 0, None), last) is None


def test_a_pinned_process_has_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may use two cores has none of its own."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    core = usage_of([]).core
    assert core is not None
    assert 0 < core[0] <= core[1]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert usage_of([]).core is None
