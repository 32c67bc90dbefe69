"""What an engine may write, and what that allows: the one table of it, which docs/market-data.md has as well. Pure."""

from __future__ import annotations

import msgspec

__all__ = ["FEATURES", "STATISTICS", "Feature"]

STATISTICS = ("p", "P", "w", "x", "Q", "b", "B", "a", "A", "o", "h", "l", "v", "q", "O", "C", "F", "L", "n")
"""What a ticker of Binance's has besides event, time, market and last price."""


class Feature(msgspec.Struct, frozen=True):
    """One line of the table, in Markdown. `key`: its name in JSON; `kind`: of which publications, or `any`.

    `written`: what the engine writes; `allows`: what follows from that; `otherwise`: how it is without.
    """

    key: str
    kind: str
    written: str
    allows: str
    otherwise: str


FEATURES = (
    Feature(
        "ids",
        "trade",
        "`t` counts up by one in each market",
        'with `ids = "t"` in the file a trade that is missing is told as a gap; a repeated one counts once in candles; '
        "`aggTrades` from an id on",
        "a trade that is lost between engine and Redis is noticed by nobody",
    ),
    Feature(
        "executed",
        "trade",
        "`T`, when it was executed, in ms since 1970",
        "candles and statistics go by the time of execution",
        "they go by `E`, or else by arrival: a trade near the end of a minute may come into the next one",
    ),
    Feature(
        "trade-texts",
        "trade",
        "`p` and `q` as strings",
        "every client has the engine's digits, those with floating-point numbers too",
        "what does not fit into a double is rounded by clients that read it as one",
    ),
    Feature(
        "updates",
        "depth",
        "`U` and `u`: each `U` is the last `u` + 1",
        "a lost update is told at once; what waits for a slow client is merged exactly; a book in a key is put in its "
        "place; copies of the book by the rules of Binance",
        "a lost update is noticed by nobody, and the book stays wrong until the next whole one",
    ),
    Feature(
        "book",
        "depth",
        'the whole book: a message with `"snapshot": true` now and then, or the key `snapshot:<stream>`',
        "the book on subscribe, `/api/v3/depth`, `bookTicker`, `depth5`, `depth10`, `depth20`",
        "none of these: updates alone do not say what was there before",
    ),
    Feature(
        "depth-texts",
        "depth",
        "prices and quantities as strings",
        "every client has the engine's digits, and one spelling of a price",
        "what does not fit into a double is rounded by clients that read it as one",
    ),
    Feature(
        "depth-time",
        "depth",
        "`E` or `T`, in ms since 1970",
        "clients see how old an update is",
        "they are told when it arrived",
    ),
    Feature(
        "statistics",
        "ticker",
        " ".join(f"`{field}`" for field in STATISTICS),
        "a ticker of Binance's, whole, as the engine has it",
        "for clients made for Binance it is made of trades where candles are kept, and else is as if nothing had been "
        "traded; for others it stays missing",
    ),
    Feature(
        "ticker-texts",
        "ticker",
        "`c` and the other prices and sums as strings",
        "every client has the engine's digits",
        "what does not fit into a double is rounded by clients that read it as one",
    ),
    Feature(
        "ticker-time",
        "ticker",
        "`E` or `T`, in ms since 1970",
        "clients see how old a ticker is",
        "they are told when it arrived",
    ),
    Feature(
        "market",
        "any",
        "`s` is the market of the stream's name",
        "clients that go by `s`, as those made for Binance do, find their market",
        "they take it for another market's, or leave it aside",
    ),
    Feature(
        "pair",
        "any",
        "markets such as `TATA_INR`: upper case, and `_` between what is traded and for what",
        "base and quote in `exchangeInfo` without a declaration, and the spelling `tata_inr@trade`",
        "declare `base` and `quote` of the market in the file",
    ),
    Feature(
        "streams",
        "any",
        "XADD to Redis Streams, in the place of PUBLISH",
        "nothing is missed across restarts and lost connections, clients resume at any instance, and each trade counts "
        "exactly once in candles",
        "what is published while the daemon is away is gone, and told as a gap; `marketfeed bridge` makes it shorter",
    ),
)
