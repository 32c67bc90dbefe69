"""What is subscribed in Redis is what clients have, no more and no less, through any storm of comings and goings."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.system.harness import DEADLINE, DaemonProcess, Harness, Redis, trade
from tests.system.secure import ALL, Secure
from tests.system.witness import Witness

CLIENTS, STREAMS, OPERATIONS, CHECKPOINTS = 60, 100, 2_000, 5
UNLIMITED = ("--request-rate", "1e6", "--request-burst", "1000000")
KILLED_AT = 300
"""The operation after the last checkpoint before which the link is lost."""
OFTEN = (30, 25, 15, 5, 10, 15)
MARKETS = [f"M{number:02}" for number in range(STREAMS)]


class Visitor:
    """A client, and the subscriptions that it ought to have: `wanted`, spelling → market, in order."""

    def __init__(self, witness: Witness, spells_both_ways: bool) -> None:
        self.witness = witness
        self.wanted: dict[str, str] = {}
        self._spells_both_ways = spells_both_ways
        self._requests = 0
        self._given_up: dict[int, list[str]] = {}
        self._awaited: dict[int, Deferred[list[str]]] = {}
        witness.on_reply = self._replied

    def request(self, method: str, params: list[str] | None = None) -> int:
        self._requests += 1
        fields = {} if params is None else {"params": params}
        self.witness.client.send({"method": method, "id": self._requests, **fields})
        return self._requests

    def subscribe(self, rng: random.Random) -> None:
        """Subscribe to a few streams, some of them perhaps for the second time."""
        markets = rng.choices(MARKETS, k=rng.randint(1, 3))
        self._subscribe({self._spelling(market, rng): market for market in markets})

    def unsubscribe(self, rng: random.Random) -> None:
        """Unsubscribe from half of the streams or more, and from one that it never had."""
        had = list(self.wanted)
        self._unsubscribe([*rng.sample(had, rng.randint(len(had) // 2, len(had))), "trade@NEVER"])

    def change_its_mind(self) -> None:
        """Unsubscribe from all streams, and subscribe to them again at once."""
        had = dict(self.wanted)
        self._unsubscribe(list(had))
        self._subscribe(had)

    def catch_up(self) -> Deferred[list[str]]:
        """Wait until everything that was requested is answered; the subscriptions then, as the daemon sees them."""
        done = self._awaited[self.request("LIST_SUBSCRIPTIONS")] = Deferred[list[str]]()
        return done.addTimeout(DEADLINE, self.witness.client.factory.reactor)

    def _spelling(self, market: str, rng: random.Random) -> str:
        is_reversed = self._spells_both_ways and rng.random() < 0.2
        return f"{market.lower()}@trade" if is_reversed else f"trade@{market}"

    def _subscribe(self, streams: dict[str, str]) -> None:
        for spelling, market in streams.items():
            self.wanted.setdefault(spelling, market)
        self.request("SUBSCRIBE", list(streams))

    def _unsubscribe(self, spellings: list[str]) -> None:
        for spelling in spellings:
            self.wanted.pop(spelling, None)
        self._given_up[self.request("UNSUBSCRIBE", spellings)] = spellings

    def _replied(self, request_id: int) -> None:
        for spelling in self._given_up.pop(request_id, []):
            self.witness.forget(spelling)
        awaited = self._awaited.pop(request_id, None)
        if awaited is not None:
            awaited.callback(self.witness.replies[request_id])


class Storm:
    """Clients who come, go, subscribe and unsubscribe, an engine, and losses of the link between."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, engine: Redis, secure: Secure | None) -> None:
        self.harness = harness
        self._tls = None if secure is None else secure.client
        self.daemon = daemon
        self.engine = engine
        self.rng = random.Random(20)
        self.visitors: list[Visitor] = []
        self.published: Counter[str] = Counter()

    async def come(self) -> None:
        path = self.rng.choice(["/", "/stream", "/ws"])
        client = await self.harness.client(self.daemon, path, tls=self._tls)
        if path != "/":
            await client.hear_events()
        self.visitors.append(Visitor(Witness(client), spells_both_ways=path != "/ws"))

    def go(self) -> None:
        visitor = self.visitors.pop(self.rng.randrange(len(self.visitors)))
        assert visitor.witness.faults == []
        client = visitor.witness.client
        client.on_message = lambda _: None
        if self.rng.random() < 0.5:
            client.sendClose()
        else:
            client.transport.abortConnection()

    def publish(self, market: str) -> None:
        self.published[market] += 1
        self.engine.publish(f"trade@{market}", trade(market, self.published[market]))

    async def operation(self) -> None:
        rng = self.rng
        visitor = rng.choice(self.visitors)
        match rng.choices(["subscribe", "unsubscribe", "hesitate", "leave", "publish", "wait"], OFTEN)[0]:
            case "subscribe":
                visitor.subscribe(rng)
            case "unsubscribe":
                visitor.unsubscribe(rng)
            case "hesitate":
                visitor.change_its_mind()
            case "leave":
                self.go()
                await self.come()
            case "publish":
                self.publish(rng.choice(MARKETS))
            case "wait":
                await visitor.catch_up()

    @property
    def wanted(self) -> set[str]:
        """The markets that any client has."""
        return {market for visitor in self.visitors for market in visitor.wanted.values()}

    async def check(self) -> None:
        """See that clients, daemon and Redis agree, and that everything flows to whom it should."""
        listed = await gatherResults([visitor.catch_up() for visitor in self.visitors])
        assert listed == [list(visitor.wanted) for visitor in self.visitors]
        await self.harness.eventually(self._redis_agrees)
        await self.harness.eventually(lambda: not any(visitor.witness.open for visitor in self.visitors))
        for market in sorted(self.wanted):
            self.publish(market)
        await self.harness.eventually(lambda: all(map(self._is_up_to_date, self.visitors)))
        assert [fault for visitor in self.visitors for fault in visitor.witness.faults] == []

    async def _redis_agrees(self) -> bool:
        return await self.engine.channels() == {f"trade@{market}" for market in self.wanted}

    def _is_up_to_date(self, visitor: Visitor) -> bool:
        last = visitor.witness.last
        return all(last.get(spelling) == self.published[market] for spelling, market in visitor.wanted.items())


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("linger", "tls"), [("0", False), ("0.3", True), *([("0", True), ("0.3", False)] if ALL else [])]
)
async def test_a_storm_of_subscriptions(harness: Harness, linger: str, tls: bool) -> None:
    """Whatever clients do, and whenever the link is lost, all ends up as the clients want it."""
    redis = await harness.redis()
    secure = Secure(harness.directory) if tls else None
    options = secure.options if secure is not None else ()
    daemon = await harness.daemon("--linger", linger, *UNLIMITED, *options, redis=redis)
    storm = Storm(harness, daemon, await redis.connect(), secure)
    for _ in range(CLIENTS):
        await storm.come()
    for _ in range(CHECKPOINTS):
        for number in range(OPERATIONS // CHECKPOINTS):
            if number == KILLED_AT:
                await storm.engine.command("CLIENT", "KILL", "TYPE", "pubsub")
            await storm.operation()
        await storm.check()
    while storm.visitors:
        storm.go()
    await storm.check()
    assert await daemon.stop() == 0
    assert not any("Traceback" in line or "Unhandled" in line for line in daemon.lines)


# The edges.


async def calls(engine: Redis, command: str) -> int:
    """How often clients have sent this command to the server."""
    found = re.search(rb"cmdstat_%b:calls=(\d+)" % command.encode(), await engine.command("INFO", "commandstats"))
    return int(found[1]) if found else 0


@pytest_twisted.ensureDeferred
async def test_a_page_that_is_loaded_again_does_not_flap_the_channel(harness: Harness) -> None:
    """Within the linger time a client may leave and come back, and the server hears nothing of it."""
    redis = await harness.redis()
    daemon, engine = await harness.daemon("--linger", "600", redis=redis), await redis.connect()
    for _ in range(5):
        client = await harness.client(daemon)
        await client.subscribe("trade@A")
        assert await engine.publish("trade@A", trade("A")) == [1]
        assert (await client.next())["stream"] == "trade@A"
        client.transport.abortConnection()
        await client.closed
    assert await engine.channels() == {"trade@A"}
    assert await calls(engine, "subscribe") == 1
    assert await calls(engine, "unsubscribe") == 0
