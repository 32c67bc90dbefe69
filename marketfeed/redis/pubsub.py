"""The source for an engine that PUBLISHes to Redis (docs/protocol.md#what-the-engine-publishes).

1. The channels subscribed on the server follow the wanted streams through `DesiredChannels`.
2. The sink hears things in the order in which they happened on the link, and `flush` after each read.
3. The link is never paused: a subscriber with too much unread is cut off by the server.
4. What is on its way when a link is lost may be old. The last moment known good is therefore not when something was
   last heard, but when the server was asked for the last answer that came: all that it had published by then came
   before that answer, as far as it had it itself (see `server_role`).
5. A stream is delivered from its confirmation on. What still comes of a subscription that is being ended is not: what
   follows it until the next one is confirmed will not come.
6. A server that is busy with a script has not answered yet. What it refused for that is sent anew when it answers.
7. A state that was read beside the streams is given out when a PING has been answered that was sent after that: all
   that had been published by then came before the answer (see `ordered_snapshots`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import hiredis
import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock, Sink
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.channels import Batch, DesiredChannels, Verb
from marketfeed.redis.commands import Commands
from marketfeed.redis.link import SubscriberLink
from marketfeed.redis.node_source import FeedLink, NodeSource
from marketfeed.redis.rotation import Rounds
from marketfeed.redis.server_role import ASK_SECONDS, BUSY
from marketfeed.redis.stream_reads import Reading
from marketfeed.runtime.logs import Log

__all__ = ["RedisPubSub"]

RETRIES_A_SECOND = 20
"""Refused channels that are asked for again: of a batch with refused ones each costs some commands."""
_CONFIRMATIONS = {b"subscribe": Verb.SUBSCRIBE, b"unsubscribe": Verb.UNSUBSCRIBE}


class _Ping(msgspec.Struct, frozen=True, eq=False):
    """A PING that was sent `at` this moment, in s since 1970, and who waits for its answer."""

    at: float
    waiting: list[Deferred[bool]]


class _PubSubLink(FeedLink, SubscriberLink):
    """A link that delivers to a source."""

    def __init__(self, clock: Clock, source: RedisPubSub, now: Callable[[], float]) -> None:
        super().__init__(clock)
        self._source = source
        self._streams, self._publish = source.streams, source.sink.publish
        self._now = now
        self._asked: deque[_Ping | Batch] = deque()  # and not answered, oldest first
        self._waiting: list[Deferred[bool]] = []  # for the answer to the next PING
        self._unconfirmed: set[bytes] = set()
        self.good_at = now()  # seconds since 1970: a clock that is set meanwhile would make more of the difference

    @property
    def pinged_at(self) -> float | None:
        """When the oldest PING was sent that is not answered."""
        return next((asked.at for asked in self._asked if isinstance(asked, _Ping)), None)

    def ping(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._asked.append(_Ping(self._now(), waiting))
        super().ping()

    def catch_up(self) -> Deferred[bool]:
        """Wait until all that has been published by now has been told. False: the link is lost before."""
        done: Deferred[bool] = Deferred()
        self._waiting.append(done)
        self._ping_for_those()
        return done

    def _ping_for_those(self) -> None:
        """However many wait, one PING at a time is sent for them."""
        if self._waiting and self.pinged_at is None:
            self.ping()

    def send(self, batch: Batch) -> None:
        """Send one command for all channels of a batch, while no other is unanswered."""
        self._asked.append(batch)
        self._unconfirmed = set(batch.channels)
        self.transport.write(hiredis.pack_command((batch.verb.value.upper(), *batch.channels)))

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        stream = self._streams.get(channel)
        if stream is not None:
            self._publish(stream, message)

    def heard(self, reply: Any) -> None:
        asked = self._asked[0] if self._asked else None
        if isinstance(reply, hiredis.ReplyError):
            if asked is not None:
                self._asked.popleft()
            if isinstance(asked, _Ping):
                self._waiting += asked.waiting
            self._source.refused(self, asked, str(reply))
        elif reply == b"PONG" or (type(reply) is list and reply[0] == b"pong"):
            if isinstance(asked, _Ping):
                self._asked.popleft()
                self.good_at = asked.at
                for each in asked.waiting:
                    each.callback(True)
                self._ping_for_those()
            self._source.answered()
        elif type(reply) is list and reply[0] in _CONFIRMATIONS:
            verb, channel = _CONFIRMATIONS[reply[0]], reply[1]
            if isinstance(asked, Batch) and verb is asked.verb:
                self._unconfirmed.discard(channel)
                if not self._unconfirmed:
                    self._asked.popleft()
            self._source.has_changed(verb, channel)

    def read_ends(self) -> None:
        self._source.sink.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        unanswered = [each for asked in self._asked if isinstance(asked, _Ping) for each in asked.waiting]
        for each in unanswered + self._waiting:
            each.callback(False)


class RedisPubSub(NodeSource[_PubSubLink]):
    """Redis PUBLISH/SUBSCRIBE as a `Source`.

    `channel_prefix`: what stands before a stream's name in that of its channel. `streams`: what is delivered, by its
    channel.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        sink: Sink,
        commands: Commands,
        channel_prefix: str = "",
        now: Callable[[], float] = time.time,
        *,
        name: str = "redis",
    ) -> None:
        super().__init__(clock, endpoint, address, sink, commands, now, name)
        self._prefix = channel_prefix.encode()
        self._desired = DesiredChannels()
        self._put_off: Batch | None = None
        self._retries = Rounds(clock.seconds(), RETRIES_A_SECOND)
        self._asking = LoopingCall(self._ask)
        self._asking.clock = clock
        self._names: dict[bytes, str] = {}
        self.streams: dict[bytes, str] = {}

    @property
    def ping_age(self) -> float | None:
        asked = None if self.link is None else self.link.pinged_at
        return None if asked is None else self._now() - asked

    # What the hub asks for.

    @property
    def wanted(self) -> Collection[str]:
        return self._names.values()

    def want(self, stream: str, position: Reading | None = None) -> int | None:
        channel = self._prefix + stream.encode()
        self._names[channel] = stream
        if self._desired.want(channel):
            self._confirm(channel)
        self._go_on()
        return self.down_since

    def unwant(self, stream: str) -> None:
        channel = self._prefix + stream.encode()
        self._names.pop(channel, None)
        self.streams.pop(channel, None)
        self._desired.unwant(channel)
        self._go_on()

    # What the link says.

    def make_link(self) -> _PubSubLink:
        return _PubSubLink(self._clock, self, self._now)

    def link_up(self, link: _PubSubLink) -> None:
        link.good_at = self._now()
        self._desired.linked()
        self._asking.start(ASK_SECONDS, now=False)
        super().link_up(link)
        self._go_on()

    def link_down(self, link: _PubSubLink | None) -> None:
        self._put_off = None
        self._desired.lost()
        self.streams.clear()
        if self._asking.running:
            self._asking.stop()
        if self.running and link is not None and link.pinged_at is not None:
            line = "redis: the connection ended with a PING unanswered for {seconds:.1f} s"
            self.log.info(line, seconds=self._now() - link.pinged_at)
        super().link_down(link)

    def answered(self) -> None:
        """The server has answered a PING."""
        if self._put_off is not None and self.link is not None:
            batch, self._put_off = self._put_off, None
            self.link.send(batch)

    def has_changed(self, verb: Verb, channel: bytes) -> None:
        """The server has confirmed the beginning or the end of a subscription."""
        self.log.debug("redis: {verb} confirmed: {channel}", verb=verb.value, channel=channel)
        if self._desired.answered(verb, channel):
            self._confirm(channel)
        self._go_on()

    def refused(self, link: _PubSubLink, asked: _Ping | Batch | None, fault: str) -> None:
        """The server answers with an error. `asked`: what it answers."""
        if fault.startswith(BUSY) and asked is not None:
            if isinstance(asked, Batch):
                self._put_off = asked
        elif fault.startswith("NOPERM") and isinstance(asked, Batch):
            channel = self._desired.denied()
            if channel is not None:
                self.sink.refused(self._names[channel], fault)
            self._go_on()
        else:
            link.fail(fault)

    def _confirm(self, channel: bytes) -> None:
        stream = self.streams[channel] = self._names[channel]
        self.sink.confirmed(stream)

    def _go_on(self) -> None:
        if self.link is None:
            return
        batch = self._desired.next_batch()
        if batch is not None:
            line = "redis: {verb} sent for {count} channels, {channel} first"
            self.log.debug(line, verb=batch.verb.value, count=len(batch.channels), channel=batch.channels[0])
            self.link.send(batch)

    def catch_up(self, stream: str) -> Deferred[bool]:
        return succeed(False) if self.link is None else self.link.catch_up()

    def _ask(self) -> None:
        if self.link is not None:
            if self.link.pinged_at is None:
                self.link.ping()
            self._desired.retry(self._retries.due(len(self._desired.refused), self._clock.seconds()))
            self._go_on()
