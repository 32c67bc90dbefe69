"""How long the next read waits for."""

from __future__ import annotations

import pytest

from marketfeed.redis.read_pace import LEAST_PAUSE, LEAST_REST, MOST_IDLE, MOST_PAUSE, MOST_REST, ReadPace


def test_one_group_waits_itself() -> None:
    """Only with many streams, and when it has found something, there is a rest."""
    pace = ReadPace()
    assert pace.pause(1, 10, has_found=True) == 0
    assert LEAST_REST <= pace.pause(1, 1000, has_found=True) < pace.pause(1, 5000, has_found=True)
    assert pace.pause(1, 100_000, has_found=True) == MOST_REST
    assert pace.pause(1, 100_000, has_found=False) == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_who_is_in_no_hurry(groups: int) -> None:
    """There is a longer rest, however few streams there are; but what comes first after a while is not waited for."""
    pace = ReadPace(0.5)
    assert pace.pause(groups, 10, has_found=True) == 0.5
    assert ReadPace(0.0001).pause(groups, 100_000, has_found=True) == ReadPace().pause(groups, 100_000, has_found=True)
    assert pace.pause(1, 10, has_found=False) == 0


@pytest.mark.parametrize("groups", [2, 100, 1000, 100_000])
def test_several_groups_are_read_now_and_then(groups: int) -> None:
    """More seldom where there are many, and while nothing comes; at once often again when something does."""
    pace = ReadPace()
    busy = pace.pause(groups, groups, has_found=True)
    assert LEAST_PAUSE <= busy <= MOST_PAUSE
    pauses = [pace.pause(groups, groups, has_found=False) for _ in range(100)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 1.5 * busy
    assert 2 * busy <= pauses[-1] <= MOST_IDLE
    assert pace.pause(groups, groups, has_found=True) == busy
