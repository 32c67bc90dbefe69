"""The two sources of a topology, put together: what is published on channels, and what is added to Redis Streams.

Whoever reads of several servers, the daemon, the candle service, a command, does it through one of these.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from marketfeed.boundaries import Archive, Clock, Sink, Snapshots
from marketfeed.redis.pubsub import RedisPubSub
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.routed_source import RoutedSource
from marketfeed.redis.streams import RedisStreams
from marketfeed.redis.topology import Node, Topology

__all__ = ["source_of_channels", "source_of_streams"]


def source_of_channels(
    clock: Clock,
    topology: Topology,
    sink: Sink,
    prefix: str,
    roles: RoutedCommands,
    now: Callable[[], float] = time.time,
    *,
    is_sharded: bool,
    flush: Callable[[], None] | None = None,
    snapshots: Snapshots | None = None,
    what: str = "",
) -> RoutedSource:
    """The source of channels, which go by `prefix` and the name of their stream.

    `roles`: through which the servers are asked for their role; `is_sharded`: the channels are those of a cluster, each
    of which is one server's; `flush`: the sink's, unless something is put in between; `what`: comes this way, behind
    the name of each link.
    """

    def make(node: Node) -> RedisPubSub:
        return RedisPubSub(
            clock,
            node.endpoint,
            node.address,
            sink,
            roles.at(node),
            prefix,
            now,
            name=f"{node.name}{what}",
            doubt=topology.doubt if is_sharded else None,
            flush=flush,
            certain_at=partial(topology.certain_at, node),
        )

    return RoutedSource(topology, make, sink, prefix, now, snapshots=snapshots)


def source_of_streams(
    clock: Clock,
    topology: Topology,
    sink: Sink,
    prefix: str,
    archive: Archive,
    *,
    has_slots: bool,
    snapshots: Snapshots | None = None,
    what: str = "",
    rest: float = 0.0,
) -> RoutedSource:
    """The source of Redis Streams, whose keys are `prefix` and the name of the stream. `has_slots`: servers send
    elsewhere for keys that they do not have; `what`: as above; `rest`: see `ReadPace`.
    """

    def make(node: Node) -> RedisStreams:
        return RedisStreams(
            clock,
            node.endpoint,
            node.address,
            sink,
            prefix,
            archive=archive,
            name=f"{node.name}{what}",
            rest=rest,
            doubt=topology.doubt if has_slots else None,
            certain_at=partial(topology.certain_at, node),
        )

    return RoutedSource(topology, make, sink, prefix, archive=archive, snapshots=snapshots)
