"""The best levels of a book, after any updates: what sorting all of it comes to."""

from __future__ import annotations

import json
import random
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.model.book import DepthMessage
from marketfeed.model.book_state import BookState
from marketfeed.model.ladder import Ladder
from marketfeed.model.levels import Row
from tests.books import depths, sequences
from tests.strategies import property_test


def sorted_best(book: DepthMessage, most: int) -> tuple[list[Row], list[Row]]:
    """The best levels by sorting all."""

    def text(token: object) -> str:
        return token if isinstance(token, str) else str(json.loads(bytes(token), parse_float=str, parse_int=str))  # type: ignore[call-overload]

    sides = []
    for side, is_descending in ((book.bids, True), (book.asks, False)):
        levels = [(text(price), text(quantity)) for price, quantity in side.levels.values()]
        sides.append(sorted(levels, key=lambda level: Decimal(level[0]), reverse=is_descending)[:most])
    return sides[0], sides[1]


@property_test
@given(st.lists(sequences(3), max_size=4), st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_any_updates(runs: list[list[bytes]], looks: list[int]) -> None:
    """Whenever somebody looks, at however many levels."""
    book = DepthMessage.empty()
    ladder = Ladder(book)
    for look, data in zip(looks, [data for run in runs for data in run], strict=False):
        message = DepthMessage.parse(data)
        message.is_snapshot = False
        book.take(message)
        ladder.take(message)
        if look:
            best = ladder.best(look)
            assert (best.bids, best.asks) == sorted_best(book, look)


@property_test
@given(depths(is_snapshot=True), st.lists(depths(is_snapshot=False), max_size=3), st.integers(1, 5))
@example(b'{"e":"depth","a":[["1.00000000000000000000001","1"],["1","2"]],"b":[],"snapshot":true}', [], 2)
def test_a_state(whole: bytes, updates: list[bytes], most: int) -> None:
    """From a snapshot on, and from the next one on."""
    state, onlooker = BookState(), BookState()
    state.watch(lambda: None)
    assert state.best(most) is None
    for _ in range(2):
        for data in (whole, *updates):
            state.record(data)
            onlooker.record(data)
            best, seen = state.best(most), onlooker.best(most)
            assert (best is None) == (seen is None)
            if best is not None and seen is not None:
                assert (best.bids, best.asks, best.time) == (seen.bids, seen.asks, seen.time)
            written = state.snapshot()
            assert (best is None) == (written is None)
            if best is not None:
                book = DepthMessage.parse(written or b"")
                assert (best.bids, best.asks) == sorted_best(book, most)


def test_many_levels_and_few_changes() -> None:
    """A thousand levels, of which those near the middle change, and sometimes very many at once."""
    chance = random.Random(7)
    book = DepthMessage.empty()
    ladder = Ladder(book)
    for step in range(2000):
        count = 400 if step % 400 == 0 else chance.randint(1, 4)
        rows = {
            side: [
                [f"{1000 + sign * chance.randint(1, 500) / 100:.2f}", str(chance.choice((0, 0, 1, 2, 3)))]
                for _ in range(count)
            ]
            for side, sign in (("a", 1), ("b", -1))
        }
        message = DepthMessage.parse(json.dumps({"e": "depth", **rows}).encode())
        book.take(message)
        ladder.take(message)
        if step % 3:
            best = ladder.best(20)
            assert (best.bids, best.asks) == sorted_best(book, 20)


def test_the_same_list_for_as_long_as_nothing_changes() -> None:
    """So that it is seen at a glance."""
    book = DepthMessage.parse(b'{"e":"depth","a":[["3","1"],["4","1"],["5","1"]],"b":[["2","1"]],"snapshot":true}')
    ladder = Ladder(book)
    first = ladder.best(2)
    for data, same in (
        (b'{"e":"depth","a":[["5","7"],["6","1"]],"b":[]}', True),
        (b'{"e":"depth","a":[["4","7"]],"b":[]}', False),
    ):
        message = DepthMessage.parse(data)
        book.take(message)
        ladder.take(message)
        assert (ladder.best(2).asks is first.asks) == same
        assert ladder.best(2).bids is first.bids
    assert ladder.best(2).asks == [("3", "1"), ("4", "7")]


@pytest.mark.parametrize(
    ("fields", "time"),
    [
        ({"E": 17, "T": 16}, 17), ({"T": 16}, 16), ({"E": "17"}, None), ({"E": 1.5, "T": 3}, 3), ({"E": -1}, None),
        ({"E": 10**16}, None), ({}, None),
    ],
)  # fmt: skip
def test_the_time(fields: dict[str, object], time: int | None) -> None:
    """That of the newest message, if it says one that is a time."""
    state = BookState()
    state.record(json.dumps({"e": "depth", "a": [], "b": [], "snapshot": True, "E": 1}).encode())
    state.record(json.dumps({"e": "depth", "a": [], "b": [], **fields}).encode())
    best = state.best(1)
    assert best is not None
    assert best.time == time


def test_who_looks_away_costs_nothing() -> None:
    """And sees the book as it is, when it looks again."""
    state = BookState()
    state.watch(lambda: None)
    state.record(b'{"e":"depth","a":[["3","1"]],"b":[],"snapshot":true}')
    assert state.best(1) is not None
    state.look_away()
    state.record(b'{"e":"depth","a":[["2","1"]],"b":[]}')
    best = state.best(1)
    assert best is not None
    assert best.asks == [("2", "1")]
