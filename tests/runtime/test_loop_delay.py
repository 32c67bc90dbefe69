"""How late the reactor is: by what is due and when it comes."""

from __future__ import annotations

from twisted.internet.task import Clock

from marketfeed.runtime.loop_delay import LOOK_SECONDS, LoopDelay


def test_a_turn_that_takes_long_is_seen() -> None:
    clock = Clock()
    service = LoopDelay(clock)
    service.startService()
    clock.advance(LOOK_SECONDS)
    clock.advance(LOOK_SECONDS + 0.3)
    clock.advance(LOOK_SECONDS)
    assert service.delays.counts[-1] == 3
    assert abs(service.delays.sum - 0.3) < 1e-6


def test_nothing_is_left_when_it_stops() -> None:
    clock = Clock()
    service = LoopDelay(clock)
    service.startService()
    clock.advance(LOOK_SECONDS)
    service.stopService()
    assert not clock.getDelayedCalls()
