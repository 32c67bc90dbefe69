"""What is traded here, as Binance's clients ask before anything else: `GET /api/v3/exchangeInfo`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from marketfeed.api.listing import Listing
from marketfeed.api.market_data import as_json, kept_for
from marketfeed.api.query import Query
from marketfeed.http.response import Response
from marketfeed.model.identity import Identity
from marketfeed.model.markets import Market

__all__ = ["ExchangeInfo"]

_LEAST_PLACES = 8
_NO_MAXIMUM = "9000000000.00000000"
"""In place of the largest price and quantity, which nobody has declared: clients read 0 as a limit."""
_SECONDS = 60
_UNKNOWN = as_json(Response(503, "nothing is known of this market", (("Retry-After", "10"),)))
_encode = msgspec.json.encode


class ExchangeInfo:
    """Tells of the markets that are listed. `now`: s since 1970; `rate`: how many requests there may be in a minute."""

    def __init__(self, listing: Listing, now: Callable[[], float], rate: Callable[[], int]) -> None:
        self._listing = listing
        self._now = now
        self._rate = rate
        self._written_of: object = None
        self._written: dict[str, bytes] = {}
        self._all = b""

    async def find(self, identity: Identity, query: Query) -> Response:
        """The answer to a request; see `market_data.Find`."""
        asked = query.symbols()
        await self._listing.known()
        self._write()
        if asked is None:
            symbols = self._all
        else:
            names = [self._listing.resolve(each) for each in ([asked] if isinstance(asked, str) else asked)]
            if not all(name in self._written for name in names):
                return _UNKNOWN
            symbols = b",".join([self._written[name] for name in dict.fromkeys(names)])
        rate = self._rate()
        limits = [
            {"rateLimitType": kind, "interval": "MINUTE", "intervalNum": 1, "limit": rate}
            for kind in ("REQUEST_WEIGHT", "RAW_REQUESTS")
            if rate
        ]
        body = b'{"timezone":"UTC","serverTime":%d,"rateLimits":%b,"exchangeFilters":[],"symbols":[%b]}' % (
            self._now() * 1000,
            _encode(limits),
            symbols,
        )
        return Response(200, "markets", json=body, cache=kept_for(identity, _SECONDS))

    def _write(self) -> None:
        markets = self._listing.all()
        if markets is not self._written_of:
            written = {name: _encode(entry) for name, market in markets.items() if (entry := _entry(market))}
            self._written_of, self._written, self._all = markets, written, b",".join(written.values())


def _entry(market: Market) -> dict[str, Any] | None:
    """A market as Binance shapes it; None: it is not known what is traded there."""
    pair = market.pair
    if pair is None:
        return None
    base_places, quote_places = _places(market.quantity_step), _places(market.price_step)
    return {
        "symbol": market.name,
        "status": market.status,
        "baseAsset": pair[0],
        "baseAssetPrecision": base_places,
        "quoteAsset": pair[1],
        "quotePrecision": quote_places,
        "quoteAssetPrecision": quote_places,
        "baseCommissionPrecision": base_places,
        "quoteCommissionPrecision": quote_places,
        "orderTypes": ["LIMIT", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "amendAllowed": False,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(market),
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def _filters(market: Market) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = []
    if step := market.price_step:
        filters.append({"filterType": "PRICE_FILTER", "minPrice": step, "maxPrice": _NO_MAXIMUM, "tickSize": step})
    if step := market.quantity_step:
        least = market.min_quantity or step
        filters.append({"filterType": "LOT_SIZE", "minQty": least, "maxQty": _NO_MAXIMUM, "stepSize": step})
    if least := market.min_notional:
        filters.append(
            {
                "filterType": "NOTIONAL",
                "minNotional": least,
                "applyMinToMarket": True,
                "maxNotional": _NO_MAXIMUM,
                "applyMaxToMarket": False,
                "avgPriceMins": 0,
            }
        )
    return filters


def _places(step: str) -> int:
    """Behind the point."""
    return max(_LEAST_PLACES, len(step.partition(".")[2]))
