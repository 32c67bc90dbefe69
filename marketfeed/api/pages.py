"""All that the daemon's admin port answers, by path (docs/operations/health.md#the-admin-port)."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import unquote

from twisted.internet.defer import Deferred

from marketfeed.api.health import Health
from marketfeed.api.lists import CLIENT_ORDERS, STREAM_ORDERS, Lists
from marketfeed.api.metrics import Metrics
from marketfeed.api.page import HTML, JSON, Answer, Page, Query, as_json
from marketfeed.api.probes import LOGIN, Probes
from marketfeed.api.status import Status
from marketfeed.model.numbers import whole
from marketfeed.web.files import FILES, read

__all__ = ["Pages"]

_OPEN = frozenset(("/healthz", "/readyz", "/metrics", LOGIN))
_DIGITS = 15
_MOST_ROWS, _ROWS = 1000, 50


class _BadQuery(ValueError):
    """The message names the field, and what would be accepted."""


class Pages(Probes):
    """What there is."""

    def __init__(self, health: Health, metrics: Metrics, status: Status, lists: Lists) -> None:
        super().__init__(health, metrics)
        self._lists = lists
        self._answers |= {
            "/status.json": lambda query: Page(status.json(_number(query, "since", 0, 0)), JSON),
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
            return lambda query: _found(self._lists.client(name), "no client of this name is connected")
        if room == "streams":
            return lambda query: self._lists.stream(name).addCallback(_found, "no stream of this name is followed")
        return None

    def _clients(self, query: Query) -> Page:
        order = _choice(query, "sort", CLIENT_ORDERS)
        return as_json(self._lists.clients(query.get("q", ""), order, _number(query, "limit", _ROWS, 1, _MOST_ROWS)))

    def _streams(self, query: Query) -> Page:
        order = _choice(query, "sort", STREAM_ORDERS)
        return as_json(self._lists.streams(query.get("q", ""), order, _number(query, "limit", _ROWS, 1, _MOST_ROWS)))


def _checked(answer: Answer, query: Query) -> Page | Deferred[Page]:
    try:
        return answer(query)
    except _BadQuery as fault:
        return Page(f"{fault}\n".encode(), status=400)


def _file(name: str, media: str, query: Query) -> Page:
    return Page(read(name), media)


def _found(facts: Any, otherwise: str) -> Page:
    return Page(f"{otherwise}\n".encode(), status=404) if facts is None else as_json(facts)


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
