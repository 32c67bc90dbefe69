"""Past candles and trades, page by page, and the list of markets, by the daemon's REST interface. Only `ask` does I/O.

1. A generator says what to ask, is sent the answer, and returns everything at the end: so any event loop can drive it.
2. From a start on the pages go forward; without one they go back from the end.
3. Nothing comes twice, and nothing is left out in silence: a full page that brings nothing new is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from http.client import HTTPException
from typing import Any, TypeAlias, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.request import Request, urlopen

import msgspec

from marketfeed_client.errors import FeedError
from marketfeed_client.settings import Moment, moment, whole

__all__ = ["Candle", "Market", "Page", "Question", "Trade", "ask", "klines", "markets", "trades"]

T = TypeVar("T")
Question: TypeAlias = tuple[str, dict[str, str | int]]
"""What is asked, as ``klines``, and its parameters."""
Page: TypeAlias = Generator[Question, Any, list[T]]

_USUAL = 500
_MOST_OF_A_PAGE = 1000
_MOST = 10_000_000
_LATEST_ID = 10**16
_SECONDS = 30.0
_TEMPORARY = (408, 429)
_UNAUTHORIZED = 401
_NOT_FOUND = 404


class Candle(msgspec.Struct, frozen=True, array_like=True):
    """A candle. Times are in ms since 1970; the last one may be that of the present period, which is open. Prices and
    volumes are the engine's text; `trades`: how many there were.
    """

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_time: int
    quote_volume: str
    trades: int
    taker_volume: str
    taker_quote_volume: str


class Trade(
    msgspec.Struct,
    frozen=True,
    rename={"id": "a", "price": "p", "quantity": "q", "time": "T", "is_buyer_maker": "m"},
):
    """A past trade; `time` in ms since 1970."""

    id: int
    price: str
    quantity: str
    time: int
    is_buyer_maker: bool


class Market(msgspec.Struct, frozen=True):
    """A market: what is traded, `base`, and for what, `quote`. The steps of its prices and quantities, which are text
    like these, are None where the operator has not declared them.
    """

    name: str
    base: str
    quote: str
    price_step: str | None = None
    quantity_step: str | None = None


class _Filter(msgspec.Struct, frozen=True, rename="camel"):
    tick_size: str | None = None
    step_size: str | None = None


class _Symbol(msgspec.Struct, frozen=True, rename="camel"):
    symbol: str
    base_asset: str
    quote_asset: str
    filters: list[_Filter]

    def market(self) -> Market:
        price_steps = [each.tick_size for each in self.filters if each.tick_size is not None]
        quantity_steps = [each.step_size for each in self.filters if each.step_size is not None]
        steps = (price_steps[0] if price_steps else None, quantity_steps[0] if quantity_steps else None)
        return Market(self.symbol, self.base_asset, self.quote_asset, *steps)


class _Listed(msgspec.Struct, frozen=True):
    symbols: list[_Symbol]


def klines(market: str, interval: str, start: Moment | None, end: Moment | None, limit: int | None) -> Page[Candle]:
    """Candles that begin from `start` to `end`, `limit` at most. Raises TypeError for what cannot be."""
    if not isinstance(interval, str) or not interval:
        raise TypeError(f"interval: expected a length as 1m, not {interval!r}")
    start, end, most = _checked(start, end, limit)
    return _pages(
        "klines", {"symbol": market, "interval": interval}, Candle, lambda candle: candle.open_time, start, end, most
    )


def trades(
    market: str, start: Moment | None, end: Moment | None, from_id: int | None, limit: int | None
) -> Page[Trade]:
    """Trades from `start` to `end`, or from the id `from_id` on, `limit` at most. Raises TypeError."""
    first, last, most = _checked(start if from_id is None else 0, end, limit)
    if from_id is None:
        return _pages("aggTrades", {"symbol": market}, Trade, lambda trade: trade.time, first, last, most)
    if isinstance(from_id, bool) or not isinstance(from_id, int) or not 0 <= from_id <= _LATEST_ID:
        raise TypeError(f"from_id: expected a whole number from 0 to {_LATEST_ID}, not {from_id!r}")
    if start is not None or end is not None:
        raise TypeError("from_id: expected it alone, or start and end without it")
    return _from_id(market, from_id, most)


def markets() -> Generator[Question, Any, list[Market]]:
    """All markets that the daemon lists."""
    answer = yield "exchangeInfo", {}
    try:
        return [each.market() for each in msgspec.convert(answer, _Listed).symbols]
    except msgspec.ValidationError as error:
        raise FeedError("protocol", f"exchangeInfo: the answer is not one of marketfeed: {error}") from error


def _checked(start: Moment | None, end: Moment | None, limit: int | None) -> tuple[int | None, int | None, int]:
    """Both moments in ms, and how many at most."""
    first = None if start is None else moment("start", start)
    last = None if end is None else moment("end", end)
    if first is not None and last is not None and first > last:
        raise TypeError(f"start: expected a moment that is no later than end, {end}, not {start}")
    if limit is not None:
        return first, last, whole("limit", limit, _MOST)
    return first, last, _USUAL if first is None else _MOST


def _pages(
    path: str,
    parameters: dict[str, str | int],
    kind: type[T],
    time_of: Callable[[T], int],
    start: int | None,
    end: int | None,
    most: int,
) -> Page[T]:
    """By time. Pages overlap by the moment at which they meet, for several trades may be of one moment."""
    found: list[T] = []
    at: dict[str, str | int] = {}
    if start is not None:
        at["startTime"] = start
    if end is not None:
        at["endTime"] = end
    size = min(most, _MOST_OF_A_PAGE)
    while True:
        rows = _read(path, kind, (yield path, {**parameters, **at, "limit": size}))
        fresh = _fresh(rows, found, time_of, is_forward=start is not None)
        if rows and not fresh and len(rows) >= size:
            message = f"{path}: more than {_MOST_OF_A_PAGE} of one moment, {time_of(rows[0])}, cannot be told apart"
            raise FeedError("refused", message, final=True)
        found = found + fresh if start is not None else fresh + found
        if len(rows) < size or len(found) >= most:
            return found[:most] if start is not None else found[-most:]
        if start is not None:
            at["startTime"] = time_of(found[-1])
        else:
            at["endTime"] = time_of(found[0])


def _fresh(rows: list[T], found: list[T], time_of: Callable[[T], int], *, is_forward: bool) -> list[T]:
    """Of a page, what is not at the end of `found` that it meets."""
    if not found:
        return rows
    meeting = time_of(found[-1 if is_forward else 0])
    there = {_key(each) for each in _run(found, meeting, time_of, is_forward)}
    return [each for each in rows if _key(each) not in there]


def _run(found: list[T], moment: int, time_of: Callable[[T], int], is_forward: bool) -> list[T]:
    """Those at an end that are of this moment."""
    run: list[T] = []
    for each in reversed(found) if is_forward else found:
        if time_of(each) != moment:
            break
        run.append(each)
    return run


def _key(row: object) -> object:
    return row.id if isinstance(row, Trade) else row.open_time if isinstance(row, Candle) else row


def _from_id(market: str, first: int, most: int) -> Page[Trade]:
    found: list[Trade] = []
    while True:
        asked: dict[str, str | int] = {"symbol": market, "fromId": first, "limit": _MOST_OF_A_PAGE}
        rows = _read("aggTrades", Trade, (yield "aggTrades", asked))
        found += rows
        if len(rows) < _MOST_OF_A_PAGE or len(found) >= most:
            return found[:most]
        first = rows[-1].id + 1


def _read(path: str, kind: type[T], answer: Any) -> list[T]:
    try:
        return msgspec.convert(answer, list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise FeedError("protocol", f"{path}: the answer is not one of marketfeed: {error}") from error


def ask(url: str, token: str | None, question: Question) -> Any:
    """The answer, as JSON has it. It blocks. `url`: where the feed connects to. Raises FeedError."""
    path, parameters = question
    parts = urlsplit(url)
    kept = {name: value for name, value in parse_qsl(parts.query) if name == "affinity"}
    scheme = "https" if parts.scheme == "wss" else "http"
    where = urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/api/v3/{path}", "", ""))
    request = Request(f"{where}?{urlencode({**parameters, **kept})}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=_SECONDS) as response:
            return msgspec.json.decode(response.read())
    except HTTPError as error:
        with error:
            raise _refused(path, where, error.code, error.read()) from error
    except URLError as error:
        raise FeedError("not-open", f"{path}: no answer from {where}: {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise FeedError("not-open", f"{path}: no answer from {where}: {error or type(error).__name__}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = f"{path}: {where} answers what is not JSON; expected the address of a marketfeed daemon: {error}"
        raise FeedError("not-open", text) from error


def _refused(path: str, where: str, status: int, body: bytes) -> FeedError:
    try:
        said = msgspec.json.decode(body)
        code, message = said["code"], said["msg"]
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        code, message = None, f"{path}: {where} answers {status}"
        if status == _NOT_FOUND:
            message += "; expected the address that the feed has, without a path behind it, as http://localhost:8080"
    final = status < 500 and status not in (*_TEMPORARY, _UNAUTHORIZED)
    return FeedError("refused", message, code=code, final=final)
