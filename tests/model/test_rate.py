"""The bucket of tokens, against one that reckons with exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.rate import TokenBucket
from tests.strategies import property_test


class ExactBucket:
    """The rules of the module, word by word, without rounding."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate, self.burst = Fraction(rate), burst
        self.tokens, self.latest = Fraction(burst), Fraction(now)

    def take(self, now: float) -> bool:
        passed = max(Fraction(0), Fraction(now) - self.latest)
        self.tokens = min(Fraction(self.burst), self.tokens + passed * self.rate)
        self.latest = Fraction(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def takes(bucket: TokenBucket, now: float) -> int:
    """How many tokens the bucket has at `now`; afterwards it has none."""
    count = 0
    while bucket.take(now):
        count += 1
    return count


def test_burst() -> None:
    """A new bucket is full, and an empty one refuses."""
    assert takes(TokenBucket(10, 200, 0.0), 0.0) == 200


@pytest.mark.parametrize(
    ("seconds", "count"), [(0, 0), (0.05, 0), (0.1, 1), (1, 10), (19.9, 199), (20, 200), (9e9, 200)]
)
def test_refill(seconds: float, count: int) -> None:
    """An empty bucket fills at its rate, up to the burst."""
    bucket = TokenBucket(10, 200, 0.0)
    takes(bucket, 0.0)
    assert takes(bucket, seconds) == count


def test_fractions_add_up() -> None:
    """Refusals cost nothing: asking often does not starve the one who asks."""
    bucket = TokenBucket(0.5, 1, 100.0)
    assert bucket.take(100.0)
    assert [bucket.take(100.0 + step / 4) for step in range(1, 9)] == [False] * 7 + [True]


def test_clock_goes_backwards() -> None:
    """What was in the bucket stays, nothing is added, and it does not take until the old time to fill again."""
    bucket = TokenBucket(1, 2, 4000.0)
    assert bucket.take(4000.0)
    assert bucket.take(400.0)
    assert not bucket.take(400.0)
    assert not bucket.take(400.5)
    assert bucket.take(401.0)
    assert takes(bucket, 500.0) == 2


def test_what_is_charged_may_be_owed() -> None:
    """It is paid back before there are tokens again, at the steady rate."""
    bucket = TokenBucket(2, 3, 0.0)
    assert bucket.take(0.0)
    bucket.charge(4)
    assert not bucket.take(1.0)
    assert not bucket.take(1.25)
    assert bucket.take(1.5)
    assert takes(bucket, 100.0) == 3


def test_starts_when_it_is_made() -> None:
    """The time before the bucket was made adds nothing."""
    bucket = TokenBucket(1, 1, 1000.0)
    assert bucket.take(1000.0)
    assert not bucket.take(1000.5)


def test_is_small() -> None:
    """There is one per connection: it has no dictionary."""
    assert not hasattr(TokenBucket(1, 1, 0.0), "__dict__")


ticks = st.integers(0, 2**20).map(lambda tick: tick / 1024)


@property_test
@given(st.integers(1, 2**14).map(lambda rate: rate / 16), st.integers(1, 300), ticks, st.lists(ticks, max_size=60))
def test_exactly_as_the_reference(rate: float, burst: int, start: float, times: list[float]) -> None:
    """Where floats are exact, every answer is the reference's, whichever way the clock goes."""
    bucket, reference = TokenBucket(rate, burst, start), ExactBucket(rate, burst, start)
    for now in times:
        assert bucket.take(now) == reference.take(now)


@property_test
@given(
    st.floats(0.001, 1e6),
    st.integers(1, 1000),
    st.floats(-1e6, 1e9),
    st.lists(st.floats(-1, 100), max_size=60),
)
def test_any_rate(rate: float, burst: int, start: float, steps: list[float]) -> None:
    """With any rate and clock, rounding puts off or brings forward one token at most, and never adds up to more."""
    bucket, reference = TokenBucket(rate, burst, start), ExactBucket(rate, burst, start)
    now, ahead = start, 0
    for step in steps:
        now += step
        ahead += bucket.take(now) - reference.take(now)
        assert abs(ahead) <= 1
