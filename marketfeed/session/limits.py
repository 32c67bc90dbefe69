"""How much one client may ask (docs/protocol.md#what-a-request-costs).

1. A request costs one, and one more for so many streams, publications, patterns or bytes that it takes: that is what
   they cost us.
2. What a request names is counted before it is read, for it may have to wait. No list has fewer commas than names,
   however it is written. What it turns out to cost besides is owed.
3. A refused request costs nothing; so many of them in a row are abuse.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from marketfeed.model.rate import TokenBucket

__all__ = ["MOST_REFUSED", "RequestBudget", "SessionLimits"]

MOST_REFUSED = 20
"""Requests in a row that are refused before their client is ended."""
_STREAMS_OF_REQUEST = 20
_PUBLICATIONS_OF_REQUEST = 100
_TEXT_OF_REQUEST = 2048
_TRIES_OF_REQUEST = 1000
_BYTES_OF_REQUEST = 16384
_VERIFICATION = 4


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is told by the operator; see the options of the same names."""

    max_streams: int
    request_rate: float
    request_burst: int
    client_queue: int


class RequestBudget(TokenBucket):
    """The requests of one client: `rate` a second, `burst` at once. `now` is in seconds, from any beginning."""

    __slots__ = ("refused",)

    def __init__(self, rate: float, burst: int, now: float) -> None:
        super().__init__(rate, burst, now)
        self.refused = 0
        """Requests in a row."""

    def admits(self, payload: bytes, now: float) -> bool:
        """Whether this request is not one too many."""
        if not self.take(now):
            self.refused += 1
            return False
        self.refused = 0
        more = max(payload.count(b",") // _STREAMS_OF_REQUEST, len(payload) // _TEXT_OF_REQUEST)
        if more:
            self.charge(more)
        return True

    def charge_streams(self, count: int) -> None:
        """Streams that a request does not name: those of the path, or all that the client has."""
        self.charge(count // _STREAMS_OF_REQUEST)

    def charge_publications(self, count: int) -> None:
        """Publications that a HISTORY asks for."""
        self.charge(count // _PUBLICATIONS_OF_REQUEST)

    def charge_kept(self, limit: int, size: int) -> None:
        """Bytes that a HISTORY of `limit` publications found: what they cost more than these."""
        self.charge(max(0, size // _BYTES_OF_REQUEST - limit // _PUBLICATIONS_OF_REQUEST))

    def charge_rewound(self, limit: int, sizes: Collection[int]) -> None:
        """The last publications of some streams, so many bytes of each, as if each had been asked for by itself."""
        of_limit = limit // _PUBLICATIONS_OF_REQUEST
        self.charge(sum([1 + max(of_limit, size // _BYTES_OF_REQUEST) for size in sizes]))

    def charge_verification(self) -> None:
        """A token whose signature is looked at."""
        self.charge(_VERIFICATION)

    def charge_tries(self, count: int) -> None:
        """Streams that patterns are tried on: how many of them, times how many patterns."""
        self.charge(count // _TRIES_OF_REQUEST)

    def charge_written(self, size: int) -> None:
        """Bytes of state, and of what was missed, that were put together for this client."""
        self.charge(size // _BYTES_OF_REQUEST)
