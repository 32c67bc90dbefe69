"""PUBLISHes to a Redis server as fast as it answers, with a bounded number under way.

1. Publications are sent in order. What has not been answered yet is at most `MOST` publications, and at most
   `MOST_BYTES` but for one that is larger by itself.
2. A refusal names the place where the publication was recorded.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable

import hiredis

from marketfeed.commands.recording.files import Place
from marketfeed.commands.redis_link import RedisFault, RedisLink

__all__ = ["ReplayPublisher"]

MOST = 1024
MOST_BYTES = 1 << 20
SILENT_SECONDS = 10.0
"""A server that answers nothing for so long is gone."""
_CHUNK = 1 << 16


class ReplayPublisher:
    """Publishes through `link`. `answered`: how many publications; `unheard`: of them, by nobody.

    All that waits raises `RedisFault`.
    """

    def __init__(self, link: RedisLink, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._asked: deque[tuple[int, Place]] = deque()
        self._asked_bytes = 0
        self._last_answer = clock()
        self.answered = 0
        self.unheard = 0

    @property
    def in_flight(self) -> int:
        """Publications that are not answered yet."""
        return len(self._asked)

    def publish(self, channel: bytes, payload: bytes, place: Place) -> None:
        """Publish; waits until there is room."""
        size = len(channel) + len(payload)
        while self._asked and (len(self._asked) >= MOST or self._asked_bytes + size > MOST_BYTES):
            self._exchange(SILENT_SECONDS)
        if not self._asked:
            self._last_answer = self._clock()
        self._asked.append((size, place))
        self._asked_bytes += size
        self._link.publish([(self._link.head(channel), payload)])
        if len(self._link.waiting) >= _CHUNK:
            self._exchange(0)

    def wait(self, seconds: float) -> None:
        """Send all, and read answers, for so long."""
        until = self._clock() + seconds
        while True:
            left = until - self._clock()
            self._exchange(max(left, 0))
            if left <= 0:
                return

    def finish(self) -> None:
        """Wait for the last answer."""
        while self._asked:
            self._exchange(SILENT_SECONDS)

    def _exchange(self, seconds: float) -> None:
        """Send what the server takes and read what it says; wait at most so long until one of them is possible."""
        link = self._link
        readable, writable, _ = select.select([link], [link] if link.waiting else [], [], seconds)
        if writable:
            link.flush()
        if readable:
            self._receive()
        if self._asked and self._clock() - self._last_answer > SILENT_SECONDS:
            raise RedisFault(f"Redis has not answered for {SILENT_SECONDS:g} s")

    def _receive(self) -> None:
        for reply in self._link.replies():
            self._last_answer = self._clock()
            if not self._asked:
                raise RedisFault("Redis' answer cannot be read")
            size, (path, line) = self._asked.popleft()
            self._asked_bytes -= size
            if isinstance(reply, hiredis.ReplyError):
                raise RedisFault(f"{path}:{line}: Redis refuses the publication: {reply}")
            self.answered += 1
            self.unheard += reply == 0
