"""One connection to a Redis server, in memory: its login, what is said of every way in which it can fail, and
publications on a link that is subscribed: dispatched as txredisapi does, read by a reader of our own.
"""

from __future__ import annotations

import errno
from typing import Any

import hiredis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from txredisapi import SubscriberProtocol

from marketfeed.redis.address import RedisAddress, parse_redis_url
from marketfeed.redis.link import RedisLink, SubscriberLink, explain
from marketfeed.redis.pubsub import RedisPubSub
from marketfeed.redis.replies import Channels, tell
from tests.redis.memory import PONG, Connection, resp

OK = b"+OK\r\n"
FULL = RedisAddress(username="feed", password="a secret", database=3)
NOT_REDIS = "the answer is not in Redis' protocol, is it a Redis server?"


class Login:
    """A login, the server's side of it, and how it ended: None, or why not."""

    def __init__(self, address: RedisAddress = FULL) -> None:
        self.clock = Clock()
        link = RedisLink(self.clock)
        self.server = Connection(self.clock, link)
        link.makeConnection(self.server)
        self.ended: list[str | None] = []
        Deferred.fromCoroutine(link.log_in(address)).addErrback(lambda failure: str(failure.value)).addCallback(
            self.ended.append
        )


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("redis://h", [(b"PING",)]),
        ("redis://:p%40ss@h", [(b"AUTH", b"p@ss"), (b"PING",)]),
        ("redis://feed:pass@h", [(b"AUTH", b"feed", b"pass"), (b"PING",)]),
        ("redis://feed@h", [(b"PING",)]),
        ("redis://h/7", [(b"SELECT", b"7"), (b"PING",)]),
        ("unix://feed:pass@/run/r?db=2", [(b"AUTH", b"feed", b"pass"), (b"SELECT", b"2"), (b"PING",)]),
    ],
)
def test_the_login_is_as_the_address_says(url: str, asked: list[tuple[bytes, ...]]) -> None:
    """The commands go one by one; the last is PING."""
    login = Login(parse_redis_url(url))
    for command in asked:
        assert login.server.asked() == [command]
        assert login.ended == []
        login.server.say(PONG if command == (b"PING",) else OK)
    assert login.ended == [None]
    assert login.server.asked() == []


MASTER = RedisAddress(master_only=True)


def test_where_only_a_master_will_do() -> None:
    """It is asked for its role last."""
    login = Login(MASTER)
    login.server.answer(PONG, resp([b"master", 3129659, []]))
    assert login.ended == [None]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (resp([b"slave", b"10.0.0.1", 6379, b"connected", 7]), "the server is no master, though the sentinels say so"),
        (resp([b"sentinel", [b"feed"]]), "the server is no master, though the sentinels say so"),
        (PONG, "the server is no master, though the sentinels say so"),
        (resp("NOPERM this user"), "the server does not say whether it is the master: NOPERM this user"),
    ],
)
def test_who_is_no_master(answer: bytes, cause: str) -> None:
    login = Login(MASTER)
    login.server.answer(PONG, answer)
    assert login.ended == [cause]


def test_an_answer_may_come_in_pieces() -> None:
    """Where the network cuts the bytes does not matter."""
    login = Login(RedisAddress())
    for byte in PONG:
        assert login.ended == []
        login.server.say(bytes([byte]))
    assert login.ended == [None]


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        (
            [b"-WRONGPASS invalid username-password pair.\r\n"],
            "the login was refused: WRONGPASS invalid username-password pair.",
        ),
        ([OK, b"-ERR DB index is out of range\r\n"], "database 3 cannot be used: ERR DB index is out of range"),
        (
            [OK, OK, b"-NOAUTH Authentication required.\r\n"],
            "the server does not serve us: NOAUTH Authentication required.",
        ),
        (
            [OK, OK, b"-LOADING Redis is loading the dataset in memory\r\n"],
            "the server does not serve us: LOADING Redis is loading the dataset in memory",
        ),
        ([b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"], NOT_REDIS),
        ([OK, b"\x15\x03\x03\x00\x02\x02\x46"], NOT_REDIS),
        ([OK, OK, b"SSH-2.0-OpenSSH_9.2\r\n"], NOT_REDIS),
    ],
)
def test_a_login_that_fails(answers: list[bytes], cause: str) -> None:
    """What the server objects to is said in its own words."""
    login = Login()
    login.server.answer(*answers)
    login.clock.advance(0)
    assert login.ended == [cause]


@pytest.mark.parametrize("answered", [0, 1, 2])
@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_is_silent(answered: int, tls: bool) -> None:
    """It is not waited for: one without TLS waits for the end of a line in what is a handshake to us."""
    login = Login(RedisAddress(username="feed", password="a secret", database=3, tls=tls))
    login.server.answer(*[OK] * answered)
    login.clock.advance(9.9)
    assert login.ended == []
    login.clock.advance(0.2)
    assert login.ended == [f"no answer within 10 s, is it a Redis server{' with TLS' * tls}?"]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (error.DNSLookupError("no results for hostname lookup: x"), "the host name is not known"),
        (error.ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "connection refused"),
        (error.TimeoutError(), "no connection within the time-out"),
        (error.NoRouteError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (error.ConnectError(errno.ENOENT, "No such file or directory"), "No such file or directory"),
        (error.ConnectError(), "ConnectError: An error occurred while connecting."),
        (OSError("AF_UNIX path too long"), "OSError: AF_UNIX path too long"),
        (RuntimeError("first\n  second"), "RuntimeError: first second"),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 186),
        (error.ConnectionDone(), "the connection was closed"),
        (error.ConnectionLost(), "the connection was closed"),
        (
            SSL.Error([("SSL routines", "", "certificate verify failed")]),
            "TLS: SSL routines: certificate verify failed",
        ),
        (SSL.Error([]), "TLS: the handshake failed"),
        (SSL.Error(), "TLS: the handshake failed"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "TLS: Unexpected EOF"),
        (VerificationError(errors=[]), "TLS: the certificate is for another host"),
    ],
)
def test_each_way_to_fail_is_one_line(fault: Exception, cause: str) -> None:
    """In words that an operator knows."""
    assert str(explain(Failure(fault))) == cause


Heard = tuple[object, ...]


class Link(SubscriberLink):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.told: list[Heard] = []

    def read_begins(self) -> None:
        self.told.append(("begins",))

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        self.told.append((pattern, channel, message))

    def heard(self, reply: Any) -> None:
        self.told.append(("heard", reply))

    def read_ends(self) -> None:
        self.told.append(("ends",))


class Theirs(SubscriberProtocol):
    """txredisapi's own dispatch."""

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.told: list[Heard] = []

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        self.told.append((pattern, channel, message))


def up() -> Link:
    link = Link()
    link.makeConnection(StringTransport())
    link.is_up = True
    return link


words = st.one_of(st.binary(max_size=8), st.sampled_from([b"message", b"pmessage", b"subscribe", b"1.5"]))
patterns = words.filter(lambda word: word != b"message")  # which txredisapi takes for the kind of the reply
publications = st.one_of(
    st.tuples(st.just(b"message"), words, words), st.tuples(st.just(b"pmessage"), patterns, words, words)
)


@given(st.lists(publications, min_size=1, max_size=10))
def test_it_dispatches_as_txredisapi_does(replies: list[tuple[bytes, ...]]) -> None:
    """Every publication comes to `messageReceived` with what txredisapi would pass to it."""
    link, theirs = up(), Theirs()
    link.dataReceived(b"".join(resp([*reply]) for reply in replies))
    for reply in replies:
        theirs.replyReceived(list(reply))
    assert link.told == [("begins",), *theirs.told, ("ends",)]


@example([5, 9000, 30_000, 100, 100], 40_000)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=12), st.integers(1, 40_000))
def test_however_much_comes_at_once_all_is_told_in_order(sizes: list[int], most: int) -> None:
    """The parser gets it in portions, whose ends are anywhere in it; so are those of what has come."""
    link = up()
    sent = b"".join(resp([b"message", b"%d" % number, b"x" * size]) for number, size in enumerate(sizes))
    for start in range(0, len(sent), most):
        link.dataReceived(sent[start : start + most])
    told = [what for what in link.told if len(what) == 3]
    assert told == [(None, b"%d" % number, b"x" * size) for number, size in enumerate(sizes)]


def test_what_is_no_publication_is_heard_in_its_place() -> None:
    """Between the publications around it."""
    link = up()
    link.dataReceived(resp([b"message", b"a", b"1"]) + b"+PONG\r\n" + resp([b"message", b"a", b"2"]))
    assert link.told[1:-1] == [(None, b"a", b"1"), ("heard", b"PONG"), (None, b"a", b"2")]


@given(st.lists(st.one_of(publications, st.just((b"pong", b""))), max_size=10), st.sets(words))
def test_what_nobody_overrides_is_told_the_same_without_the_call(
    replies: list[tuple[bytes, ...]], wanted: set[bytes]
) -> None:
    """`Channels.tell` is `tell` with `Channels.received`."""
    data = b"".join(resp([*reply]) for reply in replies)
    streams = {channel: repr(channel) for channel in wanted}
    told: list[Heard] = []
    channels = Channels(streams, lambda stream, payload: told.append((stream, payload)))
    tell(hiredis.Reader(), data, channels.received, lambda reply: told.append(("heard", reply)))
    expected = told.copy()
    told.clear()
    channels.tell(hiredis.Reader(), data, lambda reply: told.append(("heard", reply)))
    assert told == expected


def test_the_source_of_the_daemon_is_told_by_messageReceived() -> None:
    """Whoever overrides it sees every publication that clients get."""
    told: list[Heard] = []

    class Sink:
        def publish(self, stream: str, payload: bytes) -> None:
            told.append((stream, payload))

        def flush(self) -> None:
            told.append(("flush",))

    source = RedisPubSub(Clock(), None, None, Sink(), None)  # type: ignore[arg-type]  # it makes a link, and is not started
    link = source.make_link()
    assert isinstance(link, SubscriberProtocol)
    source.streams[b"trade@A"] = "trade@A"
    link.is_up = True
    received = link.messageReceived
    link.messageReceived = lambda *what: (told.append(what), received(*what))  # type: ignore[method-assign,assignment]
    link.dataReceived(resp([b"message", b"trade@A", b"1"]))
    assert told == [(None, b"trade@A", b"1"), ("trade@A", b"1"), ("flush",)]
