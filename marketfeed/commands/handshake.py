"""The opening handshake from a client's side (RFC 6455, section 4.1): the request, and what a server answers. Pure."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from hashlib import sha1
from http import HTTPStatus

import msgspec

from marketfeed import __version__
from marketfeed.commands.address import ServerAddress
from marketfeed.model.kinds.columns import clean

__all__ = ["MAX_HEAD", "Answer", "BadAnswer", "Handshake"]

MAX_HEAD = 65536
"""Bytes of an answer's head."""
_SHOWN = 200  # characters of what a server says, the most that is repeated
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] +(\d{3})(?: +([^\r\n]*))?(?:\r?\n|$)")
_ACCEPT = re.compile(rb"\nsec-websocket-accept:[ \t]*([^\r\n]*?)[ \t]*\r?(?:\n|$)", re.IGNORECASE)
_DEFLATES = re.compile(rb"\nsec-websocket-extensions:[^\r\n]*permessage-deflate([^\r\n]*)", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\nretry-after:[ \t]*(\d{1,9})[ \t]*\r?(?:\n|$)", re.IGNORECASE)
_PLAIN_TEXT = re.compile(rb"\ncontent-type:[ \t]*text/plain\b", re.IGNORECASE)


class BadAnswer(ValueError):
    """The server does not speak WebSocket. The message says what it does, in words that follow its name."""


class Answer(msgspec.Struct, frozen=True):
    """What a server has said.

    `said`: its status line, and `words`: the first line of its body as far as that came along, both cleaned; `is_text`:
    whether the body is plain text. `retry_after`: seconds that it asks to stay away. `rest`: what came behind the head.
    """

    status: int
    said: str
    words: str
    is_text: bool
    retry_after: float | None
    is_deflated: bool
    rest: bytes

    @property
    def is_websocket(self) -> bool:
        """From here on there are frames."""
        return self.status == HTTPStatus.SWITCHING_PROTOCOLS


class Handshake:
    """One handshake, or one for many connections, whose requests are the same then. `token`: what to show."""

    def __init__(self, address: ServerAddress, *, token: str | None = None, compression: bool = False) -> None:
        key = b64encode(os.urandom(16))
        self.accept = b64encode(sha1(key + _GUID).digest())
        lines = [
            f"GET {address.resource} HTTP/1.1",
            f"Host: {address.host_in_header}:{address.port}",
            f"User-Agent: marketfeed/{__version__}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key.decode()}",
        ]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        if compression:
            lines.append(f"Sec-WebSocket-Extensions: {_DEFLATE}")
        self.request = "\r\n".join([*lines, "", ""]).encode()

    def read(self, data: bytes) -> Answer | None:
        """What the server has answered, of which `data` is all that came; None: it goes on. Raises `BadAnswer`."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD:
            raise BadAnswer(f"sends more than {MAX_HEAD} bytes of HTTP headers")
        if not end:
            return None
        line = _STATUS_LINE.match(head)
        if line is None:
            raise BadAnswer("does not speak HTTP")
        said = clean(f"{line[1].decode()} {(line[2] or b'').decode('latin-1').strip()}".rstrip(), _SHOWN)
        words = rest[: 4 * _SHOWN].decode("utf-8", "replace").strip().partition("\n")[0].strip()
        after, deflates = _RETRY_AFTER.search(head), _DEFLATES.search(head)
        answer = Answer(
            status=int(line[1]),
            said=said,
            words=clean(words, _SHOWN),
            is_text=_PLAIN_TEXT.search(head) is not None,
            retry_after=float(after[1]) if after else None,
            is_deflated=deflates is not None,
            rest=rest,
        )
        if answer.is_websocket:
            accept = _ACCEPT.search(head)
            if accept is None or accept[1] != self.accept:
                raise BadAnswer("does not speak WebSocket")
            if deflates is not None and b"server_no_context_takeover" not in deflates[1].lower():
                raise BadAnswer("compresses with a context, which this cannot read")
        return answer
