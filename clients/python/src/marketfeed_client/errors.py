"""What can go wrong, and whether trying again may help: an error is temporary or final."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["ErrorKind", "FeedError", "closed_with", "weight_of"]

ErrorKind = Literal["closed", "dead", "timeout", "url", "token", "protocol", "refused", "not-open", "handler"]
"""What kind of error it is.

- ``closed``: the connection ended, or was refused; ``code`` is the WebSocket close code.
- ``dead``: the connection gave no sign of life.
- ``timeout``: an attempt to connect took too long.
- ``url``, ``token``: the address or the token could not be had, or cannot be used.
- ``protocol``: the server sent what is no message of marketfeed.
- ``refused``: the server refused a request; ``code`` is that of the error reply, ``stream`` the stream in question.
- ``not-open``: there is no open connection for the request.
- ``handler``: a function of the application raised, or data do not fit the type that it asked for.
"""

UNAUTHORIZED: Final = 4401
_FINAL = frozenset({1002, 1003, 1007, 1009})
"""Close codes behind which connecting again cannot help: a fault of this client, or of what it was told to ask."""
_TOO_MANY_REQUESTS = 4029
_CALM = 5


class FeedError(Exception):
    """An error of the feed. A program goes by ``kind``, ``code`` and ``final``; ``message`` is for a person.

    With ``final`` trying again cannot help, and nobody tries. Without a ``stream`` the feed is closed then.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        final: bool = False,
        code: int | None = None,
        stream: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message
        self.final = final
        self.code = code
        self.stream = stream


def closed_with(code: int, reason: str, can_renew: bool) -> FeedError:
    """The end of a connection. `can_renew`: whether there is a function that may give another token."""
    final = code in _FINAL or (code == UNAUTHORIZED and not can_renew)
    text = f"the connection was closed with {code}{': ' if reason else ''}{reason}"
    return FeedError("closed", text, final=final, code=code)


def weight_of(error: FeedError) -> int:
    """How many failed attempts it counts for, at least: who asked too much comes back later than others."""
    return _CALM if error.code == _TOO_MANY_REQUESTS else 1
