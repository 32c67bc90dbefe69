"""Where the Redis servers are and how to log in to them, read from a URL: one server, those behind Sentinel, a cluster.

1. A password appears neither in `str` or `repr` nor in an error.
2. `str` of an address, read again, is the same address but for the password.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import ClassVar
from urllib.parse import SplitResult, parse_qs, quote, unquote_to_bytes, urlsplit

import msgspec

from marketfeed.model.numbers import whole

__all__ = [
    "EMBEDDED",
    "Address",
    "BadRedisUrl",
    "ClusterAddress",
    "RedisAddress",
    "SentinelAddress",
    "is_host",
    "parse_redis_url",
    "place_text",
]

_SERVER = "redis://[user:password@]host:port[/db], rediss://…, unix:///path, embedded:"
_SENTINEL = "redis-sentinel://[user:password@]host:port,…/name, rediss-sentinel://…"
_CLUSTER = "redis-cluster://[user:password@]host:port,…, rediss-cluster://…"
FORMS = f"{_SERVER}, {_SENTINEL}, {_CLUSTER}"

_ENCODED = "and in a password %23 for #, %2F for /, %3F for ?"
_EXPECTED = f"expected {_SERVER}, {_ENCODED}"
_GROUP = re.compile(
    r"redis(?P<tls>s?)-(?P<kind>sentinel|cluster)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*|)"
    r"(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.IGNORECASE | re.DOTALL,
)
_PLACE = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>.*))?")
_NAME = re.compile(r"[^\s/]+")
_HOST = re.compile(r"[^\s/?#@\[\]\x00-\x20\x7f]+")


class BadRedisUrl(ValueError):
    """The URL cannot be used. The message never repeats the URL, which may hold a password."""


class RedisAddress(msgspec.Struct, frozen=True):
    """A single server: `path` for a Unix socket, otherwise `host` and `port`, through TLS or not.

    `master_only`: links to it are made only while it is a master.
    """

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    embedded: bool = False
    master_only: bool = False

    def __str__(self) -> str:
        if self.embedded:
            return "embedded:"
        login = _login(self.username, self.password)
        if self.path:
            return f"unix://{login}{quote(self.path)}" + (f"?db={self.database}" if self.database else "")
        database = f"/{self.database}" if self.database else ""
        return f"{'rediss' if self.tls else 'redis'}://{login}{place_text(self.host, self.port)}{database}"

    __repr__ = __str__

    @property
    def has_password(self) -> bool:
        """Whether one stands in it."""
        return self.password is not None


class SentinelAddress(msgspec.Struct, frozen=True):
    """A master and its replicas, by its `name` at the `sentinels`, (host, port) each.

    `username`, `password` and `database` are those of the servers. `tls`: of the connections to all of them.
    """

    sentinels: tuple[tuple[str, int], ...]
    name: str
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    embedded: ClassVar[bool] = False

    def __str__(self) -> str:
        login, hosts = _login(self.username, self.password), _hosts(self.sentinels)
        query = [f"db={self.database}"] if self.database else []
        if self.sentinel_username is not None:
            query.append(f"sentinel-user={quote(self.sentinel_username, safe='')}")
        if self.sentinel_password is not None:
            query.append("sentinel-password=***")
        scheme = "rediss-sentinel" if self.tls else "redis-sentinel"
        return f"{scheme}://{login}{hosts}/{quote(self.name, safe='')}{'?' if query else ''}{'&'.join(query)}"

    __repr__ = __str__

    @property
    def has_password(self) -> bool:
        """Whether one stands in it."""
        return self.password is not None or self.sentinel_password is not None

    def server(self, host: str, port: int) -> RedisAddress:
        """The master, if it is one."""
        return RedisAddress(
            host,
            port,
            tls=self.tls,
            username=self.username,
            password=self.password,
            database=self.database,
            master_only=True,
        )

    def sentinel(self, host: str, port: int) -> RedisAddress:
        """One of the sentinels."""
        return RedisAddress(host, port, tls=self.tls, username=self.sentinel_username, password=self.sentinel_password)


class ClusterAddress(msgspec.Struct, frozen=True):
    """A Redis Cluster, by some of its `nodes`, (host, port) each."""

    nodes: tuple[tuple[str, int], ...]
    tls: bool = False
    username: str | None = None
    password: str | None = None
    embedded: ClassVar[bool] = False

    def __str__(self) -> str:
        scheme = "rediss-cluster" if self.tls else "redis-cluster"
        return f"{scheme}://{_login(self.username, self.password)}{_hosts(self.nodes)}"

    __repr__ = __str__

    @property
    def has_password(self) -> bool:
        """Whether one stands in it."""
        return self.password is not None

    def server(self, host: str, port: int) -> RedisAddress:
        """One of its nodes."""
        return RedisAddress(host, port, tls=self.tls, username=self.username, password=self.password)


Address = RedisAddress | SentinelAddress | ClusterAddress

EMBEDDED = RedisAddress(embedded=True)


def parse_redis_url(url: str) -> Address:
    """Read a URL of one of the `FORMS`. Raises `BadRedisUrl`, which says what is wrong with which part."""
    if url == "embedded:":
        return EMBEDDED
    group = _GROUP.fullmatch(url)
    return _one_server(url) if group is None else _several(group)


def _one_server(url: str) -> RedisAddress:
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


def _several(url: re.Match[str]) -> Address:
    """What is meant by a URL of several hosts."""
    is_sentinel, tls = url["kind"].lower() == "sentinel", url["tls"] != ""
    expected = f"expected {_SENTINEL if is_sentinel else _CLUSTER}, {_ENCODED}"
    path, query = url["path"].removeprefix("/"), url["query"] or ""
    if url["fragment"] or "@" in path + query:
        raise BadRedisUrl(f"there is something behind the address; {expected}")
    login, _, hosts = url["authority"].rpartition("@")
    username, password = map(_decoded, login.partition(":")[::2])
    default = 26379 if is_sentinel else 6379
    places = tuple(dict.fromkeys(_place(at, text, default) for at, text in enumerate(hosts.split(","), 1)))
    known = ("db", "sentinel-user", "sentinel-password") if is_sentinel else ("db",)
    given = _parameters(query, known)
    database = whole(given.get("db", "0"), 9)
    if not is_sentinel:
        if path.strip("/") not in ("", "0") or database != 0:
            raise BadRedisUrl("a cluster has no other database than 0; expected nothing behind the hosts")
        return ClusterAddress(places, tls, username, password)
    if database is None:
        raise BadRedisUrl("the database cannot be read; expected a number, as in redis-sentinel://host/name?db=1")
    name = _decoded(path)
    if name is None or _NAME.fullmatch(path) is None or not name.isprintable():
        raise BadRedisUrl(f"the name of the master is missing, or none; {expected}")
    user, word = _decoded(given.get("sentinel-user")), _decoded(given.get("sentinel-password"))
    if user is not None and word is None:
        raise BadRedisUrl("there is a sentinel-user; expected together with sentinel-password")
    return SentinelAddress(places, name, tls, username, password, database, user, word)


def _place(number: int, text: str, default: int) -> tuple[str, int]:
    """The host and the port of one of several, which errors call by its number."""
    found = _PLACE.fullmatch(text)
    host = _decoded(found["host"] or found["ipv6"]) if found is not None else None
    if found is None or host is None or (":" in host) != bool(found["ipv6"]) or not is_host(host):
        raise BadRedisUrl(f"host {number} is neither a name nor an address; expected host:port, [::1]:port for IPv6")
    port = whole(found["port"], 5) if found["port"] else default
    if port is None or not 0 < port < 65536:
        raise BadRedisUrl(f"the port of host {number} cannot be read; expected a number from 1 to 65535")
    return host.lower(), port


def _parameters(query: str, known: tuple[str, ...]) -> dict[str, str]:
    """What stands behind the question mark, still percent-encoded."""
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    for number, (name, _) in enumerate(pairs, 1):
        if name not in known:
            raise BadRedisUrl(f"parameter {number} behind the question mark is unknown; expected {', '.join(known)}")
    return dict(pairs)


def _login(username: str | None, password: str | None) -> str:
    login = "" if username is None else quote(username, safe="")
    if password is not None:
        login += ":***"
    return f"{login}@" if login else ""


def _hosts(places: tuple[tuple[str, int], ...]) -> str:
    return ",".join(place_text(host, port) for host, port in places)


def place_text(host: str, port: int) -> str:
    """As it stands in a URL."""
    return f"[{quote(host, safe=':')}]:{port}" if ":" in host else f"{quote(host)}:{port}"


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
