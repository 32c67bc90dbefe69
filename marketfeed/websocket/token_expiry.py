"""The end of a client's token: it hears of it a minute before, and is ended at it, unless it has renewed it by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.model.identity import Identity

__all__ = ["NOTICE", "Expiry", "TokenBearer"]

_LOOK_SECONDS = 300.0
"""How long it takes at most to notice that the clock of the tokens was set."""
NOTICE = 60.0
"""Seconds before the end at which the client hears of it (docs/protocol.md)."""


class TokenBearer(Protocol):
    """Whose token it is."""

    def token_expires(self, expires_at: float) -> None:
        """The token is about to expire, in seconds since 1970."""

    def token_expired(self) -> None:
        """It has."""


class Expiry:
    """Waits for the end of `identity`. `now`: seconds since 1970."""

    __slots__ = ("_bearer", "_call", "_clock", "_expires_at", "_now", "_told")

    def __init__(self, clock: Clock, now: Callable[[], float], identity: Identity, bearer: TokenBearer) -> None:
        self._clock = clock
        self._now = now
        self._bearer = bearer
        self._expires_at = identity.expires_at
        self._told = False
        self._call: IDelayedCall | None = None
        self._wait()

    def cancel(self) -> None:
        """Nobody is to hear of it any more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        moment = self._expires_at if self._told else self._expires_at - NOTICE
        self._call = self._clock.callLater(min(max(0.0, moment - self._now()), _LOOK_SECONDS), self._look)

    def _look(self) -> None:
        """The reactor's clock and that of the tokens may have gone apart, so both times are compared anew."""
        self._call = None
        left = self._expires_at - self._now()
        if left <= 0:
            self._bearer.token_expired()
            return
        is_news = left <= NOTICE and not self._told
        self._told = self._told or is_news
        self._wait()
        if is_news:
            self._bearer.token_expires(self._expires_at)  # at last, for it may cancel this
