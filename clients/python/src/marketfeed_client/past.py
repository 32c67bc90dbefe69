"""Past candles and trades, and the markets, for programs without an event loop, and for notebooks, which have one.

Each function blocks until everything has come. `url`: where the daemon is, as ``https://feed.example.com/``.
"""

from __future__ import annotations

from random import random
from typing import TypeVar

from marketfeed_client import rest
from marketfeed_client.rest import Candle, Market, Page, Trade
from marketfeed_client.settings import Moment, address, market

__all__ = ["klines", "markets", "trades"]

T = TypeVar("T")


def klines(
    url: str,
    name: str,
    interval: str,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    limit: int | None = None,
    token: str | None = None,
) -> list[Candle]:
    """Past candles of a market, oldest first: ``Client.klines`` says what the arguments are. Raises FeedError."""
    return _all(rest.klines(market(name), interval, start, end, limit), url, token)


def trades(
    url: str,
    name: str,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    from_id: int | None = None,
    limit: int | None = None,
    token: str | None = None,
) -> list[Trade]:
    """Past trades of a market, oldest first: ``Client.trades`` says what the arguments are. Raises FeedError."""
    return _all(rest.trades(market(name), start, end, from_id, limit), url, token)


def markets(url: str, *, token: str | None = None) -> list[Market]:
    """The markets that the daemon lists. Raises FeedError."""
    return _all(rest.markets(), url, token)


def _all(pages: Page[T], url: str, token: str | None) -> list[T]:
    place = address(url, f"{int(random() * 2**48):x}")  # all pages are of one instance
    try:
        question = next(pages)
        while True:
            question = pages.send(rest.ask(place, token, question))
    except StopIteration as over:
        found: list[T] = over.value
        return found
