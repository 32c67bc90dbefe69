"""One simulated market: traders around a fair price, and what an engine publishes of what they do.

1. The same seed and the same steps make the same bytes. Time is passed in, and only stamped on trades.
2. Every trade is an execution of a matching engine. Replayed from any snapshot on, the depth publications of a market
   give the engine's own book.
3. Each published change of a level takes one update id, so `U` is always the last `u` + 1. A snapshot takes none.
4. After each step a book has `LEAST_LEVELS` to `REACH` levels a side, no further than `REACH` ticks from the fair
   price, which wanders by a tick at a time and stays within a fifth of the opening price, as an exchange's price band
   does. Best bid and best ask are less than twice `NEAR` ticks apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from zlib import crc32

import msgspec

from marketfeed.demo.matching import Execution, Increment, MatchingEngine, Outcome, Side

__all__ = ["INSTRUMENTS", "Instrument", "Publication", "SimulatedMarket", "trade"]

REACH = 30
NEAR = 3
LEAST_LEVELS = 22
SNAPSHOT_STEPS = 50
"""From one snapshot of a market to its next."""
ORDERS = 100
"""About so many orders wait in a book."""

_LEAST_OPENING = 100  # ticks; from there on no price comes near zero, with a fifth of it and `REACH` below
_PERCENT = Increment(1, 2)

Publication = tuple[str, bytes]
"""A stream's canonical name, or the channel's, and the payload."""


class Instrument(msgspec.Struct, frozen=True):
    """What is traded in a market: the opening price, the least steps of prices and of quantities, all decimals.

    No order is for less than one step of a quantity.
    """

    market: str
    opening: str
    price_step: str = "0.05"
    quantity_step: str = "1"

    @property
    def base(self) -> str:
        """What is traded."""
        return self.market.rpartition("_")[0]

    @property
    def quote(self) -> str:
        """What is paid for it."""
        base, _, quote = self.market.rpartition("_")
        return quote if base else ""

    @classmethod
    def named(cls, market: str) -> Instrument:
        """One of `INSTRUMENTS`, or one made up, whose opening price depends on its name alone."""
        known = (instrument for instrument in INSTRUMENTS if instrument.market == market)
        return next(known, None) or cls(market, f"{100 + crc32(market.encode()) % 2900}.00")


INSTRUMENTS = (
    Instrument("TATA_INR", "1000.50"),
    Instrument("INFY_INR", "1520.00"),
    Instrument("RELIANCE_INR", "2905.35"),
    Instrument("SBIN_INR", "812.15"),
    Instrument("WIPRO_INR", "246.10", price_step="0.01"),
    Instrument("BTC_INR", "5412000.00", price_step="100.00", quantity_step="0.0001"),
)
"""What is traded unless other markets are named. The first is traded always."""


class SimulatedMarket:
    """One market: traders around a fair price, and what their orders do to the book, as publications.

    `executed`: how many trades there were before it opened, from whose ids it goes on.
    """

    def __init__(self, instrument: Instrument, random: Random, executed: int = 0) -> None:
        self.engine = MatchingEngine(executed)
        self._market = instrument.market
        self._random = random
        self._price = Increment.parse(instrument.price_step)
        self._quantity = Increment.parse(instrument.quantity_step)
        self._opening = self._fair = self._last = self._high = self._low = self._price.read(instrument.opening)
        if self._opening < _LEAST_OPENING:
            raise ValueError(f"{instrument.market} opens below {_LEAST_OPENING} ticks")
        self._volume = 0
        self._executions: list[Execution] = []
        self._changed: set[tuple[Side, int]] = set()
        self._published: dict[tuple[Side, int], int] = {}
        self._last_update = 0
        self._until_snapshot = 0
        for side in Side:
            self._tend(side)
        self._changes()  # what a first snapshot holds needs no update

    def step(self, now_ms: int) -> list[Publication]:
        """Let some traders act; returns what the engine publishes because of it, in order."""
        publications = []
        if self._until_snapshot == 0:
            publications.append(self._snapshot())
            self._until_snapshot = SNAPSHOT_STEPS
        self._until_snapshot -= 1
        self._act()
        executions, self._executions = self._executions, []
        publications += [self._trade(execution, now_ms) for execution in executions]
        first = self._last_update + 1
        if changes := self._changes():
            publications.append(self._depth(first, changes))
        if executions:
            publications.append(self._ticker())
        return publications

    def restate(self) -> None:
        """Begin the next step with a snapshot."""
        self._until_snapshot = 0

    def states(self) -> list[Publication]:
        """What somebody would have to know who comes now: the whole book, and the ticker."""
        return [self._snapshot(), self._ticker()]

    # What traders do.

    def _act(self) -> None:
        random = self._random
        if random.randrange(4) == 0:
            self._wander()
        for _ in range(random.randint(1, 3)):
            side = random.choice((Side.BUY, Side.SELL))
            if random.randrange(2 * ORDERS) < self.engine.waiting:
                self._cancel_one(side)
            else:
                self._quote(side, min(random.randrange(REACH), random.randrange(REACH)))
        if random.randrange(3) == 0:
            side = random.choice((Side.BUY, Side.SELL))
            best = self.engine.levels(side.other)[0][1]
            self._note(self.engine.market(side, random.randint(1, best + best // 2)))
        for side in Side:
            self._tend(side)

    def _wander(self) -> None:
        """Move the fair price by a tick; orders that are now on its wrong side are picked off."""
        band = self._opening // 5
        fair = self._fair + self._random.choice((-1, 1))
        if abs(fair - self._opening) > band:
            return
        taker = Side.BUY if fair > self._fair else Side.SELL
        stale = self._price_at(taker.other, 0)
        self._fair = fair
        if quantity := self.engine.quantity_at(taker.other, stale):
            self._note(self.engine.limit(taker, stale, quantity))

    def _cancel_one(self, side: Side) -> None:
        price, _ = self._random.choice(self.engine.levels(side))
        order, _ = self._random.choice(self.engine.orders_at(side, price))
        self._note(self.engine.cancel(order))

    def _quote(self, side: Side, distance: int) -> None:
        quantity = self._random.randint(1, 10) * self._random.randint(1, 10)
        self._note(self.engine.limit(side, self._price_at(side, distance), quantity))

    def _tend(self, side: Side) -> None:
        """What market makers do: cancel what is out of reach, and quote where the book has become thin."""
        distances = {(self._price_at(side, 0) - price) * side for price, _ in self.engine.levels(side)}
        for distance in sorted(distances):
            if distance >= REACH:
                for order, _ in self.engine.orders_at(side, self._price_at(side, distance)):
                    self._note(self.engine.cancel(order))
                distances.remove(distance)
        if not distances or min(distances) >= NEAR:
            distances.add(self._random.randrange(NEAR))
            self._quote(side, min(distances))
        missing = LEAST_LEVELS - len(distances)
        if missing > 0:
            empty = [distance for distance in range(REACH) if distance not in distances]
            for distance in self._random.sample(empty, missing):
                self._quote(side, distance)

    def _price_at(self, side: Side, distance: int) -> int:
        """The price so many ticks away from where that side begins: bids at the fair price, asks a tick above."""
        return self._fair - distance if side is Side.BUY else self._fair + 1 + distance

    def _note(self, outcome: Outcome) -> None:
        self._executions += outcome.executions
        self._changed |= outcome.changed

    # What the engine publishes.

    def _changes(self) -> list[tuple[Side, int, int]]:
        """The levels that hold another quantity than was published last, best first; each takes an update id."""
        changes = []
        for side, price in sorted(self._changed, key=lambda place: -place[0] * place[1]):
            quantity = self.engine.quantity_at(side, price)
            if quantity != self._published.get((side, price), 0):
                changes.append((side, price, quantity))
                self._published[side, price] = quantity
            if not quantity:
                self._published.pop((side, price), None)
        self._changed.clear()
        self._last_update += len(changes)
        return changes

    def _trade(self, execution: Execution, now_ms: int) -> Publication:
        self._last = execution.price
        self._high = max(self._high, execution.price)
        self._low = min(self._low, execution.price)
        self._volume += execution.quantity
        price, quantity = self._price.write(execution.price), self._quantity.write(execution.quantity)
        data = trade(self._market, execution.id, execution.buyer_is_maker, price, quantity, now_ms)
        return f"trade@{self._market}", data

    def _depth(self, first: int, changes: list[tuple[Side, int, int]]) -> Publication:
        return self._publication("depth", U=first, u=self._last_update, **self._lists(changes))

    def _snapshot(self) -> Publication:
        last = self._last_update
        book = [(side, price, quantity) for side in Side for price, quantity in self.engine.levels(side)]
        return self._publication("depth", U=last, u=last, snapshot=True, **self._lists(book))

    def _lists(self, levels: Iterable[tuple[Side, int, int]]) -> dict[str, list[tuple[str, str]]]:
        lists: dict[Side, list[tuple[str, str]]] = {Side.BUY: [], Side.SELL: []}
        for side, price, quantity in levels:
            lists[side].append((self._price.write(price), self._quantity.write(quantity) if quantity else "0"))
        return {"b": lists[Side.BUY], "a": lists[Side.SELL]}

    def _ticker(self) -> Publication:
        prices = {"c": self._last, "o": self._opening, "h": self._high, "l": self._low}
        return self._publication(
            "ticker",
            **{field: self._price.write(price) for field, price in prices.items()},
            v=self._quantity.write(self._volume),
            P=_percent(self._last - self._opening, self._opening),
        )

    def _publication(self, kind: str, **data: object) -> Publication:
        return f"{kind}@{self._market}", msgspec.json.encode({"e": kind, **data, "s": self._market})


def trade(market: str, number: int, buyer_is_maker: bool, price: str, quantity: str, now_ms: int) -> bytes:
    """One trade, as the engine publishes it."""
    return msgspec.json.encode(
        {"e": "trade", "t": number, "m": buyer_is_maker, "p": price, "q": quantity, "T": now_ms, "s": market}
    )


def _percent(change: int, of: int) -> str:
    """A signed percentage with two places, rounded half away from zero."""
    hundredths = (20000 * abs(change) + of) // (2 * of)
    return f"{'-' if change < 0 and hundredths else ''}{_PERCENT.write(hundredths)}"
