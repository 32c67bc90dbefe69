"""Servers of a cluster in memory, with streams in slots that move, as far as a source of streams asks for them.

What is asked is answered when the test says so, in portions, and what is answered arrives when it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from zope.interface import implementer

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.topology import Node, key_slot
from tests.redis.memory import PONG, Connection, commands_in, resp

__all__ = ["ClusterModel", "ServerModel", "StreamModel"]

NIL = b"*-1\r\n"
Command = tuple[bytes, ...]


def array(parts: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def id_of(number: int) -> bytes:
    return b"%d-0" % number


def number_of(entry: bytes) -> int:
    """Of an id: no entry has another second part than 0."""
    return int(entry.partition(b"-")[0])


def entry_of(number: int) -> bytes:
    return array([resp(id_of(number)), array([resp(b"d"), resp(b"%d" % number)])])


@dataclass
class StreamModel:
    """`entries`: their numbers, which are their ids'."""

    entries: list[int] = field(default_factory=list)
    last: int = 0
    deleted: int = 0
    added: int = 0

    def info(self) -> bytes:
        fields = {
            b"length": b":%d\r\n" % len(self.entries),
            b"last-generated-id": resp(id_of(self.last)),
            b"max-deleted-entry-id": resp(id_of(self.deleted)),
            b"entries-added": b":%d\r\n" % self.added,
            b"first-entry": entry_of(self.entries[0]) if self.entries else NIL,
        }
        return array([part for name, value in fields.items() for part in (resp(name), value)])


class ClusterModel:
    """`streams`: by key, wherever they are. `slots`: who has each; `going`: to whom it is just being moved; `gone`:
    keys that are ahead of their slots; `down`: slots that nobody serves.
    """

    def __init__(self, clock: Clock, servers: int, keys: Iterable[bytes]) -> None:
        self.keys = {key: key_slot(key) for key in keys}
        self.streams: dict[bytes, StreamModel] = {}
        self.servers = [ServerModel(self, clock, number) for number in range(servers)]
        self.slots = {slot: self.servers[at % servers] for at, slot in enumerate(sorted(set(self.keys.values())))}
        self.going: dict[int, ServerModel] = {}
        self.gone: set[bytes] = set()
        self.down: set[int] = set()

    def add(self, key: bytes, number: int, most: int | None = None) -> None:
        """XADD, with MAXLEN or without."""
        if key not in self.streams:
            self.streams[key] = StreamModel()
            if self.keys[key] in self.going:
                self.gone.add(key)
        stream = self.streams[key]
        stream.entries.append(number)
        stream.last, stream.added = number, stream.added + 1
        if most is not None:
            del stream.entries[:-most]
        self._wake()

    def delete(self, key: bytes, number: int) -> None:
        stream = self.streams[key]
        stream.entries.remove(number)
        stream.deleted = max(stream.deleted, number)

    def finish(self, slot: int) -> None:
        """The slot is where it was to go."""
        self.place(slot, self.going[slot])

    def place(self, slot: int, server: ServerModel) -> None:
        """The slot is there from now on, and all its keys."""
        self.going.pop(slot, None)
        self.slots[slot] = server
        self.gone -= {key for key, of in self.keys.items() if of == slot}
        self._wake()

    def _wake(self) -> None:
        for server in self.servers:
            server.wake()

    def fault(self, server: ServerModel, keys: list[bytes]) -> str:
        """Why this server does not answer a command with these keys; empty: it does."""
        slots = {self.keys[key] for key in keys}
        if len(slots) > 1:
            return "CROSSSLOT Keys in request don't hash to the same slot"
        (slot,) = slots
        if slot in self.down:
            return "CLUSTERDOWN Hash slot not served"
        if self.slots[slot] is not server:
            return f"MOVED {slot} {self.slots[slot].name}:6379"
        if slot in self.going:
            missing = [key for key in keys if key in self.gone or key not in self.streams]
            if len(missing) == len(keys):
                return f"ASK {slot} {self.going[slot].name}:6379"
            if missing:
                return "TRYAGAIN Multiple keys request during rehashing of slot"
        return ""


class ServerModel:
    """One server: a node of a topology, and the links to it."""

    def __init__(self, cluster: ClusterModel, clock: Clock, number: int) -> None:
        self.cluster = cluster
        self.clock = clock
        self.name = f"s{number}"
        self.links: list[Link] = []
        self._count = 0
        self.is_up = True
        self.asked: list[Command] = []
        endpoint = ModelEndpoint(clock, self)
        self.node = Node(f"redis {self.name}", RedisAddress(host=self.name), endpoint)

    def connected(self, connection: Connection) -> None:
        self._count += 1
        self.links.append(Link(self, connection, self._count))

    def step(self, most: int = 1 << 30) -> bool:
        """Do at most so many commands of each link. Whether there was one."""
        did = [link.step(most) for link in self.links]
        return any(did)

    def deliver(self) -> bool:
        """What was answered arrives. Whether there was something."""
        did = [link.deliver() for link in self.links]
        return any(did)

    def wake(self) -> None:
        for link in self.links:
            link.wake()

    def cut(self) -> None:
        """End the links."""
        links, self.links = self.links, []
        for each in links:
            each.connection.cut()

    def answer(self, command: Command, link: Link) -> bytes | None:
        """None: the answer is due when there is something."""
        self.asked.append(command)
        match command:
            case (b"PING",):
                return PONG
            case (b"INFO", _):
                return resp(b"run_id:%b\r\n" % self.name.encode())
            case (b"ROLE",):
                return array([resp(b"master"), b":0\r\n", b"*0\r\n"])
            case (b"CLIENT", b"ID"):
                return b":%d\r\n" % link.number
            case (b"CLIENT", b"UNBLOCK", client):
                return b":%d\r\n" % sum(each.unblock() for each in self.links if each.number == int(client))
            case (b"XINFO", b"STREAM", key):
                return self._of(key, lambda: self._info(key))
            case (b"XREVRANGE", key, end, b"-", b"COUNT", count):
                return self._of(key, lambda: self._range(key, end, int(count)))
            case (b"XREAD", *words):
                return self._read(words)
        raise AssertionError(command)

    def _of(self, key: bytes, answer: Callable[[], bytes]) -> bytes:
        fault = self.cluster.fault(self, [key])
        return resp(fault) if fault else answer()

    def _info(self, key: bytes) -> bytes:
        stream = self.cluster.streams.get(key)
        return resp("ERR no such key") if stream is None else stream.info()

    def _range(self, key: bytes, end: bytes, most: int) -> bytes:
        stream = self.cluster.streams.get(key, StreamModel())
        before = [each for each in stream.entries if end == b"+" or each <= number_of(end)]
        return array([entry_of(each) for each in before[::-1][:most]])

    def _read(self, words: list[bytes]) -> bytes | None:
        at = words.index(b"STREAMS") + 1
        half = (len(words) - at) // 2
        keys, ids = words[at : at + half], words[at + half :]
        fault = self.cluster.fault(self, keys)
        if fault:
            return resp(fault)
        most = int(words[words.index(b"COUNT") + 1])
        found = []
        for key, after in zip(keys, ids, strict=True):
            stream = self.cluster.streams.get(key, StreamModel())
            new = [] if after == b"$" else [each for each in stream.entries if each > number_of(after)][:most]
            if new:
                found.append(array([resp(key), array(list(map(entry_of, new)))]))
        if found:
            return array(found)
        return None if b"BLOCK" in words else NIL


class Link:
    """The server's side of a link. A command that waits holds up those behind it."""

    def __init__(self, server: ServerModel, connection: Connection, number: int) -> None:
        self.server = server
        self.connection = connection
        self.number = number
        self.waiting: list[Command] = []
        self.answers: list[bytes] = []
        self.blocked: Command | None = None
        self.until = 0.0

    def step(self, most: int) -> bool:
        if self.blocked is not None and self.server.clock.seconds() >= self.until:
            self.unblock()
        self.waiting += commands_in(self.connection.value())
        self.connection.clear()
        begin, self.waiting = self.waiting[:most], self.waiting[most:]
        for place, command in enumerate(begin):
            if self.blocked is not None:
                self.waiting = begin[place:] + self.waiting
                return place > 0
            self._do(command)
        return bool(begin)

    def _do(self, command: Command) -> None:
        answer = self.server.answer(command, self)
        if answer is None:
            self.blocked = command
            self.until = self.server.clock.seconds() + int(command[command.index(b"BLOCK") + 1]) / 1000
        else:
            self.answers.append(answer)

    def wake(self) -> None:
        if self.blocked is not None:
            command, self.blocked = self.blocked, None
            self._do(command)

    def unblock(self) -> bool:
        was_blocked = self.blocked is not None
        if was_blocked:
            self.blocked = None
            self.answers.append(NIL)
        return was_blocked

    def deliver(self) -> bool:
        answers, self.answers = self.answers, []
        if answers and self.connection.is_open:
            self.connection.say(b"".join(answers))
        return bool(answers)


@implementer(IStreamClientEndpoint)
class ModelEndpoint:
    """Connects at once, while the server is up."""

    def __init__(self, clock: Clock, server: ServerModel) -> None:
        self._clock = clock
        self._server = server

    def connect(self, protocolFactory: Factory) -> Deferred[Any]:
        if not self._server.is_up:
            return fail(ConnectionRefusedError())
        protocol = protocolFactory.buildProtocol(None)
        assert protocol is not None
        connection = Connection(self._clock, protocol)
        protocol.makeConnection(connection)
        self._server.connected(connection)
        return succeed(protocol)
