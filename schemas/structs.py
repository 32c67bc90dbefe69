"""The messages and answers of the wire contract as Structs (docs/protocol.md), besides those that the daemon has.

1. What an engine writes may have further fields, which are passed on: those Structs are `Open`. All others are whole.
2. Times are in ms since 1970; decimals are texts, and where the engine's own bytes are passed on, perhaps numbers.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from marketfeed.model.candle_store import Row
from marketfeed.model.decimals import ACCEPTED
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.session.requests import MOST_HISTORY, Property
from marketfeed.wire.messages import ErrorCode

__all__ = [
    "ANSWERS",
    "METHODS",
    "Error",
    "HouseError",
    "HouseReply",
    "Open",
    "Publication",
    "Reply",
]

UNSET = msgspec.UNSET
Unset: TypeAlias = msgspec.UnsetType
T = TypeVar("T")
Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, msgspec.Meta(max_length=36)] | None
Market = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Decimal = Annotated[str, msgspec.Meta(max_length=64, description=f"A decimal: {ACCEPTED}.")]
Written = Decimal | float
Interval = Literal["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"]
assert Interval.__args__ == INTERVALS  # type: ignore[attr-defined]
Count = Annotated[int, msgspec.Meta(ge=1, le=MOST_HISTORY)]


class Open(msgspec.Struct):
    """Further fields are the engine's, and are passed on."""


# Publications. Of three kinds they are the engine's on `/`, and made good on `/stream` and `/ws`.


class EngineTrade(Open):
    """One execution, as the engine wrote it: its id, whether the buyer is the maker, price, quantity, market."""

    e: Literal["trade"]
    t: int
    m: bool
    p: Written
    q: Written
    s: Market


class EngineDepth(Open):
    """Asks and bids that changed, as the engine wrote them; a quantity of 0 removes the level. With `snapshot` all."""

    e: Literal["depth", "depthUpdate"]
    a: list[tuple[Written, Written]]
    b: list[tuple[Written, Written]]
    U: int | Unset | None = UNSET
    u: int | Unset | None = UNSET
    snapshot: bool | Unset | None = UNSET


class EngineTicker(Open):
    """The last price, and statistics in further fields, as the engine wrote them."""

    e: Literal["ticker", "24hrTicker"]
    c: Written
    s: Market


class Trade(EngineTrade):
    """One execution with the times of event and trade, as clients made for Binance read it."""

    E: int
    T: int
    M: bool


class Depth(Open):
    """Asks and bids that changed, as clients made for Binance read them; `U` and `u`: the ids that are in it."""

    e: Literal["depthUpdate"]
    E: int
    s: Market
    U: int
    u: int
    a: list[tuple[Decimal, Decimal]]
    b: list[tuple[Decimal, Decimal]]
    snapshot: bool | Unset | None = UNSET


class Ticker(Open):
    """The last 24 hours, whole, as clients made for Binance read them."""

    e: Literal["24hrTicker"]
    E: int
    s: Market
    c: Written
    p: Written
    P: Written
    w: Written
    x: Written
    Q: Written
    b: Written
    B: Written
    a: Written
    A: Written
    o: Written
    h: Written
    l: Written  # noqa: E741
    v: Written
    q: Written
    O: int  # noqa: E741
    C: int
    F: int
    L: int
    n: int


class AggTrade(msgspec.Struct):
    """One trade, as an aggregated one of which it is the only one."""

    e: Literal["aggTrade"]
    E: int
    s: Market
    a: int
    p: Written
    q: Written
    f: int
    l: int  # noqa: E741
    T: int
    m: bool
    M: bool


class BookTicker(msgspec.Struct):
    """The best bid and ask, `b` and `a`, with their quantities, `B` and `A`; `u`: the last id that is in it."""

    e: Literal["bookTicker"]
    u: int
    s: Market
    b: Decimal
    B: Decimal
    a: Decimal
    A: Decimal
    E: int


class PartialDepth(msgspec.Struct):
    """The best levels of each side, best first."""

    e: Literal["depth5", "depth10", "depth20"]
    s: Market
    lastUpdateId: int
    bids: list[tuple[Decimal, Decimal]]
    asks: list[tuple[Decimal, Decimal]]
    E: int


class Candle(msgspec.Struct):
    """First and last ms, ids of the first and the last trade, prices, sums; `x`: it is closed."""

    t: int
    T: int
    s: Market
    i: Interval
    f: int
    L: int
    o: str
    c: str
    h: str
    l: str  # noqa: E741
    v: str
    n: int
    x: bool
    q: str
    V: str
    Q: str
    B: str


class Kline(msgspec.Struct):
    """The candle of one period, open or closed."""

    e: Literal["kline"]
    E: int
    s: Market
    k: Candle


class MiniTicker(msgspec.Struct):
    """The last 24 hours of a market in a few numbers."""

    e: Literal["24hrMiniTicker"]
    E: int
    s: Market
    c: str
    o: str
    h: str
    l: str  # noqa: E741
    v: str
    q: str


class Publication(msgspec.Struct, Generic[T]):
    """In an envelope; `stream` as this client named it. With the property `offsets` its place in the stream."""

    stream: str
    data: T
    offset: str | Unset = UNSET


# Requests, by method, and what they are answered.


class _Request(msgspec.Struct, tag_field="method", kw_only=True):
    id: Id | Unset = UNSET


class Subscribe(_Request, tag="SUBSCRIBE"):
    """`since`: offsets, by stream, behind which to go on; `rewind`: how many of the last publications come first."""

    params: list[str]
    since: dict[str, str] | Unset | None = UNSET
    rewind: Count | Unset | None = UNSET


class Unsubscribe(_Request, tag="UNSUBSCRIBE"):
    """After the reply nothing more of these streams comes."""

    params: list[str]


class ListSubscriptions(_Request, tag="LIST_SUBSCRIPTIONS"):
    """Asks for this connection's streams."""


PropertyName = Literal["combined", "offsets", "snapshot", "events"]
assert PropertyName.__args__ == tuple(each.value for each in Property)  # type: ignore[attr-defined]


class GetProperty(_Request, tag="GET_PROPERTY"):
    """Asks for one property."""

    params: tuple[PropertyName]


class SetProperty(_Request, tag="SET_PROPERTY"):
    """Sets one property. `combined` cannot be set on `/`."""

    params: tuple[PropertyName, bool]


class History(_Request, tag="HISTORY"):
    """Asks for the last publications of one stream, 100 without `limit`; `before`: those before this offset."""

    params: tuple[str]
    limit: Count | Unset = UNSET
    before: str | Unset | None = UNSET


class Ping(_Request, tag="PING"):
    """Asks whether the connection lives."""


class Auth(_Request, tag="AUTH"):
    """Puts a token in the old one's place."""

    params: tuple[str]


class Past(msgspec.Struct):
    """One publication of a history."""

    offset: str
    data: Any


METHODS: dict[type[msgspec.Struct], Any] = {
    Subscribe: None,
    Unsubscribe: None,
    ListSubscriptions: list[str],
    GetProperty: bool,
    SetProperty: None,
    History: list[Past],
    Ping: Literal["PONG"],
    Auth: None,
}
"""What each request is answered, if it succeeds."""


class Reply(msgspec.Struct, Generic[T]):
    """The answer to a request that succeeded."""

    result: T
    id: Id | Unset = UNSET
    recovered: dict[str, bool] | Unset = UNSET
    rewound: dict[str, int] | Unset = UNSET


class ReplyData(Reply[T], Generic[T], tag_field="e", tag="reply"):
    """The answer to a request that succeeded."""


class HouseReply(msgspec.Struct, Generic[T]):
    """The answer to a request that succeeded, in an envelope."""

    stream: Literal["!reply"]
    data: ReplyData[T]


Code = Literal[0, 1, 2, 3, 4, 5, 6, 7]
assert Code.__args__ == tuple(map(int, ErrorCode))  # type: ignore[attr-defined]


class Fault(msgspec.Struct):
    """`code` is for programs, `msg` for people."""

    code: Code
    msg: str


class Error(msgspec.Struct):
    """The answer to a request that failed; without an id: of one that had none, or of streams that end."""

    error: Fault
    id: Id | Unset = UNSET


class FaultData(Fault, tag_field="e", tag="error"):
    """`code` is for programs, `msg` for people."""

    id: Id | Unset = UNSET


class HouseError(msgspec.Struct):
    """The answer to a request that failed, in an envelope."""

    stream: Literal["!error"]
    data: FaultData


# Answers of REST.


class Nothing(msgspec.Struct):
    """It answers."""


class Time(msgspec.Struct):
    """The present moment."""

    serverTime: int


class RateLimit(msgspec.Struct):
    """How many requests there may be in a minute."""

    rateLimitType: Literal["REQUEST_WEIGHT", "RAW_REQUESTS"]
    interval: Literal["MINUTE"]
    intervalNum: int
    limit: int


class PriceFilter(msgspec.Struct, tag_field="filterType", tag="PRICE_FILTER"):
    """Of what prices are multiples."""

    minPrice: str
    maxPrice: str
    tickSize: str


class LotSize(msgspec.Struct, tag_field="filterType", tag="LOT_SIZE"):
    """Of what quantities are multiples."""

    minQty: str
    maxQty: str
    stepSize: str


class Notional(msgspec.Struct, tag_field="filterType", tag="NOTIONAL"):
    """What an order must be worth."""

    minNotional: str
    applyMinToMarket: bool
    maxNotional: str
    applyMaxToMarket: bool
    avgPriceMins: int


class Symbol(msgspec.Struct):
    """A market."""

    symbol: Market
    status: Literal["TRADING", "HALT", "BREAK"]
    baseAsset: str
    baseAssetPrecision: int
    quoteAsset: str
    quotePrecision: int
    quoteAssetPrecision: int
    baseCommissionPrecision: int
    quoteCommissionPrecision: int
    orderTypes: list[str]
    icebergAllowed: bool
    ocoAllowed: bool
    otoAllowed: bool
    quoteOrderQtyMarketAllowed: bool
    allowTrailingStop: bool
    cancelReplaceAllowed: bool
    amendAllowed: bool
    pegInstructionsAllowed: bool
    isSpotTradingAllowed: bool
    isMarginTradingAllowed: bool
    filters: list[PriceFilter | LotSize | Notional]
    permissions: list[str]
    permissionSets: list[list[str]]
    defaultSelfTradePreventionMode: str
    allowedSelfTradePreventionModes: list[str]


class ExchangeInfo(msgspec.Struct):
    """The markets that are listed."""

    timezone: Literal["UTC"]
    serverTime: int
    rateLimits: list[RateLimit]
    exchangeFilters: list[Any]
    symbols: list[Symbol]


class Book(msgspec.Struct):
    """An order book, best levels first."""

    lastUpdateId: int
    bids: list[tuple[Decimal, Decimal]]
    asks: list[tuple[Decimal, Decimal]]


class PastTrade(msgspec.Struct):
    """A trade of the past."""

    id: int
    price: str
    qty: str
    quoteQty: str
    time: int
    isBuyerMaker: bool
    isBestMatch: bool


class PastAggTrade(msgspec.Struct):
    """A trade of the past, as an aggregated one."""

    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741
    T: int
    m: bool
    M: bool


class MiniDay(msgspec.Struct):
    """The last 24 hours, with `type=MINI`."""

    symbol: Market
    openPrice: Written
    highPrice: Written
    lowPrice: Written
    lastPrice: Written
    volume: Written
    quoteVolume: Written
    openTime: int
    closeTime: int
    firstId: int
    lastId: int
    count: int


class Day(MiniDay):
    """The last 24 hours."""

    priceChange: Written
    priceChangePercent: Written
    weightedAvgPrice: Written
    prevClosePrice: Written
    lastQty: Written
    bidPrice: Written
    bidQty: Written
    askPrice: Written
    askQty: Written


class Price(msgspec.Struct):
    """The last price."""

    symbol: Market
    price: Written


class BestPrices(msgspec.Struct):
    """The best bid and ask."""

    symbol: Market
    bidPrice: Written
    bidQty: Written
    askPrice: Written
    askQty: Written


class Refusal(msgspec.Struct):
    """Why a request is not answered; `code` is Binance's."""

    code: Literal[-1000, -1002, -1003, -1008, -1100, -1102, -1120, -1121, -1128]
    msg: str


class Readiness(msgspec.Struct):
    """Whether clients should come here, and why not."""

    ready: bool
    reasons: list[str]


ANSWERS: dict[str, tuple[Any, ...]] = {
    "ping": (Nothing,),
    "time": (Time,),
    "exchangeInfo": (ExchangeInfo,),
    "depth": (Book,),
    "trades": (list[PastTrade],),
    "aggTrades": (list[PastAggTrade],),
    "klines": (list[Row],),
    "uiKlines": (list[Row],),
    "ticker/24hr": (Day, MiniDay, list[Day], list[MiniDay]),
    "ticker/price": (Price, list[Price]),
    "ticker/bookTicker": (BestPrices, list[BestPrices]),
}
"""What is answered, one of these, by what stands behind `/api/v3/`."""
