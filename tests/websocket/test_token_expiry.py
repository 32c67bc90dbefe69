"""The end of a token: who is told when, by two clocks that may go apart."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.websocket.token_expiry import NOTICE, TokenExpiry
from tests.strategies import property_test

NOW = 1_800_000_000.0


class Bearer:
    """Whose token it is: `told` is what it has heard, and when by the clock of the tokens.

    The reactor's clock and that of the tokens are two; `wait` moves both, by the same if nothing else is said.
    """

    def __init__(self, seconds: float) -> None:
        self.clock = Clock()
        self.now = NOW
        self.told: list[tuple[str, float]] = []
        self.expires_at = NOW + seconds
        self.ends_at_notice = False
        self.expiry = self.expect(self.expires_at)

    def expect(self, expires_at: float) -> TokenExpiry:
        return TokenExpiry(self.clock, lambda: self.now, expires_at, self.hear)

    def wait(self, seconds: float, now: float | None = None) -> None:
        self.now += seconds if now is None else now
        self.clock.advance(seconds)

    def pass_by(self, seconds: int) -> None:
        """Wait second by second."""
        for _ in range(seconds):
            self.wait(1)

    @property
    def timers(self) -> int:
        return len(self.clock.getDelayedCalls())

    def hear(self, has_ended: bool) -> None:
        assert self.expiry.expires_at == self.expires_at
        self.told.append(("expired" if has_ended else "expires", self.now - NOW))
        if self.ends_at_notice:
            self.expiry.cancel()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (3600, [("expires", 3540), ("expired", 3600)]),
        (121, [("expires", 61), ("expired", 121)]),
        (120, [("expires", 60), ("expired", 120)]),
        (60, [("expires", 30), ("expired", 60)]),
        (4, [("expires", 2), ("expired", 4)]),
        (0, [("expired", 0)]),
        (-1, [("expired", 0)]),
    ],
)
def test_the_bearer_hears_a_minute_before_and_at_the_end(seconds: float, told: list[tuple[str, float]]) -> None:
    """When half of the time is over, where that is less than a minute; nothing is said from within the call that begins
    it.
    """
    bearer = Bearer(seconds)
    assert not bearer.told
    bearer.wait(0)
    bearer.pass_by(3700)
    assert bearer.told == told
    assert not bearer.timers


@pytest.mark.parametrize("after", [0, 1, 3539, 3540, 3599])
def test_nothing_is_heard_of_what_is_cancelled(after: int) -> None:
    """Any time before the end; twice is as good as once."""
    bearer = Bearer(3600)
    bearer.pass_by(after)
    told = list(bearer.told)
    bearer.expiry.cancel()
    bearer.expiry.cancel()
    assert not bearer.timers
    bearer.pass_by(100)
    assert bearer.told == told


def test_it_can_be_cancelled_after_its_end() -> None:
    """Which does nothing."""
    bearer = Bearer(1)
    bearer.pass_by(2)
    bearer.expiry.cancel()
    assert bearer.told == [("expired", 1)]


def test_a_bearer_may_end_when_it_hears_the_notice() -> None:
    """As one does that is too slow to take another message: no timer is left that would hold it."""
    bearer = Bearer(200)
    bearer.ends_at_notice = True
    bearer.pass_by(300)
    assert bearer.told == [("expires", 140)]
    assert not bearer.timers


def test_a_renewal_is_another_expiry() -> None:
    """The bearer cancels the old one, and hears of the new end only."""
    bearer = Bearer(130)
    bearer.pass_by(80)
    bearer.expiry.cancel()
    bearer.expires_at = NOW + 260
    bearer.expiry = bearer.expect(bearer.expires_at)
    bearer.pass_by(300)
    assert bearer.told == [("expires", 70), ("expires", 200), ("expired", 260)]


@pytest.mark.parametrize("end", [253402300799.0, 253402300799.0 - NOTICE, NOW + 1e8])
def test_an_end_in_the_far_future_is_waited_for(end: float) -> None:
    """The latest that a token may have is the end of the year 9999."""
    bearer = Bearer(end - NOW)
    for _ in range(100):
        bearer.wait((end - NOW) / 101)
    assert not bearer.told
    assert bearer.timers == 1
    bearer.now = math.floor(end) - 59
    bearer.clock.advance(end)
    assert [word for word, _ in bearer.told] == ["expires"]
    bearer.expiry.cancel()


class TestClocksThatGoApart:
    def test_the_tokens_clock_is_slow(self) -> None:
        """Nobody is ended early: at the reactor's time the other is looked at again, as often as it takes."""
        bearer = Bearer(3600)
        for _ in range(7300):
            bearer.wait(1, 0.5)
        assert bearer.told == [("expires", 3540), ("expired", 3600)]

    def test_the_tokens_clock_is_put_back(self) -> None:
        """The notice is not given a second time."""
        bearer = Bearer(3600)
        bearer.pass_by(3550)
        bearer.wait(0, -1000)
        bearer.pass_by(1100)
        assert bearer.told == [("expires", 3540), ("expired", 3600)]

    def test_the_tokens_clock_is_put_forward_beyond_the_end(self) -> None:
        """Within five minutes the bearer hears that the token has expired, and not first that it will."""
        bearer = Bearer(3600)
        bearer.wait(0, 5000)
        bearer.pass_by(3600)
        assert bearer.told == [("expired", 5300)]
        assert not bearer.timers

    @property_test
    @example(100.0, [(40.0, 0.0), (60.0, 1e-9)], None)
    @given(
        st.floats(-30, 500),
        st.lists(st.tuples(st.floats(0, 200), st.floats(-50, 200)), max_size=20),
        st.none() | st.integers(0, 20),
    )
    def test_whatever_they_do(self, seconds: float, steps: list[tuple[float, float]], cancel_at: int | None) -> None:
        """Nothing is said too early, or twice; until the end there is one timer, then none, and it always comes."""
        bearer = Bearer(seconds)
        end = bearer.expires_at - NOW
        for number, (of_reactor, of_tokens) in enumerate(steps):
            if number == cancel_at:
                bearer.expiry.cancel()
                assert not bearer.timers
                return
            bearer.wait(of_reactor, of_tokens)
            words = [word for word, _ in bearer.told]
            assert words in ([], ["expires"], ["expires", "expired"], ["expired"])
            assert all(now >= end - (NOTICE if word == "expires" else 0) for word, now in bearer.told)
            assert bearer.timers == ("expired" not in words)
        bearer.wait(1e6)
        assert [word for word, _ in bearer.told][-1] == "expired"
        assert not bearer.timers
