"""Candles, and the last 24 hours, in plain answers as Binance shapes them: `GET /api/v3/klines`, `uiKlines`,
`ticker/24hr` and `ticker/price`.

1. They are those of the candle service (docs/market-data.md#candles). While none works, the answer is 503.
2. What was written is good for a second, for all who ask for the same; of that the oldest goes first where it is much.
   The lists of all markets are written some in a turn of the reactor, and ask Redis for nothing of a single one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from marketfeed.api.listing import Listing
from marketfeed.api.market_data import as_json, kept_for
from marketfeed.api.query import BAD_INTERVAL, MISSING, BadQuery, Query
from marketfeed.http.response import Response
from marketfeed.hub.portions import Portions, Work
from marketfeed.model.candle_store import Row
from marketfeed.model.identity import Identity
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.model.kinds.mini_ticker import MINI_TICKER
from marketfeed.model.streams import StreamKinds, StreamName
from marketfeed.runtime.shared_reads import SharedReads

__all__ = ["BestPrices", "CandleStock", "DayTickers", "Klines"]

_USUAL, _MOST = 500, 1000
_AWAY = as_json(Response(503, "no candles at the moment: nobody makes any", (("Retry-After", "5"),)))
_NOT_COVERED = as_json(Response(403, "the token does not cover this market"))
_UNHEARD = as_json(Response(503, "nothing is known of this market: it has had no trade yet", (("Retry-After", "10"),)))
_FRESH_SECONDS = 1
_MOST_BYTES = 16 * 2**20
_ROW_IN_US = 15
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

    def day(self, market: str) -> Awaitable[Mapping[str, bytes] | None]:
        """The last 24 hours of a market; empty, where it had no trade yet; None: the same."""

    def days(self) -> Awaitable[Mapping[str, Mapping[str, bytes]] | None]:
        """Those of each market that had one; the same object for as long as they are the same."""


class Klines:
    """Finds candles. `now`: in s."""

    def __init__(self, stock: CandleStock, kinds: StreamKinds, listing: Listing, now: Callable[[], float]) -> None:
        self._stock = stock
        self._kinds = kinds
        self._listing = listing
        self._written = SharedReads[bytes](now, _FRESH_SECONDS, _MOST_BYTES, _size)

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
        wanted = market, interval, start, end, limit
        is_csv = form == "csv"
        key = *wanted, is_csv
        body = await self._written.get(key, partial(self._write, *wanted, is_csv=is_csv))
        if body is None:
            return _AWAY
        if not body:
            self._written.forget(key)
            return _UNHEARD
        cache = kept_for(identity, _FRESH_SECONDS)
        if is_csv:
            return Response(200, body.decode(), cache=cache, media="text/csv; charset=utf-8")
        return Response(200, "candles", cache=cache, json=body)

    async def _write(
        self, market: str, interval: str, start: int | None, end: int | None, limit: int, *, is_csv: bool
    ) -> bytes | None:
        """Empty: nobody knows of such a market."""
        rows = await self._stock.klines(market, interval, start, end, limit)
        if rows is None:
            return None
        if not rows and market not in self._listing.all() and not await self._stock.day(market):
            return b""
        if not is_csv:
            return msgspec.json.encode(rows)
        return "\n".join([_CSV, *(",".join(map(str, msgspec.structs.astuple(row)[:-1])) for row in rows)]).encode()


def _size(body: bytes) -> int:
    """What is kept of it, about: with its key."""
    return 512 + len(body)


class BestPrices(Protocol):
    """Who knows the best prices of markets."""

    def best(self, market: str) -> Mapping[str, bytes]:
        """Those of the fields `b`, `B`, `a` and `A` that are known, as JSON."""

    def looking_cost(self, market: str) -> int:
        """What it takes to find them, in µs, about."""


class DayTickers:
    """Finds the last 24 hours of markets. `books`: who knows the best prices; `portions`: does what takes long."""

    def __init__(
        self, stock: CandleStock, books: BestPrices, portions: Portions, kinds: StreamKinds, listing: Listing
    ) -> None:
        self._stock = stock
        self._books = books
        self._portions = portions
        self._kinds = kinds
        self._listing = listing
        self._written: dict[tuple[str, int], bytes] = {}  # by market, and how many fields
        self._written_of: object = None

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
        if isinstance(asked, str):
            return await self._find_one(identity, self._listing.resolve(asked), names)
        days = await self._stock.days()
        if days is None:
            return _AWAY
        wanted = sorted(days) if asked is None else dict.fromkeys([self._listing.resolve(each) for each in asked])
        rows: list[bytes] = []
        await self._portions.finish(self._write(identity, wanted, days, names, rows))
        return Response(200, "24 hours", cache=kept_for(identity, _FRESH_SECONDS), json=b"[%b]" % b",".join(rows))

    def _write(
        self,
        identity: Identity,
        wanted: Iterable[str],
        days: Mapping[str, Mapping[str, bytes]],
        names: Mapping[str, str],
        rows: list[bytes],
    ) -> Work:
        if self._written_of is not days:
            self._written_of, self._written = days, {}
        written = self._written
        for market in wanted:
            if market not in days:
                continue
            yield 1 + identity.tried
            if not self._permits(identity, market):
                continue
            key = market, len(names)
            if key not in written:
                yield _ROW_IN_US + (self._books.looking_cost(market) if "bidPrice" in names else 0)
                written[key] = self._row(market, days[market], names)
            rows.append(written[key])

    async def _find_one(self, identity: Identity, market: str, names: Mapping[str, str]) -> Response:
        if not self._permits(identity, market):
            return _NOT_COVERED
        day = await self._stock.day(market)
        if not day:
            return _AWAY if day is None else _UNHEARD
        return Response(200, "24 hours", cache=kept_for(identity, _FRESH_SECONDS), json=self._row(market, day, names))

    def _row(self, market: str, day: Mapping[str, bytes], names: Mapping[str, str]) -> bytes:
        known = {**dict.fromkeys("bBaA", _ZERO), **(self._books.best(market) if "bidPrice" in names else {}), **day}
        fields = [b'"%b":%b' % (name.encode(), known[field]) for name, field in names.items()]
        return b'{"symbol":"%b",%b}' % (market.encode(), b",".join(fields))

    def _permits(self, identity: Identity, market: str) -> bool:
        return identity.permits(StreamName(self._kinds.of(MINI_TICKER), market))
