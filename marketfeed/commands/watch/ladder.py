"""Books as ladders, which stand below the lines of `marketfeed watch` and are redrawn in place. Pure.

1. There is one for each stream whose publications are the best levels of a book. Asks stand above bids, best to best,
   each level with its quantity, and a bar that shows it beside the others'.
2. They are never higher than the terminal, nor a line of them wider: levels that are far from the middle are left out.
   Where not even the best levels of all streams have room there is no ladder, and each publication is a line.
3. Nothing that an engine writes can do more than be read there: see `display`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from marketfeed.commands.messages import Publication
from marketfeed.commands.watch.display import market_of, paint
from marketfeed.model.kinds.columns import number, spread
from marketfeed.model.kinds.partial_depth import LEVELS, level_texts

__all__ = ["Ladders"]

_MOST = max(LEVELS)
_FRAME = 2
"""Lines of a ladder that are no levels: above it, and between the sides."""
_BAR = 30
_LEAST_BAR = 4
_INDENT = 2
_KINDS = frozenset(f"depth{levels}" for levels in LEVELS)

_Rows = list[tuple[str, str]]


class Ladders:
    """The ladders of a terminal, and what draws them.

    `size`: its columns and lines, at the moment; `block`: the character that bars are made of. What is returned is to
    be written at once, where the cursor stands behind what was written before.
    """

    def __init__(self, size: Callable[[], tuple[int, int]], *, block: str = "#", colour: bool = False) -> None:
        self._size = size
        self._block = block
        self._colour = colour
        self._books: dict[str, tuple[Publication, str]] = {}
        self._height = 0

    def take(self, publication: Publication, time: str) -> bool:
        """Whether this is shown by a ladder, from the next `draw` on. `time`: when it came."""
        event = publication.data.get("e")
        if not isinstance(event, str) or event not in _KINDS:
            return False
        name = publication.stream or f"{event}@{market_of(publication)}"
        if name not in self._books and self._room(len(self._books) + 1) < 1:
            return False
        self._books[name] = (publication, time)
        return True

    def erase(self) -> str:
        """What takes the ladders away, so that a line may be written where they begin."""
        height, self._height = self._height, 0
        return f"\x1b[{height}A\r\x1b[J" if height else ""

    def draw(self) -> str:
        """What draws all of them, in the place of those that are there."""
        lines = self._lines()
        up = f"\x1b[{self._height}A\r" if self._height else ""
        self._height = len(lines)
        return up + "".join([f"{line}\x1b[K\n" for line in lines]) + ("\x1b[J" if up else "")

    def _room(self, count: int) -> int:
        """How many levels of each side there is room for, with so many ladders."""
        _, lines = self._size()
        return min(_MOST, ((lines - 1) // max(1, count) - _FRAME) // 2)

    def _lines(self) -> list[str]:
        columns, _ = self._size()
        most = self._room(len(self._books))
        if most < 1:  # the terminal has become smaller
            return []
        lines: list[str] = []
        for publication, time in self._books.values():
            lines += self._ladder(publication, time, most, columns - 1)
        return lines

    def _ladder(self, publication: Publication, time: str, most: int, columns: int) -> list[str]:
        bids, asks = (
            [(_ascii(price), _ascii(quantity)) for price, quantity in level_texts(publication.data, side)[:most]]
            for side in ("bids", "asks")
        )
        rows = [*asks[::-1], *bids]
        prices = max((len(price) for price, _ in rows), default=0)
        amounts = max((len(quantity) for _, quantity in rows), default=0)
        head = f"{_ascii(market_of(publication)):<12}  {publication.data['e']:<7}  "
        room = min(_BAR, columns - _INDENT - prices - 2 - amounts - 2)
        largest = max((_amount(quantity) for _, quantity in rows), default=Decimal(0))

        def row(side: str, level: tuple[str, str]) -> str:
            price, quantity = level
            text = f"{'':{_INDENT}}{price:>{prices}}  {quantity:>{amounts}}"[:columns]
            bar = self._bar(_amount(quantity), largest, room)
            return paint(side, f"{text}  {bar}" if bar else text, self._colour)

        middle = f"{'':{_INDENT}}{_apart(bids, asks)}"[:columns]
        return [
            (head + time)[:columns] if len(head + time) > columns else head + paint("time", time, self._colour),
            *[row("sell", level) for level in asks[::-1]],
            paint("time", middle, self._colour),
            *[row("buy", level) for level in bids],
        ]

    def _bar(self, amount: Decimal, largest: Decimal, room: int) -> str:
        if room < _LEAST_BAR or not largest:
            return ""
        try:
            return self._block * max(1, int(room * amount / largest)) if amount else ""
        except ArithmeticError:  # they are further apart than Python reckons
            return ""


def _amount(text: str) -> Decimal:
    """A quantity that can be drawn; zero where it is none."""
    found = number(text)
    return found if found is not None and found > 0 else Decimal(0)


def _apart(bids: _Rows, asks: _Rows) -> str:
    """How far the best of both sides are apart."""
    if bids and asks:
        return spread(bids[0][0], asks[0][0]) or "spread unknown"
    return "no asks" if bids else "no bids" if asks else "no bids, no asks"


def _ascii(text: str) -> str:
    """`text` of which each character takes one column."""
    return text.encode("ascii", "replace").decode()
