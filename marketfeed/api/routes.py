"""What is answered in plain HTTP, by path. A new answer is a function, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from marketfeed.access.admission import Admission
from marketfeed.api.depth import INCOMPLETE, Books, Depth
from marketfeed.api.market_data import MarketData
from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.http.router import PlainAnswer
from marketfeed.model.streams import StreamKinds

__all__ = ["alive", "plain_answers", "readiness"]

_NOT_READY = Response(503, "not ready", (("Retry-After", "1"),), reason="not-ready")


def alive(head: Head, address: str | None) -> Response:
    """It answers, so it lives. One that cannot serve yet need not be restarted (docs/operations/health.md#health)."""
    return Response(200, "ok")


def readiness(is_ready: Callable[[], bool]) -> PlainAnswer:
    """Answers whether clients should come here at this moment."""
    return lambda head, address: Response(200, "ready") if is_ready() else _NOT_READY


def plain_answers(
    admission: Admission, books: Books, kinds: StreamKinds, is_ready: Callable[[], bool]
) -> dict[str, PlainAnswer]:
    """The table for `Router`. `is_ready`: whether clients should come here at this moment."""
    return {
        "/healthz": alive,
        "/readyz": readiness(is_ready),
        "/api/v3/depth": MarketData(admission, Depth(books, kinds).find, INCOMPLETE),
    }
