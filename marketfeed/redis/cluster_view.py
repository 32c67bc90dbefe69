"""What nodes of a Redis Cluster say of all nodes, and what is to be believed of it. Pure.

1. A node says of each node whether it is a master, which slots it has, and the epoch of that (its config epoch): of two
   who claim a slot the one with the higher epoch has it. So of what several nodes say the higher epoch is believed for
   each slot, however old the word of some of them is.
2. A master that does not reach most masters has been replaced, or may be at any moment, and does not know it: it has
   nothing, unless others say so.
3. A master had not been replaced `SPREAD_SECONDS` before most masters said that it is one: who takes over tells all
   others at once, but these may be busy, and whoever publishes may have heard of it first. Where fewer can be asked,
   the master's own word that it reaches most of them counts. That may be wrong for as long as its
   `cluster-node-timeout`, so what it says now is taken as true of the moment that long ago.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from marketfeed.redis.topology import SLOTS

__all__ = ["SPREAD_SECONDS", "BadView", "ClusterNode", "ClusterView", "certain_at", "owners_in", "read_view"]


SPREAD_SECONDS = 1.0
"""From when a node takes over until those that it has told know it, however busy they are."""


class BadView(ValueError):
    """This is no answer to CLUSTER NODES."""


class ClusterNode(msgspec.Struct, frozen=True):
    """A node as another one sees it. `slots`: the first and the last of each range; `epoch`: of its claim to them.

    `hosts`: its name, where it has announced one, and its address; `is_up`: it answers; `is_gone`: most masters agree
    that it does not. `answered_at`: when it last did, in ms since 1970 by the clock of who says so; 0: it has not been
    asked.
    """

    id: str
    hosts: tuple[str, ...]
    port: int
    is_myself: bool
    is_master: bool
    is_up: bool
    is_gone: bool
    epoch: int
    slots: tuple[tuple[int, int], ...]
    answered_at: int

    @property
    def claim(self) -> tuple[object, ...]:
        """All but when it last answered."""
        return msgspec.structs.astuple(self)[:-1]


class ClusterView(msgspec.Struct, frozen=True):
    """What one node says. `asked_at`: when it was asked, in s since 1970."""

    nodes: tuple[ClusterNode, ...]
    asked_at: float

    @property
    def myself(self) -> ClusterNode:
        """The node that says so."""
        return next(node for node in self.nodes if node.is_myself)

    @property
    def voters(self) -> list[ClusterNode]:
        """The masters that have slots."""
        return [node for node in self.nodes if node.is_master and node.slots]

    @property
    def has_majority(self) -> bool:
        """Whether it reaches most of the masters that have slots."""
        voters = self.voters
        return sum(node.is_up for node in voters) > len(voters) // 2

    @property
    def others(self) -> frozenset[str]:
        """All other nodes that are not known to be gone."""
        return frozenset(node.id for node in self.nodes if not (node.is_myself or node.is_gone))

    @property
    def is_whole(self) -> bool:
        """Whether it reaches all nodes that are not known to be gone, so that all that they pass on comes to it."""
        return self.has_majority and all(node.is_up or node.is_gone for node in self.nodes)

    def has_same_claims(self, other: ClusterView | None) -> bool:
        """Whether it says the same as another, but for when."""
        return other is not None and [node.claim for node in self.nodes] == [node.claim for node in other.nodes]


def read_view(text: bytes, asked_at: float) -> ClusterView:
    """The answer to CLUSTER NODES. Raises `BadView`.

    https://redis.io/docs/latest/commands/cluster-nodes/#serialization-format
    """
    try:
        nodes = tuple(_read_node(line.split(" ")) for line in text.decode().splitlines() if line)
    except (ValueError, IndexError):
        raise BadView("the server does not say which nodes there are") from None
    view = ClusterView(tuple(node for node in nodes if node is not None), asked_at)
    if sum(node.is_myself for node in view.nodes) != 1:
        raise BadView("the server does not say which node it is")
    return view


def _read_node(words: list[str]) -> ClusterNode | None:
    """One line; None for a node of which not much is known yet."""
    flags = set(words[2].split(","))
    if flags & {"handshake", "noaddr"}:
        return None
    address, *more = words[1].split(",")
    host, _, port = address.partition("@")[0].rpartition(":")
    name = more[0] if more and "=" not in more[0] else ""
    is_up = not flags & {"fail", "fail?"} and ("myself" in flags or words[7] == "connected")
    return ClusterNode(
        id=words[0],
        hosts=tuple(each for each in (name, host) if each),
        port=int(port),
        is_myself="myself" in flags,
        is_master="master" in flags,
        is_up=is_up,
        is_gone="fail" in flags,
        epoch=int(words[6]),
        slots=tuple(_read_range(word) for word in words[8:] if not word.startswith("[")),
        answered_at=int(words[5]),
    )


def _read_range(word: str) -> tuple[int, int]:
    first, _, last = word.partition("-")
    slots = int(first), int(last or first)
    if not 0 <= slots[0] <= slots[1] < SLOTS:
        raise BadView("a slot is out of range")
    return slots


def owners_in(views: Iterable[ClusterView]) -> list[str | None]:
    """Who has each slot, by id; None: nobody."""
    views = list(views)
    claims = [(node.epoch, node.id, node.slots) for view in views for node in view.voters]
    owners: list[str | None] = [None] * SLOTS
    for _, owner, slots in sorted(claims):
        for first, last in slots:
            owners[first : last + 1] = [owner] * (last + 1 - first)
    cut_off = {view.myself.id for view in views if not view.has_majority}
    if cut_off:
        owners = [None if owner in cut_off else owner for owner in owners]
    return owners


def certain_at(node: str, views: Collection[ClusterView], node_timeout: float) -> float | None:
    """When the node of this id was last known to be master of what it has, in s since 1970; None: never.

    `node_timeout`: s.
    """
    masters = {each.id for view in views for each in view.voters}
    confirmed = sorted(
        (
            view.asked_at
            for view in views
            if view.has_majority and view.myself.id in masters and any(each.id == node for each in view.voters)
        ),
        reverse=True,
    )
    enough = len(masters) // 2 + 1
    own = next((view.asked_at - node_timeout for view in views if view.myself.id == node and view.has_majority), None)
    known = [confirmed[enough - 1] - SPREAD_SECONDS] if len(confirmed) >= enough else []
    known += [] if own is None else [own]
    return max(known, default=None)
