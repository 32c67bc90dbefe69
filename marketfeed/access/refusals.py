"""What the log says of those who are refused: requests that are answered with an error, and wishes of clients.

1. What an operator may have to do something about is seen: who may not come in, for whom there is no room, what a token
   does not permit. Of each status and each code a few lines a second and a count, however many ask.
2. What only the author of a client can put right is in the answer, and in the log for debugging.
3. No byte of a request that may be a token is logged, and no line is longer than it need be.
"""

from __future__ import annotations

from twisted.application.service import Service

from marketfeed.boundaries import Clock
from marketfeed.http.response import Response
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log
from marketfeed.wire.messages import ErrorCode, RequestError

__all__ = ["Refusals"]

_SEEN_STATUSES = frozenset((401, 403, 404, 429, 503))
_SEEN_CODES = frozenset((ErrorCode.NOT_PERMITTED, ErrorCode.AUTHENTICATION_FAILED))
_AT_ONCE = 10
_LONGEST = 200


class Refusals(Service):
    """Logs the refusals of one process, until it is stopped."""

    log = Log()

    def __init__(self, clock: Clock) -> None:
        self._lines = BoundedLog(clock, self.log, _AT_ONCE)

    def of_request(self, peer: str, refusal: Response) -> None:
        """A request is answered with plain HTTP. `peer`: where it came from, as the log shows it."""
        facts = {"peer": peer, "status": refusal.status, "text": refusal.logged or refusal.text}
        if refusal.status in _SEEN_STATUSES:
            self._lines.info(refusal.status, "refused {peer}: {status} {text}", **facts)
        else:
            self.log.debug("refused {peer}: {status} {text}", **facts)

    def of_client(self, client_id: str, error: RequestError) -> None:
        """A client's request is answered with an error."""
        facts = {"client": client_id, "code": int(error.code), "fault": error.message[:_LONGEST]}
        if error.code in _SEEN_CODES:
            self._lines.info(error.code, "client {client} is refused: {fault}", **facts)
        else:
            self.log.debug("client {client} is refused: {fault}", **facts)

    def stopService(self) -> None:
        Service.stopService(self)
        self._lines.close()
