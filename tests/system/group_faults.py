"""Faults of a cluster, and of a master with its sentinels, while an engine publishes; after each the verdict.

1. A fault is over when Redis is whole again, by its own word. Who watches has everything from then on.
2. How long that took is measured from the moment at which Redis serves again, which is none of the daemon's business.
3. Which fault befalls whom is drawn from a seed, which a failure shows.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from marketfeed.redis.topology import SLOTS, key_slot
from tests.redis_servers.client import eventually
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.network import Network
from tests.redis_servers.process import ServerProcess
from tests.redis_servers.sentinel import SentinelTrio
from tests.system.cluster_stage import KINDS, in_thread, numbers_in, streams_of, words
from tests.system.harness import Harness
from tests.system.lean import LeanClients
from tests.system.numbered import AtServers, Engine, Follower, Publisher, now_ms

__all__ = ["ClusterFaults", "GroupFaults", "SentinelFaults"]

_SHARE = 4
_WAIT = 0.5
_MOMENT = 0.3
_DAEMONS = 2
_Kind = Callable[[], Awaitable[None]]


class GroupFaults(ABC):
    """Draws faults, and judges what came of what was published meanwhile.

    `counts`: how many faults of each kind there were; `recoveries`: s from when Redis served again until everybody had
    what was published then; `published`: all that was acknowledged. `affected`: the streams that a fault is about;
    `cut_at`: when the network was cut, in ms since 1970; `is_passed_on`: a replica was told to take over, of which see
    `Follower.unexplained`. `is_apart`: others hear of no gap.
    """

    is_apart = False

    def __init__(self, harness: Harness, kind: str, url: str, streams: Sequence[str], rng: random.Random) -> None:
        self.harness = harness
        self.kind = kind
        self.rng = rng
        self.streams = list(streams)
        self._url = url
        self._options = KINDS[kind] if url.startswith("redis-cluster") else KINDS[kind][:2]
        self._followers: list[Follower] = []
        self._engine: Engine
        self._number = 1
        self._judged = dict.fromkeys(streams, b"0-0")
        self._kinds = list(self.kinds())
        self._drawn: list[_Kind] = []
        self.affected: set[str] = set()
        self.cut_at = 0
        self.is_passed_on = False
        self.published = 0
        self.counts: dict[str, int] = defaultdict(int)
        self.recoveries: list[float] = []

    async def start(self) -> None:
        """Daemons, each with a client who watches everything."""
        for _ in range(_DAEMONS):
            daemon = await self.harness.daemon("--redis-url", self._url, *self._options)
            follower = await LeanClients[Follower](self.harness, daemon).open(Follower(self.streams), "/stream")
            self._followers.append(follower)
            follower.join()
            await self.harness.eventually(lambda f=follower: f.replies)
        await self._amid(self._nothing, 1)
        self.counts.clear()

    async def one(self, share: int) -> str:
        """One fault, amid at least so many publications. Each kind comes once before any comes again."""
        if not self._drawn:
            self._drawn = self.rng.sample(self._kinds, len(self._kinds))
        return await self._amid(self._drawn.pop(), share)

    @abstractmethod
    def kinds(self) -> Sequence[_Kind]:
        """All that may befall."""

    @abstractmethod
    def publisher(self) -> Publisher:
        """What brings publications to where they belong."""

    @abstractmethod
    def entries(self, stream: str, after: bytes) -> list[Any]:
        """Those that Redis holds behind an id."""

    @abstractmethod
    def wait_whole(self) -> None:
        """Until Redis is as it was."""

    async def _nothing(self) -> None:
        """So that everybody has begun."""
        await self._goes_on()

    async def _amid(self, fault: _Kind, share: int) -> str:
        name = fault.__name__.strip("_")
        self.counts[name] += 1
        self.affected.clear()
        self.cut_at = 0
        self.is_passed_on = False
        engine = self._engine = Engine(
            self.publisher(), self.streams, words(self.kind), first=self._number, share=_SHARE, pause=0.005
        )
        try:
            engine.start()
            await self._goes_on()
            await fault()
            await in_thread(self.wait_whole)
            await self.harness.eventually(lambda: engine.count >= share)
            await self._goes_on()
        except BaseException as error:
            error.add_note(f"after {name}, {[(each.newest(1 << 60), each.open) for each in self._followers]}")
            raise
        finally:
            await in_thread(engine.stop)
        await self._judge(engine, name)
        self._number = engine.number
        self.published += engine.count
        return name

    async def _goes_on(self) -> None:
        """Everybody gets what is published from now on."""
        number = self._engine.number

        def all_go_on() -> bool:
            return all(each.newest(1 << 60) > number and not each.open for each in self._followers)

        await self.harness.eventually(all_go_on)

    async def serves_again(self, wait: Callable[[], object]) -> None:
        """See how long it takes from then on until everybody gets what is published."""
        await in_thread(wait)
        begun = time.monotonic()
        await self._goes_on()
        self.recoveries.append(time.monotonic() - begun)

    async def _judge(self, engine: Engine, name: str) -> None:
        found: list[str] = []
        held = await in_thread(self._held) if self.kind == "streams" else {}

        def wrong() -> list[str]:
            if self.kind == "streams":
                return [line for each in self._followers for line in each.unlike(held)]
            return [line for each in self._followers for line in self._unexplained(each, engine)]

        def is_well() -> bool:
            found[:] = wrong()
            return not found

        try:
            await self.harness.eventually(is_well)
        except AssertionError:
            raise AssertionError(f"after {name}, {len(found)}:\n" + "\n".join(found[:10])) from None
        for follower in self._followers:
            assert not self.is_apart or follower.touched() <= self.affected, f"after {name}"
            follower.forget()

    def _unexplained(self, follower: Follower, engine: Engine) -> list[str]:
        return follower.unexplained(engine.sent, engine.number, self.cut_at, is_passed_on=self.is_passed_on)

    def _held(self) -> Mapping[str, Sequence[int]]:
        """The numbers of the entries that Redis holds, by stream, of those that are not judged yet."""
        found = {}
        for stream, judged in self._judged.items():
            entries = self.entries(stream, judged)
            found[stream] = numbers_in(entries)
            self._judged[stream] = entries[-1][0] if entries else judged
        return found

    async def moment(self) -> None:
        await self.harness.pause(self.rng.choice((0, _MOMENT)))


class ClusterFaults(GroupFaults):
    """Of a cluster. With `network` `node0` is on its far side."""

    def __init__(
        self, harness: Harness, kind: str, cluster: RedisCluster, rng: random.Random, network: Network | None
    ) -> None:
        self._cluster = cluster
        self._network = network
        streams = [stream for streams in streams_of(cluster).values() for stream in streams]
        super().__init__(harness, kind, cluster.url, streams, rng)
        self.is_apart = kind == "sharded"

    def kinds(self) -> Sequence[_Kind]:
        found: list[_Kind] = [
            self._master_killed,
            self._master_stands_still,
            self._master_stands_still_for_a_moment,
            self._master_restarted_at_once,
            self._replica_killed,
            self._master_and_replica_killed,
            self._replica_asked_to_take_over,
            self._replica_forced_to_take_over,
            self._watched_slots_moved,
            self._other_slots_moved,
            self._connections_killed,
        ]
        return found if self._network is None else [*found, self._partition]

    def publisher(self) -> Publisher:
        return self._cluster.client(_WAIT)

    def entries(self, stream: str, after: bytes) -> list[Any]:
        with self._cluster.client() as client:
            found: list[Any] = client.command("XRANGE", stream, b"(" + after, "+")
        return found

    def wait_whole(self) -> None:
        self._cluster.wait_whole()

    async def _any_master(self) -> ServerProcess:
        return self.rng.choice(await in_thread(lambda: self._cluster.masters))

    async def _master(self) -> ServerProcess:
        """One that a fault is about."""
        master = await self._any_master()
        self.affected |= await in_thread(self._streams_of, master)
        return master

    def _streams_of(self, node: ServerProcess) -> set[str]:
        return {stream for stream in self.streams if self._cluster.owner(stream) is node}

    async def _master_killed(self) -> None:
        master = await self._master()
        master.kill()
        await self.serves_again(self._cluster.wait_served)
        await in_thread(master.start)

    async def _master_stands_still(self) -> None:
        master = await self._master()
        master.stop()
        await self.serves_again(self._cluster.wait_served)
        master.cont()

    async def _master_stands_still_for_a_moment(self) -> None:
        master = await self._master()
        master.stop()
        await self.moment()
        master.cont()
        await self.serves_again(self._cluster.wait_served)

    async def _master_restarted_at_once(self) -> None:
        """It has nothing then, unless its replica was quicker."""
        await in_thread((await self._master()).restart)
        await self.serves_again(self._cluster.wait_served)

    async def _replica_killed(self) -> None:
        replica = await in_thread(self._cluster.replica_of, await self._any_master())
        replica.kill()
        await self.moment()
        await in_thread(replica.start)

    async def _master_and_replica_killed(self) -> None:
        master = await self._master()
        replica = await in_thread(self._cluster.replica_of, master)
        for node in (replica, master):
            node.kill()
        await self.moment()
        for node in (replica, master):
            await in_thread(node.start)
        await self.serves_again(self._cluster.wait_served)

    async def _replica_asked_to_take_over(self) -> None:
        await self._take_over("")

    async def _replica_forced_to_take_over(self) -> None:
        await self._take_over(self.rng.choice(("FORCE", "TAKEOVER")))

    async def _take_over(self, how: str) -> None:
        self.is_passed_on = True
        replica = await in_thread(self._cluster.replica_of, await self._master())
        await self.serves_again(lambda: self._cluster.failover(replica, how))

    async def _watched_slots_moved(self) -> None:
        for stream in self.rng.sample(self.streams, 2):
            self.affected.add(stream)
            await in_thread(self._cluster.move_slot, key_slot(stream.encode()), await self._any_master())
            await self.serves_again(self._cluster.wait_served)

    async def _other_slots_moved(self) -> None:
        watched = {key_slot(stream.encode()) for stream in self.streams}
        for slot in self.rng.sample([slot for slot in range(SLOTS) if slot not in watched], 10):
            await in_thread(self._cluster.move_slot, slot, await self._any_master())

    async def _connections_killed(self) -> None:
        master = await self._master()
        for sort in ("pubsub", "normal"):
            await in_thread(master.ask, "CLIENT", "KILL", "TYPE", sort, "SKIPME", "yes")
        await self.serves_again(self._cluster.wait_served)

    async def _partition(self) -> None:
        assert self._network is not None
        far, *near = self._cluster.nodes
        self.affected |= await in_thread(self._streams_of, far)
        await in_thread(self._network.cut)
        self.cut_at = now_ms()
        try:
            await self.serves_again(lambda: self._wait_without_far(near))
        finally:
            await in_thread(self._network.heal)

    def _wait_without_far(self, near: Sequence[ServerProcess]) -> None:
        eventually(
            lambda: self._cluster.is_served(*near) and self._cluster.nodes[0] not in self._cluster.masters,
            "the near side goes on",
        )


class SentinelFaults(GroupFaults):
    """Of a master and its sentinels."""

    def __init__(self, harness: Harness, kind: str, trio: SentinelTrio, rng: random.Random) -> None:
        self._trio = trio
        super().__init__(harness, kind, trio.url, [f"trade@M{number}_INR" for number in range(6)], rng)

    def kinds(self) -> Sequence[_Kind]:
        return [
            self._master_killed,
            self._master_stands_still,
            self._master_stands_still_for_a_moment,
            self._failover_asked_for,
            self._replica_killed,
            self._sentinels_killed,
            self._connections_killed,
        ]

    def publisher(self) -> Publisher:
        return AtServers(self._trio.master)

    def entries(self, stream: str, after: bytes) -> list[Any]:
        found: Any = self._trio.master().ask("XRANGE", stream, b"(" + after, "+")
        return list(found)

    def wait_whole(self) -> None:
        self._trio.wait_whole()

    async def _master_killed(self) -> None:
        master = await in_thread(self._trio.master)
        master.kill()
        await self.serves_again(lambda: self._trio.wait_switched(master))
        await in_thread(master.start)

    async def _master_stands_still(self) -> None:
        master = await in_thread(self._trio.master)
        master.stop()
        await self.serves_again(lambda: self._trio.wait_switched(master))
        master.cont()

    async def _master_stands_still_for_a_moment(self) -> None:
        master = await in_thread(self._trio.master)
        master.stop()
        await self.moment()
        master.cont()

    async def _failover_asked_for(self) -> None:
        await in_thread(self._trio.wait_whole)
        await self.serves_again(self._trio.failover)

    async def _replica_killed(self) -> None:
        replica = self.rng.choice(await in_thread(lambda: self._trio.replicas))
        replica.kill()
        await self.moment()
        await in_thread(replica.start)

    async def _sentinels_killed(self) -> None:
        for sentinel in self._trio.sentinels:
            sentinel.kill()
        await self._goes_on()
        for sentinel in self._trio.sentinels:
            await in_thread(sentinel.start)

    async def _connections_killed(self) -> None:
        master = await in_thread(self._trio.master)
        for sort in ("pubsub", "normal"):
            await in_thread(master.ask, "CLIENT", "KILL", "TYPE", sort, "SKIPME", "yes")
        await self._goes_on()
