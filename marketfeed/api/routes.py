"""What is answered in plain HTTP, by path. A new answer is a function, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from marketfeed.access.admission import Admission
from marketfeed.api.depth import INCOMPLETE, Books, Depth
from marketfeed.api.health import alive, readiness
from marketfeed.api.market_data import MarketData
from marketfeed.http.router import PlainAnswer
from marketfeed.model.streams import StreamKinds

__all__ = ["plain_answers"]


def plain_answers(
    admission: Admission, books: Books, kinds: StreamKinds, is_ready: Callable[[], bool]
) -> dict[str, PlainAnswer]:
    """The table for `Router`. `is_ready`: whether clients should come here at this moment."""
    return {
        "/healthz": alive,
        "/readyz": readiness(is_ready),
        "/api/v3/depth": MarketData(admission, Depth(books, kinds).find, INCOMPLETE),
    }
