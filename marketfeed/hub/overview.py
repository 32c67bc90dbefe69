"""What an operator is shown of a stream: whether it flows, how much, for how many, and what is known of it."""

from __future__ import annotations

import msgspec

from marketfeed.hub.stream import LiveStream
from marketfeed.model.book_state import BookState

__all__ = ["StreamFacts", "facts_of"]


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


def facts_of(stream: LiveStream, now: float) -> StreamFacts:
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
