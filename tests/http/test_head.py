"""The HTTP before a WebSocket: any bytes are read or refused, every path leads where docs/protocol.md says."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.http.head import (
    BadRequest,
    DepthAsked,
    Head,
    Upgrade,
    header_words,
    parse_head,
    route,
)
from marketfeed.http.response import Response
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Dialect
from tests.strategies import property_test, spellings

KINDS = StreamKinds()
WEBSOCKET = {"upgrade": "websocket"}


def head(target: str, method: str = "GET", headers: dict[str, str] | None = None) -> Head:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return parse_head("\r\n".join(lines).encode())


def routed(target: str, method: str = "GET", *, ready: bool = True, **headers: str) -> Upgrade | DepthAsked | Response:
    return route(head(target, method, headers), KINDS, lambda: ready)


def status(answer: Upgrade | DepthAsked | Response) -> int:
    assert isinstance(answer, Response)
    return answer.status


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
        answer = route(read, KINDS, lambda: True)
        if isinstance(answer, Response):
            answer.encode()


class TestRoute:
    @pytest.mark.parametrize(
        ("target", "dialect", "streams"),
        [
            ("/", Dialect.HOUSE, []),
            ("/?token=x", Dialect.HOUSE, []),
            ("/stream", Dialect.COMBINED, []),
            ("/stream/", Dialect.COMBINED, []),
            ("/stream?streams=", Dialect.COMBINED, []),
            ("/stream?streams=trade@A", Dialect.COMBINED, ["trade@A"]),
            ("/stream?streams=trade%40A%2Fdepth%40A", Dialect.COMBINED, ["trade@A", "depth@A"]),
            (
                "/stream?streams=trade@A/a@depth@100ms//&streams=ticker@B",
                Dialect.COMBINED,
                ["trade@A", "a@depth@100ms", "ticker@B"],
            ),
            ("/ws", Dialect.RAW, []),
            ("/ws/", Dialect.RAW, []),
            ("/ws/0", Dialect.RAW, []),
            ("/ws/trade@A", Dialect.RAW, ["trade@A"]),
            ("/ws/0/trade%40A/depth@A/", Dialect.RAW, ["trade@A", "depth@A"]),
        ],
    )
    def test_a_path_names_a_dialect_and_the_first_streams(
        self, target: str, dialect: Dialect, streams: list[str]
    ) -> None:
        """docs/protocol.md; the streams are spelled as the client did."""
        assert routed(target, upgrade="h2c, WebSocket") == Upgrade(dialect, streams)

    @pytest.mark.parametrize("target", ["/stream?streams=trade@A/nonsense@A", "/ws/nonsense@A", "/ws/0/nonsense%40A"])
    @pytest.mark.parametrize("headers", [WEBSOCKET, {}])
    def test_a_bad_name_is_refused_with_the_name(self, target: str, headers: dict[str, str]) -> None:
        """Whether an upgrade was asked for or not."""
        answer = routed(target, **headers)
        assert status(answer) == 400
        assert isinstance(answer, Response)
        assert "'nonsense@A'" in answer.text

    @pytest.mark.parametrize("target", ["/", "/stream", "/ws/trade@A"])
    @pytest.mark.parametrize("headers", [{}, {"upgrade": "h2c"}, {"upgrade": "websockets"}])
    def test_a_plain_get_of_a_websocket_path_is_told_to_upgrade(self, target: str, headers: dict[str, str]) -> None:
        """426 names the protocol to upgrade to."""
        answer = routed(target, **headers)
        assert status(answer) == 426
        assert isinstance(answer, Response)
        assert answer.headers == (("Upgrade", "websocket"),)

    @pytest.mark.parametrize("target", ["/nothing", "/ws2", "/streams", "/stream/x", "*", "", "/healthz/", "//ws"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    def test_anything_else_is_not_found(self, target: str, method: str) -> None:
        """Even for a WebSocket client."""
        assert status(route(Head(method, target, "", WEBSOCKET), KINDS, lambda: True)) == 404

    @pytest.mark.parametrize("ready", [True, False])
    def test_health_does_not_depend_on_readiness(self, ready: bool) -> None:
        """A process that cannot serve yet need not be restarted."""
        assert routed("/healthz", ready=ready) == Response(200, "ok")

    def test_readiness(self) -> None:
        """200 or 503, the latter with when to ask again."""
        assert routed("/readyz", ready=True) == Response(200, "ready")
        assert routed("/readyz", ready=False) == Response(503, "not ready", (("Retry-After", "1"),))

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    def test_a_book_is_found_out_later(self, method: str) -> None:
        """Whatever the query says, and whoever asks."""
        assert routed("/api/v3/depth?symbol=A", method, upgrade="websocket") == DepthAsked()
        assert status(routed("/api/v3/depth/", method)) == 404

    def test_head_is_answered_like_get(self) -> None:
        """It never upgrades."""
        assert routed("/healthz", "HEAD") == routed("/healthz")
        assert status(routed("/", "HEAD", upgrade="websocket")) == 426

    @pytest.mark.parametrize("target", ["/", "/healthz", "/ws/trade@A"])
    def test_options_are_told(self, target: str) -> None:
        """For whatever exists."""
        assert routed(target, "OPTIONS") == Response(204, "", (("Allow", "GET, HEAD, OPTIONS"),))

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "CONNECT"])
    def test_other_methods_are_not_allowed(self, method: str) -> None:
        """With what is."""
        answer = routed("/", method, upgrade="websocket")
        assert status(answer) == 405
        assert isinstance(answer, Response)
        assert dict(answer.headers)["Allow"] == "GET, HEAD, OPTIONS"

    @property_test
    @given(st.lists(spellings(), max_size=5))
    def test_every_spelling_of_a_stream_may_stand_in_a_path(self, named: list[tuple[str, str]]) -> None:
        """In the path of one dialect and in the query of the other."""
        streams = [spelling for spelling, _ in named]
        assert routed("/ws/" + "/".join(streams), upgrade="websocket") == Upgrade(Dialect.RAW, streams)
        assert routed("/stream?streams=" + "/".join(streams), upgrade="websocket") == Upgrade(Dialect.COMBINED, streams)

    @property_test
    @given(st.text(max_size=30))
    def test_a_refused_name_cannot_break_out_of_the_body(self, name: str) -> None:
        """Whatever it holds, there is one line, and one empty line before it."""
        answer = route(Head("GET", f"/ws/{name.replace('/', '')}@", "", WEBSOCKET), KINDS, lambda: True)
        assert isinstance(answer, Response)
        before, _, body = answer.encode().partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in before.split(b"\r\n")
        assert body.count(b"\n") == 1
        assert b"\r" not in body


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
