"""What stands for several publications: the same for who applies it, and as few messages as may be."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.conflation import new_conflation
from marketfeed.model.kinds.depth import DEPTH
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.kinds.mini_ticker import ALL_MINI_TICKERS
from marketfeed.model.kinds.ticker import TICKER
from tests.books import depths, may_merge, replay, sequences
from tests.strategies import property_test


def conflated(kind: StreamKind, *publications: bytes) -> list[tuple[str, bytes]]:
    conflation = new_conflation(kind)
    assert not conflation
    for number, data in enumerate(publications):
        conflation.add(data, f"e-{number}")
        assert conflation
    taken = conflation.take()
    assert not conflation
    assert conflation.take() == []
    return taken


def update(first: int, last: int, **further: object) -> bytes:
    return json.dumps({"e": "depth", "a": [[str(last), "1"]], "b": [], "U": first, "u": last} | further).encode()


def test_nothing_stands_for_nothing() -> None:
    """Whatever the kind."""
    assert conflated(TICKER) == conflated(DEPTH) == []


def test_one_goes_as_it_came() -> None:
    """Every byte of it, whatever they are."""
    odd = b'{ "e":"depth", "a":[[1.50,"2"]],"b":[]}'
    for kind in (TICKER, DEPTH):
        for data in (odd, b"{}", b"no JSON"):
            assert conflated(kind, data) == [("e-0", data)]


def test_the_newest() -> None:
    """Of a ticker, with its offset."""
    assert conflated(TICKER, b"1", b"2", b"3") == [("e-2", b"3")]


def test_of_many_markets_the_newest_of_each() -> None:
    """As their kind merges them."""
    one, two = b'[{"s":"A","c":"1"},{"s":"B","c":"1"}]', b'[{"s":"A","c":"2"}]'
    assert conflated(ALL_MINI_TICKERS, one, two) == [("e-1", b'[{"s":"A","c":"2"},{"s":"B","c":"1"}]')]


def test_updates_become_one() -> None:
    """With the first id of the first and the last of the last, and the offset of the last."""
    ((offset, data),) = conflated(DEPTH, update(1, 2), update(3, 3), update(4, 9, E=7))
    message = json.loads(data)
    assert (offset, message["U"], message["u"], message["E"], len(message["a"])) == ("e-2", 1, 9, 7, 3)


def test_nothing_is_merged_over_a_jump() -> None:
    """What is missing between two updates may concern any level."""
    taken = conflated(DEPTH, update(1, 2), update(3, 3), update(5, 6), update(7, 7))
    assert [(offset, json.loads(data)["U"], json.loads(data)["u"]) for offset, data in taken] == [
        ("e-1", 1, 3), ("e-3", 5, 7),
    ]  # fmt: skip


def test_a_snapshot_takes_the_place_of_what_was_before_it() -> None:
    """Also over a jump, and updates merge into it."""
    whole = update(9, 9, snapshot=True)
    assert conflated(DEPTH, update(1, 2), update(5, 6), whole) == [("e-2", whole)]
    ((offset, data),) = conflated(DEPTH, update(1, 2), whole, update(10, 12))
    assert (offset, json.loads(data)["snapshot"], json.loads(data)["u"]) == ("e-2", True, 12)


@pytest.mark.parametrize("odd", [b'{"e":"depth"}', b"no JSON", b'{"a":[["x","1"]],"b":[]}', b"[" * 50000])
def test_what_cannot_be_merged_stands_alone(odd: bytes) -> None:
    """And nothing is merged across it, nor taken away by a snapshot behind it."""
    whole = update(9, 9, snapshot=True)
    messages = [update(1, 1), update(2, 2), odd, update(3, 3), update(4, 4), odd, odd, whole]
    taken = conflated(DEPTH, *messages)
    assert [offset for offset, _ in taken] == ["e-1", "e-2", "e-4", "e-5", "e-6", "e-7"]
    assert [data for _, data in taken if data in messages] == [odd, odd, odd, whole]


@property_test
@given(st.lists(sequences(3), min_size=1, max_size=3))
def test_the_book_is_the_same(runs: list[list[bytes]]) -> None:
    """Of any messages, what stands for them makes the same book; and no two of those could have been one."""
    messages = [data for run in runs for data in run]
    taken = conflated(DEPTH, *messages)
    assert replay([data for _, data in taken]) == replay(messages)
    assert taken[-1][0] == f"e-{len(messages) - 1}"
    for (_, one), (_, other) in pairwise(taken):
        assert not may_merge(one, other)
        assert json.loads(other).get("snapshot") is not True


@property_test
@given(st.lists(depths(is_snapshot=False), max_size=4), depths(is_snapshot=True), st.lists(depths(False), max_size=4))
def test_a_snapshot_is_never_lost(before: list[bytes], whole: bytes, after: list[bytes]) -> None:
    """Whatever comes before and behind it, the first message is whole."""
    taken = conflated(DEPTH, *before, whole, *after)
    assert json.loads(taken[0][1])["snapshot"] is True
