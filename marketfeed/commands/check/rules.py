"""What publications of each kind are asked about their fields, one after the other. Pure.

1. Only good publications are asked: those that a daemon with `--validate strict` passes on.
2. There is an answer for each feature, and for each fault: what is wrong whatever one wants of it.
3. A book that is crossed once is not looked at again.
4. Where the listener has lost something, ids begin anew: no jump is the engine's then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import msgspec

from marketfeed.commands.check.features import STATISTICS
from marketfeed.model.book_state import BookState

__all__ = ["RULES", "Answer", "Rules", "TradeIds", "is_pair"]


class Answer(NamedTuple):
    """About a feature, by its key: `what` is wrong, "" if nothing is. Or about a fault, then with details."""

    key: str
    what: str = ""
    detail: str = ""


_DAY, _HOUR, _MINUTE = 86_400_000, 3_600_000, 60_000
_COUNTS = frozenset("OCFLn")
"""Those of a ticker's fields that are whole numbers: moments, ids, a count."""
_LOOK = 100
"""After so many updates it is looked whether a book is crossed."""


class Rules(Protocol):
    """What is asked of the publications of one stream, in their order."""

    def ask(self, data: Mapping[str, Any], raw: bytes, now: int) -> Iterator[Answer]:
        """About one; `now`: when it came, in ms since 1970."""

    def lose(self) -> None:
        """Some may be missing, for which the engine is not to blame."""


class TradeIds:
    """Whether ids that count up, but not by one in each market, do so over all of them."""

    def __init__(self) -> None:
        self._last: int | None = None
        self.steps = self.seen = 0

    def take(self, found: int) -> None:
        if self._last is not None:
            self.seen += 1
            self.steps += found == self._last + 1
        self._last = found

    def lose(self) -> None:
        """Some may be missing."""
        self._last = None

    @property
    def are_common(self) -> bool:
        return self.seen > 1 and self.steps == self.seen


class TradeRules:
    """Of trades."""

    def __init__(self, common: TradeIds) -> None:
        self._common = common
        self._last: int | None = None

    def ask(self, data: Mapping[str, Any], raw: bytes, now: int) -> Iterator[Answer]:
        last, self._last = self._last, int(data["t"])
        self._common.take(self._last)
        yield Answer("ids", _step("t", last, self._last))
        if last == self._last:
            yield Answer("", "t is the same as of the trade before", str(last))
        yield Answer("executed", _moment(data, ("T",), now))
        yield Answer("trade-texts", _texts(data, ("p", "q")))

    def lose(self) -> None:
        self._last = None


class DepthRules:
    """Of depth messages. `had_book`: there was a whole one."""

    def __init__(self, common: TradeIds) -> None:
        self._state = BookState()
        self._last: int | None = None
        self._count = 0
        self._was_crossed = False
        self.had_book = False

    def ask(self, data: Mapping[str, Any], raw: bytes, now: int) -> Iterator[Answer]:
        first, last = data.get("U"), data.get("u")
        previous, self._last = self._last, last if type(last) is int else None
        if self._state.record(raw):
            jump = f"U {first} and u {last} behind u {previous}"
            yield Answer("", "the ids jump", jump)
            yield Answer("updates", jump)
        else:
            yield Answer("updates", _ids(first, last))
        self.had_book |= data.get("snapshot") is True
        yield Answer("depth-texts", _level_texts(data))
        yield Answer("depth-time", _moment(data, ("E", "T"), now))
        self._count += 1
        if self._count % _LOOK == 0:
            yield from self.look()

    def look(self) -> Iterator[Answer]:
        """Whether the book is crossed, said once."""
        written = None if self._was_crossed else self._state.depth(1)
        if written is not None:
            book = msgspec.json.decode(written)
            bids, asks = book["bids"], book["asks"]
            if bids and asks and Decimal(str(bids[0][0])) >= Decimal(str(asks[0][0])):
                self._was_crossed = True
                yield Answer("", "the book is crossed", f"best bid {bids[0][0]}, best ask {asks[0][0]}")

    def seed(self, data: bytes) -> str:
        """A book that was kept beside the stream; what is wrong with it."""
        self.had_book = True
        last = msgspec.json.decode(data).get("u")
        return "" if type(last) is int else "it has no u: a daemon cannot say which updates come behind it"

    def lose(self) -> None:
        self._state = BookState()  # which knows of no id that the next one could jump from
        self._last = None


class TickerRules:
    """Of tickers."""

    def __init__(self, common: TradeIds) -> None:
        pass

    def ask(self, data: Mapping[str, Any], raw: bytes, now: int) -> Iterator[Answer]:
        missing = [field for field in STATISTICS if field not in data]
        yield Answer("statistics", f"without {' '.join(missing)}" if missing else "")
        yield Answer("ticker-texts", _texts(data, ("c", *(field for field in STATISTICS if field not in _COUNTS))))
        yield Answer("ticker-time", _moment(data, ("E", "T"), now))

    def lose(self) -> None:
        """One does not depend on another."""


RULES: Mapping[str, type[TradeRules | DepthRules | TickerRules]] = {
    "trade": TradeRules,
    "depth": DepthRules,
    "ticker": TickerRules,
}
"""By the kind's name."""


def is_pair(market: str) -> bool:
    """Whether a market's name says what is traded for what, in upper case."""
    base, _, quote = market.rpartition("_")
    return bool(base and quote) and market == market.upper()


def _step(field: str, last: int | None, found: int) -> str:
    if last is None or found == last + 1:
        return ""
    if found == last:
        return f"{field} is {found} twice"
    return f"{field} goes from {last} to {found}"


def _ids(first: Any, last: Any) -> str:
    missing = [name for name, value in (("U", first), ("u", last)) if value is None]
    if missing:
        return f"without {' and '.join(missing)}"
    if type(first) is not int or type(last) is not int:
        return "U and u are no integers"
    return "" if first <= last else f"U {first} is behind u {last}"


def _moment(data: Mapping[str, Any], fields: tuple[str, ...], now: int) -> str:
    """What is wrong with the first of `fields` that is there."""
    field = next((field for field in fields if field in data), "")
    if not field:
        return f"without {' and '.join(fields)}"
    value = data[field]
    if type(value) is not int or value.bit_length() > 64:
        return f"{field} is no integer of ms"
    for factor, unit in ((0.001, "seconds"), (1000, "microseconds"), (1_000_000, "nanoseconds")):
        if abs(value / factor - now) < _DAY:
            return f"{field} is in {unit}"
    if value > now + _MINUTE:
        return f"{field} is more than a minute ahead of the clock here"
    return f"{field} is more than an hour ago" if value < now - _HOUR else ""


def _texts(data: Mapping[str, Any], fields: tuple[str, ...]) -> str:
    found = [field for field in fields if field in data and not isinstance(data[field], str)]
    return f"{' '.join(found)}: no string" if found else ""


def _level_texts(data: Mapping[str, Any]) -> str:
    for side in "ab":
        if not all(isinstance(price, str) and isinstance(quantity, str) for price, quantity, *_ in data[side]):
            return f"levels of {side} with numbers"
    return ""
