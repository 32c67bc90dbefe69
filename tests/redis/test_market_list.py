"""The markets that were heard of, the same on all instances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from marketfeed.redis.commands import CommandRefused, OutOfReach
from marketfeed.redis.market_list import AGAIN_SECONDS, KEPT_SECONDS, LOOK_SECONDS, MOST_MARKETS, MarketList
from tests.conftest import LogCapture

NOW = 1_700_000_000.0
KEY = b"md:markets"


class FakeRedis:
    """A sorted set. `refused`: commands that are not permitted; `waiting`: answers come when the test says so."""

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self.refused: set[str] = set()
        self.is_up = True
        self.asked: list[str] = []
        self.waiting: list[Deferred[Any]] | None = None

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        assert key == words[1] == KEY
        verb, rest = str(words[0]), list(map(str, words[2:]))
        self.asked.append(verb)
        if self.waiting is not None:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        if not self.is_up:
            return fail(OutOfReach("there is no connection"))
        if verb in self.refused:
            return fail(CommandRefused(f"NOPERM {verb}"))
        return succeed(getattr(self, verb.lower())(*rest))

    def zadd(self, greater: str, *pairs: str) -> int:
        assert greater == "GT"
        for score, name in zip(pairs[::2], pairs[1::2], strict=True):
            self.scores[name] = max(float(score), self.scores.get(name, 0.0))
        return len(pairs)

    def zrevrangebyscore(self, most: str, least: str, limit: str, first: str, count: str) -> list[bytes]:
        assert (most, limit, first, count) == ("+inf", "LIMIT", "0", str(MOST_MARKETS))
        return [name.encode() for name, score in self.scores.items() if score >= float(least)]

    def zremrangebyscore(self, least: str, most: str) -> int:
        assert (least, most[0]) == ("-inf", "(")
        self.scores = {name: score for name, score in self.scores.items() if score >= float(most[1:])}
        return 0

    def place_of(self, key: bytes) -> object:
        return None


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.redis = FakeRedis()
        self.heard: set[str] = set()
        self.list = self.another()

    def another(self) -> MarketList:
        """An instance more."""
        return MarketList(self.clock, self.redis, "md:", lambda: self.heard, lambda: NOW + self.clock.seconds())

    def look(self) -> frozenset[str]:
        """What is known at the next look."""
        self.clock.advance(LOOK_SECONDS)
        return self.list.markets


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.list.startService()
    yield world
    world.list.stopService()
    assert not world.clock.getDelayedCalls()


def test_what_one_hears_all_know(world: World) -> None:
    """Those who have heard nothing themselves, too; as the same object, while it is the same."""
    world.heard = {"A_B", "C_D"}
    assert world.look() == {"A_B", "C_D"}
    assert world.redis.scores == dict.fromkeys(("A_B", "C_D"), (NOW + LOOK_SECONDS) * 1000)
    world.heard = set()
    other = world.another()
    other.startService()
    assert other.markets == {"A_B", "C_D"}
    other.stopService()
    assert world.look() is world.look()


def test_what_is_heard_here_is_there_at_once(world: World) -> None:
    """Before the next look, in a second. Who asks often does not look through all streams each time."""
    assert world.list.markets == frozenset()
    world.heard = {"A"}
    assert world.list.markets == frozenset()
    world.clock.advance(1)
    assert world.list.markets == {"A"}
    assert world.list.markets is world.list.markets
    assert "ZADD" not in world.redis.asked


def test_a_market_is_told_again_once_in_a_while(world: World) -> None:
    """Not each time that it is heard."""
    world.heard = {"A"}
    for _ in range(10):
        world.look()
    assert world.redis.asked.count("ZADD") == 1
    world.clock.advance(AGAIN_SECONDS)
    assert world.redis.asked.count("ZADD") == 2
    assert world.redis.scores["A"] > (NOW + AGAIN_SECONDS) * 1000


def test_what_is_not_heard_any_more_goes(world: World) -> None:
    """After a week; what others say has no end stays."""
    world.redis.scores = {"OLD": (NOW - KEPT_SECONDS) * 1000, "SEED": float("inf")}
    world.heard = {"A"}
    assert world.look() == {"A", "SEED"}
    assert set(world.redis.scores) == {"A", "SEED"}


def test_what_is_no_market_is_left_out(world: World) -> None:
    """Anybody may have written it."""
    world.redis.scores = dict.fromkeys(("A", "B C", "\xff", "x" * 65, ""), NOW * 2000)
    assert world.look() == {"A"}


def test_while_redis_is_away(world: World, logged: LogCapture) -> None:
    """What is heard is known here, and what was read before; it is told when that is possible."""
    world.redis.scores = {"B": NOW * 2000}
    assert world.look() == {"B"}
    world.redis.is_up = False
    world.heard = {"A"}
    assert world.look() == {"A", "B"}
    world.redis.is_up = True
    world.look()
    assert "A" in world.redis.scores
    assert not logged.events


@pytest.mark.parametrize(
    "refused", [{"ZADD"}, {"ZREVRANGEBYSCORE"}, {"ZADD", "ZREVRANGEBYSCORE"}, {"ZREMRANGEBYSCORE"}]
)
def test_what_is_not_permitted_is_said_once(world: World, logged: LogCapture, refused: set[str]) -> None:
    """What remains works: one who may not write reads."""
    world.redis.scores = {"B": NOW * 2000}
    world.redis.refused = refused
    world.heard = {"A"}
    for _ in range(5):
        assert world.look() == {"A"} | ({"B"} - ({"B"} if "ZREVRANGEBYSCORE" in refused else set()))
    assert len(logged.events) == 1
    assert "not shared with other instances" in logged.formats()[0]
    assert logged.events[0]["why"] == f"NOPERM {min(refused)}"
    world.redis.refused = set()
    world.clock.advance(AGAIN_SECONDS)
    assert world.look() == {"A", "B"}


def test_one_look_at_a_time(world: World) -> None:
    """However long Redis takes; an end in the midst of one leaves nothing."""
    world.redis.waiting = []
    for _ in range(5):
        world.look()
    assert len(world.redis.waiting) == 1


def test_who_asks_at_the_start_waits_until_it_was_read(world: World) -> None:
    """It may take a moment until there is a connection; it is asked for again and again."""
    world.redis.is_up = False
    late = world.another()
    late.startService()
    known: list[None] = []
    late.known().addCallback(known.append)
    cancelled = late.known().addErrback(lambda failure: None)
    cancelled.cancel()
    world.clock.advance(1)
    assert not known
    world.redis.is_up = True
    world.redis.scores = {"A": NOW * 2000}
    world.clock.advance(0.2)
    assert known == [None]
    assert late.markets == {"A"}
    late.known().addCallback(known.append)
    assert len(known) == 2
    late.stopService()


@pytest.mark.parametrize("ends", [False, True])
def test_nobody_waits_for_ever(world: World, ends: bool) -> None:
    """Neither for Redis, nor for a service that has ended."""
    world.redis.is_up = False
    late = world.another()
    late.startService()
    known: list[None] = []
    late.known().addCallback(known.append)
    if ends:
        late.stopService()
    else:
        for _ in range(40):
            world.clock.advance(0.1)
        late.stopService()
    assert known == [None]
