"""The source of a topology: each stream is wanted from the server that has it, and moves when another one has it.

1. What comes from a server goes straight to the sink; nothing of it passes through here.
2. A stream that moves is ended at the one server before it is wanted from the other. What its position is there goes
   with it, where streams have positions: then nothing is missed. Otherwise it is lost for that time, which the sink
   hears before anything else of it.
3. A stream that no server has is out of reach since that was noticed. At the start, while nobody has said yet where
   anything is, it is not out of reach: its confirmation is late.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Archive, Sink, Snapshots
from marketfeed.redis.node_source import NodeSource
from marketfeed.redis.ordered_snapshots import OrderedSnapshots
from marketfeed.redis.per_node import PerNode
from marketfeed.redis.stream_reads import Reading
from marketfeed.redis.topology import Node, Topology

__all__ = ["RoutedSource"]


class RoutedSource(PerNode[NodeSource[Any]]):
    """A `Source`, which tells `sink`, as what `make` makes for each server does.

    `channel_prefix`: what stands before a stream's name in that of its channel, or key. `now`: s since 1970.
    """

    def __init__(
        self,
        topology: Topology,
        make: Callable[[Node], NodeSource[Any]],
        sink: Sink,
        channel_prefix: str = "",
        now: Callable[[], float] = time.time,
        *,
        archive: Archive | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        super().__init__(topology, make)
        self._sink = sink
        self._prefix = channel_prefix.encode()
        self._now = now
        self._places: dict[str, Node | None] = {}
        self._positions: dict[str, Reading] = {}  # of those that no server has
        # Those that are still to be wanted from where they are now, with when they were good where they were.
        self._moving: dict[str, tuple[Reading | None, int]] = {}
        self.archive = archive
        self.snapshots = None if snapshots is None else OrderedSnapshots(snapshots, self._catch_up)

    def want(self, stream: str, position: Reading | None = None) -> int | None:
        """See `Source`. `position`: where it is read on, if that is not its end."""
        self._moving.pop(stream, None)
        node = self._places[stream] = self.topology.node_for(self._prefix + stream.encode())
        if node is not None:
            return self.at(node).want(stream, position)
        if position is not None:
            self._positions[stream] = position
        return int(self._now() * 1000) if self.topology.is_known else None

    def unwant(self, stream: str) -> None:
        node = self._places.pop(stream)
        self._positions.pop(stream, None)
        if stream in self._moving:
            del self._moving[stream]
        elif node is not None:
            self.at(node).unwant(stream)

    def caught_up(self, stream: str) -> Deferred[str | None]:
        return Deferred.fromCoroutine(self._caught_up(stream))

    async def _caught_up(self, stream: str) -> str | None:
        node = self._places.get(stream)
        if node is None:
            return None
        source = self.at(node)
        server = source.server
        is_same = await source.catch_up(stream) and self._places.get(stream) is node and source.server == server
        return server if is_same else None

    def _catch_up(self, stream: str) -> Deferred[bool]:
        node = self._places.get(stream)
        return succeed(False) if node is None else self.at(node).catch_up(stream)

    # Where the topology changes.

    def changed(self) -> None:
        self.begin_new(self.topology.nodes)
        self._move()
        names = {source.called for source in self.each()}
        self.end_gone(self.topology.nodes)
        for name in sorted(names - {source.called for source in self.each()}):
            self._sink.reached(name)

    def _move(self) -> None:
        lost: dict[int, list[str]] = {}
        for stream, place in list(self._places.items()):
            node = self.topology.node_for(self._prefix + stream.encode())
            if node is place:
                continue
            since = int(self._now() * 1000)
            position = self._positions.pop(stream, None)
            if place is not None:
                since = self.at(place).good_at
                position = self.at(place).unwant(stream)
                if position is not None and position.away is not None:
                    since = min(since, position.away.since)
                if position is None or node is None:
                    lost.setdefault(since, []).append(stream)
            if node is not None:
                self._moving[stream] = position, since
            elif position is not None:
                self._positions[stream] = position
            self._places[stream] = node
        self._lose(lost)
        away: dict[int, list[str]] = {}
        while self._moving:  # without those whose loss has ended the last client who wanted them
            stream = next(iter(self._moving))
            position, since = self._moving.pop(stream)
            node = self._places[stream]
            assert node is not None
            if self.at(node).want(stream, position) is not None:
                away.setdefault(since, []).append(stream)
        self._lose(away)

    def _lose(self, lost: dict[int, list[str]]) -> None:
        for since, streams in lost.items():
            self._sink.lost(since, streams, "")
