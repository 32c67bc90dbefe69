"""Where the server of a command is, read from a URL, and the token that `marketfeed watch` and `bench` show it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import msgspec

from marketfeed.config.settings import BadSetting

__all__ = ["ServerAddress", "check_token", "parse_url"]

FORMS = "ws://host[:port][/path] or wss://host[:port][/path], as in ws://localhost:8080; http and https stand for them"

_WEBSOCKET = {"ws": 80, "wss": 443}
_STANDS_FOR = {"http": "ws", "https": "wss"}
"""Where a WebSocket is asked for: the address of the page is that of the socket."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,8192}")  # RFC 6750, section 2.1
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_KEPT = "/?%:@!$&'()*+,;=~[]"  # of a path and query, beside letters and digits; everything else is percent-encoded


class ServerAddress(msgspec.Struct, frozen=True):
    """`resource` is what stands in the request line: the path and the query, percent-encoded."""

    host: str
    port: int
    resource: str
    scheme: str

    @property
    def is_secure(self) -> bool:
        """Whether it is TLS that is spoken there."""
        return self.scheme in ("wss", "https")

    @property
    def shown(self) -> str:
        """The URL without its query, which may hold a token."""
        return f"{self.scheme}://{self.host_in_header}:{self.port}{self.resource.partition('?')[0]}"

    @property
    def host_in_header(self) -> str:
        """The host as a Host header spells it, without the port."""
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_url(url: str, forms: str = FORMS, ports: Mapping[str, int] = _WEBSOCKET) -> ServerAddress:
    """Read a URL, by default a WebSocket's, which may be spelled with http and https as well.

    A URL without a path means ``/``. `ports`: by scheme, the one that is meant where none is named.
    Raises `BadSetting`.
    """
    try:
        if not url.isprintable() or " " in url:
            raise BadSetting(f"a URL holds no blanks; expected {forms}")
        parts = urlsplit(url)
        scheme = parts.scheme if parts.scheme in ports else _STANDS_FOR.get(parts.scheme, parts.scheme)
        port = parts.port
        if scheme not in ports or not parts.hostname or parts.fragment or port == 0:
            raise BadSetting(f"{url[:200]!r} cannot be used; expected {forms}")
        if "@" in parts.netloc:
            raise BadSetting(f"a user name or password in the URL is not supported; expected {forms}")
        host = _host(parts.hostname)
    except BadSetting:
        raise
    except ValueError:  # from urlsplit, `port` and `_host`
        raise BadSetting(f"{url[:200]!r} has no host and port that could be used; expected {forms}") from None
    resource = quote(parts.path or "/", _KEPT) + (f"?{quote(parts.query, _KEPT)}" if parts.query else "")
    return ServerAddress(host, port or ports[scheme], resource, scheme)


def check_token(token: str | None) -> str | None:
    """What `--token` has. Raises `BadSetting`, whose message does not hold it."""
    if token is not None and not _TOKEN.fullmatch(token):
        raise BadSetting("--token: expected a signed token, as `marketfeed token` prints it")
    return token


def _host(host: str) -> str:
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    ascii_host = host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(ascii_host):
        raise ValueError(host)
    return ascii_host
