"""From where a client connects, and how often it may.

1. A client is where its connection comes from. Only a trusted proxy is believed about who is behind it, hop by hop.
2. Clients are counted per address: IPv4 whole, IPv6 by its /64, which is what one household or machine is given.
3. A client of a Unix socket has no address: it is None everywhere, and never limited.
4. What is remembered of addresses is bounded; a connection that is gone leaves nothing behind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import AF_INET6, inet_ntoa, inet_pton
from typing import Literal

from marketfeed.model.numbers import whole
from marketfeed.model.rate import TokenBuckets

__all__ = [
    "REST_WINDOW",
    "WINDOW",
    "AddressRate",
    "ConnectRate",
    "ConnectionCounts",
    "Key",
    "Network",
    "TrustedProxies",
    "address_key",
    "is_loopback",
    "parse_network",
]

WINDOW = 300
"""Seconds over which the attempts of an address are counted."""
REST_WINDOW = 60
"""Seconds over which its requests for market data are."""

Key = str | bytes
"""Under what a client is counted: an IPv4 address as text, or the 8 bytes of an IPv6 /64."""
Network = IPv4Network | IPv6Network | Literal["unix"]
"""Where proxies are; ``unix`` stands for whoever connects through a Unix socket."""

_EXPECTED = "an address such as 10.0.0.1 or ::1, a network such as 10.0.0.0/8 or fd00::/8, or unix for Unix sockets"
_LONGEST_HOP = 64
_REMEMBERED = 65536  # addresses and users, at most
_MAPPED = bytes(10) + b"\xff\xff"
"""How the 16 bytes of an IPv4 address begin on a port that takes IPv6 as well (RFC 4291, section 2.5.5.2)."""
_LOCAL_IPV4 = re.compile(
    r"10\.|127\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2[0-9]|3[01])\.|100\.(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\."
)
"""RFC 1918, loopback, link-local, and RFC 6598, behind whose addresses a provider has many subscribers."""


def parse_network(text: str) -> Network:
    """Read what ``--trusted-proxy`` takes. Raises ValueError with what would be accepted."""
    text = text.strip()
    if text == "unix":
        return "unix"
    address, slash, prefix = text.partition("/")
    if "%" in address or (slash and whole(prefix, 3) is None):
        raise ValueError(_EXPECTED)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if network.network_address != ip_address(address):
        raise ValueError(f"{network} for the whole network, or {address} for the one address")
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        return network if mapped is None else IPv4Network((mapped, network.prefixlen - 96))
    return network


class TrustedProxies:
    """The networks whose ``X-Forwarded-For`` is believed."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = [network for network in networks if not isinstance(network, str)]
        self._trusts_unix = "unix" in networks
        self._trusts = lru_cache(maxsize=4096)(self._finds)

    def contains(self, address: str | None) -> bool:
        """Whether what comes from there comes from a proxy; None is a Unix socket."""
        if address is None:
            return self._trusts_unix
        return bool(self._networks) and self._trusts(address)

    def _finds(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client_address(self, peer: str | None, forwarded: str | None) -> str | None:
        """Where the client is: the peer, or behind trusted proxies the first hop from the right that is none of them.

        `forwarded` is ``X-Forwarded-For``, its headers joined by commas. Each proxy writes on the right whom it has
        seen, so what stands left of an untrusted hop is that hop's word. A hop that is not an address ends the
        reading: skipped, an empty one too, it would give way to what the client itself has sent.
        """
        client = peer
        hops = forwarded.split(",") if forwarded else []
        while hops and self.contains(client):
            address = _parsed(_without_port(hops.pop().strip()))
            if address is None:
                break
            client = str(address)
        return client


def address_key(address: str | None) -> Key | None:
    """Under what the clients of an address are counted. A text that is no address stands for itself."""
    if address is None or ":" not in address:  # no parsing for IPv4, which always has this one spelling
        return address
    try:
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return address
    return inet_ntoa(packed[12:]) if packed.startswith(_MAPPED) else packed[:8]


def is_loopback(address: str | None) -> bool:
    """Whether the client is on this machine. Whoever uses a Unix socket is often a proxy, and its clients anywhere."""
    parsed = None if address is None else _parsed(address)
    return parsed is not None and parsed.is_loopback


class AddressRate:
    """Permits `rate` attempts at once, and as many per `window` seconds in the long run; 0 for no limit.

    Who brings a good token is counted as that user, wherever it comes from: many users may share an address. All others
    are counted by their address.

    `spare_local_but`: whoever comes from loopback, private and CGNAT addresses is spared, unless they are of these
    proxies; None spares nobody.
    """

    def __init__(self, rate: int, window: int, *, spare_local_but: TrustedProxies | None = None) -> None:
        self._window = window
        self.permit(rate, spare_local_but)

    def permit(self, rate: int, spare_local_but: TrustedProxies | None) -> None:
        """Let this be the rate, and forget who has tried how often."""
        self.rate = rate
        self._is_limited = rate > 0
        self._spare_local_but = spare_local_but
        self._limits = (rate or 1) / self._window, rate or 1, _REMEMBERED
        self._by_address, self._by_user = TokenBuckets[Key](*self._limits), TokenBuckets[str](*self._limits)

    def attempt(self, address: str | None, now: float) -> int:
        """Somebody without a good token: 0, or the seconds until the next attempt is permitted."""
        key = self._key(address)
        return 0 if key is None else self._by_address.take(key, now)

    def attempt_of(self, user: str, address: str | None, now: float) -> int:
        """The same of who a good token names."""
        return 0 if self._key(address) is None else self._by_user.take(user, now)

    def _key(self, address: str | None) -> Key | None:
        """Under what an address is counted; None: it is not."""
        key = address_key(address) if self._is_limited else None
        proxies = self._spare_local_but
        if key is None or (proxies is not None and _is_local(key) and not proxies.contains(address)):
            return None
        return key


class ConnectRate(AddressRate):
    """How often somebody may try to connect, and how many bad tokens may come from an address.

    So that nobody has signatures verified without end, no further token of an address is looked at after as many bad
    ones; one that is known to be good is not verified again.
    """

    def __init__(self, rate: int, *, spare_local_but: TrustedProxies | None = None) -> None:
        super().__init__(rate, WINDOW, spare_local_but=spare_local_but)

    def permit(self, rate: int, spare_local_but: TrustedProxies | None) -> None:
        super().permit(rate, spare_local_but)
        self._bad_tokens = TokenBuckets[Key](*self._limits)

    def wait_for_token(self, address: str | None, now: float) -> int:
        """The seconds until another token from `address` may be looked at."""
        key = self._key(address)
        return 0 if key is None else self._bad_tokens.wait(key, now)

    def bad_token(self, address: str | None, now: float) -> None:
        """A token from `address` was bad."""
        key = self._key(address)
        if key is not None:
            self._bad_tokens.take(key, now)


class ConnectionCounts:
    """The connections per address, up to `limit` each; 0 for no limit, and then nothing is counted.

    `limit` may change; who came while nothing was counted is not, and `leave` need not be called for it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counts: dict[Key, int] = {}

    def __len__(self) -> int:
        """How many addresses have connections."""
        return len(self._counts)

    @property
    def is_limited(self) -> bool:
        """Whether anything is counted at all."""
        return self.limit > 0

    def enter(self, key: Key | None) -> bool:
        """Count a connection. False: the address has as many as it may, and nothing is counted."""
        if key is None or not self.limit:
            return True
        count = self._counts.get(key, 0)
        if count >= self.limit:
            return False
        self._counts[key] = count + 1
        return True

    def leave(self, key: Key | None) -> None:
        """A connection that was counted is gone."""
        if key is None or key not in self._counts:
            return
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]


@lru_cache(maxsize=4096)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """An address, IPv4 whenever it is that in fact, without its scope; None: it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def _without_port(hop: str) -> str:
    """The address of a hop, which some proxies write with the port. Empty: there is none."""
    if len(hop) > _LONGEST_HOP:
        return ""
    found = re.fullmatch(r"(?:\[([^]]*)\]|([^:]*))(?::[0-9]{1,5})?", hop)
    return hop if found is None else found[1] or found[2] or ""


def _is_local(key: Key) -> bool:
    if isinstance(key, str):
        return _LOCAL_IPV4.match(key) is not None
    return key == bytes(8) or key[0] & 0xFE == 0xFC or (key[0] == 0xFE and key[1] & 0xC0 == 0x80)
