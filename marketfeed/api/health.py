"""What load balancers ask: whether the process lives, and whether it is of use (docs/operations.md#health)."""

from __future__ import annotations

from collections.abc import Callable

from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.http.router import PlainAnswer

__all__ = ["alive", "readiness"]

_NOT_READY = Response(503, "not ready", (("Retry-After", "1"),))


def alive(head: Head, address: str | None) -> Response:
    """It answers, so it lives. A process that cannot serve yet need not be restarted."""
    return Response(200, "ok")


def readiness(is_ready: Callable[[], bool]) -> PlainAnswer:
    """Answers whether clients should come here at this moment."""
    return lambda head, address: Response(200, "ready") if is_ready() else _NOT_READY
