"""The wire contract, seen by clients of a real daemon over a real server: docs/protocol.md."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.system.harness import Client, DaemonProcess, Harness, Redis, RedisServer, trade

DEPTH = b'{"e":"depthUpdate","U":1,"u":2,"a":[["101.5","3"]],"b":[["100.25",0]]}'
TICKER = b'{ "e" : "24hrTicker", "c" : 1.10, "s" : "A", "extra" : {"\\u00e9": "\xc3\xa9"} }'


async def start(harness: Harness) -> tuple[DaemonProcess, Redis]:
    """A daemon with its server, and an engine."""
    redis = await harness.redis()
    return await harness.daemon(redis=redis), await redis.connect()


def envelope(stream: str, data: bytes) -> bytes:
    return b'{"stream":"%b","data":%b}' % (stream.encode(), data)


@pytest_twisted.ensureDeferred
async def test_a_publication_reaches_each_dialect_as_it_speaks(harness: Harness) -> None:
    """The engine's bytes come through unchanged, in the envelope that the path calls for."""
    daemon, engine = await start(harness)
    house, combined, raw = [
        await harness.client(daemon, path) for path in ("/", "/stream?streams=trade@A", "/ws/trade@A")
    ]
    assert await house.subscribe("trade@A") == {"stream": "!reply", "data": {"e": "reply", "id": 1, "result": None}}
    for client in (combined, raw):
        assert (await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1})) == {"result": ["trade@A"], "id": 1}
    await engine.publish("trade@A", trade())
    assert await house.next_bytes() == await combined.next_bytes() == envelope("trade@A", trade())
    assert await raw.next_bytes() == trade()


# What existing front ends read without asking.


@pytest_twisted.ensureDeferred
async def test_every_frame_on_the_house_path_has_a_stream_and_an_event(harness: Harness) -> None:
    """Publications, replies, errors, gaps, the farewell: `message.data.e` is a string in all of them."""
    redis = await harness.redis()
    daemon = await harness.daemon(
        "--request-burst", "12", "--request-rate", "0.001", "--drain-seconds", "0", redis=redis
    )
    engine = await redis.connect()
    client = await harness.client(daemon)
    client.send({"method": "SUBSCRIBE", "params": ["trade@A", "depth@A", "ticker@A"]})
    for request in (
        {"method": "UNSUBSCRIBE", "params": ["trade@B"]},
        {"method": "SUBSCRIBE", "params": ["nonsense"]},
        {"method": "SUBSCRIBE", "params": ["trade@A"], "id": 1},
        {"method": "LIST_SUBSCRIPTIONS"},
        {"method": "GET_PROPERTY", "params": ["combined"]},
        {"method": "SET_PROPERTY", "params": ["combined", False], "id": None},
        {"method": "SET_PROPERTY", "params": ["combined", 5], "id": "x"},
        {"method": "PING", "id": 2},
        {},
        b"nonsense",
        b"",
        {"method": "PING", "id": "one too many"},
    ):
        client.send(request)
    frames = []
    while not frames or frames[-1]["data"].get("id") != "one too many":
        frames.append(await client.next())
    await engine.publish("trade@A", trade())
    await engine.publish("depth@A", DEPTH)
    await engine.publish("ticker@A", TICKER)
    frames += [await client.next() for _ in range(3)]
    await redis.kill()
    frames.append(await client.next())
    assert frames[-1]["stream"] == "!gap"
    await redis.start()
    frames.append(await client.next())
    assert await daemon.stop("TERM") == 0
    await client.closed
    frames += map(json.loads, client.received)
    assert all(isinstance(message["stream"], str) and isinstance(message["data"]["e"], str) for message in frames)
    events = [message["data"]["e"] for message in frames]
    assert events == [
        *("error", "reply", "reply", "reply", "error", "error", "reply", "error", "error", "error", "error"),
        *("trade", "depthUpdate", "24hrTicker", "gap", "gap", "serverShutdown"),
    ]


# Requests, while publications flow and Redis is slow.


@pytest_twisted.ensureDeferred
async def test_nothing_is_missed_behind_a_reply(harness: Harness) -> None:
    """Once a SUBSCRIBE is answered, every publication comes, each time."""
    daemon, engine = await start(harness)
    client = await harness.client(daemon, "/ws")
    for number in range(30):
        stream = f"trade@M{number}"
        assert await client.subscribe(stream) == {"result": None, "id": 1}
        assert await engine.publish(stream, trade(number=number)) == [1]
        assert await client.next_bytes() == trade(number=number)


@pytest_twisted.ensureDeferred
async def test_nothing_comes_behind_the_reply_to_an_unsubscribe(harness: Harness) -> None:
    """While the engine publishes without a pause."""
    daemon, engine = await start(harness)
    client = await harness.client(daemon, "/stream")
    for _ in range(10):
        await client.subscribe("trade@A")
        published = engine.publish("trade@A", *(trade(number=number) for number in range(200)))
        client.send({"method": "UNSUBSCRIBE", "params": ["trade@A"], "id": 2})
        client.send({"method": "PING", "id": 3})
        await published
        received = []
        while not received or received[-1] != {"result": "PONG", "id": 3}:
            received.append(await client.next())
        assert received[-2] == {"result": None, "id": 2}
        assert [each["data"]["t"] for each in received[:-2]] == list(range(len(received) - 2))
        assert not client.received


@pytest_twisted.ensureDeferred
async def test_requests_are_answered_in_order_behind_one_that_waits(harness: Harness) -> None:
    """While Redis does not confirm, everything waits; then all is answered, and a second SUBSCRIBE waits again."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    client, other = await harness.client(daemon, "/ws"), await harness.client(daemon, "/ws")
    await other.subscribe("trade@OTHER")
    redis.process.signal("STOP")
    client.send({"method": "SUBSCRIBE", "params": ["trade@A"], "id": 1})
    client.send({"method": "LIST_SUBSCRIPTIONS", "id": 2})
    client.send(b"nonsense")
    client.send({"method": "UNSUBSCRIBE", "params": ["trade@A"], "id": 4})
    client.send({"method": "SUBSCRIBE", "params": ["trade@B"], "id": 5})
    client.send({"method": "LIST_SUBSCRIPTIONS", "id": 6})
    for _ in range(3):  # by now the daemon has long read what the first one sent
        assert await other.ask({"method": "PING", "id": 1}) == {"result": "PONG", "id": 1}
    assert not client.received
    os.kill(redis.process.pid, signal.SIGCONT)
    answers = [await client.next() for _ in range(6)]
    assert answers[2]["error"]["code"] == 3
    del answers[2]
    results = [None, ["trade@A"], None, None, ["trade@B"]]
    assert answers == [{"result": result, "id": n} for n, result in zip((1, 2, 4, 5, 6), results, strict=True)]
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_one_address_cannot_take_all_streams(harness: Harness) -> None:
    """With invented names on many connections: the others have the rest, and a proxy's own clients have no share."""
    daemon = await harness.daemon("--max-distinct-streams-per-address", "2", "--trusted-proxy", "127.0.0.1")

    async def ask(address: str | None, *streams: str) -> object:
        headers = {} if address is None else {"X-Forwarded-For": address}
        client = await harness.client(daemon, "/ws", headers=headers)
        answer = await client.ask({"method": "SUBSCRIBE", "params": streams, "id": 1})
        return answer.get("error")

    refused = {"code": 4, "msg": "too many streams: clients of one address may have 2 streams that nobody else has"}
    assert await ask("203.0.113.7", "trade@A", "trade@B") is None
    assert await ask("203.0.113.7", "trade@C") == refused
    assert await ask("203.0.113.7", "trade@A") is None
    assert await ask("203.0.113.8", "trade@C", "trade@A") is None
    assert await ask(None, "trade@D", "trade@E", "trade@F") is None
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_there_are_limits_to_subscriptions(harness: Harness) -> None:
    """Of a connection, and of distinct streams of the whole process: error 4, and what was there stays."""
    redis = await harness.redis()
    daemon = await harness.daemon("--max-streams", "3", "--max-distinct-streams", "4", "--linger", "0", redis=redis)

    async def ask(client: Client, method: str, *streams: str) -> object:
        answer = await client.ask({"method": method, "params": streams, "id": 1})
        return answer["error"]["code"] if "error" in answer else None

    one, two = await harness.client(daemon, "/ws"), await harness.client(daemon, "/ws")
    assert await ask(one, "SUBSCRIBE", "trade@A", "trade@B", "a@trade", "trade@C") == 4
    assert await ask(one, "SUBSCRIBE", "trade@A", "trade@B", "a@trade") is None
    assert await ask(one, "SUBSCRIBE", "trade@C") == 4
    assert await ask(one, "SUBSCRIBE", "trade@A", "a@trade") is None
    assert await ask(two, "SUBSCRIBE", "trade@C", "trade@D", "trade@E") == 4
    assert await ask(two, "SUBSCRIBE", "trade@A", "trade@C", "trade@D") is None
    assert await ask(one, "UNSUBSCRIBE", "trade@B") is None
    assert await ask(one, "SUBSCRIBE", "trade@E") is None
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_too_many_requests(harness: Harness) -> None:
    """Error 7 with the id; the twentieth in a row is one too many, and closes with 4029."""
    daemon = await harness.daemon("--request-burst", "2", "--request-rate", "0.001")
    client = await harness.client(daemon, "/ws")
    for number in range(2 + 20):
        client.send({"method": "PING", "id": number})
    for number in range(2):
        assert await client.next() == {"result": "PONG", "id": number}
    for number in range(2, 2 + 19):
        answer = await client.next()
        assert (answer["error"]["code"], answer["id"]) == (7, number)
        assert "0.001 a second" in answer["error"]["msg"]
    assert await client.closed == (4029, "too many requests")
    assert not client.received
    await daemon.expect(r"client \S+-1 disconnected after .* closed by the server with 4029 too many requests")
    assert await daemon.stop() == 0


# Control events, and the end.


@pytest_twisted.ensureDeferred
async def test_a_gap_is_announced_when_it_begins_and_when_it_ends(harness: Harness) -> None:
    """With the same beginning; one event for all streams of a client, as it spelled them; then publications flow."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    watched = {"/": ["trade@A", "b@trade"], "/stream": ["a@trade"], "/ws": ["trade@B", "trade@A"]}
    clients = {path: await (await harness.client(daemon, path)).hear_events() for path in ("/stream", "/ws")}
    clients["/"] = await harness.client(daemon)
    clients = {path: clients[path] for path in watched}
    for path, streams in watched.items():
        await clients[path].subscribe(*streams)
    bystander = await harness.client(daemon)
    await redis.kill()
    begun: dict[str, Any] = {}
    for path, client in clients.items():
        message = await client.next()
        begun[path] = message if path == "/ws" else message["data"]
        assert message.get("stream") == (None if path == "/ws" else "!gap")
        assert begun[path].keys() == {"e", "streams", "reason", "from", "to"}
        assert (begun[path]["e"], begun[path]["reason"], begun[path]["to"]) == ("gap", "source-down", None)
        assert sorted(begun[path]["streams"]) == sorted(watched[path])
    assert len({event["from"] for event in begun.values()}) == 1
    await redis.start()
    for path, client in clients.items():
        message = await client.next()
        ended = message if path == "/ws" else message["data"]
        assert ended["to"] >= ended["from"]
        assert sorted(ended["streams"]) == sorted(watched[path])
        assert {**ended, "to": None, "streams": begun[path]["streams"]} == begun[path]
    engine = await redis.connect()
    await engine.publish("trade@A", trade())
    assert await clients["/"].next_bytes() == envelope("trade@A", trade())
    assert await clients["/stream"].next_bytes() == envelope("a@trade", trade())
    assert await clients["/ws"].next_bytes() == trade()
    assert await bystander.ask({"method": "PING", "id": 1})  # and nothing before it
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_subscribe_while_the_source_is_down(harness: Harness) -> None:
    """Is accepted and answered at once; the gap says that nothing flows yet, and ends when it does."""
    redis = RedisServer(harness, harness.directory)
    daemon = await harness.daemon("--redis-url", redis.url)
    await daemon.expect("no connection to")
    client = await (await harness.client(daemon, "/ws")).hear_events()
    assert await client.subscribe("trade@A", "a@trade") == {"result": None, "id": 1}
    begun = await client.next()
    assert (begun["e"], begun["reason"], begun["to"]) == ("gap", "source-down", None)
    assert begun["streams"] == ["trade@A", "a@trade"]
    await redis.start()
    ended = await client.next()
    assert {**ended, "to": None} == begun
    engine = await redis.connect()
    await engine.publish("trade@A", trade())
    assert await client.next_bytes() == trade()
    assert await daemon.stop() == 0


async def farewells(clients: list[Client]) -> list[Any]:
    """What each was told last, and see that it was closed with 1012 and knew why."""
    closed = await gatherResults([client.closed for client in clients])
    assert closed == [(1012, "shutting down or restarting")] * len(clients)
    events = []
    for client in clients:
        (event,) = map(json.loads, client.received)
        assert event["e"] == "serverShutdown"
        assert 0 < event["reconnectAfter"] <= 5000
        events.append(event)
    return events


@pytest_twisted.ensureDeferred
async def test_a_shutdown_is_announced_and_spread(harness: Harness) -> None:
    """At SIGTERM clients are sent away one by one, a random pause each before they come back; the status is 0."""
    daemon = await harness.daemon("--drain-seconds", "60")
    clients = [await harness.client(daemon, "/ws") for _ in range(10)]
    assert await daemon.stop("TERM") == 0
    events = await farewells(clients)
    moments = sorted(event["E"] for event in events)
    assert moments[-1] - moments[0] >= 800  # ten ticks of 100 ms
    assert len({event["reconnectAfter"] for event in events}) > 1


@pytest_twisted.ensureDeferred
async def test_a_second_signal_hurries_a_shutdown(harness: Harness) -> None:
    """Whoever is still there is sent away together, with the same words."""
    daemon = await harness.daemon("--drain-seconds", "1000")
    clients = [await harness.client(daemon, "/ws") for _ in range(100)]
    daemon.process.signal("TERM")
    await daemon.expect("sending 100 clients away")
    assert await daemon.stop("TERM") == 0
    moments = sorted(event["E"] for event in await farewells(clients))
    assert moments[-1] - moments[-21] < 30_000  # otherwise 200 s


@pytest_twisted.ensureDeferred
async def test_sigint_ends_at_once(harness: Harness) -> None:
    """Everybody is told all the same."""
    redis = await harness.redis()
    daemon = await harness.daemon("--drain-seconds", "1000", redis=redis)
    clients = [await harness.client(daemon, "/ws") for _ in range(50)]
    await clients[0].subscribe("trade@A")
    assert await daemon.stop("INT") == 0
    moments = [event["E"] for event in await farewells(clients)]
    assert max(moments) - min(moments) < 60_000  # otherwise 980 s


@pytest_twisted.ensureDeferred
async def test_publications_flow_until_the_farewell(harness: Harness) -> None:
    """A client that is not sent away yet misses nothing; the last frame before the close is the farewell."""
    redis = await harness.redis()
    daemon = await harness.daemon("--drain-seconds", "2", redis=redis)
    engine = await redis.connect()
    clients = [await harness.client(daemon, "/ws") for _ in range(20)]
    for client in clients:
        await client.subscribe("trade@A")
    daemon.process.signal("TERM")
    await daemon.expect("sending 20 clients away")
    published = 0
    while not all(client.closed.called for client in clients):
        await engine.publish("trade@A", trade(number=published))
        published += 1
        await harness.pause(0.01)
    assert await daemon.process.wait() == 0
    for client in clients:
        *trades, farewell = map(json.loads, client.received)
        assert [each["t"] for each in trades] == list(range(len(trades)))
        assert farewell["e"] == "serverShutdown"
