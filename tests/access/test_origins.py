"""Which pages may connect: what a pattern admits, what the default does, and that no trick gets past either."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.access.origins import ANY, NULL, AllowedOrigins, OriginPattern, admitting_flag, is_origin, parse_origin
from tests.strategies import property_test

MALFORMED = [
    "",
    " ",
    "example.com",
    "//example.com",
    "https:example.com",
    "https://",
    "https://.",
    "https:///",
    "file://",
    "file:///home/page.html",
    "https://example.com/",
    "https://example.com/path",
    "https://example.com?",
    "https://example.com#",
    "https://example.com\\",
    "https://example.com\\@evil.net",
    "https://user@example.com",
    "https://user:secret@example.com",
    "https://evil.net@example.com",
    "https://example.com, https://evil.net",
    "https://example.com,https://evil.net",
    "https://example.com https://evil.net",
    "null, https://example.com",
    "null null",
    "NULL",
    "nullx",
    "*",
    "https://*",
    "https://*.example.com",
    " https://example.com",
    "https://example.com ",
    "https://example.com\n",
    "https://example.com\r\nX: y",
    "https://example.com\t",
    "https://example.com\x00",
    "https://example.com\x00.evil.net",
    "https://example%2ecom",
    "https://example.com%00",
    "https://%65xample.com",
    "https://.example.com",
    "https://example..com",
    "https://example.com..",
    "https://example.com:",
    "https://example.com:0",
    "https://example.com:0443",
    "https://example.com:65536",
    "https://example.com:99999",
    "https://example.com:-1",
    "https://example.com:443:443",
    "https://example.com:443/",
    "https://example.com:\uff14\uff14\uff13",
    "https://example.com:*",
    "https://bücher.example",
    "https://example\u3002com",
    "https://\u212aexample.com",  # the first letter is the Kelvin sign, whose lower case is an ASCII k
    "\uff28\uff34\uff34\uff30\uff33://example.com",
    "https://[::1",
    "https://::1",
    "https://[]",
    "https://[::1%25eth0]",
    "https://[::1]x",
    "https://[1.2.3.4]",
    "https://[example.com]",
    "https://127.1",
    "https://0x7f.0.0.1",
    "https://127.0.0.0x1",
    "https://0177.0.0.1",
    "https://2130706433",
    "https://127.0.0.256",
    "https://example.com.1",
    "1https://example.com",
    "://example.com",
    "https://" + "a" * 400,
]


def permits(patterns: str, origin: str | None, host: str | None = "feed.net", *, loopback: bool = False) -> bool:
    """`patterns`: what the flags hold, with blanks between them."""
    allowed = AllowedOrigins([parse_origin(text) for text in patterns.split()])
    return allowed.permits(origin, host, peer_is_loopback=loopback)


class TestDefault:
    @pytest.mark.parametrize("patterns", ["", "*", "null", "https://example.com"])
    @pytest.mark.parametrize("host", [None, "", "feed.net", "a b"])
    def test_a_program_is_permitted(self, patterns: str, host: str | None) -> None:
        """Rule 1: without an Origin, whatever is configured, and whatever the Host header is."""
        assert permits(patterns, None, host)

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("https://feed.net", "feed.net"),
            ("http://feed.net", "feed.net"),
            ("https://feed.net:8443", "feed.net"),
            ("https://feed.net", "feed.net:8080"),
            ("https://feed.net", "feed.net:"),
            ("capacitor://feed.net", "feed.net"),
            ("HTTPS://Feed.NET", "fEED.net"),
            ("https://feed.net.", "feed.net"),
            ("https://feed.net", "feed.net.:8080"),
            ("http://10.0.0.1:3000", "10.0.0.1:8080"),
            ("http://[2001:DB8::1]:3000", "[2001:db8:0::1]:8080"),
            ("http://localhost:3000", "localhost:8080"),
            ("http://my_host", "my_host:8080"),
            ("https://xn--bcher-kva.example", "XN--bcher-kva.example"),
        ],
    )
    def test_a_page_may_connect_to_the_host_that_it_came_from(self, origin: str, host: str) -> None:
        """Scheme, port, case, a dot behind the name and the spelling of an address make no difference."""
        assert permits("", origin, host)

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("https://evil.net", "feed.net"),
            ("https://feed.net.evil.net", "feed.net"),
            ("https://evilfeed.net", "feed.net"),
            ("https://www.feed.net", "feed.net"),
            ("https://feed.net", "www.feed.net"),
            ("https://net", "feed.net"),
            ("https://xn--fed-hoa.net", "feed.net"),
            ("https://10.0.0.1", "10.0.0.10"),
            ("https://[::2]", "[::20]"),
            ("null", "null"),
            ("null", ""),
            ("null", None),
        ],
    )
    def test_a_page_of_another_host_may_not(self, origin: str, host: str | None) -> None:
        """However much the names are alike; a page that hides its origin belongs to no host."""
        assert not permits("", origin, host, loopback=True)

    @pytest.mark.parametrize(
        "host",
        [
            None,
            "",
            ":8080",
            " feed.net",
            "feed.net, feed.net",
            "feed.net,evil.net",
            "x@feed.net",
            "feed.net/",
            "feed.net:80:80",
            "feed.net:http",
            "feed.net..",
            "feed.net\x00",
            "http://feed.net",
            "f%65ed.net",
            "feed.net:" + "0" * 400,
        ],
    )
    def test_a_host_header_that_cannot_be_read_equals_nothing(self, host: str | None) -> None:
        """It is missing, malformed, or there are several."""
        assert not permits("", "https://feed.net", host)

    @pytest.mark.parametrize(
        "origin",
        [
            "http://localhost",
            "http://localhost:3000",
            "HTTPS://LocalHost.",
            "http://app.localhost",
            "http://a.b.localhost:8080",
            "http://127.0.0.1:5173",
            "http://127.255.1.2",
            "http://[::1]:3000",
            "http://[0:0:0:0:0:0:0:1]",
            "capacitor://localhost",
        ],
    )
    def test_a_loopback_page_may_connect_from_a_loopback_address_only(self, origin: str) -> None:
        """A developer's page on another port finds the daemon beside it; one elsewhere is not helped by its name."""
        assert permits("", origin, "feed.net", loopback=True)
        assert not permits("", origin, "feed.net", loopback=False)

    @pytest.mark.parametrize(
        "origin",
        [
            "http://localhost.evil.net",
            "http://evillocalhost",
            "http://127.evil.net",
            "http://127.0.0.1.evil.net",
            "http://128.0.0.1",
            "http://1.127.0.0",
            "http://[::2]",
            "http://[::127.0.0.1]",
            "http://[1::1]",
            "null",
            "file://",
        ],
    )
    def test_what_only_looks_like_loopback_is_not(self, origin: str) -> None:
        """Nor is a page without an origin of its own."""
        assert not permits("", origin, "feed.net", loopback=True)


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "origin"),
        [
            ("https://example.com", "https://example.com"),
            ("https://example.com", "https://example.com:443"),
            ("https://example.com:443", "https://example.com"),
            ("http://example.com:80", "http://example.com"),
            ("HTTPS://Example.COM", "https://EXAMPLE.com"),
            ("https://example.com.", "https://example.com"),
            ("https://example.com", "https://example.com."),
            ("https://example.com:8443", "https://example.com:8443"),
            ("https://example.com:*", "https://example.com"),
            ("https://example.com:*", "https://example.com:8443"),
            ("http://localhost:*", "http://localhost:5173"),
            ("https://*.example.com", "https://app.example.com"),
            ("https://*.example.com", "https://APP.example.com:443"),
            ("https://*.example.com", "https://xn--bcher-kva.example.com"),
            ("https://*.example.com:8443", "https://app.example.com:8443"),
            ("https://*.example.com:*", "https://app.example.com:1"),
            ("https://*.a.example.com", "https://b.a.example.com"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("ionic://localhost:80", "ionic://localhost:80"),
            ("http://10.0.0.1", "http://10.0.0.1"),
            ("http://[0::1]:3000", "http://[::1]:3000"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://*.BÜCHER.example", "https://www.xn--bcher-kva.example"),
            ("https://xn--bcher-kva.example", "https://XN--BCHER-KVA.example"),
            ("null", "null"),
            ("*", "null"),
            ("*", "https://anywhere.example"),
            ("*", "file://"),
            ("https://example.com null", "null"),
            ("https://a.net https://b.net", "https://b.net"),
        ],
    )
    def test_admits(self, pattern: str, origin: str) -> None:
        """What the operator meant; scheme and host without regard to case, a default port written or not."""
        assert permits(pattern, origin)

    @pytest.mark.parametrize(
        ("pattern", "origin"),
        [
            ("https://example.com", "http://example.com"),
            ("https://example.com", "https://example.com:80"),
            ("https://example.com", "https://example.com:8443"),
            ("https://example.com:8443", "https://example.com"),
            ("https://example.com", "https://www.example.com"),
            ("https://example.com", "https://example.com.evil.net"),
            ("https://example.com", "https://evilexample.com"),
            ("https://example.com", "https://example.co"),
            ("https://example.com", "https://example-com"),
            ("https://example.com", "null"),
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://a.b.example.com"),
            ("https://*.example.com", "https://evilexample.com"),
            ("https://*.example.com", "https://app.example.com.evil.net"),
            ("https://*.example.com", "http://app.example.com"),
            ("https://*.example.com", "https://app.example.com:8443"),
            ("https://*.example.com", "https://.example.com"),
            ("https://*.example.com", "https://*.example.com"),
            ("https://*.example.com", "https://evil.net/.example.com"),
            ("https://*.example.com", "https://evil.net#.example.com"),
            ("https://*.example.com", "https://evil.net\\.example.com"),
            ("https://example.com:*", "http://example.com:8443"),
            ("capacitor://localhost", "capacitor://localhost:80"),
            ("capacitor://localhost", "http://localhost"),
            ("http://127.0.0.1", "http://127.0.0.10"),
            ("null", "https://null"),
            ("https://null", "null"),
        ],
    )
    def test_admits_nothing_else(self, pattern: str, origin: str) -> None:
        """Rule 4: another scheme, another port, more or fewer labels, a name that merely contains the right one."""
        assert not permits(pattern, origin)

    @pytest.mark.parametrize("origin", ["https://feed.net", "http://localhost:3000"])
    def test_patterns_replace_the_default(self, origin: str) -> None:
        """Neither the own host nor a loopback page is admitted beside them."""
        assert permits("", origin, "feed.net", loopback=True)
        assert not permits("https://example.com", origin, "feed.net", loopback=True)

    @pytest.mark.parametrize("origin", MALFORMED)
    def test_the_malformed_is_refused(self, origin: str) -> None:
        """Rule 3, against patterns and hosts that a careless reader would find in it."""
        patterns = "https://example.com https://*.example.com https://evil.net http://127.0.0.1 https://[::1]:* null"
        assert not permits(patterns, origin, loopback=True)
        for host in ("example.com", "[::1]", "127.0.0.1", "evil.net", "bücher.example", origin):
            assert not permits("", origin, host, loopback=True)

    @property_test
    @given(st.text(), st.none() | st.text(), st.booleans(), st.sampled_from(["", "*", "null", "https://*.a.b:*"]))
    def test_no_text_makes_it_raise(self, origin: str, host: str | None, loopback: bool, patterns: str) -> None:
        """Whatever a header holds, there is an answer."""
        assert permits(patterns, origin, host, loopback=loopback) in (True, False)

    @property_test
    @given(st.text("aA.:/*@[]%10x-, \x00ß", max_size=20), st.text("aA.:[]%10, ", max_size=12))
    @example("a://[::]", "[::]")
    @example("a://1", "1")
    def test_nor_does_one_that_is_nearly_an_origin(self, rest: str, host: str) -> None:
        """With the characters that mean something. What is admitted by its host contains that host."""
        if permits("", f"https://{rest}", host):
            assert not set(rest) & set("/@%, \x00ß*")
        assert permits("https://*.a", f"https://{rest}") in (True, False)

    @property_test
    @given(
        st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=3), min_size=1, max_size=4),
        st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=3), min_size=1, max_size=3),
    )
    @example(["a", "b", "c"], ["b", "c"])
    @example(["b", "c"], ["b", "c"])
    def test_a_wildcard_is_one_label(self, host: list[str], domain: list[str]) -> None:
        """Against lists of labels."""
        is_below = len(host) == len(domain) + 1 and host[1:] == domain
        assert permits(f"https://*.{'.'.join(domain)}", f"https://{'.'.join(host)}") == is_below


class TestParse:
    @pytest.mark.parametrize(
        ("text", "pattern"),
        [
            ("*", ANY),
            (" null ", NULL),
            ("NULL", NULL),
            ("https://Example.com", OriginPattern("https", "example.com")),
            (" https://example.com:443", OriginPattern("https", "example.com")),
            ("http://example.com:443", OriginPattern("http", "example.com", "443")),
            ("https://example.com:*", OriginPattern("https", "example.com", "*")),
            ("https://*.example.com:8443", OriginPattern("https", "*.example.com", "8443")),
            ("https://faß.example", OriginPattern("https", "xn--fa-hia.example")),
            ("app+x.y-z://localhost", OriginPattern("app+x.y-z", "localhost")),
        ],
    )
    def test_reads(self, text: str, pattern: OriginPattern) -> None:
        """Into the spelling in which origins are compared, which is read as the same again."""
        assert parse_origin(text) == pattern
        assert parse_origin(str(pattern)) == pattern

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "example.com",
            "*.example.com",
            "https://",
            "https://example.com/",
            "https://example.com:443/",
            "https://user@example.com",
            "https://a.net,https://b.net",
            "https://a b",
            "file://",
            "https://exam%70le.com",
            "https://1.2.3",
            "https://[::1",
            "https://[1.2.3.4]",
            "https://*.127.0.0.1",
            "https://*.0.0.1",
            "https://*.[::1]",
            "https://*.",
            "https://a\nb",
            "https://" + "a" * 400,
        ],
    )
    def test_says_what_would_be_accepted(self, text: str) -> None:
        """With an example of every form."""
        with pytest.raises(ValueError, match=r"scheme://host\[:port\].* https://app\.example\.com.*\* for any origin"):
            parse_origin(text)

    @pytest.mark.parametrize("port", ["", "0", "65536", "0443", "x", "**", "4*", "-1", "\u0664"])
    def test_says_which_ports(self, port: str) -> None:
        """When the port alone is wrong."""
        with pytest.raises(ValueError, match=r"a port from 1 to 65535, or \* for any"):
            parse_origin(f"https://example.com:{port}")

    @pytest.mark.parametrize(
        "host", ["*", "**.example.com", "a*.example.com", "*.*.example.com", "www.*.com", "*a.com"]
    )
    def test_says_where_a_wildcard_may_stand(self, host: str) -> None:
        """It is no part of a label, and there is one only."""
        with pytest.raises(ValueError, match=r"first label, before a domain, as in https://\*\.example\.com"):
            parse_origin(f"https://{host}")

    @pytest.mark.parametrize("host", ["☃️\u200d.example", "ü" * 64 + ".example", "a\u3002\u3002ü"])
    def test_says_when_a_name_has_no_ascii_form(self, host: str) -> None:
        """Such a name is no host's."""
        with pytest.raises(ValueError, match="can be written as ASCII"):
            parse_origin(f"https://{host}")

    @property_test
    @given(st.text() | st.text("htps:/*.aü10[]:@ ", max_size=24).map("https://{}".format))
    def test_anything_is_read_or_refused(self, text: str) -> None:
        """With ValueError and nothing else; what was read is ASCII without blanks, and read as the same again."""
        try:
            pattern = parse_origin(text)
        except ValueError:
            return
        assert str(pattern).isascii()
        assert " " not in str(pattern)
        assert parse_origin(str(pattern)) == pattern


class TestRefusals:
    @pytest.mark.parametrize(
        ("origin", "flag"),
        [
            ("https://App.example.com:443", "--allowed-origin https://app.example.com"),
            ("http://localhost:3000", "--allowed-origin http://localhost:3000"),
            ("http://[0::1]:3000", "--allowed-origin http://[::1]:3000"),
            ("null", "--allowed-origin null"),
        ],
    )
    def test_the_flag_that_admits(self, origin: str, flag: str) -> None:
        """It does, as the settings read it."""
        assert admitting_flag(origin) == flag
        assert is_origin(origin)
        assert permits(flag.split()[1], origin)

    @pytest.mark.parametrize("origin", MALFORMED)
    def test_no_flag_admits_the_malformed(self, origin: str) -> None:
        """So that no byte of it gets into the log."""
        assert admitting_flag(origin) is None
        assert not is_origin(origin)

    def test_each_origin_is_logged_once(self) -> None:
        """In whichever spelling; all that is malformed counts as one."""
        allowed = AllowedOrigins()
        origins = [
            "https://a.net",
            "https://b.net",
            "https://A.net:443",
            "https://a.net",
            "null",
            "?",
            "null",
            "b a",
            "",
        ]
        firsts = [True, True, False, False, True, True, False, False, False]
        assert [allowed.first_refusal(origin) for origin in origins] == firsts

    def test_memory_is_bounded(self) -> None:
        """Whoever invents origins does not fill it, and one that comes again and again is not logged again."""
        allowed = AllowedOrigins()
        assert allowed.first_refusal("https://often.net")
        assert allowed.first_refusal("https://once.net")
        for number in range(5000):
            assert allowed.first_refusal(f"https://{number}.x.net")
            assert not allowed.first_refusal("https://often.net")
        assert not allowed.first_refusal("https://4999.x.net")
        assert allowed.first_refusal("https://once.net"), "it is still remembered"
