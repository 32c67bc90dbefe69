"""Several links, whose publications go out together."""

from __future__ import annotations

from twisted.internet.task import Clock

from marketfeed.redis.turn_flush import TurnFlush


def test_what_came_in_one_turn_goes_out_once() -> None:
    clock, flushes = Clock(), list[float]()
    flush = TurnFlush(clock, lambda: flushes.append(clock.seconds()))
    flush.startService()
    for _ in range(3):
        flush()
    assert not flushes
    clock.advance(0)
    assert len(flushes) == 1
    clock.advance(1)
    flush()
    clock.advance(0)
    assert flushes == [0.0, 1.0]
    flush.stopService()
    assert not clock.getDelayedCalls()


def test_nothing_waits_at_the_end() -> None:
    clock, flushes = Clock(), list[float]()
    flush = TurnFlush(clock, lambda: flushes.append(clock.seconds()))
    flush()
    assert len(flushes) == 1
    flush.startService()
    flush()
    flush.stopService()
    assert len(flushes) == 2
    assert not clock.getDelayedCalls()
    flush()
    assert len(flushes) == 3
