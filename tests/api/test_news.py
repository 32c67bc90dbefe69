"""What an operator is told first, and in which words."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from marketfeed.api.clients import ClientFacts
from marketfeed.api.news import News, Watch, summary
from marketfeed.websocket.closing import Ending, Parting
from tests.api.world import World
from tests.rooms import EPOCH, member, trade

QUEUE = 1 << 20


class Watched(World):
    """All that counts, and somebody who looks at it. The clock begins at 22:13:20 UTC."""

    def __init__(self) -> None:
        super().__init__()
        self.resident = 1 << 26
        self.samples.startService()
        self.watch = Watch(self.parts, self.samples)
        self.slowest: list[ClientFacts] = []

    def reach(self) -> None:
        self.links[0].link, self.links[0].cause = object(), ""
        self.room.source.sink.reached("redis")

    def lose(self) -> None:
        self.links[0].link, self.links[0].cause = None, "connection refused"
        self.room.source.lose(self.room.now_ms)

    def told(self) -> list[tuple[str, str, str]]:
        self.room.clock.advance(1)
        return [(each.level, each.name, each.text) for each in self.watch.news(self.slowest)]


@pytest.fixture
def world() -> Iterator[Watched]:
    yield (world := Watched())
    world.stop()


def test_nothing_is_wrong(world: Watched) -> None:
    world.reach()
    assert world.told() == []
    assert summary([], 12431) == "Healthy. 12,431 clients."
    assert summary([], 1) == "Healthy. 1 client."


def test_redis_is_away_and_back(world: Watched) -> None:
    assert world.told() == [
        ("bad", "source-never-reached", "Redis at unix:///run/redis.sock has not been reached yet.")
    ]
    world.links[0].cause = "connection refused"
    world.room.source.lose()
    text = "Redis at unix:///run/redis.sock has not been reached yet: connection refused."
    assert world.told() == [("bad", "source-never-reached", text)]
    world.reach()
    clients = [member(world.room, "trade@A"), member(world.room, "trade@A")]
    assert world.told() == []
    world.lose()
    lasts = ("bad", "source-down", "Redis is away since 22:13:23 UTC: connection refused; 2 clients were told.")
    assert world.told() == [lasts]
    world.reach()
    assert world.told() == [
        ("note", "source-was-down", "Redis was away 22:13:23 UTC to 22:13:24 UTC; 2 clients were told.")
    ]
    news = [News(*each) for each in world.told()]
    assert summary(news, 2).startswith("Healthy. 2 clients. Redis was away")
    world.room.clock.advance(86_400)
    assert "source-was-down" not in [name for _, name, _ in world.told()]
    assert len(clients) == 2


def test_the_engine_writes_what_it_should_not(world: Watched) -> None:
    world.reach()
    member(world.room, "trade@A")
    world.told()
    for _ in range(3):
        world.room.source.publish("trade@A", b"{")
    ((level, name, text),) = world.told()
    assert (level, name) == ("warn", "bad-publications")
    assert text.startswith("The engine writes what is not right: 3 publications in the last minute, dropped; ")
    assert "last on trade@A: not-json: " in text
    world.room.clock.advance(61)
    assert world.told() == []


def test_nothing_comes_any_more(world: Watched) -> None:
    world.reach()
    member(world.room, "trade@A")
    world.room.source.publish("trade@A", trade())
    assert world.told() == []
    world.room.clock.advance(60)
    assert world.told() == [("note", "quiet", "Nothing has been published since 22:13:20 UTC.")]


def test_the_engine_is_silent(world: Watched) -> None:
    """That it is quiet is not said besides."""
    world.reach()
    member(world.room, "trade@A")
    world.room.source.publish("trade@A", trade())
    world.room.kinds.add(msgspec.structs.replace(world.room.kinds.parse("trade@A").kind, silence=10.0))
    for _ in range(70):
        world.room.clock.advance(1)
    text = "The engine is silent: nothing of trade has come since 22:13:20 UTC ([streams.trade] silence)."
    assert world.told() == [("bad", "engine-silent", text)]


def test_a_reload_has_failed(world: Watched) -> None:
    world.reach()
    world.succeeded, world.last = False, EPOCH + 3.0
    text = "The reload at 22:13:23 UTC found a fault, which is in the log: nothing was changed."
    assert world.told() == [("warn", "reload", text)]


def test_clients_are_slow(world: Watched) -> None:
    world.reach()
    fields = {"age": 1.0, "conflated": 0, "rtt": None, "streams": 1, "limit": QUEUE}
    world.slowest = [
        ClientFacts(client="run-7", peer="10.0.0.7:5", user="alice", waiting=QUEUE // 2, **fields),  # type: ignore[arg-type]
        ClientFacts(client="run-8", peer="10.0.0.8:5", user="", waiting=QUEUE // 2 - 1, **fields),  # type: ignore[arg-type]
    ]
    one = "One client is slow: 512 KiB of 1.0 MiB (--client-queue) wait for run-7 at 10.0.0.7:5, user alice."
    assert world.told() == [("warn", "slow-clients", one)]
    world.slowest = world.slowest[:1] * 2
    assert world.told()[0][2].startswith("2 clients are slow: ")
    world.slowest = []
    for number in range(2):
        world.users.has_left(f"run-{number}", "10.0.0.9:1", 1, Ending("", 4008, "server"), Parting("", 1, 9))
    world.users.has_left("run-9", "10.0.0.9:1", 1, Ending("", 1000, "client"), Parting("bob", 1, 9))
    text = "2 clients were too slow and closed in the last minute, with 4008, the last run-1 at 10.0.0.9:1."
    assert world.told() == [("warn", "slow-clients", text)]
    world.room.clock.advance(60)
    assert world.told() == []


def test_memory_is_short(world: Watched) -> None:
    world.reach()
    world.memory.limit = 100 << 20
    world.resident = 79 << 20
    assert world.told() == []
    world.resident = 81 << 20
    text = "81.0 MiB of 100 MiB of memory is in use (--memory-limit)."
    assert world.told() == [("warn", "near-limit-memory", text)]
    world.memory.is_full = True
    world.resident = 101 << 20
    text = "Memory is short (101 MiB of 100 MiB, --memory-limit): nobody is let in."
    assert world.told() == [("bad", "memory", text)]


def test_a_limit_is_near_and_reached(world: Watched) -> None:
    world.reach()
    connections = [object() for _ in range(20)]
    for connection in connections[:16]:
        world.users.add(connection)  # type: ignore[arg-type]
    assert world.told() == [("warn", "near-limit-clients", "16 of 20 clients are connected (--max-connections).")]
    for connection in connections[16:]:
        world.users.add(connection)  # type: ignore[arg-type]
    text = "20 of 20 clients are connected (--max-connections): nobody else is let in."
    assert world.told() == [("bad", "near-limit-clients", text)]


@pytest.mark.parametrize(
    ("days", "level", "text"),
    [
        (15, "", ""),
        (13.5, "warn", "The certificate that clients are shown expires in 13 days."),
        (-1, "bad", "The certificate that clients are shown has expired."),
    ],
)
def test_a_certificate_ends(world: Watched, days: float, level: str, text: str) -> None:
    world.reach()
    world.expiry = EPOCH + days * 86_400
    assert world.told() == ([(level, "certificate", text)] if level else [])


def test_the_daemon_is_late(world: Watched) -> None:
    world.reach()
    world.parts.loop.delays.observe(0.4)
    ((level, name, text),) = world.told()
    assert (level, name, "0.5 s late" in text) == ("warn", "loop-delay", True)


def test_the_worst_comes_first(world: Watched) -> None:
    """And all of it is in the summary, with the number of clients before what is over."""
    world.reach()
    member(world.room, "trade@A")
    world.told()
    world.room.source.publish("trade@A", b"{")
    world.lose()
    world.users.draining = True
    told = world.told()
    assert [level for level, _, _ in told] == ["bad", "bad", "warn"]
    assert [name for _, name, _ in told] == ["source-down", "draining", "bad-publications"]
    news = [*[News(*each) for each in told], News("note", "x", "It was so.")]
    assert summary(news, 3) == " ".join([*[text for _, _, text in told], "3 clients.", "It was so."])
