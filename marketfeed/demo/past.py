"""What was traded in a simulated market before it opened, for who shows more than the present. Pure.

1. The same market, moment, hours and seed make the same trades. They take some microseconds each, and no memory.
2. Their ids count from 1 without a hole, and the market's own go on from there; the last price is its opening price.
3. Prices stay within a fifth of that, as those of the open market do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from marketfeed.demo.market import Instrument, trade
from marketfeed.demo.matching import Increment

__all__ = ["EVERY_MS", "PastTrade", "past", "trades_in"]

EVERY_MS = 5000
"""One trade in so long, at any moment of it."""
_LOTS = 9
"""So many times what a trade of the open market is for: at its usual rate that has as many more trades in the time."""
_BAND = 10
_STEPS = 5000
"""So many of the largest moves from one trade to the next are the price itself."""
_HOUR_MS = 3_600_000


class PastTrade(NamedTuple):
    """When it was, in ms since 1970, and what was published of it."""

    time: int
    payload: bytes


def trades_in(hours: int) -> int:
    """How many there are."""
    return hours * _HOUR_MS // EVERY_MS


def past(instrument: Instrument, until: int, hours: int, seed: int = 1) -> Iterator[PastTrade]:
    """All trades of the hours before `until`, in ms since 1970, oldest first."""
    price, quantity = Increment.parse(instrument.price_step), Increment.parse(instrument.quantity_step)
    opening, name = price.read(instrument.opening), f"{seed} {instrument.market} past"
    (last,) = deque(_walk(Random(name), opening, hours), 1) or (0,)  # it shall have ended where the market opens
    random, begin = Random(f"{name} trades"), until - hours * _HOUR_MS
    for number, at in enumerate(_walk(Random(name), opening, hours)):
        time = begin + number * EVERY_MS + random.randrange(EVERY_MS)
        lots = _LOTS * random.randint(1, 10) * random.randint(1, 10)
        ticks = price.write(opening + at - last)
        is_maker = random.random() < 0.5
        yield PastTrade(time, trade(instrument.market, number + 1, is_maker, ticks, quantity.write(lots), time))


def _walk(random: Random, opening: int, hours: int) -> Iterator[int]:
    """How far the price is from where it began, in ticks: never further than a tenth of the opening price."""
    most, at = opening // _BAND, 0
    largest = max(1, opening // _STEPS)
    for _ in range(trades_in(hours)):
        step = random.randint(-largest, largest)
        if abs(at + step) <= most:
            at += step
        yield at
