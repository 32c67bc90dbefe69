"""Redis streams as a source, on a real server: what the sink hears, whatever happens to links, streams and wishes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted

from marketfeed.redis import read_pace, read_rounds, rotation, verification
from marketfeed.redis import streams as redis_streams
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.ordered_snapshots import OrderedSnapshots
from marketfeed.redis.stream_checks import StreamChecks
from marketfeed.redis.stream_entries import Extent
from marketfeed.redis.stream_reads import MOST, Reading
from tests.conftest import LogCapture
from tests.fakes import FakeSnapshots
from tests.redis.streams import Heard, commands_on, source_on
from tests.system.harness import Harness, Redis, RedisServer

A, B = "trade@A", "trade@B"
NAMELESS = "{stream}: the entry {entry} has no field d"


async def add(redis: Redis, stream: str, *payloads: str) -> list[str]:
    """XADD; the ids."""
    replies = [redis.command("XADD", stream, "*", "d", payload) for payload in payloads]
    return [(await reply).decode() for reply in replies]


async def blocked_for(redis: Redis) -> bool:
    """Whether somebody waits in an XREAD."""
    return b"blocked_clients:1" in await redis.command("INFO", "clients")


async def readers(redis: Redis) -> list[str]:
    """The ids of the clients that are in an XREAD."""
    lines = (await redis.command("CLIENT", "LIST")).decode().splitlines()
    return [line.split()[0].removeprefix("id=") for line in lines if "cmd=xread" in line]


async def cut(redis: Redis) -> None:
    """End the source's reading link."""
    for client in await readers(redis):
        await redis.command("CLIENT", "KILL", "ID", client)


@asynccontextmanager
async def amid_a_cut(harness: Harness, redis: Redis) -> AsyncIterator[None]:
    """What is asked in here is done all at once, when the source's reading link has ended and before it has another."""
    await harness.eventually(lambda: blocked_for(redis))
    (client,) = await readers(redis)
    await redis.command("MULTI")
    redis.command("CLIENT", "KILL", "ID", client)
    yield
    await redis.command("EXEC")


async def reading(harness: Harness, *streams: str, options: tuple[str, ...] = ()) -> tuple[RedisServer, Redis, Heard]:
    """A source that waits for entries of these streams."""
    server = await harness.redis(*options)
    redis = await server.connect()
    source, heard = source_on(harness, server)
    for stream in streams:
        source.want(stream)
    await harness.eventually(lambda: heard.count("confirmed") == len(streams))
    await harness.eventually(lambda: blocked_for(redis))
    return server, redis, heard


@pytest_twisted.ensureDeferred
async def test_it_begins_behind_the_last_entry(harness: Harness) -> None:
    """Or behind 0-0, where there is none; from there on everything comes in order, with its id."""
    server = await harness.redis()
    redis = await server.connect()
    last = (await add(redis, f"pre:{A}", "old", "older"))[-1]
    source, heard = source_on(harness, server, prefix="pre:")
    source.want(A)
    source.want(B)
    await harness.eventually(lambda: heard.count("confirmed") == 2)
    assert heard.events[0] == ("reached",)
    assert heard.of("confirmed", A) == [(last,)]
    assert heard.of("confirmed", B) == [("0-0",)]
    ids = await add(redis, f"pre:{A}", *map(str, range(300)))
    other = await add(redis, f"pre:{B}", "b")
    await harness.eventually(lambda: heard.count("publish") == 301)
    assert heard.of("publish", A) == [(str(number), entry) for number, entry in enumerate(ids)]
    assert heard.of("publish", B) == [("b", other[0])]


@pytest_twisted.ensureDeferred
async def test_wishes_do_not_wait_for_the_end_of_a_read(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blocked read would last for ever here, and is ended whenever a stream is wanted, a thousand in one turn too."""
    monkeypatch.setattr(read_rounds, "LONG_MS", 0)
    server = await harness.redis()
    redis = await server.connect()
    source, heard = source_on(harness, server)
    for number in range(20):
        source.want(f"trade@{number}")
        await harness.eventually(lambda count=number + 1: heard.count("confirmed") == count)
        await harness.eventually(lambda: blocked_for(redis))
    for number in range(20, 1020):
        source.want(f"trade@{number}")
    await harness.eventually(lambda: heard.count("confirmed") == 1020)
    for number in (0, 1019):
        await add(redis, f"trade@{number}", "x")
    await harness.eventually(lambda: heard.count("publish") == 2)


@pytest_twisted.ensureDeferred
async def test_what_is_not_wanted_is_not_delivered(harness: Harness) -> None:
    """Not even from the read that is under way; wanted again it begins anew."""
    server = await harness.redis()
    redis = await server.connect()
    source, heard = source_on(harness, server)
    for stream in (A, B):
        source.want(stream)
    await harness.eventually(lambda: blocked_for(redis))
    source.unwant(A)
    source.unwant("trade@NEVER")
    (entry,) = await add(redis, A, "unheard")
    await add(redis, B, "heard")
    await harness.eventually(lambda: heard.count("publish") == 1)
    source.want(A)
    await harness.eventually(lambda: heard.count("confirmed") == 3)
    assert heard.of("confirmed", A)[-1] == (entry,)
    await add(redis, A, "again")
    await harness.eventually(lambda: heard.count("publish") == 2)
    assert [payload for payload, _ in heard.of("publish")] == ["heard", "again"]


@pytest_twisted.ensureDeferred
async def test_nothing_is_missed_across_a_lost_link(harness: Harness) -> None:
    """What is added while there is none comes on the next, behind a confirmation that says so."""
    _, redis, heard = await reading(harness, A, B)
    for number in range(3):
        (last,) = await add(redis, A, f"{number}a")
        await harness.eventually(lambda count=2 * number + 1: heard.count("publish") == count)
        await harness.eventually(lambda: blocked_for(redis))
        await cut(redis)
        await add(redis, A, f"{number}b")
        await harness.eventually(lambda count=2 * number + 2: heard.count("publish") == count)
        assert heard.of("confirmed", A)[-1] == (last,)
        await harness.eventually(lambda: blocked_for(redis))
    assert [payload for payload, _ in heard.of("publish", A)] == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert heard.of("confirmed", B) == [("0-0",)] * 4
    assert heard.count("lost") == 3


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody has a turn, and soon; no read waits for long."""
    monkeypatch.setattr(redis_streams, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(verification, "TURN_SECONDS", 0.02)
    monkeypatch.setattr(rotation, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(read_rounds, "LONG_MS", 100)


@pytest.mark.usefixtures("often")
@pytest_twisted.ensureDeferred
async def test_ids_that_go_backwards(harness: Harness) -> None:
    """Which no read would ever bring: the stream goes on behind what is there, as it does where there is nothing."""
    _, redis, heard = await reading(harness, A, B)
    for stream in (A, B):
        await redis.command("XADD", stream, "5-0", "d", "1")
    await harness.eventually(lambda: heard.count("publish") == 2)
    await redis.command("MULTI")
    redis.command("FLUSHALL")
    redis.command("XADD", A, "3-0", "d", "2")
    await redis.command("EXEC")
    await harness.eventually(lambda: heard.of("confirmed", A)[1:] == [("3-0",)])
    await harness.eventually(lambda: heard.of("confirmed", B)[1:] == [("0-0",)])
    for stream in (A, B):
        await redis.command("XADD", stream, "4-0", "d", "3")
    await harness.eventually(lambda: heard.count("publish") == 4)
    assert heard.count("lost") == 0


@pytest.mark.usefixtures("often")
@pytest_twisted.ensureDeferred
async def test_where_all_is_well_nobody_hears_of_a_check(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a stream that flows, nor of one that is quiet, empty, trimmed behind its position or not there."""
    checked: list[str] = []
    place = StreamChecks._place

    def noted(checks: StreamChecks, reading: Reading, extent: Extent, newest: list[object]) -> None:
        checked.append(reading.stream)
        place(checks, reading, extent, newest)

    monkeypatch.setattr(StreamChecks, "_place", noted)
    streams = [f"trade@{letter}" for letter in "ABCD"]
    _, redis, heard = await reading(harness, *streams)
    for number in range(1, 4):
        for stream in streams[:3]:
            await redis.command("XADD", stream, f"{number}-0", "d", "1")
    await harness.eventually(lambda: heard.count("publish") == 9)
    await redis.command("XTRIM", "trade@B", "MAXLEN", "0")
    await redis.command("XDEL", "trade@C", "3-0")
    checked.clear()
    await harness.eventually(lambda: min(checked.count(stream) for stream in streams) > 2)
    assert heard.count("confirmed") == 4
    assert await redis.command("XADD", "trade@D", "1-0", "d", "1")
    await harness.eventually(lambda: heard.count("publish") == 10)
    assert heard.count("confirmed") == 4


@pytest.mark.usefixtures("often")
@pytest_twisted.ensureDeferred
async def test_a_permission_that_is_given_later(harness: Harness) -> None:
    """On the same link; until then the refusal is said once."""
    server = await harness.redis()
    redis = await server.connect()
    await redis.command("ACL", "SETUSER", "reader", "on", ">x", f"~{B}", "+@all")
    source, heard = source_on(harness, server, user="reader")
    for stream in (A, B, "trade@C"):
        source.want(stream)
    await harness.eventually(lambda: heard.count("refused") == 2)
    source.unwant("trade@C")
    for number in range(3):
        await add(redis, B, str(number))
        await harness.eventually(lambda count=number + 1: heard.count("publish") == count)
        await harness.eventually(lambda: blocked_for(redis))
    assert heard.of("refused", A) == [("NOPERM",)]
    await redis.command("ACL", "SETUSER", "reader", "~*")
    await harness.eventually(lambda: heard.of("confirmed", A) == [("0-0",)])
    await add(redis, A, "now")
    await harness.eventually(lambda: heard.count("publish") == 4)
    assert heard.count("lost") == 0


@pytest.mark.usefixtures("often")
@pytest_twisted.ensureDeferred
async def test_a_key_that_is_no_stream_for_a_while(harness: Harness) -> None:
    """On the same link; what was added meanwhile comes when it is one again."""
    _, redis, heard = await reading(harness, A)
    await redis.command("SET", A, "1")
    await harness.eventually(lambda: heard.of("refused", A) == [("WRONGTYPE",)])
    await redis.command("DEL", A)
    await redis.command("XADD", A, "1-0", "d", "1")
    await harness.eventually(lambda: heard.of("publish", A) == [("1", "1-0")])


DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest_twisted.ensureDeferred
async def test_nothing_is_missed_across_a_killed_server(harness: Harness) -> None:
    """One that writes down what it acknowledges."""
    server, redis, heard = await reading(harness, A, options=DURABLE)
    (last,) = await add(redis, A, "1")
    await harness.eventually(lambda: heard.count("publish") == 1)
    await server.kill()
    await harness.eventually(lambda: heard.count("lost") >= 1)
    await server.start()
    await add(await server.connect(), A, "2")
    await harness.eventually(lambda: heard.count("publish") == 2)
    assert heard.of("confirmed", A)[-1] == (last,)


@pytest_twisted.ensureDeferred
async def test_a_server_that_has_lost_entries(harness: Harness) -> None:
    """One without a disk, as after a failover: reading goes on behind its end, and the confirmation says where."""
    server, redis, heard = await reading(harness, A)
    await add(redis, A, "1")
    await harness.eventually(lambda: heard.count("publish") == 1)
    await server.kill()
    await server.start()
    await harness.eventually(lambda: heard.of("confirmed", A)[-1] == ("0-0",) and heard.count("confirmed") == 2)
    redis = await server.connect()
    await redis.command("XADD", A, "5-0", "d", "2")
    await harness.eventually(lambda: heard.of("publish", A)[-1] == ("2", "5-0"))


@pytest_twisted.ensureDeferred
async def test_a_server_that_has_lost_everything_and_got_more(harness: Harness) -> None:
    """Before it is looked at again: nothing of the new was removed, and yet what came before it is gone."""
    _, redis, heard = await reading(harness, A, B)
    await redis.command("XADD", A, "5-0", "d", "1")
    await harness.eventually(lambda: heard.count("publish") == 1)
    async with amid_a_cut(harness, redis):
        redis.command("FLUSHALL")
        redis.command("XADD", A, "7-0", "d", "2")
        redis.command("XADD", B, "7-0", "d", "2")
    await harness.eventually(lambda: heard.count("publish") == 3)
    assert heard.of("confirmed", A) == [("0-0",), (f"6-{2**64 - 1}",)]
    assert heard.of("confirmed", B) == [("0-0",), ("0-0",)], "nothing of it had ever been there"
    assert heard.of("publish", A) == [("1", "5-0"), ("2", "7-0")]


@pytest_twisted.ensureDeferred
async def test_what_was_deleted_ahead_of_the_reader(harness: Harness) -> None:
    """What is left is delivered, up to the last that was deleted as long as there is no word of what follows it."""
    _, redis, heard = await reading(harness, A, B)
    for stream in (A, B):
        await redis.command("XADD", stream, "3-0", "d", "3")
    await harness.eventually(lambda: heard.count("publish") == 2)
    async with amid_a_cut(harness, redis):
        for number in range(4, 310):
            redis.command("XADD", A, f"{number}-0", "d", str(number))
            redis.command("XADD", B, f"{number}-0", "d", str(number))
        redis.command("XDEL", A, "306-0")
        redis.command("XDEL", B, "4-0", "309-0")
    await harness.eventually(lambda: heard.count("publish") == 2 + 305 + 304)
    assert [entry for _, entry in heard.of("publish", A)] == [f"{n}-0" for n in range(3, 310) if n != 306]
    assert [entry for _, entry in heard.of("publish", B)] == [f"{n}-0" for n in range(3, 309) if n != 4]
    assert heard.of("confirmed", A)[-1] == ("306-0",)
    await harness.eventually(lambda: heard.of("confirmed", B)[-1] == ("309-0",))
    at = {event: place for place, event in enumerate(heard.events)}
    assert at["publish", A, "305", "305-0"] < at["confirmed", A, "306-0"] < at["publish", A, "307", "307-0"]


@pytest_twisted.ensureDeferred
async def test_entries_that_were_trimmed_meanwhile(harness: Harness) -> None:
    """Reading goes on with the first that is left; where none behind the position was trimmed, with that."""
    _, redis, heard = await reading(harness, A, B)
    await redis.command("XADD", A, "1-0", "d", "1")
    await redis.command("XADD", B, "1-0", "d", "1")
    await harness.eventually(lambda: heard.count("publish") == 2)
    async with amid_a_cut(harness, redis):
        for number in range(2, 10):
            redis.command("XADD", A, "MAXLEN", "3", f"{number}-0", "d", str(number))
            redis.command("XADD", B, f"{number}-0", "d", str(number))
    await harness.eventually(lambda: heard.count("publish") == 2 + 3 + 8)
    assert heard.of("confirmed", A)[-1] == (f"6-{2**64 - 1}",)
    assert heard.of("confirmed", B)[-1] == ("1-0",)
    assert [entry for _, entry in heard.of("publish", A)] == ["1-0", "7-0", "8-0", "9-0"]


@pytest_twisted.ensureDeferred
async def test_a_full_read_is_followed_by_others(harness: Harness) -> None:
    """Until one was not full; what is trimmed when all of it has been read is no loss."""
    _, redis, heard = await reading(harness, A)
    await redis.command("MULTI")
    for number in range(1, 3 * MOST + 1):
        redis.command("XADD", A, f"{number}-0", "d", "x")
    await redis.command("EXEC")
    await harness.eventually(lambda: heard.count("publish") == 3 * MOST)
    await harness.eventually(lambda: blocked_for(redis))
    await redis.command("MULTI")
    redis.command("XTRIM", A, "MAXLEN", "0")
    redis.command("XADD", A, f"{9 * MOST}-0", "d", "z")
    await redis.command("EXEC")
    await harness.eventually(lambda: heard.count("publish") == 3 * MOST + 1)
    assert [entry for _, entry in heard.of("publish", A)] == [
        f"{number}-0" for number in (*range(1, 3 * MOST + 1), 9 * MOST)
    ]
    assert heard.count("confirmed") == 1


@pytest_twisted.ensureDeferred
async def test_trimming_while_nothing_was_read(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little comes then. Here every read is late, as it is after a stall of the network or of this process."""
    _, redis, heard = await reading(harness, A, B)
    await add(redis, B, "b")
    await redis.command("XADD", A, "5-0", "d", "5")
    await harness.eventually(lambda: heard.count("publish") == 2)
    await harness.eventually(lambda: blocked_for(redis))
    monkeypatch.setattr(read_rounds, "LATE_SECONDS", 0)
    await redis.command("MULTI")
    redis.command("XADD", A, "6-0", "d", "6")
    redis.command("XADD", A, "MAXLEN", "1", "7-0", "d", "7")
    await redis.command("EXEC")
    await add(redis, B, "c")
    await harness.eventually(lambda: heard.count("publish") == 4)
    assert heard.of("confirmed", A) == [("0-0",), (f"6-{2**64 - 1}",)]
    assert [entry for _, entry in heard.of("publish", A)] == ["5-0", "7-0"]
    assert heard.of("confirmed", B) == [("0-0",)]
    await redis.command("XDEL", B, heard.of("publish", B)[-1][1])
    await add(redis, B, "d")
    await harness.eventually(lambda: heard.count("publish") == 5)
    assert heard.count("confirmed") == 3, "an entry that was read may be deleted"
    await redis.command("MULTI")
    redis.command("XADD", A, "*", "d", "9")
    redis.command("XTRIM", A, "MAXLEN", "0")
    await redis.command("EXEC")
    await harness.eventually(lambda: heard.count("confirmed") == 4)


@pytest_twisted.ensureDeferred
async def test_a_stream_that_is_none_is_refused_by_itself(harness: Harness) -> None:
    """Before it is read, and when it ceases to be one; the others flow."""
    server = await harness.redis()
    redis = await server.connect()
    await redis.command("SET", A, "1")
    source, heard = source_on(harness, server)
    for stream in (A, B, "trade@C"):
        source.want(stream)
    await harness.eventually(lambda: heard.of("refused", A) == [("WRONGTYPE",)])
    await harness.eventually(lambda: blocked_for(redis))
    await redis.command("SET", "trade@C", "1")
    await add(redis, B, "1")
    await harness.eventually(lambda: heard.of("refused", "trade@C") == [("WRONGTYPE",)])
    await add(redis, B, "2")
    await harness.eventually(lambda: heard.count("publish") == 2)
    await redis.command("DEL", A)
    await harness.eventually(lambda: blocked_for(redis))
    await cut(redis)
    await harness.eventually(lambda: heard.of("confirmed", A) == [("0-0",)])


@pytest_twisted.ensureDeferred
async def test_permissions(harness: Harness, logged: LogCapture) -> None:
    """A key that may not be read is refused by itself; without CLIENT UNBLOCK wishes are followed all the same."""
    server = await harness.redis()
    redis = await server.connect()
    rights = ("+ping", "+xread", "+xrevrange", "+xinfo|stream", "+client|id", "+info")
    await redis.command("ACL", "SETUSER", "reader", "on", ">x", "~trade@*", *rights)
    source, heard = source_on(harness, server, user="reader")
    source.want(A)
    await harness.eventually(lambda: heard.count("confirmed") == 1)
    source.want("depth@A")
    await harness.eventually(lambda: heard.of("refused", "depth@A") == [("NOPERM",)])
    source.want(B)
    await harness.eventually(lambda: heard.count("confirmed") == 2)
    await add(redis, B, "1")
    await harness.eventually(lambda: heard.count("publish") == 1)
    assert any("wishes are followed within" in text for text in logged.formats())
    await redis.command("ACL", "SETUSER", "reader", "resetkeys", f"~{A}")
    await add(redis, A, "2")
    await harness.eventually(lambda: heard.of("refused", B) == [("NOPERM",)])
    await harness.eventually(lambda: heard.count("publish") == 2)


@pytest_twisted.ensureDeferred
async def test_a_user_who_may_not_read_at_all(harness: Harness, logged: LogCapture) -> None:
    """The link is given up, with the server's own words, and made anew later."""
    server = await harness.redis()
    redis = await server.connect()
    rights = ("+ping", "+xrevrange", "+xinfo|stream")
    await redis.command("ACL", "SETUSER", "reader", "on", ">x", "~*", *rights)
    source, heard = source_on(harness, server, user="reader")
    source.want(A)
    await harness.eventually(lambda: heard.count("refused") == 1)
    await redis.command("ACL", "SETUSER", "reader", "+xread", "-xinfo|stream")
    source.want(B)
    await harness.eventually(lambda: heard.of("refused", B) == [("NOPERM",)])


@pytest_twisted.ensureDeferred
async def test_an_entry_without_a_publication_is_passed_over(harness: Harness, logged: LogCapture) -> None:
    """And said in the log; further fields are nobody's business."""
    server = await harness.redis()
    redis = await server.connect()
    source, heard = source_on(harness, server)
    source.want(A)
    await harness.eventually(lambda: heard.count("confirmed") == 1)
    await redis.command("XADD", A, "1-0", "x", "1")
    await redis.command("XADD", A, "2-0", "x", "1", "d", "2")
    await harness.eventually(lambda: heard.of("publish", A) == [("2", "2-0")])
    await redis.command("XADD", A, "3-0", "x", "1")
    await harness.eventually(lambda: logged.formats().count(NAMELESS) == 2)
    await harness.eventually(lambda: blocked_for(redis))
    await cut(redis)
    await harness.eventually(lambda: heard.count("confirmed") == 2)
    assert heard.of("confirmed")[-1] == ("2-0",), "what was not published is no offset"
    await redis.command("XADD", A, "4-0", "d", "4")
    await harness.eventually(lambda: heard.of("publish", A)[-1] == ("4", "4-0"))


@pytest.mark.parametrize("command", ["XINFO", "XREAD"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_know_streams(harness: Harness, logged: LogCapture, command: str) -> None:
    """Its own words are the cause of a lost link."""
    server = await harness.redis("--rename-command", command, "")
    source, heard = source_on(harness, server)
    source.want(A)
    await harness.eventually(lambda: heard.count("lost") >= 1)
    assert any("ERR unknown command" in str(event.get("cause")) for event in logged.events)


@pytest_twisted.ensureDeferred
async def test_wishes_do_not_wait_for_the_end_of_a_rest(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would last for an hour here; and what is no longer wanted when its answer comes is not confirmed."""
    monkeypatch.setattr(read_pace, "REST_SECONDS", 3600)
    monkeypatch.setattr(read_pace, "MOST_REST", 3600)
    _, redis, heard = await reading(harness, A)
    source = heard.source
    await add(redis, A, "1")
    await harness.eventually(lambda: heard.count("publish") == 1)
    source.want("trade@C")
    source.unwant("trade@C")
    source.want(B)
    await harness.eventually(lambda: heard.of("confirmed", B) == [("0-0",)])
    assert heard.of("confirmed", "trade@C") == []


@pytest_twisted.ensureDeferred
async def test_a_sink_that_has_enough(harness: Harness) -> None:
    """A stream that is unwanted by what one of its publications caused is not read on."""
    _, redis, heard = await reading(harness, A)
    heard.unwants = True
    await redis.command("MULTI")
    redis.command("XADD", A, "1-0", "d", "1")
    await redis.command("EXEC")
    await harness.eventually(lambda: heard.count("publish") == 1)
    await add(redis, A, "2")
    heard.source.want(B)
    await harness.eventually(lambda: heard.count("confirmed") == 2)
    assert heard.count("publish") == 1


@pytest_twisted.ensureDeferred
async def test_what_was_deleted_before_it_was_read(harness: Harness) -> None:
    """The stream is begun anew under higher ids, so that what was read last is where it should be: that is counted."""
    _, redis, heard = await reading(harness, A)
    await redis.command("XADD", A, "1-0", "d", "one")
    await harness.eventually(lambda: heard.count("publish"))
    for words in (("MULTI",), ("XADD", A, "2-0", "d", "two"), ("DEL", A), ("XADD", A, "3-0", "d", "three"), ("EXEC",)):
        await redis.command(*words)
    await harness.eventually(lambda: heard.count("missed"))
    assert heard.of("publish") == [("one", "1-0"), ("three", "3-0")]
    await redis.command("XADD", A, "4-0", "d", "four")
    await redis.command("XTRIM", A, "MAXLEN", "1")
    await harness.eventually(lambda: heard.count("publish") == 3)
    rounds = heard.source._checks._verification  # type: ignore[attr-defined]
    turn = rounds._rounds._last
    await harness.eventually(lambda: rounds._rounds._last > turn + 2)
    assert heard.count("missed") == 1, "what was trimmed behind the reader is not missing"


@pytest_twisted.ensureDeferred
async def test_a_state_is_given_behind_all_that_was_added_before_it_was_read(harness: Harness) -> None:
    """However late the read of the stream; where nothing was added, at once; on a link that is lost, not at all."""
    server = await harness.redis()
    redis = await server.connect()
    states = FakeSnapshots()
    states.states = {A: b"a", B: b"b"}
    archive = RedisArchive(await commands_on(harness, server))
    source, heard = source_on(harness, server, archive=archive)
    ordered = OrderedSnapshots(states, source.catch_up)
    assert await ordered.read(A) is None  # there is no link yet
    for stream in (A, B):
        source.want(stream)
    await harness.eventually(lambda: heard.count("confirmed") == 2)
    await harness.eventually(lambda: blocked_for(redis))
    assert await ordered.read(A) == b"a"
    assert source.link is not None
    source.link.transport.pauseProducing()
    await add(redis, A, "1", "2")
    given: list[object] = []
    ordered.read(A).addCallback(lambda state: given.append((state, heard.count("publish"))))
    assert await ordered.read(B) == b"b"  # what was asked for A was answered before
    assert given == []
    source.link.transport.resumeProducing()
    await harness.eventually(lambda: bool(given))
    assert given == [(b"a", 2)]
    await harness.eventually(lambda: blocked_for(redis))
    source.link.transport.pauseProducing()
    await add(redis, A, "3")
    await add(redis, B, "4")
    for stream in (A, B):
        ordered.read(stream).addCallback(lambda state: given.append((state, heard.count("lost"))))
    await archive.newest(B, 1, 1)  # what was asked for both was answered before
    source.unwant(B)
    assert given[1:] == [(None, 0)]
    source.link.transport.abortConnection()
    await harness.eventually(lambda: len(given) == 3)
    assert given[2:] == [(None, 1)]
