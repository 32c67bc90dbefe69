"""URLs of Redis servers: what they mean, and that a password never shows (docs/operations/redis.md#redis)."""

from __future__ import annotations

import string
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.redis.address import EMBEDDED, BadRedisUrl, RedisAddress, is_host, parse_redis_url
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
    ],
)
def test_forms(url: str, address: RedisAddress) -> None:
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
        ("redis-sentinel://a:26379/name", "the scheme is another; expected redis://"),
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
    ],
)
def test_text(address: RedisAddress, text: str) -> None:
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


def without_password(address: RedisAddress) -> RedisAddress:
    """The address whose password is as it is shown."""
    return address if address.password is None else msgspec.structs.replace(address, password="***")


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


urls = st.text(st.characters()) | st.builds(
    "{}{}{}".format,
    st.sampled_from(("redis://", "rediss://", "unix://", "redis://u:", "redis://h", "redis://[::1]", "unix:///")),
    st.text(st.characters() | st.sampled_from("@:/?#[]%"), max_size=12),
    st.sampled_from(("", "@h", "@h:1/0", "@/s", "/1", "?db=1")),
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
    st.sampled_from(("redis://:", "redis://u:", "rediss://u:", "unix://u:", "redis-cluster://u:", "http://u:")),
)
def test_password_never_shows(secret: str, junk: str, behind: str, before: str) -> None:
    """However the rest of the URL is broken, no text and no error repeats the password."""
    try:
        shown = repr(parse_redis_url(f"{before}{secret}{junk}{behind}"))
    except BadRedisUrl as error:
        shown = str(error)
    assert secret not in shown
