"""The times for which links of the source were away, and how many clients were told: what an operator asks first."""

from __future__ import annotations

from collections import deque

import msgspec

__all__ = ["Outage", "Outages"]

_KEPT = 100


class Outage(msgspec.Struct):
    """One of them, in ms since 1970; `until`: None while it lasts. `told`: the clients who were sent a gap for it."""

    link: str
    since: int
    until: int | None
    told: int


class Outages:
    """The last of them, oldest first."""

    def __init__(self) -> None:
        self.recent: deque[Outage] = deque(maxlen=_KEPT)

        self._present: dict[str, Outage] = {}

    @property
    def present(self) -> list[Outage]:
        """Those that last, oldest first."""
        return list(self._present.values())

    def lost(self, link: str, since: int, told: int) -> None:
        """A link is lost, or could once more not be made."""
        present = self._present.get(link)
        if present is None:
            present = self._present[link] = Outage(link, since, None, 0)
            self.recent.append(present)
        present.told += told

    def over(self, link: str, now: int) -> None:
        """There is a link again, or there was all the time."""
        present = self._present.pop(link, None)
        if present is not None:
            present.until = now
