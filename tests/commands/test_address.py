"""The URLs that `marketfeed watch` takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.commands.address import ServerAddress, parse_url
from marketfeed.config.settings import BadSetting
from tests.strategies import property_test


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://localhost:8080", ServerAddress("localhost", 8080, "/", "ws")),
        ("ws://localhost", ServerAddress("localhost", 80, "/", "ws")),
        ("WSS://Example.com/", ServerAddress("example.com", 443, "/", "wss")),
        ("ws://[::1]:8080/ws", ServerAddress("::1", 8080, "/ws", "ws")),
        ("ws://127.0.0.1:1/ws/trade@A/depth@B", ServerAddress("127.0.0.1", 1, "/ws/trade@A/depth@B", "ws")),
        ("ws://h/stream?streams=trade@A/b%20c", ServerAddress("h", 80, "/stream?streams=trade@A/b%20c", "ws")),
        ("ws://h?token=x", ServerAddress("h", 80, "/?token=x", "ws")),
        ("wss://münchen.example/ü", ServerAddress("xn--mnchen-3ya.example", 443, "/%C3%BC", "wss")),
        ("ws://h/?q=ü", ServerAddress("h", 80, "/?q=%C3%BC", "ws")),
        ("http://localhost:8080", ServerAddress("localhost", 8080, "/", "ws")),
        ("https://h/stream", ServerAddress("h", 443, "/stream", "wss")),
        ("ws://unix:8080/x", ServerAddress("unix", 8080, "/x", "ws")),
    ],
)
def test_good_urls(url: str, address: ServerAddress) -> None:
    """A URL says where, over what, and for what; the path is / and the port that of the scheme unless it says so."""
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "ftp://localhost:8080",
        "ws:localhost",
        "ws://",
        "ws://:8080",
        "ws://h:0",
        "ws://h:65536",
        "ws://h:x",
        "ws://h/#part",
        "ws://h/a b",
        "ws://h/\r\nX-Evil: 1",
        "ws://h/\x1b[2J",
        "ws://user:secret@h/",
        "ws://[::1",
        "ws://[nonsense]",
        "ws://a..b",
        "ws://h;x",
        "ws://\N{ACUTE ACCENT}",
        "ws://" + "x" * 64,
    ],
)
def test_bad_urls(url: str) -> None:
    """Anything else is refused in one printable line, which says what would be accepted, and holds no password."""
    with pytest.raises(BadSetting, match=r"ws://localhost:8080; http and https stand for them$") as caught:
        parse_url(url)
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_shown_without_the_query() -> None:
    """What is shown of an address is a URL again, but for the query, where tokens are."""
    assert parse_url("wss://[::1]/ws?token=x").shown == "wss://[::1]:443/ws"
    assert parse_url("ws://localhost:8080").shown == "ws://localhost:8080/"


@property_test
@given(st.text() | st.builds("{}://{}{}".format, st.sampled_from(["ws", "wss"]), st.text(), st.text()))
def test_any_text(url: str) -> None:
    """Any text is an address, fit for a request line, or refused."""
    try:
        address = parse_url(url)
    except BadSetting:
        return
    assert address.resource.startswith("/")
    for text in (address.resource, address.host_in_header):
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
