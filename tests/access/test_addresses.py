"""Where clients are and how often they may connect: proxies are believed no further than trusted, limits are exact."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.access.addresses import (
    ConnectionCounts,
    ConnectRate,
    Key,
    TrustedProxies,
    address_key,
    is_loopback,
    parse_network,
)
from tests.strategies import property_test

INSIDE, OUTSIDE = "10.0.0.0/8", "203.0.113.7"

inside = st.integers(0, 2**24 - 1).map(lambda number: str(ip_address((10 << 24) + number)))
"""Addresses of the trusted network."""
outside = st.ip_addresses().map(str).filter(lambda text: not proxies(INSIDE).contains(text))
not_mapped = st.ip_addresses(v=6).filter(lambda address: address not in IPv6Network("::ffff:0:0/96"))
ports = st.just("") | st.integers(0, 65535).map(":{}".format)


def proxies(*networks: str) -> TrustedProxies:
    return TrustedProxies([parse_network(text) for text in networks])


class TestNetworks:
    @pytest.mark.parametrize(
        ("text", "network"),
        [
            ("10.0.0.0/8", IPv4Network("10.0.0.0/8")),
            (" 10.0.0.1 ", IPv4Network("10.0.0.1/32")),
            ("0.0.0.0/0", IPv4Network("0.0.0.0/0")),
            ("::1", IPv6Network("::1/128")),
            ("FD00::/8", IPv6Network("fd00::/8")),
            ("::/0", IPv6Network("::/0")),
            ("::ffff:10.0.0.1", IPv4Network("10.0.0.1/32")),
            ("::ffff:10.0.0.0/104", IPv4Network("10.0.0.0/8")),
            ("2001:db8::/96", IPv6Network("2001:db8::/96")),
            ("unix", "unix"),
        ],
    )
    def test_reads(self, text: str, network: object) -> None:
        """An address is a network of one; IPv4 written as IPv6 is IPv4."""
        assert parse_network(text) == network

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "proxy.example.com",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/\uff18",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "010.0.0.1",
            "10.0.0.1:80",
            "[::1]",
            "fe80::1%eth0",
            "::/129",
            "1",
            "*",
            "Unix",
        ],
    )
    def test_says_what_would_be_accepted(self, text: str) -> None:
        """With an example of every form."""
        with pytest.raises(ValueError, match=r"an address such as 10\.0\.0\.1.*a network such as 10\.0\.0\.0/8.*unix"):
            parse_network(text)

    def test_asks_what_was_meant_by_an_address_with_a_prefix(self) -> None:
        """A slip of the finger must not trust more than was meant."""
        with pytest.raises(
            ValueError, match=r"^10\.0\.0\.0/8 for the whole network, or 10\.1\.2\.3 for the one address"
        ):
            parse_network("10.1.2.3/8")


class TestClientAddress:
    @pytest.mark.parametrize("peer", [OUTSIDE, "10.0.0.1", "::1", None])
    @pytest.mark.parametrize("forwarded", [None, "", "1.2.3.4"])
    def test_without_trust_it_is_the_peer(self, peer: str | None, forwarded: str | None) -> None:
        """Whatever anybody says."""
        assert proxies().client_address(peer, forwarded) == peer

    @pytest.mark.parametrize(
        ("forwarded", "client"),
        [
            (None, "10.0.0.1"),
            ("", "10.0.0.1"),
            ("1.2.3.4", "1.2.3.4"),
            ("9.9.9.9, 1.2.3.4", "1.2.3.4"),
            ("9.9.9.9, 1.2.3.4, 10.0.0.3, 10.0.0.2", "1.2.3.4"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("1.2.3.4:567", "1.2.3.4"),
            ("[2001:db8::1]:567", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("9.9.9.9,::ffff:10.0.0.2", "9.9.9.9"),
            ("  1.2.3.4\t,10.0.0.2:80 ", "1.2.3.4"),
            ("unknown", "10.0.0.1"),
            ("9.9.9.9, unknown, 10.0.0.2", "10.0.0.2"),
            ("9.9.9.9, ", "10.0.0.1"),
            ("9.9.9.9, , 10.0.0.2", "10.0.0.2"),
            ("9.9.9.9, unix:", "10.0.0.1"),
            ("9.9.9.9, :80", "10.0.0.1"),
            ("9.9.9.9, []:80", "10.0.0.1"),
            ("9.9.9.9, 1.2.3.4:", "10.0.0.1"),
            ("9.9.9.9, 1.2.3.4:x", "10.0.0.1"),
            ("9.9.9.9, 01.2.3.4", "10.0.0.1"),
            ("9.9.9.9, 1.2.3.4/8", "10.0.0.1"),
            ("9.9.9.9, 1.2.3.4%x", "10.0.0.1"),
            ("9.9.9.9, \u0661.2.3.4", "10.0.0.1"),
            ("9.9.9.9, " + "1" * 16000, "10.0.0.1"),
        ],
    )
    def test_behind_trusted_proxies(self, forwarded: str | None, client: str) -> None:
        """From right to left, to the first untrusted hop; what is no address ends the reading."""
        assert proxies(INSIDE).client_address("10.0.0.1", forwarded) == client
        assert proxies(INSIDE).client_address("::ffff:10.0.0.1", forwarded) in (client, "::ffff:10.0.0.1")

    def test_a_client_of_a_unix_socket_has_no_address(self) -> None:
        """Unless such clients are said to be proxies."""
        assert proxies(INSIDE).client_address(None, "1.2.3.4") is None
        assert proxies("unix").client_address(None, "1.2.3.4") == "1.2.3.4"
        assert proxies("unix", INSIDE).client_address(None, "1.2.3.4, 10.0.0.1") == "1.2.3.4"
        assert proxies("unix").client_address(None, None) is None
        assert proxies("unix").client_address(None, "unknown") is None
        assert proxies("unix").client_address("10.0.0.1", "1.2.3.4") == "10.0.0.1"

    def test_a_peer_that_is_no_address_is_not_trusted(self) -> None:
        """Whatever the transport says."""
        assert proxies("0.0.0.0/0", "::/0").client_address("somewhere", "1.2.3.4") == "somewhere"

    @property_test
    @given(st.text() | st.text("1.:,[] "), inside, outside, ports, st.lists(st.tuples(inside, ports), max_size=3))
    def test_a_client_cannot_forge_its_address(
        self, forged: str, peer: str, client: str, port: str, hops: list[tuple[str, str]]
    ) -> None:
        """It sends any header; the first trusted proxy writes whom it sees behind that, and so do the next ones."""
        seen = f"[{client}]{port}" if ":" in client else f"{client}{port}"
        forwarded = ", ".join([forged, seen, *(hop + hop_port for hop, hop_port in hops)])
        found = proxies(INSIDE).client_address(peer, forwarded)
        assert address_key(found) == address_key(client)

    @property_test
    @given(outside, st.text())
    def test_who_is_no_proxy_is_not_believed(self, peer: str, forwarded: str) -> None:
        """The peer is the client."""
        assert proxies(INSIDE).client_address(peer, forwarded) == peer

    @property_test
    @given(st.text() | st.text("1.:,[]%/ "), inside)
    def test_what_a_header_names_is_an_address(self, forwarded: str, peer: str) -> None:
        """In its usual spelling, whatever the header holds."""
        found = proxies(INSIDE).client_address(peer, forwarded)
        assert found == str(ip_address(found or ""))


class TestKeys:
    @pytest.mark.parametrize(
        ("address", "key"),
        [
            (None, None),
            ("1.2.3.4", "1.2.3.4"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("::FFFF:102:304", "1.2.3.4"),
            ("2001:db8:1:2:3:4:5:6", bytes.fromhex("20010db800010002")),
            ("2001:db8:1:2::", bytes.fromhex("20010db800010002")),
            ("fe80::1%eth0", bytes.fromhex("fe80000000000000")),
            ("not: an address", "not: an address"),
            ("::1\x00", "::1\x00"),
            ("::\ud800", "::\ud800"),
        ],
    )
    def test_key(self, address: str | None, key: Key | None) -> None:
        """IPv4 whole, IPv6 by its /64, without a scope; a text that is no address stands for itself."""
        assert address_key(address) == key

    @property_test
    @given(not_mapped, not_mapped)
    def test_two_have_the_same_key_in_one_64_only(self, one: object, other: object) -> None:
        """Against the networks of the standard library; IPv4 in IPv6 is another matter."""
        near = IPv6Network((str(one), 64), strict=False).broadcast_address  # it is never IPv4 in IPv6
        same = IPv6Network((str(one), 64), strict=False) == IPv6Network((str(other), 64), strict=False)
        assert address_key(str(one)) == address_key(str(near))
        assert (address_key(str(one)) == address_key(str(other))) == same

    @pytest.mark.parametrize(
        ("address", "answer"),
        [
            ("127.0.0.1", True),
            ("127.3.2.1", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("128.0.0.1", False),
            ("::2", False),
            ("localhost", False),
            (None, False),
        ],
    )
    def test_is_loopback(self, address: str | None, answer: bool) -> None:
        """A name is none, nor is a Unix socket."""
        assert is_loopback(address) is answer


def permitted(rate: ConnectRate, address: str | None, now: float) -> int:
    """How many attempts are permitted at this moment, up to 1000."""
    return sum(rate.attempt(address, now) == 0 for _ in range(1000))


class TestConnectRate:
    def test_a_burst_then_one_each_interval(self) -> None:
        """300 at once, then one a second; who comes in between hears when."""
        rate = ConnectRate(300)
        assert permitted(rate, OUTSIDE, 1.7e9) == 300
        assert rate.attempt(OUTSIDE, 1.7e9) == 1
        assert rate.attempt(OUTSIDE, 1.7e9 + 0.9) == 1
        assert permitted(rate, OUTSIDE, 1.7e9 + 1) == 1
        assert permitted(rate, OUTSIDE, 1.7e9 + 11) == 10
        assert permitted(rate, OUTSIDE, 1.7e9 + 1000) == 300

    @pytest.mark.parametrize("address", [OUTSIDE, "127.0.0.1", "2001:db8::1", None])
    def test_no_limit(self, address: str | None) -> None:
        """0 permits everything."""
        assert permitted(ConnectRate(0), address, 0.0) == 1000

    def test_a_unix_socket_is_never_limited(self) -> None:
        """It has no address to count by."""
        assert permitted(ConnectRate(1), None, 0.0) == 1000

    def test_addresses_are_counted_by_their_key(self) -> None:
        """A /64 shares a bucket, and so do an IPv4 address and its spelling in IPv6; another address has its own."""
        rate = ConnectRate(1)
        assert [rate.attempt(address, 0.0) for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")] == [
            0,
            300,
            0,
        ]
        assert [rate.attempt(address, 0.0) for address in ("1.2.3.4", "::ffff:1.2.3.4", "1.2.3.5")] == [0, 300, 0]

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.255.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "100.99.0.1",
            "100.110.0.1",
            "::ffff:10.0.0.1",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1%eth0",
            "febf::1",
        ],
    )
    def test_local_addresses_are_spared_unless_they_are_proxies(self, address: str) -> None:
        """A proxy that says not who is behind it must not count as one client; one that does is counted behind."""
        assert permitted(ConnectRate(5, spare_local_but=proxies()), address, 0.0) == 1000
        assert permitted(ConnectRate(5, spare_local_but=proxies("192.0.2.0/24", "unix")), address, 0.0) == 1000
        assert permitted(ConnectRate(5, spare_local_but=proxies("0.0.0.0/0", "::/0")), address, 0.0) == 5
        assert permitted(ConnectRate(5), address, 0.0) == 5

    @pytest.mark.parametrize(
        "address",
        [
            "1.2.3.4",
            "11.0.0.1",
            "126.0.0.1",
            "128.0.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "172.1.6.1",
            "192.167.0.1",
            "169.253.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "100.6.4.1",
            "100.1.0.1",
            "110.0.0.1",
            "2001:db8::1",
            "fb00::1",
            "fe00::1",
            "fec0::1",
        ],
    )
    def test_public_addresses_are_not_spared(self, address: str) -> None:
        """Next to the borders of the networks that are."""
        assert permitted(ConnectRate(5, spare_local_but=proxies()), address, 0.0) == 5

    @property_test
    @given(st.ip_addresses(v=4))
    def test_spared_are_the_networks_of_the_rfcs(self, address: object) -> None:
        """Against the standard library."""
        local = ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
        rate = ConnectRate(1, spare_local_but=proxies())
        rate.attempt(str(address), 0.0)
        assert (rate.attempt(str(address), 0.0) == 0) == any(address in IPv4Network(network) for network in local)


class TestConnectionCounts:
    def test_up_to_the_limit(self) -> None:
        """One more is refused and not counted; one that leaves makes room; nothing stays."""
        counts = ConnectionCounts(2)
        assert [counts.enter("1.2.3.4") for _ in range(4)] == [True, True, False, False]
        assert counts.enter(b"12345678")
        counts.leave("1.2.3.4")
        assert [counts.enter("1.2.3.4") for _ in range(2)] == [True, False]
        for _ in range(2):
            counts.leave("1.2.3.4")
        counts.leave(b"12345678")
        assert len(counts) == 0

    @pytest.mark.parametrize(("limit", "key"), [(0, "1.2.3.4"), (1, None)])
    def test_without_a_limit_nothing_is_counted(self, limit: int, key: Key | None) -> None:
        """Nor for a client that has no address."""
        counts = ConnectionCounts(limit)
        assert all(counts.enter(key) for _ in range(100))
        assert len(counts) == 0
        counts.leave(key)
        assert len(counts) == 0

    @property_test
    @given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.sampled_from(["1.1.1.1", "2.2.2.2", b"12345678"]))))
    def test_exactly_as_a_counter(self, limit: int, steps: list[tuple[bool, Key]]) -> None:
        """Whoever enters and leaves in whatever order, even who never entered."""
        counts, reference = ConnectionCounts(limit), Counter[Key]()
        for enters, key in steps:
            if enters:
                assert counts.enter(key) == (reference[key] < limit)
                reference[key] = min(limit, reference[key] + 1)
            else:
                counts.leave(key)
                reference[key] = max(0, reference[key] - 1)
            assert len(counts) == len(+reference)
