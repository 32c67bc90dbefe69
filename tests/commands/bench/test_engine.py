"""The engine of a load test: what it publishes is valid, numbered without holes, and complete however slow Redis is."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import hiredis
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.commands.bench.engine import EngineFault, NumberedEngine, connect_to_redis, depth_update, trade
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.address import RedisAddress


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
        engine = NumberedEngine(pair[0], ["trade@A", "depth@B"], "x:", levels=2)
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
        engine = NumberedEngine(pair[0], ["trade@A", "trade@B"])
        engine.publish(3, 1000.5, 0.25)
        got = commands(pair[1], hiredis.Reader())
        assert [msgspec.json.decode(command[2])["T"] for command in got] == [1000.5, 1000.75, 1001]

    @pytest.mark.parametrize("size", [0, 90, 96, 97, 500])
    def test_a_payload_has_at_least_the_size_that_was_asked_for(
        self, pair: tuple[socket.socket, socket.socket], size: int
    ) -> None:
        """It is padded by a field that nobody reads, and stays valid."""
        engine = NumberedEngine(pair[0], ["trade@A"], payload_bytes=size)
        engine.publish(1, 1.7e12)
        ((_, _, payload),) = commands(pair[1], hiredis.Reader())
        assert size <= len(payload) <= max(size + 6, len(trade("A", 1, 1.7e12)))
        assert reader("trade@A").read(payload) == payload

    def test_what_a_slow_server_does_not_take_waits(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """Nothing is lost, nothing overtakes, and whoever publishes is told to hold on."""
        engine = NumberedEngine(pair[0], ["trade@A"], payload_bytes=10_000)
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
        engine = NumberedEngine(pair[0], ["trade@A"])
        pair[1].send(b":1\r\n:0\r\n:0\r")
        engine.read_replies()
        engine.read_replies()
        assert engine.unheard == 1
        pair[1].send(b"\n")
        engine.read_replies()
        assert engine.unheard == 2

    @pytest.mark.parametrize(
        ("said", "fault"),
        [
            (b"-NOPERM no\r\n", "Redis refuses a publication: NOPERM no"),
            (b"nonsense\r\n", "Redis' answer cannot be read"),
            (b"", "Redis has closed the connection"),
        ],
    )
    def test_what_ends_it(self, pair: tuple[socket.socket, socket.socket], said: bytes, fault: str) -> None:
        """A refusal, an answer of something else, or none at all, is told in one line."""
        engine = NumberedEngine(pair[0], ["trade@A"])
        pair[1].send(said)
        if not said:
            pair[1].close()
        with pytest.raises(EngineFault, match=fault):
            engine.read_replies()

    def test_a_server_that_is_gone(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """Publishing tells so."""
        engine = NumberedEngine(pair[0], ["trade@A"])
        pair[1].close()
        with pytest.raises(EngineFault, match="the connection to Redis is lost"):
            engine.publish(1, 1)


class Listener:
    """Takes one connection, and gives prepared answers, each to one read."""

    def __init__(self, listening: socket.socket, *answers: bytes) -> None:
        self.got: list[bytes] = []
        self._answers = answers
        self._socket = listening
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @classmethod
    def at(cls, path: Path, *answers: bytes) -> Listener:
        """On a Unix socket."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        return cls(listening, *answers)

    def _serve(self) -> None:
        with self._socket, self._socket.accept()[0] as link:
            for answer in self._answers:
                self.got.append(link.recv(65536))
                link.sendall(answer)
            with contextlib.suppress(ConnectionResetError):
                link.recv(65536)

    def join(self) -> None:
        self._thread.join()


class TestConnect:
    def test_it_logs_in(self, tmp_path: Path) -> None:
        """User, password and database are those of the address."""
        server = Listener.at(tmp_path / "s", b"+OK\r\n", b"+OK\r\n", b"+PONG\r\n")
        address = RedisAddress(path=str(tmp_path / "s"), username="u", password="p", database=3)
        connect_to_redis(address).close()
        server.join()
        redis = hiredis.Reader()
        redis.feed(b"".join(server.got))
        assert [redis.gets() for _ in range(3)] == [[b"AUTH", b"u", b"p"], [b"SELECT", b"3"], [b"PING"]]

    @pytest.mark.parametrize(
        ("answers", "fault"),
        [
            ([b"-WRONGPASS no\r\n"], "WRONGPASS no"),
            ([b"HTTP/1.1 400\r\n"], "is it a Redis server"),
            ([], "the connection was closed"),
        ],
    )
    def test_a_refusal_is_one_line_without_the_password(self, tmp_path: Path, answers: list[bytes], fault: str) -> None:
        """It names the server and the reason."""
        server = Listener.at(tmp_path / "s", *answers)
        with pytest.raises(EngineFault, match=fault) as caught:
            connect_to_redis(RedisAddress(path=str(tmp_path / "s"), password="secret"))
        assert "secret" not in str(caught.value)
        server.join()

    def test_tcp(self) -> None:
        """What is published is not held back to be sent with more."""
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = Listener(listening, b"+PONG\r\n")
        with connect_to_redis(RedisAddress(host="127.0.0.1", port=port)) as link:
            assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        server.join()

    def test_tls_that_cannot_be_trusted(self, tmp_path: Path) -> None:
        """A server that does not speak it, or a file of no certificates, is one line."""
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = Listener(listening, b"-ERR what?\r\n")
        with pytest.raises(EngineFault, match=rf"cannot reach rediss://127\.0\.0\.1:{port}: .*(?i:ssl|version)"):
            connect_to_redis(RedisAddress(host="127.0.0.1", port=port, tls=True))
        server.join()

    def test_nobody_there(self, tmp_path: Path) -> None:
        """A path, or a port, that nobody listens on."""
        with pytest.raises(EngineFault, match=r"cannot reach unix://.*: No such file or directory"):
            connect_to_redis(RedisAddress(path=str(tmp_path / "none")))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            with pytest.raises(EngineFault, match="Connection refused"):
                connect_to_redis(RedisAddress(host="127.0.0.1", port=free.getsockname()[1]))
