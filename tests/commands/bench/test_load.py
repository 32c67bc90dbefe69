"""The course of a load test, as far as it needs no server (see tests/system/test_bench.py)."""

from __future__ import annotations

from collections.abc import Iterator

from marketfeed.commands.bench.load import Patience


def test_patience_runs_out_when_nothing_changes() -> None:
    """Each change begins it anew."""
    times: Iterator[float] = iter([0, 2, 4, 5.5, 7.5])
    patience = Patience(lambda: next(times), 3)
    assert [patience.has_run_out(number) for number in (1, 1, 2, 2, 2)] == [False, False, False, False, True]
