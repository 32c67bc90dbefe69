"""The daemon on the streams of a real cluster: a slot that moves is no concern of any client's."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from hiredis import ReplyError
from twisted.internet.threads import deferToThread

from marketfeed.redis.topology import key_slot
from tests.redis_servers.client import eventually
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS
from tests.system.harness import Harness, trade

STREAMS = [f"trade@{letter}_INR" for letter in "ABCDEF"]


def move(cluster: RedisCluster, slot: int) -> None:
    """To the next master."""
    masters = cluster.masters
    to = masters[(masters.index(cluster.owner_of_slot(slot)) + 1) % len(masters)]

    def has_moved() -> bool:
        try:
            cluster.move_slot(slot, to)
        except ReplyError:  # its replicas do not know of it yet
            return False
        return True

    eventually(has_moved, f"slot {slot} moves")


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest_twisted.ensureDeferred
async def test_a_client_of_streams_that_move(harness: Harness, tmp_path: Path, flavour: str) -> None:
    """It hears of no gap, and has everything once and in order; so has one that resumes behind what it has."""
    with RedisCluster(tmp_path, flavour) as cluster, cluster.client() as engine:
        daemon = await harness.daemon("--redis-url", cluster.url, "--source", "streams")
        await daemon.expect(r"redis cluster: .* 0 have none")
        client = await (await harness.client(daemon, "/stream")).hear_events()
        await client.ask({"method": "SET_PROPERTY", "params": ["offsets", True], "id": 0})
        await client.ask({"method": "SUBSCRIBE", "params": STREAMS, "id": 1})
        held: dict[str, list[int]] = {stream: [] for stream in STREAMS}
        first: dict[str, str] = {}
        number = 0
        for round_ in range(3):
            for stream in STREAMS:
                number += 1
                await deferToThread(engine.xadd, stream, {"d": trade(number=number)})
            await deferToThread(move, cluster, key_slot(STREAMS[round_].encode()))
        while sum(map(len, held.values())) < number:
            message = await client.next()
            assert message["stream"] in held, message
            held[message["stream"]].append(message["data"]["t"])
            first.setdefault(message["stream"], message["offset"])
        assert list(held.values()) == [[at, at + 6, at + 12] for at in range(1, 7)]
        other = await harness.client(daemon, "/stream")
        await other.ask({"method": "SET_PROPERTY", "params": ["offsets", True], "id": 0})
        other.send({"method": "SUBSCRIBE", "params": STREAMS, "id": 1, "since": first})
        again = [await other.next() for _ in range(13)]
        (reply,) = [each for each in again if "id" in each]
        assert reply["recovered"] == dict.fromkeys(STREAMS, True)
        await harness.close()


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest_twisted.ensureDeferred
async def test_streams_that_share_a_hash_tag_are_read_as_those_of_one_server(
    harness: Harness, tmp_path: Path, flavour: str
) -> None:
    """By one read, which waits for entries, at whoever has their slot; nobody else is read."""
    with RedisCluster(tmp_path, flavour) as cluster, cluster.client() as engine:
        options = ("--source", "streams", "--channel-prefix", "{md}:")
        daemon = await harness.daemon("--redis-url", cluster.url, *options)
        await daemon.expect(r"redis cluster: .* 0 have none")
        client = await (await harness.client(daemon, "/stream")).hear_events()
        await client.ask({"method": "SUBSCRIBE", "params": STREAMS, "id": 1})
        numbers = range(1, 3 * len(STREAMS) + 1)
        for number in numbers:
            if number % len(STREAMS) == 0:
                await harness.eventually(lambda: deferToThread(waits, cluster))
                await deferToThread(move, cluster, key_slot(b"{md}"))
            await deferToThread(engine.xadd, "{md}:" + STREAMS[number % len(STREAMS)], {"d": trade(number=number)})
        got = [await client.next() for _ in numbers]
        assert sorted(each["data"]["t"] for each in got) == list(numbers)
        await harness.close()


def waits(cluster: RedisCluster) -> bool:
    """Whether a read waits at the owner of the tag's slot, and there is none anywhere else."""
    owner = cluster.owner_of_slot(key_slot(b"{md}"))
    reads = {}
    for node in cluster.nodes:
        clients = node.ask("CLIENT", "LIST")
        assert isinstance(clients, bytes)
        lines = clients.decode().splitlines()
        reads[node] = ["flags=b" in line for line in lines if "cmd=xread" in line]
    return reads.pop(owner) == [True] and not any(any(each) for each in reads.values())
