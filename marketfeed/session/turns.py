"""The requests that wait behind one that has not been answered yet.

1. They are taken up in the order in which they came.
2. Past a few of them the client is not read from, until there are fewer again, or the conversation is over.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["Turns"]

_WAITING_REQUESTS = 16


class Readable(Protocol):
    """What of a connection is paused."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Turns:
    """Requests of one client that wait: each a payload, and whether it came too fast."""

    __slots__ = ("_connection", "_requests")

    def __init__(self, connection: Readable) -> None:
        self._connection = connection
        self._requests: deque[tuple[bytes, bool]] = deque()

    def put(self, payload: bytes, is_refused: bool) -> None:
        """One more."""
        self._requests.append((payload, is_refused))
        if len(self._requests) == _WAITING_REQUESTS:
            self._connection.pause_reading()

    def take(self) -> tuple[bytes, bool] | None:
        """The next one; None when there is none."""
        if not self._requests:
            return None
        if len(self._requests) == _WAITING_REQUESTS:
            self._connection.resume_reading()
        return self._requests.popleft()

    def close(self) -> None:
        """None of them is taken up any more; the client is read again, or its answer to a close would never be."""
        if len(self._requests) >= _WAITING_REQUESTS:
            self._connection.resume_reading()
        self._requests.clear()
