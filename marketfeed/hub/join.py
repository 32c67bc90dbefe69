"""One client's wish to join streams, and what its session does about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Subscriber
from marketfeed.hub.portions import Work
from marketfeed.hub.readiness import Wait
from marketfeed.hub.recovery import Recovery
from marketfeed.hub.stream import Group, LiveStream
from marketfeed.model.streams import StreamName
from marketfeed.wire.dialects import Shape

__all__ = ["Answers", "Join", "TooManyStreams"]


class TooManyStreams(Exception):
    """The process has no room for another distinct stream, or not for this client; the message says which."""


class Answers(Protocol):
    """What a session does about its join."""

    def joined(self, groups: dict[str, Group], recovered: dict[str, bool] | None) -> None:
        """The client is in these groups (spelling → group): write the reply. The flush before it may have ended it.

        `recovered`, for those that it has asked for: whether all that it missed follows.
        """

    def refused(self, why: str) -> None:
        """The client is in none of the streams: write the error. `why` is for the client to read."""

    def settled(self) -> None:
        """It was answered later than it asked, and all that belongs to the answer has been written."""


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
