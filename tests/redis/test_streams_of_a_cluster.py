"""Streams of a real cluster, whose slots move and whose masters are killed while entries are added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import pytest_twisted
from hiredis import ReplyError
from twisted.internet.threads import deferToThread

from marketfeed.boundaries import Subscriber
from marketfeed.model.entry_ids import EntryId, read_id
from marketfeed.redis.address import ClusterAddress
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.cluster import ClusterTopology
from marketfeed.redis.endpoint import redis_endpoint
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.routed_source import RoutedSource
from marketfeed.redis.streams import RedisStreams
from marketfeed.redis.tls import RedisTls
from marketfeed.redis.topology import Node, key_slot
from tests.redis_servers.client import eventually
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS, ServerProcess
from tests.system.harness import Harness

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS)

TAGGED = [f"trade@{{a}}{number}" for number in range(20)]
OTHERS = [f"trade@{number}" for number in range(40)]
PREFIX = "md:"


class Heard:
    """A sink that knows what it has been told of each stream."""

    def __init__(self) -> None:
        self.published: dict[str, list[int]] = defaultdict(list)
        self.at: dict[str, EntryId] = {}
        self.flowing: set[str] = set()
        self.lost_ones: set[str] = set()
        self.gaps: list[str] = []

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        assert stream in self.flowing
        assert read_id(offset or "") > self.at[stream], "twice, or not in order"
        self.at[stream] = read_id(offset or "")
        self.published[stream].append(int(payload))

    def confirmed(self, stream: str, after: str | None = None) -> None:
        at = read_id(after or "")
        if self.at.get(stream, at) != at:
            self.gaps.append(stream)
        self.at[stream] = at
        self.flowing.add(stream)

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        self.flowing -= set(streams)
        self.lost_ones |= set(streams)

    def missed(self, stream: str, seconds: float) -> None:
        self.gaps.append(stream)

    def refused(self, stream: str, why: str) -> None:
        raise AssertionError(why)

    def reached(self, link: str) -> None: ...
    def discovered(self, stream: str) -> None: ...
    def flush(self) -> None: ...
    def behind(self) -> list[Subscriber]:
        return []


class World:
    """A source of streams, and who adds to them, one after the other, until it is to stop."""

    def __init__(self, harness: Harness, cluster: RedisCluster) -> None:
        self.harness = harness
        self.cluster = cluster
        self.heard = Heard()
        self.written: dict[str, list[int]] = defaultdict(list)
        self._ends = Event()
        self._writing: Any = None
        nodes = tuple((node.host, node.port) for node in cluster.nodes)
        reactor = harness.reactor
        self.topology = ClusterTopology(
            reactor, ClusterAddress(nodes), lambda address: redis_endpoint(reactor, address, RedisTls())
        )
        self.commands = RoutedCommands(reactor, self.topology)
        self.archive = RedisArchive(self.commands, PREFIX)
        self.source = RoutedSource(self.topology, self._make, self.heard, PREFIX, archive=self.archive)
        for service in (self.topology, self.commands, self.source):
            service.startService()
            harness.on_close(service.stopService)

    def _make(self, node: Node) -> RedisStreams:
        return RedisStreams(
            self.harness.reactor,
            node.endpoint,
            node.address,
            self.heard,
            PREFIX,
            archive=self.archive,
            name=node.name,
            doubt=self.topology.doubt,
        )

    async def begin(self) -> None:
        await self.harness.eventually(lambda: self.topology.is_known and len(self.topology.nodes) == 3)
        for stream in (*TAGGED, *OTHERS):
            self.source.want(stream)
        await self.harness.eventually(lambda: len(self.heard.flowing) == len(TAGGED) + len(OTHERS))
        self._writing = deferToThread(self._write)
        self.harness.on_close(self._ends.set)
        await self.flows()

    def _write(self) -> None:
        number = 0
        with self.cluster.client() as client:
            while not self._ends.is_set():
                for stream in (*TAGGED, *OTHERS):
                    number += 1
                    try:
                        client.xadd(f"{PREFIX}{stream}", {"d": number})
                    except OSError:  # nobody knows whether it was added
                        continue
                    self.written[stream].append(number)

    async def flows(self) -> None:
        """All of them."""
        before = {stream: len(self.heard.published[stream]) for stream in (*TAGGED, *OTHERS)}
        await self.harness.eventually(
            lambda: all(len(self.heard.published[stream]) > count + 1 for stream, count in before.items())
        )

    async def end(self) -> dict[str, list[int]]:
        """Nobody adds any more; what is there of each stream."""
        self._ends.set()
        await self._writing
        return await deferToThread(self._entries)

    def _entries(self) -> dict[str, list[int]]:
        with self.cluster.client() as client:
            return {
                stream: [int(fields[1]) for _, fields in client.command("XRANGE", f"{PREFIX}{stream}", "-", "+")]
                for stream in (*TAGGED, *OTHERS)
            }

    def _has_moved(self, slot: int, to: ServerProcess) -> bool:
        try:
            self.cluster.move_slot(slot, to)
        except ReplyError as fault:  # Valkey's masters want their replicas to know of a move
            if not str(fault).startswith("NOREPLICAS"):
                raise
            return False
        return True

    async def move(self, slot: int) -> None:
        def go() -> None:
            before = self.cluster.owner_of_slot(slot)
            masters = self.cluster.masters
            to = masters[(masters.index(before) + 1) % len(masters)]
            eventually(lambda: self._has_moved(slot, to), f"slot {slot} moves")

        await deferToThread(go)


@pytest_twisted.ensureDeferred
async def test_slots_move_while_entries_are_added(harness: Harness, tmp_path: Path, flavour: str) -> None:
    """All comes once and in order; where nothing moves nobody hears of it."""
    with RedisCluster(tmp_path, flavour) as cluster:
        world = World(harness, cluster)
        await world.begin()
        moved = OTHERS[:5]
        for _ in range(3):
            for stream in (TAGGED[0], *moved):
                await world.move(key_slot(f"{PREFIX}{stream}".encode()))
            await world.flows()
        entries = await world.end()
        await harness.eventually(lambda: world.heard.published == entries)
        assert world.written == entries
        assert world.heard.gaps == []
        assert world.heard.lost_ones <= {*TAGGED, *moved}
        first = entries[TAGGED[0]]
        past = await world.archive.since(TAGGED[0], "0-0", "{}-{}".format(*world.heard.at[TAGGED[0]]), 1 << 30)
        assert past is not None
        assert [int(payload) for _, payload in past] == first
        await harness.close()


@pytest_twisted.ensureDeferred
async def test_a_master_is_killed_while_entries_are_added(harness: Harness, tmp_path: Path, flavour: str) -> None:
    """All that is left comes once and in order; the other masters' streams, which are served, are not concerned."""
    with RedisCluster(tmp_path, flavour) as cluster:
        for node in cluster.nodes:
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        world = World(harness, cluster)
        await world.begin()
        victim = await deferToThread(cluster.owner, f"{PREFIX}{TAGGED[0]}")
        its = {
            stream for stream in (*TAGGED, *OTHERS) if await deferToThread(cluster.owner, f"{PREFIX}{stream}") is victim
        }
        cluster.kill(victim)
        await harness.eventually(lambda: world.heard.lost_ones)
        await deferToThread(cluster.wait_served)
        await world.flows()
        entries = await world.end()
        for stream, numbers in entries.items():
            await harness.eventually(lambda stream=stream: set(entries[stream]) <= set(world.heard.published[stream]))
            left = set(numbers)
            assert [number for number in world.heard.published[stream] if number in left] == numbers
        assert world.heard.lost_ones == its
        assert set(world.heard.gaps) <= its
        await harness.close()
