"""The real daemon's metrics equal what was done to it, to the last byte."""

from __future__ import annotations

import json
import re

import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.by_hand import CLOSE, frame, handshake, say
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import DaemonProcess, Harness, RawConnection, trade

_CLIENTS, _PUBLICATIONS, _BAD = 20, 100, 7


class Counting:
    """A client that knows how many bytes went each way."""

    def __init__(self, raw: RawConnection) -> None:
        self.raw = raw
        self.sent = 0

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        self.raw.send(data)

    async def gets(self, text: bytes) -> None:
        await self.raw.until(lambda data: text in data)


async def subscribed(harness: Harness, daemon: DaemonProcess, streams: list[str]) -> Counting:
    client = Counting(await harness.raw(daemon))
    client.send(handshake("/stream"))
    await client.gets(b"\r\n\r\n")
    client.send(say({"method": "SUBSCRIBE", "params": streams, "id": 1}))
    await client.gets(b'"id":1}')
    return client


@pytest_twisted.ensureDeferred
async def test_counters_equal_a_load_of_known_size(harness: Harness) -> None:
    """Publications, deliveries, drops by reason, requests, errors, closes and bytes."""
    redis = await harness.redis()
    daemon = await harness.daemon(*ADMIN, "--ping-interval", "0", redis=redis)
    admin = await AdminPort.of(daemon)
    engine = await redis.connect()
    both, one = ["trade@A", "ticker@A"], ["trade@A"]
    clients = [await subscribed(harness, daemon, streams) for streams in [both, one] * (_CLIENTS // 2)]
    for number in range(_PUBLICATIONS):
        await engine.publish("trade@A", trade("A", number), *[b"{"] * (number < _BAD))
        await engine.publish("ticker@A", b'{"e":"ticker","c":"1","s":"A","n":%d}' % number)
    await engine.publish("trade@A", b'{"e":"trade"}')
    await engine.publish("trade@A", trade("A", _PUBLICATIONS))
    await gatherResults([client.raw.until(lambda data: b'"t":%d,' % _PUBLICATIONS in data) for client in clients])
    clients[0].send(say({"method": "PING", "id": 2}) + say({"method": "NONSENSE", "id": 3}))
    await clients[0].gets(b'"id":3')
    samples = await admin.samples(harness)
    assert (samples["clients"], samples["subscriptions"], samples["streams"]) == (_CLIENTS, 1.5 * _CLIENTS, 2)
    for client, code in zip(clients, [1000, 1001, 4000], strict=False):
        client.send(frame(code.to_bytes(2, "big"), CLOSE))
        await client.raw.until_closed()
    await harness.hang_up(clients[3].raw)
    strange = Counting(await harness.raw(daemon))
    strange.send(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await strange.raw.until_closed()
    answer = await harness.http(daemon, "GET /healthz HTTP/1.1\nHost: localhost\nConnection: close")
    assert answer[0] == 200

    async def has_four_less() -> bool:
        return (await admin.samples(harness))["clients"] == _CLIENTS - 4

    await harness.eventually(has_four_less)
    samples = await admin.samples(harness)
    expected = {
        "connections_total": _CLIENTS,
        "publications_total trade": _PUBLICATIONS + 1,
        "publications_total ticker": _PUBLICATIONS,
        "publications_total depth": 0,
        "deliveries_total trade": _CLIENTS * (_PUBLICATIONS + 1),
        "deliveries_total ticker": _CLIENTS // 2 * _PUBLICATIONS,
        "dropped_publications_total trade not-json": _BAD,
        "dropped_publications_total trade bad-field": 1,
        "requests_total SUBSCRIBE": _CLIENTS,
        "requests_total PING": 1,
        "requests_total other": 1,
        "request_errors_total 2": 1,
        "closes_total client 1000": 1,
        "closes_total client 1001": 1,
        "closes_total client other": 1,
        "closes_total nobody 1006": 1,
        "refusals_total not-found 404": 1,
        "conflated_total trade": 0,
        "backlogged_clients": 0,
        "source_up redis": 1,
        "ready": 1,
    }
    assert {name: samples.get(name) for name in expected} == expected
    healthz = len(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert samples["received_bytes_total"] == sum(client.sent for client in (*clients, strange)) + healthz
    assert daemon.process.status is None


@pytest_twisted.ensureDeferred
async def test_bytes_that_were_sent(harness: Harness) -> None:
    """All that came out at the clients, whatever it was: answers of HTTP, replies, publications, closes."""
    redis = await harness.redis()
    daemon = await harness.daemon(*ADMIN, "--ping-interval", "0", redis=redis)
    admin = await AdminPort.of(daemon)
    engine = await redis.connect()
    clients = [await subscribed(harness, daemon, ["trade@A"]) for _ in range(5)]
    for number in range(50):
        await engine.publish("trade@A", trade("A", number))
    await gatherResults([client.raw.until(lambda data: b'"t":49,' in data) for client in clients])
    for client in clients:
        client.send(frame(b"\x03\xe8", CLOSE))
    received = sum([len(await client.raw.until_closed()) for client in clients])
    assert (await admin.samples(harness))["sent_bytes_total"] == received


@pytest_twisted.ensureDeferred
async def test_health_says_why(harness: Harness) -> None:
    """On the admin port by name; on the clients' port as balancers know it."""
    daemon = await harness.daemon(*ADMIN, "--redis-url", "redis://127.0.0.1:1")
    admin = await AdminPort.of(daemon)
    status, _, body = await admin.ask(harness, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["source-never-reached"]})
    assert (await harness.http(daemon, "GET /readyz HTTP/1.1\nHost: localhost\nConnection: close"))[2] == b"not ready\n"
    assert (await admin.ask(harness, "/healthz"))[0] == 200
    assert (await admin.ask(harness, "/metrics", "rebound.example"))[0] == 421


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken(harness: Harness) -> None:
    """One that was chosen ends the start; the default one is a warning."""
    first = await harness.daemon(*ADMIN, "--redis-url", "redis://127.0.0.1:1")
    number = (await AdminPort.of(first)).port
    other = await harness.daemon("--admin", f"tcp:{number}:interface=127.0.0.1", wait=False)
    line = await other.expect("is taken")
    assert re.search(
        rf"marketfeed: port tcp:{number}:interface=127.0.0.1 is taken; --admin may name another", line.string
    )
    assert await other.process.wait() == 1
