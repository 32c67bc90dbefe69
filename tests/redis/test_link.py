"""One connection to a Redis server, in memory: its login, and what is said of every way in which it can fail."""

from __future__ import annotations

import errno

import pytest
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from marketfeed.redis.address import RedisAddress, parse_redis_url
from marketfeed.redis.link import RedisLink, explain
from tests.redis.memory import PONG, Connection

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
