"""A real cluster, the daemon, an engine that publishes on all its masters, and a client who watches all of that."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.threads import deferToThread

from marketfeed.redis.topology import key_slot
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import ServerProcess
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import TWISTD, DaemonProcess, Harness
from tests.system.lean import LeanClients
from tests.system.numbered import OTHERS, Engine, Follower, Sent

__all__ = ["KINDS", "ClusterStage", "held_in", "in_thread", "numbers_in", "streams_of", "words"]

KINDS = {
    "sharded": ("--source", "pubsub", "--pubsub", "sharded"),
    "classic": ("--source", "pubsub", "--pubsub", "classic"),
    "streams": ("--source", "streams"),
}
"""How publications may come to the daemon, and the options that say so."""
_WAIT = 0.5

in_thread = deferToThread


def streams_of(cluster: RedisCluster, each: int = 2) -> dict[ServerProcess, list[str]]:
    """Some streams of every master, each in a slot of its own."""
    found: dict[ServerProcess, list[str]] = defaultdict(list)
    slots: set[int] = set()
    masters = cluster.masters
    for number in range(10_000):
        stream = f"trade@M{number}_INR"
        owner = cluster.owner(stream)
        if len(found[owner]) < each and key_slot(stream.encode()) not in slots:
            found[owner].append(stream)
            slots.add(key_slot(stream.encode()))
        if all(len(found[master]) == each for master in masters):
            break
    return {master: found[master] for master in masters}


def words(kind: str) -> Callable[[str, bytes], tuple[Any, ...]]:
    """The command that publishes."""
    if kind == "streams":
        return lambda stream, payload: ("XADD", stream, "*", "d", payload)
    name = {"sharded": "SPUBLISH", "classic": "PUBLISH"}[kind]
    return lambda stream, payload: (name, stream, payload)


class ClusterStage:
    """All of that. `of`: the streams, by the master that had them first. `is_passed_on`: see `Follower.unexplained`."""

    def __init__(self, harness: Harness, cluster: RedisCluster, kind: str) -> None:
        self.harness = harness
        self.cluster = cluster
        self.kind = kind
        self.is_passed_on = kind == "classic"
        self.of = streams_of(cluster)
        self.streams = [stream for streams in self.of.values() for stream in streams]
        self.engine = Engine(cluster.client(_WAIT), self.streams, words(kind))
        harness.on_close(lambda: in_thread(self.engine.stop))
        self.daemons: list[DaemonProcess] = []
        self.followers: list[Follower] = []
        self.admin: AdminPort

    async def start(self, *options: str) -> None:
        """All go on, and the client has heard of every stream."""
        self.engine.start()
        await self.begin(*options)
        await self.goes_on()

    async def begin(self, *options: str, program: tuple[str, ...] = TWISTD) -> Follower:
        """One more daemon, and a client of it who watches all streams."""
        url = () if "--redis-url" in options else ("--redis-url", self.cluster.url)
        daemon = await self.harness.daemon(*url, *KINDS[self.kind], *ADMIN, *options, program=program)
        self.daemons.append(daemon)
        self.admin = await AdminPort.of(daemon)
        follower = await LeanClients[Follower](self.harness, daemon).open(Follower(self.streams), "/stream")
        self.followers.append(follower)
        follower.join()
        await self.harness.eventually(lambda: follower.replies)
        return follower

    @property
    def daemon(self) -> DaemonProcess:
        """The last one."""
        return self.daemons[-1]

    @property
    def follower(self) -> Follower:
        """The last one."""
        return self.followers[-1]

    async def goes_on(self) -> None:
        """What is published from now on comes to the clients, whose gaps have ended."""
        number = self.engine.number

        def all_go_on() -> bool:
            return all(each.newest(OTHERS) > number and not each.open for each in self.followers)

        await self.harness.eventually(all_go_on)

    async def explained(self, sent: Sent, last: int, late_until: float) -> None:
        """The client has, or knows that it has not, what somebody else has sent. See `Follower.unexplained`."""
        found: list[str] = []

        def is_well() -> bool:
            found[:] = self._unexplained(self.follower, sent, last, late_until)
            return not found

        try:
            await self.harness.eventually(is_well)
        except AssertionError:
            raise AssertionError(f"{len(found)}:\n" + "\n".join(found[:10])) from None

    async def served(self) -> None:
        """Until the cluster serves all its slots."""
        await in_thread(self.cluster.wait_served)

    async def status(self) -> Any:
        """What operators are shown."""
        status, _, body = await self.admin.ask(self.harness, "/status.json")
        assert status == 200
        return json.loads(body)["workers"][0]

    async def outages(self) -> set[str]:
        """The names of the links that have been lost so far."""
        return {outage["link"] for outage in (await self.status())["outages"]}

    async def ends_well(self, late_until: float = 0) -> None:
        """Nothing is missing without a word, and of Redis Streams nothing that Redis holds.

        Of the last publications, which may be on their way, nothing is said. `late_until`: see `Follower.unexplained`.
        """
        last = self.engine.number
        await self.goes_on()
        await in_thread(self.engine.stop)
        if self.kind == "streams":
            wrong = await self._unlike()
        else:
            wrong = [
                line for each in self.followers for line in self._unexplained(each, self.engine.sent, last, late_until)
            ]
        assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:10])
        for daemon in self.daemons:
            assert await daemon.stop() == 0
            assert not [line for line in daemon.lines if " critical " in line or "Traceback" in line]

    def _unexplained(self, follower: Follower, sent: Sent, last: int, late_until: float) -> list[str]:
        return follower.unexplained(sent, last, late_until, is_passed_on=self.is_passed_on)

    async def _unlike(self) -> list[str]:
        held = await in_thread(held_in, self.cluster, self.streams)
        found = []
        for follower in self.followers:
            expected = {}
            for stream, numbers in held.items():
                first = next(number for number in follower.got[stream] if number in numbers)
                expected[stream] = numbers[numbers.index(first) :]
            await self.harness.eventually(lambda f=follower, e=expected: f.has_all(e))
            found += follower.unlike(expected)
        return found


def held_in(cluster: RedisCluster, streams: Iterable[str]) -> dict[str, list[int]]:
    """The numbers that the entries have that Redis holds."""
    with cluster.client() as client:
        return {stream: numbers_in(client.command("XRANGE", stream, "-", "+")) for stream in streams}


def numbers_in(entries: Any) -> list[int]:
    """Of the publications that these entries hold."""
    return [json.loads(fields[1])["t"] for _, fields in entries]
