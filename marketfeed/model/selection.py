"""Which streams are meant: names, and patterns in which ``*`` stands for any run of characters.

1. A name is a stream's, in any of a client's spellings; its kind need not be declared, only fit to be.
2. A pattern selects what Redis' PSUBSCRIBE delivers for it: nothing but ``*`` has a meaning of its own.
3. Of several that cover one stream the first counts, so that nobody gets the stream twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

from marketfeed.model.kinds.values import is_market
from marketfeed.model.streams import BadStreamName, StreamKinds

__all__ = ["BadSelection", "StreamSelection", "Subscribed", "parse_selection"]

MAX_PATTERN = 128
"""Characters of one pattern."""

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_PATTERN = re.compile(r"[A-Za-z0-9._*-]+(@[A-Za-z0-9._*-]+)?")
_GLOB = re.compile(rb"[*?\[\]\\]")
_CACHED = 65536
_SHOWN = 80


class BadSelection(ValueError):
    """A name or pattern cannot be used; the message says which, and what would be accepted."""


class Subscribed:
    """The subscriptions to a selection, behind a prefix. A channel that several of them cover comes once by each."""

    def __init__(self, selection: StreamSelection, prefix: bytes) -> None:
        self._selection = selection
        self._prefix = len(prefix)
        self._index = {argument: index for index, (_, argument) in enumerate(selection.commands(prefix))}

    def stream(self, subscription: bytes, channel: bytes) -> bytes | None:
        """The stream of a publication that came by `subscription`; None: it comes, or came, by another one as well."""
        stream = channel[self._prefix :]
        return stream if self._selection.first(stream) == self._index[subscription] else None

    def text(self, subscription: bytes) -> str:
        """What was selected by it."""
        return self._selection.texts[self._index[subscription]]


class StreamSelection:
    """The streams that at least one of `texts` means, each a canonical name or a pattern."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(dict.fromkeys(texts))
        matches = [re.compile(translate(text).encode()).match for text in self.texts]

        def first(stream: bytes) -> int | None:
            return next((index for index, match in enumerate(matches) if match(stream)), None)

        self.first = lru_cache(_CACHED)(first)
        """The index of the first of `texts` that covers the stream; None if none of them does."""

    def commands(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """The Redis command, and its argument, that subscribes to each of `texts` behind the channel prefix."""
        escaped = _GLOB.sub(rb"\\\g<0>", prefix)
        return [
            (b"PSUBSCRIBE", escaped + text.encode()) if "*" in text else (b"SUBSCRIBE", prefix + text.encode())
            for text in self.texts
        ]


def parse_selection(texts: Iterable[str], kinds: StreamKinds) -> StreamSelection:
    """Read names and patterns, such as ``trade@TATA_INR``, ``depth@*`` or ``*``. Raises `BadSelection`."""
    return StreamSelection([_parse(text, kinds) for text in texts])


def _parse(text: str, kinds: StreamKinds) -> str:
    if "*" in text:
        if len(text) > MAX_PATTERN or not _PATTERN.fullmatch(text):
            raise BadSelection(_complaint(text))
        return text
    try:
        return str(kinds.parse(text))
    except BadStreamName:
        kind, _, market = text.partition("@")
        if not (_KIND.fullmatch(kind) and is_market(market)):
            raise BadSelection(_complaint(text)) from None
        return text


def _complaint(text: str) -> str:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return (
        f"{shown!r} cannot be used; expected a stream such as trade@TATA_INR, or a pattern such as depth@* or *, "
        f"of at most {MAX_PATTERN} of the characters A-Z a-z 0-9 . _ - @ *"
    )
