"""Listens to channels wherever they are, for the recorder and the bridge.

1. What is published on any channel can be heard on one server, alone or a master, or on any node of a cluster
   (`--pubsub classic`): there is one listener, which goes where the topology says. What is published meanwhile is
   lost.
2. Sharded channels of a cluster are each on one of several servers, and go by their names. They are listened to as the
   daemon does; the sink hears of the loss of some as of the loss of all, and of the others what comes on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Clock, Sink, Subscriber
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.listener import ListenerSink, RedisListener
from marketfeed.redis.per_node import PerNode
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.sources import source_of_channels
from marketfeed.redis.topology import Node, Topology

__all__ = ["RoutedListener", "ShardedListener", "make_listener"]

_Commands = Sequence[tuple[bytes, bytes]]


def make_listener(
    clock: Clock,
    topology: Topology,
    commands: _Commands,
    sink: ListenerSink,
    now: Callable[[], float] = time.time,
    *,
    is_sharded: bool,
    what: str = "",
) -> RoutedListener | ShardedListener:
    """What listens to what `commands` subscribe to. `now`: the sink's time; `is_sharded`: these are SUBSCRIBEs only;
    `what`: comes this way, behind the name of each link.
    """
    if is_sharded:
        return ShardedListener(clock, topology, [channel for _, channel in commands], sink, now, what)
    return RoutedListener(clock, topology, commands, sink, now, what)


class RoutedListener(PerNode[RedisListener]):
    """Listens on the server of a topology of one."""

    def __init__(
        self,
        clock: Clock,
        topology: Topology,
        commands: _Commands,
        sink: ListenerSink,
        now: Callable[[], float] = time.time,
        what: str = "",
    ) -> None:
        self._sink = sink

        def make(node: Node) -> RedisListener:
            roles = RedisCommands(clock, node.endpoint, node.address, f"{node.name}{what} commands")
            return RedisListener(clock, node, commands, sink, roles, now, partial(topology.certain_at, node), what)

        super().__init__(topology, make)

    def changed(self) -> None:
        nodes = self.topology.nodes
        for listener in self.each():
            if listener.node not in nodes:
                self._sink.lost(listener.good_at)
        self.end_gone(nodes)
        self.begin_new(nodes)

    def catch_up(self, channel: bytes) -> Deferred[bool]:
        """Wait until all that has been published on a channel by now has been told. False: that is not to be known any
        more. It never fails.
        """
        return next((listener.catch_up() for listener in self.each()), succeed(False))

    def stopService(self) -> Deferred[None]:
        return super().stopService().addCallback(lambda _: None)


class ShardedListener(MultiService):
    """Listens to sharded channels. It is the `Sink` of their source, and tells a sink of its own."""

    def __init__(
        self,
        clock: Clock,
        topology: Topology,
        channels: Sequence[bytes],
        sink: ListenerSink,
        now: Callable[[], float] = time.time,
        what: str = "",
    ) -> None:
        MultiService.__init__(self)
        self._sink = sink
        self._names = [channel.decode() for channel in channels]
        self._missing = set(self._names)
        self._is_in_read = False
        roles = RoutedCommands(clock, topology, f"{what} commands".strip())
        self._source = source_of_channels(clock, topology, self, "", roles, now, is_sharded=True, what=what)
        for each in (roles, self._source):
            cast(IService, each).setServiceParent(self)

    def startService(self) -> None:
        MultiService.startService(self)
        for name in self._names:
            self._source.want(name)

    def stopService(self) -> Deferred[None]:
        stopped: Deferred[None] = MultiService.stopService(self).addCallback(lambda _: None)
        return stopped

    def catch_up(self, channel: bytes) -> Deferred[bool]:
        """See `RoutedListener`."""
        return self._source.caught_up(channel.decode()).addCallback(lambda server: server is not None)

    # What the source says.

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        if not self._is_in_read:
            self._is_in_read = True
            self._sink.arrived()
        channel = stream.encode()
        self._sink.publication(channel, channel, payload)

    def flush(self) -> None:
        self._is_in_read = False
        self._sink.flush()

    def confirmed(self, stream: str, after: str | None = None) -> None:
        was_missing = bool(self._missing)
        self._missing.discard(stream)
        if was_missing and not self._missing:
            self._sink.arrived()
            self._sink.complete()

    def refused(self, stream: str, why: str) -> None:
        self._sink.refused(stream.encode(), why)

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        if streams:
            self._missing.update(streams)
            self._sink.lost(since / 1000)

    # Which links there are is nobody's business here, and channels have no more to say.

    def reached(self, link: str) -> None: ...
    def missed(self, stream: str, seconds: float) -> None: ...
    def discovered(self, stream: str) -> None: ...
    def behind(self) -> list[Subscriber]:
        return []


if TYPE_CHECKING:
    _sink: Sink = cast("ShardedListener", None)
