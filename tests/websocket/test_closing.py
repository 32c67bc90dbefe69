"""How long the last bytes of a connection are waited for. Its line of the log is tested in `test_connection`."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from marketfeed.websocket.closing import CLOSE_SECONDS, SendTimeout
from tests.fakes import FakeTransport


def closing(*, is_patient: bool) -> tuple[Clock, FakeTransport, SendTimeout]:
    """A connection on which 100,000 bytes have been written, and of which the peer has taken none."""
    clock, transport = Clock(), FakeTransport()
    transport.socket.room = 0
    transport.write(b"x" * 100_000)
    return clock, transport, SendTimeout(clock, transport, is_patient=is_patient)


@pytest.mark.parametrize("is_patient", [True, False])
def test_a_peer_that_takes_nothing_is_cut_off(is_patient: bool) -> None:
    """After five seconds, not before."""
    clock, transport, _ = closing(is_patient=is_patient)
    clock.advance(CLOSE_SECONDS - 0.1)
    assert not transport.aborted
    clock.advance(0.2)
    assert transport.aborted
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("is_patient", "taken", "lasts"), [(True, 16_384, 6), (True, 16_383, 0), (True, 50_000, 2), (False, 50_000, 0)]
)
def test_one_that_takes_some_of_it_is_given_time(is_patient: bool, taken: int, lasts: int) -> None:
    """Of who is patient, and at 16 KiB in five seconds at least; nothing is waited for when nothing is left."""
    clock, transport, _ = closing(is_patient=is_patient)
    for _ in range(lasts):
        transport.socket.room = taken
        transport.turn()
        clock.advance(CLOSE_SECONDS)
        assert not transport.aborted
    transport.socket.room = min(taken, 16_383)
    transport.turn()
    clock.advance(CLOSE_SECONDS)
    assert transport.aborted


def test_nobody_is_cut_off_who_has_gone() -> None:
    """Twice is as good as once."""
    clock, transport, timeout = closing(is_patient=True)
    timeout.cancel()
    timeout.cancel()
    assert not clock.getDelayedCalls()
    assert not transport.aborted
