"""What is answered in plain HTTP, by path. A new answer is a function, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from marketfeed.access.admission import Admission
from marketfeed.api.book_ticker import BookTicker, KeptBooks
from marketfeed.api.candle_answers import BestPrices, CandleStock, DayTickers, Klines
from marketfeed.api.depth import INCOMPLETE, Depth
from marketfeed.api.exchange_info import ExchangeInfo
from marketfeed.api.listing import Listing
from marketfeed.api.market_data import Find, MarketData, as_json
from marketfeed.api.query import Query
from marketfeed.api.trades import Past, Trades
from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.http.router import PlainAnswer
from marketfeed.model.identity import Identity
from marketfeed.model.streams import StreamKinds

__all__ = ["REST", "Stock", "alive", "plain_answers", "readiness", "rest_answers"]

REST = "/api/v3/"
"""What the paths of market data begin with."""
_NOT_READY = Response(503, "not ready", (("Retry-After", "1"),), reason="not-ready")
_NOTHING = Response(200, "here", json=b"{}")


class Stock(KeptBooks, Past, Protocol):
    """Where market data are to be had, as `Hub` has them. `facts`: what is known of markets besides."""

    @property
    def facts(self) -> BestPrices: ...


def alive(head: Head, address: str | None) -> Response:
    """It answers, so it lives. One that cannot serve yet need not be restarted (docs/operations/health.md#health)."""
    return Response(200, "ok")


def readiness(is_ready: Callable[[], bool]) -> PlainAnswer:
    """Answers whether clients should come here at this moment."""
    return lambda head, address: Response(200, "ready") if is_ready() else _NOT_READY


def rest_answers(
    stock: Stock,
    candles: CandleStock,
    kinds: StreamKinds,
    listing: Listing,
    now: Callable[[], float],
    rate: Callable[[], int],
) -> dict[str, Find]:
    """What finds each answer, by what stands behind `/api/v3/` (docs/market-data.md#rest). `now`: s since 1970; `rate`:
    how many requests there may be in a minute.
    """
    trades = Trades(stock, kinds, listing)
    klines = Klines(candles, kinds, listing, now)
    days = DayTickers(candles, stock.facts, stock.portions, kinds, listing)

    async def time(identity: Identity, query: Query) -> Response:
        return Response(200, "the time", json=b'{"serverTime":%d}' % (now() * 1000))

    return {
        "ping": _ping,
        "time": time,
        "exchangeInfo": ExchangeInfo(listing, now, rate).find,
        "depth": Depth(stock, kinds, listing).find,
        "trades": trades.find,
        "aggTrades": trades.find_aggregates,
        "klines": klines.find,
        "uiKlines": klines.find,
        "ticker/24hr": days.find,
        "ticker/price": days.find_prices,
        "ticker/bookTicker": BookTicker(stock, kinds, listing).find,
    }


async def _ping(identity: Identity, query: Query) -> Response:
    return _NOTHING


def plain_answers(
    admission: Admission, rest: Mapping[str, Find], is_ready: Callable[[], bool]
) -> dict[str, PlainAnswer]:
    """The table for `Router`. `rest`: of market data; `is_ready`: whether clients should come here at this moment."""

    async def nothing(identity: Identity, query: Query) -> Response:
        return as_json(
            Response(404, f"nothing is at this path; expected one of {', '.join([REST + path for path in rest])}")
        )

    late = {"depth": INCOMPLETE, "ticker/bookTicker": INCOMPLETE}
    return {
        "/healthz": alive,
        "/readyz": readiness(is_ready),
        REST: MarketData(admission, "unknown", nothing),
        **{REST + path: MarketData(admission, path, find, late.get(path)) for path, find in rest.items()},
    }
