"""The state of streams of which the newest publication counts."""

from __future__ import annotations

from marketfeed.model.state import LatestState


def test_the_state_of_a_ticker_is_the_newest_one() -> None:
    """Byte for byte, live or from a seed; live wins."""
    state = LatestState()
    assert (state.is_complete, state.snapshot()) == (False, None)
    assert state.seed(b"seed")
    assert state.seed(b"newer seed")
    assert (state.is_complete, state.snapshot()) == (True, b"newer seed")
    assert state.record(b"live") is False
    assert not state.seed(b"seed")
    assert (state.is_complete, state.snapshot()) == (True, b"live")


def test_after_a_loss_a_ticker_is_not_the_newest_any_more() -> None:
    """The next one is, or the next seed."""
    state = LatestState()
    state.record(b"live")
    state.lose()
    assert (state.is_complete, state.snapshot()) == (False, None)
    assert state.seed(b"seed")
    state.lose()
    assert not state.is_complete
    state.record(b"live")
    assert state.snapshot() == b"live"
