"""The names of streams, their kinds, and the spellings under which clients ask for them (docs/protocol.md#streams).

1. A stream has one name, ``<kind>@<market>``; the Redis channel is that name behind the prefix.
2. A client may spell it in other ways; every frame to that client echoes its own spelling.
3. A name that does not parse, or whose kind is not declared, is a `BadStreamName` that says what would be accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from marketfeed.model.kinds import BUILT_IN, listed
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.model.kinds.kline import KLINES
from marketfeed.model.kinds.values import is_market

__all__ = ["BadStreamName", "StreamKinds", "StreamName", "snapshot_key"]

_SHOWN = 80  # of a name that a client sent, the most that an error repeats
_REMEMBERED = 8192
"""Spellings that were parsed, of one kind of path: what many clients ask for is parsed once."""


class StreamName(msgspec.Struct, frozen=True):
    """A parsed name; ``str()`` gives the canonical ``<kind>@<market>``, which is what a token permits.

    `rate`: of what is published, the client gets one message in so many ms at most; 0: each. `view`: as what it gets
    it. `made_from`: the kind of the stream from which the daemon makes this one; None: it is published.
    """

    kind: StreamKind
    market: str
    rate: int = 0
    view: View = View.ENGINE
    made_from: StreamKind | None = None

    @property
    def source(self) -> StreamName:
        """The stream that is published: this one, or what it is made from."""
        return self if self.made_from is None else StreamName(self.made_from, self.market)

    def __str__(self) -> str:
        return f"{self.kind.name}@{self.market}"


class BadStreamName(ValueError):
    """The name does not parse or its kind is not declared; the message is fit for a client."""


class StreamKinds:
    """The registry of declared kinds, and the parser of names, which depends on them."""

    def __init__(
        self,
        kinds: Iterable[StreamKind] = BUILT_IN,
        aliases: Mapping[str, str] | None = None,
        *,
        rebuilds: bool = False,
    ) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._rebuilds = rebuilds  # on `/stream` and `/ws` publications are as clients made for Binance read them
        self._aliases: Mapping[str, str] = aliases or {}
        self._parsed: tuple[dict[str, StreamName], dict[str, StreamName]] = ({}, {})  # not, and on these paths

    def __iter__(self) -> Iterator[StreamKind]:
        return iter(self._kinds.values())

    @property
    def aliases(self) -> Mapping[str, str]:
        """Other spellings of markets, each with the market that it stands for. They may be exchanged at any time."""
        return self._aliases

    @aliases.setter
    def aliases(self, aliases: Mapping[str, str]) -> None:
        self._aliases = aliases
        self._forget_parsed()

    def of(self, kind: StreamKind) -> StreamKind:
        """The kind of this name, as it is declared; itself, where none is."""
        return self._kinds.get(kind.name, kind)

    def add(self, kind: StreamKind) -> None:
        """Declare one more."""
        self._kinds[kind.name] = kind
        self._forget_parsed()

    @property
    def names(self) -> Collection[str]:
        """Of the kinds."""
        return self._kinds.keys()

    def parse(self, spelling: str, *, on_paths: bool = False) -> StreamName:
        """The stream that a client means by `spelling`; `on_paths`: on `/stream` or `/ws`.

        Accepted are ``trade@TATA_INR``; for a public kind reversed, with the market in lower case and the kind as it
        is, ``tata_inr@trade``; an alias in the place of the market; and behind any of them ``@100ms`` or ``@1000ms``,
        where not all has to be sent. Raises `BadStreamName`.
        """
        parsed = self._parsed[on_paths]
        name = parsed.get(spelling)
        if name is None:
            name = self._parse(spelling, on_paths)
            if len(parsed) >= _REMEMBERED:
                parsed.clear()
            parsed[spelling] = name
        return name

    def _forget_parsed(self) -> None:
        for parsed in self._parsed:
            parsed.clear()

    def _parse(self, spelling: str, on_paths: bool) -> StreamName:
        left, at, rest = spelling.partition("@")
        right, rate_at, rate = rest.partition("@")
        if not at or not left or not right:
            raise BadStreamName(f"bad stream name {_shown(spelling)}: expected <kind>@<market>, as in trade@TATA_INR")
        kind, market = self._kinds.get(left), right
        if kind is None and left == left.lower():
            kind = self._kinds.get(right)
            # Only ASCII: the upper case of a sharp s would be the name of another market.
            market = left.upper() if left.isascii() else left
            if kind is not None and (kind.private or kind.only):
                kind = None
        if kind is None:
            raise BadStreamName(f"bad stream name {_shown(spelling)}: {self._why_no_kind(left, right)}")
        if not is_market(market):
            raise BadStreamName(
                f"bad stream name {_shown(spelling)}: a market is 1 to 64 of the characters A-Z a-z 0-9 . _ -"
            )
        if kind.only and market != kind.only:
            raise BadStreamName(f"bad stream name {_shown(spelling)}: expected {kind.name}@{kind.only}")
        if not (kind.private or kind.only):  # there it is a user, who is nobody else, or no market at all
            market = self._aliases.get(market, market)
        in_ms = _rate(kind, rate, spelling) if rate_at else (on_paths and kind.path_rate) or kind.rate
        view = kind.view or (kind.path_view if on_paths and self._rebuilds else View.ENGINE)
        return StreamName(kind, market, in_ms, view, self._kinds[kind.made_from] if kind.made_from else None)

    def _why_no_kind(self, *words: str) -> str:
        """What is wrong with a name of which none of these words is a kind."""
        candles = [kind for kind in KLINES if kind.name in self._kinds]
        for word in words:
            if candles and word.partition("_")[0] == "kline" and word not in self._kinds:
                known = ", ".join(kind.name.removeprefix("kline_") for kind in candles)
                return f"expected kline_<interval>, with an interval of {known}"
        return f"the kind is none of {listed(self._kinds)}"


def _rate(kind: StreamKind, text: str, spelling: str) -> int:
    """What stands behind a name, in ms."""
    if not kind.rates:
        why = "is sent no more often" if kind.loss is not LossPolicy.KEEP else "counts, and none can be left out"
        raise BadStreamName(
            f"bad stream name {_shown(spelling)}: every {kind.name} {why}: expected nothing behind the name"
        )
    for rate in kind.rates:
        if text == f"{rate}ms":
            return rate
    known = " or ".join(f"@{rate}ms" for rate in kind.rates)
    raise BadStreamName(f"bad stream name {_shown(spelling)}: expected {known} behind the name, or nothing")


def snapshot_key(prefix: str, stream: str) -> str:
    """The key in which somebody keeps the state of a stream, beside it."""
    return f"{prefix}snapshot:{stream}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
