"""The order book of a market: it is as the engine's, or says that it is not.

1. A book begins with the state that follows a SUBSCRIBE, and goes on with each message: a whole book replaces it.
2. A lost connection or an open gap makes it stale. It is live again when everything that was missed has come and no gap
   is open, or with a whole book.
3. Whatever leaves out an update makes it missing: a gap that is not made good, a jump of its ids, a message that is no
   depth message.
4. Whoever asks for the book of one market shares it.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Literal

import msgspec

from marketfeed_client.events import Event, Gap, Recovered, State
from marketfeed_client.ladder import Depth, Ladder, Level
from marketfeed_client.session import Envelope

__all__ = ["Book", "BookState", "Follower"]

BookState = Literal["live", "stale", "missing"]
"""How good a book is. ``live``: it is the engine's. ``stale``: it is that of an earlier moment, for the connection is
lost, or a gap is open, or what was missed has not all come yet. ``missing``: there is none; it comes with the engine's
next whole book."""

_LOSSES = ("sequence", "not-recovered")


class Follower:
    """What is known of one book, for all who follow it. `refresh` asks for the stream anew, from its state."""

    def __init__(self, stream: str, refresh: Callable[[str], None]) -> None:
        self.ladder = Ladder()
        self.state: BookState = "missing"
        self.last_update_id: int | None = None
        self.listeners: dict[object, Callable[[], None]] = {}
        """Called at each change."""
        self._stream = stream
        self._refresh = refresh
        self._has_offsets = False
        self._is_in_gap = False
        self._decode = msgspec.json.Decoder(Depth).decode

    def take(self, envelope: Envelope, past: bool) -> None:
        """A message of its stream."""
        try:
            depth = self._decode(envelope.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._lose()
            return
        if not depth.snapshot and self.state == "missing":
            return
        last = self.last_update_id
        if not depth.snapshot and depth.U is not None and last is not None and last + 1 < depth.U:
            self._lose()
            return
        self._has_offsets = envelope.offset is not None
        try:
            self.ladder.apply(depth)
        except (ArithmeticError, LookupError, ValueError):
            self.ladder.clear()
            self._lose()
            return
        self.last_update_id = depth.u
        self._change(self.state if not depth.snapshot else "stale" if past else "live")

    def tell(self, event: Event) -> None:
        """An event of the feed."""
        match event:
            case State(state=state):
                if state != "open":
                    self._is_in_gap = False  # a gap that lasts is told again
                    self._doubt()
            case Gap(streams=streams, reason=reason, to=to) if self._stream in streams:
                if reason in _LOSSES:
                    self._lose()
                else:
                    self._is_in_gap = to is None
                    self._doubt()
                if to is not None and self.state == "stale" and not self._has_offsets:
                    self._refresh(self._stream)
            case Recovered(stream=stream, recovered=True):
                if stream == self._stream and self.state == "stale" and not self._is_in_gap:
                    self._change("live")

    def _doubt(self) -> None:
        if self.state == "live":
            self._change("stale")

    def _lose(self) -> None:
        if self.state == "missing":
            return
        self.ladder.clear()
        self.last_update_id = None
        self._change("missing")

    def _change(self, state: BookState) -> None:
        self.state = state
        for listener in list(self.listeners.values()):
            listener()


class Book:
    """The order book of one market, made by ``feed.book``."""

    def __init__(
        self,
        market: str,
        follower: Follower,
        leave: Callable[[], None],
        guarded: Callable[[Callable[[Book], object]], Callable[[Book], None]],
    ) -> None:
        self.market = market
        self._follower = follower
        self._leave = leave
        self._guarded = guarded
        self._listeners: list[object] = []
        self._is_closed = False

    @property
    def state(self) -> BookState:
        """How good it is."""
        return self._follower.state

    @property
    def last_update_id(self) -> int | None:
        """The id of the last change that is in it, where the engine gives ids."""
        return self._follower.last_update_id

    def __len__(self) -> int:
        """How many levels there are on both sides."""
        return len(self._follower.ladder)

    def __bool__(self) -> bool:
        """A book is one, also without a level."""
        return True

    def bids(self, count: int | None = None) -> list[Level]:
        """The best bids, the highest price first, as (price, quantity) in the engine's spelling; at most `count`, or
        all. While the book is missing there are none.
        """
        return self._follower.ladder.bids(count)

    def asks(self, count: int | None = None) -> list[Level]:
        """The best asks, the lowest price first."""
        return self._follower.ladder.asks(count)

    def decimal_bids(self, count: int | None = None) -> list[tuple[Decimal, Decimal]]:
        """The same as `bids`, as decimals."""
        return [(Decimal(price), Decimal(quantity)) for price, quantity in self.bids(count)]

    def decimal_asks(self, count: int | None = None) -> list[tuple[Decimal, Decimal]]:
        """The same as `asks`, as decimals."""
        return [(Decimal(price), Decimal(quantity)) for price, quantity in self.asks(count)]

    def on_change(self, handler: Callable[[Book], object]) -> Callable[[], None]:
        """Call a plain function with this book at each change, of levels or of the state, so also when it becomes stale
        or missing; what is returned ends it.
        """
        call = self._guarded(handler)
        key = object()
        if self._is_closed:
            return lambda: None
        self._follower.listeners[key] = lambda: call(self)
        self._listeners.append(key)
        return lambda: self._stop(key)

    def _stop(self, key: object) -> None:
        self._follower.listeners.pop(key, None)

    def close(self) -> None:
        """Follow it no more."""
        if self._is_closed:
            return
        self._is_closed = True
        for key in self._listeners:
            self._stop(key)
        self._leave()
