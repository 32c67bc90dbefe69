"""Past trades in one plain answer, as Binance shapes them: `GET /api/v3/trades` and `/api/v3/aggTrades`.

1. They are those of the history: what this process has kept, or Redis, where the source is its streams.
2. A trade's time is the engine's, or else when it came. Where Redis keeps them they are looked for by when they came,
   which may be a moment before the engine's time or after it.
3. An aggregated trade is one trade. Those from an id on are found by halving the time, for ids rise with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import msgspec

from marketfeed.api.listing import Listing
from marketfeed.api.market_data import as_json
from marketfeed.api.query import BAD_COMBINATION, BadQuery, Query
from marketfeed.boundaries import Dated
from marketfeed.http.response import Response
from marketfeed.model.identity import Identity
from marketfeed.model.streams import StreamKinds, StreamName
from marketfeed.model.trades import EXACT, BadTrade, Trade, plain, read_trade

__all__ = ["Past", "Trades", "aggregate", "row", "trade_in"]

_USUAL, _MOST = 500, 1000
_MOST_BYTES = 4 * 2**20
_EVER = 10**16
_SKEW, _LAG = 1000, 5000
"""ms by which a trade may have come before the time that the engine gives it, and after it."""
_ROUNDS = 16
_HALVINGS = 64
_REMEMBERED = 64
_SHORT = 1024
"""Bytes of a publication, beyond which it is not worth remembering."""
_NONE = b"[]"
_encode = msgspec.json.encode

_AWAY = as_json(Response(503, "past trades are out of reach at the moment", (("Retry-After", "1"),)))
_UNHEARD = as_json(
    Response(503, "nothing is known of this market: no trade of it has come yet", (("Retry-After", "1"),))
)
_NOT_COVERED = as_json(Response(403, "the token does not cover the trades of this market"))


class Past(Protocol):
    """Where past publications are to be had, as `Hub` has it."""

    def first_from(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Awaitable[list[Dated] | None]: ...

    def last_until(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Awaitable[list[Dated] | None]: ...


class _Away(Exception):
    """The past is out of reach."""


class _Page(NamedTuple):
    """Publications that had not been seen: when the first and the last came, and which trades they are, each with when
    it came.
    """

    first: int
    last: int
    trades: list[tuple[int, Trade]]


def row(trade: Trade) -> dict[str, Any]:
    """As `trades` has it. Price and quantity as the engine spelled them, and their product to the last digit."""
    return {
        "id": trade.number,
        "price": trade.price,
        "qty": trade.quantity,
        "quoteQty": plain(EXACT.multiply(trade.at, trade.amount)),
        "time": trade.time,
        "isBuyerMaker": trade.is_maker,
        "isBestMatch": True,
    }


def aggregate(trade: Trade) -> dict[str, Any]:
    """As `aggTrades` has it."""
    return {
        "a": trade.number,
        "p": trade.price,
        "q": trade.quantity,
        "f": trade.number,
        "l": trade.number,
        "T": trade.time,
        "m": trade.is_maker,
        "M": True,
    }


def trade_in(dated: Dated) -> Trade | None:
    """A publication as a trade that counts in candles; None: it is none. Who polls asks for most again and again."""
    return (_remembered if len(dated.data) <= _SHORT else _trade_of)(dated.data, dated.at)


def _trade_of(data: bytes, came: int) -> Trade | None:
    try:
        return read_trade(data, came)
    except BadTrade:
        return None


_remembered = lru_cache(maxsize=16384)(_trade_of)


class Trades:
    """Finds past trades. `past`: where they are to be had."""

    def __init__(self, past: Past, kinds: StreamKinds, listing: Listing) -> None:
        self._past = past
        self._kinds = kinds
        self._listing = listing
        self._written: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    async def find(self, identity: Identity, query: Query) -> Response:
        """The newest ones; see `market_data.Find`."""
        stream, limit = self._stream(query), query.limit(_USUAL, _MOST)
        if not identity.permits(stream):
            return _NOT_COVERED
        try:
            return await self._known(stream, await self._newest(stream, limit, is_aggregate=False))
        except _Away:
            return _AWAY

    async def find_aggregates(self, identity: Identity, query: Query) -> Response:
        """The newest ones, or those from an id on, or of a time; see `market_data.Find`."""
        stream, limit = self._stream(query), query.limit(_USUAL, _MOST)
        first, since, until = query.number("fromId"), query.number("startTime"), query.number("endTime")
        if first is not None and not (since is None and until is None):
            raise BadQuery("expected fromId, or startTime and endTime, not both", BAD_COMBINATION)
        if since is not None and until is not None and since > until:
            raise BadQuery("expected a startTime that is no later than endTime", BAD_COMBINATION)
        if not identity.permits(stream):
            return _NOT_COVERED
        try:
            if first is not None:
                body = _write(await self._from_id(stream, first, limit), is_aggregate=True)
            elif since is not None:
                trades = await self._between(stream, since, _EVER if until is None else until, limit)
                body = _write(trades, is_aggregate=True)
            elif until is not None:
                body = _write(await self._until(stream, until, limit), is_aggregate=True)
            else:
                body = await self._newest(stream, limit, is_aggregate=True)
            return await self._known(stream, body)
        except _Away:
            return _AWAY

    async def _known(self, stream: StreamName, body: bytes) -> Response:
        """The answer, unless there is nothing because nobody knows of the market."""
        is_known = body != _NONE or stream.market in self._listing.all()
        if not is_known and not await self._past.last_until(stream, _EVER, 1, _MOST_BYTES):
            return _UNHEARD
        return Response(200, "trades", json=body)

    def _stream(self, query: Query) -> StreamName:
        return self._kinds.parse(f"trade@{self._listing.resolve(query.symbol())}")

    async def _newest(self, stream: StreamName, limit: int, *, is_aggregate: bool) -> bytes:
        """Written once, as long as they are the same: an offset is of one publication for ever."""
        found = await self._past.last_until(stream, _EVER, limit, _MOST_BYTES) or ()
        ends = (found[0].offset, found[-1].offset) if found else None
        key = (stream.market, is_aggregate, limit, len(found), ends)
        body = self._written.get(key)
        if body is None:
            body = _write(await self._until(stream, _EVER, limit), is_aggregate=is_aggregate)
            if ends is not None:
                self._written[key] = body
            if len(self._written) > _REMEMBERED:
                self._written.popitem(last=False)
        return body

    async def _until(self, stream: StreamName, time: int, limit: int) -> list[Trade]:
        """The last ones up to this time."""
        trades: list[Trade] = []
        seen: set[str] = set()
        at = min(time + _LAG, _EVER)
        for _ in range(_ROUNDS):
            page = _read(await self._past.last_until(stream, at, _MOST if seen else limit, _MOST_BYTES), seen)
            if page is None:
                break
            trades = [trade for _, trade in page.trades if trade.time <= time] + trades
            at = page.first
            if len(trades) >= limit:
                break
        return trades[-limit:]

    async def _between(self, stream: StreamName, since: int, until: int, limit: int) -> list[Trade]:
        """The first ones from one time to another."""
        return await self._forward(
            stream, max(0, since - _SKEW), until + _LAG, limit, lambda trade: since <= trade.time <= until
        )

    async def _forward(
        self, stream: StreamName, at: int, latest: int, limit: int, is_wanted: Callable[[Trade], bool]
    ) -> list[Trade]:
        """The first ones that are wanted, of those that came from `at` to `latest`."""
        trades: list[Trade] = []
        seen: set[str] = set()
        for _ in range(_ROUNDS):
            page = _read(await self._past.first_from(stream, at, _MOST, _MOST_BYTES), seen)
            if page is None:
                break
            trades += [trade for _, trade in page.trades if is_wanted(trade)]
            if len(trades) >= limit or page.last > latest:
                break
            at = page.last
        return trades[:limit]

    async def _from_id(self, stream: StreamName, first: int, limit: int) -> list[Trade]:
        """The first ones of this id or a higher one."""
        oldest = _read(await self._past.first_from(stream, 0, 1, _MOST_BYTES), set())
        newest = _read(await self._past.last_until(stream, _EVER, 1, _MOST_BYTES), set())
        if oldest is None or newest is None or _is_older(newest, first):
            return []
        low, high = oldest.first, newest.last
        if _is_older(oldest, first) or not oldest.trades:
            for _ in range(_HALVINGS):
                if high - low < 2:
                    break
                middle = (low + high) // 2
                page = _read(await self._past.first_from(stream, middle, 1, _MOST_BYTES), set())
                if page is not None and _is_older(page, first):
                    low = max(middle, min(page.first, high - 1))
                else:
                    high = middle
        return await self._forward(stream, low, _EVER, limit, lambda trade: trade.number >= first)


def _write(trades: list[Trade], *, is_aggregate: bool) -> bytes:
    write = aggregate if is_aggregate else row
    return _encode([write(trade) for trade in trades])


def _is_older(page: _Page, number: int) -> bool:
    """Its newest trade, where it has one, is older than the one of this id."""
    return bool(page.trades) and page.trades[-1][1].number < number


def _read(found: list[Dated] | None, seen: set[str]) -> _Page | None:
    """Publications, oldest first, but for those that were seen. None: there are no others. Raises `_Away`."""
    if found is None:
        raise _Away
    fresh = [dated for dated in found if dated.offset not in seen]
    if not fresh:
        return None
    seen.update(dated.offset for dated in fresh)
    trades = [(dated.at, trade) for dated in fresh if (trade := trade_in(dated)) is not None]
    return _Page(fresh[0].at, fresh[-1].at, trades)
