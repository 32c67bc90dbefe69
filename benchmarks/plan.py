"""How many workers, machines and shards a demand takes, by the model. Pure.

A worker has as many clients as it may have for the slowest hundredth of the messages to leave it within `late_ms`, also
when one zone of all is gone and the others have its clients.
"""

from __future__ import annotations

import math

import msgspec

from benchmarks.cost import Cost, RedisCost
from benchmarks.fleet import Fleet
from benchmarks.node import FRAME, REDIS_FRAME, Outcome, popular_traffic, run_node

__all__ = ["DEMANDS", "HEADERS", "RECOMMENDED", "Demand", "Plan", "node_of", "plan_for"]

HEADERS = 52
"""Bytes of IP and TCP around what one write sends."""
_SECONDS = 1.0
_STEP = 100


class Demand(msgspec.Struct, frozen=True):
    """`rate`: publications a second, of all `streams`, with payloads of `payload` bytes; `per_client`: streams that
    each of the `clients` has. `skew`: that of `popular_traffic`. `groups`: the clients of as many parts of the streams
    are each sent to workers of their own.
    """

    title: str
    clients: int = 1_000_000
    rate: float = 100_000.0
    streams: int = 10_000
    per_client: int = 5
    payload: int = 110
    skew: float = 0.0
    groups: int = 1
    zones: int = 3
    late_ms: float = 100.0


DEMANDS = (
    Demand("every worker reads everything"),
    Demand("10 groups of streams", groups=10),
    Demand("50 groups of streams", groups=50),
    Demand("10 groups, some streams busier and better liked", skew=0.4, groups=10),
)

RECOMMENDED = DEMANDS[1]


class Plan(msgspec.Struct, frozen=True):
    """`usual`, `without_a_zone`: a worker's second, with as many clients as it has then. Bandwidth in Gbit/s, memory in
    GiB, Redis' processor time in cores, of all its servers together.
    """

    demand: Demand
    workers: int
    clients_usually: int
    clients_without_a_zone: int
    usual: Outcome
    without_a_zone: Outcome
    egress: float
    redis_cpu: float
    redis_cpu_singly: float
    redis_egress: float
    memory: float

    @property
    def messages(self) -> float:
        """What a client gets in a second."""
        return self.usual.deliveries / self.clients_usually

    def fleet(self, max_connections: int, door: float) -> Fleet:
        """The same as a fleet that may lose a zone."""
        demand = self.demand
        return Fleet(
            clients=demand.clients,
            workers=self.workers,
            zones=demand.zones,
            per_client=demand.per_client,
            messages=self.messages,
            published=self.usual.published,
            size=demand.payload + FRAME,
            max_connections=max_connections,
            door=door,
        )


def node_of(cost: Cost, demand: Demand, clients: int) -> Outcome:
    """One worker of the fleet, with so many clients."""
    streams, rate = demand.streams // demand.groups, demand.rate / demand.groups
    traffic = popular_traffic(clients, streams, demand.per_client, rate, demand.skew, demand.payload, _SECONDS)
    return run_node(cost, traffic, _SECONDS)


def _is_in_time(cost: Cost, demand: Demand, clients: int) -> bool:
    outcome = node_of(cost, demand, clients)
    return outcome.p99 <= demand.late_ms and not outcome.is_behind


def plan_for(cost: Cost, redis: RedisCost, singly: RedisCost, demand: Demand) -> Plan:
    """`redis`, `singly`: what publications cost Redis that come many at once, or one by one.

    Raises ValueError where not even a few clients a worker would do.
    """
    least, most = 0, 1
    while _is_in_time(cost, demand, most * _STEP):
        least, most = most, 2 * most
    while most - least > max(1, least // 50):
        middle = (least + most) // 2
        if _is_in_time(cost, demand, middle * _STEP):
            least = middle
        else:
            most = middle
    if not least:
        raise ValueError(f"{demand.title}: a worker cannot even read that much in time")
    left = demand.zones - 1
    full = least * _STEP
    workers = demand.zones * math.ceil(demand.clients / (full * left))
    usually = math.ceil(demand.clients / workers)
    usual, without = node_of(cost, demand, usually), node_of(cost, demand, full)
    sent = usual.deliveries * (demand.payload + FRAME) + usual.writes * HEADERS
    readers = workers / demand.groups
    return Plan(
        demand=demand,
        workers=workers,
        clients_usually=usually,
        clients_without_a_zone=full,
        usual=usual,
        without_a_zone=without,
        egress=sent * workers * 8 / 1e9,
        redis_cpu=redis.cpu(demand.rate, readers),
        redis_cpu_singly=singly.cpu(demand.rate, readers),
        redis_egress=demand.rate * readers * (demand.payload + REDIS_FRAME) * 8 / 1e9,
        memory=workers * cost.memory(usually, demand.per_client) / 2**20,
    )
