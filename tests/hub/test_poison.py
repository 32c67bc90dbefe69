"""Whatever is published, and whatever a client does: nothing of it reaches anybody else's streams.

The clients are real outboxes over a scripted socket, so that what waits is merged as it is in earnest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.hub.groups import Group
from marketfeed.hub.hub import Hub
from marketfeed.model.book import DepthMessage
from marketfeed.model.book_state import BookState
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import StreamKinds
from marketfeed.websocket.outbox import Outbox
from marketfeed.wire.dialects import Shape
from tests.books import replay, update
from tests.compiled import replaces_methods
from tests.conftest import LogCapture
from tests.fakes import FakeSource, FakeTransport, payloads
from tests.limits import hub_limits
from tests.rooms import trade
from tests.strategies import bad_decimals, decimals, property_test

KINDS = StreamKinds((*BUILT_IN, StreamKind("book", LossPolicy.MERGE)))
UNREADABLE = ('"1e1000000000000000000"', "null", '"abc"', '"NaN"', '"sNaN"', '"Infinity"', "[]", '"' + "9" * 5000 + '"')


class Watcher:
    """One client, raw: it reads nothing while its socket has no room."""

    def __init__(self, hub: Hub, *names: str, wants_state: bool = False) -> None:
        self.transport = FakeTransport()
        self.is_ended = False
        self.outbox = Outbox(self.transport, 1 << 24, self)
        hub.join(self.outbox, Shape.DATA, {name: KINDS.parse(name) for name in names}, self, wants_state=wants_state)

    def stall(self) -> None:
        self.transport.socket.room = 0

    def drain(self) -> None:
        self.transport.socket.room = None
        while self.transport.is_writing:
            self.transport.turn()

    def take(self) -> list[bytes]:
        received, self.transport.socket.received = self.transport.socket.received, bytearray()
        return payloads(received)

    # What the hub and the outbox call.

    def joined(
        self, groups: dict[str, Group], recovered: dict[str, bool] | None, rewound: dict[str, int] | None
    ) -> None:
        pass

    def refused(self, why: str) -> None:
        raise AssertionError(why)

    def settled(self) -> None:
        pass

    def overflowed(self) -> None:
        self.is_ended = True

    def backlog_changed(self, waiting: int) -> None:
        pass

    def drained(self) -> None:
        """Nobody here asks."""

    def notice(self) -> bytes:
        """Nobody here is told."""
        return b""


class Market:
    """A hub and its source. One client is slow, another watches a stream that is none of its business."""

    def __init__(self, name: str, *, strict: bool) -> None:
        self.name = name
        self.hub = Hub(Clock(), hub_limits(strict=strict, max_payload=1 << 20), kinds=KINDS)
        self.source = FakeSource(self.hub)
        self.source.at_once = True
        self.hub.feed_from(self.source)
        self.slow = Watcher(self.hub, name, wants_state=True)
        self.quick = Watcher(self.hub, name)
        self.other = Watcher(self.hub, "trade@Y")
        self.slow.stall()
        self.trades = 0

    def publish(self, *data: bytes) -> None:
        """Together with a trade of another stream, which its client must have at once."""
        for each in data:
            self.source.sink.publish(self.name, each)
        self.trades += 1
        self.source.sink.publish("trade@Y", trade(self.trades))
        self.source.sink.flush()
        assert self.other.take() == [trade(self.trades)]

    @property
    def book(self) -> BookState:
        books: list[object] = []
        self.hub.book(KINDS.parse(self.name)).addCallback(books.append)
        return next((book for book in books if isinstance(book, BookState)), BookState())


def message(levels: list[tuple[str, str]], *, is_snapshot: bool, number: int | None) -> bytes:
    """A depth message of these levels, JSON texts of price and quantity."""
    side = ",".join(f"[{price},{quantity}]" for price, quantity in levels)
    ids = "" if number is None else f',"U":{number},"u":{number}'
    snapshot = ',"snapshot":true' if is_snapshot else ""
    return f'{{"e":"depth","a":[{side}],"b":[]{ids}{snapshot}}}'.encode()


@pytest.mark.parametrize("quantity", UNREADABLE)
@pytest.mark.parametrize(("name", "strict"), [("depth@X", False), ("depth@X", True), ("book@X", True)])
def test_a_quantity_that_is_none_harms_nobody(name: str, strict: bool, quantity: str) -> None:
    """A snapshot waits for a slow client, and the next update cannot be merged into it: it waits behind it."""
    market = Market(name, strict=strict)
    whole = update(a=[["1", "5"], ["2", "5"]], snapshot=True)
    bad = message([("1", quantity)], is_snapshot=False, number=None)
    after = update(a=[["2", "0"]])
    market.publish(update(a=[["3", "1"]]))
    market.publish(whole)
    market.publish(bad)
    market.publish(after)
    market.publish()
    is_dropped = strict and name == "depth@X"
    assert market.quick.take() == [update(a=[["3", "1"]]), whole, *([] if is_dropped else [bad]), after]
    market.slow.drain()
    got = market.slow.take()
    assert not market.slow.is_ended
    if is_dropped:
        assert replay(got) == replay([whole, after])
        assert market.book.is_complete
        assert replay([market.book.snapshot() or b""]) == replay([whole, after])
    else:
        assert got[-3:] == [whole, bad, after]
        assert not market.book.is_complete


tokens = (
    decimals
    | bad_decimals
    | st.sampled_from(UNREADABLE)
    | st.text(max_size=8).map(json.dumps)
    | st.builds('"{}e{}"'.format, st.integers(), st.integers(-(10**25), 10**25))
)
messages = st.tuples(st.lists(st.tuples(tokens, tokens), max_size=4), st.booleans(), st.booleans())


@property_test
@given(st.sampled_from(("depth@X", "book@X")), st.booleans(), st.lists(st.lists(messages, max_size=3), max_size=6))
@example("depth@X", False, [[([("1", "1")], True, False)], [([("1", "null")], False, False)]])
def test_any_levels_whatsoever_stay_in_their_stream(
    name: str, strict: bool, flushes: list[list[tuple[list[tuple[str, str]], bool, bool]]]
) -> None:
    """Every other client has its own at once, and who is slow ends up with the book of who is not."""
    market = Market(name, strict=strict)
    number = 0
    for flush in flushes:
        data = []
        for levels, is_snapshot, has_ids in flush:
            number += 1
            data.append(message(levels, is_snapshot=is_snapshot, number=number if has_ids else None))
        market.publish(*data)
        market.book.snapshot()
    market.publish()
    quick = market.quick.take()
    market.slow.drain()
    slow = market.slow.take()
    assert not market.slow.is_ended
    assert [each for each in slow if not is_readable(each)] == [each for each in quick if not is_readable(each)]
    if all(map(is_readable, quick)):
        assert replay(slow) == replay(quick)
        if market.book.is_complete:
            assert replay([market.book.snapshot() or b""]) == replay(quick)


def is_readable(data: bytes) -> bool:
    """Whether a message can be merged; also by Python's own decimals then."""
    try:
        depth = DepthMessage.parse(data)
    except Exception:
        return False
    for price, quantity in json.loads(data, parse_int=str, parse_float=str)["a"]:
        assert Decimal(price).is_finite()
        assert Decimal(quantity).is_finite()
    assert depth.to_bytes()
    return True


@replaces_methods
@pytest.mark.parametrize("fault", [InvalidOperation, ZeroDivisionError, KeyError, MemoryError, RecursionError])
def test_a_fault_in_framing_is_a_gap_of_its_stream_only(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch, logged: LogCapture
) -> None:
    """What cannot be framed is missing in its stream, which is said; the next publication goes out as ever."""
    market = Market("depth@X", strict=True)
    market.publish(update(a=[["1", "5"]], snapshot=True))
    framed: Callable[..., bytes] = Group.framed

    def faulty(group: Group, data: bytes, *rest: object) -> bytes:
        if b"poison" in data:
            raise fault
        return framed(group, data, *rest)

    monkeypatch.setattr(Group, "framed", faulty)
    market.publish(update(a=[["1", "6"]], x="poison"))
    market.publish(update(a=[["1", "7"]]))
    kinds = [msgspec.json.decode(each)["e"] for each in market.quick.take()]
    assert kinds == ["depth", "gap", "depth"]
    assert not market.book.is_complete
    assert len(logged.flush_failures(fault)) == 1
