"""Buckets of tokens, against ones that reckon with exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.rate import TokenBucket, TokenBuckets
from tests.strategies import property_test


class ExactBucket:
    """The rules of the module, word by word, without rounding."""

    def __init__(self, rate: Fraction | float, burst: int, now: float = 0.0) -> None:
        self.rate, self.burst = Fraction(rate), burst
        self.tokens, self.latest = Fraction(burst), Fraction(now)

    def take(self, now: Fraction | float) -> bool:
        passed = max(Fraction(0), Fraction(now) - self.latest)
        self.tokens = min(Fraction(self.burst), self.tokens + passed * self.rate)
        self.latest = Fraction(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class ExactBuckets:
    """One for each key, with nothing ever forgotten, on a clock that only goes forward."""

    def __init__(self, rate: Fraction, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.buckets: dict[object, ExactBucket] = {}
        self.latest = self.now = Fraction(0)

    def take(self, key: object, now: float) -> int:
        self.now += max(Fraction(0), Fraction(now) - self.latest)
        self.latest = Fraction(now)
        bucket = self.buckets.setdefault(key, ExactBucket(self.rate, self.burst))
        return 0 if bucket.take(self.now) else math.ceil((1 - bucket.tokens) / self.rate)


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
@given(
    st.integers(1, 2**14).map(lambda rate: rate / 16),
    st.integers(1, 300),
    ticks,
    st.lists(st.tuples(ticks, st.integers(0, 3)), max_size=60),
)
def test_exactly_as_the_reference(rate: float, burst: int, start: float, times: list[tuple[float, int]]) -> None:
    """Where times are exact, every answer is the reference's, whichever way the clock goes, whatever is charged."""
    bucket, reference = TokenBucket(rate, burst, start), ExactBucket(rate, burst, start)
    for now, cost in times:
        assert bucket.take(now) == reference.take(now)
        bucket.charge(cost)
        reference.tokens -= cost


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


def permitted(buckets: TokenBuckets[str], key: str, now: float) -> int:
    """How many tokens there are for a key at this moment, up to 1000; afterwards there are none."""
    return sum(buckets.take(key, now) == 0 for _ in range(1000))


class TestBuckets:
    def make(self, burst: int, most: int = 65536) -> TokenBuckets[str]:
        """As many in 300 s as at once."""
        return TokenBuckets(burst / 300, burst, most)

    def test_a_burst_then_one_each_interval(self) -> None:
        """300 at once, then one a second; who comes in between hears when."""
        buckets = self.make(300)
        assert permitted(buckets, "a", 1.7e9) == 300
        assert buckets.take("a", 1.7e9) == buckets.wait("a", 1.7e9) == 1
        assert buckets.take("a", 1.7e9 + 0.9) == 1
        assert permitted(buckets, "a", 1.7e9 + 1) == 1
        assert permitted(buckets, "a", 1.7e9 + 11) == 10
        assert permitted(buckets, "a", 1.7e9 + 1000) == 300

    def test_to_ask_takes_nothing(self) -> None:
        """Nor is anybody remembered for it."""
        buckets = self.make(1)
        assert [buckets.wait("a", 0.0) for _ in range(3)] == [0, 0, 0]
        assert len(buckets) == 0

    def test_seconds_are_rounded_up(self) -> None:
        """And coming back after them is permitted."""
        buckets = self.make(7)
        assert permitted(buckets, "a", 0.0) == 7
        assert buckets.take("a", 0.0) == 43
        assert buckets.take("a", 42.0) == 1
        assert buckets.take("a", 43.0) == 0

    def test_each_key_has_its_own(self) -> None:
        """Whatever the others take."""
        buckets = self.make(1)
        assert [buckets.take(key, 0.0) for key in ("a", "b", "a")] == [0, 0, 300]

    def test_a_clock_that_goes_backwards(self) -> None:
        """Neither takes nor gives, and from there on tokens come at the same rate."""
        buckets = self.make(300)
        assert permitted(buckets, "a", 1000.0) == 300
        assert buckets.take("a", 500.0) == 1
        assert permitted(buckets, "a", 510.0) == 10

    def test_full_buckets_are_forgotten(self) -> None:
        """Those who came and went do not stay, however many there were."""
        buckets = self.make(300)
        for number in range(20000):
            buckets.take(str(number), number / 10)
            assert len(buckets) <= 40

    def test_when_nobody_can_be_forgotten_the_one_not_seen_for_longest_is(self) -> None:
        """A refused attempt is seen too. Who was forgotten starts anew."""
        buckets = self.make(1, most=3)
        assert [buckets.take(key, 0.0) for key in "abc"] == [0, 0, 0]
        assert buckets.take("a", 0.0) == 300
        assert buckets.take("d", 0.0) == 0  # in place of b
        assert len(buckets) == 3
        assert [buckets.take(key, 0.0) for key in "acd"] == [300, 300, 300]
        assert buckets.take("b", 0.0) == 0
        assert buckets.take("a", 0.0) == 0  # a was in the place of b
        assert len(buckets) == 3

    def test_who_is_refused_is_kept_when_others_can_be_forgotten(self) -> None:
        """Those whose bucket is full go, and not the one who was seen before all of them."""
        buckets = self.make(300)
        assert permitted(buckets, "a", 0.0) == 300
        for number in range(5000):
            buckets.take(str(number), number / 100)
        assert len(buckets) <= 400
        assert permitted(buckets, "a", 50.0) == 50

    @pytest.mark.parametrize("burst", [7, 999, 12345])
    def test_the_burst_is_whole(self, burst: int) -> None:
        """Adding up intervals that are no round numbers loses none of it, by a clock of today."""
        buckets = self.make(burst)
        assert [buckets.take("a", 1.7e9 + 0.123) for _ in range(burst)] == [0] * burst
        assert buckets.take("a", 1.7e9 + 0.123) > 0

    @property_test
    @given(
        st.sampled_from([1, 2, 3, 4, 6, 12, 25, 75, 300, 1200]),
        st.lists(st.tuples(st.sampled_from("abc"), ticks, st.integers(1, 4)), max_size=60),
    )
    def test_exactly_as_the_reference(self, burst: int, takes: list[tuple[str, float, int]]) -> None:
        """Where an interval is whole ticks, every answer is the reference's, whichever way the clock goes."""
        buckets, reference = self.make(burst), ExactBuckets(Fraction(burst, 300), burst)
        for key, now, repeated in takes:
            for _ in range(repeated):
                assert buckets.take(key, now) == reference.take(key, now)

    @property_test
    @given(st.integers(1, 10**6), st.floats(0, 2e9), st.lists(st.floats(-1, 100), max_size=60))
    def test_any_rate(self, burst: int, start: float, steps: list[float]) -> None:
        """Rounding puts off or brings forward one token at most, and never adds up to more."""
        buckets, reference = self.make(burst), ExactBuckets(Fraction(burst, 300), burst)
        now, ahead = start, 0
        for step in steps:
            now = max(0.0, now + step)
            ahead += (buckets.take("a", now) == 0) - (reference.take("a", now) == 0)
            assert abs(ahead) <= 1

    @property_test
    @given(st.integers(1, 20), st.integers(0, 2**30), st.lists(st.floats(0, 30), max_size=60))
    def test_coming_back_when_told_is_permitted(self, burst: int, start: int, steps: list[float]) -> None:
        """And not a whole second earlier."""
        buckets, now = self.make(burst), float(start)
        for step in steps:
            now += step
            wait = buckets.take("a", now)
            if wait:
                assert buckets.take("a", now + wait - 1) > 0
                now += wait
                assert buckets.take("a", now) == 0

    @property_test
    @given(st.integers(1, 3), st.integers(1, 4), st.lists(st.sampled_from("abcdefgh"), max_size=60))
    def test_at_most_so_many_are_remembered(self, burst: int, most: int, keys: str) -> None:
        """While no bucket fills, against a list of buckets in which each key that is seen goes to the end."""
        buckets = self.make(burst, most)
        model: dict[str, ExactBucket] = {}
        for key in keys:
            bucket = model.pop(key, None) or ExactBucket(Fraction(burst, 300), burst)
            model = dict([*model.items(), (key, bucket)][-most:])
            assert (buckets.take(key, 0.0) == 0) == bucket.take(0)
            assert len(buckets) == len(model)

    @property_test
    @given(
        st.sampled_from([1, 4, 75]), st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abcd"), ticks), max_size=60)
    )
    def test_who_has_room_is_forgotten_only_when_that_makes_no_difference(
        self, burst: int, most: int, takes: list[tuple[str, float]]
    ) -> None:
        """As many keys as there is room for are answered as if nothing was ever forgotten."""
        buckets, reference, now = self.make(burst, most), ExactBuckets(Fraction(burst, 300), burst), 0.0
        for key, step in takes:
            now += step / 16
            key = "abcd"["abcd".index(key) % most]
            assert buckets.take(key, now) == reference.take(key, now)
            assert len(buckets) <= most
