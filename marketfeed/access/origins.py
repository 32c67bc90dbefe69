"""Which web pages may connect: a browser names the page's origin, and cannot be made to lie about it.

1. Without an Origin header the client is a program, which could send any: it is permitted.
2. With no patterns, a page may connect to the host that it came from, and a page of a loopback host from a loopback
   address. Patterns replace both.
3. What is not one well-formed origin (RFC 6454, section 6.2) is refused, unless any is permitted; nothing raises.
4. Hosts are compared as whole labels, in lower case and as ASCII, never as parts of a text.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna
import msgspec

__all__ = ["ANY", "NULL", "AllowedOrigins", "OriginPattern", "admitting_flag", "is_origin", "parse_origin"]

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
_LABEL = r"[A-Za-z0-9_-]+"
_HOST = rf"\[[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*\.?"
_ORIGIN = re.compile(rf"({_SCHEME})://({_HOST})(?::([1-9][0-9]{{0,4}}))?")
_HOST_HEADER = re.compile(rf"({_HOST})(?::[0-9]*)?")
_WRITTEN = re.compile(rf"({_SCHEME})://(\[[^]]*\]|[^/?#@:\[\]]+)(?::([^/?#]*))?")
_NUMBER_AT_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""Browsers take a host like this for an IPv4 address, or for none (WHATWG URL, "ends in a number checker")."""
_LOOPBACK = re.compile(r"(?:.+\.)?localhost|127(?:\.[0-9]+){3}|\[::1\]")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_LONGEST = 320  # a name has up to 253 characters
_REMEMBERED = 1024

_EXPECTED = (
    "scheme://host[:port] and nothing behind it, such as https://app.example.com, capacitor://localhost, "
    "https://*.example.com for any one label, http://localhost:* for any port; or null; or * for any origin"
)


class OriginPattern(msgspec.Struct, frozen=True):
    """An origin, or several: `host` may begin with the label ``*``, `port` may be ``*``.

    All in lower case. `port` is empty for the scheme's default, and where there is none. ``str()`` gives the text.
    """

    scheme: str
    host: str
    port: str = ""

    def __str__(self) -> str:
        if not self.host:
            return self.scheme
        return f"{self.scheme}://{self.host}" + (f":{self.port}" if self.port else "")


ANY = OriginPattern("*", "")
NULL = OriginPattern("null", "")
"""The origin of a sandboxed frame, of a local file, of a page that was redirected."""


def parse_origin(text: str) -> OriginPattern:
    """Read what ``--allowed-origin`` takes. Raises ValueError with what would be accepted."""
    text = text.strip()
    for word in (ANY, NULL):
        if text.lower() == word.scheme:
            return word
    written = _WRITTEN.fullmatch(text) if len(text) <= _LONGEST else None
    if written is None:
        raise ValueError(_EXPECTED)
    scheme, host, port = written[1].lower(), written[2], written[3]
    if port not in (None, "*") and not (re.fullmatch("[1-9][0-9]{0,4}", port) and int(port) < 65536):
        raise ValueError("a port from 1 to 65535, or * for any, behind the host's colon")
    return OriginPattern(scheme, _written_host(host), "" if port == _DEFAULT_PORTS.get(scheme) else port or "")


def admitting_flag(origin: str) -> str | None:
    """The flag with which pages of this origin may connect, fit for a log; None: it is not well-formed."""
    read = _read(origin)
    return None if read is None else f"--allowed-origin {read}"


def is_origin(text: str) -> bool:
    """Whether a header names one well-formed origin, fit to be repeated in an answer."""
    return _read(text) is not None


class AllowedOrigins:
    """The origins whose pages may connect, and those of which it was said that they may not."""

    def __init__(self, patterns: Sequence[OriginPattern] = ()) -> None:
        self.allow(patterns)
        self._refused: OrderedDict[str, None] = OrderedDict()

    def allow(self, patterns: Sequence[OriginPattern]) -> None:
        """Let these be the ones."""
        self._patterns = frozenset(patterns)

    def permits(self, origin: str | None, host: str | None, *, peer_is_loopback: bool) -> bool:
        """Whether a request with these headers may become a WebSocket; None for a header that is missing.

        `peer_is_loopback` is about the client, not about a trusted proxy in front of it.
        """
        if origin is None or ANY in self._patterns:
            return True
        read = _read(origin)
        if read is None:
            return False
        if self._patterns:
            return self._lists(read)
        return read.host == _host_of_header(host) or (peer_is_loopback and bool(_LOOPBACK.fullmatch(read.host)))

    def first_refusal(self, origin: str) -> bool:
        """Whether this refused origin is to be logged: it has not been, or so many others have been since that it is
        forgotten. All that are not well-formed count as one, for none of their bytes is fit for a log.
        """
        shown = str(_read(origin) or "")
        is_first = shown not in self._refused
        self._refused[shown] = None
        self._refused.move_to_end(shown)
        if len(self._refused) > _REMEMBERED:
            self._refused.popitem(last=False)
        return is_first

    def _lists(self, origin: OriginPattern) -> bool:
        """Set look-ups, so that the number of patterns does not matter."""
        _, _, domain = origin.host.partition(".")
        return any(
            OriginPattern(origin.scheme, host, port) in self._patterns
            for host in (origin.host, f"*.{domain}")
            for port in (origin.port, "*")
        )


def _read(origin: str) -> OriginPattern | None:
    """The one origin that a header names; None: it is not well-formed."""
    if origin == NULL.scheme:
        return NULL
    found = _ORIGIN.fullmatch(origin) if len(origin) <= _LONGEST else None
    host = _canonical(found[2]) if found else None
    if found is None or host is None:
        return None
    scheme, port = found[1].lower(), found[3] or ""
    if port and int(port) > 65535:
        return None
    return OriginPattern(scheme, host, "" if port == _DEFAULT_PORTS.get(scheme) else port)


def _host_of_header(text: str | None) -> str | None:
    found = _HOST_HEADER.fullmatch(text) if text is not None and len(text) <= _LONGEST else None
    return _canonical(found[1]) if found else None


def _canonical(host: str) -> str | None:
    """A host in the one spelling in which it is compared; None: it looks like an address and is none."""
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1]).compressed}]"
        host = host.lower().removesuffix(".")
        return str(IPv4Address(host)) if _NUMBER_AT_END.fullmatch(host) else host
    except AddressValueError:
        return None


def _written_host(host: str) -> str:
    """The host of a pattern in the spelling in which it is compared. Raises ValueError."""
    wildcard, name = ("*.", host[2:]) if host.startswith("*.") else ("", host)
    if "*" in name:
        raise ValueError("* in place of the first label, before a domain, as in https://*.example.com")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except UnicodeError:
            raise ValueError("a host name that can be written as ASCII (xn--…, RFC 5891), or that spelling") from None
    canonical = _canonical(name) if re.fullmatch(_HOST, name) else None
    if canonical is None or (wildcard and _NUMBER_AT_END.fullmatch(canonical)):
        raise ValueError(f"a host name or an address in {_EXPECTED}")
    return wildcard + canonical
