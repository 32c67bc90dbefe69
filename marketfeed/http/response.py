"""Plain answers: what a request gets that becomes no WebSocket.

1. Every plain answer has a length. It ends the connection, unless that is kept for further requests.
2. No byte of a request is repeated in one, except for the name of a stream that was refused, and the origin of a page
   that may read it; none in a log.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec

__all__ = ["Response"]

_WITHOUT_BODY = (204, 304)


class Response(msgspec.Struct, frozen=True):
    """An answer in plain HTTP.

    `logged`: what the log has in place of a `text` that repeats some of the request. `json`: what is sent in place of
    the text. `media`: what the text is, if not plain. `reason`: a word for why it refuses, where the status does not
    say that. `cache`: who may keep it, and for how long, as `Cache-Control` has it.
    """

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()
    logged: str = ""
    json: bytes = b""
    reason: str = ""
    cache: str = "no-store"
    media: str = "text/plain; charset=utf-8"

    @property
    def why(self) -> str:
        """The word for what it is, of a bounded number of them."""
        return self.reason or HTTPStatus(self.status).phrase.lower().replace(" ", "-")

    def encode(self, *, is_head: bool = False, kept: int = 0) -> bytes:
        """The bytes to send; as the answer to HEAD, without the body.

        `kept`: the seconds for which the connection then waits for another request; 0: it ends.
        """
        has_body = self.status not in _WITHOUT_BODY
        body = b"" if not has_body else self.json or self.text.encode() + b"\n"
        media = "application/json" if self.json else self.media
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if has_body:
            lines += [f"Content-Type: {media}", f"Content-Length: {len(body)}"]
        lines.append(f"Cache-Control: {self.cache}")
        lines += ["Connection: keep-alive", f"Keep-Alive: timeout={kept}"] if kept else ["Connection: close"]
        lines += ["", ""]
        return "\r\n".join(lines).encode() + (b"" if is_head else body)
