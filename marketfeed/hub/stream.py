"""A stream that is wanted from the source: its subscribers, who waits to join, its past, and whether it flows.

What a stream has published is kept for those who come later: its history by offset, and for the kinds of which only the
newest or the sum counts, its state (docs/protocol.md).
"""

from __future__ import annotations

from typing import Any

from marketfeed.hub.groups import Group
from marketfeed.hub.history import History
from marketfeed.model.publications import PublicationReader
from marketfeed.model.sequence import recorder
from marketfeed.model.state import BookState, LatestState, State
from marketfeed.model.streams import LossPolicy
from marketfeed.wire.dialects import Shape

__all__ = ["LiveStream"]


class LiveStream:
    """A stream that is wanted from the source: its groups, who waits to join, its past, and whether it flows."""

    __slots__ = (
        "confirmed",
        "gap",
        "groups",
        "heard",
        "history",
        "holders",
        "joins",
        "loss",
        "missed",
        "name",
        "payer",
        "reader",
        "record",
        "seeding",
        "share",
        "state",
        "told",
        "was_lost",
    )

    def __init__(
        self, name: str, reader: PublicationReader, loss: LossPolicy, history: History, ids: str | None = None
    ) -> None:
        self.name = name
        self.loss = loss
        self.reader = reader
        self.history = history
        self.state = _make_state(loss)
        self.record = recorder(self.state, ids)
        self.groups: dict[tuple[str, Shape, int, bool], Group] = {}
        self.joins: dict[Any, None] = {}  # those who wait for the source, or for the state
        self.holders = 0  # memberships and joins, one for each spelling
        self.payer: Any = None  # the subscriber who pays for it, and out of which share: see `shares`
        self.share: Any = None
        self.confirmed = False
        self.seeding = False  # its state is being looked for
        self.gap: tuple[str, int] | None = None  # reason, and since when in ms since 1970
        self.was_lost = False  # publications may have been missed since the last one, and clients were told so
        self.heard = 0.0  # seconds since 1970, when it last published or was confirmed
        self.missed: int | None = None  # ms since 1970, the beginning of a sequence gap that is not told yet
        self.told = float("-inf")  # when a sequence gap was last told

    def is_settled(self, with_state: bool) -> bool:
        """Nothing is under way that a client who wants to join, `with_state` or without, would have to wait for."""
        return (self.confirmed and not (with_state and self.seeding)) or self.gap is not None

    def group(self, spelling: str, shape: Shape, window: int, wants_state: bool) -> Group:
        key = (spelling, shape, window, wants_state)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(self, *key)
        return group


def _make_state(loss: LossPolicy) -> State | None:
    """The state of a stream by its kind's policy: a book, the newest publication, or none."""
    if loss is LossPolicy.MERGE:
        return BookState()
    return LatestState() if loss is LossPolicy.LATEST else None
