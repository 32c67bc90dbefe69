"""The candle service as a daemon sees it: told what is wanted, and looked at whether it is there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from marketfeed.model.candle_store import WANTED_SECONDS, CandleKeys
from marketfeed.redis.candle_watch import AWAY_SECONDS, LOOK_SECONDS, SAID_SECONDS, CandleWatch
from marketfeed.redis.commands import CommandRefused, OutOfReach
from tests.conftest import LogCapture
from tests.strategies import property_test

BEGIN = 1_790_000_000


class FakeRedis:
    """A lease, and what is wanted, by the second in which it was said. `fault`: what every command comes to."""

    def __init__(self) -> None:
        self.has_lease = True
        self.wanted: dict[str, int] = {}
        self.sizes: list[int] = []
        self.asked: list[str] = []
        self.fault: Exception | None = None
        self.waiting: Deferred[Any] | None = None

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        verb, *rest = (word.decode() if isinstance(word, bytes) else str(word) for word in words)
        self.asked.append(verb)
        if self.waiting is not None:
            return self.waiting
        if self.fault is not None:
            return fail(self.fault)
        assert rest[0] == key.decode()
        match verb, rest:
            case "EXISTS", ["md:lease:candles"]:
                return succeed(int(self.has_lease))
            case "ZADD", ["md:wanted:candles", *pairs]:
                self.sizes.append(len(pairs) // 2)
                self.wanted |= {stream: int(at) for at, stream in zip(pairs[::2], pairs[1::2], strict=True)}
                return succeed(len(pairs) // 2)
            case "ZREMRANGEBYSCORE", ["md:wanted:candles", "-inf", last]:
                self.wanted = {stream: at for stream, at in self.wanted.items() if at > int(last)}
                return succeed(0)
        raise AssertionError(words)

    def place_of(self, key: bytes) -> object:
        return None


class Watched:
    """A watch that has begun to look, on a clock. `told`: what it said, and when, in s since the beginning."""

    def __init__(self, *streams: str) -> None:
        self.redis = FakeRedis()
        self.streams = list(streams)
        self.told: list[tuple[float, str, int | None]] = []
        self.clock = Clock()
        self.watch = CandleWatch(
            self.clock,
            self.redis,
            CandleKeys("md:"),
            lambda: self.streams,
            lambda since: self.told.append((self.clock.seconds(), "lost", since)),
            lambda: self.told.append((self.clock.seconds(), "found", None)),
            lambda: BEGIN + self.clock.seconds(),
        )
        self.watch.startService()

    def wait(self, seconds: float) -> None:
        """Until then, a look at a time."""
        self.clock.pump([LOOK_SECONDS] * round(seconds / LOOK_SECONDS))


def test_what_is_wanted() -> None:
    """It is said at once, and again before it is forgotten; of one that is new, at the next look."""
    watched = Watched("kline_1m@A", "miniTicker@A")
    assert watched.redis.wanted == {"kline_1m@A": BEGIN, "miniTicker@A": BEGIN}
    watched.streams.append("kline_1h@A")
    watched.wait(LOOK_SECONDS)
    assert watched.redis.wanted["kline_1h@A"] == BEGIN + 1
    assert watched.redis.wanted["kline_1m@A"] == BEGIN, "which need not be said again yet"
    for _ in range(30):
        watched.wait(LOOK_SECONDS)
        now = BEGIN + watched.clock.seconds()
        assert all(now - said < WANTED_SECONDS for said in watched.redis.wanted.values())
    watched.watch.stopService()


def test_what_is_wanted_no_more() -> None:
    """It is not said again, and taken away after a while; what one has given up and wants again is said at once."""
    watched = Watched("kline_1m@A", "kline_1m@B")
    watched.streams.remove("kline_1m@B")
    watched.wait(LOOK_SECONDS)
    watched.streams.append("kline_1m@B")
    watched.wait(LOOK_SECONDS)
    assert watched.redis.wanted["kline_1m@B"] == BEGIN + 2
    watched.streams.remove("kline_1m@B")
    watched.wait(120)
    assert watched.redis.wanted.keys() == {"kline_1m@A"}
    watched.watch.stopService()


def test_many_streams() -> None:
    """A few hundred in one command."""
    watched = Watched(*[f"kline_1m@M{number}" for number in range(1201)])
    assert watched.redis.sizes == [500, 500, 201]
    watched.watch.stopService()


def test_while_nobody_wants_any() -> None:
    """Nothing is asked, and nobody is told anything."""
    watched = Watched()
    watched.redis.has_lease = False
    watched.wait(60)
    assert (watched.redis.asked, watched.told) == ([], [])
    watched.watch.stopService()


@property_test
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 10)), max_size=12))
def test_whether_there_is_a_service(spells: list[tuple[bool, int]]) -> None:
    """It counts as away once its lease has been free for so long, since about then, and as there with the lease."""
    watched = Watched("kline_1m@A")
    free_since, expected = None, list[tuple[float, str, int | None]]()
    for has_lease, looks in spells:
        watched.redis.has_lease = has_lease
        for _ in range(looks):
            watched.wait(LOOK_SECONDS)
            now = watched.clock.seconds()
            if has_lease:
                if free_since is not None and now - free_since > AWAY_SECONDS:
                    expected.append((now, "found", None))
                free_since = None
            elif free_since is None:
                free_since = now
            elif now - free_since == AWAY_SECONDS:
                expected.append((now, "lost", int((BEGIN + free_since) * 1000)))
    assert watched.told == expected
    watched.watch.stopService()


def test_who_comes_while_there_is_none() -> None:
    """What nobody watched is looked at anew: for as long again it may be on its way from one service to the next."""
    watched = Watched("kline_1m@A")
    watched.redis.has_lease = False
    watched.wait(3)
    watched.streams.clear()
    watched.wait(60)
    watched.streams.append("kline_1m@A")
    watched.wait(AWAY_SECONDS)
    assert watched.told == []
    watched.wait(LOOK_SECONDS)
    assert [what for _, what, _ in watched.told] == ["lost"]
    watched.watch.stopService()


@pytest.mark.parametrize(("fault", "lines"), [(OutOfReach("away"), 0), (CommandRefused("NOPERM"), 1)])
def test_what_redis_does_not_say(fault: Exception, lines: int, logged: LogCapture) -> None:
    """The log has a line, once, unless the server is out of reach, which others say; it goes on all the same."""
    watched = Watched("kline_1m@A")
    watched.redis.fault = fault
    watched.wait(60)
    assert len([event for event in logged.events if "does not say" in str(event["log_format"])]) == lines
    assert watched.told == []
    watched.redis.fault = None
    watched.redis.has_lease = False
    watched.wait(AWAY_SECONDS + LOOK_SECONDS)
    assert [what for _, what, _ in watched.told] == ["lost"]
    assert watched.redis.wanted["kline_1m@A"] >= BEGIN + 60
    watched.watch.stopService()


def test_a_fault_of_ours(logged: LogCapture) -> None:
    """It is in the log, and the next look comes."""
    watched = Watched("kline_1m@A")
    watched.redis.fault = ZeroDivisionError("a bug")
    watched.wait(LOOK_SECONDS)
    assert logged.flush_failures(ZeroDivisionError)
    watched.redis.fault = None
    before = len(watched.redis.asked)
    watched.wait(LOOK_SECONDS)
    assert len(watched.redis.asked) > before
    watched.watch.stopService()


@pytest.mark.parametrize("is_asking", [True, False])
def test_the_end(is_asking: bool) -> None:
    """In the midst of a question as between two: no timer is left, and nothing is told."""
    watched = Watched("kline_1m@A")
    if is_asking:
        watched.redis.waiting = Deferred()
        watched.wait(LOOK_SECONDS)
    watched.watch.stopService()
    assert watched.clock.getDelayedCalls() == []
    assert SAID_SECONDS < WANTED_SECONDS, "or the service would stop in between"
    assert watched.told == []
