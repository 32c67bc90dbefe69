"""What a load test counts: the histogram's promise, and the judgement on numbers that come in any order."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.commands.bench.tally import ANY, Histogram, OrderCheck, Percentiles

values = st.integers(0, 10**12) | st.integers(0, 1000) | st.integers(0, 44).map(lambda power: 2**power)


class TestHistogram:
    @settings(deadline=None)
    @given(st.lists(st.tuples(values, st.integers(1, 5)), min_size=1), st.floats(0, 1))
    def test_a_percentile_is_at_most_one_part_in_64_too_high(
        self, counted: list[tuple[int, int]], share: float
    ) -> None:
        """It lies between the true one, by rank, and 65/64 of it."""
        histogram = Histogram()
        for value, times in counted:
            histogram.add(value, times)
        ordered = sorted(value for value, times in counted for _ in range(times))
        true = ordered[max(ceil(share * len(ordered)), 1) - 1]
        found = histogram.percentile(share)
        assert true <= found <= true * 65 / 64
        assert histogram.total == len(ordered)

    def test_percentiles_are_in_ms_and_the_highest_is_exact(self) -> None:
        """The greatest value is kept by itself."""
        histogram = Histogram()
        histogram.add(100, 98)
        histogram.add(123_457)
        histogram.add(1_234_567)
        assert histogram.percentiles() == Percentiles(0.1, 0.1, pytest.approx(123.457, rel=1 / 64), 1234.567, 1234.567)

    def test_nothing_counted_is_no_percentile(self) -> None:
        """There is no time that nothing took."""
        assert Histogram().percentiles() is None
        assert Histogram().percentile(0.5) == 0

    def test_clocks_that_disagree_give_nothing_below_zero(self) -> None:
        """An engine's clock may be ahead of ours."""
        histogram = Histogram()
        histogram.add(-5)
        assert histogram.percentile(1) == 0

    def test_what_is_out_of_all_bounds_is_counted_all_the_same(self) -> None:
        """The size is fixed; the greatest value is kept by itself."""
        histogram = Histogram()
        histogram.add(1 << 60)
        found = histogram.percentiles()
        assert found is not None
        assert (histogram.total, found.max) == (1, (1 << 60) / 1000)
        assert found.p50 == pytest.approx((1 << 45) / 1000)


class Model:
    """One client's stream, one number at a time."""

    def __init__(self) -> None:
        self.next = 1
        self.got: set[int] = set()
        self.duplicated = 0
        self.out_of_order = 0

    def take(self, first: int, after: int) -> None:
        for number in range(first, after):
            if number in self.got:
                self.duplicated += 1
            elif number < self.next:
                self.out_of_order += 1
            self.got.add(number)
            self.next = max(self.next, number + 1)


spans = st.tuples(st.integers(1, 40), st.integers(1, 8)).map(lambda span: (span[0], span[0] + span[1]))


class TestOrderCheck:
    @settings(deadline=None)
    @given(st.lists(spans, max_size=40))
    def test_it_judges_as_one_that_remembers_every_number(self, taken: list[tuple[int, int]]) -> None:
        """Whatever runs of numbers come: the same counts, the same holes, and the progress adds up."""
        order, model = OrderCheck(), Model()
        waits_for = {0: 1}
        progress = 0
        for first, after in taken:
            progress += order.take(7, waits_for, 0, first, after)
            model.take(first, after)
        assert waits_for[0] == model.next == 1 + progress
        assert (order.duplicated, order.out_of_order, order.unasked) == (model.duplicated, model.out_of_order, 0)
        assert order.lost(lambda stream, first, after: after - first) == model.next - 1 - len(model.got)

    def test_numbers_in_order_are_no_fault(self) -> None:
        """Nothing is noted."""
        order = OrderCheck()
        waits_for = {0: 1}
        assert [order.take(0, waits_for, 0, first, first + 2) for first in (1, 3, 5)] == [2, 2, 2]
        assert (order.duplicated, order.out_of_order, order.holes) == (0, 0, {})

    def test_each_client_and_stream_stands_for_itself(self) -> None:
        """What one has missed, another may have."""
        order = OrderCheck()
        first, second = {0: 1, 1: 1}, {0: 1, 1: 1}
        order.take(0, first, 0, 3, 4)
        order.take(1, second, 1, 5, 6)
        order.take(1, second, 0, 1, 2)
        assert order.holes == {(0, 0): [(1, 3)], (1, 1): [(1, 5)]}
        assert order.duplicated == order.out_of_order == 0

    def test_a_stream_that_was_not_asked_for(self) -> None:
        """It is counted, and no progress."""
        order = OrderCheck()
        assert order.take(0, {0: 1}, 5, 1, 2) == 0
        assert order.unasked == 1

    def test_who_waits_for_any_takes_the_first(self) -> None:
        """A market that exists already does not begin at 1."""
        order = OrderCheck()
        waits_for = {0: ANY}
        assert order.take(0, waits_for, 0, 1000, 1001) == 1
        order.take(0, waits_for, 0, 1002, 1003)
        assert order.holes == {(0, 0): [(1001, 1002)]}

    def test_from_a_snapshot_the_client_goes_on(self) -> None:
        """Whether it was behind or ahead: nothing that the snapshot stands for is missed."""
        order = OrderCheck()
        waits_for = {0: 5}
        assert order.take(0, waits_for, 0, 9, 9) == 4
        assert order.take(0, waits_for, 0, 9, 10) == 1
        order.take(0, waits_for, 0, 3, 3)
        order.take(0, waits_for, 0, 3, 4)
        assert (waits_for, order.holes, order.duplicated) == ({0: 4}, {}, 0)

    def test_lost_is_only_what_exists(self) -> None:
        """An engine's numbers may jump: a number that nobody got was perhaps never given."""
        order = OrderCheck()
        order.take(0, {0: 1}, 0, 10, 11)
        assert order.lost(lambda stream, first, after: len({2, 3, 50} & set(range(first, after)))) == 2
