"""PUBLISHes to Redis servers as fast as they answer, with a bounded number under way.

1. Publications are sent in order, each to the server that has its channel. What has not been answered yet is at most
   `MOST` publications, and at most `MOST_BYTES` but for one that is larger by itself.
2. A refusal names the place where the publication was recorded.
3. What a server refuses because it does not have the channel any more is sent again, in order, when all that is under
   way is answered and before anything else; for `SILENT_SECONDS` at most.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import hiredis

from marketfeed.commands.recording.files import Place
from marketfeed.commands.redis_link import RedisFault, RedisLink
from marketfeed.commands.redis_links import RedisLinks

__all__ = ["ReplayPublisher"]

MOST = 1024
MOST_BYTES = 1 << 20
SILENT_SECONDS = 10.0
"""A server that answers nothing for so long is gone."""
_CHUNK = 1 << 16
_MOVE_SECONDS = 0.05
"""Between two attempts to publish what no server has taken."""


class _Sent(NamedTuple):
    """A publication that is under way."""

    channel: bytes
    payload: bytes
    place: Place

    @property
    def size(self) -> int:
        return len(self.channel) + len(self.payload)


class ReplayPublisher:
    """Publishes through `links`. `answered`: how many publications; `unheard`: of them, by nobody.

    All that waits raises `RedisFault`.
    """

    def __init__(self, links: RedisLinks, clock: Callable[[], float] = time.monotonic) -> None:
        self._links = links
        self._clock = clock
        self._asked: dict[RedisLink, deque[_Sent]] = {}
        self._asked_bytes = 0
        self._again: list[_Sent] = []
        self._moves_since = 0.0
        self._last_answer = clock()
        self.in_flight = 0
        """Publications that are not answered yet."""
        self.answered = 0
        self.unheard = 0

    def publish(self, channel: bytes, payload: bytes, place: Place) -> None:
        """Publish; waits until there is room."""
        self._send_again()
        sent = _Sent(channel, payload, place)
        while self.in_flight and (self.in_flight >= MOST or self._asked_bytes + sent.size > MOST_BYTES):
            self._exchange(SILENT_SECONDS)
            self._send_again()
        self._send(sent)

    def wait(self, seconds: float) -> None:
        """Send all, and read answers, for so long."""
        until = self._clock() + seconds
        while True:
            self._send_again()
            left = until - self._clock()
            self._exchange(max(left, 0))
            if left <= 0:
                return

    def finish(self) -> None:
        """Wait for the last answer."""
        while self.in_flight or self._again:
            self._send_again()
            self._exchange(SILENT_SECONDS)

    def _send(self, sent: _Sent) -> None:
        if not self.in_flight:
            self._last_answer = self._clock()
        link = self._links.at(sent.channel)
        self._asked.setdefault(link, deque()).append(sent)
        self._asked_bytes += sent.size
        self.in_flight += 1
        link.publish([(link.head(sent.channel, self._links.verb), sent.payload)])
        if len(link.waiting) >= _CHUNK:
            self._exchange(0)

    def _send_again(self) -> None:
        """What was refused comes before anything new, in order."""
        while self._again:
            while self.in_flight:
                self._exchange(SILENT_SECONDS)
            again, self._again = self._again, []
            self._moves_since = self._moves_since or self._clock()
            if self._clock() - self._moves_since > SILENT_SECONDS:
                path, line = again[0].place
                raise RedisFault(f"{path}:{line}: no server takes the publication")
            for sent in again:
                self._send(sent)
            while self.in_flight and not self._again:
                self._exchange(SILENT_SECONDS)
            if self._again:
                time.sleep(_MOVE_SECONDS)
        self._moves_since = 0.0

    def _exchange(self, seconds: float) -> None:
        """Send what servers take and read what they say; wait at most so long until one of them is possible."""
        links = self._links.each
        readable, writable, _ = select.select(links, [link for link in links if link.waiting], [], seconds)
        for link in writable:
            link.flush()
        for link in readable:
            self._receive(link)
        if self.in_flight and self._clock() - self._last_answer > SILENT_SECONDS:
            raise RedisFault(f"Redis has not answered for {SILENT_SECONDS:g} s")

    def _receive(self, link: RedisLink) -> None:
        asked = self._asked.setdefault(link, deque())
        for reply in link.replies():
            self._last_answer = self._clock()
            if not asked:
                raise RedisFault("Redis' answer cannot be read")
            sent = asked.popleft()
            self._asked_bytes -= sent.size
            self.in_flight -= 1
            if isinstance(reply, hiredis.ReplyError):
                if not self._links.has_moved(str(reply)):
                    path, line = sent.place
                    raise RedisFault(f"{path}:{line}: Redis refuses the publication: {reply}")
                self._again.append(sent)
                continue
            self.answered += 1
            self.unheard += reply == 0
