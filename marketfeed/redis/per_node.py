"""A service for each node of a topology: it begins as the node comes, and ends as the node goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred

from marketfeed.redis.topology import Node, Topology

__all__ = ["PerNode"]

_S = TypeVar("_S")


class PerNode(MultiService, Generic[_S]):
    """All of them. `make`: one for a node, which must be a service of Twisted's, too."""

    def __init__(self, topology: Topology, make: Callable[[Node], _S]) -> None:
        MultiService.__init__(self)
        self.topology = topology
        self._make = make
        self._of: dict[Node, _S] = {}
        self._ending: set[Deferred[object]] = set()
        self.begin_new()
        topology.follow(self.changed)

    def at(self, node: Node) -> _S:
        """The one for this node, which is one of the topology's."""
        return self._of[node]

    def each(self) -> Iterator[_S]:
        """All that there are."""
        return iter(list(self._of.values()))

    def changed(self) -> None:
        """The topology has changed."""
        self.begin_new()
        self.end_gone()

    def begin_new(self) -> None:
        """Begin what nodes need that are new."""
        for node in self.topology.nodes:
            if node not in self._of:
                made = self._of[node] = self._make(node)
                cast(IService, made).setServiceParent(self)

    def end_gone(self) -> None:
        """End what belongs to nodes that are gone."""
        nodes = set(self.topology.nodes)
        for node in [node for node in self._of if node not in nodes]:
            service = cast(IService, self._of.pop(node))
            ending: Deferred[object] = maybeDeferred(service.disownServiceParent)
            self._ending.add(ending)
            ending.addBoth(self._has_ended, ending)

    def _has_ended(self, result: object, ending: Deferred[object]) -> object:
        self._ending.discard(ending)
        return result

    def stopService(self) -> Deferred[Any]:
        return DeferredList([MultiService.stopService(self), *self._ending])
