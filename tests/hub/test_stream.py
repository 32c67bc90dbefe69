"""A stream that is wanted: whether it flows, and what is kept of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.book_state import BookState
from marketfeed.model.state import LatestState
from tests.fakes import make_stream
from tests.strategies import property_test


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


NEWS = st.sampled_from(("confirm", "lose", "refuse", "miss", "fail", "publish"))


@property_test
@given(st.lists(NEWS, max_size=12))
def test_a_stream_flows_or_has_a_gap_whatever_is_said_of_it(news: list[str]) -> None:
    """Never both, and each gap has one beginning, whatever it becomes; what comes behind a loss is no news of it."""
    stream, gap, flows = make_stream("depth@A"), None, False
    for now, what in enumerate(news, 1):
        before = stream.history.latest
        match what:
            case "confirm":
                assert stream.confirm(now, None) == gap
                gap, flows = None, True
                assert (stream.heard, stream.was_lost) == (now, True)
            case "lose":
                assert stream.lose(now) == (gap is None)
                gap, flows = gap or ("source-down", now), False
            case "refuse":
                assert stream.refuse(now) == (gap is None or gap[0] != "source-refused")
                gap, flows = ("source-refused", gap[1] if gap else now), False
            case "miss":
                stream.miss(now)
                assert stream.heard == now
            case "fail":
                stream.fail(None)
            case _:
                stream.history.add(b"{}", now)
        assert (stream.gap, stream.confirmed) == (gap, flows)
        assert stream.history.reaches(before or "") == (what not in ("confirm", "fail"))
        assert stream.is_settled(with_state=True) == (flows or gap is not None)


def test_a_jump_is_told_once_a_second_from_its_first_beginning() -> None:
    """What was told is not told again."""
    stream = make_stream("depth@A")
    assert stream.untold(10.0) is None
    assert stream.jump(1000, 10.0) == 1000
    assert stream.jump(1200, 10.3) is None
    assert stream.jump(1400, 10.5) is None
    assert stream.untold(10.9) is None
    assert stream.untold(11.0) == 1200
    assert stream.untold(12.0) is None


def test_a_state_that_a_snapshot_completes_makes_jumps_news_again() -> None:
    """Where it is not complete, nothing is given out, and what was told of the loss still holds."""
    stream = make_stream("ticker@A")
    stream.confirm(1.0, None)
    assert (stream.completed(), stream.was_lost) == (None, True)
    assert isinstance(stream.state, LatestState)
    stream.state.seed(b"{}")
    assert (stream.completed(), stream.was_lost) == (b"{}", False)
