"""Trades as candles are made of them: an id, a time, a price, a quantity, and who was the taker.

1. Prices and quantities keep the engine's spelling beside the exact decimal that it stands for.
2. A trade's time is its `T`, or else its `E`, or else the time at which it came, in ms since 1970.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, Inexact

import msgspec

from marketfeed.model.decimals import is_decimal

__all__ = ["EXACT", "BadTrade", "IdRuns", "RecentIds", "Trade", "plain", "read_trade"]

EXACT = Context(prec=1000, Emax=10_000, Emin=-10_000, traps=[Inexact])
"""In which decimals are added and multiplied: no sum or product of prices and quantities has as many digits."""

IdRuns = list[list[int]]
"""The first and the last of each run of ids."""

_BLOCK = 10
_BITS = (1 << _BLOCK) - 1


class BadTrade(ValueError):
    """What was published is no trade that could count; the message says why."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade. `is_maker`: the buyer was the maker, so that the taker has sold."""

    number: int
    time: int
    price: str
    quantity: str
    is_maker: bool
    at: Decimal
    """The price."""
    amount: Decimal
    """The quantity."""


class _Plain(msgspec.Struct, gc=False):
    t: int
    m: bool
    p: str
    q: str
    T: int | None = None
    E: int | None = None


class _Any(msgspec.Struct, gc=False):
    t: int | float
    m: bool
    p: msgspec.Raw
    q: msgspec.Raw
    T: msgspec.Raw = msgspec.Raw(b"null")
    E: msgspec.Raw = msgspec.Raw(b"null")


_decode_plain = msgspec.json.Decoder(_Plain).decode
_decode_any = msgspec.json.Decoder(_Any).decode
_text = msgspec.json.Decoder(str).decode
_number = msgspec.json.Decoder(int | float).decode


def read_trade(data: bytes, came: int) -> Trade:
    """The trade that was published as `data`, which came at `came`, in ms since 1970. Raises `BadTrade`."""
    try:
        read = _decode_plain(data)
        number, price, quantity, is_maker = read.t, read.p, read.q, read.m
        time = came if read.T is None and read.E is None else read.E if read.T is None else read.T
    except msgspec.MsgspecError:
        number, price, quantity, is_maker, time = _read_carefully(data, came)
    if not (is_decimal(price) and is_decimal(quantity)):
        raise BadTrade("price and quantity have to be decimals")
    at, amount = Decimal(price), Decimal(quantity)
    if amount < 0:
        raise BadTrade("the quantity is negative")
    assert time is not None
    return Trade(number, time, price, quantity, is_maker, at, amount)


def _read_carefully(data: bytes, came: int) -> tuple[int, str, str, bool, int]:
    """The same of one that is written in another way: numbers for texts, and times that are none."""
    try:
        read = _decode_any(data)
        price, quantity = _decimal_in(bytes(read.p)), _decimal_in(bytes(read.q))
    except (msgspec.MsgspecError, RecursionError) as fault:
        raise BadTrade(str(fault)[:80]) from None
    times = [time for time in (_time_in(bytes(read.T)), _time_in(bytes(read.E)), came) if time is not None]
    return int(read.t), price, quantity, read.m, times[0]


def _decimal_in(token: bytes) -> str:
    """As the engine spelled it; a number beyond the bounds of decimals is what a double makes of it."""
    if token.startswith(b'"'):
        return _text(token)
    text = token.decode()
    return text if is_decimal(text) else repr(float(_number(token)))


def _time_in(token: bytes) -> int | None:
    try:
        return int(_number(token))
    except (msgspec.MsgspecError, OverflowError, ValueError):
        return None


def plain(value: Decimal) -> str:
    """A decimal without an exponent."""
    return format(value, "f")


class RecentIds:
    """The last `most` ids of trades of a market, in the order in which they came.

    They are written down in parts of `PART` ids, each of them a list of the first and the last of each run of ids that
    count up by one: what changes is the newest part, and each is dropped as a whole.
    """

    __slots__ = ("_blocks", "_count", "_gone", "_most", "_newest", "_parts", "_room", "_unwritten", "_written")

    PART = 100

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._blocks: dict[int, int] = {}  # of 1,024 ids each, a bit for one
        self._parts: deque[IdRuns] = deque()  # oldest first
        self._newest = 0  # the number of the last of them
        self._room = 0  # ids that it may have besides
        self._count = 0
        self._unwritten = 1  # the number of the first part that has changed since
        self._written = 0  # the number of the last part of which something was written
        self._gone: list[int] = []  # the numbers of those that were written, and dropped since

    def unwritten(self) -> tuple[dict[int, IdRuns], list[int]]:
        """The parts that have changed since this was asked, by their numbers, and the numbers of those to be forgotten.

        They are somebody else's from then on only until the next `add`.
        """
        first = self._newest - len(self._parts) + 1
        changed = {
            number: self._parts[number - first] for number in range(max(first, self._unwritten), self._newest + 1)
        }
        gone, self._gone = self._gone, []
        self._unwritten = self._newest + 1
        self._written = self._newest
        return changed, gone

    @classmethod
    def of(cls, parts: Mapping[int, Sequence[Sequence[int]]], most: int = 10_000) -> RecentIds:
        """Those that were written down, all parts that were not to be forgotten. Raises ValueError if they are none."""
        found = cls(most)
        found._newest = max(parts, default=0) - len(parts)
        for number in sorted(parts):
            found._begin_part()
            for first, last in parts[number]:
                if last - first >= cls.PART:
                    raise ValueError("there are too many ids in a part")
                for each in range(first, last + 1):
                    found.add(each)
        found._unwritten = found._newest + 1
        found._written = found._newest
        return found

    def add(self, number: int) -> bool:
        """Whether it is none of them yet; then it is the newest."""
        block, bit = number >> _BLOCK, 1 << (number & _BITS)
        bits = self._blocks.get(block, 0)
        if bits & bit:
            return False
        self._blocks[block] = bits | bit
        if not self._room:
            self._begin_part()
        runs = self._parts[-1]
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
        self._room -= 1
        if self._unwritten > self._newest:
            self._unwritten = self._newest
        self._count += 1
        if self._count > self._most:
            self._drop_oldest()
        return True

    def _begin_part(self) -> None:
        self._parts.append([])
        self._newest += 1
        self._room = self.PART

    def _drop_oldest(self) -> None:
        runs = self._parts[0]
        first = runs[0]
        number = first[0]
        if number == first[1]:
            del runs[0]
            if not runs:
                part = self._newest - len(self._parts) + 1
                if part <= self._written:
                    self._gone.append(part)
                self._parts.popleft()
        else:
            first[0] += 1
        block = number >> _BLOCK
        left = self._blocks[block] & ~(1 << (number & _BITS))
        if left:
            self._blocks[block] = left
        else:
            del self._blocks[block]
        self._count -= 1
