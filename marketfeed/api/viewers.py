"""Who may look at the admin port (docs/operations/health.md#the-admin-port).

1. The Host header must be a name of ours: a page elsewhere, whose name leads here (DNS rebinding), reads nothing.
2. Who is on this host may look at everything, anybody else at what shows no client, unless the operator's token is
   shown. What came through a proxy came from elsewhere.
3. A browser shows the token once, in a form, and from then on a cookie that is made from it: it lasts as long as the
   token does, and no page of another origin makes the browser send it.
4. Wrong tokens are looked at a few times a second, whoever brings them.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Mapping

from marketfeed.access.addresses import is_loopback
from marketfeed.boundaries import Clock
from marketfeed.model.rate import TokenBucket

__all__ = ["COOKIE", "LEAST_TOKEN", "Viewers"]

COOKIE = "marketfeed_admin"
LEAST_TOKEN = 16
"""Characters."""
_HOSTS = ("localhost", "127.0.0.1", "::1")
_FORWARDED = ("forwarded", "x-forwarded-for")
_TRIES = 10


class Viewers:
    """`hosts`: names under which the port may be asked besides its own; `token`: what lets others look than who is on
    this host, empty: nothing does.
    """

    def __init__(self, clock: Clock, hosts: Collection[str] = (), token: bytes = b"") -> None:
        self._clock = clock
        self._hosts = {_plain(host.lower()) for host in (*_HOSTS, *hosts)}
        self._token = token
        self._cookie = hmac.digest(token, b"the cookie of the admin port", hashlib.sha256).hex() if token else ""
        self._tries = TokenBucket(1, _TRIES, clock.seconds())

    @property
    def has_token(self) -> bool:
        """Whether there is a token that lets others look."""
        return bool(self._token)

    def is_ours(self, host: str, address: str) -> bool:
        """Whether the Host header `host` names this server, asked at `address`; empty: on a Unix socket."""
        name = _plain(_without_port(host.lower()))
        return name in self._hosts or (bool(address) and name == _plain(address))

    def may_look(self, peer: str | None, headers: Mapping[str, str], cookie: str) -> bool:
        """Whether who asks may look at everything. `peer`: the address, None for a Unix socket; `cookie`: ours."""
        is_here = peer is None or is_loopback(_plain(peer))
        if is_here and not any(name in headers for name in _FORWARDED):
            return True
        if not self._token:
            return False
        if cookie and hmac.compare_digest(cookie.encode("utf-8", "replace"), self._cookie.encode()):
            return True
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.admits(shown.strip().encode("utf-8", "replace")) is True

    def admits(self, shown: bytes) -> bool | None:
        """Whether this is the token. None: there have been too many wrong ones; try again later."""
        if not self._token:
            return False
        if hmac.compare_digest(shown, self._token):
            return True
        return False if self._tries.take(self._clock.seconds()) else None

    @property
    def cookie(self) -> str:
        """What a browser shows in place of the token."""
        return self._cookie


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and not (":" in name and not name.endswith("]")) else host


def _plain(address: str) -> str:
    """An address as it is written shortest; what is none, as it is."""
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
