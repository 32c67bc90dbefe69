"""Publishing with a bounded number under way, to a server that is the other end of a pair of sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from marketfeed.commands.recording import publisher
from marketfeed.commands.recording.publisher import ReplayPublisher
from marketfeed.commands.redis_link import RedisFault, RedisLink
from marketfeed.commands.redis_links import RedisLinks
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.tls import RedisTls
from tests.redis.memory import commands_in


class Links(RedisLinks):
    """Links that are there already; channels are at the first one."""

    def __init__(self, links: dict[RedisAddress, RedisLink]) -> None:
        self.there = links
        self.places: dict[bytes, RedisAddress] = {}
        self.moves: list[str] = []
        first = next(iter(links))
        super().__init__(lambda channel: self.places.get(channel, first), RedisTls(), moved=self.moves.append)

    def connect(self, address: RedisAddress) -> RedisLink:
        return self.there[address]


def links_of(link: socket.socket) -> RedisLinks:
    """A server that has everything."""
    links = Links({RedisAddress(): RedisLink(link)})
    links.at(b"")
    return links


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
        self.publisher = ReplayPublisher(links_of(link), self.clock)

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


class Pair:
    """Two servers, which answer whenever the clock is looked at. `has`: which of them has a channel."""

    def __init__(self) -> None:
        self.near, self.far = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        self.addresses = [RedisAddress(host="one"), RedisAddress(host="two")]
        near = [RedisLink(each) for each in self.near]
        self.links = Links(dict(zip(self.addresses, near, strict=True)))
        self.links.verb = b"SPUBLISH"
        self.has = {b"trade@A": 0, b"trade@B": 1}
        self.learns = True
        self.now = 0.0
        self.published: list[tuple[int, bytes, bytes]] = []
        for each in self.far:
            each.setblocking(False)
        self.learn()
        self.publisher = ReplayPublisher(self.links, self.clock)

    def learn(self) -> None:
        self.links.places |= {channel: self.addresses[index] for channel, index in self.has.items()}

    def clock(self) -> float:
        self.now += 0.01
        for index in (0, 1):
            self.serve(index)
        return self.now

    def serve(self, index: int) -> None:
        try:
            commands = commands_in(self.far[index].recv(1 << 20))
        except BlockingIOError:
            return
        for verb, channel, payload in commands:
            assert verb == b"SPUBLISH"
            if self.has[channel] != index:
                self.far[index].send(b"-MOVED 1 other:1\r\n")
                if self.learns:
                    self.learn()
            else:
                self.published.append((index, channel, payload))
                self.far[index].send(b":1\r\n")

    def close(self) -> None:
        for each in (*self.near, *self.far):
            each.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_each_server_gets_its_own(pair: Pair) -> None:
    """A connection is made when it is needed first."""
    publisher = pair.publisher
    publisher.publish(b"trade@A", b"1", ("file", 1))
    assert len(pair.links.each) == 1
    publisher.publish(b"trade@B", b"2", ("file", 2))
    publisher.publish(b"trade@A", b"3", ("file", 3))
    publisher.finish()
    assert sorted(pair.published) == [(0, b"trade@A", b"1"), (0, b"trade@A", b"3"), (1, b"trade@B", b"2")]
    assert (publisher.answered, publisher.unheard, publisher.in_flight) == (3, 0, 0)


@pytest.mark.parametrize("before", range(5))
def test_what_has_moved_is_published_where_it_is_in_order(pair: Pair, before: int) -> None:
    """Before anything new of it, and each once."""
    publisher = pair.publisher
    for number in range(before):
        publisher.publish(b"trade@A", b"%d" % number, ("file", number))
    publisher.wait(0)
    for number in range(before, 5):
        publisher.publish(b"trade@A", b"%d" % number, ("file", number))
    pair.has[b"trade@A"] = 1
    publisher.wait(0.1)
    publisher.publish(b"trade@A", b"5", ("file", 5))
    publisher.publish(b"trade@B", b"6", ("file", 6))
    publisher.finish()
    assert [payload for _, channel, payload in pair.published if channel == b"trade@A"] == [b"%d" % n for n in range(6)]
    assert (1, b"trade@A", b"5") in pair.published
    assert (publisher.answered, publisher.in_flight) == (7, 0)


def test_a_channel_that_no_server_takes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the end after a while, with the place of the publication."""
    monkeypatch.setattr(publisher, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(publisher, "_MOVE_SECONDS", 0)
    pair.has[b"trade@A"] = 2
    pair.learns = False
    pair.publisher.publish(b"trade@A", b"1", ("file", 7))
    with pytest.raises(RedisFault, match=r"^file:7: no server takes the publication$"):
        pair.publisher.finish()


def test_a_channel_that_no_server_has() -> None:
    """Nor had any from the beginning."""
    links = RedisLinks(lambda channel: None, RedisTls())
    with pytest.raises(RedisFault, match="no server has the channel trade@A at the moment"):
        ReplayPublisher(links).publish(b"trade@A", b"1", ("file", 1))
