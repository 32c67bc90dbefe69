"""The engine of a load test: what it publishes is valid, numbered without holes, and complete however slow Redis is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import hiredis
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.commands.bench.engine import NumberedEngine, depth_update, trade
from marketfeed.commands.redis_link import RedisFault, RedisLink
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds


def reader(stream: str) -> PublicationReader:
    return PublicationReader(StreamKinds().parse(stream), [stream], 262144)


class TestMessages:
    @settings(deadline=None)
    @given(st.integers(1, 10**9))
    def test_a_trade_is_what_a_strict_daemon_accepts(self, number: int) -> None:
        """Nothing of a load test is dropped."""
        payload = trade("BENCH-1", number, 1.7e12).encode()
        assert reader("trade@BENCH-1").read(payload) is payload
        decoded = msgspec.json.decode(payload)
        assert (decoded["t"], decoded["T"], decoded["s"]) == (number, 1.7e12, "BENCH-1")

    @settings(deadline=None)
    @given(st.integers(1, 10**9), st.integers(1, 100))
    def test_a_depth_update_changes_so_many_levels_that_never_cross(self, number: int, levels: int) -> None:
        """Prices are distinct, bids below asks, and the ids let a daemon merge it."""
        payload = depth_update("BENCH-1", number, 1.7e12, levels).encode()
        assert reader("depth@BENCH-1").read(payload) is payload
        decoded = msgspec.json.decode(payload)
        asks, bids = ([float(price) for price, _ in decoded[side]] for side in "ab")
        assert len(set(asks)) == len(set(bids)) == levels
        assert 0 < max(bids) < min(asks)
        assert decoded["U"] == decoded["u"] == number


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The engine's end and the server's."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def commands(link: socket.socket, redis: hiredis.Reader) -> list[list[bytes]]:
    """What the server has got since the last time."""
    try:
        while data := link.recv(1 << 20):
            redis.feed(data)
    except BlockingIOError:
        pass
    found = []
    while (command := redis.gets()) is not False:
        found.append(command)
    return found


class TestNumberedEngine:
    def test_it_publishes_to_each_stream_in_turn(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """Each has its numbers, from 1 on; the channel has the prefix, the payload has not."""
        engine = NumberedEngine(RedisLink(pair[0]), ["trade@A", "depth@B"], "x:", levels=2)
        assert engine.publish(3, 1000.5) == [0, 1, 0]
        assert engine.publish(1, 1001) == [1]
        assert (engine.published, engine.total) == ([2, 2], 4)
        got = commands(pair[1], hiredis.Reader())
        assert [command[:2] for command in got] == [[b"PUBLISH", b"x:trade@A"], [b"PUBLISH", b"x:depth@B"]] * 2
        payloads = [msgspec.json.decode(command[2]) for command in got]
        assert [payload.get("t", payload.get("u")) for payload in payloads] == [1, 1, 2, 2]
        assert [payload["T"] for payload in payloads] == [1000.5, 1000.5, 1000.5, 1001]
        assert [payload["s"] for payload in payloads] == ["A", "B", "A", "B"]

    def test_each_message_may_have_a_time_of_its_own(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """When it was due, as a paced test has it: published together, they were not due together."""
        engine = NumberedEngine(RedisLink(pair[0]), ["trade@A", "trade@B"])
        engine.publish(3, 1000.5, 0.25)
        got = commands(pair[1], hiredis.Reader())
        assert [msgspec.json.decode(command[2])["T"] for command in got] == [1000.5, 1000.75, 1001]

    @pytest.mark.parametrize("size", [0, 90, 96, 97, 500])
    def test_a_payload_has_at_least_the_size_that_was_asked_for(
        self, pair: tuple[socket.socket, socket.socket], size: int
    ) -> None:
        """It is padded by a field that nobody reads, and stays valid."""
        engine = NumberedEngine(RedisLink(pair[0]), ["trade@A"], payload_bytes=size)
        engine.publish(1, 1.7e12)
        ((_, _, payload),) = commands(pair[1], hiredis.Reader())
        assert size <= len(payload) <= max(size + 6, len(trade("A", 1, 1.7e12)))
        assert reader("trade@A").read(payload) == payload

    def test_what_a_slow_server_does_not_take_waits(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """Nothing is lost, nothing overtakes, and whoever publishes is told to hold on."""
        engine = NumberedEngine(RedisLink(pair[0]), ["trade@A"], payload_bytes=10_000)
        for _ in range(10):
            engine.publish(100, 1)
        assert engine.is_behind
        assert engine.has_waiting
        redis, got = hiredis.Reader(), []
        for _ in range(1000):
            got += commands(pair[1], redis)
            engine.flush()
        assert not engine.has_waiting
        assert [msgspec.json.decode(command[2])["t"] for command in got] == list(range(1, engine.total + 1))

    def test_it_notes_publications_that_nobody_reads(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """That is how a wrong server shows."""
        engine = NumberedEngine(RedisLink(pair[0]), ["trade@A"])
        pair[1].send(b":1\r\n:0\r\n:0\r")
        engine.read_replies()
        engine.read_replies()
        assert engine.unheard == 1
        pair[1].send(b"\n")
        engine.read_replies()
        assert engine.unheard == 2

    def test_a_refusal_ends_it(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """In one line; what else may happen to the link is told as it is in a replay."""
        engine = NumberedEngine(RedisLink(pair[0]), ["trade@A"])
        pair[1].send(b"-NOPERM no\r\n")
        with pytest.raises(RedisFault, match="Redis refuses a publication: NOPERM no"):
            engine.read_replies()
