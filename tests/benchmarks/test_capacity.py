"""How many clients a server can have: found in few runs, whatever it is."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.capacity import is_well, most_clients
from benchmarks.workloads import Climb
from marketfeed.commands.bench.report import Report
from marketfeed.commands.bench.tally import Percentiles
from tests.commands.bench.test_report import REPORT

RATE = 500.0


def report(clients: int = 1, p99: float = 1.0, rate: float = RATE, **fields: object) -> Report:
    """A run in which all was well, but for what is given."""
    latency = Percentiles(p50=1.0, p90=1.0, p99=p99, p99_9=p99, max=p99)
    well = msgspec.structs.replace(
        REPORT, clients=clients, latency_ms=latency, published_per_second=rate, lost=0, duplicated=0, closed={}
    )
    return msgspec.structs.replace(well, **fields)


@given(capacity=st.integers(0, 200_000), first=st.integers(1, 5000), most=st.integers(1, 100_000))
def test_any_capacity_is_found(capacity: int, first: int, most: int) -> None:
    """Less than a tenth below what it is, and never above, in at most 40 runs."""
    asked: list[int] = []

    def measure(clients: int) -> Report:
        asked.append(clients)
        return report(clients, 100.0 if clients <= capacity else 100.1)

    found = most_clients(measure, Climb(first, most, 100.0), RATE).clients
    if capacity == 0:
        assert found == 1
    else:
        assert found <= capacity
        assert found >= min(capacity, most) / 1.1 - 1
    assert max(asked) <= most
    assert len(asked) == len(set(asked)) <= 40


@pytest.mark.parametrize(
    "bad",
    [
        {"p99": 100.1},
        {"rate": 400.0},
        {"lost": 1},
        {"closed": {"1006": 1}},
        {"latency_ms": None},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_all_is_well_only_if_everything_is(bad: dict[str, object]) -> None:
    """A late message, an engine that was held up, something lost, a client that was cut off, nothing that came."""
    assert is_well(report(p99=100.0, rate=495.0), 100.0, RATE)
    assert not is_well(report(**bad), 100.0, RATE)  # type: ignore[arg-type]
