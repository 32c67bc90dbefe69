"""Plain clients that block: one for a server, one for a cluster, which goes where the cluster sends it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import hiredis

from marketfeed.redis.topology import key_slot
from tests.guard import DEADLINE

__all__ = ["Access", "Address", "ClusterClient", "Connection", "eventually"]

_AGAIN_SECONDS = 0.02

Address = tuple[str, int]
Word = str | bytes | int


@dataclass(frozen=True, slots=True)
class Access:
    """What a client needs to be let in: a password, of a user or of nobody in particular; TLS."""

    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """AUTH, or nothing."""
        return ("AUTH", *filter(None, [self.user]), self.password) if self.password else ()


class _Condition(Protocol):
    def __call__(self) -> object: ...


def eventually(holds: _Condition, what: str, seconds: float = DEADLINE) -> None:
    """Ask again and again until `holds` says yes. What cannot be asked at the moment is a no."""
    end = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < end:
        try:
            if holds():
                return
            last = None
        except (OSError, hiredis.HiredisError) as fault:
            last = fault
        time.sleep(_AGAIN_SECONDS)
    raise AssertionError(f"{what}: never came true" + (f"; last: {last!r}" if last else ""))


class Connection:
    """A connection to a server. Every reply that is an error is raised."""

    def __init__(self, address: Address, access: Access = Access(), timeout: float = DEADLINE) -> None:
        self._reader = hiredis.Reader()
        self._socket = socket.create_connection(address, timeout)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if access.tls is not None:
                self._socket = access.tls.wrap_socket(self._socket, server_hostname=address[0])
            if access.words:
                self.command(*access.words)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def command(self, *words: Word) -> Any:
        """Send one command; its reply."""
        self._socket.sendall(hiredis.pack_command(words))
        return self.reply()

    def commands(self, *commands: Sequence[Word]) -> list[Any]:
        """Send several at once; their replies, of which none may be an error."""
        replies = self.replies(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise reply
        return replies

    def replies(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Send several at once; their replies, errors among them as they are."""
        packed = [hiredis.pack_command(tuple(words)) for words in commands]
        self._socket.sendall(b"".join(packed))
        return [self._next() for _ in packed]

    def reply(self) -> Any:
        """The next reply, or what the server sends by itself."""
        reply = self._next()
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def fields(self, *words: Word) -> dict[str, str]:
        """The reply to INFO, CLUSTER INFO or their like, by name."""
        lines = self.command(*words).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def _next(self) -> Any:
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the server has closed the connection")
            self._reader.feed(data)
        return reply


class ClusterClient:
    """Sends each command to the node that has its key.

    1. It follows MOVED and ASK, and asks again after TRYAGAIN and CLUSTERDOWN: nothing was done there.
    2. When a connection is lost, nobody knows whether the command was done: that is the caller's to decide, who gets
       the `OSError`. The next command goes by a new map of the slots.
    """

    def __init__(self, seeds: Iterable[Address], access: Access, timeout: float = 5.0) -> None:
        self._seeds = list(seeds)
        self._access = access
        self._timeout = timeout
        self._owners: dict[int, Address] = {}
        self._connections: dict[Address, Connection] = {}

    def __enter__(self) -> ClusterClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def xadd(self, key: str, fields: dict[str, Word], *, maxlen: int | None = None, entry: str = "*") -> bytes:
        """Append an entry; its id."""
        trim: tuple[Word, ...] = () if maxlen is None else ("MAXLEN", "~", maxlen)
        pairs = [word for pair in fields.items() for word in pair]
        return bytes(self.command("XADD", key, *trim, entry, *pairs))

    def spublish(self, channel: str, payload: bytes) -> int:
        """SPUBLISH at the owner of the channel's slot; how many subscribers there are at that node."""
        return int(self.command("SPUBLISH", channel, payload))

    def publish(self, channel: str, payload: bytes) -> int:
        """PUBLISH at any node that answers, which tells the others; how many subscribers there are at that node."""
        if not self._owners:
            self._learn()
        return int(self._at(next(iter(self._owners.values())), ("PUBLISH", channel, payload)))

    def command(self, *words: Word) -> Any:
        """Send a command whose second word is its key; its reply."""
        slot = _slot(words[1])
        end = time.monotonic() + DEADLINE
        asking: Address | None = None
        while True:
            try:
                if asking is not None:
                    return self._at(asking, ("ASKING",), words)
                return self._at(self._owner(slot), words)
            except hiredis.ReplyError as fault:
                error, *where = str(fault).split()
                asking = None
                if error == "ASK":
                    asking = _address(where[1])
                elif error == "MOVED":
                    self._owners[slot] = _address(where[1])
                elif error in ("TRYAGAIN", "CLUSTERDOWN") and time.monotonic() < end:
                    time.sleep(_AGAIN_SECONDS)
                    self._owners.clear()
                else:
                    raise

    def commands(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Send several at once, each to the node that has its key; their replies, errors among them as they are.

        Only ASK is followed. After MOVED the next ones go by what it says.
        """
        at: dict[Address, list[int]] = {}
        replies: list[Any] = [None] * len(commands)
        for number, words in enumerate(commands):
            try:
                at.setdefault(self._owner(_slot(words[1])), []).append(number)
            except (OSError, hiredis.ReplyError) as fault:
                replies[number] = fault
        for address, numbers in at.items():
            try:
                answers = self._connection(address).replies([commands[number] for number in numbers])
            except OSError as fault:
                self._lose(address)
                answers = [fault] * len(numbers)
            for number, answer in zip(numbers, answers, strict=True):
                replies[number] = self._followed(commands[number], answer)
        return replies

    def _followed(self, words: Sequence[Word], answer: Any) -> Any:
        """What comes of an answer."""
        error, *where = str(answer).split() if isinstance(answer, hiredis.ReplyError) else [""]
        if error == "ASK":
            try:
                return self._at(_address(where[1]), ("ASKING",), words)
            except (OSError, hiredis.ReplyError) as fault:
                return fault
        if error == "MOVED":
            self._owners[_slot(words[1])] = _address(where[1])
        elif error == "CLUSTERDOWN":
            self._owners.clear()
        return answer

    def _owner(self, slot: int) -> Address:
        if slot not in self._owners:
            self._learn()
        if slot not in self._owners:
            raise hiredis.ReplyError("CLUSTERDOWN nobody has the slot")
        return self._owners[slot]

    def _learn(self) -> None:
        """Read the map of the slots from the first that has one."""
        last: Exception | None = None
        for address in self._seeds:
            try:
                ranges = self._at(address, ("CLUSTER", "SLOTS"))
            except (OSError, hiredis.ReplyError) as fault:
                last = fault
                continue
            for first, end, (host, port, *_), *_ in ranges:
                self._owners.update(dict.fromkeys(range(first, end + 1), (host.decode(), port)))
            if self._owners:
                return
        raise ConnectionError("no node has a map of the slots") from last

    def _at(self, address: Address, *commands: Sequence[Word]) -> Any:
        try:
            return self._connection(address).commands(*commands)[-1]
        except OSError:
            self._lose(address)
            raise

    def _connection(self, address: Address) -> Connection:
        if address not in self._connections:
            self._connections[address] = Connection(address, self._access, self._timeout)
        return self._connections[address]

    def _lose(self, address: Address) -> None:
        """Who does not answer is asked last."""
        self._owners.clear()
        if address in self._connections:
            self._connections.pop(address).close()
        self._seeds.sort(key=address.__eq__)


def _slot(key: Word) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)
