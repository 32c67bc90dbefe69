"""Whose turn it is on a link that lives. What follows from a check is tested with the source, on a real server."""

from __future__ import annotations

import pytest

from marketfeed.redis.rotation import ROUND_SECONDS
from marketfeed.redis.stream_reads import Reading
from marketfeed.redis.verification import LOOK_SECONDS, TURN_SECONDS, Verification


@pytest.mark.parametrize(("members", "seconds"), [(1, 1), (100, TURN_SECONDS), (1000, TURN_SECONDS), (3000, 15)])
def test_what_is_read_has_its_turn_soon(members: int, seconds: float) -> None:
    """A book may be wrong until then."""
    verification = Verification(0.0)
    readings = [Reading(f"depth@{number}", b"") for number in range(members)]
    for reading in readings:
        verification.flows(reading)
    due = [
        reading
        for step in range(1, int(seconds / LOOK_SECONDS) + 1)
        for reading in verification.due(step * LOOK_SECONDS)
    ]
    assert set(due) == set(readings)


def test_who_is_read_and_who_is_refused() -> None:
    """Each has its turn; a refusal is news once, and again on another link, or when it is another."""
    verification = Verification(0.0)
    one, other = Reading("trade@A", b"trade@A"), Reading("trade@B", b"trade@B")
    verification.flows(one)
    verification.flows(other)
    assert verification.due(ROUND_SECONDS) == [one, other]
    assert verification.refuse(other, "NOPERM")
    assert not verification.refuse(other, "NOPERM")
    assert verification.refuse(other, "WRONGTYPE")
    assert other in verification.faults
    assert verification.due(2 * ROUND_SECONDS) == [one, other]
    verification.forget(one)
    verification.flows(other)
    assert other not in verification.faults
    assert verification.due(3 * ROUND_SECONDS) == [other]
    verification.begin(3 * ROUND_SECONDS)
    assert verification.due(4 * ROUND_SECONDS) == []
    assert verification.refuse(other, "WRONGTYPE")
    verification.forget(other)
    assert verification.due(9 * ROUND_SECONDS) == []
