"""The market page of a demo, on the port of the clients: for people who open `/` in a browser.

1. Who asks for a WebSocket, or does not say that it takes HTML, is answered at `/` as if there were no page.
2. All that it is made of stands in a table by path, read when it is first asked for. No path is looked up on a disk.
3. A browser asks each time whether its copy is still good, and is told so without the file: after another version has
   begun, no page is half of the old one.
4. It loads nothing from elsewhere, talks to this daemon alone, and nobody may frame it.
"""

from __future__ import annotations

import re
from functools import cache, partial
from hashlib import sha256

from marketfeed.http.head import Head, header_words
from marketfeed.http.response import Response
from marketfeed.http.router import PlainAnswer
from marketfeed.web.files import MARKET, MARKET_PAGE, read

__all__ = ["market_files", "market_page"]

_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
)
_NOT_AT_ALL = re.compile(r"q=0(\.0{0,3})?")


def market_page(head: Head) -> Response | None:
    """The answer to a request for `/`; None: it is not for a person."""
    headers = head.headers
    if head.method not in ("GET", "HEAD") or not _takes_html(headers.get("accept", "")):
        return None
    if "websocket" in header_words(headers.get("upgrade", "")):
        return None
    name, media = MARKET_PAGE
    return _answer(name, media, head, ("Vary", "Accept, Upgrade"))


def market_files() -> dict[str, PlainAnswer]:
    """What the page loads, for the table of `Router`."""
    return {path: partial(_file, name, media) for path, (name, media) in MARKET.items()}


def _file(name: str, media: str, head: Head, address: str | None) -> Response:
    return _answer(name, media, head)


def _answer(name: str, media: str, head: Head, *further: tuple[str, str]) -> Response:
    text, tag = _read(name)
    headers = (("ETag", tag), *further, *_HEADERS)
    given = {each.strip().removeprefix("W/") for each in head.headers.get("if-none-match", "").split(",")}
    if tag in given or "*" in given:
        return Response(304, "", headers, cache="no-cache")
    return Response(200, text, headers, cache="no-cache", media=media)


@cache
def _read(name: str) -> tuple[str, str]:
    """A file's text without its last end of line, which an answer adds, and its tag."""
    data = read(name)
    return data.decode().removesuffix("\n"), f'"{sha256(data).hexdigest()[:16]}"'


def _takes_html(accept: str) -> bool:
    """Whether this Accept header names HTML; any media is not enough, for programs say that (RFC 9110, 12.5.1)."""
    for each in accept.lower().split(","):
        media, *parameters = [part.strip() for part in each.split(";")]
        if media == "text/html":
            return not any(_NOT_AT_ALL.fullmatch(parameter) for parameter in parameters)
    return False
