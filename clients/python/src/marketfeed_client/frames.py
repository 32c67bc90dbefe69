"""Lists of candles, trades and messages as a table of pandas, which the extra ``pandas`` installs."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from marketfeed_client.events import Message
from marketfeed_client.rest import Candle, Trade

__all__ = ["data_frame"]

_TIMES = ("open_time", "close_time", "time")
_DECIMALS = (
    *("open", "high", "low", "close", "volume", "quote_volume", "taker_volume", "taker_quote_volume"),
    *("price", "quantity"),
)


def data_frame(
    rows: Sequence[Candle | Trade | Message], *, numbers: Literal["text", "decimal", "float"] = "text"
) -> Any:
    """A pandas.DataFrame with a column for each field, and UTC times for those in ms.

    `numbers`: what prices and quantities of candles and trades become; ``text`` leaves them as the engine wrote them.
    Of messages there are stream, offset and the fields of their data, as JSON has them. Raises ImportError without
    pandas.
    """
    if numbers not in ("text", "decimal", "float"):
        raise TypeError(f"numbers: expected text, decimal or float, not {numbers!r}")
    import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]

    if rows and isinstance(rows[0], Message):
        records = [{"stream": row.stream, "offset": row.offset, **row.data} for row in rows]  # type: ignore[union-attr]
        return pandas.DataFrame.from_records(records)
    fields = [field.name for field in msgspec.structs.fields(rows[0])] if rows else []
    table = pandas.DataFrame({name: [getattr(row, name) for row in rows] for name in fields})
    for name in fields:
        if name in _TIMES:
            table[name] = pandas.to_datetime(table[name], unit="ms", utc=True)
        elif name in _DECIMALS and numbers != "text":
            table[name] = table[name].map(float if numbers == "float" else Decimal)
    return table
