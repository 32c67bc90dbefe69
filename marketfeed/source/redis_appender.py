"""XADDs to Redis streams, for the bridge and for the simulated engine.

1. Entries are sent at once, in order, and their answers counted. What is unanswered when the link is lost is counted
   as lost, though the server may have it.
2. At most `MOST_BYTES` are unanswered. What comes while there is no room, or no link, is lost and counted: nothing
   else is kept, for an entry that is added late would stand behind younger ones.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import hiredis
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.logs import Log
from marketfeed.model.ratelimit import TokenBucket
from marketfeed.redis_address import RedisAddress
from marketfeed.source.link_service import LinkService
from marketfeed.source.redis_link import RedisLink

__all__ = ["MOST_BYTES", "RedisAppender"]

MOST_BYTES = 64 * 1024 * 1024


class _AppenderLink(RedisLink):
    def __init__(self, clock: Clock, appender: RedisAppender) -> None:
        super().__init__(clock)
        self._appender = appender

    def heard(self, reply: Any) -> None:
        if reply != b"PONG":
            self._appender.answered(reply)


class RedisAppender(LinkService):
    """Keeps a link to append through. `maxlen`: about so many entries are kept of each stream; 0: all.

    `added` and `lost` count entries. `ready`: there is a link.
    """

    log = Log()

    def __init__(self, clock: Clock, endpoint: IStreamClientEndpoint, address: RedisAddress, maxlen: int) -> None:
        super().__init__(clock, endpoint, address, "appender")
        self._link: RedisLink | None = None
        self._words = 8 if maxlen else 5
        limit = str(maxlen).encode()
        self._limit = b"$6\r\nMAXLEN\r\n$1\r\n~\r\n$%d\r\n%b\r\n" % (len(limit), limit) if maxlen else b""
        self._unanswered: deque[int] = deque()
        self._bytes = 0
        self._idle: Deferred[None] | None = None
        self._loss_lines = TokenBucket(1, 5, clock.seconds())
        self.added = 0
        self.lost = 0

    @property
    def ready(self) -> bool:
        return self._link is not None

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        """Append (key, payload) pairs in order."""
        if self._link is None:
            self._lose(len(batch), "there is no connection")
            return
        parts = []
        for key, payload in batch:
            if self._bytes + len(payload) > MOST_BYTES:
                self._lose(1, "Redis does not answer as fast as there are publications")
                continue
            name = key.encode()
            parts.append(
                b"*%d\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n%b$1\r\n*\r\n$1\r\nd\r\n$%d\r\n%b\r\n"
                % (self._words, len(name), name, self._limit, len(payload), payload)
            )
            self._unanswered.append(len(payload))
            self._bytes += len(payload)
        self._link.transport.write(b"".join(parts))

    def all_answered(self) -> Deferred[None]:
        """Fires when nothing is unanswered. To be called once, when nothing more is published."""
        if not self._unanswered:
            return succeed(None)
        self._idle = Deferred()
        return self._idle

    def answered(self, reply: Any) -> None:
        """The server has taken, or refused, the oldest entry that is unanswered."""
        self._bytes -= self._unanswered.popleft()
        if isinstance(reply, hiredis.ReplyError):
            self._lose(1, f"Redis refuses an entry: {reply}")
        else:
            self.added += 1
        self._look_whether_idle()

    def make_link(self) -> RedisLink:
        return _AppenderLink(self._clock, self)

    def link_up(self, link: RedisLink) -> None:
        assert isinstance(link, _AppenderLink)
        self._link = link

    def link_down(self, link: RedisLink | None) -> None:
        self._link = None
        if self._unanswered:
            self._lose(len(self._unanswered), "the connection was lost before their answers came")
            self._unanswered.clear()
            self._bytes = 0
        self._look_whether_idle()

    def _look_whether_idle(self) -> None:
        if self._idle is not None and not self._unanswered:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        if self._loss_lines.take(self._clock.seconds()):
            self.log.error("appender: entries are lost, {lost} until now: {why}", lost=self.lost, why=why)
