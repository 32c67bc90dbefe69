"""The topology of a master that sentinels watch over: one node, the present master, which serves everything.

1. All sentinels are asked, and what the highest epoch says is believed: every failover has a higher one than those
   before it. What is believed gives way to a lower epoch, or to another address of the same, only where no sentinel
   that answers says it any more, and most of all that there are say the same other thing: somebody has set them up
   anew. So one that has been cut off from the rest cannot lead back.
2. A higher epoch is another node, even at the same address: it was not the master all the time.
3. Sentinels are known by their ids. Those that are named at the start are never forgotten; those that they tell of
   are asked as well, for as long as one that answers tells of them, or they answer themselves.
4. While no sentinel answers, the node stays. What a link to it can show of itself ends that link (see
   `server_role`), nothing else does.
5. A node was certainly the master `SPREAD_SECONDS` before the last time at which most of the sentinels had said so. A
   failover takes the votes of most of them, but the epoch is that of the one that leads it until it has told the
   others. Until then it may be that nobody whom we can ask has heard of it: the promoted server has been a master for a
   second at most when its leader sees it (its `INFO` period during a failover), which tells the others at once, and
   again every two seconds.
6. So what is published on the new master, and missed here, was published after that moment: the loss that is told of
   the node's streams begins there at the latest, even if links to the old master have been good ever since.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import cast

from twisted.application.service import IService, MultiService
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress, SentinelAddress, place_text
from marketfeed.redis.per_node import PerKey
from marketfeed.redis.sentinel_link import Answer, Master, Sentinel
from marketfeed.redis.topology import Node, SoleNode
from marketfeed.runtime.logs import Log

__all__ = ["MOST_SENTINELS", "SPREAD_SECONDS", "SentinelTopology", "believed", "most_said_so_at"]

SPREAD_SECONDS = 3.0
"""From when a server is made a master until every sentinel that is in touch with the others knows it."""
MOST_SENTINELS = 32
"""That are asked, besides those that are named at the start."""

_Place = tuple[str, int]


def believed(present: Master | None, said: Collection[Master], count: int) -> Master | None:
    """Which master it is. `present`: who it was up to now; `said`: what each sentinel says that can be asked now;
    `count`: how many there are.
    """
    if not said:
        return present
    newest = max(each.epoch for each in said)
    if present is None or newest > present.epoch:
        of_newest = Counter(each for each in said if each.epoch == newest)
        return max(of_newest, key=lambda each: (of_newest[each], each.host, each.port))
    if present in said:
        return present
    other, votes = Counter(said).most_common(1)[0]
    return other if 2 * votes > count else present


def most_said_so_at(times: Collection[float], count: int) -> float | None:
    """When most of `count` sentinels had said something that some of them said last at these times; None: never."""
    majority = count // 2 + 1
    return sorted(times, reverse=True)[majority - 1] if len(times) >= majority else None


class _Reign:
    """For how long a node is known to have been the master."""

    def __init__(self, asked_at: float) -> None:
        self.certain_at = asked_at - SPREAD_SECONDS

    def confirm(self, most_said_so_at: float) -> None:
        self.certain_at = max(self.certain_at, most_said_so_at - SPREAD_SECONDS)


class SentinelTopology(MultiService, SoleNode):
    """Keeps a link to each sentinel. `endpoint`: how to connect to a server; `now`: the time, in s since 1970."""

    log = Log()

    def __init__(
        self,
        clock: Clock,
        address: SentinelAddress,
        endpoint: Callable[[RedisAddress], IStreamClientEndpoint],
        now: Callable[[], float] = time.time,
    ) -> None:
        MultiService.__init__(self)
        SoleNode.__init__(self)
        self._clock = clock
        self._address = address
        self._endpoint = endpoint
        self._now = now
        self._named = [self._sentinel(place) for place in address.sentinels]
        self._learnt: PerKey[_Place, Sentinel] = PerKey(self._sentinel)
        for each in (*self._named, self._learnt):
            cast(IService, each).setServiceParent(self)
        self._master: Master | None = None
        self._reigns: dict[Node, _Reign] = {}  # of the present node, and of the one before

    # What a topology is asked.

    @property
    def is_known(self) -> bool:
        """A sentinel has answered, or none can be reached."""
        return self._node is not None or all(each.cause for each in self._named)

    def doubt(self, fault: str = "") -> None:
        for each in self._sentinels:
            each.ask()

    def certain_at(self, node: Node) -> float:
        return self._reigns[node].certain_at

    # What the sentinels say.

    @property
    def _sentinels(self) -> list[Sentinel]:
        return [*self._named, *self._learnt.each()]

    def _last_answers(self) -> dict[bytes, Answer]:
        """The last one of each, even of those that are gone."""
        return {each.sentinel_id: each.last for each in self._sentinels if each.last is not None}

    def _answered(self) -> None:
        """One of them has said something, or cannot any more."""
        present = {each.sentinel_id: each.answer for each in self._sentinels if each.answer is not None}
        self._learn(present)
        count = max((len(each.others) + 1 for each in present.values()), default=0)
        master = believed(self._master, [each.master for each in present.values()], count)
        if master is None:
            return
        before, self._master = self._master, master
        if before is None or master.epoch > before.epoch or (master.host, master.port) != (before.host, before.port):
            self._begin(master, max(each.asked_at for each in present.values() if each.master == master))
        times = [each.asked_at for each in self._last_answers().values() if each.master == master]
        confirmed = most_said_so_at(times, count) if present else None
        if confirmed is not None and self._node is not None:
            self._reigns[self._node].confirm(confirmed)

    def _begin(self, master: Master, asked_at: float) -> None:
        """There is another master."""
        line = "redis: {name} is at {place}, by the sentinels' epoch {epoch}"
        self.log.info(line, name=self._address.name, place=place_text(master.host, master.port), epoch=master.epoch)
        address = self._address.server(master.host, master.port)
        before, self._node = self._node, Node("redis", address, self._endpoint(address))
        self._reigns = {node: reign for node, reign in self._reigns.items() if node is before}
        self._reigns[self._node] = _Reign(asked_at)
        self.tell_changed()

    def _learn(self, present: Mapping[bytes, Answer]) -> None:
        """Ask those as well whom these tell of, and no longer those of whom nobody tells."""
        if not present:
            return
        ids = {each.sentinel_id for each in self._named}
        told = {sentinel: place for answer in present.values() for sentinel, place in answer.others.items()}
        places = {place for sentinel, place in told.items() if sentinel not in ids} - set(self._address.sentinels)
        of_others = ids | told.keys()
        places |= {
            _place(each.address) for each in self._learnt.each() if each.ready and each.sentinel_id not in of_others
        }
        kept = sorted(places)[:MOST_SENTINELS]
        self._learnt.end_gone(kept)
        self._learnt.begin_new(kept)

    def _sentinel(self, place: _Place) -> Sentinel:
        address = self._address.sentinel(*place)
        name = f"sentinel {place_text(*place)}"
        return Sentinel(
            self._clock, self._endpoint(address), address, name, self._address.name, self._answered, self._now
        )


def _place(address: RedisAddress) -> _Place:
    return address.host, address.port
