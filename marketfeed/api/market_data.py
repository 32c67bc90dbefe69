"""Market data in plain HTTP, as Binance's clients ask for it (docs/market-data.md#rest).

1. Who asks passes the doors of the admission; before that nothing is looked for.
2. Every answer is JSON, and a refusal `{"code": …, "msg": …}`, which names the parameter and what is accepted. No byte
   of the query is repeated.
3. A page whose origin is allowed can read every answer, refusals too; one of another origin is refused, and reads none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from marketfeed.access.admission import Admission
from marketfeed.access.origins import is_origin
from marketfeed.api.query import ILLEGAL, BadQuery, Query
from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.http.router import ALLOW, LateResponse
from marketfeed.model.identity import ANONYMOUS, Identity
from marketfeed.runtime.logs import Log

__all__ = ["Find", "MarketData", "as_json", "kept_for"]

_log = Log()

_CODES = {400: ILLEGAL, 401: -1002, 403: -1002, 404: -1020, 429: -1003, 500: -1000, 503: -1008}
"""Binance's code for each status; clients know them as "unknown", "unauthorised", "not supported", "too many requests"
and "busy".
"""
_Headers = tuple[tuple[str, str], ...]
_PREFLIGHT = (
    ("Access-Control-Allow-Methods", ALLOW[1]),
    (
        "Access-Control-Allow-Headers",  # some of them as Binance's clients send them
        "Authorization, Content-Type, X-MBX-APIKEY, X-MBX-TIME-UNIT",
    ),
    ("Access-Control-Max-Age", "600"),
)

Find = Callable[[Identity, Query], Awaitable[Response]]
"""Finds the answer for a client who has been let in, and its request. May raise `BadQuery`."""


def as_json(refusal: Response, code: int | None = None) -> Response:
    """A refusal in Binance's shape; `code`: another than the one of its status."""
    body = {"code": _CODES[refusal.status] if code is None else code, "msg": refusal.text}
    return msgspec.structs.replace(refusal, json=msgspec.json.encode(body))


def kept_for(identity: Identity, seconds: int) -> str:
    """The `Cache-Control` of an answer that is good for a while; what was found by a token is its bearer's alone."""
    return f"{'public' if identity is ANONYMOUS else 'private'}, max-age={seconds}"


_FAULT = as_json(Response(500, "internal error"))
_TOO_LATE = as_json(Response(503, "this has taken too long", (("Retry-After", "1"),)))


class MarketData:
    """A `PlainAnswer` that `find` finds. `name`: what it is counted as; `too_late`: what is sent when it takes too
    long.
    """

    def __init__(self, admission: Admission, name: str, find: Find, too_late: Response | None = None) -> None:
        self._admission = admission
        self._name = name
        self._find = find
        self._too_late = too_late or _TOO_LATE

    def __call__(self, head: Head, address: str | None) -> LateResponse:
        for_page = self._for_page(head, address)
        found = Deferred.fromCoroutine(self._answer(head, address, for_page))
        found.addErrback(_without_answer, _with(_FAULT, for_page))
        return LateResponse(found, _with(self._too_late, for_page), self._name)

    async def _answer(self, head: Head, address: str | None, for_page: _Headers) -> Response:
        if head.method == "OPTIONS":
            return Response(204, "", (ALLOW, *for_page, *(_PREFLIGHT if for_page else ())))
        identity = self._admission.identify(address, head)
        if isinstance(identity, Response):
            return _with(as_json(identity), for_page)
        try:
            return _with(await self._find(identity, Query(head.query, head.headers)), for_page)
        except BadQuery as bad:
            return _with(as_json(Response(400, bad.text), bad.code), for_page)

    def _for_page(self, head: Head, address: str | None) -> _Headers:
        """The headers with which a browser gives the answer to the page that asked (WHATWG Fetch, CORS protocol)."""
        origin = head.headers.get("origin", "")
        if not is_origin(origin) or not self._admission.permits_origin(address, head):
            return ()
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", "Retry-After"),
            ("Vary", "Origin"),
        )


def _with(answer: Response, for_page: _Headers) -> Response:
    headers = for_page or (("Vary", "Origin"),) * (answer.cache != "no-store")
    return msgspec.structs.replace(answer, headers=(*answer.headers, *headers)) if headers else answer


def _without_answer(failure: Failure, fault: Response) -> Response:
    """In place of an answer that nobody waits for any more, or that a fault of ours has prevented."""
    if failure.check(CancelledError) is None:
        _log.failure("a request failed: internal error", failure)
    return fault
