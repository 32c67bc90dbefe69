"""The end of a client's token: it hears of it before, and is ended at it, unless it has renewed it by then.

It hears of it a minute before, or when half of the time is over, whichever is later: who renews a token that is good
for less than that hears of the new one when half of that is over, and is not told again and again.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock

__all__ = ["NOTICE", "TokenExpiry"]

_LOOK_SECONDS = 300.0
"""How long it takes at most to notice that the clock of the tokens was set."""
NOTICE = 60.0
"""Seconds before the end, at most, at which the client hears of it (docs/protocol.md#auth-and-the-end-of-a-token)."""


class TokenExpiry:
    """Waits for `expires_at`, in seconds since 1970 as `now` tells them.

    `hear`: called with False when it is time to renew the token, and with True when it has expired.
    """

    __slots__ = ("_call", "_clock", "_hear", "_notice", "_now", "_told", "expires_at")

    def __init__(self, clock: Clock, now: Callable[[], float], expires_at: float, hear: Callable[[bool], None]) -> None:
        self._clock = clock
        self._now = now
        self._hear = hear
        self.expires_at = expires_at
        self._notice = min(NOTICE, max(0.0, expires_at - now()) / 2)
        self._told = False
        self._call: IDelayedCall | None = None
        self._wait()

    def cancel(self) -> None:
        """Nobody is to hear of it any more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        moment = self.expires_at if self._told else self.expires_at - self._notice
        self._call = self._clock.callLater(min(max(0.0, moment - self._now()), _LOOK_SECONDS), self._look)

    def _look(self) -> None:
        """The reactor's clock and that of the tokens may have gone apart, so both times are compared anew."""
        self._call = None
        left = self.expires_at - self._now()
        if left <= 0:
            self._hear(True)
            return
        is_news = left <= self._notice and not self._told
        self._told = self._told or is_news
        self._wait()
        if is_news:
            self._hear(False)  # at last, for it may cancel this
