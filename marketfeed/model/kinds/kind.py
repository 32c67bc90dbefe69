"""A kind of stream, and all that there is to say about one (docs/protocol.md#streams).

1. A built-in kind is one module of this package, and named in it.
2. A kind that the file declares (docs/operations/data.md#kinds-of-streams) has the same description. Nothing is
   required of what is published on it, and `marketfeed watch` shows that as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Any

import msgspec

from marketfeed.model.book import DepthMessage
from marketfeed.model.book_state import BookState
from marketfeed.model.kinds.columns import Column
from marketfeed.model.kinds.fields import Shape
from marketfeed.model.levels import Row
from marketfeed.model.merging import Message
from marketfeed.model.state import LatestState, State

__all__ = ["RATES", "BookView", "FromBook", "LossPolicy", "StreamKind", "View"]

RATES = (100, 1000)
"""In ms; one message in so long is the most that a client gets, who asks for it."""


class LossPolicy(Enum):
    """What may be left out for a client that does not keep up (docs/protocol.md#slow-clients)."""

    KEEP = "keep"
    LATEST = "latest"
    MERGE = "merge"


class View(IntEnum):
    """As what a client gets the publications of a stream."""

    ENGINE = 0
    """As the engine wrote them."""
    TRADE = 1
    """This and the others: as clients made for Binance read them (docs/protocol.md#payloads)."""
    DEPTH = 2
    TICKER = 3
    AGG_TRADE = 4


class BookView(msgspec.Struct, frozen=True, gc=False):
    """What is to be seen of the book of `market`: levels, best first; the last id; and its time, in ms since 1970."""

    market: str
    number: int
    bids: Sequence[Row]
    asks: Sequence[Row]
    time: int


class FromBook(msgspec.Struct, frozen=True):
    """How the publications of a kind are made of the books of another one, `of`, by name.

    `levels`: how many of each side they show; with others nothing is published. `write`: the publication.
    """

    of: str
    levels: int
    write: Callable[[BookView], bytes]


class StreamKind(msgspec.Struct, frozen=True):
    """One kind. The streams of a private one are for those alone whom their token names. `only`: the one market that
    it has, which is none; empty: it has all markets.

    `ids`: the field of its publications that counts up by one, if that is to be watched (`sequence`). `silence`:
    seconds without any publication after which the engine counts as silent; 0: it never does. `shape`: what they must
    hold. `columns`: what `marketfeed watch` shows of one, from its fields with every number as text. `message`: reads
    one, where they are merged. `state`: makes what a subscriber who comes late gets first, empty yet; None: that
    follows from `loss`. `is_throttled`: a client may have it less often, where not all has to be sent. `from_candles`:
    the candle service publishes it, by PUBLISH, however the engine does. `path_rate`: the rate in ms of a name that
    says none, on `/stream` and `/ws`, and `rate` on any path; 0: none. `path_view`: as what its publications come on
    these two. `made_from`: the kind from whose publications the daemon makes those of this one, as `view` has it;
    `from_book`: how it makes them from the books of another one. `is_final`: whether a publication
    stays as it is, of a kind whose last publications are those that do. `all_of`: the kind, by name, of which it has
    all markets in one; who may have each of them may have this.
    """

    name: str
    loss: LossPolicy
    private: bool = False
    ids: str | None = None
    silence: float = 0.0
    shape: Shape = Shape()
    columns: Callable[[Mapping[str, Any]], Sequence[Column]] | None = None
    only: str = ""
    message: Callable[[bytes], Message] = DepthMessage.parse
    state: Callable[[], State] | None = None
    is_throttled: bool = True
    from_candles: bool = False
    path_rate: int = 0
    path_view: View = View.ENGINE
    view: View = View.ENGINE
    made_from: str = ""
    rate: int = 0
    from_book: FromBook | None = None
    is_final: Callable[[bytes], bool] | None = None
    all_of: str = ""

    @property
    def is_published(self) -> bool:
        """By the engine, and not made of what that publishes."""
        return not (self.from_candles or self.made_from or self.from_book)

    @property
    def always_has_state(self) -> bool:
        """Whether its state comes first, asked for or not: what is made of other publications has no other beginning,
        and it may be long until something changes.
        """
        return self.from_candles or self.from_book is not None

    @property
    def is_rewound(self) -> bool:
        """Whether a client may begin with the last publications: each of them says something by itself."""
        return self.from_book is None and (self.loss is not LossPolicy.MERGE or self.is_final is not None)

    @property
    def rates(self) -> tuple[int, ...]:
        """In ms, how seldom a client may have it: not at all what must all be sent."""
        return RATES if self.is_throttled and self.loss is not LossPolicy.KEEP else ()

    def new_state(self) -> State | None:
        """What a subscriber who comes late gets first, empty yet: the merged book, the newest one, or nothing."""
        if self.state is not None:
            return self.state()
        if self.loss is LossPolicy.MERGE:
            return BookState()
        return LatestState() if self.loss is LossPolicy.LATEST else None
