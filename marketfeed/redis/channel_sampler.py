"""Finds out which channels are published on, for whoever cannot know their names: it listens now and then.

1. It listens to its patterns for `LISTEN_SECONDS` in every `PERIOD_SECONDS`, at once when a link is up. In between
   nothing is subscribed, so that Redis does not send everything twice for ever.
2. It hears names only. A channel on which nothing is published while it listens is not found until something is.
3. A pattern that the server does not permit is said in the log, once, and does not keep it from hearing the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.link import SubscriberLink
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.logs import Log

__all__ = ["LISTEN_SECONDS", "PERIOD_SECONDS", "ChannelSampler"]

LISTEN_SECONDS = 2.0
PERIOD_SECONDS = 30.0


class _SamplerLink(SubscriberLink):
    """A link that says on which channels something comes."""

    def __init__(self, clock: Clock, heard: Callable[[bytes], None], refused: Callable[[str], None]) -> None:
        super().__init__(clock)
        self._channel_heard = heard
        self._refused = refused

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        if pattern is not None:
            self._channel_heard(channel)

    def heard(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._refused(str(reply))

    def send(self, verb: bytes, patterns: Sequence[bytes]) -> None:
        """Send a command of its own for each pattern, so that one that is refused takes no other with it."""
        self.transport.write(b"".join([hiredis.pack_command((verb, each)) for each in patterns]))


class ChannelSampler(LinkKeeper[_SamplerLink]):
    """Calls `heard` with channels that `patterns` (as PSUBSCRIBE has them) match, as often as something comes there."""

    log = Log()

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        patterns: Sequence[bytes],
        heard: Callable[[bytes], None],
    ) -> None:
        super().__init__(clock, endpoint, address, "redis, for --warm")
        self._patterns = patterns
        self._heard = heard
        self._next: IDelayedCall | None = None
        self._last_refusal = ""

    def make_link(self) -> _SamplerLink:
        return _SamplerLink(self._clock, self._heard, self._refused)

    def link_up(self, link: _SamplerLink) -> None:
        self._listen()

    def link_down(self, link: _SamplerLink | None) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _listen(self) -> None:
        self._turn(b"PSUBSCRIBE", LISTEN_SECONDS, self._pause)

    def _pause(self) -> None:
        self._turn(b"PUNSUBSCRIBE", PERIOD_SECONDS - LISTEN_SECONDS, self._listen)

    def _turn(self, verb: bytes, seconds: float, then: Callable[[], None]) -> None:
        assert self.link is not None  # the timer ends with it
        self.link.send(verb, self._patterns)
        self._next = self._clock.callLater(seconds, then)

    def _refused(self, why: str) -> None:
        if why != self._last_refusal:
            self._last_refusal = why
            self.log.error("redis: --warm cannot listen for streams: {why}", why=why)
