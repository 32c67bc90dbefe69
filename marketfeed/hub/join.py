"""One client's wish to join streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Answers, Subscriber
from marketfeed.hub.portions import Work
from marketfeed.hub.readiness import Wait
from marketfeed.hub.recovery import Recovery
from marketfeed.hub.stream import LiveStream
from marketfeed.model.streams import StreamName
from marketfeed.wire.dialects import Shape

__all__ = ["Join"]


class Join:
    """A client's wish to join streams."""

    __slots__ = (
        "answers",
        "asked",
        "books",
        "finished",
        "is_late",
        "pause",
        "recoveries",
        "shape",
        "since",
        "streams",
        "subscriber",
        "wait",
        "wants_state",
        "work",
        "written",
    )

    def __init__(
        self, subscriber: Subscriber, shape: Shape, answers: Answers, since: Mapping[str, str], wants_state: bool
    ) -> None:
        self.subscriber = subscriber
        self.shape = shape
        self.answers = answers
        self.since = since
        self.wants_state = wants_state
        self.asked: deque[tuple[str, StreamName]] = deque()
        self.streams: dict[str, LiveStream] = {}
        self.recoveries: dict[str, Recovery] = {}
        self.books: dict[str, Any] = {}  # by spelling, what `preludes` has written
        self.wait: Wait | None = None
        self.work: Work | None = None
        self.pause: tuple[IDelayedCall, Deferred[None]] | None = None
        self.is_late = False
        self.finished = False
        self.written = 0  # bytes of states, and of what was missed, that were put together
