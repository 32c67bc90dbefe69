"""The daemon behind real sentinels: masters go in every way, and what clients hear is all of it, or a gap."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.certificates import Authority
from tests.redis_servers.network import Network
from tests.redis_servers.process import FLAVOURS, Security, ServerProcess
from tests.redis_servers.sentinel import SentinelTrio
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.failover import STREAM, Engine, Follower, held, in_thread
from tests.system.harness import DaemonProcess, Harness

SOURCES = pytest.mark.parametrize("source", ["pubsub", "streams"])
BOTH = pytest.mark.parametrize("flavour", FLAVOURS)


class Stage:
    """Sentinels and their servers, an engine, the daemon, and a client who has heard of the engine."""

    def __init__(self, harness: Harness, trio: SentinelTrio, source: str) -> None:
        self.harness = harness
        self.trio = trio
        self.source = source
        self.engine = Engine(source, trio.master)
        self.daemon: DaemonProcess
        self.follower: Follower

    async def start(self, *options: str, **where: Any) -> None:
        self.engine.start()
        self.harness.on_close(lambda: in_thread(self.engine.stop))
        self.daemon = await self.harness.daemon(
            *("--redis-url", self.trio.url, "--source", self.source, *options), **where
        )
        client = await self.harness.client(self.daemon)
        self.follower = Follower(client)
        client.send({"method": "SUBSCRIBE", "params": [STREAM], "id": 1})
        await self.goes_on()

    async def goes_on(self) -> None:
        """What is published from now on comes to the client, whose gaps have ended."""
        number = self.engine.number
        await self.harness.eventually(lambda: self.follower.newest > number and not self.follower.witness.open)

    async def ends_well(self, master: ServerProcess | None = None) -> None:
        """Nothing is missing without a word; of streams nothing that Redis has: what a master had acknowledged, and not
        passed on, is gone with it. `master`: as the sentinels say.
        """
        await in_thread(self.engine.stop)
        if self.source == "streams":
            kept = await in_thread(held, master or await in_thread(self.trio.master))
            first = min(self.follower.got)
            await self.harness.eventually(lambda: {each for each in kept if each > first} <= self.follower.got)
        assert self.follower.faults == []
        if self.source == "pubsub":
            await self.harness.eventually(lambda: not self.follower.unexplained(self.engine.sent))
        assert await self.daemon.stop() == 0
        assert not [line for line in self.daemon.lines if " critical " in line or "Traceback" in line]

    def losses(self) -> list[Any]:
        """What its client was told so far of servers that were out of reach: beginnings and ends."""
        return [gap for gap in self.follower.witness.gaps if gap["reason"] == "source-down"]

    def reigns(self, server: ServerProcess | None = None) -> list[str]:
        """What the log says of masters, or of one as a master. Sentinels that are busy may fail over once more: one
        that has not heard that another one did.
        """
        port = rf":{server.port}\b" if server is not None else ""
        return [line for line in self.daemon.lines if re.search(rf" redis: feed is at .*{port}", line)]

    def connected(self, server: ServerProcess) -> list[str]:
        """What the log says of links of the source to a server."""
        return [line for line in self.daemon.lines if re.search(rf" redis: .*connect.*:{server.port}\b", line)]


@pytest.fixture
def trio(tmp_path: Path, flavour: str) -> Iterator[SentinelTrio]:
    with SentinelTrio(tmp_path / "trio", flavour) as trio:
        yield trio


@pytest_twisted.async_yield_fixture
async def stage(harness: Harness, trio: SentinelTrio, source: str) -> AsyncIterator[Stage]:
    made = Stage(harness, trio, source)
    await made.start()
    yield made


async def switched(stage: Stage, before: ServerProcess) -> ServerProcess:
    return await in_thread(stage.trio.wait_switched, before)


@BOTH
@SOURCES
@pytest_twisted.ensureDeferred
async def test_a_master_is_killed(stage: Stage) -> None:
    """Its successor is connected to at the first attempt; the gap of its clients ends. It comes back as a replica."""
    first = stage.trio.servers[0]
    first.kill()
    second = await switched(stage, first)
    await stage.goes_on()
    await stage.harness.eventually(lambda: 1 <= len(stage.connected(second)) <= len(stage.reigns(second)))
    told = stage.losses()
    assert told
    await in_thread(first.restart)
    await in_thread(stage.trio.wait_whole)
    await stage.goes_on()
    # One that comes back as a replica is no loss; a master after the second is.
    await stage.harness.eventually(lambda: stage.losses() == told or len(stage.reigns()) > 2)
    await stage.ends_well()


@BOTH
@SOURCES
@pytest_twisted.ensureDeferred
async def test_a_failover_that_somebody_asks_for(stage: Stage) -> None:
    second = await in_thread(stage.trio.failover)
    await stage.goes_on()
    assert stage.connected(second)
    await stage.ends_well()


@BOTH
@SOURCES
@pytest_twisted.ensureDeferred
async def test_a_master_that_stood_still(stage: Stage) -> None:
    """Goes on as a master, for a moment; nobody listens to it any more."""
    first = stage.trio.servers[0]
    first.stop()
    await switched(stage, first)
    await stage.goes_on()
    first.cont()
    await in_thread(stage.trio.wait_whole)
    await stage.goes_on()
    await stage.ends_well()


@BOTH
@SOURCES
@pytest_twisted.ensureDeferred
async def test_all_sentinels_are_gone(stage: Stage) -> None:
    """Nothing happens: the master is still one."""
    for each in stage.trio.sentinels:
        each.kill()
    for each in stage.trio.sentinels:
        await stage.daemon.expect(rf"sentinel 127.0.0.1:{each.port}: no connection to .*: connection refused")
    await stage.goes_on()
    assert stage.follower.witness.gaps == []
    await stage.ends_well(stage.trio.servers[0])


@BOTH
@SOURCES
@pytest_twisted.ensureDeferred
async def test_a_partition_with_the_old_master_alive(
    harness: Harness, tmp_path: Path, flavour: str, network: Network, source: str
) -> None:
    """The daemon is on its side, with a sentinel that knows no better: what it misses lies in the gap that follows."""
    with SentinelTrio(tmp_path / "trio", flavour, network=network, far={"server0", "sentinel0"}) as trio:
        stage = Stage(harness, trio, source)
        await stage.start(prefix=network.far.prefix, host=network.far.hosts[-1])
        first = trio.servers[0]
        network.cut()
        await harness.eventually(lambda: in_thread(lambda: trio.master() is not first))
        await harness.eventually(lambda: stage.engine.is_at is not first)
        began = stage.engine.number
        await harness.eventually(lambda: stage.engine.has_gone_on(began, seconds=3))  # longer than any PING is away
        network.heal()
        await switched(stage, first)
        await stage.goes_on()
        assert stage.follower.witness.gaps
        await stage.ends_well()


@BOTH
@pytest.mark.parametrize("tls", [False, True])
@pytest_twisted.ensureDeferred
async def test_passwords_and_certificates(harness: Harness, tmp_path: Path, flavour: str, tls: bool) -> None:
    """Sentinels have others than servers; all may speak TLS, and ask for a certificate."""
    authority = Authority() if tls else None
    security = Security("feed", "p@ss", authority, wants_certificates=tls)
    with SentinelTrio(tmp_path / "trio", flavour, security=security, sentinel_password="o/ther") as trio:
        stage = Stage(harness, trio, "pubsub")
        files = tmp_path / "trio"
        url = trio.url.replace("redis-sentinel://", f"redis{'s' if tls else ''}-sentinel://feed:p%40ss@")
        options = ["--redis-url", f"{url}?sentinel-password=o%2Fther"]
        if tls:
            options += ["--redis-ca", str(files / "ca.pem"), "--redis-certificate", str(files / "server.pem")]
            options += ["--redis-key", str(files / "server.key")]
        await stage.start(*options)
        await in_thread(trio.failover)
        await stage.goes_on()
        assert not any("p@ss" in line or "o/ther" in line for line in stage.daemon.lines)
        await stage.ends_well()


async def asked(harness: Harness, daemon: DaemonProcess, path: str) -> Any:
    status, _, body = await (await AdminPort.of(daemon)).ask(harness, path)
    assert status == 200
    return json.loads(body)


@pytest.mark.parametrize("flavour", FLAVOURS[:1])
@pytest_twisted.ensureDeferred
async def test_a_name_that_no_sentinel_knows(harness: Harness, trio: SentinelTrio) -> None:
    """It is said once for each, and is the cause that operators are told."""
    url = trio.url.replace("/feed", "/other")
    daemon = await harness.daemon("--redis-url", url, *ADMIN)
    cause = "the sentinel does not tell of 'other': ERR No such master with that name"
    for each in trio.sentinels:
        await daemon.expect(rf"error +sentinel 127.0.0.1:{each.port}: no connection to .*: {cause}")
    found = await asked(harness, daemon, "/status.json")
    assert {link["link"]: link["cause"] for link in found["workers"][0]["links"]} == {
        f"sentinel 127.0.0.1:{each.port}": cause for each in trio.sentinels
    }
    (news,) = [each for each in found["news"] if each["name"] == "source-never-reached"]
    assert cause in news["text"]
    client = await harness.client(daemon)
    await client.subscribe(STREAM)
    gap = await client.next()
    assert gap["data"]["reason"] == "source-down"
    assert await daemon.stop() == 0


@BOTH
@pytest_twisted.ensureDeferred
async def test_the_rights_of_a_user(harness: Harness, trio: SentinelTrio) -> None:
    """At the sentinels, those that docs/operations/redis.md#sentinel names."""
    page = (Path(__file__).parent.parent.parent / "docs" / "operations" / "redis.md").read_text()
    found = re.search(r"`(resetchannels &\+switch-master [^`]+)`", page)
    assert found is not None
    for each in trio.sentinels:
        await in_thread(each.ask, "ACL", "SETUSER", "marketfeed", "on", ">pw", *found[1].split())
        await in_thread(each.ask, "ACL", "SETUSER", "default", "resetpass", "-@all")
    url = f"{trio.url}?sentinel-user=marketfeed&sentinel-password=pw"
    daemon = await harness.daemon("--redis-url", url)
    for each in trio.sentinels:
        await daemon.expect(rf"sentinel 127.0.0.1:{each.port}: connected")
    await daemon.expect("redis: connected")
    assert await daemon.stop() == 0
    assert not [line for line in daemon.lines if " error " in line]


@pytest.mark.parametrize("flavour", FLAVOURS[:1])
@pytest_twisted.ensureDeferred
async def test_links_and_their_names(harness: Harness, trio: SentinelTrio) -> None:
    """Those to sentinels have theirs, and those that were told of are there as well."""
    host, _, name = trio.url.rpartition("/")
    daemon = await harness.daemon("--redis-url", f"{host.partition(',')[0]}/{name}", *ADMIN)
    admin = await AdminPort.of(daemon)
    expected = {f"sentinel 127.0.0.1:{each.port}" for each in trio.sentinels} | {"redis", "redis commands"}

    async def all_up() -> bool:
        samples = await admin.samples(harness)
        up = {key.removeprefix("source_up "): value for key, value in samples.items() if key.startswith("source_up ")}
        return up == dict.fromkeys(expected, 1.0)

    await harness.eventually(all_up)
    assert await daemon.stop() == 0
