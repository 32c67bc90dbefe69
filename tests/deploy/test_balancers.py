"""Three instances behind HAProxy and behind nginx, each with its file of deploy/ (docs/operations/balancers.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.certificates import Authority
from tests.deploy.balancers import BALANCERS, Balancer, Instance
from tests.system.harness import DEADLINE, Client, DaemonProcess, Harness, trade
from tests.system.lean import HANDSHAKE, LeanClient, LeanClients, all_of, client_frame

TRADE = "trade@TATA_INR"
AFFINITIES = [f"client-{number}" for number in range(12)]
ENDING = "503 this server is shutting down"
KEPT = ("--linger", "600")
LONG = ("--drain-seconds", "600")
"""Over which hardly anybody is sent away while a test lasts."""


@pytest.fixture(params=BALANCERS)
def balancer(request: pytest.FixtureRequest) -> Balancer:
    return BALANCERS[request.param]


def arrivals(instance: Instance) -> int:
    """How many WebSockets the process that is there now has had."""
    return sum("connected from" in line for line in instance.daemon.lines)


def refusals(instance: Instance, text: str) -> int:
    """How many requests it has refused with these words."""
    return sum(f": {text}" in line for line in instance.daemon.lines)


def never_looks(text: str) -> str:
    """HAProxy's file, with which it never asks an instance whether it is ready; nor does nginx."""
    return text.replace("inter 250ms fastinter 50ms", "inter 1h fastinter 1h")


class Crowd:
    """Clients through a balancer, each with an affinity of its own, of whom it is known on which instance they are."""

    def __init__(self, harness: Harness, proxy: DaemonProcess, instances: Sequence[Instance]) -> None:
        self._harness = harness
        self.proxy = proxy
        self._instances = instances

    async def come(self, affinity: str) -> tuple[Client, Instance]:
        """A client that is told offsets, and where it is now."""
        before = [arrivals(instance) for instance in self._instances]
        client = await self._harness.client(self.proxy, f"/stream?affinity={affinity}")
        await client.ask({"method": "SET_PROPERTY", "params": ["offsets", True], "id": 1})
        await self._harness.eventually(lambda: sum(map(arrivals, self._instances)) == sum(before) + 1)
        (where,) = [each for each, count in zip(self._instances, before, strict=True) if arrivals(each) > count]
        return client, where

    async def fullest(self) -> tuple[Instance, list[str]]:
        """After a dozen have come: where most of them are, and the affinities of these."""
        places = {affinity: (await self.come(affinity))[1] for affinity in AFFINITIES}
        most = max(self._instances, key=list(places.values()).count)
        return most, [affinity for affinity, place in places.items() if place is most]

    async def come_elsewhere(self, ending: Instance, affinities: Sequence[str]) -> None:
        """They come again, all at once, and are let in by others."""
        count, lean = arrivals(ending), LeanClients[LeanClient](self._harness, self.proxy)
        await all_of([lean.open(LeanClient(), f"/?affinity={affinity}") for affinity in affinities])
        assert arrivals(ending) == count


async def resume(client: Client, offset: str) -> bool:
    """SUBSCRIBE from there on; whether nothing is missing."""
    reply = await client.ask({"method": "SUBSCRIBE", "params": [TRADE], "since": {TRADE: offset}, "id": 2})
    return bool(reply["recovered"][TRADE])


async def drain(instance: Instance) -> None:
    """Have it send its clients away, of which it has some."""
    instance.daemon.process.signal("TERM")
    await instance.daemon.expect("sending .* clients away")


@pytest_twisted.ensureDeferred
async def test_an_instance_gets_to_know_where_clients_are(balancer: Balancer, harness: Harness) -> None:
    """Not what they say about it themselves."""
    instances = await balancer.instances(harness, await harness.redis())
    proxy = await balancer.start(harness, instances)
    client = LeanClient()
    elsewhere = ("127.0.0.5", 0)
    endpoint = TCP4ClientEndpoint(harness.reactor, "127.0.0.1", proxy.port, DEADLINE, elsewhere)
    await connectProtocol(endpoint, client)
    client.transport.write((HANDSHAKE % b"/").replace(b"Upgrade:", b"X-Forwarded-For: 203.0.113.7\r\nUpgrade:"))
    assert await client.handshake == 101
    await harness.eventually(lambda: any(map(arrivals, instances)))
    (line,) = [line for each in instances for line in each.daemon.lines if "connected from" in line]
    assert re.search(r"connected from 127\.0\.0\.5[:,]", line)
    client.abort()
    await client.lost


@pytest_twisted.ensureDeferred
async def test_tls_ends_at_the_balancer(balancer: Balancer, harness: Harness) -> None:
    """Clients that offer what browsers do get a WebSocket; the instances know nothing of it."""
    instances = await balancer.instances(harness, await harness.redis())
    root = Authority()
    proxy = await balancer.start(harness, instances, Authority(above=root).issue("localhost"))
    raw = await harness.raw(proxy, root.client_options())
    raw.send(HANDSHAKE % b"/stream")
    await raw.until(lambda data: b"101 Switching Protocols" in data)
    raw.send(client_frame(b'{"method":"PING","id":1}'))
    await raw.until_ends(b'{"result":"PONG","id":1}')


@pytest_twisted.ensureDeferred
async def test_who_comes_back_with_its_affinity_resumes_from_channels(balancer: Balancer, harness: Harness) -> None:
    """On the instance where it was, where alone its offset is good; and not all of them are on one."""
    redis = await harness.redis()
    instances = await balancer.instances(harness, redis, *KEPT)
    crowd = Crowd(harness, await balancer.start(harness, instances, edit=never_looks), instances)
    before = [await crowd.come(affinity) for affinity in AFFINITIES]
    assert len({id(where) for _, where in before}) > 1
    await all_of([client.subscribe(TRADE) for client, _ in before])
    engine = await redis.connect()
    await engine.publish(TRADE, trade(number=1))
    offsets = [(await client.next())["offset"] for client, _ in before]
    for client, _ in before:
        await harness.hang_up(client)
    await engine.publish(TRADE, trade(number=2))
    places = [place for _, place in before]
    returning = sorted(zip(places, AFFINITIES, offsets, strict=True), key=lambda each: each[0].name)
    for (
        place,
        affinity,
        offset,
    ) in returning:  # all of one instance after another, which nobody would do who spreads them
        client, where = await crowd.come(affinity)
        assert where is place
        assert await resume(client, offset)
        assert (await client.next())["data"]["t"] == 2


@pytest_twisted.ensureDeferred
async def test_an_instance_is_gone(balancer: Balancer, harness: Harness) -> None:
    """Another one takes its clients, and says that their offsets are not good there. Once it is there again, HAProxy
    leaves them where they are, and nginx brings them back.
    """
    redis = await harness.redis()
    instances = await balancer.instances(harness, redis, *KEPT)
    crowd = Crowd(harness, await balancer.start(harness, instances, edit=never_looks), instances)
    client, first = await crowd.come("client")
    await client.subscribe(TRADE)
    await (await redis.connect()).publish(TRADE, trade())
    offset = (await client.next())["offset"]
    await first.kill()
    await client.closed
    client, second = await crowd.come("client")
    assert not await resume(client, offset)
    await harness.hang_up(client)
    assert (await crowd.come("client"))[1] is second
    await first.start()
    assert (await crowd.come("client"))[1] is (second if balancer.looks else first)


@pytest_twisted.ensureDeferred
async def test_nobody_is_refused_before_the_balancer_has_noticed(balancer: Balancer, harness: Harness) -> None:
    """An instance that ends says 503 to who comes; the balancer asks another one, and the client hears nothing."""
    instances = await balancer.instances(harness, await harness.redis(), *LONG)
    proxy = await balancer.start(harness, instances, edit=never_looks)
    crowd = Crowd(harness, proxy, instances)
    ending, affinities = await crowd.fullest()
    await drain(ending)
    await crowd.come_elsewhere(ending, affinities)
    await ending.daemon.expect(ENDING)


@pytest_twisted.ensureDeferred
async def test_an_instance_that_ends_is_out_before_its_clients_are_back(harness: Harness) -> None:
    """HAProxy asks each whether it is ready, and then asks that one nothing else any more."""
    balancer = BALANCERS["haproxy"]
    instances = await balancer.instances(harness, await harness.redis(), *LONG)
    proxy = await balancer.start(harness, instances)
    crowd = Crowd(harness, proxy, instances)
    ending, affinities = await crowd.fullest()
    await drain(ending)
    await proxy.expect("is DOWN, reason: Layer7 wrong status, code: 503")
    await crowd.come_elsewhere(ending, affinities)
    assert refusals(ending, ENDING) == 0


@pytest_twisted.ensureDeferred
async def test_an_instance_is_full(balancer: Balancer, harness: Harness) -> None:
    """The next one takes whom it does not take. When all are full, the client hears so."""
    instances = await balancer.instances(harness, await harness.redis(), "--max-connections", "1")
    crowd = Crowd(harness, proxy := await balancer.start(harness, instances, edit=never_looks), instances)
    assert {id((await crowd.come("client"))[1]) for _ in instances} == {id(instance) for instance in instances}
    lean = LeanClients[LeanClient](harness, proxy)
    client = await lean.connect(LeanClient())
    client.transport.write(HANDSHAKE % b"/?affinity=client")
    assert await client.handshake == 503
