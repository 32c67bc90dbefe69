"""A service for each node of a topology: it begins as the node comes, and ends as the node goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from typing import Any, Generic, TypeVar, cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred

from marketfeed.redis.topology import Node, Topology

__all__ = ["PerKey", "PerNode"]

_K = TypeVar("_K", bound=Hashable)
_S = TypeVar("_S")


class PerKey(MultiService, Generic[_K, _S]):
    """A service for each of some keys, which change. `make`: one for a key; it must be a service of Twisted's, too.

    The end of all waits for the ends of those whose key went before.
    """

    def __init__(self, make: Callable[[_K], _S]) -> None:
        MultiService.__init__(self)
        self._make = make
        self._of: dict[_K, _S] = {}
        self._ending: set[Deferred[object]] = set()

    def at(self, key: _K) -> _S:
        """The one for this key. Raises KeyError where it is none of those that there are."""
        return self._of[key]

    def each(self) -> Iterator[_S]:
        """All that there are."""
        return iter(list(self._of.values()))

    def begin_new(self, keys: Collection[_K]) -> None:
        """Begin what is needed for those of `keys` that are new."""
        for key in keys:
            if key not in self._of:
                made = self._of[key] = self._make(key)
                cast(IService, made).setServiceParent(self)

    def end_gone(self, keys: Collection[_K]) -> None:
        """End all but what is needed for `keys`."""
        wanted = set(keys)
        for key in [key for key in self._of if key not in wanted]:
            service = cast(IService, self._of.pop(key))
            ending: Deferred[object] = maybeDeferred(service.disownServiceParent)
            self._ending.add(ending)
            ending.addBoth(self._has_ended, ending)

    def _has_ended(self, result: object, ending: Deferred[object]) -> object:
        self._ending.discard(ending)
        return result

    def stopService(self) -> Deferred[Any]:
        return DeferredList([MultiService.stopService(self), *self._ending])


class PerNode(PerKey[Node, _S]):
    """One for each node of a topology."""

    def __init__(self, topology: Topology, make: Callable[[Node], _S]) -> None:
        super().__init__(make)
        self.topology = topology
        self.begin_new(topology.nodes)
        topology.follow(self.changed)

    def changed(self) -> None:
        """The topology has changed."""
        self.begin_new(self.topology.nodes)
        self.end_gone(self.topology.nodes)
