"""The answer to a request for a WebSocket, a function of its headers."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.websocket.upgrade import Switch, switch_protocols
from tests.by_hand import KEY
from tests.strategies import property_test

GOOD = {
    "host": "localhost",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def answered(offered: str, **more: Any) -> Switch:
    answer = switch_protocols({**GOOD, "sec-websocket-extensions": offered}, **{"compress": True, **more})
    assert answer is not None
    assert answer.response.startswith(b"HTTP/1.1 101 ")
    assert answer.response.endswith(b"\r\n\r\n")
    return answer


def window(answer: Switch) -> int:
    return answer.deflate.server_max_window_bits if answer.deflate else 0


def test_the_key_is_answered() -> None:
    """Which proves that it was read (RFC 6455, section 4.2.2); the server is named without a version."""
    accept = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    assert switch_protocols(GOOD, compress=True) == Switch(
        b"HTTP/1.1 101 Switching Protocols\r\nServer: marketfeed\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n",
        None,
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "nonsense"},
        {"sec-websocket-protocol": "a, b, a"},
        {"host": None},
        {"host": ""},
        {"host": "a, b"},
        {"connection": None},
        {"connection": "close"},
        {"connection": "upgraded"},
        {"sec-websocket-key": None},
        {"sec-websocket-key": "short"},
        {"sec-websocket-key": KEY[:-2] + "AA"},
        {"sec-websocket-key": f"{KEY}, {KEY}"},
        {"sec-websocket-key": KEY[:-3] + "!=="},
        {"sec-websocket-version": None},
        {"sec-websocket-version": "7"},
        {"sec-websocket-version": "13, 13"},
        {"sec-websocket-version": "x"},
    ],
)
def test_what_is_no_proper_handshake_is_not_accepted(headers: dict[str, str | None]) -> None:
    """Whoever called has something to say about it (RFC 6455, section 4.2.1)."""
    good = {name: value for name, value in (GOOD | headers).items() if value is not None}
    assert switch_protocols(good, compress=True) is None


def test_http_of_another_version_is_not_accepted() -> None:
    """It has no upgrade."""
    assert switch_protocols(GOOD, compress=True, version="HTTP/1.0") is None


@pytest.mark.parametrize("origin", ["null", "file://", "https://example.com", "capacitor://localhost"])
def test_any_origin_passes(origin: str) -> None:
    """The admission has decided about it."""
    assert switch_protocols({**GOOD, "origin": origin}, compress=True)


@pytest.mark.parametrize(
    ("offered", "agreed_on", "bits"),
    [
        ("permessage-deflate", "", 15),
        ("permessage-deflate; client_max_window_bits", "", 15),
        ("Permessage-Deflate; Client_Max_Window_Bits=10", "", 15),
        ("permessage-deflate; client_no_context_takeover", "", 15),
        ("permessage-deflate; server_no_context_takeover", "", 15),
        *[(f"permessage-deflate; server_max_window_bits={bits}", bits, bits) for bits in range(9, 16)],
        ('permessage-deflate; server_max_window_bits="12"', 12, 12),
        ("permessage-deflate; server_max_window_bits=8", None, 0),
        ("permessage-deflate; server_max_window_bits=16", None, 0),
        ("permessage-deflate; server_max_window_bits=0", None, 0),
        ("permessage-deflate; server_max_window_bits", None, 0),
        ("permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", None, 0),
        ("permessage-deflate; client_max_window_bits=16", None, 0),
        ("permessage-deflate; mystery", None, 0),
        ("permessage-deflate; server_no_context_takeover=1", None, 0),
        ("permessage-deflate; mystery, permessage-deflate; server_max_window_bits=11", 11, 11),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "", 15),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", 10, 10),
        ("x-webkit-deflate-frame, permessage-bzip2", None, 0),
        ("", None, 0),
        (",;=,", None, 0),
        ("permessage-deflate" + "; mystery" * 120 + ", permessage-deflate", None, 0),
    ],
)
def test_the_first_offer_that_can_be_used_is_taken(offered: str, agreed_on: Any, bits: int) -> None:
    """Both sides are told to compress each message by itself; what cannot be used is declined and not refused."""
    answer = answered(offered)
    agreed = re.findall(r"Sec-WebSocket-Extensions: (.*)\r\n", answer.response.decode())
    if agreed_on is None:
        assert agreed == []
    else:
        window_bits = f"; server_max_window_bits={agreed_on}" if agreed_on else ""
        assert agreed == [f"permessage-deflate; server_no_context_takeover{window_bits}; client_no_context_takeover"]
    assert window(answer) == bits


def test_without_compression_nothing_is_negotiated() -> None:
    """`--compression off`: the offer is as good as none."""
    assert answered("permessage-deflate", compress=False).deflate is None


@property_test
@given(
    st.lists(
        st.sampled_from(
            ("permessage-deflate", "server_max_window_bits", "9", "é", '"', ";", ",", "=", " ", "\t", "x", "8")
        )
    ).map("".join)
    | st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_characters="\x7f"), max_size=40)
)
def test_no_offer_breaks_a_handshake(offered: str) -> None:
    """Whatever stands in the header, the connection opens, and says what it has agreed to."""
    answer = answered(offered)
    assert (b"permessage-deflate" in answer.response) == (window(answer) in range(9, 16))
