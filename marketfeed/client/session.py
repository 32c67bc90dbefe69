"""The conversation with one client: a request → replies and changes of subscription. It knows no reactor.

1. Requests are answered in order. While one waits, a SUBSCRIBE for the source or a HISTORY for what is kept, later
   requests wait behind it, and past a few of them the client is not read from.
2. A request takes effect whole or not at all, and is answered once (PROTOCOL.md, section 4).
3. Everything that a client can do wrong ends in one place, `_answer`, as an error reply.
4. A client has what its token permits, from the moment at which the token is known to be good. No token is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from marketfeed.boundaries import Entry, Subscriber
from marketfeed.client.auth import BadToken
from marketfeed.client.requests import (
    Property,
    as_history,
    history_of,
    property_of,
    since_of,
    streams_of,
    token_of,
    value_of,
)
from marketfeed.client.turns import Turns
from marketfeed.hub import Group, Hub, Join, TooManyStreams
from marketfeed.logs import Log
from marketfeed.model.dialects import Dialect, Shape
from marketfeed.model.identity import ANONYMOUS, Identity
from marketfeed.model.messages import (
    TOO_MANY_REQUESTS,
    CloseReason,
    ErrorCode,
    Request,
    RequestError,
    RequestId,
    parse_request,
)
from marketfeed.model.ratelimit import TokenBucket
from marketfeed.model.streams import StreamKinds, StreamName

__all__ = ["Connection", "Session", "SessionContext", "SessionLimits"]

_log = Log()

_REFUSALS_IN_A_ROW = 20
_LONGEST_LOGGED = 200
_STREAMS_OF_REQUEST = 20
"""A request that names streams counts as one more for each so many: that is what they cost."""
_PUBLICATIONS_OF_REQUEST = 100
"""A HISTORY counts as one more for each so many that it asks for."""
_FEW_STREAMS = 5  # of one change, the most that the log names


class Connection(Protocol):
    """What a session needs of the connection below it."""

    @property
    def client_id(self) -> int: ...
    @property
    def outbox(self) -> Subscriber: ...

    def send_text(self, text: bytes) -> None:
        """Send one message."""

    def close_with(self, reason: CloseReason) -> None:
        """End the connection with a close frame."""

    def renew(self, identity: Identity) -> None:
        """The client has another token: this is when it ends."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is told by the operator; see the options of the same names."""

    max_streams: int = 1024
    request_rate: float = 10.0
    request_burst: int = 200
    client_queue: int = 1048576


class SessionContext(msgspec.Struct, frozen=True, kw_only=True):
    """What all sessions have in common. `now`: seconds, from any beginning. `verify`: raises `BadToken`."""

    hub: Hub
    kinds: StreamKinds
    limits: SessionLimits
    now: Callable[[], float]
    verify: Callable[[str], Identity]


class _Answered(Exception):
    """The reply has been sent, or comes later."""


class Session:
    """One client's conversation."""

    __slots__ = (
        "_awaits",
        "_bucket",
        "_connection",
        "_context",
        "_dialect",
        "_ended",
        "_groups",
        "_hub",
        "_identity",
        "_is_house",
        "_join",
        "_refusals",
        "_waiting",
        "_with_offsets",
        "_with_state",
    )

    def __init__(
        self, connection: Connection, dialect: Dialect, context: SessionContext, identity: Identity = ANONYMOUS
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._is_house = dialect is Dialect.HOUSE
        self._context = context
        self._hub = context.hub
        self._identity = identity
        limits = context.limits
        self._bucket = TokenBucket(limits.request_rate, limits.request_burst, context.now())
        self._refusals = 0
        self._groups: dict[str, Group] = {}
        self._waiting: Turns | None = None
        self._join: Join | None = None
        self._awaits = False  # a request has not been answered yet
        self._with_offsets = False
        self._with_state = False
        self._ended = False

    def begin(self, streams: list[str]) -> None:
        """The connection is open; `streams`, from its path or query, are its first SUBSCRIBE, answered if it fails."""
        if streams:
            self._bucket.charge(len(streams) // _STREAMS_OF_REQUEST)
            self._answer(Request("SUBSCRIBE", streams, msgspec.UNSET), quiet=True)

    def receive(self, payload: bytes) -> None:
        """One text message."""
        is_refused = not self._bucket.take(self._context.now())
        if not is_refused:
            # Without reading it, for it may have to wait. No list of streams has fewer commas, however it is written.
            self._bucket.charge(payload.count(b",") // _STREAMS_OF_REQUEST)
        self._refusals = self._refusals + 1 if is_refused else 0
        if self._refusals == _REFUSALS_IN_A_ROW:
            self._connection.close_with(TOO_MANY_REQUESTS)
        elif not self._awaits:
            self._request(payload, is_refused)
        else:
            if self._waiting is None:
                self._waiting = Turns(self._connection)
            self._waiting.put(payload, is_refused)

    def end(self) -> None:
        """The connection is closing or gone."""
        self._ended = True
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
        if self._join is not None:
            self._hub.cancel(self._join)
            self._join = None
        groups, self._groups = self._groups, {}
        self._hub.leave(self._connection.outbox, groups.values())

    def event(self, event: msgspec.Struct) -> bytes:
        """A control event, as this client's dialect spells it."""
        return self._dialect.event(event)

    @property
    def subscriptions(self) -> list[str]:
        """The streams of this client, as it spelled them, in order."""
        return list(self._groups)

    def _refuse(self, payload: bytes) -> None:
        try:
            request_id = parse_request(payload).id
        except RequestError as error:
            request_id = error.request_id
        message = f"too many requests: {self._context.limits.request_rate:g} a second; try again later"
        self._connection.send_text(self._dialect.error(RequestError(ErrorCode.TOO_MANY_REQUESTS, message, request_id)))

    def _request(self, payload: bytes, is_refused: bool) -> None:
        if is_refused:
            self._refuse(payload)
            return
        try:
            request = parse_request(payload)
        except RequestError as error:
            self._send_error(error)
            return
        if Log.debugging:
            self._log_request(request)
        self._answer(request, quiet=self._is_house and request.id is msgspec.UNSET)

    def _log_request(self, request: Request) -> None:
        """Without what may hold a token: what no method of ours asks for, and the params of AUTH."""
        if request.method in _METHODS:
            is_shown = request.method != "AUTH" and request.params is not msgspec.UNSET
            params = f" {str(request.params)[:_LONGEST_LOGGED]}" if is_shown else ""
            _log.debug(
                "client {client} asks {method}{params}",
                client=self._connection.client_id,
                method=request.method,
                params=params,
            )

    def _answer(self, request: Request, quiet: bool) -> None:
        """Carry out one request. `quiet`: a change of subscription that succeeds gets no reply."""
        method = _METHODS.get(request.method)
        try:
            if method is None:
                known = ", ".join(_METHODS)
                raise RequestError(
                    ErrorCode.INVALID_REQUEST, f"invalid request: method must be one of {known}", request.id
                )
            result = method(self, request, quiet)
        except _Answered:
            return
        except RequestError as error:
            error.request_id = request.id
            self._send_error(error)
            return
        self._reply(result, request.id, quiet and request.method in _QUIET)

    def _send_error(self, error: RequestError) -> None:
        _log.debug("client {client} is refused: {fault}", client=self._connection.client_id, fault=error.message)
        self._connection.send_text(self._dialect.error(error))

    def _reply(self, result: Any, request_id: RequestId, quiet: bool) -> None:
        if not quiet:
            self._connection.send_text(self._dialect.reply(result, request_id))

    # The methods of the protocol.

    def _subscribe(self, request: Request, quiet: bool) -> None:
        streams = self._streams(request)
        self._check_permission(streams)
        since = since_of(request, streams, self._groups)
        new = {spelling: name for spelling, name in streams.items() if spelling not in self._groups}
        if len(self._groups) + len(new) > self._context.limits.max_streams:
            raise RequestError(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                f"too many subscriptions: at most {self._context.limits.max_streams} on a connection",
            )
        if not new:
            return
        answers = _Subscription(self, request, quiet)
        try:
            join = self._hub.join(
                self._connection.outbox, self.shape, new, answers, since=since, wants_state=self._with_state
            )
        except TooManyStreams:
            raise RequestError(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS, "too many streams: this server has no room for another one"
            ) from None
        if not join.finished:
            self._join = join
            self._awaits = True
        raise _Answered

    def _joined(
        self, request: Request, quiet: bool, groups: dict[str, Group], recovered: dict[str, bool] | None
    ) -> None:
        self._join = None
        if self._ended:  # by what was sent before the join took effect
            self._hub.leave(self._connection.outbox, groups.values())
            return
        self._groups.update(groups)
        self._log_change("client {client} subscribed to {count} streams: {streams}", list(groups))
        if recovered is not None:
            self._connection.send_text(self._dialect.reply(None, request.id, recovered=recovered))
        else:
            self._reply(None, request.id, quiet)

    def _not_joined(self, request: Request, why: str) -> None:
        self._join = None
        if not self._ended:
            fault = f"too many subscriptions: {why}"
            self._send_error(RequestError(ErrorCode.TOO_MANY_SUBSCRIPTIONS, fault, request.id))

    def _go_on(self) -> None:
        """The request that was waited for is answered: take up those behind it."""
        self._awaits = False
        while self._waiting is not None and not self._awaits:
            request = self._waiting.take()
            if request is None:
                self._waiting = None
            else:
                self._request(*request)

    def _history(self, request: Request, quiet: bool) -> None:
        name, limit = history_of(request, self._context.kinds)
        self._check_permission({str(name): name})
        self._bucket.charge(limit // _PUBLICATIONS_OF_REQUEST)
        self._awaits = True
        entries = self._hub.history(name, limit, self._context.limits.client_queue // 2)
        entries.addCallback(self._answer_history, request)
        raise _Answered

    def _answer_history(self, entries: list[Entry] | None, request: Request) -> None:
        if self._ended:
            return
        if entries is None:
            fault = "too many requests: what is kept is out of reach; try again later"
            self._send_error(RequestError(ErrorCode.TOO_MANY_REQUESTS, fault, request.id))
        else:
            self._reply(as_history(entries, self._context.limits.client_queue // 2), request.id, False)
        self._go_on()

    def _unsubscribe(self, request: Request, quiet: bool) -> None:
        self._leave(self._streams(request))

    def _leave(self, spellings: Iterable[str]) -> None:
        groups = [self._groups[spelling] for spelling in spellings if spelling in self._groups]
        self._hub.unsubscribe(self._connection.outbox, groups)  # its flush may end us, and we leave all groups then
        for group in groups:
            self._groups.pop(group.spelling, None)
        if groups:
            self._log_change(
                "client {client} unsubscribed from {count} streams: {streams}", [group.spelling for group in groups]
            )

    def _log_change(self, text: str, spellings: list[str]) -> None:
        few = ", ".join(spellings[:_FEW_STREAMS]) + (", …" if len(spellings) > _FEW_STREAMS else "")
        _log.info(text, client=self._connection.client_id, count=len(spellings), streams=few)

    def _list_subscriptions(self, request: Request, quiet: bool) -> list[str]:
        return self.subscriptions

    @property
    def shape(self) -> Shape:
        """How this client gets publications."""
        return self._dialect.shape(self._with_offsets)

    def _set_property(self, request: Request, quiet: bool) -> None:
        name, value = value_of(request)
        if name is Property.COMBINED and self._is_house:
            raise RequestError(ErrorCode.PROPERTY_NAME, "the property combined cannot be set on this path")
        if not isinstance(value, bool):
            raise RequestError(ErrorCode.PROPERTY_VALUE, f"the property {name.value} must be true or false")
        if name is Property.SNAPSHOT:
            self._with_state = value
            return
        if name is Property.OFFSETS:
            self._with_offsets = value
        else:
            self._dialect = Dialect.COMBINED if value else Dialect.RAW
        self._groups = self._hub.reshape(self._connection.outbox, self._groups.values(), self.shape)

    def _get_property(self, request: Request, quiet: bool) -> bool:
        name = property_of(request)
        if name is Property.COMBINED:
            return self._dialect.enveloped
        return self._with_offsets if name is Property.OFFSETS else self._with_state

    def _auth(self, request: Request, quiet: bool) -> None:
        try:
            identity = self._context.verify(token_of(request))
        except BadToken as fault:
            raise RequestError(ErrorCode.AUTHENTICATION_FAILED, f"authentication failed: {fault}") from None
        if self._identity.user not in ("", identity.user):
            raise RequestError(ErrorCode.AUTHENTICATION_FAILED, "authentication failed: the token is another user's")
        self._identity = identity
        self._connection.renew(identity)
        self._reply(None, request.id, False)
        self._end_what_is_not_permitted()
        raise _Answered

    def _end_what_is_not_permitted(self) -> None:
        streams = {spelling: self._context.kinds.parse(spelling) for spelling in self._groups}
        lost = [spelling for spelling, stream in streams.items() if not self._identity.permits(stream)]
        if lost:
            self._leave(lost)
            names = ", ".join(lost)
            self._send_error(RequestError(ErrorCode.NOT_PERMITTED, f"not permitted: the token does not cover {names}"))

    def _check_permission(self, streams: dict[str, StreamName]) -> None:
        for spelling, stream in streams.items():
            if not self._identity.permits(stream):
                fault = f"the token does not cover {spelling}" if self._identity.user else f"{spelling} needs a token"
                raise RequestError(ErrorCode.NOT_PERMITTED, f"not permitted: {fault}")

    def _ping(self, request: Request, quiet: bool) -> str:
        return "PONG"

    def _streams(self, request: Request) -> dict[str, StreamName]:
        return streams_of(request, self._context.kinds, self._context.limits.max_streams)


class _Subscription:
    """What a session does about one of its joins."""

    __slots__ = ("_quiet", "_request", "_session")

    def __init__(self, session: Session, request: Request, quiet: bool) -> None:
        self._session = session
        self._request = request
        self._quiet = quiet

    def joined(self, groups: dict[str, Group], recovered: dict[str, bool] | None) -> None:
        self._session._joined(self._request, self._quiet, groups, recovered)

    def refused(self, why: str) -> None:
        self._session._not_joined(self._request, why)

    def settled(self) -> None:
        self._session._go_on()


_METHODS: dict[str, Callable[[Session, Request, bool], Any]] = {
    "AUTH": Session._auth,
    "SUBSCRIBE": Session._subscribe,
    "UNSUBSCRIBE": Session._unsubscribe,
    "LIST_SUBSCRIPTIONS": Session._list_subscriptions,
    "SET_PROPERTY": Session._set_property,
    "GET_PROPERTY": Session._get_property,
    "HISTORY": Session._history,
    "PING": Session._ping,
}
_QUIET = ("SUBSCRIBE", "UNSUBSCRIBE")
