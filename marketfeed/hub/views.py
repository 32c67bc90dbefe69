"""Publications as other clients read them than those of the engine (docs/protocol.md#payloads): live, past, and states.

1. What comes of a publication is made once for all clients of its stream who get it so, and not at all while there are
   none. Whenever it is asked for again it is the same: what it is made from besides the data is kept in the history,
   or follows from the offset.
2. A snapshot of a book is a difference for these clients. What is gone is found while the book before it is known, and
   kept beside the snapshot; a replay that has come by a snapshot knows it as well.
3. Once nobody has been there for as long as histories reach back, nothing is kept for those who may come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from marketfeed.boundaries import Statistics
from marketfeed.hub.entry_history import note_of
from marketfeed.hub.history import History, Note
from marketfeed.model.book import Prices
from marketfeed.model.book_state import BookState
from marketfeed.model.kinds.kind import View
from marketfeed.model.state import LatestState, State
from marketfeed.wire.binance import DepthPayloads, Moment, agg_trade, trade
from marketfeed.wire.binance_ticker import TickerPayloads

__all__ = ["Made", "Replay", "new_view"]

_encode = msgspec.json.encode


class _Beside(msgspec.Struct, frozen=True, array_like=True):
    """What is kept beside a snapshot: the prices that are gone, and the engine's id before it."""

    asks: list[str]
    bids: list[str]
    given: int | None


_beside = msgspec.json.Decoder(_Beside).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Replay(Protocol):
    """Publications of the past, in their order."""

    def make(self, offset: str, data: bytes, note: Note | None) -> bytes:
        """The next one. `note`: what is known of it; None: what its offset says, which is an entry's id."""


class Made:
    """One view of one stream. `members`: the groups that have it."""

    def __init__(self, name: str, history: History) -> None:
        self.market = name.partition("@")[2]
        self.market_text = _encode(self.market)
        self.history = history
        self.members = 0
        self._time = 0.0  # the history's, of what was made last
        self._data = b""

    def newest(self, data: bytes) -> bytes:
        """The newest publication."""
        if self.history.time != self._time:
            self._time = self.history.time
            self._data = self._newest(data)
        return self._data

    def _newest(self, data: bytes) -> bytes:
        raise NotImplementedError

    def state(self, snapshot: bytes, heard: float) -> bytes:
        """The state of the stream, as it is at this moment. `heard`: when that was so last, in s since 1970."""
        raise NotImplementedError

    def replay(self, previous: int | None) -> Replay:
        """Make publications of the past. `previous`: the number before the first of them, if that is known."""
        raise NotImplementedError

    def enter(self) -> None:
        """A group has come."""
        self.members += 1

    def leave(self) -> None:
        """A group has gone."""
        self.members -= 1


class _Each(Made):
    """Publications each of which is made by itself."""

    def make(self, offset: str, data: bytes, note: Note | None) -> bytes:
        raise NotImplementedError

    def replay(self, previous: int | None) -> Replay:
        return self


class _Trades(_Each):
    def _newest(self, data: bytes) -> bytes:
        return trade(data, self.market_text, self.history.newest_at)

    def make(self, offset: str, data: bytes, note: Note | None) -> bytes:
        return trade(data, self.market_text, (note or note_of(offset)).at)


class _AggTrades(_Each):
    def _newest(self, data: bytes) -> bytes:
        return agg_trade(data, self.market_text, self.history.newest_at)

    def make(self, offset: str, data: bytes, note: Note | None) -> bytes:
        return agg_trade(data, self.market_text, (note or note_of(offset)).at)


class _Tickers(_Each):
    """What was known besides a ticker as it came is kept beside it."""

    def __init__(self, name: str, history: History, state: State | None, statistics: Statistics) -> None:
        super().__init__(name, history)
        self._state = state
        self._statistics = statistics
        self._payloads = TickerPayloads(self.market_text)
        self._known: tuple[Mapping[str, bytes], bytes] = ({}, b"")  # of the last one, and as it is kept

    def _newest(self, data: bytes) -> bytes:
        known = self._statistics.of(self.market)
        if known:
            if known != self._known[0]:
                self._known = known, _encode({name: msgspec.Raw(value) for name, value in known.items()})
            self.history.keep_beside(self._known[1])
        return self._payloads.update(data, self.history.newest_at, known)

    def state(self, snapshot: bytes, heard: float) -> bytes:
        is_newest = isinstance(self._state, LatestState) and self._state.is_live
        at = self.history.number(heard) // 1000 if is_newest else int(heard * 1000)
        return self._payloads.update(snapshot, at, self._statistics.of(self.market))

    def make(self, offset: str, data: bytes, note: Note | None) -> bytes:
        note = note or note_of(offset)
        known = {name: bytes(value) for name, value in _fields(note.beside).items()} if note.beside else {}
        return self._payloads.update(data, note.at, known)


class _Depth(Made):
    """Depth messages of a stream, of which `book` is the state."""

    def __init__(self, name: str, history: History, book: BookState) -> None:
        super().__init__(name, history)
        self._book = book
        self._payloads = DepthPayloads(self.market_text, book.prices)
        self._gone: tuple[float, Prices | None, int | None] = (0.0, None, None)
        self._left = 0.0  # since when nobody is there, in µs
        self._written: tuple[bytes, bytes] = (b"", b"")
        book.replaced = self._replaced

    def _replaced(self, snapshot: bytes) -> None:
        """A snapshot, the newest publication, is about to take the book's place."""
        if not self.members and self.history.is_too_old(self._left):
            self._book.replaced = None
            return
        gone, given = self._book.gone_from(snapshot), self._book.given
        if gone is None and self.history.newest_place[2] is not None:
            self.history.jump()
        self._gone = self.history.time, gone, given
        if gone is not None:
            self.history.keep_beside(_encode(_Beside(*gone, given)))

    def _newest(self, data: bytes) -> bytes:
        book = self._book
        at, number, previous = self.history.newest_place
        reader, given = book.reader, book.given
        plain = reader.plain if reader is not None and reader.data is data else None
        if plain is not None and given is None:
            made = self._payloads.bare(data, plain, at, number, previous)
            if made is not None:
                return made
        time, gone, known = self._gone
        if time != self.history.time:
            gone, known = None, given
        return self._payloads.update(data, Moment(at, number, previous, known), gone, plain)

    def state(self, snapshot: bytes, heard: float) -> bytes:
        if self._written[0] is not snapshot:
            at = self.history.newest_at if self.history.time else int(heard * 1000)
            made = self._payloads.update(snapshot, Moment(at, self._book.number))
            self._written = snapshot, made
        return self._written[1]

    def replay(self, previous: int | None) -> Replay:
        return _DepthReplay(self._payloads, previous, self._book.max_levels)

    def enter(self) -> None:
        super().enter()
        self._book.replaced = self._replaced  # before anything comes: it may be a snapshot

    def leave(self) -> None:
        super().leave()
        if not self.members:
            self._left = self.history.time


class _DepthReplay:
    def __init__(self, payloads: DepthPayloads, previous: int | None, max_levels: int) -> None:
        self._payloads = payloads
        self._previous = previous
        self._book = BookState()  # as far as it is known by what is replayed
        self._book.max_levels = max_levels
        self._book.replaced = self._replaced
        self._gone: Prices | None = None
        self._given: int | None = None

    def _replaced(self, snapshot: bytes) -> None:
        self._gone, self._given = self._book.gone_from(snapshot), self._book.given

    def make(self, offset: str, data: bytes, note: Note | None) -> bytes:
        note = note or note_of(offset)
        self._gone = self._given = None
        self._book.record(data)
        gone, given = self._gone, self._given or self._book.given
        if note.beside:
            beside = _beside(note.beside)
            gone, given = (beside.asks, beside.bids), beside.given
        moment = Moment(note.at, note.number, self._previous, given)
        self._previous = note.number
        return self._payloads.update(data, moment, gone)


def new_view(view: View, name: str, history: History, state: State | None, statistics: Statistics) -> Made | None:
    """A view of a stream; None: that of the engine, or one that it cannot have."""
    if view is View.TRADE:
        return _Trades(name, history)
    if view is View.AGG_TRADE:
        return _AggTrades(name, history)
    if view is View.TICKER:
        return _Tickers(name, history, state, statistics)
    if view is View.DEPTH and isinstance(state, BookState):
        return _Depth(name, history, state)
    return None
