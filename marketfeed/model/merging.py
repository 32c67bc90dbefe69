"""How what waits for one client becomes less: messages of one stream that are merged into one another.

1. Merged are the messages of a kind whose loss policy is `merge`, and how is the kind's to say. Those of an order book
   are in `book`; here are those of candles, and those about many markets at once.
2. Merging what has been read never fails. What cannot be read is merged with nothing.
3. A candle that is closed stands: only an open one gives way to what comes after it, itself closed or not.
4. Of messages about many markets the newest that is told of each market counts.
"""

from __future__ import annotations

from typing import Protocol, Self

import msgspec

__all__ = ["CandleMessage", "MarketsMessage", "Message"]

_COMMA, _BRACKETS = 1, 2


class Message(Protocol):
    """One message of a stream, or several merged into one."""

    @property
    def is_snapshot(self) -> bool:
        """It says all that there is to say, so that nothing that waits before it is of use."""

    @property
    def size(self) -> int:
        """The bytes that it takes when written: never too few."""

    def copy(self) -> Self:
        """A message of the same content, to merge others into."""

    def can_take(self, later: Self) -> bool:
        """Whether `later` may be merged into this one."""

    def take(self, later: Self) -> None:
        """Merge `later`, for which `can_take` holds, into this one."""

    def to_bytes(self) -> bytes:
        """The message as JSON."""


class _Candle(msgspec.Struct):
    x: bool


class _Kline(msgspec.Struct):
    k: _Candle


class _Row(msgspec.Struct):
    s: str


_kline = msgspec.json.Decoder(_Kline)
_rows = msgspec.json.Decoder(list[msgspec.Raw])
_row = msgspec.json.Decoder(_Row)


class CandleMessage(msgspec.Struct, eq=False):
    """A candle as it was when this was published."""

    data: bytes
    is_closed: bool

    is_snapshot = False

    @classmethod
    def parse(cls, data: bytes) -> CandleMessage:
        """Read the data of a publication. Raises what msgspec does where they are no candle's."""
        return cls(data, _kline.decode(data).k.x)

    @property
    def size(self) -> int:
        return len(self.data)

    def copy(self) -> CandleMessage:
        return CandleMessage(self.data, self.is_closed)

    def can_take(self, later: CandleMessage) -> bool:
        return not self.is_closed

    def take(self, later: CandleMessage) -> None:
        self.data, self.is_closed = later.data, later.is_closed

    def to_bytes(self) -> bytes:
        return self.data


class MarketsMessage(msgspec.Struct, eq=False):
    """What was told of several markets: an array of objects, each with its market as `s`."""

    rows: dict[str, bytes]
    """By market."""

    is_snapshot = False

    @classmethod
    def parse(cls, data: bytes) -> MarketsMessage:
        """Read the data of a publication. Raises what msgspec does where they are no such array."""
        return cls({_row.decode(row).s: bytes(row) for row in _rows.decode(data)})

    @property
    def size(self) -> int:
        return sum(map(len, self.rows.values())) + _COMMA * len(self.rows) + _BRACKETS

    def copy(self) -> MarketsMessage:
        return MarketsMessage(self.rows.copy())

    def can_take(self, later: MarketsMessage) -> bool:
        return True

    def take(self, later: MarketsMessage) -> None:
        self.rows.update(later.rows)

    def to_bytes(self) -> bytes:
        return b"[" + b",".join(self.rows.values()) + b"]"
