"""What every feed has, whatever its event loop is: who listens to what, the books, the questions for address and token.

1. A function of the application that raises is told as an Error, and is in nobody's way.
2. What is asked for in one go is one request: `_soon` is the event loop's way to do something right after.
3. Once it is closed nobody is called any more; loops end, with the final error if there is one.
"""

from __future__ import annotations

import logging
import random as chance
import time
from collections.abc import Callable
from dataclasses import dataclass
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from marketfeed_client.book import Book, Follower
from marketfeed_client.core import Action, Clock, Core
from marketfeed_client.errors import UNAUTHORIZED, FeedError
from marketfeed_client.events import EVENTS, Error, Event, Message, Overflow, Reconnecting, State, StateName
from marketfeed_client.inbox import Inbox
from marketfeed_client.session import Envelope, Subscription
from marketfeed_client.settings import Askable, Times, address, market, stream_name, whole

__all__ = ["NO_MESSAGE", "Feed", "RealClock", "refused_with"]

NO_MESSAGE = b""
"""What stands for a binary message, which is none of marketfeed's, whatever is in it."""
MOST_REWOUND = 1000
MOST_IN_QUEUE = 10_000
LARGEST_QUEUE = 2**24
_log = logging.getLogger("marketfeed_client")
_decode: Callable[[Any], Any] = msgspec.json.Decoder().decode


class RealClock:
    """The machine's."""

    def now(self) -> float:
        return time.time() * 1000

    def ticks(self) -> float:
        return time.monotonic() * 1000


@dataclass(slots=True, eq=False)
class _Listener:
    """A function of the application, until it is not wanted any more."""

    handler: Callable[..., object]
    call: Callable[..., None]
    decode: Callable[[Any], Any] = _decode
    is_active: bool = True
    has_failed: bool = False
    """Whether it has raised before: the second time nobody needs the traceback."""

    def take(self, envelope: Envelope, past: bool) -> None:
        if self.is_active:
            self.call(self, envelope.stream, lambda: self.handler(self._message(envelope, past)))

    def tell(self, event: Event) -> None:
        if self.is_active:
            self.call(self, None, lambda: self.handler(event))

    def _message(self, envelope: Envelope, past: bool) -> Message:
        return Message(envelope.stream, self.decode(envelope.data), envelope.offset, past)


class Feed:
    """A live connection to marketfeed, without the connection: the clients of each event loop are made of it."""

    def __init__(
        self,
        url: Askable[str],
        *,
        token: Askable[str | None] = None,
        affinity: str | None = None,
        times: Times | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self._affinity = affinity or f"{int(random() * 2**48):x}"
        if not callable(url):
            address(url, self._affinity)
        if token is not None and not callable(token) and not isinstance(token, str):
            raise TypeError(f"token: expected text, or a function that gives it, not {type(token).__name__}")
        self._url = url
        self._token = token
        self._address: str | None = None if callable(url) else address(url, self._affinity)
        self._clock = clock or RealClock()
        self._core = Core(times or Times(), self._clock, random, self._emit, callable(token))
        self._listeners: dict[str, tuple[_Listener, ...]] = dict.fromkeys(EVENTS, ())
        self._followers: dict[str, tuple[Follower, list[Book]]] = {}
        self._inboxes: dict[Inbox, None] = {}
        self._is_flushing = False
        self._why_lost = ""

    @property
    def state(self) -> StateName:
        """What it is doing."""
        return self._core.state

    @property
    def error(self) -> FeedError | None:
        """The final error that closed it."""
        return self._core.error

    def on(
        self, name: str, handler: Callable[[Any], object], *, rewind: int = 0, type: Any = None
    ) -> Callable[[], None]:
        """Call `handler` with each Message of a stream, as ``trade@TATA_INR``, or with each event of a name: ``gap``.

        `rewind`: with how many of its last publications the stream begins, 1,000 at most; what is said first counts.
        `type`: what the data are to be, for msgspec; as JSON has them if it is not given. What is returned ends it.
        """
        plain("handler", handler)
        if name not in EVENTS:
            listener = _Listener(handler, self._call, _decoder(type))
            return self._read(stream_name(name), listener, rewind)
        listener = _Listener(handler, self._call)
        self._listeners[name] += (listener,)
        if name == "message":
            self._each_subscription(listener)

        def stop() -> None:
            listener.is_active = False
            self._listeners[name] = tuple(each for each in self._listeners[name] if each is not listener)
            if name == "message":
                self._each_subscription(None)

        return stop

    def book(self, name: str, *, rate: Literal["100ms", "1000ms"] | None = None) -> Book:
        """The order book of a market, which is followed until it is closed.

        `rate`: at most one message in so long, which makes the same book.
        """
        stream = f"depth@{market(name)}{'@' + rate if rate else ''}"
        if stream not in self._followers:
            follower = Follower(stream, self.refresh)
            self._followers[stream] = (follower, [])
            self._read(stream, follower, 0)
            self.refresh(stream)  # its state, where somebody listens to the stream already
        follower, books = self._followers[stream]
        book = Book(name, follower, lambda: self._leave_book(stream, book), self._hear_book)
        books.append(book)
        return book

    def _leave_book(self, stream: str, book: Book) -> None:
        follower, books = self._followers[stream]
        books.remove(book)
        if not books:
            del self._followers[stream]
            self._unread(stream, follower)

    def refresh(self, stream: str) -> None:
        """Ask for a stream anew, from its state: its book or its last ticker comes again. Whoever listens to it misses
        nothing of a state, but may miss publications.
        """
        self._core.session.refresh(stream_name(stream))
        self._flush_soon()

    # For the clients of each event loop.

    def _soon(self, job: Callable[[], None]) -> None:
        """Do it right after what is being done."""
        raise NotImplementedError

    def _pump(self) -> None:
        """Do what the core has to do."""
        raise NotImplementedError

    def _unreached(self, error: Exception) -> FeedError:
        """There is no connection. The address is told as it was given, without what nobody else is to see."""
        parts = urlsplit(self._address or "")
        host = parts.netloc.rpartition("@")[2]
        place = f" to {parts.scheme}://{host}{parts.path}" if host else ""
        return FeedError("closed", f"no connection{place}: {error or type(error).__name__}", code=1006)

    async def _where(self) -> tuple[str, str | None]:
        """Address and token, asked for. Raises FeedError."""
        asked: Literal["url", "token"] = "url"
        is_asked = callable(self._url)
        try:
            given = self._url() if callable(self._url) else self._url
            url = address(await given if isawaitable(given) else given, self._affinity)
            self._address = url
            asked, is_asked = "token", callable(self._token)
            return url, await self._ask_token()
        except FeedError:
            raise
        except Exception as error:
            final = not is_asked or bool(getattr(error, "final", False))
            raise FeedError(asked, f"{asked}: {error}", final=final) from error

    async def _ask_token(self) -> str | None:
        given = self._token() if callable(self._token) else self._token
        token = await given if isawaitable(given) else given
        if token is None or isinstance(token, str):
            return token or None
        raise TypeError(f"expected text, not {token!r}")

    async def _renew(self, attempt: int) -> None:
        """Ask for another token for the open connection."""
        try:
            token = await self._ask_token()
        except Exception as error:
            final = bool(getattr(error, "final", False))
            self._core.failed_to_renew(attempt, FeedError("token", f"token: {error}", final=final))
        else:
            self._core.renewed(attempt, token)
        self._pump()

    def _inbox(self, streams: tuple[str, ...], limit: int, rewind: int, type: Any, **shape: bool) -> Inbox:
        """A queue into which the streams come."""
        names = [stream_name(stream) for stream in streams]
        inbox = Inbox(
            "/".join(names),
            whole("limit", limit, LARGEST_QUEUE),
            _decoder(type),
            self._overflown,
            self._refuse,
            **shape,
        )
        self._open_inbox(inbox)
        for name in dict.fromkeys(names):
            self._read(name, inbox, rewind)
        return inbox

    def _events_inbox(self, limit: int) -> Inbox:
        inbox = Inbox("!events", whole("limit", limit, LARGEST_QUEUE), _decode, self._overflown, self._refuse)
        inbox.has_events = True
        self._open_inbox(inbox)
        return inbox

    def _open_inbox(self, inbox: Inbox) -> None:
        if self.state == "closed":
            inbox.finish(self.error)
        else:
            self._inboxes[inbox] = None

    def _close_inbox(self, inbox: Inbox) -> None:
        if self._inboxes.pop(inbox, 0) is None:
            for stream in inbox.name.split("/") if inbox.name != "!events" else ():
                self._unread(stream, inbox)
        inbox.finish()

    def _read(self, stream: str, reader: Any, rewind: int) -> Callable[[], None]:
        if rewind:
            whole("rewind", rewind, MOST_REWOUND)
        if self.state == "closed":
            return lambda: None
        subscription = self._core.session.want(stream, rewind)
        subscription.readers = (*subscription.readers, reader)
        self._order(subscription)
        self._flush_soon()
        return lambda: self._unread(stream, reader)

    def _unread(self, stream: str, reader: Any) -> None:
        if isinstance(reader, _Listener):
            reader.is_active = False
        subscription = self._core.session.wanted(stream)
        if subscription is None or reader not in subscription.readers:
            return
        subscription.readers = tuple(each for each in subscription.readers if each is not reader)
        if all(each in self._listeners["message"] for each in subscription.readers):
            self._core.session.drop(subscription)
            self._flush_soon()

    def _order(self, subscription: Subscription) -> None:
        """Those of ``message`` are behind those of the stream."""
        others = self._listeners["message"]
        own = tuple(each for each in subscription.readers if each not in others)
        subscription.readers = own + others

    def _each_subscription(self, added: _Listener | None) -> None:
        for stream in self._core.session.streams:
            subscription = self._core.session.wanted(stream)
            if subscription is not None:
                subscription.readers = tuple(
                    each for each in subscription.readers if not isinstance(each, _Listener) or each.is_active
                )
                self._order(subscription)

    def _flush_soon(self) -> None:
        if self._is_flushing or self.state == "closed":
            return
        self._is_flushing = True
        self._soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        self._core.session.flush()
        self._pump()

    # Who is called.

    def _overflown(self, event: Overflow) -> None:
        self._emit(event)

    def _refuse(self, stream: str, error: Exception) -> None:
        self._emit(Error.of(FeedError("handler", f"a message of {stream} was left out: {error}", stream=stream)))

    def _hear_book(self, handler: Callable[[Book], object]) -> Callable[[Book], None]:
        """The function that a book calls in place of the application's."""
        plain("handler", handler)
        listener = _Listener(handler, self._call)
        return lambda book: self._call(listener, f"the book of {book.market}", lambda: handler(book))

    def _call(self, listener: _Listener, stream: str | None, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:
            is_first, listener.has_failed = not listener.has_failed, True
            if listener in self._listeners["error"]:
                _log.error("a handler of errors failed, and the feed goes on: %r", error, exc_info=is_first)
                return
            of = f" of {stream}" if stream else ""
            message = f"a handler{of} failed, and the feed goes on: {error!r}"
            _log.error("%s", message, exc_info=is_first)
            self._tell(Error.of(FeedError("handler", message)))

    def _emit(self, event: Event) -> None:
        """Tell an event, and log what is wrong; why a connection is lost, with the pause that is told right behind."""
        if isinstance(event, Error):
            if self.state == "waiting" and event.kind != "handler":
                self._why_lost = event.message
            else:
                _log.warning("%s", event.message)
        elif isinstance(event, Reconnecting):
            _log.warning("%s; the next attempt comes in %.1f s", self._why_lost, event.delay / 1000)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        for inbox in list(self._inboxes):
            if inbox.has_events and not (isinstance(event, Overflow) and event.stream == inbox.name):
                inbox.tell(event)
        for listener in self._listeners[type(event).__struct_config__.tag]:  # type: ignore[index]
            listener.tell(event)
        for follower, _ in list(self._followers.values()):  # what a book makes of it is told behind it
            follower.tell(event)
        is_told = isinstance(event, Error) and event.final if self.error else isinstance(event, State)
        if self.state == "closed" and is_told:
            self._over()

    def _over(self) -> None:
        for inbox in list(self._inboxes):
            inbox.finish(self._core.error)
        self._inboxes.clear()
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.is_active = False
        for stream in self._core.session.streams:
            subscription = self._core.session.wanted(stream)
            if subscription is not None:
                subscription.readers = ()

    def _actions(self) -> list[Action]:
        actions = list(self._core.actions)
        self._core.actions.clear()
        return actions


def plain(name: str, handler: object) -> None:
    """See that a handler can be called, and has done its work when it returns. Raises TypeError."""
    if not callable(handler):
        raise TypeError(f"{name}: expected a function, not {handler!r}")
    call = getattr(handler, "__call__", None)  # noqa: B004 # of an object, it may be a coroutine function
    if any(iscoroutinefunction(each) or isasyncgenfunction(each) for each in (handler, call)):
        raise TypeError(
            f"{name}: expected a plain function, as `def`, not the coroutine function {handler!r}, which nobody would "
            "wait for; to await, loop instead: `async for message in feed.messages(…)`"
        )


def refused_with(status: int, text: str, can_renew: bool) -> FeedError:
    """A handshake that was answered with another HTTP status than 101: only a token that cannot be renewed is final."""
    message = f"the connection was refused with {status}{': ' if text else ''}{text}"
    if status == 401:
        return FeedError("closed", message, final=not can_renew, code=UNAUTHORIZED)
    return FeedError("closed", message, code=1006)


def _decoder(type: Any) -> Callable[[Any], Any]:
    return _decode if type is None else msgspec.json.Decoder(type).decode
