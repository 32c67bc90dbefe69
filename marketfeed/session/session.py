"""The conversation with one client: a request → replies and changes of subscription. It knows no reactor.

1. Requests are answered in order. While one waits, a SUBSCRIBE for the source or a HISTORY for what is kept, later
   requests wait behind it, and past a few of them the client is not read from.
2. A request takes effect whole or not at all, and is answered once (docs/protocol.md).
3. Everything that a client can do wrong ends in one place, `_answer`, as an error reply.
4. What takes long is done in later turns, and so is what waits behind it (`portions`).
5. A client has what its token permits, from the moment at which the token is known to be good. No token is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from twisted.python.failure import Failure

from marketfeed.boundaries import Entry
from marketfeed.hub.hub import Group, Join, TooManyStreams
from marketfeed.hub.portions import Work
from marketfeed.model.identity import ANONYMOUS, Identity
from marketfeed.model.streams import StreamName
from marketfeed.session.allowance import Allowance
from marketfeed.session.context import Connection, SessionContext
from marketfeed.session.permission import check_permission, lost_streams, renewed, streams_lost
from marketfeed.session.properties import Properties, default_properties
from marketfeed.session.requests import (
    as_history,
    history_of,
    property_of,
    refusal_of,
    refused,
    since_of,
    streams_of,
    token_of,
    too_many_streams,
    value_of,
)
from marketfeed.session.session_log import log_change, log_failure, log_request
from marketfeed.session.turns import Turns
from marketfeed.wire.dialects import Dialect
from marketfeed.wire.messages import (
    INTERNAL_ERROR,
    TOO_MANY_REQUESTS,
    ErrorCode,
    Request,
    RequestError,
    RequestId,
    parse_request,
)

__all__ = ["Session"]

_RESHAPING = 2
"""µs for each stream."""


class _Answered(Exception):
    """The reply has been sent, or comes later."""


class Session:
    """One client's conversation."""

    __slots__ = (
        "_allowance",
        "_awaits",
        "_connection",
        "_context",
        "_ended",
        "_groups",
        "_hub",
        "_identity",
        "_join",
        "_properties",
        "_waiting",
        "_work",
    )

    def __init__(
        self, connection: Connection, dialect: Dialect, context: SessionContext, identity: Identity = ANONYMOUS
    ) -> None:
        self._connection = connection
        self._properties = default_properties(dialect)
        self._context = context
        self._hub = context.hub
        self._identity = identity
        limits = context.limits
        self._allowance = Allowance(limits.request_rate, limits.request_burst, context.now())
        self._groups: dict[str, Group] = {}
        self._waiting: Turns | None = None
        self._join: Join | None = None
        self._work: Work | None = None
        self._awaits = False  # a request has not been answered yet
        self._ended = False

    def begin(self, streams: list[str]) -> None:
        """The connection is open; `streams`, from its path or query, are its first SUBSCRIBE, answered if it fails."""
        if streams:
            self._allowance.charge_streams(len(streams))
            self._answer(Request("SUBSCRIBE", streams, msgspec.UNSET), quiet=True)

    def receive(self, payload: bytes) -> None:
        """One text message."""
        is_refused = not self._allowance.admits(payload, self._context.now())
        if self._allowance.is_abused:
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
        if self._work is not None:
            self._hub.portions.cancel(self._work)
            self._work = None
        groups, self._groups = self._groups, {}
        self._hub.leave(self._connection.outbox, groups.values())

    def event(self, event: msgspec.Struct) -> bytes:
        """A control event, as this client's dialect spells it."""
        return self._properties.dialect.event(event)

    @property
    def user(self) -> str:
        """Who the client is; empty: nobody in particular."""
        return self._identity.user

    @property
    def subscriptions(self) -> list[str]:
        """The streams of this client, as it spelled them, in order."""
        return list(self._groups)

    def _refuse(self, payload: bytes) -> None:
        error = refusal_of(payload, f"{self._context.limits.request_rate:g} a second")
        self._connection.send_text(self._properties.dialect.error(error))

    def _request(self, payload: bytes, is_refused: bool) -> None:
        if is_refused:
            self._refuse(payload)
            return
        try:
            request = parse_request(payload)
        except RequestError as error:
            self._send_error(error)
            return
        log_request(self._connection.client_id, request, request.method in _METHODS)
        self._answer(request, quiet=self._properties.dialect is Dialect.HOUSE and request.id is msgspec.UNSET)

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
        self._context.refusals.of_client(self._connection.client_id, error)
        self._connection.send_text(self._properties.dialect.error(error))

    def _reply(self, result: Any, request_id: RequestId, quiet: bool) -> None:
        if not quiet:
            self._connection.send_text(self._properties.dialect.reply(result, request_id))

    def _work_on(self, request: Request, work: Work) -> None:
        """Carry out a request that sees to its own reply: what is little at once, and what is much in later turns."""
        late = self._hub.portions.begin(self._guarded(request, work))
        if late is not None:
            self._work = late
            self._awaits = True

    def _guarded(self, request: Request, work: Work) -> Work:
        try:
            yield from work
        except RequestError as error:
            error.request_id = request.id
            self._send_error(error)
        except Exception:
            self._failed(Failure())
        if self._work is not None:  # it is late, and has not ended this client
            self._work = None
            if self._join is None:
                self._go_on()

    # The methods of the protocol.

    def _subscribe(self, request: Request, quiet: bool) -> None:
        streams = self._streams(request)
        self._allowance.charge_tries(len(streams) * self._identity.tried)
        self._work_on(request, self._join_streams(request, quiet, streams))
        raise _Answered

    def _join_streams(self, request: Request, quiet: bool, streams: dict[str, StreamName]) -> Work:
        yield from check_permission(self._identity, streams)
        since = since_of(request, streams, self._groups)
        new = {spelling: name for spelling, name in streams.items() if spelling not in self._groups}
        if len(self._groups) + len(new) > self._context.limits.max_streams:
            raise too_many_streams(self._context.limits.max_streams)
        if not new:
            self._reply(None, request.id, quiet)
            return
        answers = _Subscription(self, request, quiet)
        try:
            join = self._hub.join(
                self._connection.outbox,
                self._properties.shape,
                new,
                answers,
                since=since,
                wants_state=self._properties.snapshot,
            )
        except TooManyStreams as fault:
            raise RequestError(ErrorCode.TOO_MANY_SUBSCRIPTIONS, f"too many streams: {fault}") from None
        if join.finished:
            self._allowance.charge_written(join.written)
        else:
            self._join = join
            self._awaits = True

    def _joined(
        self, request: Request, quiet: bool, groups: dict[str, Group], recovered: dict[str, bool] | None
    ) -> None:
        self._join_is_over()
        if self._ended:  # by what was sent before the join took effect
            self._hub.leave(self._connection.outbox, groups.values())
            return
        self._groups.update(groups)
        log_change(self._connection.client_id, "subscribed to", list(groups))
        if recovered is not None:
            self._connection.send_text(self._properties.dialect.reply(None, request.id, recovered=recovered))
        else:
            self._reply(None, request.id, quiet)

    def _join_is_over(self) -> None:
        join, self._join = self._join, None
        if join is not None:
            self._allowance.charge_written(join.written)

    def _not_joined(self, request: Request, why: str) -> None:
        self._join_is_over()
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
        streams, limit = history_of(request, self._context.kinds)
        for _ in check_permission(self._identity, streams):
            pass  # it is one stream
        self._allowance.charge_publications(limit)
        (name,) = streams.values()
        entries = self._hub.history(name, limit, self._context.limits.client_queue // 2)
        self._awaits = not entries.called
        entries.addCallback(self._answer_history, request, limit, self._awaits).addErrback(self._failed)
        raise _Answered

    def _answer_history(self, entries: list[Entry] | None, request: Request, limit: int, is_late: bool) -> None:
        if self._ended:
            return
        if entries is None:
            self._send_error(refused(request.id, "what is kept is out of reach"))
        else:
            self._allowance.charge_kept(limit, sum([len(data) for _, data in entries]))
            self._reply(as_history(entries, self._context.limits.client_queue // 2), request.id, False)
        if is_late:
            self._go_on()

    def _failed(self, failure: Failure) -> None:
        """A fault of ours, in an answer that nobody above hears of: it is the end of this client only."""
        log_failure(self._connection.client_id, failure)
        self._connection.close_with(INTERNAL_ERROR)

    def _unsubscribe(self, request: Request, quiet: bool) -> None:
        self._leave(self._streams(request))

    def _leave(self, spellings: Iterable[str]) -> None:
        groups = [self._groups[spelling] for spelling in spellings if spelling in self._groups]
        self._hub.unsubscribe(self._connection.outbox, groups)  # its flush may end us, and we leave all groups then
        for group in groups:
            self._groups.pop(group.spelling, None)
        if groups:
            log_change(self._connection.client_id, "unsubscribed from", [group.spelling for group in groups])

    def _list_subscriptions(self, request: Request, quiet: bool) -> list[str]:
        return self.subscriptions

    def _set_property(self, request: Request, quiet: bool) -> None:
        properties = self._properties.changed(*value_of(request))
        if properties.shape is self._properties.shape:
            self._properties = properties
            return
        self._allowance.charge_streams(len(self._groups))
        self._work_on(request, self._reshape(request, properties))
        raise _Answered

    def _reshape(self, request: Request, properties: Properties) -> Work:
        yield _RESHAPING * len(self._groups)
        self._properties = properties
        self._groups = self._hub.reshape(self._connection.outbox, self._groups.values(), properties.shape)
        self._reply(None, request.id, False)

    def _get_property(self, request: Request, quiet: bool) -> bool:
        return self._properties.get(property_of(request))

    def _auth(self, request: Request, quiet: bool) -> None:
        self._allowance.charge_verification()
        identity = renewed(self._identity, token_of(request), self._context)
        self._identity = identity
        self._connection.renew(identity)
        self._allowance.charge_streams(len(self._groups))
        self._allowance.charge_tries(len(self._groups) * identity.tried)
        self._work_on(request, self._keep_permitted(request, identity))
        raise _Answered

    def _keep_permitted(self, request: Request, identity: Identity) -> Work:
        lost = yield from lost_streams(identity, self.subscriptions, self._context.kinds)
        self._reply(None, request.id, False)
        if lost:
            self._leave(lost)
            self._send_error(streams_lost(lost))

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
