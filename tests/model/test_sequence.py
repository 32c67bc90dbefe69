"""Ids in a field that the operator names: what jumps, and what is no id."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from marketfeed.model.book_state import BookState
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.publications import BadPublication, DropReason, PublicationReader
from marketfeed.model.sequence import Sequence, new_reader, recorder
from marketfeed.model.state import LatestState
from marketfeed.model.streams import StreamKinds
from tests.strategies import json_texts, property_test

ids = st.integers(-3, 9) | st.integers()
WITHOUT = [b'{"t":1}', b'{"n":"1"}', b'{"n":1.5}', b'{"n":true}', b'{"n":null}', b"[1]", b"{", b'{"n":1e400}', b""]


def numbered(number: object) -> bytes:
    return json.dumps({"a": 1, "n": number}).encode()


@property_test
@given(st.lists(ids | st.none(), max_size=20))
def test_what_jumps(numbers: list[int | None]) -> None:
    """All that is neither the next id nor the last one again, unless the one before had none."""
    sequence = Sequence("n")
    before: int | None = None
    for number in numbers:
        jumps = None not in (before, number) and number not in (before, before + 1)  # type: ignore[operator]
        assert sequence.record(b"{}" if number is None else numbered(number)) == jumps
        before = number


def test_some_encoders_write_integers_as_floats() -> None:
    sequence = Sequence("n")
    assert [sequence.record(numbered(number)) for number in (1.0, 2, 3.0, 5.0)] == [False, False, False, True]


@property_test
@given(json_texts)
def test_anything_else_is_no_id(text: str) -> None:
    """And nothing raises."""
    assert not Sequence("n").record(text.encode())


def reader(kind: str) -> PublicationReader:
    kinds = [replace(BUILT_IN[0], ids="n"), StreamKind("orders", LossPolicy.KEEP, ids="n")]
    return new_reader(StreamKinds(kinds).parse(f"{kind}@A"), (f"{kind}@A",), 1000)


@pytest.mark.parametrize("wraps", [False, True])
def test_a_publication_has_to_have_one(wraps: bool) -> None:
    """What the kind demands besides is demanded as before."""
    trade: dict[str, Any] = {"e": "trade", "t": 1, "m": True, "p": "1", "q": "1", "s": "A"}

    def read(**fields: object) -> bytes:
        data: Any = {**trade, **fields}
        return reader("trade").read(json.dumps({"stream": "trade@A", "data": data} if wraps else data).encode())

    assert json.loads(read(n=7)) == {**trade, "n": 7}
    for fields, fault in (({}, "n"), ({"n": "7"}, "n"), ({"n": 7, "p": "x"}, "p")):
        with pytest.raises(BadPublication) as caught:
            read(**fields)
        assert caught.value.reason == DropReason.BAD_FIELD
        assert f"`{fault}`" in caught.value.fault or f"`$.{fault}`" in caught.value.fault
        assert caught.value.data is not None
        assert json.loads(caught.value.data) == {**trade, **fields}


@pytest.mark.parametrize("payload", WITHOUT)
def test_the_same_of_a_declared_kind(payload: bytes) -> None:
    assert reader("orders").read(b'{"n":1}') == b'{"n":1}'
    with pytest.raises(BadPublication):
        reader("orders").read(payload)


def test_without_a_field_the_state_alone_tells() -> None:
    """And where there is none, nothing is to be called."""
    assert recorder(None, None) is None
    state = LatestState()
    assert recorder(state, None) == state.record


def test_a_state_loses_what_was() -> None:
    """A book without ids of its own is whole until then; of a ticker the newest is what it is."""
    newest, book = LatestState(), BookState()
    for state in (newest, book):
        record = recorder(state, "n")
        assert record is not None
        assert not record(b'{"n":1,"snapshot":true,"b":[],"a":[["1","1"]]}')
        assert not record(b'{"n":2,"b":[],"a":[["2","1"]]}')
        assert state.is_complete
        assert record(b'{"n":4,"b":[],"a":[["3","1"]]}')
    assert newest.snapshot() == b'{"n":4,"b":[],"a":[["3","1"]]}'
    assert not book.is_complete
