"""The HTTP that stands before a WebSocket: a request line and headers, read once (RFC 9112).

1. What is ambiguous is refused: whatever a proxy in front may take for something else. No byte of it is in the error.
2. A request for a WebSocket that differs from an earlier one in its key only is not read anew: many clients are one
   program. Nothing is remembered that is one client's alone, such as a token, a cookie, or where it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import msgspec

__all__ = ["MAX_HEAD", "BadRequest", "Head", "header_words", "parse_head"]

MAX_HEAD = 16384
"""Bytes of a request line and its headers."""
_MAX_HEADERS = 100
_MAX_FIELDS = 100
_REMEMBERED = 200  # characters of a header, at most: strangers write them
_FIELD = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)$", re.MULTILINE)
"""A header (RFC 9110, section 5.1), where every line ends in CR LF."""
_KEY_LINE = b"\r\nSec-WebSocket-Key: "
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_KEY_SIZE = 24
_MOST_ALIKE = 256
_LONGEST_ALIKE = 1024  # bytes
_OF_ONE = frozenset(
    ("authorization", "cookie", "forwarded", "proxy-authorization", "sec-websocket-protocol", "x-forwarded-for")
)
_CONTROLS = bytes({*range(32), 127} - set(b"\t\r\n"))


class BadRequest(ValueError):
    """The bytes are no HTTP/1.1 request; the message is fit for the client."""


class Head(msgspec.Struct, frozen=True):
    """A request line and headers; header names in lower case, the path percent-decoded."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    version: str = "HTTP/1.1"

    @property
    def goes_on(self) -> bool:
        """Whether another request may follow on the connection: nobody has said otherwise, and this one has no body."""
        headers = self.headers
        return (
            self.version == "HTTP/1.1"
            and "transfer-encoding" not in headers
            and headers.get("content-length", "0") == "0"
            and "close" not in header_words(headers.get("connection", ""))
        )


_alike: dict[bytes, Head] = {}
"""Requests that were read, by their bytes without the key."""


def parse_head(data: bytes) -> Head:
    """Read a request up to its empty line. Raises `BadRequest`."""
    begin = data.find(_KEY_LINE) + len(_KEY_LINE)
    end = begin + _KEY_SIZE
    key = data[begin:end]
    if begin < len(_KEY_LINE) or data[end : end + 2] not in (b"\r\n", b"") or not _KEY.fullmatch(key):
        return _parse(data)
    others = data[:begin] + data[end:]
    alike = _alike.get(others)
    if alike is not None:
        headers = {**alike.headers, "sec-websocket-key": key.decode()}
        return Head(alike.method, alike.path, alike.query, headers, alike.version)
    head = _parse(data)
    if (
        len(others) <= _LONGEST_ALIKE
        and not head.query
        and head.headers.get("sec-websocket-key") == key.decode()  # there is no second one
        and _OF_ONE.isdisjoint(head.headers)
    ):
        if len(_alike) >= _MOST_ALIKE:
            _alike.clear()
        _alike[others] = msgspec.structs.replace(head, headers=dict(head.headers))
    return head


def _parse(data: bytes) -> Head:
    if _has_controls(data):
        raise BadRequest("there is a control character in the request")
    line, _, rest = data.decode("latin-1").removesuffix("\r\n").partition("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[2].startswith("HTTP/1."):
        raise BadRequest("expected an HTTP/1.1 request")
    fields = _FIELD.findall(rest)
    if len(fields) != (rest.count("\n") + 1 if rest else 0):
        raise BadRequest("a header has no proper name")
    if len(fields) > _MAX_HEADERS:
        raise BadRequest(f"more than {_MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for name, value in fields:
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path, query = _target(words[1])
    if query.count("&") >= _MAX_FIELDS:
        raise BadRequest(f"more than {_MAX_FIELDS} fields in the query")
    return Head(words[0].upper(), path, query, headers, words[2])


def _has_controls(data: bytes) -> bool:
    """Whether something ends a line for one reader and not for another (RFC 9112, section 2.2), or belongs in none."""
    ends = data.count(b"\r\n")
    return data.count(b"\r") != ends or data.count(b"\n") != ends or len(data.translate(None, _CONTROLS)) != len(data)


def _target(target: str) -> tuple[str, str]:
    """Path, percent-decoded, and query of a request's target (RFC 9112, section 3.2)."""
    if "#" in target:
        raise BadRequest("the target has a fragment")
    if not target.startswith("/"):
        try:
            _, _, target, query, _ = urlsplit(target)
        except ValueError:
            raise BadRequest("the target cannot be read") from None
    else:
        target, _, query = target.partition("?")
    return unquote(target) if "%" in target else target, query


def header_words(value: str) -> frozenset[str]:
    """The words of a header that is a list, in lower case."""
    return _short_words(value) if len(value) <= _REMEMBERED else _words(value)


def _words(value: str) -> frozenset[str]:
    return frozenset(word.strip().lower() for word in value.split(","))


_short_words = lru_cache(maxsize=64)(_words)
