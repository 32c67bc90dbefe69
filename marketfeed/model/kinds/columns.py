"""What one line about a publication shows, in columns. Nothing that an engine writes can do more than be read there.

1. A text holds only printable characters, and is not longer than there is room for.
2. Numbers are shown in the engine's own spelling, never converted first.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

__all__ = ["WORD", "Column", "as_text", "clean", "direction", "number", "spread", "word"]

WORD = 40
"""Characters of a market, a price, a quantity."""
_TEXT = 2000  # characters of everything else that has no bounds of its own
_LONGEST_DECIMAL = 64


class Column(NamedTuple):
    """One of them. `side`: buy or sell, which its colour tells; `label`: what stands before it without a colour."""

    text: str
    side: str = ""
    label: str = ""


def clean(text: str, limit: int = _TEXT) -> str:
    """`text` without anything that a terminal would not simply print, and not longer than `limit` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def word(value: Any) -> str:
    """The value of a field, of which all numbers are texts, as one word; a hyphen where there is none."""
    return clean(as_text(value), WORD) or "-"


def as_text(value: Any) -> str:
    """The same at any length."""
    return value if isinstance(value, str) else "-"


def number(value: Any) -> Decimal | None:
    """The finite number that a text spells, or None."""
    if not isinstance(value, str) or len(value) > _LONGEST_DECIMAL:
        return None
    try:
        found = Decimal(value)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def direction(first: Any, last: Any) -> str:
    """Buy where the price has not fallen, and sell where it has; empty where one of the two is none."""
    opened, closed = number(first), number(last)
    if opened is None or closed is None:
        return ""
    return "buy" if closed >= opened else "sell"


def spread(bid: Any, ask: Any) -> str:
    """How far two prices are apart; empty where one of them is none, or nothing."""
    low, high = number(bid), number(ask)
    if not low or not high:
        return ""
    try:
        return f"spread {word(str(high - low))}"
    except ArithmeticError:  # they are further apart than Python reckons
        return ""
