"""A Redis Cluster: which node has which slot, by the word of all masters, and how that changes.

1. Every master is asked once a second, or more seldom where there are many; and at once when its link comes up, or a
   server did not serve what it was asked for. Which of their answers are believed stands in `cluster_view`.
2. A node that sends a key elsewhere (MOVED) is believed at once for that slot, once in `HINT_SECONDS`, until it shows
   in an answer.
3. The nodes that the operator has named are asked as long as none of the masters that are known can be.
4. Where nobody can be asked, what was known last stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from typing import Any, cast

import msgspec
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.model.numbers import whole
from marketfeed.redis.address import ClusterAddress, RedisAddress
from marketfeed.redis.cluster_view import BadView, ClusterNode, ClusterView, certain_at, owners_in, read_view
from marketfeed.redis.commands import CommandFault, CommandRefused, RedisCommands
from marketfeed.redis.link import RedisLink
from marketfeed.redis.per_node import PerKey
from marketfeed.redis.topology import SLOTS, Node, key_slot
from marketfeed.runtime.logs import Log

__all__ = ["HINT_SECONDS", "LOOK_SECONDS", "ClusterTopology", "Word"]

LOOK_SECONDS = 1.0
HINT_SECONDS = 2.0
_SHARE = 0.05
"""Seconds between two questions to anybody."""
_NODE_TIMEOUT = 15.0
"""Redis' default for `cluster-node-timeout`, where the server does not say."""

_Place = tuple[str, int]


class Word(msgspec.Struct, frozen=True):
    """What a node says, where it was asked for its connections to others, too.

    `connections`: those on which it hears from each other node, by that one's id and when the connection was made, in
    ms. `heard_all_at`: when it had last heard from the node that has been silent longest, in s since 1970.
    """

    view: ClusterView
    connections: frozenset[tuple[str, int]]
    heard_all_at: float

    @property
    def is_whole(self) -> bool:
        """Whether all that other nodes pass on comes to it, but for what those do that are known to be gone."""
        return self.view.is_whole and self.view.others <= {node for node, _ in self.connections}


class _Reporter(RedisCommands):
    """Asks one node, whenever it may be, and tells what it says. `view`, `word`: that; None: nothing yet.

    `with_words`: for `word` it is asked more.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        told: Callable[[], None],
        now: Callable[[], float],
        *,
        with_words: bool,
    ) -> None:
        super().__init__(clock, endpoint, address, f"redis {address.host}:{address.port} map")
        self._told = told
        self._now = now
        self._is_asking = self._is_doubted = False
        self._last_fault = ""
        self._with_words = with_words
        self.view: ClusterView | None = None
        self.word: Word | None = None
        self.node_timeout = _NODE_TIMEOUT

    def link_up(self, link: RedisLink) -> None:
        self._is_asking = False
        self.word = None
        Deferred.fromCoroutine(self._ask_for_timeout())
        self.look()

    def look(self) -> None:
        """Ask, if there is a link; where that is under way already, once more."""
        if self._is_asking:
            self._is_doubted = True
        elif self.ready:
            Deferred.fromCoroutine(self._look())

    async def _ask_for_timeout(self) -> None:
        try:
            answer = await self.ask("CONFIG", "GET", "cluster-node-timeout")
        except CommandFault:
            return
        number = whole(answer[1].decode(), 12) if isinstance(answer, list) and len(answer) == 2 else None
        if number is not None:
            self.node_timeout = number / 1000

    async def _look(self) -> None:
        self._is_asking, self._is_doubted = True, False
        link, asked_at, fault = self.link, self._now(), ""
        try:
            view = self._completed(read_view(await self.ask("CLUSTER", "NODES"), asked_at))
            if self._with_words:
                self.word = await self._ask_more(view)
            self.view = view
        except (CommandRefused, BadView) as error:
            fault = str(error)
        except CommandFault:
            return
        if link is not self.link:
            return
        self._is_asking = False
        if fault:
            if fault != self._last_fault:
                self.log.error("{name}: {address}: {fault}", name=self.called, address=self.address, fault=fault)
            self._last_fault = fault
            return
        self._last_fault = ""
        self._told()
        if self._is_doubted:
            self.look()

    async def _ask_more(self, view: ClusterView) -> Word:
        links = [_pairs(link) for link in await self.ask("CLUSTER", "LINKS")]
        seconds, microseconds = map(int, await self.ask("TIME"))
        now = 1000 * seconds + microseconds / 1000
        silences = [
            (now - node.answered_at) / 1000 if node.answered_at else self.node_timeout
            for node in view.nodes
            if node.id in view.others
        ]
        return Word(
            view,
            frozenset(
                (link[b"node"].decode(), link[b"create-time"]) for link in links if link[b"direction"] == b"from"
            ),
            view.asked_at - max(silences, default=0.0),
        )

    def _completed(self, view: ClusterView) -> ClusterView:
        """With the address at which it was asked, where a node does not know its own: it has never met another one."""
        host = self.address.host
        nodes = tuple(node if node.hosts else msgspec.structs.replace(node, hosts=(host,)) for node in view.nodes)
        return msgspec.structs.replace(view, nodes=nodes)


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
        self._views: dict[_Place, ClusterView] = {}
        self._certain: dict[Node, float] = {}
        self._reporters: PerKey[_Place, _Reporter] = PerKey(self._reporter)
        cast(IService, self._reporters).setServiceParent(self)
        self._seeds = address.nodes
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._looked_at: dict[_Reporter, float] = {}
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
        nodes = {node.address.port: node for node in self._nodes.values() if node.address.host == host}
        number = whole(port, 5)
        found = None if number is None else nodes.get(number)
        return found or self._by_name((host.lower(), number))

    def _by_name(self, place: tuple[str, int | None]) -> Node | None:
        """The node of this host and port, where the host is another of its names than the one that it is kept under."""
        for view in self._views.values():
            for node in view.nodes:
                if node.id in self._nodes and (place[0] in node.hosts and place[1] == node.port):
                    return self._nodes[node.id]
        return None

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

    def _reporter(self, place: _Place) -> _Reporter:
        address = self._address.server(*place)
        endpoint = self._endpoint_of(address)
        return _Reporter(self._clock, endpoint, address, self._hear, self._now, with_words=self._with_words)

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
        known = self._hints.get(slot)
        if known is None or self._clock.seconds() - known[1] >= HINT_SECONDS:
            self._hints[slot] = node, self._clock.seconds()
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


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    """A map, which RESP2 sends as a list: key, value, key, value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _place(address: RedisAddress) -> _Place:
    return address.host, address.port
