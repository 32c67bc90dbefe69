"""The link on which streams are read: one exchange after the other, each of some commands and all their replies.

What is on its way when the link is lost may be old. The link was good when the last exchange that ended began: all that
the server had by then came with its replies. An exchange whose replies are not all worked through yet has not ended.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from marketfeed.boundaries import Clock
from marketfeed.redis.link import RedisLink

__all__ = ["ANSWERED", "ASKED", "BLOCKED", "NONE", "Exchange", "Reader", "ReaderLink"]


class Exchange(Enum):
    """How far the present exchange is: from `NONE` to `ASKED` or `BLOCKED`, then `ANSWERED`, then `NONE`."""

    NONE = "the next one may begin"
    ASKED = "replies are due"
    BLOCKED = "the reply is due when there is something, or after a while"
    ANSWERED = "the replies are worked through"


NONE, ASKED, BLOCKED, ANSWERED = Exchange
"""By these names they are found in a fraction of the time, which each read takes some times."""


class Reader(Protocol):
    """Who uses the link."""

    def go_on(self) -> None:
        """The next exchange may begin."""


class ReaderLink(RedisLink):
    """A link for exchanges. `good_at`: when it was last known good, in s since 1970."""

    def __init__(self, clock: Clock, reader: Reader, now: Callable[[], float]) -> None:
        super().__init__(clock)
        self._reader = reader
        self._now = now
        self._asked_at = self.good_at = now()
        self._due = 0
        self._got: list[Any] = []
        self._done: Callable[[list[Any]], bool | None] = lambda answers: None
        self.exchange = NONE

    def ask(
        self, commands: bytes, count: int, done: Callable[[list[Any]], bool | None], *, blocks: bool = False
    ) -> None:
        """Send `count` commands; `done` is called with their replies, which may be hiredis' ReplyErrors.

        If it returns True the exchange goes on until `end` is called. `blocks`: the server may let the reply wait.
        """
        assert self.exchange is NONE
        self.exchange = BLOCKED if blocks else ASKED
        self._asked_at = self._now()
        self._due, self._got, self._done = count, [], done
        self.transport.write(commands)

    @property
    def awaited_since(self) -> float | None:
        """When what is due at once was asked for, in s since 1970; None: nothing is."""
        return self._asked_at if self.exchange is ASKED else None

    def heard(self, reply: Any) -> None:
        if reply == b"PONG":  # a sign of life that the keeper asked for; nothing else is answered so
            return
        if self.exchange is NONE or self.exchange is ANSWERED:
            self.fail("an answer that nobody asked for")
            return
        self._got.append(reply)
        if len(self._got) == self._due:
            self.exchange = ANSWERED
            if not self._done(self._got):
                self.end()

    def end(self) -> None:
        """The replies have been worked through."""
        self.good_at = self._asked_at
        self._got = []
        self.exchange = NONE
        self._reader.go_on()
