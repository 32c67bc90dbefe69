"""All that the admin port answers, by path (docs/operations/health.md#the-admin-port)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

from twisted.internet.defer import Deferred

from marketfeed.api.health import Health
from marketfeed.api.lists import CLIENT_ORDERS, STREAM_ORDERS, Lists
from marketfeed.api.metrics import CONTENT_TYPE, Metrics
from marketfeed.api.page import HTML, Page, as_json
from marketfeed.api.status import Status
from marketfeed.model.numbers import whole
from marketfeed.web.files import FILES, read

__all__ = ["LOGIN", "Pages"]

LOGIN = "/login"
Query = Mapping[str, str]
Answer = Callable[[Query], Page | Deferred[Page]]

_OPEN = frozenset(("/healthz", "/readyz", "/metrics", LOGIN))
_DIGITS = 15
_MOST_ROWS, _ROWS = 1000, 50


class _BadQuery(ValueError):
    """The message names the field, and what would be accepted."""


class Pages:
    """What there is. `login`: the form for the token, as it is answered to who has shown none; `login_again`: a wrong
    one.
    """

    def __init__(self, health: Health, metrics: Metrics, status: Status, lists: Lists) -> None:
        self._lists = lists
        self._answers: dict[str, Answer] = {
            "/healthz": lambda query: Page(b"ok\n"),
            "/readyz": lambda query: _readiness(health.reasons),
            "/metrics": lambda query: Page(metrics.text(), CONTENT_TYPE),
            "/status.json": lambda query: Page(status.json(_number(query, "since", 0, 0)), "application/json"),
            "/clients.json": self._clients,
            "/streams.json": self._streams,
            LOGIN: lambda query: self.login,
        }
        for path, (name, media) in FILES.items():
            self._answers[path] = partial(_file, name, media)
        self.login = Page(read("login.html"), HTML, 401)
        self.login_again = Page(read("login.html").replace(b"hidden", b""), HTML, 401)

    @staticmethod
    def is_open(path: str) -> bool:
        """Whether anybody may ask for it who reaches the port: it says nothing of any client."""
        return path in _OPEN or (path in FILES and path != "/")

    @staticmethod
    def is_for_people(path: str) -> bool:
        """Whether a form is better there than a line of text."""
        return path == "/"

    def find(self, path: str) -> Answer | None:
        """What answers this path; None: nothing does."""
        answer = self._answers.get(path) or self._detail(path)
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


def _readiness(reasons: list[str]) -> Page:
    return as_json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


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
