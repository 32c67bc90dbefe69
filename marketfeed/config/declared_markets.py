"""The markets that an operator declares, in the tables `[markets.<market>]` of the file.

What they may hold, and what it means: docs/operations/data.md#markets.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from marketfeed.config.declared_kinds import BadSetting
from marketfeed.model.decimals import is_decimal
from marketfeed.model.kinds.values import is_market
from marketfeed.model.markets import STATUSES, Market

__all__ = ["read_markets"]

_DECIMALS = ("price_step", "quantity_step", "min_quantity", "min_notional")
_NAMES = ("base", "quote", "alias")
_FIELDS = ("base", "quote", *_DECIMALS, "status", "alias")


def read_markets(tables: Any, path: str) -> tuple[Market, ...]:
    """`tables`: what stands under `markets` in the file at `path`. Raises `BadSetting`."""
    if not isinstance(tables, dict):
        raise BadSetting(f"markets in {path}: expected tables, as [markets.TATA_INR]")
    markets = tuple([_read_market(name, table, path) for name, table in tables.items()])
    _check_aliases(markets, path)
    return markets


def _read_market(name: str, table: Any, path: str) -> Market:
    where = f"markets.{repr(name[:80])[1:-1]} in {path}"
    if not is_market(name):
        raise BadSetting(f"{where}: expected a market, 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    if not isinstance(table, dict):
        raise BadSetting(f'{where}: expected a table, as base = "TATA" and quote = "INR"')
    for field, value in table.items():
        if field not in _FIELDS:
            raise BadSetting(f"{where}: {repr(field[:80])[1:-1]} is unknown; expected one of {', '.join(_FIELDS)}")
        if field in _NAMES and not (isinstance(value, str) and is_market(value)):
            raise BadSetting(f"{where}: {field}: expected 1 to 64 of the characters A-Z a-z 0-9 . _ -")
        if field in _DECIMALS and not _is_amount(value):
            raise BadSetting(f'{where}: {field}: expected a decimal above 0, in quotes and without exponent, as "0.05"')
    if table.get("status", STATUSES[0]) not in STATUSES:
        raise BadSetting(f"{where}: status: expected {' or '.join(STATUSES)}")
    if ("base" in table) != ("quote" in table):
        raise BadSetting(f"{where}: expected base and quote together, or neither")
    if "min_quantity" in table and "quantity_step" not in table:
        raise BadSetting(f"{where}: min_quantity: expected together with quantity_step")
    return Market(name, **table)


def _is_amount(value: Any) -> bool:
    return (
        isinstance(value, str)
        and is_decimal(value)
        and value[0].isdigit()
        and value[-1].isdigit()
        and "e" not in value.lower()
        and Decimal(value) > 0
    )


def _check_aliases(markets: tuple[Market, ...], path: str) -> None:
    """A spelling is one market's, however clients mix small and capital letters."""
    taken = {market.name.upper(): market.name for market in markets}
    for market in markets:
        if not market.alias:
            continue
        own = f"the alias of {market.name}"
        other = taken.setdefault(market.alias.upper(), own)
        if other not in (own, market.name) or market.alias == market.name:
            raise BadSetting(f"markets.{market.name} in {path}: alias: expected another one; it is {other} already")
