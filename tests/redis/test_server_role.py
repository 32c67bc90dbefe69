"""The role of a server, as it is asked for: which links are not made, which are ended, and what is known to be good."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hiredis import ReplyError
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import CommandRefused, OutOfReach
from marketfeed.redis.link import LinkError
from marketfeed.redis.server_role import RoleLink, RoleWatch, Server, read_server, server_of
from tests.conftest import LogCapture
from tests.redis.memory import commands_in, resp

CUT_OFF = "the server is a replica that has lost its master"
CHANGED = "the server has become another one's replica, or a master"
INFO = b"# Server\r\nredis_version:7.0.0\r\nrun_id:abc\r\ntcp_port:0\r\n"
MASTER = [b"master", 700, [[b"10.0.0.2", b"6379", b"700"]]]
NOPERM = "NOPERM this user has no permissions to run the 'info' command"


def replica(offset: int, state: bytes = b"connected", host: bytes = b"10.0.0.1") -> list[Any]:
    return [b"slave", host, 6379, state, offset]


# What the server says.


def test_who_a_server_is() -> None:
    """Its run id, and nothing where there is none."""
    assert server_of(INFO) == b"abc"
    assert server_of(b"run_id:5\n") == b"5"
    assert server_of(b"# Server\r\nx_run_id:5\r\n") is None
    assert server_of(ReplyError("NOPERM")) is None


def test_what_a_server_says() -> None:
    """A replica has a master, and is cut off in every state but one."""
    assert read_server(INFO, MASTER) == Server(b"abc")
    assert read_server(INFO, replica(3)) == Server(b"abc", (b"10.0.0.1", 6379), is_cut_off=False, offset=3)
    for state in (b"connect", b"connecting", b"handshake", b"sync"):
        assert read_server(INFO, replica(-1, state)).is_cut_off
    assert read_server(INFO, [b"sentinel", [b"mymaster"]]) == Server(b"abc")


@pytest.mark.parametrize(
    ("info", "role"),
    [(b"redis_version:7\r\n", MASTER), (None, MASTER), (INFO, None), (INFO, []), (INFO, b"OK"), (INFO, [b"slave"])],
)
def test_what_says_nothing(info: object, role: object) -> None:
    """As of something that is no Redis server, and stands for one."""
    with pytest.raises(ValueError, match=r"^the server does not say which one it is$"):
        read_server(info, role)


# The login.


def log_in(*replies: Any) -> tuple[RoleLink, list[Any]]:
    """A link to a server that replies so behind its PONG, and how the login ended."""
    link, transport = RoleLink(Clock()), StringTransport()
    link.makeConnection(transport)
    ended: list[Any] = []
    Deferred.fromCoroutine(link.log_in(RedisAddress())).addBoth(ended.append)
    asked = []
    for reply in (b"PONG", *replies):
        asked += commands_in(transport.value())
        transport.clear()
        link.dataReceived(resp(reply))
    assert asked == [(b"PING",), (b"INFO", b"server"), (b"ROLE",)][: len(asked)]
    return link, ended


def test_a_login_finds_out_whom_it_is_with() -> None:
    """A master, or a replica that has its own."""
    for role in (MASTER, replica(9)):
        link, ended = log_in(INFO, role)
        assert ended == [None]
        assert link.server == read_server(INFO, role)


@pytest.mark.parametrize(
    ("replies", "cause"),
    [
        ((INFO, replica(-1, b"connect")), CUT_OFF),
        ((INFO, replica(-1, b"sync")), CUT_OFF),
        (("BUSY a script is running",), "the server does not serve us: BUSY a script is running"),
    ],
)
def test_a_link_that_is_not_made(replies: tuple[Any, ...], cause: str) -> None:
    """To a replica without its master, and to a server that does not say."""
    _, ended = log_in(*replies)
    assert ended[0].check(LinkError)
    assert str(ended[0].value) == cause


@pytest.mark.parametrize("replies", [(NOPERM,), (INFO, NOPERM), (b"redis_version:7", MASTER)])
def test_a_server_that_does_not_tell(replies: tuple[Any, ...]) -> None:
    """Serves all the same; the link keeps why."""
    link, ended = log_in(*replies)
    assert ended == [None]
    assert link.server in (NOPERM, "the server does not say which one it is")


# From then on.


class World:
    """A watch over one link, and the link for commands, whose replies are the test's. `asked`: how often it was."""

    def __init__(self, role: list[Any] = MASTER) -> None:
        self.clock = Clock()
        self.watch = RoleWatch(self.clock, self, lambda: 1000 + self.clock.seconds())
        self.waiting: list[Deferred[Any]] = []
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.link = self.make_link(role)
        self.watch.begin(self.link)

    def make_link(self, role: list[Any] | None) -> RoleLink:
        link = RoleLink(self.clock)
        link.server = NOPERM if role is None else read_server(INFO, role)
        link.fail = self.faults.append  # type: ignore[method-assign]
        return link

    def ask(self, *words: bytes | str) -> Deferred[Any]:
        self.asked.append(str(words[0]))
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return waiting

    def pass_a_second(self) -> None:
        self.clock.advance(1)

    def reply(self, reply: Any) -> None:
        """Reply to what is asked."""
        waiting = self.waiting.pop(0)
        if isinstance(reply, Exception):
            waiting.errback(reply)
        else:
            waiting.callback(reply)

    def hear(self, role: list[Any], info: bytes = INFO) -> None:
        """Let a second pass, and the server answer."""
        self.pass_a_second()
        self.reply(info)
        self.reply(role)

    def stop(self) -> None:
        self.watch.end()
        assert self.clock.getDelayedCalls() == []


def test_a_master_was_good_when_it_was_asked_last() -> None:
    """For the answer that has come: not when it came, and not before there was any."""
    world = World()
    assert world.watch.good_at == 1000
    world.pass_a_second()
    world.clock.advance(0.5)
    world.reply(INFO)
    assert world.watch.good_at == 1000
    world.reply(MASTER)
    assert world.watch.good_at == 1001
    world.clock.advance(0.5)
    world.reply(INFO)
    world.reply([b"master", 900, []])
    assert world.watch.good_at == 1002
    assert world.asked == ["INFO", "ROLE"] * 2
    assert world.faults == []
    world.stop()


def test_a_replica_was_good_before_it_heard_from_its_master() -> None:
    """While its offset stands still, nobody knows whether the master lives."""
    world = World(replica(10))
    world.hear(replica(10))
    world.hear(replica(10))
    assert world.watch.good_at == 1000
    world.hear(replica(24))
    assert world.watch.good_at == 1002
    world.hear(replica(24))
    assert world.watch.good_at == 1002
    world.hear(replica(38))
    assert world.watch.good_at == 1004
    assert world.faults == []
    world.stop()


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        (replica(10), replica(-1, b"connect"), CUT_OFF),
        (MASTER, replica(-1, b"sync"), CUT_OFF),
        (MASTER, replica(5), CHANGED),
        (replica(5), MASTER, CHANGED),
        (replica(5), replica(6, host=b"10.0.0.9"), CHANGED),
    ],
)
def test_a_link_that_is_ended(before: list[Any], after: list[Any], fault: str) -> None:
    """When the server is cut off, or its part is another: what was known to be good stays so."""
    world = World(before)
    world.hear(after)
    assert world.faults == [fault]
    assert world.watch.good_at == 1000
    world.stop()


ANOTHER = "the connection for commands leads to another server"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda world: world.hear(replica(-1, b"connect"), b"run_id:another"), ANOTHER),
        (lambda world: (world.pass_a_second(), world.reply(CommandRefused(NOPERM))), NOPERM),
        (lambda world: world.hear([]), "the server does not say which one it is"),
    ],
)
def test_nothing_is_known(answer: Callable[[World], object], why: str, logged: LogCapture) -> None:
    """Of another server's role, and where it is forbidden. The log says so once; then the link alone counts."""
    world = World()
    answer(world)
    answer(world)
    assert world.faults == []
    assert world.watch.good_at == math.inf
    assert [event["why"] for event in logged.events] == [why]
    world.hear(MASTER)
    assert world.watch.good_at == 1003
    world.stop()


def test_what_the_login_was_not_told_is_not_asked_again(logged: LogCapture) -> None:
    """But on the next link."""
    world = World()
    world.watch.end()
    for _ in range(2):
        world.watch.begin(world.make_link(None))
        world.clock.advance(5)
        assert world.asked == []
        assert world.watch.good_at == math.inf
        world.watch.end()
    assert [event["why"] for event in logged.events] == [NOPERM]
    world.watch.begin(world.link)
    world.hear(MASTER)
    assert world.watch.good_at == 1000 + world.clock.seconds()
    world.stop()


@pytest.mark.parametrize("fault", [OutOfReach("there is no connection"), CommandRefused("BUSY a script is running")])
def test_no_answer_yet(fault: Exception, logged: LogCapture) -> None:
    """Without a link for commands, or while a script runs: what is good waits, and nothing is lost."""
    world = World()
    world.hear(MASTER)
    for _ in range(3):
        world.pass_a_second()
        world.reply(fault)
    assert world.watch.good_at == 1001
    assert world.faults == []
    assert logged.events == []
    world.hear(MASTER)
    assert world.watch.good_at == 1005
    world.stop()


def test_one_question_at_a_time() -> None:
    """A server that does not answer is not asked again and again."""
    world = World()
    world.clock.pump([1] * 10)
    assert world.asked == ["INFO"]
    world.reply(INFO)
    world.reply(MASTER)
    assert world.watch.good_at == 1001
    world.hear(MASTER)
    assert world.watch.good_at == 1011
    world.stop()


def test_an_answer_that_was_for_another_link() -> None:
    """It comes when the link that it was asked for is gone, and says nothing about the next one."""
    world = World()
    world.pass_a_second()
    world.watch.end()
    world.clock.advance(7)
    world.watch.begin(world.make_link(replica(3)))
    world.reply(INFO)
    world.reply(MASTER)
    assert world.faults == []
    assert world.watch.good_at == 1008
    world.stop()
