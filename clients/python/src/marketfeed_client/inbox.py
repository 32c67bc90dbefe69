"""A bounded queue between what comes and a loop of the application. Pure.

1. More than `limit` is not kept; the oldest goes first, and that is told as an Overflow, once until the loop takes.
2. Where events stand among the publications, the Overflow stands at the place of what was dropped, before the rest.
3. What waits at the end is still there for the loop, and behind it the error, if there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from marketfeed_client.errors import FeedError
from marketfeed_client.events import Event, Message, Overflow
from marketfeed_client.session import Envelope

__all__ = ["Inbox"]


class Inbox:
    """What waits for one loop.

    `decode` reads the data of a publication; with `whole` its Message is kept, otherwise the data alone. `overflow` is
    called with the event when the first one is dropped since the loop last took; `refuse` with what `decode` raised.
    """

    def __init__(
        self,
        name: str,
        limit: int,
        decode: Callable[[Any], Any],
        overflow: Callable[[Overflow], None],
        refuse: Callable[[str, Exception], None],
        *,
        whole: bool = False,
        has_events: bool = False,
    ) -> None:
        self.name = name
        self.limit = limit
        self.dropped = 0
        """How many were dropped so far."""
        self.is_over = False
        self.error: FeedError | None = None
        self.has_events = has_events
        self.wake: Callable[[], object] | None = None
        """Called once when something has come, or the end, if the loop set it to wait."""
        self._items: deque[Any] = deque()
        self._decode = decode
        self._overflow = overflow
        self._refuse = refuse
        self._is_whole = whole
        self._is_overflowing = False
        self._told = 0  # of what was dropped

    def __len__(self) -> int:
        return len(self._items) + (self._is_overflowing and self.has_events)

    def take(self, envelope: Envelope, past: bool) -> None:
        """A publication has come."""
        try:
            data = self._decode(envelope.data)
        except Exception as error:  # of a type that the application gave, anything
            self._refuse(envelope.stream, error)
            return
        self._put(Message(envelope.stream, data, envelope.offset, past) if self._is_whole else data)

    def tell(self, event: Event) -> None:
        """An event has happened."""
        self._put(event)

    def _put(self, item: Any) -> None:
        if self.is_over:
            return
        items = self._items
        items.append(item)
        if len(items) > self.limit:
            items.popleft()
            self.dropped += 1
            if not self._is_overflowing:
                self._is_overflowing = True
                self._overflow(Overflow(self.name, self.limit, 1))
        if self.wake is not None:
            wake, self.wake = self.wake, None
            wake()

    def finish(self, error: FeedError | None = None) -> None:
        """Nothing more comes."""
        self.is_over = True
        self.error = error
        if self.wake is not None:
            wake, self.wake = self.wake, None
            wake()

    def next(self) -> Any:
        """The oldest that waits. Only while something does."""
        if self._is_overflowing:
            self._is_overflowing = False
            if self.has_events:
                return self._overflown()
        return self._items.popleft()

    def all(self) -> list[Any]:
        """All that waits, oldest first."""
        items: list[Any] = [self._overflown()] if self._is_overflowing and self.has_events else []
        self._is_overflowing = False
        items += self._items
        self._items.clear()
        return items

    def _overflown(self) -> Overflow:
        told, self._told = self._told, self.dropped
        return Overflow(self.name, self.limit, self.dropped - told)

    def end(self) -> FeedError | None:
        """The error at the end, which is told once."""
        error, self.error = self.error, None
        return error
