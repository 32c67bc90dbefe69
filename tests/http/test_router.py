"""Which requests become WebSockets, and what the others are answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from marketfeed.http.head import Head, parse_head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse, Router, Upgrade
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Dialect
from tests.strategies import property_test, spellings

WEBSOCKET = {"upgrade": "websocket"}
HERE = "192.0.2.7"
LATE = LateResponse(Deferred(), Response(503, "too late"), "late")
ROUTER = Router(
    StreamKinds(),
    {
        "/known": lambda head, address: Response(200, f"{head.method} {address}"),
        "/late": lambda head, address: LATE,
        "/below/": lambda head, address: Response(404, "below"),
        "/below/known": lambda head, address: Response(200, "known"),
    },
)


def routed(target: str, method: str = "GET", **headers: str) -> Upgrade | Response | LateResponse:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ROUTER.ask(parse_head("\r\n".join(lines).encode()), HERE)


def refused(answer: Upgrade | Response | LateResponse, status: int) -> Response:
    """An answer that must have this status."""
    assert isinstance(answer, Response)
    assert answer.status == status
    return answer


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
def test_a_path_names_a_dialect_and_the_first_streams(target: str, dialect: Dialect, streams: list[str]) -> None:
    """docs/protocol.md; the streams are spelled as the client did."""
    assert routed(target, upgrade="h2c, WebSocket") == Upgrade(dialect, streams)


@pytest.mark.parametrize("target", ["/stream?streams=trade@A/nonsense@A", "/ws/nonsense@A", "/ws/0/nonsense%40A"])
@pytest.mark.parametrize("headers", [WEBSOCKET, {}])
def test_a_bad_name_is_refused_with_the_name(target: str, headers: dict[str, str]) -> None:
    """Whether an upgrade was asked for or not."""
    assert "'nonsense@A'" in refused(routed(target, **headers), 400).text


@pytest.mark.parametrize("target", ["/", "/stream", "/ws/trade@A"])
@pytest.mark.parametrize("headers", [{}, {"upgrade": "h2c"}, {"upgrade": "websockets"}])
def test_a_plain_get_of_a_websocket_path_is_told_to_upgrade(target: str, headers: dict[str, str]) -> None:
    """426 names the protocol to upgrade to."""
    assert refused(routed(target, **headers), 426).headers == (("Upgrade", "websocket"),)


@pytest.mark.parametrize("target", ["/nothing", "/ws2", "/streams", "/stream/x", "*", "", "//ws", "/known/"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_anything_else_is_not_found(target: str, method: str) -> None:
    """Even for a WebSocket client."""
    refused(ROUTER.ask(Head(method, target, "", WEBSOCKET), HERE), 404)


def test_a_plain_answer_is_asked_for_by_its_path() -> None:
    """It hears the request, and from where it comes; whether it asks for a WebSocket does not matter."""
    assert routed("/known?x=1", upgrade="websocket") == Response(200, f"GET {HERE}")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_an_answer_may_come_later(method: str) -> None:
    """It sees to OPTIONS by itself."""
    assert routed("/late", method, upgrade="websocket") is LATE


def test_head_is_answered_like_get() -> None:
    """It never upgrades."""
    assert routed("/known", "HEAD") == Response(200, f"HEAD {HERE}")
    refused(routed("/", "HEAD", upgrade="websocket"), 426)


@pytest.mark.parametrize("target", ["/", "/known", "/ws/trade@A", "/ws/nonsense@A"])
def test_options_are_told(target: str) -> None:
    """For whatever exists."""
    assert routed(target, "OPTIONS") == Response(204, "", (("Allow", "GET, HEAD, OPTIONS"),))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "CONNECT"])
def test_other_methods_are_not_allowed(method: str) -> None:
    """With what is."""
    for target in ("/", "/known", "/late", "/nothing"):
        answer = refused(routed(target, method, upgrade="websocket"), 405)
        assert answer.headers == (("Allow", "GET, HEAD, OPTIONS"),)


@property_test
@given(st.lists(spellings(), max_size=5))
def test_every_spelling_of_a_stream_may_stand_in_a_path(named: list[tuple[str, str]]) -> None:
    """In the path of one dialect and in the query of the other."""
    streams = [spelling for spelling, _ in named]
    assert routed("/ws/" + "/".join(streams), upgrade="websocket") == Upgrade(Dialect.RAW, streams)
    assert routed("/stream?streams=" + "/".join(streams), upgrade="websocket") == Upgrade(Dialect.COMBINED, streams)


@property_test
@given(st.text(max_size=30))
def test_a_refused_name_cannot_break_out_of_the_body(name: str) -> None:
    """Whatever it holds, there is one line, and one empty line before it."""
    answer = refused(ROUTER.ask(Head("GET", f"/ws/{name.replace('/', '')}@", "", WEBSOCKET), HERE), 400)
    before, _, body = answer.encode().partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in before.split(b"\r\n")
    assert body.count(b"\n") == 1
    assert b"\r" not in body


def test_a_path_with_a_slash_at_its_end_answers_for_those_below_it() -> None:
    for target in ("/below/", "/below/other", "/below/known/", "/below/known/more"):
        assert refused(routed(target), 404).text == "below"
    assert refused(routed("/below/known"), 200).text == "known"
    assert "below" not in refused(routed("/below"), 404).text
