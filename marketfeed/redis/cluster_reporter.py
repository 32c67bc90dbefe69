"""One node of a Redis Cluster, which is asked what it knows of all nodes.

It is asked at once when its link comes up, and whenever somebody wants to know, but one question at a time. What it
cannot say is in the log when it is new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.model.numbers import whole
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.cluster_view import BadView, ClusterView, read_view
from marketfeed.redis.commands import CommandFault, CommandRefused, RedisCommands
from marketfeed.redis.link import RedisLink
from marketfeed.runtime.logs import Log

__all__ = ["ClusterReporter", "Word"]

_NODE_TIMEOUT = 15.0
"""Redis' default for `cluster-node-timeout`, where the server does not say."""


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


class ClusterReporter(RedisCommands):
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


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    """A map, which RESP2 sends as a list: key, value, key, value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
