"""Live market data from a marketfeed daemon: it reconnects, resumes, and says what is missing."""

from marketfeed_client.aio import Client, Stream
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
from marketfeed_client.settings import Times

__all__ = [
    "Book",
    "BookState",
    "Client",
    "Error",
    "Event",
    "Expiring",
    "FeedError",
    "Gap",
    "Message",
    "Overflow",
    "Quality",
    "Reconnecting",
    "Recovered",
    "Rewound",
    "State",
    "Stream",
    "Times",
]
