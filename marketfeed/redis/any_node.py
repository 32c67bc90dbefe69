"""One node of a cluster, on which all that is published on any of them can be heard (`--pubsub classic`).

1. The nodes of a cluster pass on to each other what is published (PUBLISH), on connections of their own. A node that
   does not reach all others that are there misses what is published on those, and no PING to it shows that. So the node
   is one that says that it reaches all (CLUSTER NODES), and that all have a connection to it, as long as it says so;
   where there is none, nobody has anything.
2. A connection between nodes that was made anew (CLUSTER LINKS) may have lost what was on its way, and a node that is
   known to be gone may have been there, out of reach, until that was known: then the node is another one, perhaps
   itself, and what was wanted from it is lost since it was last certain.
3. A node notices the silence of another one after as long as `cluster-node-timeout`. So it is certain up to the moment
   at which it had heard last from the one that had been silent longest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import msgspec

from marketfeed.redis.cluster import ClusterTopology
from marketfeed.redis.cluster_reporter import Word
from marketfeed.redis.topology import Node, SoleNode

__all__ = ["AnyNode"]


class AnyNode(SoleNode):
    """A topology of one node of `cluster`, as long as that is a good one."""

    def __init__(self, cluster: ClusterTopology, pick: Callable[[list[Node]], Node] = random.choice) -> None:
        super().__init__()
        self._cluster = cluster
        self._pick = pick
        self._of: Node | None = None
        self._word: Word | None = None  # the last one
        self._certain = math.inf
        cluster.follow_words(self._look)

    @property
    def is_known(self) -> bool:
        """Somebody has said which nodes there are."""
        return self._cluster.is_known

    def doubt(self, fault: str = "") -> None:
        self._cluster.doubt(fault)

    def certain_at(self, node: Node) -> float:
        return self._certain

    def _look(self) -> None:
        """Some node has said something."""
        good = [node for node in self._cluster.nodes if self._is_good(node)]
        if self._of not in good:
            self._take(self._pick(good) if good else None)
            return
        word = self._cluster.word_of(self._of)
        if word is None:
            return
        if self._word is not None and _has_lost(self._word, word):
            self._take(self._of)
        else:
            self._word, self._certain = word, word.heard_all_at

    def _is_good(self, node: Node) -> bool:
        word = self._cluster.word_of(node)
        return word is not None and word.is_whole

    def _take(self, of: Node | None) -> None:
        if of is None and self._of is None:
            return
        self._of = of
        self._node = None if of is None else msgspec.structs.replace(of)
        self._word = None if of is None else self._cluster.word_of(of)
        self.tell_changed()
        self._certain = math.inf if self._word is None else self._word.heard_all_at


def _has_lost(before: Word, now: Word) -> bool:
    """Whether something that was passed on between these two words may not have come."""
    return bool(before.connections - now.connections or before.view.others - now.view.others)
