"""What a session is made with: the connection below it, and what all sessions have in common. No logic of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec

from marketfeed.access.refusals import Refusals
from marketfeed.boundaries import HubPort, Subscriber
from marketfeed.model.identity import Identity
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.session.limits import SessionLimits
from marketfeed.wire.close_codes import CloseReason

__all__ = ["Connection", "SessionContext"]


class Connection(Protocol):
    """What a session needs of the connection below it."""

    @property
    def client_id(self) -> str: ...
    @property
    def outbox(self) -> Subscriber: ...

    def send_text(self, text: bytes) -> None:
        """Send one message."""

    def close_with(self, reason: CloseReason) -> None:
        """End the connection with a close frame."""

    def renew(self, identity: Identity) -> None:
        """The client has another token: this is when it ends."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class SessionContext(msgspec.Struct, frozen=True, kw_only=True):
    """What all sessions have in common. `now`: seconds, from any beginning. `verify`: raises `BadToken`.

    `lines`: what the log says of single clients; `requests`: how many messages have come, by method.
    """

    hub: HubPort
    kinds: StreamKinds
    limits: SessionLimits
    now: Callable[[], float]
    verify: Callable[[str], Identity]
    refusals: Refusals
    lines: BoundedLog
    requests: Counter[str] = msgspec.field(default_factory=Counter)
