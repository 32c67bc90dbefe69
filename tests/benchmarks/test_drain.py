"""The measure of a drain: its table, and which rounds are good."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks.drain import Round, markdown

ROUND = Round(5000, 1.1, 0, 9.9, 0.1)


def test_the_table_has_each_round_and_what_they_have_in_common() -> None:
    """The least, the median and the most of each column."""
    rounds = [msgspec.structs.replace(ROUND, most=most, end=end) for most, end in ((1.0, 0.3), (1.5, 0.1), (1.1, 0.2))]
    assert markdown(rounds).splitlines()[2:] == [
        "| 1 | 5,000 | 1.00 | 0 | 9.9 | 0.30 |",
        "| 2 | 5,000 | 1.50 | 0 | 9.9 | 0.10 |",
        "| 3 | 5,000 | 1.10 | 0 | 9.9 | 0.20 |",
        "| least | 5,000 | 1.00 | 0 | 9.9 | 0.10 |",
        "| median | 5,000 | 1.10 | 0 | 9.9 | 0.20 |",
        "| most | 5,000 | 1.50 | 0 | 9.9 | 0.30 |",
    ]


@pytest.mark.parametrize("fault", [{"most": 2.01}, {"lost": 1}, {"end": 2.5}])
def test_what_is_no_good(fault: dict[str, float]) -> None:
    """A second with more than twice the mean, somebody who lost something, a process that does not end."""
    assert ROUND.is_good
    assert not msgspec.structs.replace(ROUND, **fault).is_good
