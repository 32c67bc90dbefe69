"""Where the Redis server is and how to log in to it, read from a URL. Passwords never appear in `repr`."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import msgspec

__all__ = ["EMBEDDED", "BadRedisUrl", "RedisAddress", "parse_redis_url"]

FORMS = "redis://[user:password@]host:port[/db], rediss://…, unix:///path, embedded:"


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
        login = f"{self.username or ''}:***@" if self.password is not None else ""
        if self.path:
            return f"unix://{login}{self.path}" + (f"?db={self.database}" if self.database else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
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
        raise BadRedisUrl(f"the port is not a number from 1 to 65535; expected {FORMS}") from None
    if parts.scheme == "unix":
        path = unquote(parts.path)
        if not path.startswith("/") or parts.hostname:
            raise BadRedisUrl("expected unix:///path, with the absolute path of a socket")
        database = parse_qs(parts.query).get("db", ["0"])[-1]
        return RedisAddress(path=path, username=_user(parts), password=_password(parts), database=_database(database))
    if parts.scheme not in ("redis", "rediss"):
        raise BadRedisUrl(f"expected one of {FORMS}")
    if port == 0:
        raise BadRedisUrl("the port is not a number from 1 to 65535")
    if not parts.hostname:
        raise BadRedisUrl("the host is missing; expected redis://host:port")
    return RedisAddress(
        host=unquote(parts.hostname),
        port=port or 6379,
        tls=parts.scheme == "rediss",
        username=_user(parts),
        password=_password(parts),
        database=_database(unquote(parts.path).strip("/") or "0"),
    )


def _user(parts: SplitResult) -> str | None:
    return unquote(parts.username) if parts.username else None


def _password(parts: SplitResult) -> str | None:
    return unquote(parts.password) if parts.password else None


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise BadRedisUrl("the database is not a number, as in redis://host:6379/1")
    return int(text)
