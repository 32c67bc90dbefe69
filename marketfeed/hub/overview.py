"""What operators are shown of streams: whether each flows, how much, for how many, and what is known of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from marketfeed.boundaries import Subscriber
from marketfeed.hub.drops import Bad
from marketfeed.hub.groups import Audiences
from marketfeed.hub.outages import Outages
from marketfeed.hub.stream import LiveStream
from marketfeed.hub.upstream import Upstream
from marketfeed.model.book_state import BookState
from marketfeed.model.kinds.depth import DEPTH
from marketfeed.model.kinds.ticker import TICKER
from marketfeed.model.kinds.trade import TRADE

__all__ = ["Overview", "StreamFacts"]


_OF_MARKETS = frozenset(kind.name for kind in (TRADE, DEPTH, TICKER))


class StreamFacts(msgspec.Struct, frozen=True):
    """One stream at one moment. `is_private`: what comes on it is for nobody else.

    `rate`: publications a second; None: nothing is kept by which it could be told. `heard`: when something last came,
    in ms since 1970; None: nothing has. `state`: `complete` or `incomplete`; None: its kind has none. `levels`: of a
    complete book. `gap`: its reason and beginning in ms since 1970, while it is open. `kept`: publications.
    """

    stream: str
    kind: str
    is_private: bool
    clients: int
    rate: float | None
    heard: int | None
    flows: bool
    state: str | None
    levels: int | None
    gap: tuple[str, int] | None
    kept: int
    offset: str | None


class Overview:
    """What operators are shown of all streams at this moment. Nothing here changes anything."""

    def __init__(self, upstream: Upstream, audiences: Audiences, now: Callable[[], float]) -> None:
        self._upstream = upstream
        self._registry = upstream.registry
        self._audiences = audiences
        self._now = now

    def streams(self) -> Iterator[StreamFacts]:
        """Every stream that has clients, or is kept ready, or lingers."""
        now = self._now()
        return (_facts_of(stream, now) for stream in self._registry.all)

    def stream(self, name: str) -> tuple[StreamFacts, set[Subscriber]] | None:
        """One of these, and who is in it; None: there is no such stream."""
        stream = self._registry.find(name)
        if stream is None:
            return None
        audiences = {audience for group in stream.groups.values() for audience in group.audiences}
        return _facts_of(stream, self._now()), {member for audience in audiences for member in audience.members}

    @property
    def streams_held(self) -> int:
        """How many streams have clients, or are kept ready."""
        return self._registry.held

    @property
    def memberships(self) -> int:
        """The streams of all clients, each counted for each of its clients."""
        return self._audiences.memberships

    @property
    def history_bytes(self) -> int:
        """What is kept of all streams."""
        return self._upstream.histories.size

    @property
    def book_levels(self) -> list[int]:
        """How many levels each order book has that is known, without what waits to be merged."""
        states = [stream.state for stream in self._registry.all]
        return [state.level_count for state in states if isinstance(state, BookState) and not state.is_wanting]

    @property
    def markets(self) -> set[str]:
        """Those of which something has come, on public streams of trades, depth or tickers that are followed now."""
        return {
            stream.name.partition("@")[2]
            for stream in self._registry.all
            if stream.kind.name in _OF_MARKETS and not stream.kind.private and _has_published(stream)
        }

    @property
    def source_reached(self) -> bool:
        """Whether the source has ever answered."""
        return self._upstream.is_reached

    @property
    def outages(self) -> Outages:
        """When the source was out of reach."""
        return self._upstream.outages

    @property
    def silent_kinds(self) -> dict[str, int]:
        """The kinds of which the engine publishes nothing any more, and since when in ms since 1970."""
        return self._upstream.silence.kinds

    @property
    def last_bad(self) -> Bad | None:
        """The last publication that was not what its kind requires."""
        return self._upstream.drops.last


def _has_published(stream: LiveStream) -> bool:
    """Whether something was published on it, or its state is known."""
    return stream.history.has_begun or (stream.state is not None and not stream.state.is_wanting)


def _facts_of(stream: LiveStream, now: float) -> StreamFacts:
    """`now`: s since 1970."""
    state = stream.state
    is_complete = state is not None and not state.is_wanting
    return StreamFacts(
        stream=stream.name,
        kind=stream.kind.name,
        is_private=stream.kind.private,
        clients=sum(group.size for group in stream.groups.values()),
        rate=stream.history.rate(now),
        heard=int(stream.heard * 1000) or None,
        flows=stream.confirmed,
        state=None if state is None else ("complete" if is_complete else "incomplete"),
        levels=(state.level_count or None) if is_complete and isinstance(state, BookState) else None,
        gap=stream.gap,
        kept=stream.history.kept,
        offset=stream.history.latest,
    )
