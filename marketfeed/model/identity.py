"""Who a client is, and which streams it may have: what a token's claims `sub` and `streams` come to.

1. Without patterns every public stream is permitted, and of the private ones those whose market is the user.
2. With patterns nothing is permitted that none of them covers. `*` as a kind stands for the public kinds only.
3. A user whose name is no market gets no private stream, whatever the patterns say.
4. A stream with the data of all markets is for those who may have each of them: a pattern covers it by a market of `*`.
5. `${sub}` is the user to the letter: a `*` in a user's name stands for a `*`, and so for no market at all.
6. Patterns are few and short. Most are looked up, however many there are; the others are tried one after the other, but
   none by trying again, so that what a token costs is bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from marketfeed.model.kinds.values import is_market
from marketfeed.model.streams import StreamName

__all__ = ["ANONYMOUS", "BadPattern", "Identity", "StreamPattern", "StreamPatterns", "parse_patterns"]

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


class StreamPatterns(tuple[StreamPattern, ...]):
    """Patterns of which any will do. Those with a star at one end, or with none, are looked up and not tried."""

    def __init__(self, patterns: tuple[StreamPattern, ...]) -> None:
        kinds: dict[str, list[tuple[str, ...]]] = {}
        for pattern in patterns:
            kinds.setdefault(pattern.kind, []).append(pattern.pieces)
        self._markets = {kind: _Markets(pieces) for kind, pieces in kinds.items()}
        self.tried = sum([len(markets.others) for markets in self._markets.values()])
        """How many may have to be tried, one after the other, until a stream is known to be covered by none."""

    def cover(self, stream: StreamName) -> bool:
        """Whether `stream` is one of theirs."""
        kind = stream.kind
        market = "" if kind.all_of else stream.market  # nothing but a star alone covers the empty one
        markets = self._markets.get(kind.all_of or kind.name)
        if markets is not None and markets.have(market):
            return True
        markets = None if kind.private else self._markets.get(_ANY)
        return markets is not None and markets.have(market)


class _Markets:
    """The markets that some patterns of one kind cover, each given as its pieces."""

    __slots__ = ("_beginnings", "_ends", "_names", "others")

    def __init__(self, patterns: Iterable[tuple[str, ...]]) -> None:
        names, beginnings, ends = set(), set(), set()
        self.others: dict[tuple[str, tuple[str, ...], str], None] = {}
        for first, *more in patterns:
            between, last = tuple(filter(None, more[:-1])), more[-1] if more else ""
            if not more:
                names.add(first)
            elif between or (first and last):
                self.others[first, between, last] = None
            elif last:
                ends.add(last)
            else:
                beginnings.add(first)
        self._names = frozenset(names)
        self._beginnings = tuple(beginnings)
        self._ends = tuple(ends)

    def have(self, market: str) -> bool:
        """Whether one of the patterns covers `market`."""
        return (
            market in self._names
            or market.startswith(self._beginnings)
            or market.endswith(self._ends)
            or any(
                market.startswith(first) and market.endswith(last) and _fits(market, first, between, last)
                for first, between, last in self.others
            )
        )


def _fits(market: str, first: str, between: tuple[str, ...], last: str) -> bool:
    """Whether all of it has its place: `first` and `last`, which are the ends, and what stands `between` stars."""
    at, end = len(first), len(market) - len(last)
    for piece in between:  # the leftmost place leaves the most room for the pieces to come
        found = market.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end


class Identity(msgspec.Struct, frozen=True):
    """A client's user (empty: nobody), its patterns (None: no such claim), its end in seconds since 1970."""

    user: str
    patterns: StreamPatterns | None
    expires_at: float

    @property
    def tried(self) -> int:
        """How many patterns may have to be tried on one stream, one after the other."""
        return 0 if self.patterns is None else self.patterns.tried

    def permits(self, stream: StreamName) -> bool:
        """Whether this client may have `stream`."""
        if stream.kind.private and not is_market(self.user):
            return False
        if self.patterns is None:
            return not stream.kind.private or stream.market == self.user
        return self.patterns.cover(stream)


ANONYMOUS = Identity("", None, math.inf)
"""A client without a token: every public stream, no private one, no end."""


def parse_patterns(claim: object, user: str) -> StreamPatterns:
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
    return _shared(tuple(patterns))


_shared = lru_cache(maxsize=1024)(StreamPatterns)
"""Many clients have the same patterns."""
