"""Order books: a depth message is read; those that wait for a slow client are merged (docs/protocol.md#slow-clients).

1. Prices are compared as decimals; prices and quantities are written as the engine wrote them.
2. A later level replaces an earlier one of the same price. A level of quantity zero stays in an update, where it says
   that the price is gone, and is left out of a snapshot.
3. Two messages merge only when nothing can be missing between them: neither has ids, or the later one begins at most
   one after the earlier one's end. Ids that are no integers cannot be compared, and merge with nothing.
4. The result has the first message's `U` and `pu`, and everything else from the later one.
5. There are clients to whom a snapshot is an update like others, in which the levels that are gone follow with a
   quantity of zero. For them all that continues what was before it merges, and zeros stay (`Difference`). A level that
   is not in a snapshot is gone, whoever has known of it.
6. What cannot be merged is refused when it is read. Merging what has been read never fails.
"""

from __future__ import annotations

import math
from typing import Any, Self

import msgspec

from marketfeed.model.levels import Level, Row, Side, read_rows, read_side, text_of, write_levels
from marketfeed.model.numbers import whole
from marketfeed.model.spelling import ZERO

__all__ = ["DepthMessage", "Difference", "Prices", "WrittenBook"]

Prices = tuple[list[str], list[str]]
"""Prices of asks, and of bids, as they are written in strings."""

_ASKS, _BIDS, _FIRST, _LAST, _PREVIOUS, _SNAPSHOT = b'"a"', b'"b"', b'"U"', b'"u"', b'"pu"', b'"snapshot"'
_REPLACED = (_ASKS, _BIDS, _FIRST, _LAST, _PREVIOUS, _SNAPSHOT)
_KEPT = (_FIRST, _PREVIOUS, _SNAPSHOT)
_TIMES_END = 10**16
_TIME_DIGITS = 16
_BETWEEN = len("[,],")

_Raw = msgspec.Raw
_NOTHING = _Raw()
_encode = msgspec.json.encode
_fields = msgspec.json.Decoder(dict[str, _Raw]).decode


class _Levels(msgspec.Struct, gc=False):
    """What a message must have, and what is wanted of all else."""

    a: _Raw
    b: _Raw
    U: Any = None
    u: Any = None
    E: _Raw = _NOTHING
    T: _Raw = _NOTHING
    snapshot: Any = None


class _Plain(msgspec.Struct, gc=False):
    """The same of one whose levels are texts."""

    a: list[Row]
    b: list[Row]
    U: Any = None
    u: Any = None
    E: Any = None
    T: Any = None
    snapshot: Any = None


_levels = msgspec.json.Decoder(_Levels).decode
_plain = msgspec.json.Decoder(_Plain).decode


class DepthMessage(msgspec.Struct, eq=False):
    """One depth message, or several merged into one."""

    data: bytes  # of the last one: its fields are looked at when somebody wants them
    kept: dict[bytes, bytes] | None  # those fields of the first one that stay; None: they are `data`'s own
    asks: Side
    bids: Side
    first: float | None
    last: float | None
    is_snapshot: bool
    time: int | None = None  # when the last of it was published, as that says itself, in ms: `E`, or else `T`
    longest: int = 0  # bytes of the longest level that was merged into this; 0: nobody has asked yet

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the data of a publication that `publications` has accepted. Of any other it may raise what it likes."""
        message = cls._parsed(data)
        if message.is_snapshot:
            message.asks.drop_zeros()
            message.bids.drop_zeros()
        return message

    @classmethod
    def _parsed(cls, data: bytes) -> Self:
        found: _Plain | _Levels | None = None
        if b"\\" not in data:
            try:
                found = _plain(data)
                asks, bids = read_rows(found.a), read_rows(found.b)
            except msgspec.DecodeError:  # some levels are numbers, or a time is one that no double can be
                found = None
        if found is None:
            found = _levels(data)
            asks, bids = read_side(found.a), read_side(found.b)
        first, last = _integers(found.U, found.u)
        time = _moment(found.E, found.T)
        return cls(data, None, asks, bids, first, last, found.snapshot is True, time)

    @classmethod
    def empty(cls) -> DepthMessage:
        """A book to merge messages into. It is a snapshot, so that it keeps no zeros."""
        return cls(b"{}", {}, Side({}, set()), Side({}, set()), None, None, is_snapshot=True)

    def copy(self) -> Self:
        """A message of the same content, to merge others into."""
        return msgspec.structs.replace(self, asks=self.asks.copy(), bids=self.bids.copy())

    @property
    def fields(self) -> dict[bytes, bytes]:
        """Names and values as JSON, in their order; where there are levels there is nothing."""
        fields = {_encode(name): bytes(value) for name, value in _fields(self.data).items()}
        for name in (_ASKS, _BIDS):
            if name in fields:
                fields[name] = b""
        if self.kept is not None:
            for name in _KEPT:
                if name in self.kept:
                    fields[name] = self.kept[name]
                else:
                    fields.pop(name, None)
        return fields

    @property
    def level_size(self) -> int:
        """The bytes of the longest level that was merged into this."""
        if not self.longest:
            self.longest = max(self.asks.longest(), self.bids.longest()) + _BETWEEN
        return self.longest

    def can_take(self, later: DepthMessage) -> bool:
        """Whether `later` may be merged into this one."""
        if later.is_snapshot:
            return False
        if self.last is None or later.first is None:
            return self.last is None and later.first is None
        return later.first <= self.last + 1

    def take(self, later: DepthMessage) -> None:
        """Merge `later`, for which `can_take` holds, into this message."""
        if self.kept is None:
            fields = self.fields
            self.kept = {name: fields[name] for name in _KEPT if name in fields}
        self.data = later.data
        self.last, self.time = later.last, later.time
        if self.longest:
            self.longest = max(self.longest, later.level_size)
        self.asks.take(later.asks, drops_zeros=self.is_snapshot)
        self.bids.take(later.bids, drops_zeros=self.is_snapshot)

    def gone_from(self, snapshot: DepthMessage) -> Prices:
        """The prices of this book that are not in a snapshot."""
        return (
            [text_of(level[0]) for place, level in self.asks.levels.items() if place not in snapshot.asks.levels],
            [text_of(level[0]) for place, level in self.bids.levels.items() if place not in snapshot.bids.levels],
        )

    @property
    def level_count(self) -> int:
        """The levels of both sides."""
        return len(self.asks) + len(self.bids)

    @property
    def size(self) -> int:
        """The bytes that it takes when written, if all its levels were as long as the longest: never too few."""
        rest = sum(len(name) + len(value) + 2 for name, value in self.fields.items() if name not in (_ASKS, _BIDS))
        return rest + self.level_count * self.level_size + len('{"a":[],"b":[],}')

    def to_bytes(self) -> bytes:
        """The message as JSON."""
        fields = {
            **self.fields,
            _ASKS: write_levels(self.asks.levels.values()),
            _BIDS: write_levels(self.bids.levels.values()),
        }
        return b"{" + b",".join([b"%b:%b" % field for field in fields.items()]) + b"}"


class Difference(DepthMessage, eq=False):
    """A depth message for clients who take a snapshot for an update: in it are the levels that are gone, too."""

    says_all: bool = False  # it is a snapshot, or one is merged into it

    @classmethod
    def parse(cls, data: bytes) -> Self:
        message = cls._parsed(data)
        message.says_all, message.is_snapshot = message.is_snapshot, False
        return message

    def take(self, later: DepthMessage) -> None:
        if not (isinstance(later, Difference) and later.says_all):
            super().take(later)
            return
        for side, those in ((self.asks, later.asks), (self.bids, later.bids)):
            side.keep_only(those, ZERO)
        self.longest = 0
        super().take(later)
        self.says_all = True
        self.kept = {**(self.kept or {}), _SNAPSHOT: b"true"}


class WrittenBook(msgspec.Struct, frozen=True):
    """A book as JSON: whole, and the levels of its sides, best first.

    `depths`: answers that were made of it, by the levels that were wanted.
    """

    snapshot: bytes
    bids: list[Level]
    asks: list[Level]
    depths: dict[int, bytes] = {}

    @classmethod
    def of(cls, book: DepthMessage, last: int | None) -> WrittenBook:
        """`book` as a snapshot. `last`: its last id, where there are ids. May raise anything where a price is none."""
        fields = [b"%b:%b" % field for field in book.fields.items() if field[0] not in _REPLACED]
        fields.append(b'"snapshot":true')
        if last is not None:
            fields.append(b'"U":%d,"u":%d' % (last, last))
        bids, asks = book.bids.in_order(is_descending=True), book.asks.in_order(is_descending=False)
        text = b'{%b,"b":%b,"a":%b}' % (b",".join(fields), write_levels(bids), write_levels(asks))
        return cls(text, bids, asks)


def _integers(first: Any, last: Any) -> tuple[float | None, float | None]:
    """First and last id, if there are both; ids that are no integers are infinitely far apart."""
    if first is None or last is None:
        return None, None
    if type(first) is not int or type(last) is not int:
        return math.inf, -math.inf
    return first, last


def _moment(*times: Any) -> int | None:
    """The first of these that is a time in ms."""
    told = (whole(bytes(time).decode(), _TIME_DIGITS) if type(time) is _Raw else time for time in times)
    return next((time for time in told if type(time) is int and 0 <= time < _TIMES_END), None)
