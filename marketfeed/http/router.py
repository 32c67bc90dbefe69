"""What a request asks for: by its path a WebSocket, or a plain answer (docs/protocol.md#paths-and-dialects).

1. A plain answer is a function, in a table by path: of `api/routes.py`. It is asked for GET and HEAD alike. One whose
   path ends with a slash answers for all paths below it that have none of their own.
2. OPTIONS is answered here with the methods that there are, unless the answer comes later, and says more.
3. Whoever opens `/` in a browser may get a page; everybody else is answered as if there were none.
4. A path of a WebSocket that names a bad stream is refused, whether an upgrade was asked for or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

import msgspec
from twisted.internet.defer import Deferred

from marketfeed.http.head import Head, header_words
from marketfeed.http.response import Response
from marketfeed.model.streams import BadStreamName, StreamKinds
from marketfeed.wire.dialects import Dialect

__all__ = ["ALLOW", "LateResponse", "PlainAnswer", "Router", "Upgrade"]

_METHODS = ("GET", "HEAD", "OPTIONS")
ALLOW = ("Allow", ", ".join(_METHODS))
"""The header that says which methods there are, for every path."""


class Upgrade(msgspec.Struct, frozen=True):
    """The request may go on to become a WebSocket: how it will speak, and the streams that it named already."""

    dialect: Dialect
    streams: list[str]


class LateResponse(msgspec.Struct, frozen=True):
    """A plain answer that has to be found out first, and behind which the connection may go on.

    `found` never fails; cancel it when nobody waits for it any more. `too_late`: what to send when it takes too long.
    `name`: of what was asked for, one of few.
    """

    found: Deferred[Response]
    too_late: Response
    name: str


PlainAnswer = Callable[[Head, str | None], Response | LateResponse]
"""Answers a request from a client at an address; None: a Unix socket."""


class Router:
    """Routes the requests of this process. `plain`: what is answered without a WebSocket, by path; `front`: answers
    who asks for `/` with a page, or with None where the request is for something else.
    """

    def __init__(
        self,
        kinds: StreamKinds,
        plain: Mapping[str, PlainAnswer],
        front: Callable[[Head], Response | None] | None = None,
    ) -> None:
        self._kinds = kinds
        self._plain = plain
        self._below = tuple([path for path in plain if path.endswith("/")])
        self._front = front

    def ask(self, head: Head, address: str | None) -> Upgrade | Response | LateResponse:
        """What becomes of a request from a client at `address`; None: a Unix socket."""
        if head.method not in _METHODS:
            return Response(405, "expected GET", (ALLOW,))
        if self._front is not None and head.path == "/":
            page = self._front(head)
            if page is not None:
                return page
        plain = self._plain.get(head.path) or self._plain.get(self._above(head.path))
        asked = self._upgrade(head) if plain is None else plain(head, address)
        if asked is None:
            return Response(404, "there is nothing here; WebSocket clients connect to /, /stream or /ws")
        if isinstance(asked, LateResponse):
            return asked
        if head.method == "OPTIONS":
            return Response(204, "", (ALLOW,))
        if isinstance(asked, Upgrade) and (
            head.method == "HEAD" or "websocket" not in header_words(head.headers.get("upgrade", ""))
        ):
            return Response(426, "this is a WebSocket endpoint", (("Upgrade", "websocket"),))
        return asked

    def _above(self, path: str) -> str:
        if not path.startswith(self._below):
            return ""
        return next(above for above in self._below if path.startswith(above))

    def _upgrade(self, head: Head) -> Upgrade | Response | None:
        path = head.path
        if path == "/":
            return Upgrade(Dialect.HOUSE, [])
        if path in ("/stream", "/stream/"):
            named = [name for text in parse_qs(head.query).get("streams", []) for name in text.split("/")]
            return self._checked(Dialect.COMBINED, [name for name in named if name])
        if path == "/ws" or path.startswith("/ws/"):
            return self._checked(Dialect.RAW, [name for name in path[4:].split("/") if "@" in name])
        return None

    def _checked(self, dialect: Dialect, streams: list[str]) -> Upgrade | Response:
        for stream in streams:
            try:
                self._kinds.parse(stream)
            except BadStreamName as error:
                return Response(400, str(error), logged="a bad stream name")  # which may have a misplaced token in it
        return Upgrade(dialect, streams)
