"""PUBLISHes to Redis, for the simulated engine. While there is no link, what is to be published is dropped.

1. A publication goes to the server that has its channel, in a cluster with sharded channels by SPUBLISH. Those of a
   channel go in order.
2. A state goes to the server that has its key. What is published behind it waits until the server has it.
3. A server that does not have a channel (`is_elsewhere`) is not published to for `REST_SECONDS`, while the topology
   looks again. What it has refused is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

import hiredis
import msgspec
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import CommandFault, CommandRefused
from marketfeed.redis.link import RedisLink
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.redis.per_node import PerNode
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.topology import Node, Topology, is_elsewhere
from marketfeed.runtime.logs import Log

__all__ = ["REST_SECONDS", "RedisPublisher", "RoutedPublisher"]

REST_SECONDS = 0.25
_KEPT_SECONDS = 60
_MOST_WAITING = 100
"""Batches that wait for states, beyond which it is not ready."""
_Pairs = list[tuple[str, bytes]]


class _Batch(msgspec.Struct, frozen=True):
    """Publications, or states."""

    pairs: _Pairs
    is_states: bool


class _PublisherLink(RedisLink):
    log = Log()
    _has_complained = False

    def __init__(self, clock: Clock, elsewhere: Callable[[str], None]) -> None:
        super().__init__(clock)
        self._elsewhere = elsewhere

    def heard(self, reply: Any) -> None:
        """How many clients got a publication, or why none may."""
        if not isinstance(reply, hiredis.ReplyError):
            return
        fault = str(reply)
        if not self._has_complained:
            self._has_complained = True
            self.log.error("redis: a publication is refused: {fault}", fault=fault)
        if is_elsewhere(fault):
            self._elsewhere(fault)


class RedisPublisher(LinkKeeper[_PublisherLink]):
    """Keeps a link to one server to publish through. `elsewhere`: called when it sends elsewhere, with its error."""

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        name: str,
        elsewhere: Callable[[str], None],
    ) -> None:
        super().__init__(clock, endpoint, address, name)
        self._elsewhere = elsewhere

    def send(self, commands: Iterable[tuple[str | bytes, ...]]) -> None:
        """Send them in order, if there is a link."""
        if self.link is not None:
            self.link.transport.write(b"".join(map(hiredis.pack_command, commands)))

    def make_link(self) -> _PublisherLink:
        return _PublisherLink(self._clock, self._elsewhere)


class RoutedPublisher(MultiService):
    """Publishes on the channels, and keeps the keys, that these topologies know.

    `is_sharded`: the channels are those of a cluster, each of which is one server's.
    """

    log = Log()

    def __init__(self, clock: Clock, keys: Topology, channels: Topology, *, is_sharded: bool = False) -> None:
        MultiService.__init__(self)
        self._clock = clock
        self._channels = channels
        self._verb = "SPUBLISH" if is_sharded else "PUBLISH"
        self._states = RoutedCommands(clock, keys, "states")
        self._links: PerNode[RedisPublisher] = PerNode(channels, self._link)
        for each in (self._states, self._links):
            cast(IService, each).setServiceParent(self)
        self._waiting: deque[_Batch] = deque()
        self._are_states_under_way = False
        self._rests_until = 0.0
        self._last_refusal = ""

    def _link(self, node: Node) -> RedisPublisher:
        return RedisPublisher(self._clock, node.endpoint, node.address, f"{node.name} publisher", self._look_elsewhere)

    @property
    def ready(self) -> bool:
        """Every server answers: what is published now arrives."""
        links, states = list(self._links.each()), list(self._states.each())
        are_up = all(each.ready for each in links) and all(each.ready for each in states)
        may_publish = len(self._waiting) < _MOST_WAITING and self._clock.seconds() >= self._rests_until
        return bool(links and states) and are_up and may_publish

    def stopService(self) -> Deferred[None]:
        stopped: Deferred[None] = MultiService.stopService(self).addCallback(lambda _: None)
        return stopped

    def publish(self, batch: _Pairs) -> None:
        """Send (channel, payload) pairs in order."""
        self._take(_Batch(batch, is_states=False))

    def keep(self, states: _Pairs) -> None:
        """Set (key, value) pairs, which Redis forgets again when they are not renewed."""
        self._take(_Batch(states, is_states=True))

    def _take(self, batch: _Batch) -> None:
        self._waiting.append(batch)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and not self._are_states_under_way:
            batch = self._waiting.popleft()
            if batch.is_states:
                Deferred.fromCoroutine(self._keep(batch.pairs))
            else:
                self._publish(batch.pairs)

    async def _keep(self, states: _Pairs) -> None:
        self._are_states_under_way = True
        asked = [self._states.ask_for(key.encode(), "SET", key, value, "EX", _KEPT_SECONDS) for key, value in states]
        for each in asked:
            try:
                await each
            except CommandRefused as refusal:
                self._complain(str(refusal))
            except CommandFault:
                pass  # whose link it is has said so
        self._are_states_under_way = False
        self._go_on()

    def _complain(self, fault: str) -> None:
        if fault != self._last_refusal:
            self._last_refusal = fault
            self.log.error("redis: a state is refused: {fault}", fault=fault)

    def _publish(self, publications: _Pairs) -> None:
        by_node: dict[Node, list[tuple[str | bytes, ...]]] = {}
        for channel, payload in publications:
            node = self._channels.node_for(channel.encode())
            if node is None:
                self._look_elsewhere("")
            else:
                by_node.setdefault(node, []).append((self._verb, channel, payload))
        for node, commands in by_node.items():
            self._links.at(node).send(commands)

    def _look_elsewhere(self, fault: str) -> None:
        self._rests_until = self._clock.seconds() + REST_SECONDS
        self._channels.doubt(fault)
