"""PUBLISHes to Redis, for the simulated engine. While there is no link, what is to be published is dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import hiredis
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.link import RedisLink
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.logs import Log

__all__ = ["RedisPublisher"]

_KEPT_SECONDS = 60


class _PublisherLink(RedisLink):
    log = Log()
    _has_complained = False

    def heard(self, reply: Any) -> None:
        """How many clients got a publication, or why none may."""
        if isinstance(reply, hiredis.ReplyError) and not self._has_complained:
            self._has_complained = True
            self.log.error("redis: a publication, or a state, is refused: {fault}", fault=str(reply))


class RedisPublisher(LinkKeeper[_PublisherLink]):
    """Keeps a link to publish through."""

    def __init__(self, clock: Clock, endpoint: IStreamClientEndpoint, address: RedisAddress) -> None:
        super().__init__(clock, endpoint, address, "publisher")

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        """Send (channel, payload) pairs in order."""
        self._send([("PUBLISH", channel, payload) for channel, payload in batch])

    def keep(self, states: list[tuple[str, bytes]]) -> None:
        """Set (key, value) pairs, which Redis forgets again when they are not renewed."""
        self._send([("SET", key, value, "EX", _KEPT_SECONDS) for key, value in states])

    def _send(self, commands: Iterable[tuple[str | bytes | int, ...]]) -> None:
        if self.link is not None:
            self.link.transport.write(b"".join(map(hiredis.pack_command, commands)))

    def make_link(self) -> _PublisherLink:
        return _PublisherLink(self._clock)
