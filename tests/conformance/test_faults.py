"""Each client through faults of a real daemon: nothing is missing with Redis streams, and nothing unsaid without.

`RECONNECTS=1000` makes it longer; `make faults` does.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.conformance.clients import CLIENTS
from tests.conformance.runner import Adapter
from tests.system.faults import Engine, now_ms, trade
from tests.system.forwarder import Forwarder
from tests.system.harness import DEADLINE, Harness, RedisServer
from tests.system.lean import within
from tests.system.secure import Secure, also_tls, tls_in_full

_RECONNECTS = int(os.environ.get("RECONNECTS", "30"))
_SECONDS = 4 * DEADLINE + 2 * _RECONNECTS
_A = "trade@TATA_INR"
_OPTIONS = {"backoffBase": 5, "backoffMost": 20}


async def _stage(
    harness: Harness, client: str, *options: str, tls: bool = False
) -> tuple[RedisServer, Forwarder, Adapter]:
    """A server, a way to a daemon that can be cut, and a client that follows one stream. `tls`: from end to end."""
    there = CLIENTS[client]
    if there.missing:
        pytest.skip(there.missing)
    redis = await harness.redis()
    options = ("--connect-rate", "0", "--linger", "600", *options)
    secure = Secure(harness.directory) if tls else None
    if secure is None:
        path = str(harness.directory / "daemon")
        daemon = await harness.daemon("--port", f"unix:{path}", *options, redis=redis, wait=False)
        await daemon.expect(r"redis: connected")
        door, adapter = Forwarder(harness, path), Adapter(harness, there.command)
    else:
        daemon = await harness.daemon(*secure.options, *options, redis=redis)
        door, adapter = Forwarder(harness, daemon.port), Adapter(harness, there.command, secure.trusted)
    url = f"{'wss' if tls else 'ws'}://127.0.0.1:{door.port}/"
    await adapter.do({"do": "start", "url": url, "clock": "real", "options": _OPTIONS})
    await adapter.do({"do": "on", "stream": _A, "to": "one"})
    return redis, door, adapter


def _told(adapter: Adapter, event: str) -> list[dict[str, Any]]:
    adapter.read()
    return [entry for entry in adapter.log if entry["event"] == event]


def _numbers(adapter: Adapter) -> list[int]:
    return [entry["data"]["t"] for entry in _told(adapter, "data")]


async def _hear(harness: Harness, redis: RedisServer, adapter: Adapter, words: Any, further: Any) -> None:
    """Publish until one of these has come, and so all before it that will."""
    sent = set()

    async def is_heard() -> bool:
        connection = await redis.connect()
        sent.add(number := next(further))
        await connection.command(*words(_A, trade(_A, number, now_ms())))
        return not sent.isdisjoint(_numbers(adapter))

    await harness.eventually(is_heard)


async def _cut(
    harness: Harness,
    door: Forwarder,
    adapter: Adapter,
    engine: Engine,
    rng: random.Random,
    back: Callable[[], Awaitable[object]],
) -> None:
    """Cut the way after so many publications as are drawn, until the client has noticed, again and again; before and
    behind some cuts it is waited until the client is `back`.
    """
    for _ in range(_RECONNECTS):
        since = len(_told(adapter, "reconnecting"))
        published = Deferred.fromCoroutine(engine.run(engine.sent + rng.randrange(1, 60)))
        await engine.after(engine.sent + 1)
        if rng.randrange(2):
            await published
            if rng.randrange(2):
                await back()
        await harness.eventually(partial(_is_cut, door, adapter, since))
        await published
        if rng.randrange(2):
            await back()


def _is_cut(door: Forwarder, adapter: Adapter, since: int) -> bool:
    """The client says so. Between two connections there is nothing to cut yet."""
    door.cut()
    return len(_told(adapter, "reconnecting")) > since


@also_tls
@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_with_streams_nothing_is_missing(client: str, tls: bool, harness: Harness) -> None:
    await within(_SECONDS)(partial(_with_streams_nothing_is_missing, client, tls))(harness)


async def _with_streams_nothing_is_missing(client: str, tls: bool, harness: Harness) -> None:
    """Each publication once and in order, through all reconnections, and no gap."""
    print(f"seed {(seed := random.randrange(1 << 30))}")
    redis, door, adapter = await _stage(harness, client, "--source", "streams", tls=tls)

    def words(stream: str, payload: bytes) -> tuple[Any, ...]:
        return ("XADD", stream, "*", "d", payload)

    await _hear(harness, redis, adapter, words, count(-1_000_000))
    engine = Engine(harness, redis, [_A], words)

    async def back() -> None:
        await harness.eventually(lambda: _told(adapter, "state")[-1]["state"] == "open")

    await _cut(harness, door, adapter, engine, random.Random(seed), back)
    await harness.eventually(lambda: _numbers(adapter)[-1] >= engine.sent - 1)
    numbers = _numbers(adapter)
    assert [number for number in numbers if number >= 0] == list(range(engine.sent))
    assert numbers == sorted(set(numbers))
    assert _told(adapter, "gap") == []
    assert len(_told(adapter, "reconnecting")) >= _RECONNECTS
    assert await adapter.end() == 0
    assert adapter.noise == []


@tls_in_full
@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_with_channels_every_gap_is_told(client: str, tls: bool, harness: Harness) -> None:
    await within(_SECONDS)(partial(_with_channels_every_gap_is_told, client, tls))(harness)


async def _with_channels_every_gap_is_told(client: str, tls: bool, harness: Harness) -> None:
    """The server is killed, and the way is cut: what has not come lies within a gap that was told."""
    print(f"seed {(seed := random.randrange(1 << 30))}")
    rng = random.Random(seed)
    redis, door, adapter = await _stage(harness, client, tls=tls)

    def words(stream: str, payload: bytes) -> tuple[Any, ...]:
        return ("PUBLISH", stream, payload)

    further = count(1 << 40)
    await _hear(harness, redis, adapter, words, further)
    engine = Engine(harness, redis, [_A], words)
    for _ in range(max(4, _RECONNECTS // 10)):
        begun = engine.sent
        published = Deferred.fromCoroutine(engine.run(begun + 400))
        await engine.after(begun + 200)
        kind = rng.choice(("server", "way", "both"))
        if kind != "server":
            door.cut()
        if kind != "way":
            await redis.kill()
            await redis.start()
        await published
        await _hear(harness, redis, adapter, words, further)
    seen = _numbers(adapter)
    spans = [(gap["from"], gap["to"]) for gap in _told(adapter, "gap") if gap["to"] is not None]
    missed = [moments for number, moments in engine.acknowledged[_A].items() if number not in set(seen)]
    for begun, ended in missed:
        assert any(since <= ended and begun <= until for since, until in spans), (begun, ended, spans)
    assert _missed(adapter, engine) == len(missed)
    assert await adapter.end() == 0
    assert adapter.noise == []


@tls_in_full
@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_what_a_daemon_has_forgotten_is_told(client: str, tls: bool, harness: Harness) -> None:
    await within(_SECONDS)(partial(_what_a_daemon_has_forgotten_is_told, client, tls))(harness)


async def _what_a_daemon_has_forgotten_is_told(client: str, tls: bool, harness: Harness) -> None:
    """Of a daemon that keeps ten publications: what has not come is where a gap stands between those that have."""
    print(f"seed {(seed := random.randrange(1 << 30))}")
    redis, door, adapter = await _stage(harness, client, "--history", "10", tls=tls)

    def words(stream: str, payload: bytes) -> tuple[Any, ...]:
        return ("PUBLISH", stream, payload)

    further = count(1 << 40)
    await _hear(harness, redis, adapter, words, further)
    engine = Engine(harness, redis, [_A], words)
    back = partial(_hear, harness, redis, adapter, words, further)
    await _cut(harness, door, adapter, engine, random.Random(seed), back)
    await back()
    assert len(_told(adapter, "reconnecting")) >= _RECONNECTS
    assert _missed(adapter, engine)
    assert {gap["reason"] for gap in _told(adapter, "gap")} == {"not-recovered"}
    assert await adapter.end() == 0
    assert adapter.noise == []


def _missed(adapter: Adapter, engine: Engine) -> int:
    """How many publications of the engine have not come. None came twice, and before each that comes behind missing
    ones a gap was told.
    """
    adapter.read()
    last, is_told, seen, gaps = -1, False, 0, 0
    for entry in adapter.log:
        if entry["event"] == "gap" and entry["to"] is not None:
            gaps, is_told = gaps + 1, True
        elif entry["event"] == "data":
            number = entry["data"]["t"]
            if number < engine.sent:
                assert number == last + 1 or (number > last and is_told), (last, number)
                last, seen, is_told = number, seen + 1, False
    assert last == engine.sent - 1 or is_told, (last, engine.sent)
    missed = len(engine.acknowledged[_A]) - seen
    print(f"{missed} missed of {engine.sent}, {gaps} gaps, {len(_told(adapter, 'reconnecting'))} reconnections")
    return missed
