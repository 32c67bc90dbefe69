"""Markets as front ends and bots want to know them: what is traded for what, in which steps, and other spellings.

Most of it the operator declares (docs/operations/data.md#markets). A name alone says the rest, where it has a `_`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

__all__ = ["STATUSES", "Market", "Markets"]

STATUSES = ("TRADING", "HALT", "BREAK")
"""What the status of a market may be, as Binance has it."""


class Market(msgspec.Struct, frozen=True):
    """One market. Decimals are texts, as they were declared; empty: nothing is known.

    `price_step`, `quantity_step`: of which prices and quantities are multiples; `min_quantity`, `min_notional`: of an
    order; `alias`: another spelling, which is accepted and never given out.
    """

    name: str
    base: str = ""
    quote: str = ""
    price_step: str = ""
    quantity_step: str = ""
    min_quantity: str = ""
    min_notional: str = ""
    status: str = STATUSES[0]
    alias: str = ""

    @property
    def pair(self) -> tuple[str, str] | None:
        """What is traded, and for what: as declared, or else by the name; None: neither says it."""
        base, _, quote = (self.base, "", self.quote) if self.base else self.name.rpartition("_")
        return (base, quote) if base and quote else None


class Markets:
    """Markets by their names, and by their aliases."""

    def __init__(self, markets: Iterable[Market] = ()) -> None:
        self._by_name = {market.name: market for market in markets}
        self.aliases: Mapping[str, str] = {
            spelling: each.name for each in self if each.alias for spelling in (each.alias, each.alias.upper())
        }
        """The other spellings, each with the market that it stands for. One in small letters is there in capital ones
        as well, which a name that begins with the market stands for, ``tatainr@trade``."""

    def __iter__(self) -> Iterator[Market]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Market | None:
        """The market of this name, or this alias; None: there is none here."""
        return self._by_name.get(self.resolve(name))

    def resolve(self, name: str) -> str:
        """The market that somebody means: an alias's, or else the one that is called so, whether it is here or not."""
        return name if name in self._by_name else self.aliases.get(name, name)
