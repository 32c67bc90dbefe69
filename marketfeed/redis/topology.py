"""Which server has a channel or a key, where there may be several, and where that changes.

A topology says which node serves a key at the moment, and calls those who follow it when that has changed. Every
change has a higher `epoch` than the one before. Who keeps something for each node is a `PerNode`; it knows nodes by
identity: a server that comes back after it had gone is another node.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from binascii import crc_hqx
from collections.abc import Callable, Collection
from typing import Protocol

import msgspec
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.redis.address import RedisAddress

__all__ = ["REDIRECTIONS", "SLOTS", "Node", "OneServer", "SoleNode", "Topology", "is_elsewhere", "key_slot"]

SLOTS = 16384
REDIRECTIONS = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})
"""What errors of a cluster's node begin with that say: another one has that, or none has it at the moment.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding
"""
_NO_MASTER = frozenset({"READONLY", "MASTERDOWN"})


def key_slot(key: bytes) -> int:
    """The slot of a key, or of a channel of sharded pub/sub, by its hash tag where it has one.

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
    """
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def is_elsewhere(fault: str) -> bool:
    """Whether an error says: not here, or not now."""
    word = fault.split(" ", 1)[0]
    return word in REDIRECTIONS or word in _NO_MASTER


class Node(msgspec.Struct, frozen=True, eq=False):
    """A server. `name`: what its links are called in the log and the metrics."""

    name: str
    address: RedisAddress
    endpoint: IStreamClientEndpoint


class Topology(Protocol):
    """Where things are."""

    epoch: int
    """Higher after every change."""

    @property
    def is_known(self) -> bool:
        """Somebody has said where things are. Until then there may be no nodes."""

    @property
    def nodes(self) -> Collection[Node]:
        """All that serve something."""

    def node_for(self, key: bytes) -> Node | None:
        """Who serves this key, or channel; None: nobody, at the moment."""

    def follow(self, changed: Callable[[], None]) -> None:
        """Call this whenever something has changed. Who follows first is called first."""

    def doubt(self, fault: str = "") -> None:
        """A node does not serve what it was asked for: find out anew who does. `fault`: its error, which may say it."""

    def named_in(self, fault: str) -> Node | None:
        """The node that an error sends to, which may serve nothing else yet; None: it names none that is known."""

    def certain_at(self, node: Node) -> float:
        """When this node was last known to be the one that serves what it does, in s since 1970; inf: it always is."""


class SoleNode(ABC):
    """A `Topology` in which one node serves everything; or nobody, if it is None. It may become another one."""

    def __init__(self, node: Node | None = None) -> None:
        self._node = node
        self._followers: list[Callable[[], None]] = []
        self.epoch = 0

    @property
    def nodes(self) -> Collection[Node]:
        return () if self._node is None else (self._node,)

    def node_for(self, key: bytes) -> Node | None:
        return self._node

    def follow(self, changed: Callable[[], None]) -> None:
        self._followers.append(changed)

    def named_in(self, fault: str) -> Node | None:
        return None

    def tell_changed(self) -> None:
        """Let all know that the node is another one."""
        self.epoch += 1
        for changed in self._followers:
            changed()

    @property
    @abstractmethod
    def is_known(self) -> bool:
        """See `Topology`."""

    @abstractmethod
    def doubt(self, fault: str = "") -> None:
        """See `Topology`."""

    @abstractmethod
    def certain_at(self, node: Node) -> float:
        """See `Topology`."""


class OneServer(SoleNode):
    """A server that has everything, for ever."""

    @property
    def is_known(self) -> bool:
        return True

    def doubt(self, fault: str = "") -> None:
        """There is nobody else."""

    def certain_at(self, node: Node) -> float:
        return math.inf
