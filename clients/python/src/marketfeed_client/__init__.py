"""Live market data from a marketfeed daemon: it reconnects, resumes, and says what is missing."""

from marketfeed_client.aio import Client
from marketfeed_client.book import Book, BookState
from marketfeed_client.errors import FeedError
from marketfeed_client.events import (
    Error,
    Event,
    Expiring,
    Gap,
    Message,
    Overflow,
    Quality,
    Reconnecting,
    Recovered,
    Rewound,
    State,
)
from marketfeed_client.rest import Candle, Market, Trade
from marketfeed_client.settings import Times
from marketfeed_client.stream import Stream

__all__ = [
    "Book",
    "BookState",
    "Candle",
    "Client",
    "Error",
    "Event",
    "Expiring",
    "FeedError",
    "Gap",
    "Market",
    "Message",
    "Overflow",
    "Quality",
    "Reconnecting",
    "Recovered",
    "Rewound",
    "State",
    "Stream",
    "Times",
    "Trade",
]
