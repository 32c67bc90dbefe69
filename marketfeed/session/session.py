"""The conversation with one client: a request → replies and changes of subscription. It knows no reactor.

1. Requests are answered in order. While one waits, a SUBSCRIBE for the source or a HISTORY for what is kept, later
   requests wait behind it, and past a few of them the client is not read from.
2. A request takes effect whole or not at all, and is answered once (docs/protocol.md#requests).
3. Everything that a client can do wrong ends in one place, `_answer`, as an error reply.
4. What takes long is done in later turns, and so is what waits behind it (`portions`).
5. A client has what its token permits, from the moment at which the token is known to be good.
6. No line of the log holds what may be a token: the params of AUTH, or anything of a method that is none of ours. Lines
   are bounded, whatever a client sends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from twisted.python.failure import Failure

from marketfeed.boundaries import Entry, TooManyStreams, UnknownOffset
from marketfeed.hub.gaps import tell_open
from marketfeed.hub.groups import Group
from marketfeed.hub.join import Join
from marketfeed.hub.portions import Work
from marketfeed.model.identity import ANONYMOUS, Identity
from marketfeed.model.streams import StreamName
from marketfeed.runtime.logs import Log
from marketfeed.session import requests
from marketfeed.session.context import Connection, SessionContext
from marketfeed.session.limits import MOST_REFUSED, RequestBudget
from marketfeed.session.permission import check_in_portions, check_permission, lost_streams, renewed, streams_lost
from marketfeed.session.properties import DEFAULTS, Properties
from marketfeed.wire.close_codes import INTERNAL_ERROR, TOO_MANY_REQUESTS
from marketfeed.wire.dialects import Dialect
from marketfeed.wire.messages import Request, RequestError, RequestId, parse_request

__all__ = ["METHODS", "OTHER", "Session"]

_log = Log()

_MOST_WAITING = 16
"""Requests that wait, from which on their client is not read from."""
_RESHAPING = 2
"""µs for each stream."""
_LONGEST_LOGGED = 200
_FEW_STREAMS = 5  # of one change, the most that the log names
_NO_SUBSCRIBE: tuple[RequestId, bool] = (msgspec.UNSET, True)
"""In place of the id of the one that is under way, and whether it gets no reply."""
_ANSWERED = object()
"""In place of a result: the reply has been sent, or comes later."""
OTHER = "other"
"""Among the counted requests what names no method of ours, cannot be read, or came too fast."""


class Session:
    """One client's conversation. It is what its joins are answered to (`boundaries.Answers`)."""

    __slots__ = (
        "_awaits", "_budget", "_connection", "_context", "_ended", "_groups", "_hub", "_identity", "_join", "_joining",
        "_properties", "_waiting", "_work",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, dialect: Dialect, context: SessionContext, identity: Identity = ANONYMOUS
    ) -> None:
        self._connection = connection
        self._properties = DEFAULTS[dialect]
        self._context = context
        self._hub = context.hub
        self._identity = identity
        limits = context.limits
        self._budget = RequestBudget(limits.request_rate, limits.request_burst, context.now())
        self._groups: dict[str, Group] = {}
        self._waiting: deque[tuple[bytes, bool]] | None = None  # requests, and whether each came too fast
        self._join: Join | None = None
        self._joining = _NO_SUBSCRIBE
        self._work: Work | None = None
        self._awaits = False  # a request has not been answered yet
        self._ended = False
        connection.outbox.hears_events = self._properties.events

    def begin(self, streams: list[str]) -> None:
        """The connection is open; `streams`, from its path or query, are its first SUBSCRIBE, answered if it fails."""
        if streams:
            self._budget.charge_streams(len(streams))
            self._answer(Request("SUBSCRIBE", streams, msgspec.UNSET), quiet=True)

    def receive(self, payload: bytes) -> None:
        """One text message."""
        is_refused = not self._budget.admits(payload, self._context.now())
        if self._budget.refused >= MOST_REFUSED:
            self._connection.close_with(TOO_MANY_REQUESTS)
        elif not self._awaits:
            self._request(payload, is_refused)
        else:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append((payload, is_refused))
            if len(self._waiting) == _MOST_WAITING:
                self._connection.pause_reading()

    def part(self) -> None:
        """The client is about to be sent away: what waits for its time goes before. It may end this client."""
        self._hub.hasten({group.stream: None for group in self._groups.values() if group.rate})

    def end(self) -> None:
        """The connection is closing or gone."""
        self._ended = True
        if self._waiting is not None and len(self._waiting) >= _MOST_WAITING:
            self._connection.resume_reading()  # or its answer to a close would never be
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
    def hears_events(self) -> bool:
        """Whether it is to get them, besides the farewell of a server."""
        return self._properties.events

    @property
    def user(self) -> str:
        """Who the client is; empty: nobody in particular."""
        return self._identity.user

    @property
    def subscriptions(self) -> list[str]:
        """The streams of this client, as it spelled them, in order."""
        return list(self._groups)

    @property
    def _is_on_paths(self) -> bool:
        """Whether it came by one of the paths for clients made for other exchanges."""
        return self._properties.dialect is not Dialect.HOUSE

    # Requests, and their answers.

    def _request(self, payload: bytes, is_refused: bool) -> None:
        dialect = self._properties.dialect
        if is_refused:
            error = requests.refusal_of(payload, f"{self._context.limits.request_rate:g} a second")
            self._context.requests[OTHER] += 1
            self._context.refusals.count(error)
            self._connection.send_text(dialect.error(error))
            return
        try:
            request = parse_request(payload)
        except RequestError as error:
            self._context.requests[OTHER] += 1
            self._send_error(error)
            return
        self._context.requests[request.method if request.method in METHODS else OTHER] += 1
        if Log.debugging and request.method in METHODS:
            is_shown = request.method != "AUTH" and request.params is not msgspec.UNSET
            params = f" {str(request.params)[:_LONGEST_LOGGED]}" if is_shown else ""
            client = self._connection.client_id
            _log.debug("client {client} asks {method}{params}", client=client, method=request.method, params=params)
        self._answer(request, quiet=dialect is Dialect.HOUSE and request.id is msgspec.UNSET)

    def _answer(self, request: Request, quiet: bool) -> None:
        """Carry out one request. `quiet`: a change of subscription that succeeds gets no reply."""
        method = METHODS.get(request.method)
        try:
            if method is None:
                raise requests.unknown_method(METHODS)
            result = method(self, request, quiet)
        except RequestError as error:
            error.request_id = request.id
            self._send_error(error)
            return
        if result is not _ANSWERED:
            self._reply(result, request.id)

    def _reply(self, result: Any, request_id: RequestId, **further: Any) -> None:
        self._connection.send_text(self._properties.dialect.reply(result, request_id, **further))

    def _send_error(self, error: RequestError) -> None:
        self._context.refusals.of_client(self._connection.client_id, error)
        self._connection.send_text(self._properties.dialect.error(error))

    def _failed(self, failure: Failure) -> None:
        """A fault of ours, in an answer that nobody above hears of: it is the end of this client only."""
        client = self._connection.client_id
        self._context.lines.failure("failed", "client {client}: internal error", failure, client=client)
        self._connection.close_with(INTERNAL_ERROR)

    def _work_on(self, request: Request, work: Work) -> object:
        """Carry out a request that sees to its own reply: what is little at once, and what is much in later turns."""
        late = self._hub.portions.begin(self._guarded(request, work))
        if late is not None:
            self._work = late
            self._awaits = True
        return _ANSWERED

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
                self.settled()

    # Subscriptions.

    def _subscribe(self, request: Request, quiet: bool) -> object:
        kinds, most = self._context.kinds, self._context.limits.max_streams
        streams = requests.streams_of(request, kinds, most, on_paths=self._is_on_paths)
        tried = self._identity.tried
        if tried:
            self._budget.charge_tries(len(streams) * tried)
            return self._work_on(request, self._check_and_join(request, quiet, streams))
        check_permission(self._identity, streams.items())
        self._join_streams(request, quiet, streams)
        return _ANSWERED

    def _check_and_join(self, request: Request, quiet: bool, streams: dict[str, StreamName]) -> Work:
        yield from check_in_portions(self._identity, streams.items())
        self._join_streams(request, quiet, streams)

    def _join_streams(self, request: Request, quiet: bool, streams: dict[str, StreamName]) -> None:
        groups = self._groups
        since = {} if request.since is msgspec.UNSET else requests.since_of(request, streams, groups)
        new = {spelling: name for spelling, name in streams.items() if spelling not in groups} if groups else streams
        rewind = 0 if request.rewind is msgspec.UNSET else requests.rewind_of(request, new, since)
        if len(groups) + len(new) > self._context.limits.max_streams:
            raise requests.too_many_streams(self._context.limits.max_streams)
        if not new:
            if not quiet:
                self._reply(None, request.id)
            return
        outbox, shape, wants_state = self._connection.outbox, self._properties.shape, self._properties.snapshot
        self._joining = request.id, quiet
        try:
            join = self._hub.join(outbox, shape, new, self, since=since, wants_state=wants_state, rewind=rewind)
        except TooManyStreams as fault:
            raise requests.too_many(f"too many streams: {fault}") from None
        self._join = join
        if join.finished:
            self._join_is_over()
        else:
            self._awaits = True

    def joined(
        self, groups: dict[str, Group], recovered: dict[str, bool] | None, rewound: dict[str, int] | None
    ) -> None:
        """The hub: the client is in these groups (spelling → group)."""
        self._join_is_over()
        if self._ended:  # by what was sent before the join took effect
            self._hub.leave(self._connection.outbox, groups.values())
            return
        self._groups.update(groups)
        self._log_change("subscribed to", list(groups))
        request_id, quiet = self._joining
        if recovered is None and rewound is None:
            if not quiet:
                self._reply(None, request_id)
            return
        further = {"recovered": recovered, "rewound": rewound}
        self._reply(None, request_id, **{name: value for name, value in further.items() if value is not None})

    def refused(self, why: str) -> None:
        """The hub: the client is in none of the streams, and is told why."""
        self._join_is_over()
        if not self._ended:
            self._send_error(requests.too_many(f"too many subscriptions: {why}", self._joining[0]))

    def _join_is_over(self) -> None:
        join, self._join = self._join, None
        if join is not None and (join.written or join.rewinds):
            self._budget.charge_written(join.written)
            self._budget.charge_rewound(join.rewind, [rewind.size for rewind in join.rewinds.values()])

    def settled(self) -> None:
        """The request that was waited for is answered: take up those behind it."""
        self._awaits = False
        while self._waiting and not self._awaits:
            if len(self._waiting) == _MOST_WAITING:
                self._connection.resume_reading()
            self._request(*self._waiting.popleft())
        self._waiting = self._waiting or None

    def _unsubscribe(self, request: Request, quiet: bool) -> object:
        self._leave(requests.streams_of(request, self._context.kinds, self._context.limits.max_streams))
        return _ANSWERED if quiet else None

    def _leave(self, spellings: Iterable[str]) -> None:
        groups = [self._groups[spelling] for spelling in spellings if spelling in self._groups]
        self._hub.unsubscribe(self._connection.outbox, groups)  # its flush may end us, and we leave all groups then
        for group in groups:
            self._groups.pop(group.spelling, None)
        if groups:
            self._log_change("unsubscribed from", [group.spelling for group in groups])

    def _log_change(self, verb: str, spellings: list[str]) -> None:
        client, line = self._connection.client_id, "client {client} {verb} {number} streams: {streams}"
        self._context.lines.info_of(verb, line, lambda: _change_facts(client, verb, spellings))

    # What was.

    def _history(self, request: Request, quiet: bool) -> object:
        streams, limit = requests.history_of(request, self._context.kinds, on_paths=self._is_on_paths)
        before = requests.before_of(request)
        check_permission(self._identity, streams.items())
        self._budget.charge_publications(limit)
        ((spelling, name),) = streams.items()
        if name.kind.from_book is not None:
            raise requests.no_history(name)
        try:
            entries = self._hub.history(name, limit, self._context.limits.client_queue // 2, before)
        except UnknownOffset:
            raise requests.unknown_offset(spelling) from None
        self._awaits = not entries.called
        entries.addCallback(self._answer_history, request, limit, name).addErrback(self._failed)
        return _ANSWERED

    def _answer_history(self, entries: list[Entry] | None, request: Request, limit: int, name: StreamName) -> None:
        if self._ended:
            return
        if entries is None:
            self._send_error(requests.refused(request.id, "what is kept is out of reach"))
        elif not entries and name.kind.from_candles and requests.before_of(request) is None:
            self._send_error(requests.kept_elsewhere(name, request.id))
        else:
            self._budget.charge_kept(limit, sum([len(data) for _, data in entries]))
            self._reply(requests.as_history(entries, self._context.limits.client_queue // 2), request.id)
        if self._awaits:
            self.settled()

    # Properties, and tokens.

    def _set_property(self, request: Request, quiet: bool) -> object:
        properties = self._properties.changed(*requests.value_of(request))
        if properties.shape is self._properties.shape:
            begins_to_hear = properties.events and not self._properties.events
            self._properties = properties
            self._connection.outbox.hears_events = properties.events
            if not begins_to_hear:
                return None
            self._reply(None, request.id)
            self._tell_what_lasts()
            return _ANSWERED
        self._budget.charge_streams(len(self._groups))
        return self._work_on(request, self._reshape(request, properties))

    def _tell_what_lasts(self) -> None:
        """Events that the client would have had by now, and that say something yet: gaps, and the end of its token."""
        self._connection.renew(self._identity)
        tell_open(self._connection.outbox, self._groups.values())

    def _reshape(self, request: Request, properties: Properties) -> Work:
        yield _RESHAPING * len(self._groups)
        self._properties = properties
        self._groups = self._hub.reshape(self._connection.outbox, self._groups.values(), properties.shape)
        self._reply(None, request.id)

    def _auth(self, request: Request, quiet: bool) -> object:
        self._budget.charge_verification()
        identity = renewed(self._identity, requests.token_of(request), self._context.verify)
        self._identity = identity
        self._connection.renew(identity)
        self._budget.charge_streams(len(self._groups))
        self._budget.charge_tries(len(self._groups) * identity.tried)
        return self._work_on(request, self._keep_permitted(request, identity))

    def _keep_permitted(self, request: Request, identity: Identity) -> Work:
        streams = [(spelling, group.name) for spelling, group in self._groups.items()]
        lost = yield from lost_streams(identity, streams, self._context.kinds)
        self._reply(None, request.id)
        if lost:
            self._leave(lost)
            self._send_error(streams_lost(lost))


def _change_facts(client: str, verb: str, spellings: list[str]) -> dict[str, Any]:
    """What the log says of a change of subscription."""
    few = ", ".join(spellings[:_FEW_STREAMS]) + (", …" if len(spellings) > _FEW_STREAMS else "")
    return {"client": client, "verb": verb, "number": len(spellings), "streams": few}


METHODS: dict[str, Callable[[Session, Request, bool], Any]] = {
    "AUTH": Session._auth,
    "SUBSCRIBE": Session._subscribe,
    "UNSUBSCRIBE": Session._unsubscribe,
    "LIST_SUBSCRIPTIONS": lambda session, request, quiet: session.subscriptions,
    "SET_PROPERTY": Session._set_property,
    "GET_PROPERTY": lambda session, request, quiet: session._properties.get(requests.property_of(request)),
    "HISTORY": Session._history,
    "PING": lambda session, request, quiet: "PONG",
}
