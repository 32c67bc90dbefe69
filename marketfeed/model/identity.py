"""Who a client is, and which streams it may have: what a token's claims `sub` and `streams` come to.

1. Without patterns every public stream is permitted, and of the private ones those whose market is the user.
2. With patterns nothing is permitted that none of them covers. `*` as a kind stands for the public kinds only.
3. A user whose name is no market gets no private stream, whatever the patterns say.
4. `${sub}` is the user to the letter: a `*` in a user's name stands for a `*`, and so for no market at all.
5. Patterns are few and short, and none is matched by trying again: nobody's token costs more than another's.
"""

from __future__ import annotations

import math
import re

import msgspec

from marketfeed.model.streams import StreamName, is_market

__all__ = ["ANONYMOUS", "BadPattern", "Identity", "StreamPattern", "parse_patterns"]

MAX_PATTERNS = 100
MAX_PATTERN = 128
"""Characters of one pattern."""

_SUB = "${sub}"
_ANY = "*"
_PATTERN = re.compile(r"(\*|[A-Za-z][A-Za-z0-9_]{0,31})@((?:[A-Za-z0-9._*-]|\$\{sub\})+)")


class BadPattern(ValueError):
    """A list of patterns cannot be used; the message says which, and what would be accepted."""


class StreamPattern(msgspec.Struct, frozen=True):
    """Streams of one kind, or with ``*`` of every public one; `pieces` are what stands between the stars."""

    kind: str
    pieces: tuple[str, ...]

    def covers(self, stream: StreamName) -> bool:
        """Whether `stream` is one of them."""
        if self.kind == _ANY:
            return not stream.kind.private and self._fits(stream.market)
        return self.kind == stream.kind.name and self._fits(stream.market)

    def _fits(self, market: str) -> bool:
        first, *others = self.pieces
        if not others:
            return market == first
        *between, last = others
        at, end = len(first), len(market) - len(last)
        if at > end or not market.startswith(first) or not market.endswith(last):
            return False
        for piece in between:  # the leftmost place leaves the most room for the pieces to come
            found = market.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


class Identity(msgspec.Struct, frozen=True):
    """A client's user (empty: nobody), its patterns (None: no such claim), its end in seconds since 1970."""

    user: str
    patterns: tuple[StreamPattern, ...] | None
    expires_at: float

    def permits(self, stream: StreamName) -> bool:
        """Whether this client may have `stream`."""
        if stream.kind.private and not is_market(self.user):
            return False
        if self.patterns is None:
            return not stream.kind.private or stream.market == self.user
        return any(pattern.covers(stream) for pattern in self.patterns)


ANONYMOUS = Identity("", None, math.inf)
"""A client without a token: every public stream, no private one, no end."""


def parse_patterns(claim: object, user: str) -> tuple[StreamPattern, ...]:
    """The patterns of a claim `streams`: a list of ``<kind>@<market>``, in which ``*`` stands for any kind or any run
    of a market's characters, and ``${sub}`` for `user`. One that no stream can match is left out. Raises `BadPattern`.
    """
    if not isinstance(claim, list | tuple) or len(claim) > MAX_PATTERNS:
        raise BadPattern(
            f"streams: expected a list of at most {MAX_PATTERNS} patterns such as depth@* or orders@{_SUB}"
        )
    patterns = []
    for number, text in enumerate(claim, 1):
        found = _PATTERN.fullmatch(text) if isinstance(text, str) and len(text) <= MAX_PATTERN else None
        if found is None:
            raise BadPattern(
                f"streams: pattern {number} cannot be used; expected <kind>@<market> such as depth@* or "
                f"orders@{_SUB}, of at most {MAX_PATTERN} characters"
            )
        kind, market = found.groups()
        if _SUB not in market or is_market(user):
            patterns.append(StreamPattern(kind, tuple(piece.replace(_SUB, user) for piece in market.split(_ANY))))
    return tuple(patterns)
