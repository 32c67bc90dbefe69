"""Patterns of streams as Redis spells them, for what an operator wants to have ready (`--warm`).

1. ``*`` stands for any run of characters and ``?`` for any one, in the kind and in the market; nothing else is special.
2. A pattern covers declared kinds only, private ones too, and none that is made of another one: that is kept ready by
   keeping the other one so. What it cannot cover is refused when it is read.
3. In Redis, whatever stands before the pattern means itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from marketfeed.model.kinds import listed
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.streams import BadStreamName, StreamKinds

__all__ = ["EXPECTED", "BadGlob", "StreamGlob", "is_glob", "parse_glob"]

_GLOB = re.compile(r"[A-Za-z0-9_*?]{1,32}@[A-Za-z0-9._*?-]{1,64}")
_SPECIAL = re.compile(rb"[*?\[\]\\]")
EXPECTED = "a stream or a pattern of streams such as depth@TATA_INR or depth@*"


class BadGlob(ValueError):
    """A pattern cannot be used; the message says what would be accepted."""


class StreamGlob:
    """The streams that `text` covers, of these kinds. ``str()`` gives the text."""

    def __init__(self, text: str, kinds: Iterable[StreamKind]) -> None:
        self._text = text
        self._kinds = StreamKinds([kind for kind in kinds if kind.from_book is None])
        self._match = re.compile(translate(text)).match

    def __str__(self) -> str:
        return self._text

    @property
    def is_name(self) -> bool:
        """It is one stream's name, and covers that stream."""
        return "*" not in self._text and "?" not in self._text

    def covers(self, name: str) -> bool:
        """Whether `name` is a stream's canonical name, and the stream one of them."""
        if self._match(name) is None:
            return False
        try:
            return str(self._kinds.parse(name)) == name
        except BadStreamName:
            return False

    def behind(self, prefix: str) -> bytes:
        """The pattern for Redis that matches `prefix` to the letter, and behind it what this one matches."""
        return _SPECIAL.sub(rb"\\\g<0>", prefix.encode()) + self._text.encode()


def is_glob(text: str) -> bool:
    """Whether this is a name or a pattern, of whatever kinds there may be."""
    return _GLOB.fullmatch(text) is not None


def parse_glob(text: str, kinds: Iterable[StreamKind]) -> StreamGlob:
    """Read a name or a pattern. Raises `BadGlob`."""
    kinds = tuple(kinds)
    if not is_glob(text):
        raise BadGlob(EXPECTED)
    glob, kind = StreamGlob(text, kinds), text.partition("@")[0]
    made = next((each.from_book.of for each in kinds if each.from_book is not None and each.name == kind), None)
    if made is not None:
        raise BadGlob(f"{made}@{text.partition('@')[2]}, of which {kind} is made")
    kinds = tuple([each for each in kinds if each.from_book is None])
    if not any(re.match(translate(kind), each.name) for each in kinds):
        raise BadGlob(f"{EXPECTED}, of one of the kinds {listed(each.name for each in kinds)}")
    return glob
