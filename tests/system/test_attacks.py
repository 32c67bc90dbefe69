"""Attacks on the real daemon, from a process of their own, while it serves others: they lose nothing by it.

The attacks are those of `benchmarks.attackers`, which `python -m benchmarks.attacks` measures. Here nothing depends on
time: an attack is over when all of its connections have ended, or have nothing more to say, and then everything has to
be as it was before.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest_twisted
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol

from benchmarks.attackers import ATTACKS, HEADS
from tests.system.harness import DEADLINE, DaemonProcess, Harness, Process, RawConnection, Redis, trade
from tests.system.lean import LeanClient, LeanClients, all_of, within
from tests.system.secure import Secure, also_tls, tls_in_full

TEST_SECONDS = 3 * DEADLINE
ASKING = ("MarketList.", "RoleWatch.", "RedisPubSub.", "LinkKeeper.", "Deferred.callback")
"""Timers of the daemon's own, each of which is not there while what it has asked Redis for is on its way."""
HEALTHY = 50
STREAM = "trade@TATA_INR"
MORE_KIB = 64 * 1024
"""How much the daemon may grow while it is attacked."""
FILES = 4096
"""What the daemon may open in these tests: room for 496 connections without a request, and 3,472 clients."""
HANDSHAKES = 496
QUEUE = 200_000
"""`--client-queue`, in bytes."""
LIMITED = (
    f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES})); "
    "from tests.system.observed import main; main()"
)


def wide_trade(number: int) -> bytes:
    return trade(number=number, padding="x" * 2000)


class Healthy(LeanClient):
    """A client that gets each trade once and in order, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.count = -1

    def text_received(self, text: bytes) -> None:
        if b'"serverShutdown"' in text:
            return
        if self.count >= 0:
            assert text == wide_trade(self.count), f"trade {self.count} is missing, or another is in its place"
        self.count += 1  # the first is the reply


class Siege:
    """The daemon, those whom it serves, and whoever attacks it."""

    def __init__(
        self, harness: Harness, daemon: DaemonProcess, window: RawConnection, engine: Redis, tls: Secure | None
    ) -> None:
        self.harness = harness
        self.daemon = daemon
        self.engine = engine
        self._tls = tls
        self.clients = LeanClients[Healthy](harness, daemon, None if tls is None else tls.client)
        self.healthy: list[Healthy] = []
        self.published = 0
        self.before: dict[str, Any] = {}
        self._window = window
        self._most_kib = 0

    @classmethod
    async def begin(cls, harness: Harness, *options: str, tls: bool = False) -> Siege:
        redis = await harness.redis()
        path = str(harness.directory / "window.sock")
        options = ("--client-queue", str(QUEUE), "--linger", "0.2", "--ping-interval", "0", *options)
        secure = Secure(harness.directory) if tls else None
        if secure is not None:
            options = (*options, *secure.options)
        daemon = await harness.daemon(*options, redis=redis, program=("-c", LIMITED, path))
        window = RawConnection(harness.reactor)
        await connectProtocol(UNIXClientEndpoint(harness.reactor, path), window)
        harness.on_close(window.transport.loseConnection)
        siege = cls(harness, daemon, window, await redis.connect(), secure)
        await all_of(siege.welcome() for _ in range(HEALTHY))
        await siege.publish()
        siege.before = {**await siege.look(), "kib": daemon.resident_kib()}
        return siege

    async def welcome(self) -> None:
        """One more healthy client; it is served like the others from now on."""
        client = await self.clients.open(Healthy(), "/ws")
        client.send({"method": "SUBSCRIBE", "params": [STREAM], "id": 1})
        await self.harness.eventually(lambda: client.count >= 0)
        client.count = self.published
        self.healthy.append(client)

    async def publish(self, count: int = 10) -> None:
        """Trades, which reach everybody who is healthy."""
        numbers = range(self.published, self.published + count)
        self.published += count
        await self.engine.publish(STREAM, *map(wide_trade, numbers))
        await self.harness.eventually(self._is_up_to_date)
        self._most_kib = max(self._most_kib, self.daemon.resident_kib())

    def _is_up_to_date(self) -> bool:
        for client in self.healthy:
            assert not client.lost.called, "a healthy client has been ended"
        return all(client.count == self.published for client in self.healthy)

    async def look(self) -> dict[str, Any]:
        """How many clients, connections and files the daemon has."""
        self._window.data = b""
        self._window.send(b"look\n")
        seen = json.loads(await self._window.until(lambda data: data.endswith(b"\n")))
        return {name: seen[name] for name in ("clients", "connections", "timers")} | {"files": self.daemon.open_files()}

    async def attack(
        self, name: str, connections: int, *options: str, until: Callable[[Counter[str]], bool]
    ) -> Counter[str]:
        """The attack, with trades all the while and a newcomer at its height; how its connections have ended.

        It is over when all of them have or have nothing more to say, and `until` is content with the ends.
        """
        command = [sys.executable, "-m", "benchmarks.attackers", name, str(self.daemon.port), "--until-told"]
        command += ["--connections", str(connections), "--at-once", str(connections), "--pause", "0"]
        if self._tls is not None:
            command.append("--tls")
        attacker = self.harness.spawn([*command, *options])
        ends = Counter[str]()
        while not (attacker.lines.all and until(ends)):
            assert attacker.status is None, attacker.lines.all
            await self.publish()
            for line in attacker.lines.all[-1:]:
                report = json.loads(line)
                ends = Counter(report["ends"])
                assert report["connections"] == ends.total() + report["open"] == connections
        await self.welcome()
        await self.publish()
        await self._over(attacker)
        return ends

    async def _over(self, attacker: Process) -> None:
        """The attacker goes. Nothing is left of it, nothing was lost, and nothing has grown."""
        attacker.signal("TERM")
        assert await attacker.wait() == 0
        await self.publish()
        newcomers = len(self.healthy) - HEALTHY

        seen: dict[str, Any] = {}

        async def is_as_before() -> bool:
            """Of timers there may be fewer: some that are short went on when the first look was taken."""
            seen.update(await self.look())
            more = Counter(seen["timers"]) - Counter(self.before["timers"])
            return all(any(each in name for each in ASKING) for name in more) and all(
                seen[name] == self.before[name] + newcomers for name in ("clients", "connections", "files")
            )

        try:
            await self.harness.eventually(is_as_before)
        except AssertionError as fault:
            raise AssertionError(f"{seen}, with {newcomers} newcomers, and before {self.before}") from fault
        assert self._most_kib - self.before["kib"] <= MORE_KIB
        assert await self.daemon.stop() == 0
        levels = [line.split()[1] for line in self.daemon.lines if line[:4].isdigit() and len(line.split()) > 1]
        assert "info" in levels
        assert not {"error", "critical"} & set(levels)
        assert not any("Traceback" in line for line in self.daemon.lines)

    def closes(self, code: int) -> int:
        """How many clients the daemon has closed with this code."""
        return sum(f"closed by the server with {code} " in line for line in self.daemon.lines)


def quiet(ends: Counter[str]) -> bool:
    """Nobody is ended."""
    return not ends


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_slow_handshakes(harness: Harness, tls: bool) -> None:
    """A byte at a time, and never the last: with more than there is room for, those that began first are ended."""
    siege = await Siege.begin(harness, tls=tls)
    ends = await siege.attack("slow-handshakes", 800, until=lambda ends: ends.total() >= 800 - HANDSHAKES)
    assert ends.keys() <= {"cut", "408"}


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_half_open_connections(harness: Harness, tls: bool) -> None:
    """Thousands that say nothing, or send headers without end; a newcomer gets in at once."""
    siege = await Siege.begin(harness, tls=tls)
    ends = await siege.attack("half-open", 2000, until=lambda ends: ends.total() >= 2000 - HANDSHAKES)
    assert ends.keys() <= {"cut", "408"}


@tls_in_full
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_endless_fragments(harness: Harness, tls: bool) -> None:
    """Empty ones and ones of a byte, far more than anybody needs for a message: they are read slowly."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack("fragments", 20, "--pieces", "2", until=quiet)


@tls_in_full
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_floods_of_pings_and_pongs(harness: Harness, tls: bool) -> None:
    """They are read slowly, and all pings are answered."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack("pings", 20, "--pieces", "2", until=quiet)


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_pings_of_clients_that_do_not_read(harness: Harness, tls: bool) -> None:
    """What waits for each of them is bounded, pongs too."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack("deaf-pings", 20, "--pieces", "30", until=quiet)


@tls_in_full
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_storms_of_subscriptions(harness: Harness, tls: bool) -> None:
    """Thousands of streams that nobody else has: refused with 7, and then with 4029."""
    siege = await Siege.begin(harness, "--request-rate", "1", tls=tls)
    # On a machine that is busy one is admitted in between, and the count of those refused in a row begins anew: there
    # are enough for that.
    await siege.attack("storm", 5, "--pieces", "80", until=lambda ends: ends == {"4029": 5})


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_zip_bombs(harness: Harness, tls: bool) -> None:
    """Ten megabytes in ten kilobytes: no more is inflated than a message may have, and 1009 says so."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack("bombs", 50, until=lambda _: siege.closes(1009) == 50)


@tls_in_full
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_messages_that_inflate_to_the_largest(harness: Harness, tls: bool) -> None:
    """They are permitted, and their size counts: those who send many are read slowly."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack("full-messages", 20, "--pieces", "2", until=quiet)


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_huge_and_strange_requests(harness: Harness, tls: bool) -> None:
    """Headers without end, thousands of headers, fields, streams, extensions: 400 or 404, or it is fine."""
    siege = await Siege.begin(harness, tls=tls)
    # A reset overtakes the answer to who has not finished sending.
    ends = await siege.attack("heads", 2 * len(HEADS), until=lambda ends: ends["404"] == 2 and ends.total() >= 12)
    assert ends.keys() <= {"400", "404", "cut"}
    assert ends["400"] >= 6


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_huge_announced_lengths(harness: Harness, tls: bool) -> None:
    """1009 for 2^62 bytes; the largest message, a byte at a time, is waited for."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack("lengths", 20, "--pieces", "1100", until=lambda _: siege.closes(1009) == 10)


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_clients_of_a_hot_stream_that_never_read(harness: Harness, tls: bool) -> None:
    """Past `--client-queue` each is closed with 4008."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack("deaf", 50, until=lambda _: siege.closes(4008) == 50)


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_connections_that_come_and_go(harness: Harness, tls: bool) -> None:
    """A handshake, a SUBSCRIBE, a reset: nothing is left of any."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack(
        "churn", 1000, "--at-once", "100", "--per-second", "500", until=lambda ends: ends == {"hung up": 1000}
    )


@tls_in_full
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_giant_requests(harness: Harness, tls: bool) -> None:
    """Ids, methods, nesting, thousands of params: each is an error."""
    siege = await Siege.begin(harness, tls=tls)
    await siege.attack("requests", 20, "--pieces", "9", until=quiet)


def test_every_attack_is_tested() -> None:
    """None is only measured."""
    source = inspect.getsource(sys.modules[__name__])
    assert {attack.key for attack in ATTACKS} == set(re.findall(r'siege\.attack\(\s*"([a-z-]+)"', source))
