"""Candles, and the last 24 hours, in plain answers as Binance shapes them: `GET /api/v3/klines`, `uiKlines`,
`ticker/24hr` and `ticker/price`.

They are those of the candle service (docs/market-data.md#candles). While none works, the answer is 503.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

import msgspec

from marketfeed.api.listing import Listing
from marketfeed.api.market_data import as_json
from marketfeed.api.query import BAD_INTERVAL, MISSING, BadQuery, Query
from marketfeed.boundaries import Statistics
from marketfeed.http.response import Response
from marketfeed.model.candle_store import Row
from marketfeed.model.identity import Identity
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.model.streams import StreamKinds

__all__ = ["CandleStock", "DayTickers", "Klines"]

_USUAL, _MOST = 500, 1000
_AWAY = as_json(Response(503, "no candles at the moment: nobody makes any", (("Retry-After", "5"),)))
_NOT_COVERED = as_json(Response(403, "the token does not cover this market"))
_FRESH = "max-age=1"
_CSV = "open time,open,high,low,close,volume,close time,quote volume,trades,taker volume,taker quote volume"
_ZERO = b'"0.00000000"'
_DAY_NAMES = {
    "priceChange": "p", "priceChangePercent": "P", "weightedAvgPrice": "w", "prevClosePrice": "x", "lastPrice": "c",
    "lastQty": "Q", "bidPrice": "b", "bidQty": "B", "askPrice": "a", "askQty": "A", "openPrice": "o",
    "highPrice": "h", "lowPrice": "l", "volume": "v", "quoteVolume": "q", "openTime": "O", "closeTime": "C",
    "firstId": "F", "lastId": "L", "count": "n",
}  # fmt: skip
_MINI_NAMES = {name: _DAY_NAMES[name] for name in (
    "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume", "openTime", "closeTime", "firstId",
    "lastId", "count",
)}  # fmt: skip
_PRICE_NAMES = {"price": "c"}


class CandleStock(Protocol):
    """Where candles are to be had."""

    def klines(
        self, market: str, interval: str, start: int | None, end: int | None, limit: int
    ) -> Awaitable[list[Row] | None]:
        """Those that begin between these times; None: nobody knows at the moment."""

    def days(self) -> Awaitable[Mapping[str, Mapping[str, bytes]] | None]:
        """The last 24 hours of each market; None: the same."""


class Klines:
    """Finds candles."""

    def __init__(self, stock: CandleStock, kinds: StreamKinds, listing: Listing) -> None:
        self._stock = stock
        self._kinds = kinds
        self._listing = listing

    async def find(self, identity: Identity, query: Query) -> Response:
        """The answer to a request; see `market_data.Find`."""
        market, interval = self._listing.resolve(query.symbol()), query.text("interval")
        if not interval:
            raise BadQuery("interval is mandatory", MISSING)
        if interval not in INTERVALS:
            raise BadQuery(f"Invalid interval: expected one of {', '.join(INTERVALS)}", BAD_INTERVAL)
        start, end, limit = query.number("startTime"), query.number("endTime"), query.limit(_USUAL, _MOST)
        form = query.text("format")
        if form not in (None, "json", "csv"):
            raise BadQuery("format: expected csv, or nothing")
        if not identity.permits(self._kinds.parse(f"kline_{interval}@{market}")):
            return _NOT_COVERED
        rows = await self._stock.klines(market, interval, start, end, limit)
        if rows is None:
            return _AWAY
        if form == "csv":
            lines = [",".join(map(str, msgspec.structs.astuple(row)[:-1])) for row in rows]
            return Response(200, "\n".join([_CSV, *lines]), cache=_FRESH, media="text/csv; charset=utf-8")
        return Response(200, "candles", cache=_FRESH, json=msgspec.json.encode(rows))


class DayTickers:
    """Finds the last 24 hours of markets. `books`: who knows the best prices."""

    def __init__(self, stock: CandleStock, books: Statistics, kinds: StreamKinds, listing: Listing) -> None:
        self._stock = stock
        self._books = books
        self._kinds = kinds
        self._listing = listing

    async def find(self, identity: Identity, query: Query) -> Response:
        """The answer to `ticker/24hr`; see `market_data.Find`."""
        form = query.text("type")
        if form not in (None, "FULL", "MINI"):
            raise BadQuery("type: expected FULL or MINI")
        return await self._find(identity, query, _MINI_NAMES if form == "MINI" else _DAY_NAMES)

    async def find_prices(self, identity: Identity, query: Query) -> Response:
        """The answer to `ticker/price`."""
        return await self._find(identity, query, _PRICE_NAMES)

    async def _find(self, identity: Identity, query: Query, names: Mapping[str, str]) -> Response:
        asked = query.symbols()
        one = self._listing.resolve(asked) if isinstance(asked, str) else None
        if one is not None and not self._permits(identity, one):
            return _NOT_COVERED
        days = await self._stock.days()
        if days is None or (one is not None and one not in days):
            return _AWAY
        if one is not None:
            return Response(200, "24 hours", cache=_FRESH, json=self._row(one, days[one], names))
        wanted = sorted(days) if asked is None else [self._listing.resolve(each) for each in asked]
        rows = [
            self._row(market, days[market], names)
            for market in wanted
            if market in days and self._permits(identity, market)
        ]
        return Response(200, "24 hours", cache=_FRESH, json=b"[%b]" % b",".join(rows))

    def _row(self, market: str, day: Mapping[str, bytes], names: Mapping[str, str]) -> bytes:
        known = {**dict.fromkeys("bBaA", _ZERO), **(self._books.of(market) if "bidPrice" in names else {}), **day}
        fields = [b'"%b":%b' % (name.encode(), known[field]) for name, field in names.items()]
        return b'{"symbol":"%b",%b}' % (market.encode(), b",".join(fields))

    def _permits(self, identity: Identity, market: str) -> bool:
        return identity.permits(self._kinds.parse(f"miniTicker@{market}"))
