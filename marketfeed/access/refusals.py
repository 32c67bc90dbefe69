"""What the log says of those who are refused: requests that are answered with an error, and wishes of clients.

1. What an operator may have to do something about is seen: who may not come in, for whom there is no room, what a token
   does not permit. Of each status and each code a few lines a second and a count, however many ask.
2. What only the author of a client can put right is in the answer, and in the log for debugging.
3. No byte of a request that may be a token is logged, and no line is longer than it need be.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

import msgspec
from twisted.application.service import Service

from marketfeed.boundaries import Clock
from marketfeed.http.response import Response
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log
from marketfeed.wire.messages import ErrorCode, RequestError

__all__ = ["Refusals", "Refused"]

_SEEN_STATUSES = frozenset((401, 403, 404, 429, 503))
_SEEN_CODES = frozenset((ErrorCode.NOT_PERMITTED, ErrorCode.AUTHENTICATION_FAILED))
_RECENT = 100
_LEAST = 400  # of the statuses that refuse
_USUAL = (
    *[(401, reason) for reason in ("no-token", "bad-token")],
    (403, "origin"),
    *[(429, reason) for reason in ("rate", "address-full")],
    *[(503, reason) for reason in ("full", "memory", "draining")],
)
"""Why clients are refused who are none to blame; other statuses and reasons are added as they come."""
_AT_ONCE = 10
_LONGEST = 200


class Refused(msgspec.Struct, frozen=True):
    """A request that was answered with an error of HTTP. `at`: ms since 1970."""

    at: int
    peer: str
    status: int
    reason: str
    text: str


class Refusals(Service):
    """Logs the refusals of one process, until it is stopped, and counts them.

    `requests`: those that were answered in plain HTTP, by status and reason; `errors`: those of clients, by code;
    `recent`: the last of the requests, oldest first. `now`: s since 1970.
    """

    log = Log()

    def __init__(self, clock: Clock, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lines = BoundedLog(clock, self.log, _AT_ONCE)
        self.requests: Counter[tuple[int, str]] = Counter(dict.fromkeys(_USUAL, 0))
        self.errors: Counter[int] = Counter()
        self.recent: deque[Refused] = deque(maxlen=_RECENT)

    def of_request(self, peer: str, refusal: Response) -> None:
        """A request is answered with plain HTTP. `peer`: where it came from, as the log shows it."""
        text = refusal.logged or refusal.text
        if refusal.status >= _LEAST:
            self.requests[refusal.status, refusal.why] += 1
            self.recent.append(Refused(int(self._now() * 1000), peer, refusal.status, refusal.why, text))
        facts = {"peer": peer, "status": refusal.status, "text": text}
        if refusal.status in _SEEN_STATUSES:
            self._lines.info(refusal.status, "refused {peer}: {status} {text}", **facts)
        else:
            self.log.debug("refused {peer}: {status} {text}", **facts)

    def of_client(self, client_id: str, error: RequestError) -> None:
        """A client's request is answered with an error."""
        self.count(error)
        facts = {"client": client_id, "code": int(error.code), "fault": error.message[:_LONGEST]}
        if error.code in _SEEN_CODES:
            self._lines.info(error.code, "client {client} is refused: {fault}", **facts)
        else:
            self.log.debug("client {client} is refused: {fault}", **facts)

    def count(self, error: RequestError) -> None:
        """The same, where it is worth no line: the client asks too often."""
        self.errors[error.code] += 1

    def stopService(self) -> None:
        Service.stopService(self)
        self._lines.close()
