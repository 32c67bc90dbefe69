"""A discrete simulation of a fleet that loses a zone: its clients come back to the workers that are left. Pure.

1. A worker turns: it lets in who waits at its port, and sends what has come meanwhile to the clients that it has. A
   turn lasts as long as the model says, so that a crowd at the port shows as lateness of the messages, and the other
   way round.
2. A turn accepts as many clients as one of the daemon's does. At most `BACKLOG` wait; who comes then is not heard, and
   his system asks again after 1, 3 and 7 s.
3. A client gives up an attempt after `patience`, and waits as its `Policy` says. What a worker does for one who has
   given up is done in vain. A worker that is full refuses, which costs it half as much.
4. The balancers that are left let in `door` clients a second, all together, one after the other, and deal them out to
   the workers in turn. What they do for one who has given up is done in vain, too.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from itertools import count

import msgspec

from benchmarks.cost import Cost, full_writes
from marketfeed.runtime.acceptor import MOST_ACCEPTED

__all__ = ["AT_ONCE", "BACKLOG", "DOCUMENTED", "Fleet", "Policy", "Storm", "drain", "loss", "run_storm"]

BACKLOG = 4096
_AGAIN = (1.0, 3.0, 7.0)
_NETWORK = 0.1
"""Seconds within which all clients notice that their connection has gone."""
_DRAIN_HINT = (0.5, 5.0)
_STEP = 0.1
_ATTEMPT, _KNOCK, _TURN = range(3)
_LEAST = 0.005  # seconds of a turn: shorter ones change nothing that shows, and take their time


class Policy(msgspec.Struct, frozen=True):
    """How long a client waits, in seconds: between `share` and all of `first` when its connection has gone, of `again`
    after the first attempt that failed, and of twice as much after each other one, up to `longest`.
    """

    first: float
    again: float
    longest: float
    share: float

    def wait(self, failures: int, source: random.Random) -> float:
        most = min(self.longest, self.again * 2.0 ** (failures - 1)) if failures else self.first
        return most * (self.share + (1 - self.share) * source.random())


DOCUMENTED = Policy(0.5, 1.0, 30.0, 0.5)
"""As docs/protocol.md#a-client-that-stays-connected has it."""
AT_ONCE = Policy(0.0, 1.0, 1.0, 1.0)
"""As a client has it who gives it no thought: at once, and then every second."""


class Fleet(msgspec.Struct, frozen=True):
    """`workers` of a process each, evenly over `zones`. Of each client and second: `messages`, `size` bytes each; of
    each worker: `published`, what it reads.
    """

    clients: int
    workers: int
    zones: int
    per_client: int
    messages: float
    published: float
    size: float
    max_connections: int
    patience: float = 10.0
    door: float = math.inf


class Storm(msgspec.Struct, frozen=True):
    """What became of it, by steps of 0.1 s: attempts that came to a port, clients who were let in so far, and the
    longest turn of any worker, in s. `lost`: clients who had to come back; `unheard`: attempts that met a full port;
    `given_up`: those whose client had gone; `refused`: by workers that were full.
    """

    lost: int
    attempts: list[int]
    back: list[int]
    turns: list[float]
    unheard: int
    given_up: int
    refused: int

    def time_of(self, share: float) -> float | None:
        """Seconds until so many of the lost were back; None: they never were."""
        wanted = share * self.lost
        return next((step * _STEP for step, there in enumerate(self.back, 1) if there >= wanted), None)

    @property
    def peak(self) -> float:
        """Attempts a second, at most, over one second."""
        steps = round(1 / _STEP)
        return max((sum(self.attempts[at : at + steps]) for at in range(len(self.attempts))), default=0)

    @property
    def longest_turn(self) -> float:
        """How late messages were at worst, in s, of the clients who had stayed."""
        return max(self.turns, default=0.0)


def loss(policy: Policy) -> Callable[[int, int, random.Random], float]:
    """A zone is gone at once: all of its clients notice, and wait as the policy says."""

    def first(_number: int, _lost: int, source: random.Random) -> float:
        return source.random() * _NETWORK + policy.wait(0, source)

    return first


def drain(seconds: float, policy: Policy | None) -> Callable[[int, int, random.Random], float]:
    """A zone is drained over so many seconds; `policy`: how those wait who do not heed the hint, None: they do."""

    def first(number: int, lost: int, source: random.Random) -> float:
        wait = source.uniform(*_DRAIN_HINT) if policy is None else policy.wait(0, source)
        return number / lost * seconds + source.random() * _NETWORK + wait

    return first


class _Worker:
    """`port`: who waits there, and since when."""

    __slots__ = ("clients", "port", "turned")

    def __init__(self, clients: int) -> None:
        self.clients = clients
        self.port: deque[tuple[float, int]] = deque()
        self.turned = 0.0


def run_storm(
    cost: Cost,
    fleet: Fleet,
    first: Callable[[int, int, random.Random], float],
    policy: Policy,
    *,
    seconds: float = 60.0,
    seed: int = 1,
) -> Storm:
    """One of the zones goes at 0 s; `first`: when each of its clients comes for the first time."""
    return _Course(cost, fleet, policy, seconds, seed).run(first)


class _Course:
    """One storm. The heap has what is next: when, whose, and what of the three."""

    def __init__(self, cost: Cost, fleet: Fleet, policy: Policy, seconds: float, seed: int) -> None:
        self._fleet = fleet
        self._policy = policy
        self._seconds = seconds
        self._source = random.Random(seed)
        left = fleet.workers - fleet.workers // fleet.zones
        self._lost = fleet.clients * (fleet.workers - left) // fleet.workers
        self._workers = [_Worker(fleet.clients // fleet.workers) for _ in range(left)]
        self._failures = [0] * self._lost
        self._deaf = [0] * self._lost
        self._events: list[tuple[float, int, int, int]] = []
        self._order = count()
        self._dealt = 0
        self._door_free = 0.0
        self._connect = cost.connect_cpu(fleet.per_client) / 1e6
        self._message = cost.delivery + cost.byte * fleet.size
        self._cost = cost
        steps = round(seconds / _STEP) + 1
        self._attempts = [0] * steps
        self._came = [0] * steps
        self._turns = [0.0] * steps
        self._unheard = self._given_up = self._refused = 0

    def run(self, first: Callable[[int, int, random.Random], float]) -> Storm:
        for client in range(self._lost):
            self._push(first(client, self._lost, self._source), client, _ATTEMPT)
        for number, worker in enumerate(self._workers):
            worker.turned = self._source.random() * _LEAST
            self._push(worker.turned, number, _TURN)
        while self._events:
            now, _, who, what = heapq.heappop(self._events)
            if now >= self._seconds:
                break
            if what == _TURN:
                self._turn(self._workers[who], who, now)
            elif what == _KNOCK:
                self._knock(who, now)
            else:
                self._attempt(who, now)
        back, there = [], 0
        for came in self._came:
            there += came
            back.append(there)
        return Storm(self._lost, self._attempts, back, self._turns, self._unheard, self._given_up, self._refused)

    def _push(self, when: float, who: int, what: int) -> None:
        heapq.heappush(self._events, (when, next(self._order), who, what))

    def _attempt(self, client: int, now: float) -> None:
        """A client comes to the balancers."""
        self._attempts[int(now / _STEP)] += 1
        self._door_free = max(self._door_free, now) + 1 / self._fleet.door
        if self._door_free - now > self._fleet.patience:
            self._given_up += 1
            self._fail(client, now + self._fleet.patience)
        else:
            self._push(self._door_free, client, _KNOCK)

    def _knock(self, client: int, now: float) -> None:
        """It is at the port of the worker whose turn it is."""
        worker = self._workers[self._dealt % len(self._workers)]
        self._dealt += 1
        if len(worker.port) < BACKLOG:
            self._deaf[client] = 0
            worker.port.append((now, client))
            return
        self._unheard += 1
        again = self._deaf[client]
        if again < len(_AGAIN):
            self._deaf[client] = again + 1
            self._push(now + _AGAIN[again] - (_AGAIN[again - 1] if again else 0.0), client, _KNOCK)
        else:
            self._fail(client, now)

    def _fail(self, client: int, now: float) -> None:
        self._deaf[client] = 0
        self._failures[client] += 1
        self._push(now + self._policy.wait(self._failures[client], self._source), client, _ATTEMPT)

    def _turn(self, worker: _Worker, number: int, now: float) -> None:
        """What one turn does; the next one begins when it is over."""
        fleet, cost = self._fleet, self._cost
        since = now - worker.turned
        worker.turned = now
        published, each = fleet.published * since, fleet.messages * since
        took = cost.flush * min(published, 1.0) + cost.publication * published
        took += (cost.second + cost.client * worker.clients) * since
        written = -math.expm1(-each)  # of the clients, who get something
        took += worker.clients * (cost.write * written + cost.full * full_writes(written, each) + self._message * each)
        took /= 1e6
        accepted = min(MOST_ACCEPTED, len(worker.port))
        there = []
        for _ in range(accepted):
            came, client = worker.port.popleft()
            if now - came > fleet.patience:
                took += self._connect / 2
                self._given_up += 1
                self._fail(client, now)
            elif worker.clients + len(there) >= fleet.max_connections:
                took += self._connect / 2
                self._refused += 1
                self._fail(client, now + took)
            else:
                took += self._connect
                there.append(client)
        worker.clients += len(there)
        ends = now + took
        at = min(int(ends / _STEP), len(self._came) - 1)
        self._came[at] += len(there)
        self._turns[at] = max(self._turns[at], took)
        self._push(max(ends, now + _LEAST), number, _TURN)
