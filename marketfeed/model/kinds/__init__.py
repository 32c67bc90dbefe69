"""The kinds of streams. A built-in one is a module of this package, and a name here."""

from __future__ import annotations

from collections.abc import Iterable

from marketfeed.model.kinds.depth import DEPTH
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.kinds.ticker import TICKER
from marketfeed.model.kinds.trade import TRADE

__all__ = ["BUILT_IN", "EVENTS", "by_event"]

BUILT_IN = (TRADE, DEPTH, TICKER)


def by_event(kinds: Iterable[StreamKind]) -> dict[str, StreamKind]:
    """Kinds by what their publications may have as `e`."""
    return {event: kind for kind in kinds for event in kind.shape.events}


EVENTS = by_event(BUILT_IN)
