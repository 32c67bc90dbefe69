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
7. In a cluster with sharded channels (SSUBSCRIBE) this is one of several servers, each of which has some slots. Several
   commands are in flight, each for channels of one slot. What the server does not have, or has no longer, is misplaced:
   somebody is told to look where it is, and it is asked for again once a second, unless it is wanted elsewhere by then.
   What the server has ended by itself is lost since it was last good.
8. A state that was read beside the streams is given out when a PING has been answered that was sent after that: all
   that had been published by then came before the answer (see `ordered_snapshots`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock, Sink
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.channels import Batch, DesiredChannels, Verb
from marketfeed.redis.commands import Commands
from marketfeed.redis.node_source import NodeSource
from marketfeed.redis.pubsub_link import Ping, PubSubLink
from marketfeed.redis.rotation import Rounds
from marketfeed.redis.server_role import ASK_SECONDS, BUSY
from marketfeed.redis.stream_reads import Reading
from marketfeed.redis.topology import REDIRECTIONS, key_slot
from marketfeed.runtime.logs import Log

__all__ = ["RedisPubSub"]

RETRIES_A_SECOND = 20
"""Refused channels that are asked for again: of a batch with refused ones each costs some commands."""
WINDOW = 32
"""Commands for sharded channels that are in flight: each is for one slot, and there are thousands of them."""


class RedisPubSub(NodeSource[PubSubLink]):
    """Redis PUBLISH/SUBSCRIBE as a `Source`.

    `channel_prefix`: what stands before a stream's name in that of its channel. `doubt`: of a server that has some of
    the sharded channels of a cluster; it is called when the server does not have one, with its error if there is one.
    `flush`: the sink's, unless something is put in between. `streams`: what is delivered, by its channel.
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
        doubt: Callable[[str], None] | None = None,
        flush: Callable[[], None] | None = None,
        certain_at: Callable[[], float] = lambda: math.inf,
    ) -> None:
        super().__init__(clock, endpoint, address, sink, commands, now, name, certain_at)
        self._prefix = channel_prefix.encode()
        self._doubt = doubt
        self._flush = sink.flush if flush is None else flush
        self._desired = DesiredChannels() if doubt is None else DesiredChannels(key_slot, WINDOW)
        self._put_off: list[Batch] = []
        self._ended: dict[int, list[str]] = {}
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

    def make_link(self) -> PubSubLink:
        return PubSubLink(self._clock, self, self._now)

    def link_up(self, link: PubSubLink) -> None:
        link.good_at = self._now()
        self._desired.linked()
        self._asking.start(ASK_SECONDS, now=False)
        super().link_up(link)
        self._go_on()

    def link_down(self, link: PubSubLink | None) -> None:
        self._put_off.clear()
        self._ended.clear()
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
        if self._put_off:
            batches, self._put_off = self._put_off, []
            self._send(batches)

    def has_changed(self, verb: Verb, channel: bytes, batch: Batch | None) -> None:
        """The server has confirmed the beginning or the end of a subscription. `batch`: in answer to that."""
        self.log.debug("redis: {verb} confirmed: {channel}", verb=verb.value, channel=channel)
        if self._desired.answered(verb, channel, batch):
            self._confirm(channel)
        elif channel in self._desired.misplaced and channel in self.streams:
            self._ended.setdefault(self.good_at, []).append(self.streams.pop(channel))
        self._go_on()

    def read_ends(self) -> None:
        """All that came together has been told."""
        self._flush()
        if self._ended:
            ended, self._ended = self._ended, {}
            for since, streams in ended.items():
                self.sink.lost(since, [stream for stream in streams if self._is_misplaced(stream)], "")
            self._look_elsewhere("")

    def _is_misplaced(self, stream: str) -> bool:
        return self._prefix + stream.encode() in self._desired.misplaced

    def _look_elsewhere(self, fault: str) -> None:
        if self._doubt is not None:
            self._doubt(fault)

    def refused(self, link: PubSubLink, asked: Ping | Batch | None, fault: str) -> None:
        """The server answers with an error. `asked`: what it answers."""
        if fault.startswith(BUSY) and asked is not None:
            if isinstance(asked, Batch):
                self._put_off.append(asked)
        elif fault.startswith("NOPERM") and isinstance(asked, Batch):
            channel = self._desired.denied(asked)
            if channel is not None:
                self.sink.refused(self._names[channel], fault)
            self._go_on()
        elif fault.split(" ", 1)[0] in REDIRECTIONS and isinstance(asked, Batch) and self._doubt is not None:
            self._misplaced([self._names[channel] for channel in self._desired.misplace(asked)], fault)
            self._go_on()
        else:
            link.fail(fault)

    def _misplaced(self, streams: list[str], fault: str) -> None:
        """The server does not have them. What nobody else has either is out of reach."""
        self._look_elsewhere(fault)
        left = [stream for stream in streams if self._is_misplaced(stream)]
        if left:
            self.sink.lost(int(self._now() * 1000), left, "")

    def _confirm(self, channel: bytes) -> None:
        stream = self.streams[channel] = self._names[channel]
        self.sink.confirmed(stream)

    def _go_on(self) -> None:
        if self.link is None:
            return
        batches = []
        while (batch := self._desired.next_batch()) is not None:
            line = "redis: {verb} sent for {count} channels, {channel} first"
            self.log.debug(line, verb=batch.verb.value, count=len(batch.channels), channel=batch.channels[0])
            batches.append(batch)
        if batches:
            self._send(batches)

    def _send(self, batches: list[Batch]) -> None:
        if self.link is not None:
            self.link.send(batches, "" if self._doubt is None else "S")

    def catch_up(self, stream: str) -> Deferred[bool]:
        return succeed(False) if self.link is None else self.link.catch_up()

    def _ask(self) -> None:
        if self.link is not None:
            if self.link.pinged_at is None:
                self.link.ping()
            self._desired.ask_again()
            self._desired.retry(self._retries.due(len(self._desired.refused), self._clock.seconds()))
            self._go_on()
