"""Sentinels in memory: each says what the test has it say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock

from marketfeed.redis.address import RedisAddress, SentinelAddress
from tests.redis.memory import PONG, Connection, Endpoint, resp

__all__ = ["NAME", "FakeSentinel", "World", "pairs", "push"]

NAME = "feed"
NOW = 1_700_000_000.0
_LOGIN = [
    (b"PING",),
    (b"HELLO", b"3"),
    (b"SUBSCRIBE", b"+switch-master"),
    (b"SUBSCRIBE", b"+promoted-slave"),
    (b"SENTINEL", b"MYID"),
    (b"SENTINEL", b"MASTER", b"feed"),
]


def pairs(fields: Mapping[str, Any]) -> bytes:
    """A map, as RESP3 has it."""
    words = b"".join(resp(str(name).encode()) + resp(str(value).encode()) for name, value in fields.items())
    return b"%%%d\r\n" % len(fields) + words


def push(*words: Any) -> bytes:
    """What a server says unasked."""
    said = [word if isinstance(word, int) else word.encode() for word in words]
    return b">" + resp(said)[1:]


class FakeSentinel:
    """One sentinel. `others`: those that it tells of, by their ids."""

    def __init__(self, number: int, endpoint: Endpoint, epoch: int = 0, master: str = "a:1") -> None:
        self.id = f"id{number}"
        self.endpoint = endpoint
        self.epoch = epoch
        self.master = master
        self.others: dict[str, str] = {}
        self.connection: Connection | None = None
        self.knows = True

    def reply(self, command: tuple[bytes, ...]) -> bytes:
        match [word.decode() for word in command]:
            case ["PING"]:
                return PONG
            case ["HELLO", _]:
                return pairs({"proto": 3})
            case ["SUBSCRIBE", channel]:
                return push("subscribe", channel, 1)
            case ["SENTINEL", "MYID"]:
                return resp(self.id.encode())
            case ["SENTINEL", "MASTER", _]:
                return self.state() if self.knows else resp("ERR No such master with that name")
            case ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _]:
                host, _, port = self.master.rpartition(":")
                return resp([host.encode(), port.encode()]) if self.knows else b"_\r\n"
            case ["SENTINEL", "SENTINELS", _]:
                rows = [
                    pairs({"runid": other, "ip": place.rpartition(":")[0], "port": place.rpartition(":")[2]})
                    for other, place in self.others.items()
                ]
                return b"*%d\r\n" % len(rows) + b"".join(rows)
        raise AssertionError(command)

    def state(self) -> bytes:
        return pairs({"ip": "as it was", "port": 9, "config-epoch": self.epoch, "flags": "master"})

    def accept(self) -> Connection:
        """Let it be connected to, and its login be done; what it is asked then is not answered yet."""
        connection = self.connection = self.endpoint.accept()
        for expected in _LOGIN:
            (asked,) = connection.asked()
            assert asked == expected
            connection.say(self.reply(asked))
        return connection

    def answer(self) -> int:
        """Answer what has been asked by now; how much that was."""
        assert self.connection is not None
        count = 0
        while asked := self.connection.asked():
            for command in asked:
                count += 1
                self.connection.say(self.reply(command))
        return count

    def up(self) -> None:
        self.accept()
        self.answer()

    def switch(self, epoch: int, master: str) -> None:
        """Another master: it says so, and answers what it is asked for that."""
        self.epoch, self.master = epoch, master
        assert self.connection is not None
        self.connection.say(push("message", "+switch-master", f"feed x 1 {master.replace(':', ' ')}"))
        self.answer()


class World:
    """Sentinels at `s1:1` and so on, and the endpoints of whatever else is connected to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoints: dict[str, Endpoint] = {}

    def now(self) -> float:
        return NOW + self.clock.seconds()

    def endpoint(self, address: RedisAddress) -> IStreamClientEndpoint:
        return self.at(address.host)

    def at(self, host: str) -> Endpoint:
        return self.endpoints.setdefault(host, Endpoint(self.clock))

    def sentinels(self, count: int, epoch: int = 0) -> list[FakeSentinel]:
        """Which know each other."""
        made = [FakeSentinel(number, self.at(f"s{number}"), epoch) for number in range(1, count + 1)]
        for each in made:
            each.others = {other.id: f"s{number}:1" for number, other in enumerate(made, 1) if other is not each}
        return made

    @staticmethod
    def address(count: int, **more: Any) -> SentinelAddress:
        return SentinelAddress(tuple((f"s{number}", 1) for number in range(1, count + 1)), NAME, **more)
