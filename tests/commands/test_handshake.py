"""The opening handshake from the client's side: what is asked for, and what is made of any answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.commands.address import parse_url
from marketfeed.commands.handshake import MAX_HEAD, BadAnswer, Handshake
from tests.strategies import property_test

ADDRESS = parse_url("ws://[::1]:8080/stream?x=1")
HANDSHAKE = Handshake(ADDRESS)


def head(*fields: str, accept: str = HANDSHAKE.accept.decode()) -> bytes:
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", f"sec-websocket-ACCEPT:\t{accept} ", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def test_the_request() -> None:
    """Is whole, and each handshake has a key of its own."""
    lines = HANDSHAKE.request.decode().split("\r\n")
    assert lines[:2] == ["GET /stream?x=1 HTTP/1.1", "Host: [::1]:8080"]
    assert lines[-2:] == ["", ""]
    assert Handshake(ADDRESS).request != HANDSHAKE.request
    request = Handshake(ADDRESS, token="a.b.c", compression=True).request
    assert b"\r\nAuthorization: Bearer a.b.c\r\n" in request
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover" in request


def test_an_answer_in_pieces() -> None:
    """It is one when its head is whole; what came behind is not lost."""
    whole = head("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover")
    assert all(HANDSHAKE.read(whole[:size]) is None for size in range(len(whole)))
    answer = HANDSHAKE.read(whole + b"\x81\x00")
    assert answer is not None
    assert (answer.is_websocket, answer.is_deflated, answer.rest) == (True, True, b"\x81\x00")


def test_a_refusal() -> None:
    """Has a status, and perhaps words; nothing in it can move a cursor."""
    text = b"HTTP/1.0 503  Busy\x1b[2J\r\ncontent-type: text/plain\r\nRetry-After: 7\r\n\r\n full\xff \nmore"
    answer = HANDSHAKE.read(text)
    assert answer is not None
    assert (answer.status, answer.said, answer.words) == (503, "503 Busy\ufffd[2J", "full\ufffd")
    assert (answer.is_websocket, answer.is_text, answer.retry_after) == (False, True, 7.0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"SSH-2.0\r\n\r\n", "does not speak HTTP"),
        (head(accept="x"), "does not speak WebSocket"),
        (b"HTTP/1.1 101 X\r\n\r\n", "does not speak WebSocket"),
        (head("Sec-WebSocket-Extensions: permessage-deflate"), "compresses with a context"),
        (b"x" * (MAX_HEAD + 1), "sends more than 65536 bytes"),
    ],
)
def test_no_answer(text: bytes, fault: str) -> None:
    """Whoever does not speak WebSocket is told so."""
    with pytest.raises(BadAnswer, match=fault):
        HANDSHAKE.read(text)


@property_test
@given(st.binary(max_size=200))
def test_any_bytes(noise: bytes) -> None:
    """Nothing else is raised."""
    try:
        HANDSHAKE.read(b"HTTP/1.1 " + noise)
        HANDSHAKE.read(noise + b"\r\n\r\n")
    except BadAnswer:
        pass
