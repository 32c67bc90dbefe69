"""Where the Redis server is and how to log in to it, read from a URL.

1. A password appears neither in `str` or `repr` nor in an error.
2. `str` of an address, read again, is the same address but for the password.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import SplitResult, parse_qs, quote, unquote_to_bytes, urlsplit

import msgspec

from marketfeed.model.numbers import whole

__all__ = ["EMBEDDED", "BadRedisUrl", "RedisAddress", "is_host", "parse_redis_url"]

FORMS = "redis://[user:password@]host:port[/db], rediss://…, unix:///path, embedded:"

_EXPECTED = f"expected {FORMS}, and in a password %23 for #, %2F for /, %3F for ?"
_HOST = re.compile(r"[^\s/?#@\[\]\x00-\x20\x7f]+")


class BadRedisUrl(ValueError):
    """The URL cannot be used. The message never repeats the URL, which may hold a password."""


class RedisAddress(msgspec.Struct, frozen=True):
    """A single server: `path` for a Unix socket, otherwise `host` and `port`, through TLS or not."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    embedded: bool = False

    def __str__(self) -> str:
        if self.embedded:
            return "embedded:"
        login = "" if self.username is None else quote(self.username, safe="")
        if self.password is not None:
            login += ":***"
        if login:
            login += "@"
        if self.path:
            return f"unix://{login}{quote(self.path)}" + (f"?db={self.database}" if self.database else "")
        host = quote(self.host, safe=":")
        host = f"[{host}]" if ":" in host else host
        database = f"/{self.database}" if self.database else ""
        return f"{'rediss' if self.tls else 'redis'}://{login}{host}:{self.port}{database}"

    __repr__ = __str__


EMBEDDED = RedisAddress(embedded=True)


def parse_redis_url(url: str) -> RedisAddress:
    """Read a URL of one of the `FORMS`. Raises `BadRedisUrl`, which says what is wrong with which part."""
    if url == "embedded:":
        return EMBEDDED
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRedisUrl(f"the host or the port cannot be read; {_EXPECTED}") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise BadRedisUrl(f"the scheme is another; expected {FORMS}")
    if parts.fragment or "@" in parts.query:
        raise BadRedisUrl(f"there is something behind the address; {_EXPECTED}")
    username, password = _decoded(parts.username), _decoded(parts.password)
    if parts.scheme == "unix":
        path = _decoded(parts.path) or ""
        if not path.startswith("/") or parts.hostname or port is not None:
            raise BadRedisUrl("expected unix:///path, with the absolute path of a socket")
        return RedisAddress(path=path, username=username, password=password, database=_database(parts, "0"))
    if port == 0:
        raise BadRedisUrl("the port is 0; expected a number from 1 to 65535")
    host = _decoded(parts.hostname)
    if host is None:
        raise BadRedisUrl("the host is missing; expected redis://host:port")
    if not is_host(host):
        raise BadRedisUrl("the host is neither a name nor an address; expected redis://host:port")
    tls = parts.scheme == "rediss"
    database = _database(parts, parts.path.strip("/") or "0")
    return RedisAddress(host.lower(), port or 6379, tls=tls, username=username, password=password, database=database)


def is_host(text: str) -> bool:
    """Whether `text` may be a host's name or address; an IPv6 address stands without brackets."""
    if ":" in text:
        try:
            IPv6Address(text)
        except AddressValueError:
            return False
    return _HOST.fullmatch(text) is not None


def _decoded(text: str | None) -> str | None:
    """A part of the URL without its percent-encoding; None for one that is absent or empty."""
    try:
        return unquote_to_bytes(text).decode() if text else None
    except UnicodeError:
        raise BadRedisUrl("there are bytes that are not UTF-8, perhaps behind a % sign; expected text") from None


def _database(parts: SplitResult, in_path: str) -> int:
    """The number of the database: `db` of the query, or else what stands in the path."""
    text = parse_qs(parts.query).get("db", [in_path])[-1]
    number = whole(text, 9)
    if number is None:
        raise BadRedisUrl("the database cannot be read; expected a number, as in redis://host:6379/1")
    return number
