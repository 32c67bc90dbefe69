"""All that the daemon's admin port answers, by path (docs/operations/health.md#the-admin-port).

What is asked may be this process, which knows, or one that has to ask others first: then answers come later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec
from twisted.internet.defer import Deferred

from marketfeed.api.lists import CLIENT_ORDERS, STREAM_ORDERS
from marketfeed.api.page import HTML, JSON, Answer, Page, Query, as_json, later
from marketfeed.api.probes import CANDLES, LOGIN, Numbers, Probes, Readiness
from marketfeed.model.numbers import whole
from marketfeed.web.files import FILES, read

__all__ = ["LEFT_OUT", "Listed", "Pages", "Partial", "StatusMaker"]

_OPEN = frozenset(("/healthz", "/readyz", "/metrics", CANDLES, LOGIN))
_DIGITS = 15
_MOST_ROWS, _ROWS = 1000, 50


LEFT_OUT = "Marketfeed-Left-Out"
"""The header of a list that names the workers who are not in it, for they did not answer in time."""

_Facts = dict[str, Any]


class Partial(msgspec.Struct, frozen=True):
    """Rows of several workers. `left_out`: the numbers of those who have not answered."""

    rows: list[Any]
    left_out: list[int]


class Listed(Protocol):
    """Who knows clients and streams. The arguments are those of `lists.Lists`."""

    def clients(self, text: str, order: str, limit: int) -> Sequence[Any] | Deferred[Partial]: ...
    def streams(self, text: str, order: str, limit: int) -> Sequence[Any] | Deferred[Partial]: ...
    def client(self, name: str) -> _Facts | Deferred[_Facts | None] | None: ...
    def stream(self, name: str) -> Deferred[_Facts | None]: ...


class StatusMaker(Protocol):
    """Who knows how everything is."""

    def json(self, since: int = 0) -> bytes | Deferred[bytes]: ...


class _BadQuery(ValueError):
    """The message names the field, and what would be accepted."""


class Pages(Probes):
    """What there is."""

    def __init__(
        self,
        health: Readiness,
        metrics: Numbers,
        status: StatusMaker,
        lists: Listed,
        candles: Readiness | None = None,
    ) -> None:
        super().__init__(health, metrics, candles)
        self._lists = lists
        self._answers |= {
            "/status.json": lambda query: later(
                status.json(_number(query, "since", 0, 0)), lambda body: Page(body, JSON)
            ),
            "/clients.json": self._clients,
            "/streams.json": self._streams,
            LOGIN: lambda query: self.login,
        }
        for path, (name, media) in FILES.items():
            self._answers[path] = partial(_file, name, media)
        self.login = Page(read("login.html"), HTML, 401)
        self.login_again = Page(read("login.html").replace(b"hidden", b""), HTML, 401)

    def is_open(self, path: str) -> bool:
        return path in _OPEN or (path in FILES and path != "/")

    def is_for_people(self, path: str) -> bool:
        return path == "/"

    def find(self, path: str) -> Answer | None:
        answer = super().find(path) or self._detail(path)
        return None if answer is None else partial(_checked, answer)

    def _detail(self, path: str) -> Answer | None:
        room, _, rest = path.removeprefix("/").partition("/")
        name = unquote(rest.removesuffix(".json"))
        if not name or not rest.endswith(".json"):
            return None
        if room == "clients":
            return lambda query: later(self._lists.client(name), _found("no client of this name is connected"))
        if room == "streams":
            return lambda query: later(self._lists.stream(name), _found("no stream of this name is followed"))
        return None

    def _clients(self, query: Query) -> Page | Deferred[Page]:
        order = _choice(query, "sort", CLIENT_ORDERS)
        limit = _number(query, "limit", _ROWS, 1, _MOST_ROWS)
        return later(self._lists.clients(query.get("q", ""), order, limit), _listed)

    def _streams(self, query: Query) -> Page | Deferred[Page]:
        order = _choice(query, "sort", STREAM_ORDERS)
        limit = _number(query, "limit", _ROWS, 1, _MOST_ROWS)
        return later(self._lists.streams(query.get("q", ""), order, limit), _listed)


def _checked(answer: Answer, query: Query) -> Page | Deferred[Page]:
    try:
        return answer(query)
    except _BadQuery as fault:
        return Page(f"{fault}\n".encode(), status=400)


def _file(name: str, media: str, query: Query) -> Page:
    return Page(read(name), media)


def _found(otherwise: str) -> Callable[[_Facts | None], Page]:
    return lambda facts: Page(f"{otherwise}\n".encode(), status=404) if facts is None else as_json(facts)


def _listed(rows: Sequence[Any] | Partial) -> Page:
    if not isinstance(rows, Partial):
        return as_json(rows)
    page = as_json(rows.rows)
    if not rows.left_out:
        return page
    return msgspec.structs.replace(page, headers=((LEFT_OUT, ", ".join(map(str, rows.left_out))),))


def _number(query: Query, field: str, otherwise: int, least: int, most: int | None = None) -> int:
    if field not in query:
        return otherwise
    number = whole(query[field], _DIGITS)
    if number is None or number < least or (most is not None and number > most):
        bound = f"{least} or more" if most is None else f"{least} to {most}"
        raise _BadQuery(f"{field}: expected a whole number, {bound}")
    return number


def _choice(query: Query, field: str, choices: tuple[str, ...]) -> str:
    choice = query.get(field, choices[0])
    if choice not in choices:
        raise _BadQuery(f"{field}: expected one of {', '.join(choices)}")
    return choice
