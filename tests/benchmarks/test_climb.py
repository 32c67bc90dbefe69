"""How many clients a server carries, found on servers that are made up."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.climb import LATENCY_MS, climb, holds
from benchmarks.results import FIGURES
from marketfeed.commands.bench.report import Report
from tests.commands.bench.test_report import REPORT
from tests.strategies import property_test


def step(clients: int, p99: float, *, busy: float = 0.5, cpu: float = 0.5) -> Report:
    """The report of so many clients."""
    assert REPORT.latency_ms is not None
    assert REPORT.server is not None
    return msgspec.structs.replace(
        REPORT,
        clients=clients,
        latency_ms=msgspec.structs.replace(REPORT.latency_ms, p99=p99),
        lost=0,
        duplicated=0,
        out_of_order=0,
        unasked=0,
        closed={},
        generator_busy=busy,
        server=msgspec.structs.replace(REPORT.server, cpu=cpu),
    )


@given(st.integers(0, 30_000), st.integers(1, 3000), st.integers(1, 20_000))
@property_test
def test_what_is_found_is_carried_and_not_much_more_would_be(capacity: int, first: int, most: int) -> None:
    """In few steps, of which those are done twice that do not hold, and none beyond what there can be."""
    asked: list[int] = []

    def measure(clients: int) -> Report:
        asked.append(clients)
        return step(clients, LATENCY_MS if clients <= capacity else LATENCY_MS + 1)

    found = climb(measure, first, most).clients
    assert all(asked.count(clients) == (1 if clients <= capacity else 2) for clients in asked)
    assert len(set(asked)) <= 2 * math.log2(most + 1) + 8
    assert all(1 <= clients <= most for clients in asked)
    if found:
        assert found in asked
        assert found <= capacity
        assert found == most or min(clients for clients in asked if clients > capacity) - found <= max(found / 10, 1)
    else:
        assert capacity < max(min(first, most) // 8, 1) * 1.1 + 1


def test_a_disturbance_is_passed_over() -> None:
    """A step that holds when it is done again has held."""
    disturbed = {1000, 3000}

    def measure(clients: int) -> Report:
        if clients in disturbed:
            disturbed.remove(clients)
            return step(clients, 500.0)
        return step(clients, 150.0 if clients > 3000 else 20.0)

    assert climb(measure, 1000, 10_000).clients == 3000
    assert not disturbed


def test_the_load_is_that_of_the_step_that_was_too_much() -> None:
    """There it is seen that the load generator was at its end, and not the server: more may be carried."""

    def measure(clients: int) -> Report:
        return step(clients, clients / 10, busy=clients / 1000, cpu=clients / 4000)

    found = climb(measure, 600, 10_000)
    assert found.clients == 975
    assert found.generator_busy > 1
    assert found.server is not None
    assert found.server.cpu < 0.3
    assert FIGURES["clients"].is_lower_bound(found)
    assert FIGURES["clients"].read(found) == 975
    assert not FIGURES["clients"].is_lower_bound(step(975, 97.5, busy=0.7, cpu=0.99))


@pytest.mark.parametrize("what", ["lost", "duplicated", "out_of_order", "unasked"])
def test_a_step_in_which_something_is_wrong_does_not_hold(what: str) -> None:
    """However early everything else was there."""
    assert holds(step(10, 1.0))
    assert not holds(msgspec.structs.replace(step(10, 1.0), **{what: 1}))
    assert not holds(msgspec.structs.replace(step(10, 1.0), closed={"4008": 1}))
    assert not holds(msgspec.structs.replace(step(10, 1.0), latency_ms=None))
