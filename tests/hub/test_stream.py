"""A stream that is wanted: whether it flows, and what is kept of it."""

from __future__ import annotations

from marketfeed.model.state import BookState, LatestState
from tests.fakes import make_stream


def test_the_state_of_a_stream_goes_by_its_loss_policy() -> None:
    """Depth adds up to a book, of tickers the newest counts, of trades each by itself."""
    assert isinstance(make_stream("depth@A").state, BookState)
    assert isinstance(make_stream("ticker@A").state, LatestState)
    assert make_stream("trade@A").state is None


def test_a_stream_is_settled_when_it_flows_or_is_known_not_to() -> None:
    """That is when nobody has to wait for it; whoever wants its state, until that has been looked for."""
    stream = make_stream("depth@A")

    def settled() -> tuple[bool, bool]:
        return stream.is_settled(True), stream.is_settled(False)

    assert settled() == (False, False)
    stream.lose(5)
    assert settled() == (True, True)
    stream.confirm(0.0, None)
    assert settled() == (True, True)
    stream.seek()
    assert settled() == (False, True)
