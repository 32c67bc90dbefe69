"""The times for which the source was out of reach, and how many clients were told: what an operator asks first."""

from __future__ import annotations

from collections import deque

import msgspec

__all__ = ["Outage", "Outages"]

_KEPT = 100


class Outage(msgspec.Struct):
    """One of them, in ms since 1970; `until`: None while it lasts. `told`: the clients who were sent a gap for it."""

    since: int
    until: int | None
    told: int


class Outages:
    """The last of them, oldest first."""

    def __init__(self) -> None:
        self.recent: deque[Outage] = deque(maxlen=_KEPT)

    @property
    def present(self) -> Outage | None:
        """The one that lasts."""
        return self.recent[-1] if self.recent and self.recent[-1].until is None else None

    def lost(self, since: int, told: int) -> None:
        """The source is out of reach, or was once more not reached."""
        present = self.present
        if present is None:
            self.recent.append(Outage(since, None, told))
        else:
            present.told += told

    def over(self, now: int) -> None:
        """The source is reached; it may have been all the time."""
        if self.present is not None:
            self.present.until = now
