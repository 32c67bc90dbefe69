"""What the clients of all event loops have in common: loops over streams, and questions that are waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

from marketfeed_client.errors import FeedError
from marketfeed_client.events import Message
from marketfeed_client.feed import MOST_IN_QUEUE, Feed
from marketfeed_client.history import past
from marketfeed_client.rest import Candle, Market, Question, Trade, ask, klines, markets, trades
from marketfeed_client.settings import Moment, market, stream_name, whole
from marketfeed_client.stream import Pause, Stream

__all__ = ["LoopFeed"]

T = TypeVar("T")
Q = TypeVar("Q")
MOST_OF_HISTORY = 10_000_000


class LoopFeed(Feed):
    """A feed that is waited for. `start`, `close`, `_pause` and `_in_thread` are the event loop's."""

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ready(self) -> None:
        """Until a connection is open. Raises FeedError once the feed is closed."""
        come, settle = self._wait()
        stop = self.on("state", lambda event: settle() if event.state == "open" else None)
        inbox = self._events_inbox(1)
        inbox.has_events = False  # only its end counts
        inbox.wake = settle
        try:
            if self.state not in ("open", "closed"):
                await come
        finally:
            stop()
            self._close_inbox(inbox)
        if self.state == "closed":
            raise self.error or FeedError("not-open", "the feed is closed")

    def stream(self, *streams: str, rewind: int = 0, limit: int = MOST_IN_QUEUE, type: Any = None) -> Stream:
        """The data of some streams, as JSON has them, or as `type` for msgspec.

        `rewind`: with how many of the last publications it begins, 1,000 at most. `limit`: how many may wait for the
        loop; then the oldest are dropped, which is the event Overflow.
        """
        return Stream(self._inbox(streams, limit, rewind, type), self._close_inbox, self._wait)

    def messages(
        self, *streams: str, rewind: int = 0, limit: int = MOST_IN_QUEUE, type: Any = None, events: bool = True
    ) -> Stream:
        """The same as Messages, with stream and offset, and between them, in order, the events of the feed."""
        inbox = self._inbox(streams, limit, rewind, type, whole=True, has_events=events)
        return Stream(inbox, self._close_inbox, self._wait)

    def events(self, *, limit: int = MOST_IN_QUEUE) -> Stream:
        """The events, frozen structs, in order."""
        return Stream(self._events_inbox(limit), self._close_inbox, self._wait)

    async def history(self, stream: str, *, limit: int | None = 100, before: str | None = None) -> list[Message]:
        """The last publications of a stream that the daemon keeps, oldest first; as many requests are made as it takes.

        `limit`: no more than so many; None: all of them. `before`: an offset, those before it. It needs an open
        connection: nothing is queued. Raises FeedError.
        """
        name = stream_name(stream)
        if limit is not None:
            whole("limit", limit, MOST_OF_HISTORY)
        if before is not None and not isinstance(before, str):
            raise TypeError(f"before: expected an offset, as a Message has it, not {before!r}")
        asked = count()
        found = await self._paged(
            past(limit, before), lambda fields: self._past_of(name, fields, is_patient=next(asked) > 0)
        )
        return [Message(name, each.data, each.offset, True) for each in found]

    async def _past_of(self, name: str, fields: dict[str, Any], *, is_patient: bool) -> Any:
        """What one HISTORY answers. Who has the first page waits for the others."""
        come, settle = self._wait()
        answers: list[tuple[Any, FeedError | None]] = []

        def answer(result: Any, error: FeedError | None) -> None:
            answers.append((result, error))
            settle()

        self._core.session.history(name, fields, answer, is_patient=is_patient)
        self._pump()
        await come
        result, error = answers[0]
        if error is not None:
            raise error
        return result

    async def klines(
        self,
        name: str,
        interval: str,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int | None = None,
    ) -> list[Candle]:
        """Past candles of a market, oldest first; as many requests are made as that takes.

        `interval`: as ``1m``. `start`, `end`: moments between which the candles begin, in ms since 1970, or as
        datetimes with a time zone. `limit`: no more than so many: the first from `start` on, or without it the last,
        500 if neither is given. Raises FeedError.
        """
        return await self._paged(klines(market(name), interval, start, end, limit), self._asked)

    async def trades(
        self,
        name: str,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        from_id: int | None = None,
        limit: int | None = None,
    ) -> list[Trade]:
        """Past trades of a market, oldest first; as many requests are made as that takes.

        `from_id`: from this trade on. The others are as for `klines`. Raises FeedError.
        """
        return await self._paged(trades(market(name), start, end, from_id, limit), self._asked)

    async def markets(self) -> list[Market]:
        """The markets that the daemon lists, or of those that this client may have. Raises FeedError."""
        return await self._paged(markets(), self._asked)

    async def _paged(self, pages: Generator[Q, Any, list[T]], ask: Callable[[Q], Awaitable[Any]]) -> list[T]:
        """Ask what it says, until it has everything."""
        try:
            question = next(pages)
            while True:
                question = pages.send(await ask(question))
        except StopIteration as over:
            found: list[T] = over.value
            return found

    async def _asked(self, question: Question) -> Any:
        url, token = await self._where()
        return await self._in_thread(lambda: ask(url, token, question))

    def _wait(self) -> Pause:
        """What is awaited until something happens. Raises RuntimeError where nothing ever will."""
        if not self._core.is_started and self.state != "closed":
            raise RuntimeError(
                "the feed is not started: use it inside `async with Client(…) as feed:`, or call start()"
            )
        return self._pause()

    # The event loop's.

    def start(self) -> None:
        """Connect, and stay connected until `close`."""
        raise NotImplementedError

    def close(self) -> Awaitable[None]:
        """End it for good, whatever it is doing."""
        raise NotImplementedError

    def _pause(self) -> Pause:
        raise NotImplementedError

    def _in_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        raise NotImplementedError
