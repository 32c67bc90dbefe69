"""A limit order book of one market, and the orders that meet in it. Pure: no clock, no Twisted, no floats.

1. Inside, prices are whole ticks and quantities whole lots, all above zero. Decimals are strings, and stay outside:
   an `Increment` reads and writes them.
2. Price, then time: an order executes against the best price first, and at one price against the order that came
   first. An order that is executed in part keeps its place. The price is that of the order that waited.
3. The rest of a limit order waits in the book, the rest of a market order is cancelled.
4. The book is never crossed, and a level that holds nothing does not exist.
5. What was ordered is what was executed, what waits, and what was cancelled.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from enum import IntEnum

import msgspec

__all__ = ["BadOrder", "Execution", "Increment", "MatchingEngine", "Outcome", "Side"]

_DECIMAL = re.compile(r"(\d+)(?:\.(\d+))?", re.ASCII)


class BadOrder(ValueError):
    """A price or a quantity cannot be used; the message says which, and what would be accepted."""


class Side(IntEnum):
    """Who an order is from. The value is the direction in which its prices get better for the other side."""

    BUY = 1
    SELL = -1

    @property
    def other(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class Increment(msgspec.Struct, frozen=True):
    """The least step of a price (a tick) or of a quantity (a lot): `units` of the last of `places` decimal places."""

    units: int
    places: int

    @classmethod
    def parse(cls, text: str) -> Increment:
        """The increment that is written ``0.05``; what it writes has as many places. Raises `BadOrder`."""
        match = _DECIMAL.fullmatch(text)
        if match is None or not text.strip("0."):
            raise BadOrder(f"the increment {text!r} is not a decimal above zero, such as 0.05")
        whole, part = match[1], match[2] or ""
        return cls(int(whole + part), len(part))

    def read(self, text: str) -> int:
        """How many increments the decimal `text` is. Raises `BadOrder` where that is not a whole number."""
        match = _DECIMAL.fullmatch(text)
        if match is None:
            raise BadOrder(f"{text!r} is not a decimal such as {self.write(1)}")
        whole, part = match[1], (match[2] or "").ljust(self.places, "0")
        count, rest = divmod(int(whole + part[: self.places]), self.units)
        if rest or part[self.places :].strip("0"):
            raise BadOrder(f"{text} is not a multiple of {self.write(1)}")
        return count

    def write(self, count: int) -> str:
        """The decimal that `count` increments are; `count` is not negative."""
        digits = str(count * self.units)
        if not self.places:
            return digits
        digits = digits.zfill(self.places + 1)
        return f"{digits[: -self.places]}.{digits[-self.places :]}"


class Execution(msgspec.Struct, frozen=True, gc=False):
    """One order met another, at a price in ticks, over a quantity in lots.

    `buyer_is_maker`: the buyer's order was the one that waited.
    """

    id: int
    buyer_is_maker: bool
    price: int
    quantity: int


class Outcome(msgspec.Struct, frozen=True):
    """What one order or one cancel did.

    `order`: its id; `executions` in their order; `changed`: the levels, as side and price, that hold another quantity
    now; `resting` and `cancelled`: the lots of this order that wait in the book, and that will never be executed.
    """

    order: int
    executions: tuple[Execution, ...]
    changed: frozenset[tuple[Side, int]]
    resting: int = 0
    cancelled: int = 0


class _Level:
    """The orders that wait at one price: id → lots left, in the order of their arrival."""

    __slots__ = ("orders", "price", "quantity")

    def __init__(self, price: int) -> None:
        self.price = price
        self.quantity = 0
        self.orders: dict[int, int] = {}


class _BookSide:
    """The levels of one side."""

    __slots__ = ("_ranks", "levels", "side")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.levels: dict[int, _Level] = {}
        self._ranks: list[int] = []  # price times side, ascending: the best is the last

    def best(self) -> _Level | None:
        return self.levels[self._ranks[-1] * self.side] if self._ranks else None

    def best_first(self) -> list[_Level]:
        return [self.levels[rank * self.side] for rank in reversed(self._ranks)]

    def add(self, price: int, order: int, quantity: int) -> None:
        level = self.levels.get(price)
        if level is None:
            level = self.levels[price] = _Level(price)
            insort(self._ranks, price * self.side)
        level.orders[order] = quantity
        level.quantity += quantity

    def drop(self, level: _Level) -> None:
        del self.levels[level.price]
        del self._ranks[bisect_left(self._ranks, level.price * self.side)]


class MatchingEngine:
    """One market's book. Order ids count from 1, execution ids from behind `executed`."""

    def __init__(self, executed: int = 0) -> None:
        self._sides = {side: _BookSide(side) for side in Side}
        self._places: dict[int, tuple[Side, int]] = {}
        self._last_order = 0
        self._last_execution = executed

    def limit(self, side: Side, price: int, quantity: int) -> Outcome:
        """Buy or sell `quantity` lots at `price` ticks or better; the rest waits. Raises `BadOrder`."""
        if price < 1:
            raise BadOrder(f"a price of {price} ticks; expected 1 or more")
        return self._accept(side, price, quantity)

    def market(self, side: Side, quantity: int) -> Outcome:
        """Buy or sell `quantity` lots at whatever price there is; the rest is cancelled. Raises `BadOrder`."""
        return self._accept(side, None, quantity)

    def cancel(self, order: int) -> Outcome:
        """Take an order out of the book. One that waits no longer, or never did, changes nothing."""
        place = self._places.pop(order, None)
        if place is None:
            return Outcome(order, (), frozenset())
        side, price = place
        level = self._sides[side].levels[price]
        quantity = level.orders.pop(order)
        level.quantity -= quantity
        if not level.orders:
            self._sides[side].drop(level)
        return Outcome(order, (), frozenset((place,)), cancelled=quantity)

    def best(self, side: Side) -> int | None:
        """The best price of a side, in ticks; None when nothing waits there."""
        level = self._sides[side].best()
        return None if level is None else level.price

    def levels(self, side: Side) -> list[tuple[int, int]]:
        """Price and quantity of each level, best first."""
        return [(level.price, level.quantity) for level in self._sides[side].best_first()]

    def quantity_at(self, side: Side, price: int) -> int:
        """How many lots wait at a price."""
        level = self._sides[side].levels.get(price)
        return 0 if level is None else level.quantity

    def orders_at(self, side: Side, price: int) -> list[tuple[int, int]]:
        """Id and lots left of each order at a price, first come first."""
        level = self._sides[side].levels.get(price)
        return [] if level is None else list(level.orders.items())

    @property
    def waiting(self) -> int:
        """How many orders wait in the book."""
        return len(self._places)

    def _accept(self, side: Side, price: int | None, quantity: int) -> Outcome:
        if quantity < 1:
            raise BadOrder(f"a quantity of {quantity} lots; expected 1 or more")
        self._last_order += 1
        order = self._last_order
        executions, changed = self._execute(side, price, quantity)
        rest = quantity - sum(execution.quantity for execution in executions)
        if price is None or not rest:
            return Outcome(order, tuple(executions), frozenset(changed), cancelled=rest)
        self._sides[side].add(price, order, rest)
        self._places[order] = (side, price)
        changed.add((side, price))
        return Outcome(order, tuple(executions), frozenset(changed), resting=rest)

    def _execute(self, side: Side, price: int | None, quantity: int) -> tuple[list[Execution], set[tuple[Side, int]]]:
        makers = self._sides[side.other]
        executions: list[Execution] = []
        changed: set[tuple[Side, int]] = set()
        while quantity:
            level = makers.best()
            if level is None or (price is not None and level.price * side > price * side):
                break
            changed.add((makers.side, level.price))
            maker, waits = next(iter(level.orders.items()))
            taken = min(quantity, waits)
            self._last_execution += 1
            executions.append(Execution(self._last_execution, makers.side is Side.BUY, level.price, taken))
            quantity -= taken
            level.quantity -= taken
            if taken < waits:
                level.orders[maker] = waits - taken
                break
            del level.orders[maker], self._places[maker]
            if not level.orders:
                makers.drop(level)
        return executions, changed
