"""The kinds of streams. A built-in one is a module of this package, and a name here."""

from __future__ import annotations

from collections.abc import Iterable

from marketfeed.model.kinds.agg_trade import AGG_TRADE
from marketfeed.model.kinds.book_ticker import BOOK_TICKER
from marketfeed.model.kinds.depth import DEPTH
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.kinds.kline import KLINES
from marketfeed.model.kinds.mini_ticker import ALL_MINI_TICKERS, MINI_TICKER
from marketfeed.model.kinds.partial_depth import PARTIAL_DEPTHS
from marketfeed.model.kinds.ticker import TICKER
from marketfeed.model.kinds.trade import TRADE

__all__ = ["BUILT_IN", "EVENTS", "SHOWN", "by_event", "listed"]

BUILT_IN = (TRADE, DEPTH, TICKER, *KLINES, MINI_TICKER, ALL_MINI_TICKERS, AGG_TRADE, BOOK_TICKER, *PARTIAL_DEPTHS)


def by_event(kinds: Iterable[StreamKind]) -> dict[str, StreamKind]:
    """Kinds by what their publications may have as `e`."""
    return {event: kind for kind in kinds for event in kind.shape.events}


def listed(names: Iterable[str]) -> str:
    """Names of kinds for somebody to read, who is spared sixteen kinds of candles."""
    candles = {kind.name for kind in KLINES}
    return ", ".join(dict.fromkeys("kline_<interval>" if name in candles else name for name in names))


EVENTS = by_event(BUILT_IN)

SHOWN = {kind.name: kind for kind in BUILT_IN} | by_event(BUILT_IN)
"""How publications are shown, by what they may have as `e`, or by the name of their kind."""
