"""Order books: a depth message is read; those that wait for a slow client are merged (docs/protocol.md#slow-clients).

1. Prices are compared as decimals; prices and quantities are written as the engine wrote them.
2. A later level replaces an earlier one of the same price. A level of quantity zero stays in an update, where it says
   that the price is gone, and is left out of a snapshot.
3. Two messages merge only when nothing can be missing between them: neither has ids, or the later one begins at most
   one after the earlier one's end. Ids that are no integers cannot be compared, and merge with nothing.
4. The result has the first message's `U` and `pu`, and everything else from the later one.
5. There are clients to whom a snapshot is an update like others, in which the levels that are gone follow with a
   quantity of zero. For them all that continues what was before it merges, and zeros stay (`Difference`).
6. What cannot be merged is refused when it is read. Merging what has been read never fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from operator import add
from typing import Self

import msgspec

from marketfeed.model.decimals import PLAIN, Place, in_order, place_of, read_plain

__all__ = ["DepthMessage", "Difference", "Level", "Prices", "Side", "WrittenBook", "write_levels"]

Level = tuple[str | msgspec.Raw, str | msgspec.Raw]
"""Price and quantity, which are written as the engine wrote them."""
Prices = tuple[list[str], list[str]]
"""Prices of asks, and of bids, as they are written in strings."""

_CACHED = 40  # bytes of a decimal, beyond which it is not worth remembering
_ASKS, _BIDS, _FIRST, _LAST, _PREVIOUS, _SNAPSHOT = b'"a"', b'"b"', b'"U"', b'"u"', b'"pu"', b'"snapshot"'
_REPLACED = (_ASKS, _BIDS, _FIRST, _LAST, _PREVIOUS, _SNAPSHOT)
_TIMES = (b'"E"', b'"T"')
_TIME_DIGITS = 16
_SHORT = 120  # bytes of one side, up to which its levels are read one by one
_QUOTES = len('""""')

_Raw = msgspec.Raw
_encode = msgspec.json.encode
_fields = msgspec.json.Decoder(dict[str, _Raw])
_levels = msgspec.json.Decoder(list[tuple[_Raw, _Raw]])
_texts = msgspec.json.Decoder(list[tuple[str, str]])
_string = msgspec.json.Decoder(str)


class Side(msgspec.Struct, eq=False):
    """The levels of one side by the places of their prices, and which of them have a quantity of zero."""

    levels: dict[Place, Level]
    zeros: set[Place]

    def __len__(self) -> int:
        return len(self.levels)

    def copy(self) -> Side:
        return Side(self.levels.copy(), self.zeros.copy())

    def take(self, later: Side, *, drops_zeros: bool) -> None:
        """Put the levels of `later` in the place of those of the same price."""
        self.levels.update(later.levels)
        if drops_zeros:
            for price in later.zeros:
                del self.levels[price]
        else:
            self.zeros.difference_update(later.levels)
            self.zeros |= later.zeros

    def drop_zeros(self) -> None:
        """Keep no level of quantity zero."""
        for price in self.zeros:
            del self.levels[price]
        self.zeros.clear()

    def best(self, *, is_highest: bool) -> Level | None:
        """The level of the highest price, or of the lowest; None: there are none."""
        if not self.levels:
            return None
        best = max if is_highest else min
        try:
            return self.levels[best(self.levels)]
        except TypeError:  # there are floats and tuples
            return self.in_order(is_descending=is_highest)[0]

    def in_order(self, *, is_descending: bool) -> list[Level]:
        """The levels by price."""
        places = list(self.levels)
        in_order(places, is_descending=is_descending)
        return [self.levels[place] for place in places]


def _place(token: bytes) -> Place:
    """The place of a decimal that is a JSON string or number."""
    is_number = not token.startswith(b'"')
    return place_of(token.decode() if is_number else _string.decode(token), is_number=is_number)


_remembered = lru_cache(maxsize=16384)(_place)
_remembered_amount = lru_cache(maxsize=4096)(_place)  # apart, for they are many, and would leave no room for prices


class DepthMessage(msgspec.Struct, eq=False):
    """One depth message, or several merged into one."""

    fields: dict[bytes, bytes]  # names and values as JSON, but for the levels
    asks: Side
    bids: Side
    first: float | None
    last: float | None
    is_snapshot: bool
    level_size: int  # of the longest level that was merged into this

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the data of a publication that `publications` has accepted. Of any other it may raise what it likes."""
        message = cls._parsed(data)
        message.is_snapshot = message.fields.get(_SNAPSHOT) == b"true"
        if message.is_snapshot:
            message.asks.drop_zeros()
            message.bids.drop_zeros()
        return message

    @classmethod
    def _parsed(cls, data: bytes) -> Self:
        fields = {_encode(name): bytes(value) for name, value in _fields.decode(data).items()}
        (asks, longest_ask), (bids, longest_bid) = _read(fields[_ASKS]), _read(fields[_BIDS])
        fields[_ASKS] = fields[_BIDS] = b""
        first, last = _ids(fields)
        return cls(fields, asks, bids, first, last, False, max(longest_ask, longest_bid) + len("[,],"))

    @classmethod
    def empty(cls) -> DepthMessage:
        """A book to merge messages into. It is a snapshot, so that it keeps no zeros."""
        return cls({}, Side({}, set()), Side({}, set()), None, None, is_snapshot=True, level_size=0)

    def copy(self) -> Self:
        """A message of the same content, to merge others into."""
        asks, bids = self.asks.copy(), self.bids.copy()
        return msgspec.structs.replace(self, fields=dict(self.fields), asks=asks, bids=bids)

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
        self.asks.take(later.asks, drops_zeros=self.is_snapshot)
        self.bids.take(later.bids, drops_zeros=self.is_snapshot)

    def gone_from(self, snapshot: DepthMessage) -> Prices:
        """The prices of this book that are not in a snapshot."""
        return (
            [_text(level[0]) for place, level in self.asks.levels.items() if place not in snapshot.asks.levels],
            [_text(level[0]) for place, level in self.bids.levels.items() if place not in snapshot.bids.levels],
        )

    @property
    def time(self) -> int | None:
        """When the last of it was published, as that says itself, in ms since 1970: `E`, or else `T`."""
        for name in _TIMES:
            token = self.fields.get(name, b"")
            if token.isdigit() and len(token) <= _TIME_DIGITS:
                return int(token)
        return None

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

    @classmethod
    def parse(cls, data: bytes) -> Self:
        return cls._parsed(data)

    def take(self, later: DepthMessage) -> None:
        super().take(later)
        if later.fields.get(_SNAPSHOT) == b"true":  # what there is of levels is all of them
            self.fields[_SNAPSHOT] = b"true"


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


def write_levels(levels: Iterable[Level]) -> bytes:
    """Levels as JSON, in this order."""
    return _encode(list(levels))


def _text(price: str | msgspec.Raw) -> str:
    """A price as it is written in a string."""
    if isinstance(price, str):
        return price
    token = bytes(price)
    return _string.decode(token) if token.startswith(b'"') else token.decode()


def _read(side: bytes) -> tuple[Side, int]:
    """The levels of one side, and the bytes of price and quantity in the longest of them."""
    return (len(side) > _SHORT and _read_plain(side)) or _read_carefully(side)


def _read_plain(side: bytes) -> tuple[Side, int] | None:
    """The same for levels of short, plainly written texts, as nearly all are; None for any other."""
    if b"\\" in side:
        return None
    try:
        rows = _texts.decode(side)
    except msgspec.ValidationError:
        return None
    texts = list(chain.from_iterable(rows))
    sizes = list(map(len, texts))
    numbers = read_plain(texts)
    if numbers is None or max(sizes[::2], default=0) > PLAIN:
        return None
    places, amounts = numbers[::2], numbers[1::2]
    levels: dict[Place, Level] = dict(zip(places, rows, strict=True))
    zeros: set[Place] = set()
    if 0.0 in amounts:
        zeros = {place for place, amount in dict(zip(places, amounts, strict=True)).items() if not amount}
    return Side(levels, zeros), max(map(add, sizes[::2], sizes[1::2]), default=0) + _QUOTES


def _read_carefully(side: bytes) -> tuple[Side, int]:
    levels: dict[Place, Level] = {}
    zeros: set[Place] = set()
    longest = 0
    for raw_price, raw_quantity in _levels.decode(side):
        price, quantity = bytes(raw_price), bytes(raw_quantity)
        place = _remembered(price) if len(price) <= _CACHED else _place(price)
        amount = _remembered_amount(quantity) if len(quantity) <= _CACHED else _place(quantity)
        levels[place] = (_Raw(price), _Raw(quantity))
        if amount == 0:
            zeros.add(place)
        else:
            zeros.discard(place)
        longest = max(longest, len(price) + len(quantity))
    return Side(levels, zeros), longest


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
