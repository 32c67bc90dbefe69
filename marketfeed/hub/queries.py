"""What was, and what is, for those who ask once and do not watch: past publications, and books.

1. What is asked for of a stream that nobody watches is looked up in the archive, where there is one.
2. Who asks for a book waits until it is complete, for `BOOK_SECONDS` at most.
3. Its stream is wanted for a while longer, so that the next one who asks finds it complete. That takes room among
   `--max-distinct-streams` as a client's would, and there is a bound to how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Archive, Clock, Dated, Entry, NoBook, UnknownOffset
from marketfeed.hub.recovery import read_entries
from marketfeed.hub.stream import LiveStream
from marketfeed.hub.upstream import Upstream
from marketfeed.model.book_state import BookState
from marketfeed.model.entry_ids import before as id_before
from marketfeed.model.entry_ids import parse_id, write_id
from marketfeed.model.kinds.kind import View
from marketfeed.model.streams import StreamName

__all__ = ["BOOK_SECONDS", "KEPT_SECONDS", "Queries"]

BOOK_SECONDS = 5.0
"""How long somebody who asks for a book waits for it (docs/protocol.md#an-order-book-in-one-answer)."""
KEPT_SECONDS = 60.0
"""How long a stream is wanted after its book was asked for, besides `--linger`."""
_MOST_KEPT = 1000
_LOOK_SECONDS = 0.05


class _Question(msgspec.Struct, frozen=True, eq=False):
    """Somebody asks for a book, until a moment of the clock."""

    stream: LiveStream
    state: BookState
    until: float
    answer: Deferred[BookState | NoBook]


def _is_whole(stream: LiveStream, state: BookState) -> bool:
    """Whether the book is complete as far as can be told without merging what waits."""
    return stream.gap is None and not stream.is_sought and not state.is_wanting


class Queries:
    """Answers questions about the streams of a process."""

    def __init__(self, clock: Clock, upstream: Upstream, strict: bool) -> None:
        self._clock = clock
        self._upstream = upstream
        self._registry = upstream.registry
        self._strict = strict
        self._questions: dict[_Question, None] = {}
        self._kept: dict[str, tuple[LiveStream, float]] = {}  # until when; who has not asked for longest first
        self._looking: IDelayedCall | None = None
        self._keeping: IDelayedCall | None = None

    def history(
        self, name: StreamName, limit: int, max_bytes: int, before: str | None = None
    ) -> Deferred[list[Entry] | None]:
        """See `HubPort`."""
        source, view = name.source, name.view
        key, archive = str(source), self._upstream.archive
        stream = self._registry.find(key)
        if archive is None or name.kind.from_candles:
            if stream is not None:
                return succeed(_newest(stream, limit, max_bytes, view, before))
            if before is not None:
                raise UnknownOffset
            return succeed([])
        until = None if before is None else _next_to(before)
        stream = stream or self._upstream.make(source, key)
        return Deferred.fromCoroutine(self._archived(archive, stream, limit, max_bytes, view, until))

    async def _archived(
        self, archive: Archive, stream: LiveStream, limit: int, max_bytes: int, view: View, until: str | None
    ) -> list[Entry] | None:
        more = 1 if view else 0  # one more, on which the first of the others follows
        entries = await archive.newest(stream.name, limit + more, max_bytes, until)
        if entries is None:
            return None
        entries = read_entries(stream, entries, self._strict)
        made = stream.made(view)
        if made is None:
            return entries
        replay = made.replay(None)
        return [(offset, replay.make(offset, data, stream.history.note(offset))) for offset, data in entries][-limit:]

    def first_from(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Deferred[list[Dated] | None]:
        """See `Hub.first_from`."""
        archive = self._upstream.archive
        if archive is None:
            stream = self._followed(name)
            return succeed(None if stream is None else stream.history.first_from(time / 1000, limit, max_bytes))
        return self._dated(name, archive, archive.first_from(str(name), time, limit, max_bytes))

    def last_until(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Deferred[list[Dated] | None]:
        """See `Hub.last_until`."""
        archive = self._upstream.archive
        if archive is None:
            stream = self._followed(name)
            return succeed(None if stream is None else stream.history.last_until(time / 1000, limit, max_bytes))
        return self._dated(name, archive, archive.last_until(str(name), time, limit, max_bytes))

    def _followed(self, name: StreamName) -> LiveStream | None:
        """The stream, of which is kept what comes from now on; None: there is no room for it."""
        stream = self._registry.hold_if_room(name)
        if stream is not None:
            self._keep(name, stream)
            self._registry.release(stream)
        return stream

    def _dated(
        self, name: StreamName, archive: Archive, found: Deferred[list[Entry] | None]
    ) -> Deferred[list[Dated] | None]:
        def dated(entries: list[Entry] | None) -> list[Dated] | None:
            if entries is None:
                return None
            stream = self._registry.find(str(name)) or self._upstream.make(name, str(name))
            read = read_entries(stream, entries, self._strict)
            return [Dated(offset, archive.time_of(offset), data) for offset, data in read]

        return found.addCallback(dated)

    @property
    def books(self) -> Iterator[tuple[str, BookState]]:
        """See `Hub.books`."""
        for stream in list(self._registry.all):
            state = stream.state
            if isinstance(state, BookState) and _is_whole(stream, state):
                yield stream.name.partition("@")[2], state

    def book(self, name: StreamName) -> Deferred[BookState | NoBook]:
        """See `Hub.book`."""
        stream = self._registry.hold_if_room(name)
        if stream is None or not isinstance(stream.state, BookState):
            if stream is not None:
                self._registry.release(stream)
            return succeed(NoBook.INCOMPLETE)
        self._keep(name, stream)
        answer = Deferred[BookState | NoBook](lambda _: self._cancel(question))
        question = _Question(stream, stream.state, self._clock.seconds() + BOOK_SECONDS, answer)
        self._questions[question] = None
        if stream.is_settled(with_state=True):
            self._look_at(question)
        self._go_on_looking()
        return answer

    def close(self) -> None:
        """Nobody asks any more, and no stream is kept."""
        for question in list(self._questions):
            self._end(question, NoBook.INCOMPLETE)
        for stream, _ in self._kept.values():
            self._registry.release(stream)
        self._kept.clear()
        for timer in (self._looking, self._keeping):
            if timer is not None:
                timer.cancel()
        self._looking = self._keeping = None

    # Waiting for books.

    def _go_on_looking(self) -> None:
        if self._looking is None and self._questions:
            self._looking = self._clock.callLater(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        for question in list(self._questions):
            if question in self._questions:  # or it was cancelled by what another one did
                self._look_at(question)
        self._go_on_looking()

    def _look_at(self, question: _Question) -> None:
        """Answer with the book if it is complete, and without if it has taken too long."""
        stream, state = question.stream, question.state
        if _is_whole(stream, state) and state.is_complete:
            self._end(question, state)
        elif self._clock.seconds() >= question.until:
            self._end(question, NoBook.UNKNOWN if stream.confirmed and state.is_blank else NoBook.INCOMPLETE)

    def _end(self, question: _Question, answer: BookState | NoBook) -> None:
        del self._questions[question]
        self._registry.release(question.stream)
        question.answer.callback(answer)

    def _cancel(self, question: _Question) -> None:
        if question in self._questions:
            del self._questions[question]
            self._registry.release(question.stream)

    # What is kept for who asks again.

    def _keep(self, name: StreamName, stream: LiveStream) -> None:
        """Hold the stream from now on for `KEPT_SECONDS`; of very many, one ends."""
        if self._kept.pop(stream.name, None) is None:
            self._registry.hold(name)
        self._kept[stream.name] = stream, self._clock.seconds() + KEPT_SECONDS
        if len(self._kept) > _MOST_KEPT:
            self._registry.release(self._kept.pop(next(iter(self._kept)))[0])
        if self._keeping is None:
            self._keeping = self._clock.callLater(KEPT_SECONDS, self._let_go)

    def _let_go(self) -> None:
        self._keeping = None
        for name, (stream, until) in list(self._kept.items()):
            if until > self._clock.seconds():
                self._keeping = self._clock.callLater(until - self._clock.seconds(), self._let_go)
                break
            del self._kept[name]
            self._registry.release(stream)


def _next_to(offset: str) -> str:
    """The last offset that an archive may have before this one."""
    entry = parse_id(offset)
    if entry is None:
        raise UnknownOffset
    return write_id(id_before(entry))


def _newest(stream: LiveStream, limit: int, max_bytes: int, view: View, before: str | None) -> list[Entry]:
    """What the history has of a stream, as who has this view gets it."""
    history, made = stream.history, stream.made(view)
    skipped = 0 if before is None else history.count_from(before)
    if skipped is None:
        raise UnknownOffset
    entries = history.newest(limit, max_bytes, skipped)
    if made is None or not entries:
        return entries
    replay = made.replay(history.number_before(len(entries) + skipped))
    notes = history.notes_of_newest(len(entries), skipped)
    return [(offset, replay.make(offset, data, note)) for (offset, data), note in zip(entries, notes, strict=True)]
