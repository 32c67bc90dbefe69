"""States that are in the streams themselves: the book that the last snapshot and what follows it make."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.boundaries import Snapshots
from marketfeed.model.book_state import BookState
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.stream_snapshots import StreamSnapshots
from tests.fakes import FakeArchive, FakeSnapshots
from tests.rooms import turn_of
from tests.strategies import property_test

if TYPE_CHECKING:
    _snapshots: type[Snapshots] = StreamSnapshots

A = "depth@A"


def update(number: int, *, whole: bool = False, price: int = 1, ids: bool = True) -> bytes:
    fields: dict[str, Any] = {"e": "depth", "a": [[str(price), str(number)]], "b": []}
    fields |= {"U": number, "u": number} if ids else {}
    return json.dumps(fields | ({"snapshot": True} if whole else {})).encode()


class Reading:
    """Streams and keys, and what reads them. `asked`: how many entries were asked for at most."""

    def __init__(self, *payloads: bytes, stream: str = A, max_levels: int = 1000, max_payload: int = 1000) -> None:
        self.clock = Clock()
        self.keys, self.archive = FakeSnapshots(), FakeArchive()
        for number, payload in enumerate(payloads, 1):
            self.archive.add(stream, f"{number}-0", payload)
        self.stream = stream
        limits = {"max_payload": max_payload, "max_levels": max_levels}
        self.snapshots = StreamSnapshots(
            self.clock, self.keys, self.archive, StreamKinds(), channel_prefix="p:", **limits
        )

    def read(self) -> bytes | None:
        found: list[bytes | None] = []
        self.snapshots.read(self.stream).addCallback(found.append)
        self.turns = 0
        while not found:
            turn_of(self.clock)
            self.turns += 1
        return found[0]

    @property
    def asked(self) -> list[int]:
        asked, self.archive.asked[:] = [limit for _, limit, *_ in self.archive.asked], []
        return asked


@property_test
@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from("uuuus?")), max_size=40))
def test_the_book_is_the_engines(drawn: list[tuple[int, str]]) -> None:
    """Whatever lies before the last snapshot, and whatever cannot be read; there is none without a snapshot."""
    payloads = [
        b"{}" if what == "?" else update(number, whole=what == "s", price=price)
        for number, (price, what) in enumerate(drawn, 1)
    ]
    numbered = [payload for payload in payloads if payload != b"{}"]
    state = BookState()
    behind = [at for at, (_, what) in enumerate(drawn) if what == "s"][-1:]
    jumps = any(what == "?" for at in behind for _, what in drawn[at:])
    for payload in numbered:
        state.record(payload)
    found = Reading(*payloads).read()
    if found is not None:
        assert json.loads(found) == json.loads(state.snapshot() or b"null")
    else:
        assert jumps or not behind


def test_much_is_read_a_portion_at_a_time() -> None:
    """And a few entries at first; wrapped payloads are as good as others."""
    payloads = [update(1, whole=True), *(update(number, price=number) for number in range(2, 500))]
    payloads[7] = b'{"stream":"p:depth@A","data":%b}' % payloads[7]
    reading = Reading(*payloads)
    found = json.loads(reading.read() or b"null")
    assert (found["u"], len(found["a"]), reading.asked) == (499, 499, [100, 1000])
    assert reading.turns > 10
    assert json.loads(Reading(*payloads[-50:], update(500, whole=True)).read() or b"null")["u"] == 500


def test_few_entries_that_are_large_are_portions_too() -> None:
    """Each is read in a turn of its own, and merged in another one."""
    levels = [[str(price), "1"] for price in range(3000)]
    payloads = [
        json.dumps({"e": "depth", "a": levels, "b": [], "U": number, "u": number, "snapshot": number == 1}).encode()
        for number in range(1, 11)
    ]
    reading = Reading(*payloads, max_levels=3000, max_payload=100_000)
    assert json.loads(reading.read() or b"null")["u"] == 10
    assert reading.turns >= 2 * (len(payloads) - 1)


@pytest.mark.parametrize(
    "payloads",
    [
        [],
        [update(1), update(2)],
        [update(1, whole=True, ids=False), update(2, ids=False)],
        [update(1, whole=True), update(3)],
        [update(1, whole=True), update(2, price=2), update(3, price=3)],
        [update(number, whole=number == 1) for number in range(1, 1200)],
    ],
    ids=["empty", "no snapshot", "no ids", "a jump", "too many levels", "too far back"],
)
def test_where_there_is_none(payloads: list[bytes]) -> None:
    """It is not looked for again within a minute, for that costs more than to wait."""
    reading = Reading(*payloads, max_levels=2)
    assert reading.read() is None
    assert reading.asked
    reading.archive.add(A, "9999-0", update(9999, whole=True))
    assert reading.read() is None
    assert not reading.asked
    reading.clock.advance(60)
    assert json.loads(reading.read() or b"null")["u"] == 9999


def test_a_key_comes_first() -> None:
    reading = Reading(update(1, whole=True))
    reading.keys.states[A] = b"{}"
    assert reading.read() == b"{}"
    assert not reading.asked


def test_a_ticker_is_the_newest_entry() -> None:
    reading = Reading(b'{"c":"1"}', b'{"c":"2"}', stream="ticker@A")
    assert reading.read() == b'{"c":"2"}'
    assert reading.asked == [1]
    assert Reading(stream="ticker@A").read() is None


@pytest.mark.parametrize("stream", [A, "ticker@A"])
def test_a_server_that_is_out_of_reach(stream: str) -> None:
    """That says nothing of what is in the stream: it is looked into as soon as somebody asks again."""
    reading = Reading(update(1, whole=True), stream=stream)
    reading.archive.reached = False
    assert reading.read() is None
    reading.archive.reached = True
    assert json.loads(reading.read() or b"null")["u"] == 1


def test_few_streams_at_a_time() -> None:
    """Whatever many clients ask for at once; what is remembered of those without a state has a bound."""
    reading = Reading()
    reading.archive.late = True
    found: list[bytes | None] = []
    for number in range(20):
        reading.snapshots.read(f"depth@{number}").addCallback(found.append)
    assert len(reading.archive.asked) == 4
    while len(found) < 20:
        reading.archive.answer()
    assert found == [None] * 20
