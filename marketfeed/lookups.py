"""What was, and what is, for those who ask once and do not watch: past publications, and books.

1. What is asked for of a stream that nobody watches is looked up in the archive, where there is one.
2. A stream whose book is asked for is wanted for a while, so that the next one who asks finds it complete.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Archive, Entry
from marketfeed.groups import LiveStream
from marketfeed.model.state import BookState
from marketfeed.model.streams import StreamName
from marketfeed.recall import read_entries
from marketfeed.waits import Waits
from marketfeed.wanted import WantedStreams

__all__ = ["Lookups"]


class Lookups:
    """Answers questions about the streams of a process. `make` makes a stream that is not wanted."""

    def __init__(
        self, wanted: WantedStreams, waits: Waits, make: Callable[[StreamName], LiveStream], strict: bool
    ) -> None:
        self._wanted = wanted
        self._waits = waits
        self._make = make
        self._strict = strict
        self.archive: Archive | None = None

    def history(self, name: StreamName, limit: int, max_bytes: int) -> Deferred[list[Entry] | None]:
        """See `Hub.history`."""
        stream = self._wanted.find(str(name))
        if self.archive is None:
            return succeed([] if stream is None else stream.history.newest(limit, max_bytes))
        return Deferred.fromCoroutine(self._archived(self.archive, stream or self._make(name), limit, max_bytes))

    async def _archived(self, archive: Archive, stream: LiveStream, limit: int, max_bytes: int) -> list[Entry] | None:
        entries = await archive.newest(stream.name, limit, max_bytes)
        return None if entries is None else read_entries(stream, entries, self._strict)

    def book(self, name: StreamName) -> Deferred[BookState | None]:
        """See `Hub.book`."""
        stream = self._wanted.hold_if_room(name)
        if stream is None:
            return succeed(None)

        def settled() -> None:
            state = stream.state
            self._wanted.release(stream)
            is_current = state is not None and state.is_complete and stream.gap is None
            done.callback(state if is_current and isinstance(state, BookState) else None)

        def cancel(_: object) -> None:
            if wait is not None:
                self._waits.cancel(wait)
                self._wanted.release(stream)

        done = Deferred[BookState | None](cancel)
        wait = self._waits.wait_for((stream,), True, settled)
        if wait is None:
            settled()
        return done
