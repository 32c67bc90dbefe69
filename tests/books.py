"""Order books as a client keeps them, depth messages of every kind, and what ought to wait for a slow client."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterable
from decimal import Decimal, InvalidOperation
from functools import reduce
from itertools import takewhile
from typing import Any

import msgspec
from hypothesis import strategies as st

from marketfeed.hub.groups import Group, overhead
from marketfeed.model.book import DepthMessage
from marketfeed.model.kinds.kind import LossPolicy
from marketfeed.wire.deflate import inflate
from marketfeed.wire.dialects import Shape, split_tail
from tests.fakes import AT
from tests.strategies import objects

__all__ = [
    "OTHER_IDS",
    "Book",
    "Waiting",
    "all_rows",
    "decoded",
    "depths",
    "may_merge",
    "replay",
    "sequences",
    "update",
]

Book = dict[str, dict[Decimal, tuple[str, str]]]
"""Side → price → price and quantity, as they were written."""


class _Number(str):
    """A JSON number, as it is written."""


def decoded(data: bytes) -> dict[str, Any]:
    """A message, in which a number still is what was written."""
    return json.loads(data, parse_int=_Number, parse_float=_Number)  # type: ignore[no-any-return]


def replay(messages: Iterable[bytes]) -> Book:
    """The book after these messages, as a client keeps it; a level of quantity zero is no level."""
    book: Book = {"a": {}, "b": {}}
    for message in map(decoded, messages):
        if message.get("snapshot") is True:
            book = {"a": {}, "b": {}}
        for side, places in book.items():
            for price, quantity in message[side]:
                places.pop(Decimal(price), None)
                if Decimal(quantity):
                    places[Decimal(price)] = (_spelled(price), _spelled(quantity))
    return book


def _spelled(written: str) -> str:
    return str(written) if isinstance(written, _Number) else json.dumps(written)


def update(a: object = (), b: object = (), **fields: object) -> bytes:
    """The data of a depth publication."""
    return json.dumps({"e": "depth", "a": a, "b": b, **fields}, separators=(",", ":")).encode()


def merged(*messages: bytes) -> DepthMessage:
    """All of these, each of which may merge into those before it."""

    def take(earlier: DepthMessage, later: DepthMessage) -> DepthMessage:
        assert earlier.can_take(later)
        result = earlier.copy()
        result.take(later)
        return result

    return reduce(take, map(DepthMessage.parse, messages))


def may_merge(earlier: bytes, later: bytes) -> bool:
    """Whether the second message may merge into the first (docs/protocol.md#slow-clients)."""
    one, two = json.loads(earlier), json.loads(later)
    if two.get("snapshot") is True:
        return False
    ids = [[message.get(name) for name in ("U", "u")] for message in (one, two)]
    if None in ids[0] or None in ids[1]:
        return None in ids[0] and None in ids[1]
    if not all(type(each) is int for each in ids[0] + ids[1]):
        return False
    return bool(ids[1][0] <= ids[0][1] + 1)


def all_rows(message: bytes) -> list[int]:
    """The bytes of price and quantity in each level of a message."""
    fields = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
    sides = [msgspec.json.decode(fields[side], type=list[tuple[msgspec.Raw, msgspec.Raw]]) for side in "ab"]
    return [len(bytes(price)) + len(bytes(quantity)) for side in sides for price, quantity in side]


# Messages.

_prices = st.sampled_from(
    ('"1"', "1", '"1.0"', "1.0", '"+1"', '"1."', '"01"', "10e-1", '"0.1e1"', '"\\u0031"', '"2"', "2.00", '".5"', "-3")
)
_quantities = st.sampled_from(('"0"', "0", '"0.00"', '"-0"', "0e5", '"\\u0030"', '"1"', "1.50", '"12345.678"', "7"))
_sides = st.lists(st.builds("[{},{}]".format, _prices, _quantities), max_size=5).map(",".join).map("[{}]".format)
_further = st.dictionaries(st.sampled_from(("E", "s", "pu", "é", "a b", 'q"')), st.sampled_from(("1", '"x"', "null")))
OTHER_IDS = ("null", "1.0", '"1"', "true", "{}", "1e3")
"""Ids that are none, or cannot be compared, as JSON."""


@st.composite
def depths(draw: st.DrawFn, is_snapshot: bool, first: str | None = None, last: str | None = None) -> bytes:
    """The data of a depth publication, with ids or without."""
    fields = {"e": '"depth"', "a": draw(_sides), "b": draw(_sides), **draw(_further)}
    if is_snapshot:
        fields["snapshot"] = "true"
    elif draw(st.booleans()):
        fields["snapshot"] = draw(st.sampled_from(("false", "null", '"true"', "1")))
    fields |= {name: token for name, token in (("U", first), ("u", last)) if token is not None}
    return draw(objects(fields.items())).encode()


@st.composite
def sequences(draw: st.DrawFn, most: int = 5) -> list[bytes]:
    """Messages each of which may merge into those before it; the first may be a snapshot."""
    count = draw(st.integers(1, most))
    starts_whole = draw(st.booleans())
    if not draw(st.booleans()):
        return [draw(depths(is_snapshot=starts_whole and not at)) for at in range(count)]
    messages = []
    last = draw(st.integers(-3, 2**70))
    for at in range(count):
        first = last + 1 - draw(st.integers(0, 3))
        last = max(last, first) + draw(st.integers(0, 3))
        messages.append(draw(depths(starts_whole and not at, str(first), str(last))))
    return messages


# What waits.


class _Item:
    """A publication that waits, or several merged into one; without a group, whole frames of another kind."""

    def __init__(self, group: Group | None, parts: list[bytes]) -> None:
        self.group = group
        self.parts = parts
        self.is_closed = False  # nothing of what comes now touches it
        self._sized: dict[int, tuple[int, int]] = {}

    @property
    def sizes(self) -> tuple[int, int]:
        """The least and the most that it may count for."""
        if self.group is None:
            return len(self.parts[0]), len(self.parts[0])
        if len(self.parts) == 1:
            return (size := len(self.group.framed(self.parts[0], AT))), size
        if len(self.parts) not in self._sized:
            self._sized = {len(self.parts): self._merged_sizes(self.group)}
        return self._sized[len(self.parts)]

    def _merged_sizes(self, group: Group) -> tuple[int, int]:
        written = merged(*self.parts).to_bytes()
        rows = all_rows(written)
        longest = max((row for part in self.parts for row in all_rows(part)), default=0)
        most = len(written) + len(rows) * longest - sum(rows) + 3  # if all levels were as long as the longest
        return len(written), most + overhead(group.spelling, group.shape)

    def check(self, frame: bytes) -> None:
        """See that this is what the client is to get."""
        if self.group is None or len(self.parts) == 1:
            assert frame == (self.parts[0] if self.group is None else self.group.framed(self.parts[0], AT))
            return
        payload = inflate(frame)
        if self.group.shape is not Shape.DATA:
            assert payload.startswith(self.group.head)
            assert payload.endswith(b"}")
            payload = split_tail(payload[len(self.group.head) :], self.group.shape)[0]
        one, first, last = decoded(payload), decoded(self.parts[0]), decoded(self.parts[-1])
        assert replay([payload]) == replay(self.parts)
        for name in ("U", "pu", "snapshot"):
            assert one.get(name) == first.get(name)
        assert one.get("u") == last.get("u")


class Waiting:
    """What ought to wait for one client, by docs/protocol.md#slow-clients: the reference for backlogs and outboxes."""

    def __init__(self) -> None:
        self.items: deque[_Item] = deque()

    def __bool__(self) -> bool:
        return bool(self.items)

    def put(self, frames: bytes, *, is_event: bool = False) -> None:
        """Whole frames that are not publications."""
        if is_event:
            for item in self.items:
                item.is_closed = True
        self.items.append(_Item(None, [frames]))

    def publish(self, group: Group, data: bytes) -> None:
        self._close_other_shapes(group)
        open_items = [item for item in self.items if item.group is group and not item.is_closed]
        loss = group.stream.loss
        if loss is LossPolicy.KEEP or not open_items:
            self.items.append(_Item(group, [data]))
        elif loss is LossPolicy.LATEST:
            open_items[-1].parts = [data]
        else:
            self._merge(group, data, open_items)

    def _close_other_shapes(self, group: Group) -> None:
        """A client has a stream, as it spells it, in one shape at a time."""
        for item in self.items:
            if item.group is not None and item.group is not group and item.group.spelling == group.spelling:
                item.is_closed = True

    def _merge(self, group: Group, data: bytes, waiting: list[_Item]) -> None:
        if not (_is_depth(data) and _is_depth(waiting[-1].parts[-1])):
            for item in waiting:
                item.is_closed = True
        elif json.loads(data).get("snapshot") is True:
            self.items = deque(item for item in self.items if item not in waiting)
        elif may_merge(waiting[-1].parts[-1], data):
            waiting[-1].parts.append(data)
            return
        self.items.append(_Item(group, [data]))

    def forget(self, groups: Collection[Group]) -> None:
        for group in groups:
            self._close_other_shapes(group)
        self.items = deque(item for item in self.items if item.group not in groups)

    def clear(self) -> None:
        self.items.clear()

    @property
    def head(self) -> bytes:
        """What waits before the first publication."""
        return b"".join([item.parts[0] for item in takewhile(lambda item: item.group is None, self.items)])

    def check_size(self, size: int) -> None:
        """See that `size` is what waits, or for merged messages not far from it."""
        bounds = [item.sizes for item in self.items]
        assert sum(least for least, _ in bounds) <= size <= sum(most for _, most in bounds)

    def check_taken(self, taken: bytes) -> int:
        """See that these bytes are the next that wait, and whole; returns how many of them there were."""
        count = 0
        while taken:
            assert self.items, "bytes that nobody wrote"
            item = self.items.popleft()
            size = len(item.parts[0]) if item.group is None else _frame_size(taken)
            item.check(taken[:size])
            taken = taken[size:]
            count += 1
        return count


def _frame_size(data: bytes) -> int:
    """The bytes of the frame that begins here."""
    size = data[1]
    if size < 126:
        return 2 + size
    width = 2 if size == 126 else 8
    return 2 + width + int.from_bytes(data[2 : 2 + width], "big")


def _is_depth(data: bytes) -> bool:
    """Whether this can be read as a depth message at all."""
    try:
        replay([data])
    except (KeyError, TypeError, ValueError, InvalidOperation):
        return False
    return True
