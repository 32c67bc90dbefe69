"""Faults that lose publications: what is missing is announced, and nothing is claimed that is not there.

`FAULTS=publications,faults,clients` makes it longer; `make faults` does.
"""

from __future__ import annotations

import os
import random

import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.system.faults import Cast
from tests.system.forwarder import Forwarder
from tests.system.harness import DEADLINE, Harness, RedisServer
from tests.system.lean import within
from tests.system.losses import Losses, LossWatcher, Publisher, ReplicaLosses
from tests.system.test_faults import watch

_PUBLICATIONS, _FAULTS, _CLIENTS = map(int, os.environ.get("FAULTS", "6000,5,20").split(","))
_SECONDS = 4 * DEADLINE + 6 * _FAULTS + _PUBLICATIONS / 1000


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_a_server_that_comes_back_empty(harness: Harness) -> None:
    """Started without data, flushed or out of memory, while no daemon looks: what it had is not taken to be there."""
    await _lose(harness, "emptied")


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_streams_that_are_deleted_while_they_are_read(harness: Harness) -> None:
    """What nobody has read is gone, and what comes then is read on; it is told, but only then, as the page says."""
    await _lose(harness, "deleted")


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_streams_whose_ids_are_set_back(harness: Harness) -> None:
    """Deleted, and begun anew under lower ids: they are read on, and not waited for in vain."""
    await _lose(harness, "set back")


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_streams_that_are_trimmed_while_the_daemon_stands_still(harness: Harness) -> None:
    """The first read afterwards is a small one."""
    await _lose(harness, "trimmed")


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_books_through_channels(harness: Harness) -> None:
    """Nothing is kept anywhere: what a book may lack is a gap, and no book is given out that lacks something."""
    await _lose(harness, "kept nowhere", "pubsub", "--linger", "0")


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_a_replica_that_loses_its_master_under_channels(harness: Harness) -> None:
    """It answers whatever it is asked, but nothing comes through it."""
    await _lose_master(harness, "pubsub")


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_a_replica_that_loses_its_master_under_streams(harness: Harness) -> None:
    """The same; what it gets when it has its master again is read."""
    await _lose_master(harness, "streams")


async def _lose(harness: Harness, group: str, source: str = "streams", *options: str) -> None:
    print(f"seed {(seed := random.randrange(1 << 30))}")
    redis = await harness.redis()
    cast = Cast(harness, redis, "--source", source, "--connect-rate", "0", *options)
    publisher = Publisher(harness, redis, _streams(), random.Random(seed), source)
    publisher.is_late = group == "deleted"
    losses = Losses(cast, random.Random(seed), _watchers(cast, publisher, seed), publisher, _PUBLICATIONS // _FAULTS)
    await _go_through(losses, max(losses.draw_from(group), _FAULTS // 5), seed)


async def _lose_master(harness: Harness, source: str) -> None:
    print(f"seed {(seed := random.randrange(1 << 30))}")
    (harness.directory / "master").mkdir()
    master = RedisServer(harness, harness.directory / "master", "--repl-diskless-sync-delay", "0")
    await master.start()
    link = Forwarder(harness, master.path)
    replica = await harness.redis("--replicaof", f"127.0.0.1 {link.port}")
    cast = Cast(harness, replica, "--source", source, "--connect-rate", "0")
    publisher = Publisher(harness, master, _streams(), random.Random(seed), source, "WAIT", 1, 5000)
    watchers = _watchers(cast, publisher, seed)
    share = _PUBLICATIONS // _FAULTS
    losses = ReplicaLosses(cast, random.Random(seed), watchers, publisher, share, master, link)
    await losses.replicates()
    await _go_through(losses, max(losses.draw_from("replica"), _FAULTS // 5), seed)


def _streams() -> list[str]:
    return [f"{kind}@M{number}" for number in range(max(4, _CLIENTS // 20)) for kind in ("trade", "depth")]


def _watchers(cast: Cast, publisher: Publisher, seed: int) -> list[LossWatcher]:
    rng = random.Random(seed)
    return [LossWatcher(cast, rng, publisher, rng.sample(publisher.streams, 2)) for _ in range(_CLIENTS)]


async def _go_through(losses: Losses, count: int, seed: int) -> None:
    """One fault after the other, and after each the verdict."""
    cast, watchers = losses.cast, losses.watchers
    await cast.start()
    work = watch(cast.harness, watchers)
    await losses.get_over("at the beginning")
    for _ in range(count):
        kind = await losses.one()
        await losses.get_over(kind)
        _judge(watchers, f"{kind}, seed {seed}")
    for watcher in watchers:
        watcher.end()
    await gatherResults(work)
    for watcher in watchers:
        watcher.account.away()
    _judge(watchers, f"seed {seed}")
    recovered = [sum(watcher.account.recovered[answer] for watcher in watchers) for answer in (True, False)]
    print(dict(losses.counts), sum(watcher.visits for watcher in watchers), f"{recovered} recovered and not")


def _judge(watchers: list[LossWatcher], what: str) -> None:
    lines = [line for watcher in watchers for line in [*watcher.faults, *watcher.account.verdict()]]
    assert not lines, f"after {what}, {len(lines)}:\n" + "\n".join(lines[:20])
