"""What stands for several publications: the same for who applies it, and as few messages as may be."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.book import DepthMessage
from marketfeed.model.book_state import BookState
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


def test_a_message_is_read_once_for_it_and_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks first, or when much waits; what is merged changes nothing of the book."""
    read: list[bytes] = []
    parsed = DepthMessage._parsed.__func__  # type: ignore[attr-defined]

    def count(cls: type[DepthMessage], data: bytes) -> DepthMessage:
        read.append(data)
        return parsed(cls, data)  # type: ignore[no-any-return]

    monkeypatch.setattr(DepthMessage, "_parsed", classmethod(count))
    book = BookState()
    conflation = new_conflation(DEPTH, state=book)
    assert read == []
    messages = [update(1, 1, snapshot=True), *[update(number, number) for number in range(2, 301)]]
    for number, data in enumerate(messages):
        book.record(data)
        conflation.add(data, str(number))
        if number == 150:
            assert book.is_complete
        elif number == 270:
            ((_, one),) = conflation.take()
            assert json.loads(one)["u"] == 271
    ((offset, other),) = conflation.take()
    assert len(read) <= len(messages) + 5, "but for the few that had come to one of the two only"
    assert (offset, json.loads(other)["U"]) == ("299", 272)
    assert json.loads(book.snapshot() or b"")["a"] == [[str(number), "1"] for number in range(1, 301)]
    conflation.close()
    assert not conflation
    assert not book.readers


def test_what_is_read_is_shared_and_stays_what_it_was() -> None:
    """Two who want it at other rates, and the book, know the same of it."""
    book = BookState()
    seen: list[tuple[DepthMessage, bytes]] = []
    book.readers[lambda readings: seen.extend([(each, each.to_bytes()) for each in readings.values()])] = None
    fast, slow = new_conflation(DEPTH, state=book), new_conflation(DEPTH, state=book)
    for number in range(1, 31):
        data = update(number, number, snapshot=number == 1)
        book.record(data)
        for conflation in (fast, slow):
            conflation.add(data, str(number))
        if number % 7 == 0:
            ((_, quick),) = fast.take()
            assert (json.loads(quick)["u"], len(json.loads(quick)["a"])) == (number, 7)
    ((_, one),) = slow.take()
    assert [row[0] for row in json.loads(one)["a"]] == [str(number) for number in range(1, 31)]
    assert json.loads(book.snapshot() or b"")["a"] == json.loads(one)["a"]
    assert [each.to_bytes() for each, _ in seen] == [written for _, written in seen]


def test_what_waits_is_bounded() -> None:
    """It is read when it is much, and each that is merged takes no more room."""
    for state in (None, BookState()):
        conflation: Any = new_conflation(DEPTH, state=state)
        for number in range(1, 2000):
            conflation.add(update(number, number), "")
            assert len(conflation._waiting) <= 64
            assert conflation.reading_cost == sum([len(data) for data, _ in conflation._waiting]) // 16
        conflation.add(update(2000, 2000, x="x" * 300_000), "")
        assert not conflation._waiting
