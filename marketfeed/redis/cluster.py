"""A Redis Cluster: which node has which slot, by the word of all masters, and how that changes.

1. Every master is asked once a second, or more seldom where there are many; and at once when its link comes up, or a
   server did not serve what it was asked for. Which of their answers are believed stands in `cluster_view`.
2. A node that sends a key elsewhere (MOVED) is believed at once for that slot, once in `HINT_SECONDS`, until it shows
   in an answer. Of many slots that have moved together only `HINTS` are, in that time: whoever follows looks at all
   streams for each, and the answers are there by then.
3. The nodes that the operator has named are asked as long as none of the masters that are known can be.
4. Where nobody can be asked, what was known last stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from typing import cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.model.numbers import whole
from marketfeed.model.rate import TokenBucket
from marketfeed.redis.address import ClusterAddress, RedisAddress
from marketfeed.redis.cluster_reporter import ClusterReporter, Word
from marketfeed.redis.cluster_view import ClusterNode, ClusterView, certain_at, owners_in
from marketfeed.redis.per_node import PerKey
from marketfeed.redis.topology import SLOTS, Node, key_slot
from marketfeed.runtime.logs import Log

__all__ = ["HINTS", "HINT_SECONDS", "LOOK_SECONDS", "ClusterTopology"]

LOOK_SECONDS = 1.0
HINT_SECONDS = 2.0
HINTS = 20
_SHARE = 0.05
"""Seconds between two questions to anybody."""

_Place = tuple[str, int]


class ClusterTopology(MultiService):
    """The cluster, as a `Topology`.

    `endpoint_of`: how to connect to a node; `now`: s since 1970; `with_words`: nodes are asked for their connections to
    each other, too.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        address: ClusterAddress,
        endpoint_of: Callable[[RedisAddress], IStreamClientEndpoint],
        now: Callable[[], float] = time.time,
        *,
        with_words: bool = False,
    ) -> None:
        MultiService.__init__(self)
        self._clock = clock
        self._address = address
        self._endpoint_of = endpoint_of
        self._now = now
        self._with_words = with_words
        self._followers: list[Callable[[], None]] = []
        self._listeners: list[Callable[[], None]] = []
        self._nodes: dict[str, Node] = {}
        self._owners: list[Node | None] = [None] * SLOTS
        self._hints: dict[int, tuple[Node, float]] = {}
        self._hints_left = TokenBucket(HINTS / HINT_SECONDS, HINTS, clock.seconds())
        self._views: dict[_Place, ClusterView] = {}
        self._certain: dict[Node, float] = {}
        self._reporters: PerKey[_Place, ClusterReporter] = PerKey(self._reporter)
        cast(IService, self._reporters).setServiceParent(self)
        self._seeds = address.nodes
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._looked_at: dict[ClusterReporter, float] = {}
        self.epoch = 0
        self.is_known = False
        self._reporters.begin_new(self._seeds)

    def startService(self) -> None:
        MultiService.startService(self)
        self._looking.start(LOOK_SECONDS, now=False)

    def stopService(self) -> Deferred[None]:
        if self._looking.running:
            self._looking.stop()
        stopped: Deferred[None] = MultiService.stopService(self)
        return stopped

    # What others ask.

    @property
    def nodes(self) -> Collection[Node]:
        return self._nodes.values()

    def node_for(self, key: bytes) -> Node | None:
        return self._owners[key_slot(key)]

    def follow(self, changed: Callable[[], None]) -> None:
        self._followers.append(changed)

    def doubt(self, fault: str = "") -> None:
        words = fault.split(" ")
        if words[0] == "MOVED" and len(words) == 3:
            self._take_hint(whole(words[1], 5), self.named_in(fault))
        for reporter in self._reporters.each():
            reporter.look()

    def named_in(self, fault: str) -> Node | None:
        host, _, port = fault.split(" ")[-1].rpartition(":")
        place = host.lower(), whole(port, 5)
        told = (node for view in self._views.values() for node in view.nodes)
        found = next((node.id for node in told if place[0] in node.hosts and place[1] == node.port), "")
        return self._nodes.get(found)

    def certain_at(self, node: Node) -> float:
        return self._certain.get(node, math.inf)

    def follow_words(self, told: Callable[[], None]) -> None:
        """Call this whenever some node has said something, or cannot be asked any more."""
        self._listeners.append(told)

    def word_of(self, node: Node) -> Word | None:
        """What a node says of all others, while it can be asked; None: it cannot, or has said nothing yet."""
        try:
            reporter = self._reporters.at(_place(node.address))
        except KeyError:
            return None
        return reporter.word if reporter.ready else None

    # What the nodes say.

    def _reporter(self, place: _Place) -> ClusterReporter:
        address = self._address.server(*place)
        endpoint = self._endpoint_of(address)
        return ClusterReporter(self._clock, endpoint, address, self._hear, self._now, with_words=self._with_words)

    def _hear(self) -> None:
        self._judge()
        for told in self._listeners:
            told()

    def _look(self) -> None:
        reporters = list(self._reporters.each())
        pause = max(LOOK_SECONDS, _SHARE * len(reporters)) - LOOK_SECONDS / 2
        now = self._clock.seconds()
        self._looked_at = {each: at for each, at in self._looked_at.items() if each in reporters}
        for reporter in reporters:
            if now - self._looked_at.get(reporter, -math.inf) >= pause:
                self._looked_at[reporter] = now
                reporter.look()
        self._see_to_seeds()
        for told in self._listeners:
            told()

    def _see_to_seeds(self) -> None:
        """Ask those that the operator has named, while no master that is known can be asked."""
        masters = [_place(node.address) for node in self._nodes.values()]
        self._reporters.begin_new(masters)
        if any(self._reporters.at(place).ready for place in masters):
            self._reporters.end_gone(masters)
        else:
            self._reporters.begin_new(self._seeds)

    def _take_hint(self, slot: int | None, node: Node | None) -> None:
        if slot is None or slot >= SLOTS or node is None:
            return
        known, now = self._hints.get(slot), self._clock.seconds()
        if (known is None or now - known[1] >= HINT_SECONDS) and self._hints_left.take(now):
            self._hints[slot] = node, now
            self._believe(dict(self._nodes), [*self._owners[:slot], node, *self._owners[slot + 1 :]])

    def _judge(self) -> None:
        """Somebody has said something."""
        views = {
            _place(each.address): each.view for each in self._reporters.each() if each.ready and each.view is not None
        }
        is_new = views.keys() != self._views.keys() or not all(
            view.has_same_claims(self._views[place]) for place, view in views.items()
        )
        self._views = views
        self._make_certain()
        if not is_new and not self._hints:
            return
        owners = owners_in(views.values())
        told: dict[str, ClusterNode] = {}
        for view in sorted(views.values(), key=lambda view: view.asked_at):
            told |= {node.id: node for node in view.nodes}
        masters = set(filter(None, owners))
        masters |= {each.id for each in told.values() if each.is_master and not each.is_gone}
        nodes = {each: self._node(told[each]) for each in sorted(masters)}
        found: list[Node | None] = [None if owner is None else nodes[owner] for owner in owners]
        self._apply_hints(nodes, found)
        self.is_known = True
        self._believe(nodes, found)
        self._make_certain()

    def _make_certain(self) -> None:
        """Until when each node was master of what it has, or had until now."""
        timeout = max([reporter.node_timeout for reporter in self._reporters.each()])
        certain = {}
        for node, at in self._nodes.items():
            known = certain_at(node, list(self._views.values()), timeout)
            certain[at] = max(self._certain.get(at, 0.0), 0.0 if known is None else known)
        self._certain = {at: seconds for at, seconds in certain.items() if seconds}

    def _node(self, told: ClusterNode) -> Node:
        """The node as it was known, unless it is at another place now."""
        host = told.hosts[0] if self._address.tls else told.hosts[-1]
        known = self._nodes.get(told.id)
        if known is not None and _place(known.address) == (host, told.port):
            return known
        address = self._address.server(host, told.port)
        return Node(f"redis {host}:{told.port}", address, self._endpoint_of(address))

    def _apply_hints(self, nodes: dict[str, Node], owners: list[Node | None]) -> None:
        now = self._clock.seconds()
        for slot, (node, at) in list(self._hints.items()):
            if owners[slot] is node or now - at >= HINT_SECONDS or node not in nodes.values():
                del self._hints[slot]
            else:
                owners[slot] = node

    def _believe(self, nodes: dict[str, Node], owners: list[Node | None]) -> None:
        if nodes == self._nodes and owners == self._owners:
            return
        moved = sum(was is not now for was, now in zip(self._owners, owners, strict=True))
        self._nodes, self._owners = nodes, owners
        self.epoch += 1
        unserved = owners.count(None)
        line = "redis cluster: {slots} slots have moved, to {nodes} masters; {unserved} have none"
        (self.log.error if unserved else self.log.info)(line, slots=moved, nodes=len(nodes), unserved=unserved)
        self._see_to_seeds()
        for changed in self._followers:
            changed()


def _place(address: RedisAddress) -> _Place:
    return address.host, address.port
