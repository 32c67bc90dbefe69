"""The source for an engine that PUBLISHes to Redis (PROTOCOL.md, section 2).

1. The channels subscribed on the server follow the wanted streams through `DesiredChannels`.
2. The sink hears things in the order in which they happened on the link, and `flush` after each read.
3. The link is never paused: a subscriber with too much unread is cut off by the server.
4. What is on its way when a link is lost may be old. The last moment known good is therefore not when something was
   last heard, but when the server was asked for the last answer that came: all that it had published by then came
   before that answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import hiredis
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock, Sink
from marketfeed.logs import Log
from marketfeed.redis_address import RedisAddress
from marketfeed.source.desired import DesiredChannels, Verb
from marketfeed.source.link_service import LinkService
from marketfeed.source.redis_link import RedisLink
from marketfeed.source.resp import pack
from marketfeed.source.subscriber_link import SubscriberLink
from marketfeed.source.verification import Rounds

__all__ = ["RedisPubSub"]

ASK_SECONDS = 1.0
"""How often the server is asked for an answer."""
RETRIES_A_SECOND = 20
"""Refused channels that are asked for again: of a batch with refused ones each costs some commands."""
_CONFIRMATIONS = {b"subscribe": Verb.SUBSCRIBE, b"unsubscribe": Verb.UNSUBSCRIBE}


class _PubSubLink(SubscriberLink):
    """A link that delivers to a source."""

    def __init__(self, clock: Clock, source: RedisPubSub, now: Callable[[], float]) -> None:
        super().__init__(clock)
        self._source: RedisPubSub = source
        self._streams, self._publish = source.streams, source.sink.publish
        self._now = now
        self._asked_at: float | None = None
        self.good_at = now()  # seconds since 1970: a clock that is set meanwhile would make more of the difference

    def ask(self) -> None:
        """Ask for an answer, unless one is awaited."""
        if self._asked_at is None:
            self._asked_at = self._now()
            self.ping()

    def answered(self) -> None:
        """The answer is here."""
        if self._asked_at is not None:
            self.good_at, self._asked_at = self._asked_at, None

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        stream = self._streams.get(channel)
        if stream is not None:
            self._publish(stream, message)

    def heard(self, reply: Any) -> None:
        self._source.heard(self, reply)

    def read_ends(self) -> None:
        self._source.sink.flush()

    def send(self, verb: Verb, channels: list[bytes]) -> None:
        """Send one command for all of `channels`."""
        self.transport.write(pack(verb.value.upper(), *channels))


class RedisPubSub(LinkService):
    """Redis PUBLISH/SUBSCRIBE as a `Source`."""

    log = Log()

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        sink: Sink,
        channel_prefix: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock, endpoint, address, "redis")
        self._prefix = channel_prefix.encode()
        self._now = now
        self._desired = DesiredChannels()
        self._link: _PubSubLink | None = None
        self._retries = Rounds(clock.seconds(), RETRIES_A_SECOND)
        self._asking = LoopingCall(self._ask)
        self._asking.clock = clock
        self.sink = sink
        self.streams: dict[bytes, str] = {}

    # What the hub asks for.

    def want(self, stream: str) -> None:
        channel = self._prefix + stream.encode()
        self.streams[channel] = stream
        if self._desired.want(channel):
            self.sink.confirmed(stream)
        self._go_on()

    def unwant(self, stream: str) -> None:
        channel = self._prefix + stream.encode()
        self.streams.pop(channel, None)
        self._desired.unwant(channel)
        self._go_on()

    # What the link says.

    def make_link(self) -> RedisLink:
        return _PubSubLink(self._clock, self, self._now)

    def link_up(self, link: RedisLink) -> None:
        assert isinstance(link, _PubSubLink)
        self._link = link
        link.good_at = self._now()
        self._desired.linked()
        self._asking.start(ASK_SECONDS, now=False)
        self.sink.reached()
        self._go_on()

    def link_down(self, link: RedisLink | None) -> None:
        self._link = None
        self._desired.lost()
        if self._asking.running:
            self._asking.stop()
        if self.running:
            self.sink.lost(None if link is None else self._good_at(link))

    def heard(self, link: _PubSubLink, reply: Any) -> None:
        """Everything on the link that is not a message."""
        if reply == b"PONG" or (type(reply) is list and reply[0] == b"pong"):
            link.answered()
        elif isinstance(reply, hiredis.ReplyError):
            self._refused(link, str(reply))
        elif type(reply) is list and reply[0] in _CONFIRMATIONS:
            verb, channel = _CONFIRMATIONS[reply[0]], reply[1]
            self.log.debug("redis: {verb} confirmed: {channel}", verb=verb.value, channel=channel)
            if self._desired.answered(verb, channel):
                self.sink.confirmed(self.streams[channel])
        self._go_on()

    def _refused(self, link: _PubSubLink, fault: str) -> None:
        if not fault.startswith("NOPERM"):
            link.fail(fault)
            return
        channel = self._desired.denied()
        if channel is not None:
            self.sink.refused(self.streams[channel], fault)

    def _go_on(self) -> None:
        if self._link is None:
            return
        batch = self._desired.next_batch()
        if batch is not None:
            self.log.debug(
                "redis: {verb} sent for {count} channels, {channel} first",
                verb=batch.verb.value,
                count=len(batch.channels),
                channel=batch.channels[0],
            )
            self._link.send(batch.verb, batch.channels)

    def _ask(self) -> None:
        if self._link is not None:
            self._link.ask()
            self._desired.retry(self._retries.due(self._desired.refusals, self._clock.seconds()))
            self._go_on()

    def _good_at(self, link: RedisLink) -> int:
        assert isinstance(link, _PubSubLink)
        return int(link.good_at * 1000)
