"""The names of streams, their kinds, and the spellings under which clients ask for them (docs/protocol.md#streams).

1. A stream has one name, ``<kind>@<market>``; the Redis channel is that name behind the prefix.
2. A client may spell it in other ways; every frame to that client echoes its own spelling.
3. A name that does not parse, or whose kind is not declared, is a `BadStreamName` that says what would be accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.fields import is_market
from marketfeed.model.kinds.kind import StreamKind

__all__ = ["BadStreamName", "StreamKinds", "StreamName", "snapshot_key"]

_SHOWN = 80  # of a name that a client sent, the most that an error repeats


class StreamName(msgspec.Struct, frozen=True):
    """A parsed name; ``str()`` gives the canonical ``<kind>@<market>``."""

    kind: StreamKind
    market: str

    def __str__(self) -> str:
        return f"{self.kind.name}@{self.market}"


class BadStreamName(ValueError):
    """The name does not parse or its kind is not declared; the message is fit for a client."""


class StreamKinds:
    """The registry of declared kinds, and the parser of names, which depends on them."""

    def __init__(self, kinds: Iterable[StreamKind] = BUILT_IN) -> None:
        self._kinds = {kind.name: kind for kind in kinds}

    def __iter__(self) -> Iterator[StreamKind]:
        return iter(self._kinds.values())

    def add(self, kind: StreamKind) -> None:
        """Declare one more."""
        self._kinds[kind.name] = kind

    @property
    def names(self) -> Collection[str]:
        """Of the kinds."""
        return self._kinds.keys()

    def parse(self, spelling: str) -> StreamName:
        """The stream that a client means by `spelling`.

        Accepted are ``trade@TATA_INR``; for a public kind reversed and all in lower case ``tata_inr@trade``; and either
        for a depth stream with ``@100ms`` or ``@1000ms`` behind it. Raises `BadStreamName`.
        """
        left, at, rest = spelling.partition("@")
        right, speed_at, speed = rest.partition("@")
        if not at or not left or not right:
            raise BadStreamName(f"bad stream name {_shown(spelling)}: expected <kind>@<market>, as in trade@TATA_INR")
        kind, market = self._kinds.get(left), right
        reversed_kind = self._kinds.get(right)
        if kind is None and reversed_kind and not reversed_kind.private and spelling == spelling.lower():
            # Only ASCII: the upper case of a sharp s would be the name of another market.
            kind, market = reversed_kind, left.upper() if left.isascii() else left
        if kind is None:
            known = ", ".join(self._kinds)
            raise BadStreamName(f"bad stream name {_shown(spelling)}: the kind is none of {known}")
        if not is_market(market):
            raise BadStreamName(
                f"bad stream name {_shown(spelling)}: a market is 1 to 64 of the characters A-Z a-z 0-9 . _ -"
            )
        if speed_at and speed not in kind.speeds:
            raise BadStreamName(f"bad stream name {_shown(spelling)}: only a depth stream may end in @100ms or @1000ms")
        return StreamName(kind, market)


def snapshot_key(prefix: str, stream: str) -> str:
    """The key in which somebody keeps the state of a stream, beside it."""
    return f"{prefix}snapshot:{stream}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
