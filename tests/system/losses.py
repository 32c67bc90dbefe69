"""Faults in which publications are lost for good, or late, and clients who have to be told so.

1. A fault leaves its streams in the state that it is about before anybody may look: the ways to the server are shut
   until then, or the daemon is stopped. So nothing depends on who is quicker.
2. After each fault everybody gets over it: all is confirmed, and what is published then reaches every client.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from tests.system.account import Account, EngineBooks
from tests.system.faults import Cast, Connection, Engine, Faults, Watcher, now_ms, trade
from tests.system.forwarder import Forwarder
from tests.system.harness import Harness, RedisServer
from tests.system.lean import client_frame

__all__ = ["LossWatcher", "Losses", "Publisher", "ReplicaLosses"]

_STALL_SECONDS = 1.5
_KEPT = 50  # of each stream, where it is trimmed
_TIMES = 3  # as many as that are added meanwhile


_PROPERTIES = ("offsets", "snapshot", "events")


class Publisher:
    """An engine of trades and books. `words`: how it publishes, which a fault may change for a while.

    `is_late`: what is lost of its books may be told late.
    """

    is_late = False

    def __init__(
        self, harness: Harness, redis: RedisServer, streams: list[str], rng: random.Random, source: str, *fence: Any
    ) -> None:
        self._books = EngineBooks(rng)
        self._source = source
        self.words = self.usual = self._add if source == "streams" else _publish
        self.streams = streams
        self.engine = Engine(harness, redis, streams, self._spelled, self._make, fence)
        harness.on_close(self.engine.stop)

    @property
    def digests(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        return self._books.digests

    def account(self, streams: list[str]) -> Account:
        """Of one who watches these."""
        for stream in streams:
            self._books.digests.setdefault(stream, {})
        is_timed = self._source == "pubsub"
        return Account(self.engine, self.digests, streams, len(self.streams), is_timed=is_timed, is_late=self.is_late)

    def _spelled(self, stream: str, payload: bytes) -> tuple[Any, ...]:
        return self.words(stream, payload)

    def _make(self, stream: str, number: int, moment: int) -> bytes:
        if stream.startswith("depth@"):
            return self._books.next(stream, number, self.engine.failures)
        return trade(stream, number, moment)

    def _add(self, stream: str, payload: bytes) -> tuple[Any, ...]:
        return ("XADD", stream, "*", "d", payload)

    def trimming(self, stream: str, payload: bytes) -> tuple[Any, ...]:
        return ("XADD", stream, "MAXLEN", "=", _KEPT, "*", "d", payload)

    def low(self, stream: str, payload: bytes) -> tuple[Any, ...]:
        """Under ids far below those that a server gives itself."""
        fields = msgspec.json.decode(payload)
        return ("XADD", stream, f"{fields.get('n', fields.get('t')) + 1}-0", "d", payload)


def _publish(stream: str, payload: bytes) -> tuple[Any, ...]:
    return ("PUBLISH", stream, payload)


class LossWatcher(Watcher):
    """A client that believes what it is told, and keeps account of it.

    `asks_again`: after a gap it asks whether anything was missed, as docs/protocol.md#a-client-that-loses-nothing does.
    """

    def __init__(self, cast: Cast, rng: random.Random, publisher: Publisher, streams: list[str]) -> None:
        super().__init__(cast, rng, dict.fromkeys(streams, b""))
        self.account = publisher.account(streams)
        self.asks_again = rng.random() < 0.5
        self._asked: dict[int, list[str]] = {}
        self._requests_sent = 10

    @property
    def is_there(self) -> bool:
        """It is connected, and has joined all its streams."""
        return self._connection is not None and bool(self._connection.connected) and self._asked == {0: []}

    @property
    def is_whole(self) -> bool:
        return self.is_there and self.account.is_whole

    @property
    def has_been_told(self) -> bool:
        """That nothing comes any more."""
        return self.is_there and self.account.is_in_gap

    def has_come_to(self, number: int, step: int) -> bool:
        """What was published up to there has come, or has been passed over."""
        return all(self.account.last(stream) > number - step for stream in self.last)

    def _requests(self) -> bytes:
        self.account.away()
        self._asked = {}
        properties = [{"method": "SET_PROPERTY", "params": [name, True], "id": 1} for name in _PROPERTIES]
        return _frames(*properties, self._subscribe(list(self.last)))

    def _subscribe(self, streams: list[str]) -> dict[str, Any]:
        since = {stream: offset for stream in streams if (offset := self.account.offset(stream)) is not None}
        self._requests_sent += 1
        self._asked[self._requests_sent] = streams
        return {"method": "SUBSCRIBE", "params": streams, "since": since, "id": self._requests_sent}

    def heard(self, connection: Connection, text: bytes) -> None:
        if connection is not self._connection:
            return
        try:
            self._take(connection, msgspec.json.decode(text))
        except Exception as fault:  # or it would end this connection, and nothing else
            self.account.lies.append(f"{fault!r} at {text!r}")

    def _take(self, connection: Connection, message: Any) -> None:
        account, now = self.account, now_ms()
        if "error" in message:
            account.lies.append(f"not a good reply: {message}")
        elif "id" in message:
            if message["id"] in self._asked:
                recovered = message.get("recovered", {})
                for stream in self._asked.pop(message["id"]):
                    account.replied(stream, recovered.get(stream), now)
                self._asked.setdefault(0, [])
        elif message["stream"] == "!gap":
            gap = message["data"]
            streams = [stream for stream in gap["streams"] if not self._is_asking(stream)]
            account.gap(streams, gap["reason"], gap["from"], gap["to"])
            if streams and self.asks_again and gap["to"] is not None and gap["reason"] != "sequence":
                self._ask(connection, streams)
        elif not self._is_asking(message["stream"]):
            data = message["data"]
            account.publication(message["stream"], data.get("n", data.get("t")), data, message.get("offset"), now)

    def come_again(self) -> None:
        """Leave all streams, and join them in the same breath."""
        if self.is_there and self._connection is not None:
            self._ask(self._connection, list(self.last))

    def _ask(self, connection: Connection, streams: list[str]) -> None:
        """Ask whether anything was missed in these."""
        leave = {"method": "UNSUBSCRIBE", "params": streams, "id": 2}
        connection.transport.write(_frames(leave, self._subscribe(streams)))  # type: ignore[union-attr]

    def _is_asking(self, stream: str) -> bool:
        return any(stream in streams for streams in self._asked.values())


def _frames(*requests: Any) -> bytes:
    return b"".join([client_frame(msgspec.json.encode(request)) for request in requests])


class Losses(Faults):
    """Faults through Redis streams, which lose what the server has acknowledged. `share`: publications to a fault."""

    def __init__(
        self, cast: Cast, rng: random.Random, watchers: list[LossWatcher], publisher: Publisher, share: int
    ) -> None:
        super().__init__(cast, rng, watchers, "pubsub")
        self.cast = cast
        self.watchers = watchers
        self._publisher = publisher
        self._engine = publisher.engine
        self._share = share
        self._kinds = []
        self._is_ordinary = False

    def draw_from(self, group: str) -> int:
        """Only faults of this group; of how many kinds they are."""
        self._kinds = list(self._groups()[group])
        self._is_ordinary = group == "kept nowhere"
        return len(self._kinds)

    def _groups(self) -> dict[str, tuple[Callable[[], Awaitable[None]], ...]]:
        return {
            "emptied": (self._server_emptied, self._emptied_out_of_sight),
            "deleted": (self._deleted_in_sight,),
            "set back": (self._ids_set_back,),
            "kept nowhere": (
                self._server_killed,
                self._way_cut,
                self._way_stalled_and_cut,
                self._connections_killed,
                self._buffer_overflown,
                self._clients_come_again,
            ),
            "trimmed": (self._trimmed_while_daemon_stopped, self._trimmed_while_way_stalled),
        }

    async def one(self) -> str:
        if not self._is_ordinary:
            return await super().one()
        published = await self._amid()
        name = await super().one()
        await published
        return name

    # What every fault is made of.

    async def get_over(self, what: str) -> None:
        """Wait until everybody has all that is published from now on, and owes nobody a word."""
        await self.eventually(what, lambda watcher: watcher.is_whole)
        number, step = self._engine.sent + 2 * len(self._publisher.streams), len(self._publisher.streams)
        await self.eventually(what, lambda watcher: watcher.is_whole and watcher.has_come_to(number, step), step)

    async def eventually(self, what: str, holds: Callable[[LossWatcher], bool], count: int = 0) -> None:
        """It holds for everybody in the end, while so many are published again and again."""

        async def do_hold() -> bool:
            if count:
                await self._publish(count)
            return all(map(holds, self.watchers))

        try:
            await self._cast.harness.eventually(do_hold)
        except AssertionError:
            late = [watcher for watcher in self.watchers if not holds(watcher)]
            lines = [line for watcher in self.watchers for line in watcher.account.verdict()]
            shown = "\n".join(lines[:10])
            raise AssertionError(
                f"{what}: {len(late)} of {len(self.watchers)} clients wait for ever\n{shown}"
            ) from None

    async def _publish(self, count: int) -> None:
        await self._engine.run(self._engine.sent + count)

    async def _amid(self) -> Deferred[None]:
        """Publications that go on, half of which are acknowledged when this returns."""
        begun = self._engine.sent
        published = Deferred.fromCoroutine(self._publish(self._share))
        await self._engine.after(begun + self._share // 2)
        return published

    def _shut(self) -> None:
        for way in self._cast.ways:
            way.shut()

    async def _open(self) -> None:
        """Lead the daemons to the server again, some of whose clients have to begin anew."""
        await self._clients_cut()
        for way in self._cast.ways:
            way.open()

    # The faults.

    async def _server_emptied(self) -> None:
        """Killed, and started with no data; the engine is back before any daemon."""
        published = await self._amid()
        self._shut()
        await self._server_killed()
        await published
        await self._publish(self._share // 4)
        await self._open()

    async def _emptied_out_of_sight(self) -> None:
        published = await self._amid()
        self._shut()
        await published
        await self._rng.choice((self._flush, self._delete, self._evict))()
        await self._publish(self._share // 4)
        await self._open()

    async def _deleted_in_sight(self) -> None:
        """What was not read is gone, and the next ids are higher than any."""
        published = await self._amid()
        await self._rng.choice((self._flush, self._delete))()
        await published

    async def _ids_set_back(self) -> None:
        """Deleted, and begun anew with lower ids, while the daemons read."""
        published = await self._amid()
        await published
        await self._rng.choice((self._flush, self._delete))()
        self._publisher.words = self._publisher.low
        number, step = self._engine.sent - 1, len(self._publisher.streams)

        try:
            await self.eventually("ids were set back", lambda watcher: watcher.has_come_to(number + step, step), step)
        finally:
            self._publisher.words = self._publisher.usual

    async def _clients_come_again(self) -> None:
        """Some of them are the only ones who hold a stream."""
        for _ in range(5):
            for watcher in self.watchers:
                watcher.come_again()
            await self.eventually("they came again", lambda watcher: watcher.is_there)

    async def _trimmed_while_daemon_stopped(self) -> None:
        await self._publish(self._share)
        daemons = [daemon.process.pid for daemon in self._cast.daemons]
        for pid in daemons:
            os.kill(pid, signal.SIGSTOP)
        await self._trim()
        for pid in daemons:
            os.kill(pid, signal.SIGCONT)

    async def _trimmed_while_way_stalled(self) -> None:
        await self._publish(self._share)
        for way in self._cast.ways:
            way.stall()
        await self._trim()
        for way in self._cast.ways:
            way.go_on()

    async def _trim(self) -> None:
        """Add more than is kept. Whoever reads next has one entry already, which it waited for."""
        streams = len(self._publisher.streams)
        await self._publish(streams)
        await self._cast.harness.pause(_STALL_SECONDS)
        self._publisher.words = self._publisher.trimming
        await self._publish(_TIMES * _KEPT * streams)
        self._publisher.words = self._publisher.usual

    async def _flush(self) -> None:
        await (await self._cast.redis.connect()).command("FLUSHALL")

    async def _delete(self) -> None:
        await (await self._cast.redis.connect()).command("DEL", *self._publisher.streams)

    async def _evict(self) -> None:
        redis = await self._cast.redis.connect()
        await redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-random", "maxmemory", "1")

        async def is_empty() -> bool:
            return not await redis.command("DBSIZE")

        await self._cast.harness.eventually(is_empty)
        await redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0")


class ReplicaLosses(Losses):
    """Faults of a replica, from which the daemons read, and of its `master`, to which it comes through `link`."""

    def __init__(
        self,
        cast: Cast,
        rng: random.Random,
        watchers: list[LossWatcher],
        publisher: Publisher,
        share: int,
        master: RedisServer,
        link: Forwarder,
    ) -> None:
        super().__init__(cast, rng, watchers, publisher, share)
        self._master = master
        self._link = link
        self._fence = publisher.engine.fence

    def _groups(self) -> dict[str, tuple[Callable[[], Awaitable[None]], ...]]:
        return {"replica": (self._replication_cut, self._master_killed)}

    async def _replication_cut(self) -> None:
        """The replica answers, and nothing comes through it, until its master is within reach again."""
        published = await self._amid()
        self._link.shut()
        self._engine.fence = ()  # it would wait for the replica
        await published
        await self.eventually("the replica has no master", lambda watcher: watcher.has_been_told)
        await self._publish(self._share // 4)
        await self._clients_cut()
        self._link.open()
        await self._healed()

    async def _master_killed(self) -> None:
        """Its master comes back, with no data."""
        published = await self._amid()
        await self._master.kill()
        self._engine.fence = ()
        await self.eventually("the replica has no master", lambda watcher: watcher.has_been_told)
        await self._clients_cut()
        await self._master.start()
        await published
        await self._healed()

    async def _healed(self) -> None:
        await self.replicates()
        self._engine.fence = self._fence
        await self.eventually("the replica has its master again", lambda watcher: watcher.is_whole)

    async def replicates(self) -> None:
        """The replica has all that the master has."""
        redis = await self._cast.redis.connect()

        async def is_connected() -> bool:
            return bool((await redis.command("ROLE"))[3] == b"connected")

        await self._cast.harness.eventually(is_connected)
