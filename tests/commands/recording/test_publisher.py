"""Publishing with a bounded number under way, to a server that is the other end of a pair of sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from marketfeed.commands.recording import publisher
from marketfeed.commands.recording.publisher import ReplayPublisher
from marketfeed.commands.redis_link import RedisFault, RedisLink
from tests.redis.memory import commands_in


class Server:
    """The other end. It answers when the test says so, or, with `answers`, whenever the clock is looked at."""

    def __init__(self) -> None:
        link, self.socket = socket.socketpair()
        self.socket.setblocking(False)
        self.now = 0.0
        self.step = 0.0
        self.answers = b""
        self.received = b""
        self._answered = 0
        self.link = link
        self.publisher = ReplayPublisher(RedisLink(link), self.clock)

    def clock(self) -> float:
        self.now += self.step
        if self.answers:
            self.receive()
            asked = self.received.count(b"PUBLISH")
            self.socket.send(self.answers * (asked - self._answered))
            self._answered = asked
        return self.now

    def receive(self) -> None:
        """All that has come."""
        try:
            while data := self.socket.recv(1 << 20):
                self.received += data
        except BlockingIOError:
            pass

    def commands(self) -> list[tuple[bytes, ...]]:
        self.receive()
        return commands_in(self.received)

    def publish(self, *payloads: bytes) -> None:
        for number, payload in enumerate(payloads, 1):
            self.publisher.publish(b"trade@A", payload, ("file", number))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.link.close()
    server.socket.close()


def test_order_and_bytes(server: Server) -> None:
    """Whatever they are; sent at the latest when it is waited for."""
    server.answers = b":1\r\n"
    payloads = [b"", b"\x00\r\n", b"x" * 900_000, *(b"%d" % number for number in range(3000))]
    server.publish(*payloads)
    server.publisher.finish()
    assert server.commands() == [(b"PUBLISH", b"trade@A", payload) for payload in payloads]
    assert (server.publisher.answered, server.publisher.unheard, server.publisher.in_flight) == (3003, 0, 0)


def test_publications_that_nobody_hears_are_counted(server: Server) -> None:
    """The server says how many subscribers each had."""
    server.answers = b":0\r\n"
    server.publish(b"1", b"2")
    server.publisher.finish()
    assert server.publisher.unheard == 2


def test_no_more_than_so_many_are_under_way(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, and by size."""
    monkeypatch.setattr(publisher, "MOST", 10)
    monkeypatch.setattr(publisher, "SILENT_SECONDS", 0.0)
    server.publish(*[b"1"] * 10)
    server.step = 1.0
    with pytest.raises(RedisFault, match="Redis has not answered for 0 s"):
        server.publish(b"1")
    assert len(server.commands()) == 10


def test_a_large_one_waits_for_all_before_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is sent then, though it is more than the most by itself."""
    monkeypatch.setattr(publisher, "MOST_BYTES", 50)
    server.answers = b":1\r\n"
    server.publish(b"x" * 40)
    server.publish(b"y" * 100)
    assert server.publisher.answered == 1
    server.publisher.finish()
    assert server.publisher.answered == 2


def test_waiting_sends_what_there_is(server: Server) -> None:
    """And reads answers, for as long as it was told."""
    server.publish(b"1", b"2")
    assert server.commands() == []
    server.step = 0.01
    server.publisher.wait(0.02)
    assert len(server.commands()) == 2
    server.socket.send(b":1\r\n")
    server.publisher.wait(0)
    assert (server.publisher.answered, server.publisher.in_flight) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b":1\r\n-NOPERM no\r\n", "file:2: Redis refuses the publication: NOPERM no"),
        (b"HTTP/1.1\r\n", "Redis' answer cannot be read"),
        (b":1\r\n" * 4, "Redis' answer cannot be read"),
    ],
)
def test_a_server_that_answers_something_else(server: Server, answer: bytes, fault: str) -> None:
    """It ends the replay, with the place of the publication where it is about one."""
    server.publish(b"1", b"2", b"3")
    server.socket.send(answer)
    with pytest.raises(RedisFault, match=fault):
        server.publisher.finish()


def test_a_server_that_goes_away(server: Server) -> None:
    """While it is waited for, or while it is written to."""
    server.publish(b"1")
    server.socket.close()
    with pytest.raises(RedisFault, match=r"Redis has closed the connection|the connection to Redis is lost"):
        server.publisher.finish()


def test_a_server_that_is_gone_before(server: Server) -> None:
    """Silence in a recording does not hide it."""
    server.socket.close()
    with pytest.raises(RedisFault, match="Redis has closed the connection"):
        server.publisher.wait(0)


def test_silence_counts_from_the_first_question(server: Server) -> None:
    """A pause of the recording is not the server's."""
    server.now = 1000.0
    server.publish(b"1")
    server.publisher.wait(0)
    server.answers = b":1\r\n"
    server.clock()
    server.publisher.finish()
