"""Histograms: each value is counted once, by the least bound that it does not exceed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.runtime.histogram import CLIENTS, SECONDS, Histogram


def test_a_value_counts_for_every_bound_that_it_does_not_exceed() -> None:
    histogram = Histogram((1, 2, 5))
    for value in (0, 1, 1.5, 5, 6):
        histogram.observe(value)
    assert histogram.counts == [2, 3, 4, 5]
    assert histogram.sum == 13.5


@given(st.lists(st.floats(0, 100)))
def test_whatever_comes(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert histogram.counts == [*[sum(value <= bound for value in values) for bound in SECONDS], len(values)]


def test_bounds_ascend() -> None:
    assert list(SECONDS) == sorted(SECONDS)
    assert list(CLIENTS) == sorted(CLIENTS)
