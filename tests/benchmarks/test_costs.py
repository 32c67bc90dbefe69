"""The measure of what market data cost: what its engine writes, and that all of it takes part."""

from __future__ import annotations

import json

from benchmarks.costs import Engine, Running
from marketfeed.model.book_state import BookState
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds


def test_the_engine_changes_the_best_of_a_book_all_the_time() -> None:
    """It writes what the daemon takes, and no level comes or goes."""
    read = PublicationReader(StreamKinds().parse("depth@HOT"), ("depth@HOT",), 1 << 20).read
    engine, state = Engine(40), BookState()
    state.record(read(engine.book()))
    seen = set()
    for _ in range(80):
        update = read(engine.update())
        assert sum(len(json.loads(update)[side]) for side in "ab") == 40
        state.record(update)
        best = state.best(1)
        assert best is not None
        assert (best.bids[0][0], best.asks[0][0]) == ("999.95", "1000.00")
        seen.add(best.asks[0][1])
    assert len(seen) == 80
    assert state.level_count == 1000


def test_everybody_gets_something() -> None:
    """What is compared with a plain stream is more than that."""
    plain = Running(["depth@HOT"], "depth@HOT", Engine(4).update, ticks=True)
    more = Running(["depth@HOT", "bookTicker@HOT", "depth5@HOT"], "depth@HOT", Engine(4).update, ticks=True)
    made = Running(["depth@HOT"], "depth@HOT", Engine(4).update, on_paths=True)
    assert plain.sent < made.sent
    assert plain.sent < more.sent
