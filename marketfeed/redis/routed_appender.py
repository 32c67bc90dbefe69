"""Appends to streams wherever they are: each entry waits for the server that has its stream, in order.

1. All entries of a stream that are neither added nor lost are in one place: at one server, or nowhere while no server
   has the stream. So they cannot overtake each other.
2. When a stream has another server (the topology has changed, or the one that had it says so), the old one is sent
   nothing more. When it has answered what is under way, all that waits there goes on, what was refused first. Until
   then new entries of the stream wait there, too.
3. A server that the topology has no longer is waited for `LEAVE_SECONDS` at most; then what is under way there is lost
   with the link, though the server may have it.
4. The entries of a stream that is just being moved (ASK) go where it goes, each behind an ASKING, until its slot is
   there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.redis.appender import RedisAppender
from marketfeed.redis.entries import Entries, Entry, Loss
from marketfeed.redis.per_node import PerNode
from marketfeed.redis.topology import Node, Topology

__all__ = ["LEAVE_SECONDS", "RoutedAppender"]

LEAVE_SECONDS = 1.0
_MOST_PLACES = 65536


class _Nowhere:
    """Where entries wait that no server takes."""

    def __init__(self) -> None:
        self.waiting: deque[Entry] = deque()

    @property
    def pending(self) -> Iterator[Entry]:
        return iter(self.waiting)

    def take_waiting(self) -> list[Entry]:
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting


_Place = RedisAppender | _Nowhere


class RoutedAppender(PerNode[RedisAppender]):
    """Keeps a link to each server to append through. `maxlen`: about so many entries are kept of each stream; 0: all.

    `has_slots`: servers send elsewhere for streams that they do not have. `entries` counts them.
    """

    def __init__(self, clock: Clock, topology: Topology, maxlen: int, *, has_slots: bool = False) -> None:
        self.entries = Entries(clock)
        self._clock = clock
        self._nowhere = _Nowhere()
        self._places: dict[str, _Place] = {}  # where entries go that come now
        self._asked: dict[str, Node] = {}  # keys that go to a server before their slot does
        self._leaving: dict[Node, IDelayedCall] = {}
        self._draining: set[Node] = set()

        def make(node: Node) -> RedisAppender:
            return RedisAppender(clock, node, maxlen, self.entries, self, has_slots=has_slots)

        super().__init__(topology, make)

    @property
    def ready(self) -> bool:
        """Every server takes entries, as far as is known."""
        parts = list(self.each())
        return bool(parts) and all(part.ready for part in parts) and not self._nowhere.waiting

    @property
    def is_down(self) -> bool:
        """There is an entry that no server takes, or would be."""
        parts = list(self.each())
        return not parts or bool(self._nowhere.waiting) or any(part.link is None or part.refusing for part in parts)

    @property
    def lag(self) -> float:
        """For how many seconds the oldest entry that is neither added nor lost has been here; 0: there is none."""
        since = min((entry[3] for place in self._all() for entry in place.pending), default=None)
        return 0.0 if since is None else max(0.0, self._clock.seconds() - since)

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        """Append (key, payload) pairs, those of a key in order."""
        now = self._clock.seconds()
        for key, payload in batch:
            entry = self.entries.new(key, payload, now)
            if entry is not None:
                self._place_of(key).waiting.append(entry)
        self._go_on()

    def all_answered(self) -> Deferred[None]:
        """Fires when nothing waits and all is answered. To be called once, when nothing more is published."""
        return self.entries.all_gone()

    def stopService(self) -> Deferred[None]:
        for timer in self._leaving.values():
            timer.cancel()
        self._leaving.clear()
        self.entries.lose(self._nowhere.take_waiting(), Loss.ENDED, "no server had their streams, until the end")
        return super().stopService().addCallback(lambda _: None)

    def _go_on(self) -> None:
        for part in self.each():
            if part.waiting:
                part.go_on()

    # Where entries belong.

    def _all(self) -> list[_Place]:
        return [*self.each(), self._nowhere]

    def _place_of(self, key: str) -> _Place:
        """Where entries of a key go that come now."""
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _MOST_PLACES and not self._draining:
                self._places.clear()  # whatever is somewhere is where it belongs
            place = self._places[key] = self._find(key)
        return place

    def _find(self, key: str) -> _Place:
        node = self._asked.get(key) or self.topology.node_for(key.encode())
        return self._nowhere if node is None else self.at(node)

    # Where that changes.

    @property
    def asking(self) -> Collection[str]:
        return self._asked

    def misplaced(self, key: str, fault: str) -> None:
        self._asked.pop(key, None)
        node = self.topology.named_in(fault) if fault.startswith("ASK ") else None
        if node is None:
            self.topology.doubt(fault)
        else:
            self._asked[key] = node

    def changed(self) -> None:
        self.begin_new(self.topology.nodes)
        nodes = set(self.topology.nodes)
        self._asked = {
            key: node
            for key, node in self._asked.items()
            if node in nodes and self.topology.node_for(key.encode()) is not node
        }
        self._places.clear()
        moving = [place for place in self._all() if self._keep_together(place)]
        self._draining |= {place.node for place in moving if isinstance(place, RedisAppender)}
        for place in moving:
            if isinstance(place, RedisAppender):
                place.drain()
            else:
                self._move(place)
        for node in self._draining - nodes - self._leaving.keys():
            self._leaving[node] = self._clock.callLater(LEAVE_SECONDS, self.at(node).leave)
        self.end_gone(nodes | self._draining)
        self._go_on()

    def _keep_together(self, place: _Place) -> bool:
        """Whether something that waits here belongs elsewhere: then what comes now waits here, too."""
        keys = {entry[0] for entry in place.pending}
        is_draining = isinstance(place, RedisAppender) and place.node in self._draining
        if not is_draining and all(self._find(key) is place for key in keys):
            return False
        self._places.update(dict.fromkeys(keys, place))
        return True

    def drained(self, node: Node) -> None:
        self._draining.discard(node)
        self._move(self.at(node))
        timer = self._leaving.pop(node, None)
        if timer is not None and timer.active():
            timer.cancel()
        self.end_gone({*self.topology.nodes, *self._draining})
        self._go_on()

    def _move(self, place: _Place) -> None:
        """Nothing of what is here is under way."""
        waiting = place.take_waiting()
        for key in [key for key, here in self._places.items() if here is place]:
            del self._places[key]
        for entry in waiting:
            self._place_of(entry[0]).waiting.append(entry)
