"""Who may connect: who asks for a WebSocket is let in, or refused in plain HTTP.

What there is to be refused for: docs/protocol.md#refusals-and-closes.

1. What costs least is looked at first, and what was counted for a client is given back when it is gone.
2. Who is refused learns why, but nothing about anybody else. No token reaches an answer or a log.
3. A page of an allowed origin cannot read a refusal's status: with a bad token it is let in, to be closed with 4401.
4. A request for market data in one plain answer passes the same doors, except that it takes no client's place, and
   counts for a rate of its own.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Protocol

import msgspec

from marketfeed.access.addresses import (
    AddressRate,
    ConnectionCounts,
    ConnectRate,
    Key,
    TrustedProxies,
    address_key,
    is_loopback,
)
from marketfeed.access.origins import AllowedOrigins, admitting_flag
from marketfeed.access.tokens import BadToken, TokenVerifier, token_from
from marketfeed.boundaries import Clock
from marketfeed.http.head import BadRequest, Head
from marketfeed.http.response import Response
from marketfeed.hub.shares import Share, Shares
from marketfeed.model.identity import ANONYMOUS, Identity
from marketfeed.runtime.logs import Log
from marketfeed.runtime.memory import MemoryGuard

__all__ = ["Admission", "Admitted"]

_log = Log()

_UNAUTHORISED = (("WWW-Authenticate", "Bearer"),)


class Admitted(msgspec.Struct, frozen=True):
    """A client that may come in. `address`: where it is, for the log; `key`: under what it is counted.

    `identity`: None for a page whose token is missing or bad.
    """

    address: str | None
    key: Key | None
    identity: Identity | None


class Capacity(Protocol):
    """Who knows whether there is room for a further client."""

    def refusal(self, *, stays: bool = True) -> Response | None:
        """Why no further client may come in at this moment, or None. `stays`: not just for one answer."""


@dataclass(frozen=True, eq=False)
class Admission:
    """Decides about every client of this process. `verifier`: None when nobody has a token."""

    clock: Clock
    capacity: Capacity
    memory: MemoryGuard
    _: KW_ONLY
    origins: AllowedOrigins
    proxies: TrustedProxies
    rate: ConnectRate
    rest: AddressRate
    counts: ConnectionCounts
    """Where they are not limited, `leave` need not be called."""
    verifier: TokenVerifier | None = None
    needs_token: bool = False
    shares: Shares | None = None

    def address(self, peer: str | None, head: Head) -> str | None:
        """Where the client is whose connection comes from `peer`; None: a Unix socket."""
        return self.proxies.client_address(peer, head.headers.get("x-forwarded-for"))

    def admit(self, address: str | None, head: Head) -> Admitted | Response:
        """Decide about a client at `address`. If it is admitted, call `leave` when it is gone."""
        token = self._token(head)
        refusal = self._refusal(address, head, token, self.rate, stays=True)
        if refusal is not None:
            return refusal
        key = address_key(address)
        if not self.counts.enter(key):
            return Response(
                429, "too many connections from this address", (("Retry-After", "30"),), reason="address-full"
            )
        identity = self._identify(address, token, self.rate)
        if isinstance(identity, Response):
            if identity.status == 401 and "origin" in head.headers:
                return Admitted(address, key, None)
            self.counts.leave(key)
            return identity
        return Admitted(address, key, identity)

    def identify(self, address: str | None, head: Head) -> Identity | Response:
        """Decide about a request that is answered in plain HTTP: who asks, or why there is no answer."""
        token = self._token(head)
        return self._refusal(address, head, token, self.rest, stays=False) or self._identify(address, token, self.rest)

    def share(self, admitted: Admitted) -> Share | None:
        """Out of which share a client's streams are paid for; None for those of proxies and of Unix sockets."""
        if self.shares is None or self.proxies.contains(admitted.address):
            return None
        return self.shares.of(admitted.key)

    def leave(self, admitted: Admitted) -> None:
        """The client is gone."""
        self.counts.leave(admitted.key)

    def verify(self, token: str) -> Identity:
        """Who the bearer of a token is. Raises `BadToken`."""
        if self.verifier is None:
            raise BadToken("this server takes no tokens")
        return self.verifier.verify(token)

    def permits_origin(self, address: str | None, head: Head) -> bool:
        """Whether the request names no origin, or one whose pages may connect."""
        origin = head.headers.get("origin")
        if origin is None or self.origins.permits(
            origin, head.headers.get("host"), peer_is_loopback=is_loopback(address)
        ):
            return True
        if self.origins.first_refusal(origin):
            flag = admitting_flag(origin)
            if flag is None:
                _log.warn("a page was refused: its origin cannot be read")
            else:
                _log.warn("a page of another origin was refused; {flag} would admit it", flag=flag)
        return False

    def _token(self, head: Head) -> str | Response | None:
        """The token that is to be verified; or why none is; None: there is none that matters."""
        if self.verifier is None:
            return None
        try:
            return token_from(head.headers, head.query)
        except BadRequest as fault:
            return Response(400, str(fault))

    def _refusal(
        self, address: str | None, head: Head, token: str | Response | None, rate: AddressRate, *, stays: bool
    ) -> Response | None:
        """Why nobody who comes from there, or nobody at all, is let in now; None: the token decides."""
        if not isinstance(token, str):
            wait = rate.attempt(address, self.clock.seconds())
        else:
            wait = self.rate.wait_for_token(address, self.clock.seconds())
            if wait and self.verifier is not None and self.verifier.knows(token):
                wait = 0
        if wait:
            return self._too_often(wait, rate)
        refusal = self.capacity.refusal(stays=stays)
        if refusal is not None:
            return refusal
        if self.memory.is_full:
            return Response(503, "this server is short of memory", (("Retry-After", "30"),), reason="memory")
        if not self.permits_origin(address, head):
            return Response(403, "pages of this origin may not connect", reason="origin")
        return None

    def _identify(self, address: str | None, token: str | Response | None, rate: AddressRate) -> Identity | Response:
        if token is None:
            if self.needs_token and self.verifier is not None:
                return Response(401, "a token is needed", _UNAUTHORISED, reason="no-token")
            return ANONYMOUS
        if isinstance(token, Response):
            return token
        try:
            identity = self.verify(token)
        except BadToken as fault:
            self.rate.bad_token(address, self.clock.seconds())
            wait = rate.attempt(address, self.clock.seconds())
            if wait:
                return self._too_often(wait, rate)
            return Response(401, str(fault), _UNAUTHORISED, reason="bad-token")
        wait = rate.attempt_of(identity.user, address, self.clock.seconds())
        return self._too_often(wait, rate, "of this user") if wait else identity

    def _too_often(self, wait: int, rate: AddressRate, whose: str = "from this address") -> Response:
        """`wait`: seconds until the next attempt is permitted."""
        what = "requests" if rate is self.rest else "connections"
        return Response(429, f"too many {what} {whose}", (("Retry-After", str(wait)),), reason="rate")
