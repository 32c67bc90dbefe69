"""Past trades in one plain answer, as Binance shapes them: `GET /api/v3/trades` and `/api/v3/aggTrades`.

1. They are those of the history: what this process has kept, or Redis, where the source is its streams.
2. A trade's time is the engine's, or else when it came. Where Redis keeps them they are looked for by when they came,
   which may be a moment before the engine's time or after it.
3. An aggregated trade is one trade. Those from an id on are found by halving the time, for ids rise with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from decimal import Context
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from marketfeed.api.listing import Listing
from marketfeed.api.market_data import as_json
from marketfeed.api.query import BAD_COMBINATION, BadQuery, Query
from marketfeed.boundaries import Dated
from marketfeed.http.response import Response
from marketfeed.model.identity import Identity
from marketfeed.model.streams import StreamKinds, StreamName

__all__ = ["Past", "Trade", "Trades", "read_trade"]

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
_exact = Context(prec=200)
_encode = msgspec.json.encode

_AWAY = as_json(Response(503, "past trades are out of reach at the moment", (("Retry-After", "1"),)))
_NOT_COVERED = as_json(Response(403, "the token does not cover the trades of this market"))


class Past(Protocol):
    """Where past publications are to be had, as `Hub` has it."""

    def first_from(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Awaitable[list[Dated] | None]: ...

    def last_until(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Awaitable[list[Dated] | None]: ...


class _Away(Exception):
    """The past is out of reach."""


class _Fields(msgspec.Struct):
    t: int | float
    m: bool
    p: msgspec.Raw
    q: msgspec.Raw
    T: Any = None
    E: Any = None


_decode = msgspec.json.Decoder(_Fields).decode
_text = msgspec.json.Decoder(str).decode


class Trade(msgspec.Struct, frozen=True):
    """One trade. Price and quantity as the engine spelled them; `time`: ms since 1970; `offset`: of its publication."""

    offset: str
    id: int
    price: str
    quantity: str
    time: int
    is_buyer_maker: bool

    @property
    def row(self) -> dict[str, Any]:
        """As `trades` has it."""
        return {
            "id": self.id,
            "price": self.price,
            "qty": self.quantity,
            "quoteQty": _product(self.price, self.quantity),
            "time": self.time,
            "isBuyerMaker": self.is_buyer_maker,
            "isBestMatch": True,
        }

    @property
    def aggregate(self) -> dict[str, Any]:
        """As `aggTrades` has it."""
        return {
            "a": self.id,
            "p": self.price,
            "q": self.quantity,
            "f": self.id,
            "l": self.id,
            "T": self.time,
            "m": self.is_buyer_maker,
            "M": True,
        }


def read_trade(dated: Dated) -> Trade | None:
    """A publication as a trade; None: it is none. Who polls asks for most of them again and again."""
    return _remembered(dated) if len(dated.data) <= _SHORT else _read_trade(dated)


def _read_trade(dated: Dated) -> Trade | None:
    try:
        fields = _decode(dated.data)
        time = next((each for each in (fields.T, fields.E) if type(each) is int and each >= 0), dated.at)
        price, quantity = _spelling(fields.p), _spelling(fields.q)
        return Trade(dated.offset, int(fields.t), price, quantity, time, fields.m)
    except (ValueError, OverflowError):
        return None


_remembered = lru_cache(maxsize=16384)(_read_trade)


def _spelling(raw: msgspec.Raw) -> str:
    token = bytes(raw)
    return _text(token) if token.startswith(b'"') else token.decode()


def _product(price: str, quantity: str) -> str:
    """To the last digit; empty where one of them is no number."""
    try:
        return f"{_exact.multiply(_exact.create_decimal(price), _exact.create_decimal(quantity)):f}"
    except ArithmeticError:
        return ""


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
            return await self._newest(stream, limit, is_aggregate=False)
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
                trades = await self._from_id(stream, first, limit)
            elif since is not None:
                trades = await self._between(stream, since, _EVER if until is None else until, limit)
            elif until is not None:
                trades = await self._until(stream, until, limit)
            else:
                return await self._newest(stream, limit, is_aggregate=True)
        except _Away:
            return _AWAY
        return Response(200, "trades", json=_write(trades, is_aggregate=True))

    def _stream(self, query: Query) -> StreamName:
        return self._kinds.parse(f"trade@{self._listing.resolve(query.symbol())}")

    async def _newest(self, stream: StreamName, limit: int, *, is_aggregate: bool) -> Response:
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
        return Response(200, "trades", json=body)

    async def _until(self, stream: StreamName, time: int, limit: int) -> list[Trade]:
        """The last ones up to this time."""
        trades: list[Trade] = []
        seen: set[str] = set()
        at = min(time + _LAG, _EVER)
        for _ in range(_ROUNDS):
            found = _read(await self._past.last_until(stream, at, _MOST if seen else limit, _MOST_BYTES), seen)
            if not found:
                break
            trades = [trade for _, trade in found if trade.time <= time] + trades
            at = found[0][0]
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
            found = _read(await self._past.first_from(stream, at, _MOST, _MOST_BYTES), seen)
            trades += [trade for _, trade in found if is_wanted(trade)]
            if not found or len(trades) >= limit or found[-1][0] > latest:
                break
            at = found[-1][0]
        return trades[:limit]

    async def _from_id(self, stream: StreamName, first: int, limit: int) -> list[Trade]:
        """The first ones of this id or a higher one."""
        oldest = _read(await self._past.first_from(stream, 0, 1, _MOST_BYTES), set())
        newest = _read(await self._past.last_until(stream, _EVER, 1, _MOST_BYTES), set())
        if not oldest or not newest or newest[-1][1].id < first:
            return []
        low, high = oldest[0][0], newest[-1][0]
        if oldest[0][1].id < first:
            for _ in range(_HALVINGS):
                if high - low < 2:
                    break
                middle = (low + high) // 2
                found = _read(await self._past.first_from(stream, middle, 1, _MOST_BYTES), set())
                if found and found[0][1].id < first:
                    low = max(middle, min(found[0][0], high - 1))
                else:
                    high = middle
        return await self._forward(stream, low, _EVER, limit, lambda trade: trade.id >= first)


def _write(trades: list[Trade], *, is_aggregate: bool) -> bytes:
    return _encode([trade.aggregate if is_aggregate else trade.row for trade in trades])


def _read(found: list[Dated] | None, seen: set[str]) -> list[tuple[int, Trade]]:
    """The trades among publications that were not seen, with when they came, oldest first. Raises `_Away`."""
    if found is None:
        raise _Away
    fresh = [dated for dated in found if dated.offset not in seen]
    seen.update(dated.offset for dated in fresh)
    return [(dated.at, trade) for dated in fresh if (trade := read_trade(dated)) is not None]
