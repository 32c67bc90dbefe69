"""What comes first on a connection: real ClientHellos and PROXY headers, whole, cut anywhere, and anything else."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.runtime.tls_hello import offered_protocols, proxy_header
from tests.strategies import property_test

NAMES = st.lists(st.from_regex(r"[a-z0-9/.]{1,20}", fullmatch=True), max_size=5)


def hello(*offered: str) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if offered:
        context.set_alpn_protocols(list(offered))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same message in records of at most so many bytes."""
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join([b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces])


@given(NAMES, st.integers(1, 600), st.binary(max_size=20))
@property_test
def test_what_a_client_offers(names: list[str], size: int, behind: bytes) -> None:
    """In one record or in many; until all of it has come, more is needed."""
    data = in_records(hello(*names), size)
    assert offered_protocols(data + behind) == [name.encode() for name in names]
    for end in {0, 1, 4, 5, len(data) // 2, len(data) - 1}:
        assert offered_protocols(data[:end]) is None


@given(st.binary(max_size=300))
@property_test
def test_what_is_none_is_not_waited_for_or_ends(data: bytes) -> None:
    """Whatever it is, there is an answer, and no error."""
    for start in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\xff\x01\x00\x00\xf0"):
        offered = offered_protocols(start + data)
        assert offered is None or isinstance(offered, list)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"\x15\x03\x01", b"\x16\x03\x01\x00\x04\x02abc"])
def test_what_is_no_hello_offers_none(data: bytes) -> None:
    """OpenSSL has the right words for it."""
    assert offered_protocols(data) == []


@given(st.binary(max_size=300))
@property_test
def test_what_is_no_header(data: bytes) -> None:
    """Any bytes are a header, or the beginning of one, or none; nothing else happens."""
    v2 = b"\r\n\r\n\0\r\nQUIT\n"
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", v2, v2 + b"\x21\x11", v2 + b"\x21\x31\0\x0c"):
        with contextlib.suppress(ValueError):
            header = proxy_header(start + data)
            assert header is None or 0 < header.size <= len(start + data)


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 443\r\n", ("203.0.113.7", 5000)),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n", ("2001:db8::7", 5000)),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f" + bytes([203, 0, 113, 7, 192, 0, 2, 1]) + b"\x13\x88\x01\xbb\x04\0\0",
            ("203.0.113.7", 5000),
        ),
    ],
    ids=["TCP4", "TCP6", "version 2, with more behind it"],
)
def test_a_header(header: bytes, source: tuple[str, int]) -> None:
    """Nothing behind it belongs to it, and all of it is needed."""
    found = proxy_header(header + b"\x16\x03\x01")
    assert found is not None
    assert (found.size, (found.source.host, found.source.port)) == (len(header), source)  # type: ignore[union-attr]
    for end in range(len(header)):
        assert proxy_header(header[:end]) is None
