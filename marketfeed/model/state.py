"""The state of a stream, which a new subscriber gets first (docs/protocol.md#state-on-subscribe).

A state is given only while it is complete: what a subscriber who had been there from the beginning would have.
"""

from __future__ import annotations

from marketfeed.model.book_state import BookState
from marketfeed.model.merging import MarketsMessage

__all__ = ["LatestState", "MarketsState", "State"]


class LatestState:
    """The state of a stream of which only the newest publication matters: that one."""

    __slots__ = ("_data", "_is_live")

    def __init__(self) -> None:
        self._data: bytes | None = None
        self._is_live = False

    @property
    def is_complete(self) -> bool:
        """Whether there is a state to give."""
        return self._data is not None

    @property
    def is_wanting(self) -> bool:
        """Whether there is none."""
        return self._data is None

    @property
    def is_live(self) -> bool:
        """Whether it came on the stream itself, and not from beside it."""
        return self._is_live

    def record(self, data: bytes) -> bool:
        """A publication has come. False: it has no ids that could jump."""
        self._data = data
        self._is_live = True
        return False

    def seed(self, data: bytes) -> bool:
        """A state from beside the stream. Whether it is taken: what came on the stream itself is newer."""
        if self._is_live:
            return False
        self._data = data
        return True

    def lose(self) -> None:
        """The link is lost: what was the newest may be old."""
        self._data = None
        self._is_live = False

    def snapshot(self) -> bytes | None:
        """The newest publication as it was published; None where it is not known."""
        return self._data


class MarketsState:
    """The state of a stream about many markets, of each of which the newest counts: all of them.

    A seed says of each market what it was, and the stream what has changed since.
    """

    __slots__ = ("_changed", "_is_seeded")

    def __init__(self) -> None:
        self._changed = MarketsMessage({})
        self._is_seeded = False

    @property
    def is_complete(self) -> bool:
        """Whether there is a state to give."""
        return self._is_seeded

    @property
    def is_wanting(self) -> bool:
        """Whether there is none."""
        return not self._is_seeded

    def record(self, data: bytes) -> bool:
        """A publication has come. False: it has no ids that could jump. Raises what reading it does."""
        self._changed.take(MarketsMessage.parse(data))
        return False

    def seed(self, data: bytes) -> bool:
        """What somebody keeps of all markets. It is taken, but for what came on the stream itself, which is newer."""
        whole = MarketsMessage.parse(data)
        whole.take(self._changed)
        self._changed = whole
        self._is_seeded = True
        return True

    def lose(self) -> None:
        """The link is lost: what was the newest may be old."""
        self._changed = MarketsMessage({})
        self._is_seeded = False

    def snapshot(self) -> bytes | None:
        """All markets; None where they are not known, or there is none."""
        return self._changed.to_bytes() if self._is_seeded and self._changed.rows else None


State = LatestState | BookState | MarketsState
