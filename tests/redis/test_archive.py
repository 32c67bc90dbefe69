"""The past of Redis streams, on a real server: what is there, in portions, and None where that is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from marketfeed.boundaries import Archive
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.archive import LONGEST_RANGE, RedisArchive
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.topology import Node, OneServer
from tests.redis.memory import Endpoint
from tests.redis.streams import commands_on
from tests.system.harness import Harness, Redis

A = "trade@A"
PLENTY = 1 << 30


async def archive_on(harness: Harness) -> tuple[Redis, RedisArchive]:
    server = await harness.redis()
    return await server.connect(), RedisArchive(await commands_on(harness, server), "pre:")


async def add(redis: Redis, *numbers: int, size: int = 1) -> None:
    for number in numbers:
        await redis.command("XADD", f"pre:{A}", f"{number}-0", "d", str(number) * size)


def ids(entries: list[tuple[str, bytes]] | None) -> list[int] | None:
    return None if entries is None else [int(offset.removesuffix("-0")) for offset, _ in entries]


@pytest_twisted.ensureDeferred
async def test_what_lies_behind_an_offset(harness: Harness) -> None:
    """Up to and with the end that is asked for, and nothing of what does not exist or is not behind it."""
    redis, archive = await archive_on(harness)
    assert await archive.since(A, "0-0", "0-0", PLENTY) == []
    assert await archive.since(A, "1-0", "9-0", PLENTY) is None
    await add(redis, *range(1, 6))
    assert await archive.since(A, "2-0", "4-0", PLENTY) == [("3-0", b"3"), ("4-0", b"4")]
    assert ids(await archive.since(A, "0-0", "5-0", PLENTY)) == [1, 2, 3, 4, 5]
    assert await archive.since(A, "5-0", "5-0", PLENTY) == []
    assert await archive.since(A, "5-0", "4-0", PLENTY) == []


@pytest_twisted.ensureDeferred
async def test_an_archive_that_is_behind(harness: Harness) -> None:
    """Its end lies before the one that is asked for: what it has is not all, and nothing more of it is not nothing."""
    redis, archive = await archive_on(harness)
    assert await archive.since(A, "0-0", "9-0", PLENTY) is None
    await add(redis, *range(1, 6))
    assert await archive.since(A, "2-0", "6-0", PLENTY) is None
    assert await archive.since(A, "5-0", "6-0", PLENTY) is None
    await add(redis, 6)
    assert ids(await archive.since(A, "2-0", "6-0", PLENTY)) == [3, 4, 5, 6]
    assert await archive.since(A, "6-0", "6-0", PLENTY) == []


def test_an_archive_that_catches_up_while_it_is_asked() -> None:
    """What it had when it was read is what counts, not what it has when the reading is looked over."""
    clock = Clock()
    endpoint = Endpoint(clock)
    commands = RoutedCommands(clock, OneServer(Node("redis", RedisAddress(), endpoint)))
    archive = RedisArchive(commands)
    commands.startService()
    connection = endpoint.accept()
    connection.answer(b"+PONG\r\n")
    got: list[object] = []
    archive.since(A, "5-0", "6-0", PLENTY).addCallback(got.append)
    answers = {b"XREVRANGE": entries(5), b"XRANGE": b"*0\r\n", b"XINFO": info(5)}
    while not got:
        for command in connection.asked():
            connection.say(answers[command[0]])
            answers[b"XINFO"] = info(6)
    assert got == [None]
    commands.stopService()
    clock.advance(0)


def entries(*numbers: int) -> bytes:
    each = b"".join(b"*2\r\n$3\r\n%d-0\r\n*2\r\n$1\r\nd\r\n$1\r\n1\r\n" % number for number in numbers)
    return b"*%d\r\n%b" % (len(numbers), each)


def info(last: int) -> bytes:
    """Of a stream from which nothing was ever removed."""
    head = b"*8\r\n$6\r\nlength\r\n:%d\r\n$17\r\nlast-generated-id\r\n$3\r\n%d-0\r\n" % (last, last)
    return head + b"$13\r\nentries-added\r\n:%d\r\n$11\r\nfirst-entry\r\n" % last + entries(1)[4:]


@pytest_twisted.ensureDeferred
async def test_a_stream_that_was_lost_whole(harness: Harness) -> None:
    """It has been added to since, and nothing of that was removed: what the client had belongs to another past."""
    redis, archive = await archive_on(harness)
    await add(redis, 1, 2)
    await redis.command("DEL", f"pre:{A}")
    await add(redis, 3, 4)
    assert await archive.since(A, "2-0", "4-0", PLENTY) is None
    assert ids(await archive.since(A, "3-0", "4-0", PLENTY)) == [4]


@pytest_twisted.ensureDeferred
async def test_portions(harness: Harness) -> None:
    """About as large as they should be, at least one publication each, nothing twice, an empty one at the end."""
    redis, archive = await archive_on(harness)
    await redis.command("MULTI")
    for number in range(1, 2501):
        payload = "x" * 5000 if number % 100 == 0 else "x" * 10
        redis.command("XADD", f"pre:{A}", f"{number}-0", *(("no", "1") if number % 7 == 0 else ("d", payload)))
    await redis.command("EXEC")
    expected = [number for number in range(1, 2501) if number % 7]
    for size in (3000, 20_000, PLENTY):
        got: list[int] = []
        after = "0-0"
        while portion := await archive.since(A, after, "2500-0", size):
            assert len(portion) == 1 or sum(len(payload) for _, payload in portion) <= size
            got += ids(portion) or []
            after = portion[-1][0]
        assert portion == []
        assert got == expected
    assert len(expected) > LONGEST_RANGE


@pytest_twisted.ensureDeferred
async def test_what_is_gone(harness: Harness) -> None:
    """Trimmed or deleted behind the offset, beyond the end, or another past: never a part that claims to be whole."""
    redis, archive = await archive_on(harness)
    await add(redis, *range(1, 10))
    assert await archive.since(A, "10-0", "10-1", PLENTY) is None
    assert await archive.since(A, "4-5", "9-0", PLENTY) is None
    await redis.command("XTRIM", f"pre:{A}", "MAXLEN", "5")
    assert ids(await archive.since(A, "5-0", "9-0", PLENTY)) == [6, 7, 8, 9]
    assert await archive.since(A, "3-0", "9-0", PLENTY) is None
    assert await archive.since(A, "0-0", "9-0", PLENTY) is None
    await redis.command("XDEL", f"pre:{A}", "7-0")
    assert await archive.since(A, "6-0", "9-0", PLENTY) is None
    assert ids(await archive.since(A, "7-0", "9-0", PLENTY)) == [8, 9]


@pytest.mark.parametrize("text", ["", "x", "1", "$", "-", "+", "1-1 COUNT", "é", "01-0", "99999999999999999999-0"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_offset(harness: Harness, text: str) -> None:
    """Nobody asks the server."""
    archive = RedisArchive(RoutedCommands(Clock(), OneServer(Node("redis", RedisAddress(), Endpoint(Clock())))))
    assert await archive.since(A, text, "1-0", PLENTY) is None
    assert await archive.since(A, "1-0", text, PLENTY) is None


@pytest_twisted.ensureDeferred
async def test_the_newest(harness: Harness) -> None:
    """So many, or so many bytes, the oldest first, back-filled ones too."""
    redis, archive = await archive_on(harness)
    assert await archive.newest(A, 10, PLENTY) == []
    await add(redis, *range(1, 101), size=2)
    await redis.command("XADD", f"pre:{A}", "101-0", "no", "1")
    assert await archive.newest(A, 2, PLENTY) == [("99-0", b"9999"), ("100-0", b"100100")]
    assert ids(await archive.newest(A, 1000, PLENTY)) == list(range(1, 101))
    assert ids(await archive.newest(A, 1000, 6 + 4 + 4 + 3)) == [98, 99, 100]
    assert await archive.newest(A, 1000, 5) == []
    assert await archive.newest(A, 0, PLENTY) == []
    assert ids(await archive.newest(A, 3, PLENTY, "50-0")) == [48, 49, 50]
    assert ids(await archive.newest(A, 1000, PLENTY, "50-0")) == list(range(1, 51))
    assert await archive.newest(A, 3, PLENTY, "0-1") == []


@pytest_twisted.ensureDeferred
async def test_out_of_reach(harness: Harness) -> None:
    """A key that is no stream, and a server that has gone."""
    redis, archive = await archive_on(harness)
    await redis.command("SET", f"pre:{A}", "1")
    assert await archive.newest(A, 1, PLENTY) is None
    assert await archive.since(A, "1-0", "2-0", PLENTY) is None
    idle = RedisArchive(RoutedCommands(Clock(), OneServer(Node("redis", RedisAddress(), Endpoint(Clock())))))
    assert await idle.newest(A, 1, PLENTY) is None
    assert await idle.since(A, "1-0", "2-0", PLENTY) is None


class Servers:
    """Two, of which the second lacks the newest entries that the first has, and has one more. `moves`: how many
    commands are answered before a stream is on the other one, each time.
    """

    def __init__(self, *moves: int) -> None:
        self.moves = list(moves)
        self.moved = 0
        self.asked = 0

    def place_of(self, key: bytes) -> object:
        return self.moved

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        numbers = (1, 2, 3, 9) if self.moved % 2 else (1, 2, 3, 4, 5)
        self.asked += 1
        if self.asked in self.moves:
            self.moved += 1
        return succeed(self._answer(numbers, words))

    def _answer(self, numbers: tuple[int, ...], words: tuple[bytes | str | int, ...]) -> list[Any]:
        entries = [[b"%d-0" % number, [b"d", b"%d" % number]] for number in numbers]
        if words[0] == "XINFO":
            last, count = b"%d-0" % numbers[-1], len(numbers)
            return [b"first-entry", entries[0], b"last-generated-id", last, b"entries-added", count, b"length", count]
        if words[0] == "XREVRANGE":
            return [each for each in entries if each[0] == str(words[2]).encode()]
        after, until = (int(str(word).strip("(").removesuffix("-0")) for word in words[2:4])
        return [each for each in entries if after < int(each[0][:-2]) <= until]


@pytest_twisted.ensureDeferred
async def test_what_moves_while_it_is_read_is_read_again() -> None:
    """From where it is then; of what two servers have nothing is put together, and it is not tried for ever."""
    for moment in range(1, 5):
        servers = Servers(moment)
        assert ids(await RedisArchive(servers).since(A, "2-0", "5-0", PLENTY)) == [3]
        assert servers.asked == 8
    for moment in range(1, 5):
        servers = Servers(moment, 4 + moment)
        assert ids(await RedisArchive(servers).since(A, "2-0", "5-0", PLENTY)) == [3, 4, 5]
        assert servers.asked == 12
    servers = Servers(1, 5, 9)
    assert await RedisArchive(servers).since(A, "2-0", "5-0", PLENTY) is None
    assert servers.asked == 12


if TYPE_CHECKING:
    _archive: type[Archive] = RedisArchive


@pytest_twisted.ensureDeferred
async def test_what_was_added_at_a_time(harness: Harness) -> None:
    """The first from there on, or the last up to there: with all entries of that moment."""
    redis, archive = await archive_on(harness)
    assert await archive.first_from(A, 0, 10, PLENTY) == await archive.last_until(A, 10**16, 10, PLENTY) == []
    await add(redis, *range(1, 101))
    await redis.command("XADD", f"pre:{A}", "100-1", "d", "more")
    assert ids(await archive.first_from(A, 98, 2, PLENTY)) == [98, 99]
    assert await archive.first_from(A, 100, 10, PLENTY) == [("100-0", b"100"), ("100-1", b"more")]
    assert ids(await archive.first_from(A, 0, 1000, 1 + 1 + 1)) == [1, 2, 3]
    assert await archive.first_from(A, 101, 10, PLENTY) == []
    assert await archive.first_from(A, 2**70, 10, PLENTY) == []
    assert ids(await archive.last_until(A, 40, 3, PLENTY)) == [38, 39, 40]
    assert await archive.last_until(A, 100, 1, PLENTY) == [("100-1", b"more")]
    assert await archive.last_until(A, 2**70, 1, PLENTY) == [("100-1", b"more")]
    assert await archive.last_until(A, 0, 3, PLENTY) == []
    assert archive.time_of("100-1") == 100
    await redis.command("SET", "pre:trade@B", "no stream")
    assert await archive.first_from("trade@B", 0, 1, PLENTY) is None
