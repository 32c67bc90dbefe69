"""What the fields of publications may hold: decimals, levels and markets (docs/protocol.md#what-the-engine-publishes).

1. A decimal is checked, never converted. One in a string is within the bounds of `decimals`; a number must be one that
   a double can hold, as it is for the clients.
2. Of short ones some are remembered (`values`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Annotated, Any, get_args, get_type_hints

import msgspec

from marketfeed.model.decimals import ACCEPTED, is_decimal
from marketfeed.model.kinds.values import Decimal, are_plain, good_decimals, is_good_decimal, is_market

__all__ = [
    "Plain",
    "Shape",
    "ShortDecimal",
    "ShortLevel",
    "ShortMarket",
]

_SHOWN = 40  # characters of a bad value, the most that a fault repeats
_CACHED = 40  # characters of a decimal, beyond which it is not worth remembering

Level = tuple[Decimal, Decimal]
"""A price and a quantity."""

ShortMarket = Annotated[str, msgspec.Meta(max_length=_CACHED)]
ShortDecimal = ShortMarket | int | float
ShortLevel = tuple[ShortDecimal, ShortDecimal]
"""What is worth remembering."""


class Plain(msgspec.Struct, gc=False):
    """A publication that is plainly written, as nearly all are; of a kind, its required fields.

    Their types are `ShortDecimal`, `ShortMarket`, `int`, `list[ShortLevel]`, or any that msgspec decodes. Those that
    have a default are not required: they are read on the way, for whoever wants them.
    """

    def has_few_lists(self, data: bytes) -> bool:
        """Whether that is known at a glance, where `data` holds no further objects."""
        return False


class Shape(msgspec.Struct, frozen=True):
    """What the publications of a kind must hold; by default any JSON object.

    `fields`: a type that msgspec decodes, of the required ones. `fault`: what is wrong with such an object besides, or
    None. `plain`: a quicker way to see that nothing is; None: there is none. `is_good`: whether one that was read as
    `plain` is sure to have nothing wrong. `events`: what they may have as `e`.
    """

    fields: Any = dict[str, msgspec.Raw]
    fault: Callable[[Any], str | None] = lambda _: None
    plain: type[Plain] | None = None
    events: tuple[str, ...] = ()
    is_good: Callable[[Any], bool] = lambda _: False

    @classmethod
    def of(cls, plain: type[Plain], is_good: Callable[[Any], bool]) -> Shape:
        """What `plain` requires, however it is written. One of its fields is `e`, a Literal."""
        hints = get_type_hints(plain, include_extras=True)
        required = {field.name for field in msgspec.structs.fields(plain) if field.required}
        hints = {name: hint for name, hint in hints.items() if name in required}
        types = [(name, _AS_WRITTEN[hint][0] if hint in _AS_WRITTEN else hint) for name, hint in hints.items()]
        checks = [(name, _AS_WRITTEN[hint][1]) for name, hint in hints.items() if hint in _AS_WRITTEN]

        def fault(publication: Any) -> str | None:
            for name, check in checks:
                found = check(name, getattr(publication, name))
                if found is not None:
                    return found
            return None

        return cls(msgspec.defstruct(plain.__name__, types), fault, plain, get_args(hints["e"]), is_good)


def _bad_decimal(field: str, value: Decimal) -> str | None:
    if type(value) is not str or value in good_decimals:
        return None
    if not (is_good_decimal(value) if len(value) <= _CACHED else is_decimal(value)):
        return f"expected {ACCEPTED}, got {value[:_SHOWN]!r} - at `$.{field}`"
    return None


def _bad_levels(field: str, levels: list[Level]) -> str | None:
    if are_plain(levels):
        return None
    return next((fault for value in chain.from_iterable(levels) if (fault := _bad_decimal(field, value))), None)


def _bad_market(field: str, value: str) -> str | None:
    return None if is_market(value) else f"expected a market, got {value[:_SHOWN]!r} - at `$.{field}`"


def _bad_integer(field: str, value: float) -> str | None:
    """Some encoders write 17.0."""
    return f"expected an integer - at `$.{field}`" if type(value) is float and not value.is_integer() else None


_AS_WRITTEN: dict[Any, tuple[Any, Callable[[str, Any], str | None]]] = {
    ShortDecimal: (Decimal, _bad_decimal),
    ShortMarket: (str, _bad_market),
    int: (int | float, _bad_integer),
    list[ShortLevel]: (list[Level], _bad_levels),
}
"""What fields of a `Plain` may be where they are not plainly written, and what is wrong with a value, if anything."""
