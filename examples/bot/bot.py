"""A bot that keeps the order book of a market: it prints the best prices, the spread, and which side is the heavier.

    python bot.py [ADDRESS] [MARKET]        Ctrl-C ends it

1. Of a book that is not the engine's at this moment no price is said, but why: `stale` or `missing`.
2. Prices and quantities are decimals: a bot that trades must not round.
"""

from __future__ import annotations

import asyncio
import sys

from marketfeed_client import Book, Client, Gap, Reconnecting

LEVELS = 5


def line(book: Book) -> str:
    """How the book stands. The imbalance is 1 where there are bids alone, and -1 where there are asks alone."""
    if book.state != "live":
        return f"{book.market} {book.state}: do not trade on it"
    bids, asks = book.decimal_bids(LEVELS), book.decimal_asks(LEVELS)
    if not bids or not asks:
        return f"{book.market} has one side at most"
    (bid, _), (ask, _) = bids[0], asks[0]
    wanted, offered = (sum(quantity for _, quantity in side) for side in (bids, asks))
    imbalance = (wanted - offered) / (wanted + offered)
    return f"{book.market} {bid} | {ask}  spread {ask - bid}  imbalance {imbalance:+.2f}"


async def main(address: str = "ws://localhost:8080", market: str = "TATA_INR") -> None:
    """Follow the book until the program is stopped. Raises FeedError if trying again cannot help."""
    said = ""
    async with Client(address) as feed:
        book = feed.book(market, rate="100ms")
        # All that has come since the last time, publications and events: by now they are in the book.
        async for news in feed.messages(f"depth@{market}@100ms").batches():
            for event in news:
                if isinstance(event, Reconnecting):
                    print(f"connection lost, attempt {event.attempt} in {event.delay / 1000:.1f} s", flush=True)
                elif isinstance(event, Gap):
                    print(f"gap in {', '.join(event.streams)}: {event.reason}", flush=True)
            if line(book) != said:
                said = line(book)
                print(said, flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        print("stopped")
