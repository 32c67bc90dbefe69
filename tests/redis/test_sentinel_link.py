"""One sentinel: its login, what it is asked, and when."""

from __future__ import annotations

import pytest

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.sentinel_link import ASK_SECONDS, Answer, Master, Sentinel, read_answer
from tests.redis.memory import PONG, commands_in, resp, stop
from tests.redis.sentinels import NOW, FakeSentinel, World, pairs, push

ASKED = [
    (b"SENTINEL", b"MASTER", b"feed"),
    (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"feed"),
    (b"SENTINEL", b"SENTINELS", b"feed"),
]


class One(World):
    """A link to one sentinel."""

    def __init__(self, address: RedisAddress = RedisAddress("s1", 1)) -> None:  # noqa: B008
        super().__init__()
        (self.fake,) = self.sentinels(1)
        self.heard: list[Answer | None] = []
        self.sentinel = Sentinel(self.clock, self.at("s1"), address, "sentinel s1:1", "feed", self._heard, self.now)
        self.sentinel.startService()

    def _heard(self) -> None:
        self.heard.append(self.sentinel.answer)

    def asked(self) -> list[tuple[bytes, ...]]:
        assert self.fake.connection is not None
        return self.fake.connection.asked()

    def end(self) -> None:
        stop(self.sentinel, self.clock)


def test_what_it_says_is_known_as_soon_as_the_link_is_up() -> None:
    """And every second from then on; that the link ends is told as well."""
    one = One()
    one.fake.others = {"id7": "S7:26379", "": "s8:1", "id9": ":0"}
    one.fake.up()
    known = Answer(NOW, Master(0, "a", 1), {b"id7": ("s7", 26379)})
    assert one.heard == [known]
    assert one.sentinel.sentinel_id == b"id1"
    one.clock.advance(ASK_SECONDS)
    assert one.asked() == ASKED
    assert one.fake.connection is not None
    one.fake.connection.cut()
    assert one.heard == [known, None]
    assert one.sentinel.last == known
    one.end()


def test_it_is_asked_again_where_something_changes() -> None:
    """What changes while it is being asked is asked for once more."""
    one = One()
    connection = one.fake.accept()
    one.sentinel.ask()
    connection.say(push("message", "+promoted-slave", "slave b:1 b 1 @ feed a 1"))
    assert one.asked() == ASKED
    for reply in (one.fake.state(), resp([b"a", b"1"])):
        connection.say(reply)
    assert one.asked() == []
    connection.say(b"*0\r\n")
    assert one.asked() == ASKED
    connection.say(pairs({"config-epoch": 4}) + resp([b"b", b"1"]) + b"*0\r\n")
    assert [each and each.master for each in one.heard] == [Master(0, "a", 1), Master(4, "b", 1)]
    assert one.asked() == []
    connection.say(push("message", "+switch-master", "feed a 1 b 1"))
    assert one.asked() == ASKED
    one.end()
    one.sentinel.ask()


def test_a_sign_of_life_is_none_of_the_answers() -> None:
    one = One()
    one.fake.up()
    assert one.sentinel.link is not None
    one.sentinel.link.ping()
    assert one.asked() == [(b"PING",)]
    assert one.fake.connection is not None
    one.fake.connection.say(PONG)
    one.clock.advance(ASK_SECONDS)
    assert one.fake.answer() == 3
    assert len(one.heard) == 2
    one.end()


def test_its_login() -> None:
    """As user and password of sentinels are; what is said meanwhile is no answer."""
    one = One(RedisAddress("s1", 1, username="u", password="p"))
    connection = one.fake.endpoint.accept()
    connection.answer(b"+OK\r\n", PONG, pairs({"proto": 3}), push("subscribe", "+switch-master", 1))
    connection.say(push("message", "+switch-master", "feed a 1 b 1"))
    connection.answer(push("subscribe", "+promoted-slave", 2), resp(b"id1"), one.fake.state())
    one.fake.connection = connection
    assert one.asked() == ASKED
    one.end()


@pytest.mark.parametrize(
    ("replies", "cause"),
    [
        ([resp("NOAUTH Authentication required.")], "the server does not serve us: NOAUTH"),
        ([PONG, resp("ERR unknown command 'HELLO'")], "the sentinel does not speak RESP3, as it does since Redis 6: E"),
        ([PONG, pairs({}), resp("NOPERM no")], "the sentinel does not tell of changes: NOPERM no"),
        (
            [PONG, pairs({}), push("subscribe", "x", 1), push("subscribe", "y", 2), resp("ERR unknown command")],
            "it does not say which sentinel it is, as since 6.2: ERR unknown command",
        ),
        (
            [
                PONG,
                pairs({}),
                push("subscribe", "x", 1),
                push("subscribe", "y", 2),
                resp(b"id1"),
                resp("ERR No such master with that name"),
            ],
            "the sentinel does not tell of 'feed': ERR No such master with that name",
        ),
    ],
)
def test_who_is_no_sentinel_of_this_master(replies: list[bytes], cause: str) -> None:
    """It is tried again, and its cause is known."""
    one = One()
    one.fake.endpoint.accept().answer(*replies)
    one.clock.advance(0)
    assert one.sentinel.cause.startswith(cause)
    assert one.heard == [None]
    while not one.fake.endpoint.is_waiting:
        one.clock.advance(0.05)
    one.end()


def test_a_master_that_is_taken_away_from_it() -> None:
    """Its link ends: the next login says why."""
    one = One()
    one.fake.up()
    one.fake.knows = False
    one.clock.advance(ASK_SECONDS)
    one.fake.answer()
    one.clock.advance(0)
    assert one.sentinel.cause == "the sentinel does not tell of 'feed': ERR No such master with that name"
    one.end()


@pytest.mark.parametrize(
    ("state", "place", "others"),
    [
        ({}, [b"a", b"1"], []),
        ({b"config-epoch": b"x"}, [b"a", b"1"], []),
        ({b"config-epoch": b"1"}, None, []),
        ({b"config-epoch": b"1"}, [b"a", b"x"], []),
        ({b"config-epoch": b"1"}, [b"a", b"0"], []),
        ({b"config-epoch": b"1"}, [b"", b"1"], []),
        ({b"config-epoch": b"1"}, [b"\xff", b"1"], []),
        ({b"config-epoch": b"1"}, [b"a", b"1"], None),
        ({b"config-epoch": b"1"}, [b"a", b"1"], [{}]),
        ([], [b"a", b"1"], []),
    ],
)
def test_an_answer_that_says_nothing(state: object, place: object, others: object) -> None:
    with pytest.raises(ValueError, match=r"cannot be read|knows no address"):
        read_answer(0.0, state, place, others)


def test_the_answers_are_whole_commands() -> None:
    """So that one read has the epoch and the address."""
    one = One()
    connection = one.fake.accept()
    assert commands_in(connection.value()) == ASKED
    assert isinstance(one.fake, FakeSentinel)
    one.end()
