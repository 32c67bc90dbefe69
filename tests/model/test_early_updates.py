"""Updates that wait for a seed: their order against it, and their bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.early_updates import EarlyUpdates
from tests.strategies import property_test


def early(*updates: tuple[int, int] | None) -> EarlyUpdates:
    result = EarlyUpdates()
    for each in updates:
        if each is None:
            result.add_unordered()
        else:
            result.add(*each, b"%d" % each[1])
    return result


@property_test
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 3)), max_size=8), st.integers(-2, 30))
def test_the_updates_behind_a_seed_are_those_that_it_lacks(rows: list[tuple[bool, int, int]], seed: int) -> None:
    """All of them, in order; or none is known to fit: the first begins too late, or one without ids may be lacking."""
    updates: list[tuple[int, int] | None] = []
    last = 0
    for has_ids, overlap, width in rows:
        if has_ids:
            updates.append((last + 1 - overlap, last + width))
            last += width
        else:
            updates.append(None)
    covered = 0
    for at, each in enumerate(updates, 1):
        if each is not None and each[1] <= seed:
            covered = at
    rest = updates[covered:]
    fits = None not in rest and (not rest or (rest[0] or (0, 0))[0] <= seed + 1)
    expected = [b"%d" % each[1] for each in rest if each is not None] if fits else None
    assert early(*updates).behind(seed) == expected
    assert early(*updates).behind(None) == (None if updates else [])


def test_what_waits_is_bounded() -> None:
    """The oldest go; then a seed has to be newer."""
    updates = early(*[(number, number) for number in range(1, 2000)])
    assert updates.behind(998) is None
    assert len(updates.behind(999) or []) == 1000
    updates = EarlyUpdates()
    for number in range(1, 20):
        updates.add(number, number, b"x" * 100_000)
    assert updates.behind(8) is None
    assert len(updates.behind(9) or []) == 10
    updates.clear()
    assert updates.behind(0) == []
    updates.add(1, 1, b"x" * 1024 * 1024)
    assert updates.behind(0) == [b"x" * 1024 * 1024]


def test_an_update_that_is_too_large_to_keep_is_not_forgotten() -> None:
    """Only a seed that has it in it, or what came after it, fits."""
    updates = EarlyUpdates()
    updates.add(1, 1, b"x" * (1024 * 1024 + 1))
    assert updates.behind(0) is None
    updates.add(2, 2, b"x")
    assert updates.behind(1) is None
    assert updates.behind(2) == []


def test_one_without_ids_is_not_forgotten_when_it_is_among_the_oldest() -> None:
    """A seed that lacks the next one with ids may lack it too."""
    updates = early(None, *[(number, number) for number in range(1, 1500)])
    assert updates.behind(500) is None
    assert updates.behind(501) == [b"%d" % number for number in range(502, 1500)]
    for _ in range(3000):
        updates.add_unordered()
    assert len(updates._updates) <= 1001
