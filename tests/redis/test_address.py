"""URLs of Redis servers: what they mean, and that a password never shows (docs/operations/redis.md#redis)."""

from __future__ import annotations

import string
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.redis.address import (
    EMBEDDED,
    Address,
    BadRedisUrl,
    ClusterAddress,
    RedisAddress,
    SentinelAddress,
    is_host,
    parse_redis_url,
)
from tests.strategies import property_test


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", RedisAddress()),
        ("redis://localhost:6379/0", RedisAddress()),
        ("redis://10.0.0.7:7000/3", RedisAddress(host="10.0.0.7", port=7000, database=3)),
        ("rediss://redis.example.com:6380", RedisAddress(host="redis.example.com", port=6380, tls=True)),
        ("REDIS://Redis.Example.COM", RedisAddress(host="redis.example.com")),
        ("redis://%41b", RedisAddress(host="ab")),
        ("redis://h:", RedisAddress(host="h")),
        ("redis://h/", RedisAddress(host="h")),
        ("redis://h/2/", RedisAddress(host="h", database=2)),
        ("redis://h?db=4", RedisAddress(host="h", database=4)),
        ("redis://h/2?db=4&family=6", RedisAddress(host="h", database=4)),
        ("redis://:pw@h", RedisAddress(host="h", password="pw")),
        ("redis://feed:pw@h:1", RedisAddress(host="h", port=1, username="feed", password="pw")),
        ("redis://feed@h", RedisAddress(host="h", username="feed")),
        ("redis://feed:@h", RedisAddress(host="h", username="feed")),
        ("redis://a%40b:p%2Fq%3Fr%23s%40t%3A%25@h", RedisAddress(host="h", username="a@b", password="p/q?r#s@t:%")),
        ("redis://u:p@ss:word@h", RedisAddress(host="h", username="u", password="p@ss:word")),
        ("redis://:%C3%A9%E2%98%95@h", RedisAddress(host="h", password="é☕")),
        ("redis://[::1]", RedisAddress(host="::1")),
        ("rediss://u:p@[2001:DB8::7]:6380/1", RedisAddress("2001:db8::7", 6380, "", True, "u", "p", 1)),
        ("redis://[fe80::1%25eth0]:6379", RedisAddress(host="fe80::1%eth0")),
        ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", RedisAddress(path="/run/redis.sock", database=2)),
        ("unix://u:p@/run/redis.sock", RedisAddress(path="/run/redis.sock", username="u", password="p")),
        ("unix:///a%20b%3Fc%23d", RedisAddress(path="/a b?c#d")),
        ("unix:/run/redis.sock", RedisAddress(path="/run/redis.sock")),
        ("embedded:", EMBEDDED),
        ("redis-sentinel://a/feed", SentinelAddress((("a", 26379),), "feed")),
        (
            "rediss-sentinel://u:p@A:1,b,[::1]:3,[2001:DB8::7],a:1/my%20feed?db=2",
            SentinelAddress(
                (("a", 1), ("b", 26379), ("::1", 3), ("2001:db8::7", 26379)), "my feed", True, "u", "p", database=2
            ),
        ),
        (
            "Redis-Sentinel://a:/feed?sentinel-user=s%40t&sentinel-password=p%2Fq%26+r",
            SentinelAddress((("a", 26379),), "feed", sentinel_username="s@t", sentinel_password="p/q&+r"),
        ),
        (
            "redis-sentinel://:a%40b,c%3Ad@h/feed?sentinel-password=%C3%A9",
            SentinelAddress((("h", 26379),), "feed", password="a@b,c:d", sentinel_password="é"),
        ),
        ("redis-cluster://a", ClusterAddress((("a", 6379),))),
        ("redis-cluster://a:7000,b:7001/", ClusterAddress((("a", 7000), ("b", 7001)))),
        ("redis-cluster://a/0?db=0", ClusterAddress((("a", 6379),))),
        ("rediss-cluster://u:p@s@[::1]:1,a", ClusterAddress((("::1", 1), ("a", 6379)), True, "u", "p@s")),
    ],
)
def test_forms(url: str, address: Address) -> None:
    """Every form that the option's help names, percent-encoded where it must be."""
    parsed = parse_redis_url(url)
    assert parsed == address
    assert msgspec.structs.asdict(parsed) == msgspec.structs.asdict(address)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "the scheme is another; expected redis://[user:password@]host:port[/db]"),
        ("localhost:6379", "the scheme is another; expected redis://"),
        ("http://h", "the scheme is another; expected redis://"),
        ("embedded", "the scheme is another; expected redis://"),
        ("redis-sentinel:a/feed", "the scheme is another; expected redis://"),
        ("redis-cluster", "the scheme is another; expected redis://"),
        ("redis://", "the host is missing; expected redis://host:port"),
        ("redis://:6379", "the host is missing"),
        ("redis://u:p@", "the host is missing"),
        ("redis:h", "the host is missing"),
        ("redis://a b", "the host is neither a name nor an address"),
        ("redis://h ", "the host is neither a name nor an address"),
        ("redis://h%2Fx", "the host is neither a name nor an address"),
        ("redis://a%3Ab", "the host is neither a name nor an address"),
        ("redis://h:0", "the port is 0; expected a number from 1 to 65535"),
        ("redis://h:65536", "the host or the port cannot be read; expected redis://"),
        ("redis://h:x", "the host or the port cannot be read"),
        ("redis://h:-1", "the host or the port cannot be read"),
        ("redis://h:\u0661", "the host or the port cannot be read"),
        ("redis://h:" + "1" * 5000, "the host or the port cannot be read"),
        ("redis://[::1", "the host or the port cannot be read"),
        ("redis://[zz]", "the host or the port cannot be read"),
        ("redis://:a#b@h", "in a password %23 for #, %2F for /, %3F for ?"),
        ("redis://:a/b@h", "in a password %23 for #, %2F for /, %3F for ?"),
        ("redis://:a?b@h", "in a password %23 for #, %2F for /, %3F for ?"),
        ("redis://user:12#x@h", "there is something behind the address; expected redis://"),
        ("redis://user:12?x@h", "there is something behind the address; expected redis://"),
        ("redis://h/x", "the database cannot be read; expected a number"),
        ("redis://h/-1", "the database cannot be read"),
        ("redis://h/1/2", "the database cannot be read"),
        ("redis://h/\u0661", "the database cannot be read"),
        ("redis://h/" + "1" * 5000, "the database cannot be read"),
        ("unix:///run/redis.sock?db=x", "the database cannot be read"),
        ("unix://run/redis.sock", "expected unix:///path, with the absolute path of a socket"),
        ("unix:redis.sock", "expected unix:///path"),
        ("unix://", "expected unix:///path"),
        ("unix://:5/run/redis.sock", "expected unix:///path"),
        ("redis-sentinel:///feed", "host 1 is neither a name nor an address; expected host:port, [::1]:port for IPv6"),
        ("redis-sentinel://u:p@/feed", "host 1 is neither a name nor an address"),
        ("redis-sentinel://a,,b/feed", "host 2 is neither a name nor an address"),
        ("redis-sentinel://a,b,/feed", "host 3 is neither a name nor an address"),
        ("redis-sentinel://a,::1/feed", "host 2 is neither a name nor an address"),
        ("redis-sentinel://[a]/feed", "host 1 is neither a name nor an address"),
        ("redis-sentinel://[::1/feed", "host 1 is neither a name nor an address"),
        ("redis-sentinel://a%3Ab/feed", "host 1 is neither a name nor an address"),
        ("redis-sentinel://a b/feed", "host 1 is neither a name nor an address"),
        ("redis-cluster://a:1,b:0", "the port of host 2 cannot be read; expected a number from 1 to 65535"),
        ("redis-cluster://a:65536", "the port of host 1 cannot be read"),
        ("redis-cluster://a:1:2", "the port of host 1 cannot be read"),
        ("redis-cluster://a:\u0661", "the port of host 1 cannot be read"),
        ("redis-cluster://a:" + "1" * 5000, "the port of host 1 cannot be read"),
        ("redis-sentinel://a", "the name of the master is missing, or none; expected redis-sentinel://"),
        ("redis-sentinel://a/", "the name of the master is missing"),
        ("redis-sentinel://a?db=1", "the name of the master is missing"),
        ("redis-sentinel://a/feed/1", "the name of the master is missing, or none"),
        ("redis-sentinel://a/a b", "the name of the master is missing, or none"),
        ("redis-sentinel://a/%00", "the name of the master is missing, or none"),
        ("redis-sentinel://a/feed#x", "there is something behind the address; expected redis-sentinel://"),
        ("redis-sentinel://:12/secret@h/feed", "there is something behind the address"),
        ("redis-sentinel://:12?secret@h/feed", "there is something behind the address"),
        ("redis-sentinel://:12#secret@h/feed", "there is something behind the address"),
        ("redis-sentinel://:a/b@h/feed", "in a password %23 for #, %2F for /, %3F for ?"),
        ("redis-sentinel://a/feed?sentinel-password=x@y", "there is something behind the address"),
        ("redis-sentinel://a/feed?db=x", "the database cannot be read; expected a number, as in redis-sentinel://"),
        ("redis-sentinel://a/feed?db=", "the database cannot be read"),
        (
            "redis-sentinel://a/feed?db=1&sentinel-pasword=x",
            "parameter 2 behind the question mark is unknown; expected db, sentinel-user, sentinel-password",
        ),
        ("redis-sentinel://a/feed?sentinel-user=x", "expected together with sentinel-password"),
        ("redis-sentinel://:%FF@a/feed", "there are bytes that are not UTF-8"),
        ("redis-sentinel://a/feed?sentinel-password=%FF", "there are bytes that are not UTF-8"),
        ("redis-cluster://a/1", "a cluster has no other database than 0; expected nothing behind the hosts"),
        ("redis-cluster://a?db=1", "a cluster has no other database than 0"),
        ("redis-cluster://a/feed", "a cluster has no other database than 0"),
        ("redis-cluster://a?sentinel-user=x", "parameter 1 behind the question mark is unknown; expected db"),
        ("redis-cluster://a?x@b", "there is something behind the address; expected redis-cluster://"),
        ("redis://:%FF@h", "there are bytes that are not UTF-8"),
        ("redis://:\udcff@h", "there are bytes that are not UTF-8"),
    ],
)
def test_refused(url: str, fault: str) -> None:
    """A URL that cannot be used is refused with what is wrong and what would be accepted, in one line."""
    with pytest.raises(BadRedisUrl) as caught:
        parse_redis_url(url)
    assert fault in str(caught.value)
    assert "expected" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (RedisAddress(), "redis://localhost:6379"),
        (RedisAddress(database=2, tls=True), "rediss://localhost:6379/2"),
        (RedisAddress(password="secret"), "redis://:***@localhost:6379"),
        (RedisAddress(username="feed", password="secret"), "redis://feed:***@localhost:6379"),
        (RedisAddress(username="a@b"), "redis://a%40b@localhost:6379"),
        (RedisAddress(host="::1"), "redis://[::1]:6379"),
        (RedisAddress(host="fe80::1%eth0"), "redis://[fe80::1%25eth0]:6379"),
        (RedisAddress(path="/run/a b?.sock", database=1), "unix:///run/a%20b%3F.sock?db=1"),
        (RedisAddress(path="/s", password="secret"), "unix://:***@/s"),
        (EMBEDDED, "embedded:"),
        (SentinelAddress((("a", 1), ("::1", 2)), "feed"), "redis-sentinel://a:1,[::1]:2/feed"),
        (
            SentinelAddress((("a", 1),), "a/b", True, "u", "secret", 3, "s&t", "secret"),
            "rediss-sentinel://u:***@a:1/a%2Fb?db=3&sentinel-user=s%26t&sentinel-password=***",
        ),
        (ClusterAddress((("a", 1), ("b", 2))), "redis-cluster://a:1,b:2"),
        (ClusterAddress((("a", 1),), True, "u", "secret"), "rediss-cluster://u:***@a:1"),
    ],
)
def test_text(address: Address, text: str) -> None:
    """An address shows as its URL, the password as stars, also inside other things."""
    assert str(address) == text
    assert repr([address]) == f"[{text}]"


@pytest.mark.parametrize("host", ["localhost", "redis-0.redis", "10.0.0.7", "::1", "fe80::1%eth0", "redis_1"])
def test_hosts(host: str) -> None:
    """Names and addresses."""
    assert is_host(host)


@pytest.mark.parametrize(
    "host", ["", "a b", "redis://h", "u@h", "h:6379", "[::1]", "h\n", "::x", "a/b", "h\x00", "\x7f"]
)
def test_no_hosts(host: str) -> None:
    """A URL, or a host with its port, is no host."""
    assert not is_host(host)


texts = st.text(min_size=1, max_size=12)
logins = st.tuples(st.none() | texts, st.none() | texts)
hosts = st.one_of(
    st.text(string.ascii_lowercase + string.digits + ".-_", min_size=1, max_size=20),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)


def login_text(login: tuple[str | None, str | None]) -> str:
    """The part of a URL before the host."""
    username, password = login
    text = quote(username or "", safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"{text}@" if text else ""


def without_password(address: Address) -> Address:
    """The address whose passwords are as they are shown."""
    passwords = {
        field: "***" for field in ("password", "sentinel_password") if getattr(address, field, None) is not None
    }
    return msgspec.structs.replace(address, **passwords)


@property_test
@given(
    st.sampled_from(("redis", "rediss")), logins, hosts, st.none() | st.integers(1, 65535), st.integers(0, 10**9 - 1)
)
def test_any_server(
    scheme: str, login: tuple[str | None, str | None], host: str, port: int | None, database: int
) -> None:
    """Whatever is percent-encoded arrives; the address's text, read again, is the address but for the password."""
    address = parse_redis_url(f"{scheme}://{login_text(login)}{host}{f':{port}' if port else ''}/{database}")
    assert address == RedisAddress(host.strip("[]"), port or 6379, "", scheme == "rediss", login[0], login[1], database)
    assert parse_redis_url(str(address)) == without_password(address)


@property_test
@given(logins, texts, st.integers(0, 10**9 - 1))
def test_any_socket(login: tuple[str | None, str | None], path: str, database: int) -> None:
    """The same for the path of a socket, with any characters in it."""
    address = parse_redis_url(f"unix://{login_text(login)}/{quote(path)}?db={database}")
    assert address == RedisAddress(path=f"/{path}", username=login[0], password=login[1], database=database)
    assert parse_redis_url(str(address)) == without_password(address)


places = st.lists(st.tuples(hosts, st.none() | st.integers(1, 65535)), min_size=1, max_size=4)


def place_texts(places: list[tuple[str, int | None]]) -> str:
    """The hosts of a URL."""
    return ",".join(host if port is None else f"{host}:{port}" for host, port in places)


def places_of(places: list[tuple[str, int | None]], default: int) -> tuple[tuple[str, int], ...]:
    """What is to be read there, each once."""
    return tuple(dict.fromkeys((host.strip("[]"), port or default) for host, port in places))


names = texts.filter(str.isprintable)


@property_test
@given(st.booleans(), logins, places, names, st.integers(0, 10**9 - 1), st.none() | texts, st.none() | texts)
def test_any_sentinels(
    tls: bool,
    login: tuple[str | None, str | None],
    places: list[tuple[str, int | None]],
    name: str,
    database: int,
    user: str | None,
    password: str | None,
) -> None:
    """The same for the sentinels and the name of a master; and each of the servers is known by the same."""
    user = None if password is None else user
    query = f"?db={database}"
    query += "" if user is None else f"&sentinel-user={quote(user, safe='')}"
    query += "" if password is None else f"&sentinel-password={quote(password, safe='')}"
    scheme = "rediss-sentinel" if tls else "redis-sentinel"
    url = f"{scheme}://{login_text(login)}{place_texts(places)}/{quote(name, safe='')}{query}"
    address = parse_redis_url(url)
    found = places_of(places, 26379)
    assert address == SentinelAddress(found, name, tls, *login, database, user, password)
    assert parse_redis_url(str(address)) == without_password(address)
    assert address.server("h", 7) == RedisAddress("h", 7, "", tls, *login, database, master_only=True)
    assert address.sentinel("h", 7) == RedisAddress("h", 7, "", tls, user, password)
    assert address.has_password == (login[1] is not None or password is not None)


@property_test
@given(st.booleans(), logins, places)
def test_any_cluster(tls: bool, login: tuple[str | None, str | None], places: list[tuple[str, int | None]]) -> None:
    """The same for the nodes of a cluster."""
    scheme = "rediss-cluster" if tls else "redis-cluster"
    address = parse_redis_url(f"{scheme}://{login_text(login)}{place_texts(places)}")
    assert address == ClusterAddress(places_of(places, 6379), tls, *login)
    assert parse_redis_url(str(address)) == without_password(address)
    assert address.server("h", 7) == RedisAddress("h", 7, "", tls, *login)


urls = st.text(st.characters()) | st.builds(
    "{}{}{}".format,
    st.sampled_from(
        (
            "redis://",
            "rediss://",
            "unix://",
            "redis://u:",
            "redis://h",
            "redis://[::1]",
            "unix:///",
            "redis-sentinel://",
            "redis-sentinel://h/n",
            "redis-sentinel://h/n?sentinel-password=",
            "rediss-cluster://u:",
            "redis-cluster://h,",
        )
    ),
    st.text(st.characters() | st.sampled_from("@:/?#[]%"), max_size=12),
    st.sampled_from(("", "@h", "@h:1/0", "@/s", "/1", "?db=1", "@h,h2:1/n", "@h/n?db=1")),
)


@property_test
@given(urls)
@example("redis://ho\u2100st")
def test_any_text(url: str) -> None:
    """Any text is an address that round-trips, or a `BadRedisUrl`."""
    try:
        address = parse_redis_url(url)
    except BadRedisUrl:
        return
    assert parse_redis_url(str(address)) == without_password(address)


@property_test
@given(
    st.text(string.ascii_letters + string.digits, max_size=12).map("zq7w".__add__),
    st.text(st.characters() | st.sampled_from("@:/?#[]% "), max_size=6),
    st.sampled_from(("@h", "@h:x", "@h:1/x", "", "@", "@[::1", "@h#f", "@h/1")),
    st.sampled_from(
        (
            "redis://:",
            "redis://u:",
            "rediss://u:",
            "unix://u:",
            "http://u:",
            "redis-cluster://u:",
            "redis-cluster://:",
            "redis-sentinel://u:",
            "redis-sentinel://h/n?sentinel-password=",
        )
    ),
)
def test_password_never_shows(secret: str, junk: str, behind: str, before: str) -> None:
    """However the rest of the URL is broken, no text and no error repeats the password."""
    try:
        shown = repr(parse_redis_url(f"{before}{secret}{junk}{behind}"))
    except BadRedisUrl as error:
        shown = str(error)
    assert secret not in shown
