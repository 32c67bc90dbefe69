"""Order books: reading a depth message, and merging the ones that wait for a slow client (PROTOCOL.md, section 7).

1. Prices are compared as decimals; prices and quantities are written as the engine wrote them.
2. A later level replaces an earlier one of the same price. A level of quantity zero stays in an update, where it says
   that the price is gone, and is left out of a snapshot.
3. Two messages merge only when nothing can be missing between them: neither has ids, or the later one begins at most
   one after the earlier one's end. Ids that are no integers cannot be compared, and merge with nothing.
4. The result has the first message's `U` and `pu`, and everything else from the later one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from decimal import Decimal
from functools import lru_cache

import msgspec

__all__ = ["DepthMessage", "Levels"]

Levels = dict[Hashable, tuple[bytes, bytes]]
"""Normalised price → price and quantity, as the engine wrote them."""

_CACHED = 40  # bytes of a decimal, beyond which it is not worth remembering
_ASKS, _BIDS, _FIRST, _LAST, _PREVIOUS, _SNAPSHOT = b'"a"', b'"b"', b'"U"', b'"u"', b'"pu"', b'"snapshot"'

_Raw = msgspec.Raw
_encode = msgspec.json.encode
_fields = msgspec.json.Decoder(dict[str, _Raw])
_levels = msgspec.json.Decoder(list[tuple[_Raw, _Raw]])
_string = msgspec.json.Decoder(str)


def _decimal(token: bytes) -> Decimal:
    """The decimal in a JSON string or number: equal ones are equal however they are spelled."""
    return Decimal(_string.decode(token) if token.startswith(b'"') else token.decode())


_remembered = lru_cache(maxsize=16384)(_decimal)


class DepthMessage:
    """One depth message, or several merged into one."""

    __slots__ = ("asks", "bids", "fields", "first", "is_snapshot", "last", "level_size")

    def __init__(
        self,
        fields: dict[bytes, bytes],
        asks: Levels,
        bids: Levels,
        first: float | None,
        last: float | None,
        is_snapshot: bool,
        level_size: int,
    ) -> None:
        self.fields = fields  # names and values as JSON
        self.asks = asks
        self.bids = bids
        self.first = first
        self.last = last
        self.is_snapshot = is_snapshot
        self.level_size = level_size  # of the longest level that was merged into this

    @classmethod
    def parse(cls, data: bytes) -> DepthMessage:
        """Read the data of a publication that `publications` has accepted. Of any other it may raise what it likes."""
        fields = {_encode(name): bytes(value) for name, value in _fields.decode(data).items()}
        is_snapshot = fields.get(_SNAPSHOT) == b"true"
        (asks, longest_ask), (bids, longest_bid) = _read(fields[_ASKS], is_snapshot), _read(fields[_BIDS], is_snapshot)
        first, last = _ids(fields)
        return cls(fields, asks, bids, first, last, is_snapshot, max(longest_ask, longest_bid) + len("[,],"))

    def copy(self) -> DepthMessage:
        """A message of the same content, to merge others into."""
        return DepthMessage(
            dict(self.fields),
            dict(self.asks),
            dict(self.bids),
            self.first,
            self.last,
            self.is_snapshot,
            self.level_size,
        )

    def can_take(self, later: DepthMessage) -> bool:
        """Whether `later` may be merged into this one."""
        if later.is_snapshot:
            return False
        if self.last is None or later.first is None:
            return self.last is None and later.first is None
        return later.first <= self.last + 1

    def take(self, later: DepthMessage) -> None:
        """Merge `later`, for which `can_take` holds, into this message."""
        fields = dict(later.fields)
        for name in (_FIRST, _PREVIOUS, _SNAPSHOT):
            if name in self.fields:
                fields[name] = self.fields[name]
            else:
                fields.pop(name, None)
        self.fields = fields
        self.last = later.last
        self.level_size = max(self.level_size, later.level_size)
        for levels, changes in ((self.asks, later.asks), (self.bids, later.bids)):
            levels.update(changes)
            if self.is_snapshot:
                _drop_zeros(levels, changes)

    @property
    def size(self) -> int:
        """The bytes that it takes when written, if all its levels were as long as the longest: never too few."""
        rest = sum(len(name) + len(value) + 2 for name, value in self.fields.items() if name not in (_ASKS, _BIDS))
        return rest + (len(self.asks) + len(self.bids)) * self.level_size + len('{"a":[],"b":[],}')

    def to_bytes(self) -> bytes:
        """The message as JSON."""
        fields = {**self.fields, _ASKS: _write(self.asks), _BIDS: _write(self.bids)}
        return b"{" + b",".join([b"%b:%b" % field for field in fields.items()]) + b"}"


def _read(side: bytes, is_snapshot: bool) -> tuple[Levels, int]:
    """The levels of one side, and the bytes of price and quantity in the longest of them."""
    levels: Levels = {}
    longest = 0
    for raw_price, raw_quantity in _levels.decode(side):
        price, quantity = bytes(raw_price), bytes(raw_quantity)
        levels[_remembered(price) if len(price) <= _CACHED else _decimal(price)] = (price, quantity)
        size = len(price) + len(quantity)
        if size > longest:
            longest = size
    if is_snapshot:
        _drop_zeros(levels, levels)
    return levels, longest


def _drop_zeros(levels: Levels, changes: Levels) -> None:
    """Drop from a snapshot's `levels` those that `changes` has with a quantity of zero."""
    for price in [price for price, (_, quantity) in changes.items() if _is_zero(quantity)]:
        del levels[price]


def _is_zero(token: bytes) -> bool:
    return (_remembered(token) if len(token) <= _CACHED else _decimal(token)).is_zero()


def _write(levels: Levels) -> bytes:
    return b"[" + b",".join([b"[%b,%b]" % level for level in levels.values()]) + b"]"


def _ids(fields: dict[bytes, bytes]) -> tuple[float | None, float | None]:
    """First and last id, if there are both; ids that are no integers are infinitely far apart."""
    first, last = fields.get(_FIRST, b"null"), fields.get(_LAST, b"null")
    if b"null" in (first, last):
        return None, None
    if not (_is_integer(first) and _is_integer(last)):
        return math.inf, -math.inf
    return int(first), int(last)


def _is_integer(token: bytes) -> bool:
    return token.removeprefix(b"-").isdigit()
