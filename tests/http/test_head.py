"""The HTTP before a WebSocket: any bytes are read or refused."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.http import head
from marketfeed.http.head import BadRequest, Head, header_words, parse_head
from marketfeed.http.response import Response
from marketfeed.http.router import Router
from marketfeed.model.streams import StreamKinds
from tests.strategies import property_test


class TestParseHead:
    def test_a_request_is_read_into_its_parts(self) -> None:
        """Names of headers are in lower case, values without blanks around them, the path without percent signs."""
        read = parse_head(b"get /ws/trade%40TATA_INR?a=%20b HTTP/1.1\r\nHost: x\r\nUPGRADE:\t websocket \r\n")
        assert read == Head("GET", "/ws/trade@TATA_INR", "a=%20b", {"host": "x", "upgrade": "websocket"})

    def test_headers_of_one_name_are_joined(self) -> None:
        """As RFC 9110, section 5.3, has it."""
        assert parse_head(b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nupgrade: websocket").headers == {
            "upgrade": "h2c, websocket"
        }

    def test_an_absolute_target_has_a_path_too(self) -> None:
        """A proxy may write the whole URL."""
        assert parse_head(b"GET http://example.com/ws?x=1 HTTP/1.1").path == "/ws"

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"GET /",
            b"GET / HTTP/2.0",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"G3T / HTTP/1.1",
            b"\x16\x03\x01 \x00 \xff",
            b"GET http://[::1/ HTTP/1.1",
            b"GET / HTTP/1.1\r\nno colon",
            b"GET / HTTP/1.1\r\n: no name",
            b"GET / HTTP/1.1\r\nName : blank before the colon",
            b"GET / HTTP/1.1\r\nA: 1\r\n folded: 2",
            b"GET / HTTP/1.1\r\nA: 1\nUpgrade: websocket",
            b"GET / HTTP/1.1\r\nA: 1\rUpgrade: websocket",
            b"GET / HTTP/1.1\r\nA: 1\x0cUpgrade: websocket",
            b"GET / HTTP/1.1\r\nA: \x00",
            b"GET /\x7f HTTP/1.1",
            b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 101,
        ],
        ids=lambda data: repr(data[:40]),
    )
    def test_what_is_no_request_is_refused(self, data: bytes) -> None:
        """Nothing of it is repeated in the message."""
        with pytest.raises(BadRequest) as caught:
            parse_head(data)
        assert len(str(caught.value)) < 60

    def test_a_query_has_a_hundred_fields_at_most(self) -> None:
        """One of 16 KiB could have thousands, each of which costs as much as a whole request."""
        assert parse_head(b"GET /?" + b"&".join([b"a=b"] * 100) + b" HTTP/1.1").query.count("a") == 100
        with pytest.raises(BadRequest, match="more than 100 fields in the query"):
            parse_head(b"GET /?" + b"&" * 100 + b" HTTP/1.1")

    def test_a_hundred_headers_are_fine(self) -> None:
        """More than any browser sends."""
        assert parse_head(b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 100).headers["a"].count("1") == 100

    @property_test
    @given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda noise: b"GET /" + noise + b" HTTP/1.1\r\nA: 1"))
    def test_any_bytes_are_read_or_refused(self, data: bytes) -> None:
        """There is no third way, and what was read can be routed and answered."""
        try:
            read = parse_head(data)
        except BadRequest:
            return
        answer = Router(StreamKinds(), {}).ask(read, None)
        if isinstance(answer, Response):
            answer.encode()


class TestWords:
    def test_words_are_in_lower_case_and_without_blanks(self) -> None:
        """Of a short header, and of one that is not worth remembering."""
        assert header_words("Keep-Alive, upgrade") == {"keep-alive", "upgrade"}
        assert header_words("A, b" + "," * 200) == {"a", "b", ""}

    def test_what_strangers_write_is_not_remembered(self) -> None:
        """A hundred headers of some thousand words each would take tens of megabytes."""
        tracemalloc.start()
        try:
            for header in range(100):
                header_words(",".join(f"{header}.{word}" for word in range(1000)))
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 100_000


KEY, OTHER = b"dGhlIHNhbXBsZSBub25jZQ==", b"AQIDBAUGBwgJCgsMDQ4PEA=="
LINES = (
    b"Host: x",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Key: " + OTHER,
    b"sec-websocket-key: " + KEY,
    b"Sec-WebSocket-Key: short",
    b"Sec-WebSocket-Key: " + KEY + b"=",
    b"Cookie: a=b",
    b"X-Forwarded-For: 192.0.2.1",
    b"Upgrade: websocket",
    b"Bad line",
)


def anew(data: bytes) -> Head | str:
    """What a request is when nothing is remembered."""
    try:
        return head._parse(data)
    except BadRequest as fault:
        return str(fault)


class TestAlike:
    """Requests that differ in their keys only are read once."""

    @property_test
    @given(st.lists(st.lists(st.sampled_from(LINES), max_size=5), min_size=1, max_size=6))
    def test_nobody_is_taken_for_another(self, requests: list[list[bytes]]) -> None:
        """Whatever came before: each is what it is by itself, and nothing of it changes what the next one is."""
        for lines in requests:
            data = b"\r\n".join([b"GET / HTTP/1.1", *lines])
            try:
                found: Head | str = parse_head(data)
            except BadRequest as fault:
                found = str(fault)
            assert found == anew(data)
            if isinstance(found, Head):
                found.headers.clear()

    @pytest.mark.parametrize("second", [b"Sec-WebSocket-Key: " + OTHER, b"sec-websocket-key: " + OTHER])
    def test_two_keys_are_none(self, second: bytes) -> None:
        """However often they come."""
        for key in (KEY, OTHER, KEY):
            found = parse_head(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: " + key + b"\r\n" + second)
            assert found.headers["sec-websocket-key"] == f"{key.decode()}, {OTHER.decode()}"

    def test_what_is_one_clients_is_not_remembered(self) -> None:
        head._alike.clear()
        for more in (b"Cookie: a=b", b"Authorization: Bearer t", b"Sec-WebSocket-Protocol: t", b"X: " + 2000 * b"x"):
            parse_head(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: " + KEY + b"\r\n" + more)
        parse_head(b"GET /?token=t HTTP/1.1\r\nSec-WebSocket-Key: " + KEY)
        assert not head._alike
        parse_head(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: " + KEY)
        parse_head(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: " + OTHER)
        assert len(head._alike) == 1
        assert not any(KEY in each or OTHER in each for each in head._alike)

    def test_so_many_are_remembered_at_most(self) -> None:
        for number in range(1000):
            parse_head(b"GET / HTTP/1.1\r\nX: %d\r\nSec-WebSocket-Key: %s" % (number, KEY))
            assert len(head._alike) <= 256
