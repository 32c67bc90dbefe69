"""The link on which streams are read: one exchange after the other, each of some commands and all their replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from marketfeed.boundaries import Clock
from marketfeed.source.redis_link import RedisLink

__all__ = ["Reader", "ReaderLink"]


class Reader(Protocol):
    """Who uses the link."""

    def idle(self) -> None:
        """All has been answered: the next exchange may begin."""


class ReaderLink(RedisLink):
    """A link for exchanges. `is_busy`: one is under way."""

    def __init__(self, clock: Clock, reader: Reader) -> None:
        super().__init__(clock)
        self._reader = reader
        self._is_up = False
        self._due = 0
        self._got: list[Any] = []
        self._done: Callable[[list[Any]], None] = lambda answers: None

    def take_replies(self) -> None:
        """The login is done."""
        self._is_up = True

    @property
    def is_busy(self) -> bool:
        return self._due > 0

    def exchange(self, commands: bytes, count: int, done: Callable[[list[Any]], None]) -> None:
        """Send `count` commands; `done` is called with their replies, which may be hiredis' ReplyErrors."""
        assert not self._due
        self._due, self._got, self._done = count, [], done
        self.transport.write(commands)

    def heard(self, reply: Any) -> None:
        if not self._is_up:
            super().heard(reply)
        elif reply == b"PONG":  # a sign of life that the keeper asked for; nothing else is answered so
            return
        elif not self._due:
            self.fail("an answer that nobody asked for")
        else:
            self._got.append(reply)
            if len(self._got) == self._due:
                self._done(self._got)
                self._due = 0
                self._reader.idle()
