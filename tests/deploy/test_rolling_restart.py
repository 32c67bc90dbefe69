"""Three instances are restarted one after the other, behind a balancer, while clients follow Redis streams through it.

`ROLL=clients,drain` makes it longer, and is about how evenly they come back as well; `make faults` does.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from math import inf
from typing import NamedTuple

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.deploy.balancers import BALANCERS
from tests.deploy.resuming import ResumingClient
from tests.system.harness import DaemonProcess, Harness, Redis, trade
from tests.system.lean import LeanClients

_LONG = os.environ.get("ROLL")
_CLIENTS, _DRAIN = (_LONG or "100,1").split(",")
_STREAMS = [f"trade@M{number}" for number in range(20)]
_OF_EACH = 2
_PAUSE = 0.5
"""Seconds between two publications of a stream."""


class Market:
    """An engine that adds to all streams in turn. `number`: the `t` of the last of each."""

    def __init__(self, harness: Harness, redis: Redis) -> None:
        self._harness = harness
        self._redis = redis
        self._ended = False
        self.number = 0

    async def publish(self) -> dict[str, str]:
        """One in each stream; their offsets."""
        self.number += 1
        added = [self._redis.command("XADD", each, "*", "d", trade(each[6:], self.number)) for each in _STREAMS]
        return {stream: entry.decode() for stream, entry in zip(_STREAMS, await gatherResults(added), strict=True)}

    async def run(self) -> None:
        """Until it is told to end."""
        while not self._ended:
            await self._harness.pause(_PAUSE)
            await self.publish()

    def end(self) -> None:
        self._ended = True


class Figures(NamedTuple):
    """How many came, within how many seconds, and how many of them in the fullest one."""

    count: int
    seconds: float
    most: int

    @property
    def share(self) -> float:
        """The fullest second, by the mean of all."""
        return self.most * self.seconds / self.count

    def __str__(self) -> str:
        mean = f"{self.count / self.seconds:.1f} in a second, {self.most} in the fullest: {self.share:.2f}"
        return f"{self.count} in {self.seconds:.1f} s, {mean}"


def figures(moments: Iterable[float], begun: float, ended: float) -> Figures:
    """Of those moments that lie in between."""
    since = [moment - begun for moment in moments if begun <= moment < ended]
    return Figures(len(since), max(since), max(Counter(map(int, since)).values()))


def told(daemons: Sequence[DaemonProcess], what: str) -> list[float]:
    """When daemons have logged this, in s since 1970, as often as they say that it was."""
    moments = []
    for daemon in daemons:
        for line in daemon.lines:
            facts = json.loads(line) if line.startswith("{") else {}
            if what in facts.get("message", ""):
                moments += [datetime.fromisoformat(facts["time"]).timestamp()] * facts["count"]
    return moments


@pytest.mark.parametrize("name", BALANCERS)
@pytest_twisted.ensureDeferred
async def test_nothing_is_missing_and_nothing_comes_twice(name: str, harness: Harness) -> None:
    """Nor is anybody refused. Of two thousand no second of a restart has more than twice its mean to come."""
    balancer, rng = BALANCERS[name], random.Random(1)
    redis = await harness.redis()
    options = ("--source", "streams", "--drain-seconds", _DRAIN, "--connect-rate", "0", "--log-format", "json")
    instances = await balancer.instances(harness, redis, *options)
    proxy = await balancer.start(harness, instances)
    market = Market(harness, await redis.connect())
    begin = await market.publish()
    connections = LeanClients(harness, proxy)
    clients = [
        ResumingClient(
            harness, connections, f"c{at}", {each: begin[each] for each in rng.sample(_STREAMS, _OF_EACH)}, 1
        )
        for at in range(int(_CLIENTS))
    ]
    work = [Deferred.fromCoroutine(each.run()) for each in (*clients, market)]
    for each in (market, *clients):
        harness.on_close(each.end)
    daemons = [instance.daemon for instance in instances]

    def all_are_in() -> bool:
        """And the logs say so, a second late if many come at once."""
        visits = sum(client.visits for client in clients)
        return all(client.is_in for client in clients) and len(told(daemons, " connected from ")) == visits

    await harness.eventually(all_are_in)
    begun = []
    for instance in instances:
        begun.append(datetime.now().timestamp())
        await balancer.restart(proxy, instance)
        daemons.append(instance.daemon)
    await harness.eventually(all_are_in)
    assert sum([client.closes for client in clients], Counter()).keys() == {1012}
    market.end()
    await work[-1]
    await harness.eventually(lambda: all(set(client.last.values()) == {market.number} for client in clients))
    for client in clients:
        client.end()
    await gatherResults(work)
    assert [fault for client in clients for fault in client.faults] == []
    assert sum([client.refusals for client in clients], Counter()) == {}
    came = told(daemons, " connected from ")
    refused = told(daemons, ": 503 this server is shutting down")
    print(
        f"\n{name}: {figures(came, begun[0], inf)}; {len(refused)} were first refused; {market.number} of each stream"
    )
    for span in zip(begun, [*begun[1:], inf], strict=True):
        asked = figures([moment for client in clients for moment in client.asked], *span)
        print(f"{figures(came, *span)}; asked for: {asked}")
        if _LONG is not None:  # when they do come is also a matter of how busy the machine is
            assert asked.share <= 2
