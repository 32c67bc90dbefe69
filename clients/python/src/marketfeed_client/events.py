"""What is told besides the publications: frozen structs, in the order in which things happened.

Moments are in ms since 1970, and delays in ms, as on the wire. ``msgspec.to_builtins(event)`` is the event as JSON has
it, with its name in ``e``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from marketfeed_client.errors import ErrorKind, FeedError

__all__ = [
    "EVENTS",
    "Error",
    "Event",
    "Expiring",
    "Gap",
    "Message",
    "Overflow",
    "Quality",
    "Reconnecting",
    "Recovered",
    "Rewound",
    "State",
    "StateName",
]

StateName = Literal["connecting", "open", "waiting", "closed"]
"""What the feed is doing: an attempt to connect is under way; a connection is open; it waits before the next attempt;
it is over for good."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A publication. `offset`: its place in the stream, where the stream has offsets; `past`: whether it was published
    before the subscription, and was recovered or rewound.
    """

    stream: str
    data: Any
    offset: str | None = None
    past: bool = False


class State(msgspec.Struct, frozen=True, tag_field="e", tag="state"):
    """The feed's state has changed."""

    state: StateName
    previous: StateName


class Reconnecting(msgspec.Struct, frozen=True, tag_field="e", tag="reconnecting"):
    """The next attempt comes after `delay` ms; `attempt` counts from 1 since a connection was good; `hinted`: the
    server asked for that delay.
    """

    delay: int
    attempt: int
    hinted: bool


class Recovered(msgspec.Struct, frozen=True, tag_field="e", tag="recovered"):
    """What was asked for after a loss is known: with `recovered` everything that was missed has come, `count`
    publications. Without it something is missing, which a Gap says before the next publication.
    """

    stream: str
    recovered: bool
    count: int


class Rewound(msgspec.Struct, frozen=True, tag_field="e", tag="rewound"):
    """So many of the stream's last publications follow, `past` ones."""

    stream: str
    count: int


class Gap(msgspec.Struct, frozen=True, tag_field="e", tag="gap", rename={"from_": "from"}):
    """Publications of the streams may have been missed since `from_`; `to` is None while that lasts.

    `reason` is the server's, or ``not-recovered``: what was missed while there was no connection is gone. Its moments
    are of this machine's clock; what was under way at `from_` may be missing too.
    """

    streams: tuple[str, ...]
    reason: str
    from_: float | None
    to: float | None


class Quality(msgspec.Struct, frozen=True, tag_field="e", tag="quality"):
    """Messages are left out or merged because this client reads too slowly, ``thinned``; or no more, ``live``."""

    streams: tuple[str, ...]
    level: Literal["thinned", "live"]
    at: float


class Expiring(msgspec.Struct, frozen=True, tag_field="e", tag="expiring", rename={"expires_at": "expiresAt"}):
    """The token is good until `expires_at`."""

    at: float
    expires_at: float


class Overflow(msgspec.Struct, frozen=True, tag_field="e", tag="overflow"):
    """A loop of the application is too slow: `limit` publications waited for it, and the oldest are dropped.

    `stream` is the stream; of several, their names with ``/`` between them; ``!events`` for the queue of `events()`.
    `dropped`: how many so far. A function hears of it at once, so for the first one; in `messages()` and `events()` it
    stands in place of all that were dropped since the one before.
    """

    stream: str
    limit: int
    dropped: int


class Error(msgspec.Struct, frozen=True, tag_field="e", tag="error", omit_defaults=True):
    """Something went wrong; with `final`, for good. The fields are those of FeedError."""

    kind: ErrorKind
    message: str
    final: bool = False
    code: int | None = None
    stream: str | None = None

    @classmethod
    def of(cls, error: FeedError) -> Error:
        """The event that tells an error."""
        return cls(error.kind, error.message, error.final, error.code, error.stream)


Event = State | Reconnecting | Recovered | Rewound | Gap | Quality | Expiring | Overflow | Error

EVENTS = ("state", "reconnecting", "message", "recovered", "rewound", "gap", "quality", "expiring", "overflow", "error")
"""The names by which events are listened to; ``message`` is every publication of any stream."""
