"""What a publication costs the Redis-compatible server, by how many daemons subscribe to it, as it tells itself.

Whoever subscribes here only reads. Publications come to the server singly, or many in one piece, as from an engine that
is busy: then it writes what has come to each subscriber at once.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import hiredis

from benchmarks.measured import RedisMeasured
from marketfeed.commands.bench.engine import trade

__all__ = ["Connected", "measure_redis", "used_by_redis"]

_CHANNEL = "trade@COST"
_TOTAL = 40_000
_CPU = re.compile(rb"^used_cpu_(?:sys|user):([\d.]+)", re.MULTILINE)


def measure_redis(path: str, subscribers: int, at_once: int) -> RedisMeasured:
    """Publish through the Unix socket at `path`, in pieces of `at_once`."""
    payload = trade("COST", 1, 1_790_000_000_000.0)
    piece = hiredis.pack_command(("PUBLISH", _CHANNEL, payload)) * at_once
    pieces = max(_TOTAL // subscribers // at_once, 20)
    with ExitStack() as stack:
        heard = [_connected(stack, path) for _ in range(subscribers)]
        publisher = _connected(stack, path)
        for each in heard:
            each.sendall(hiredis.pack_command(("SUBSCRIBE", _CHANNEL)))
            _take(each, len(f"*3\r\n$9\r\nsubscribe\r\n${len(_CHANNEL)}\r\n{_CHANNEL}\r\n:1\r\n"))
        size = len(f"*3\r\n$7\r\nmessage\r\n${len(_CHANNEL)}\r\n{_CHANNEL}\r\n${len(payload)}\r\n{payload}\r\n")
        answer = len(f":{subscribers}\r\n") * at_once
        before = used_by_redis(publisher)
        for _ in range(pieces):
            publisher.sendall(piece)
            _take(publisher, answer)
            for each in heard:
                _take(each, size * at_once)
        used = used_by_redis(publisher) - before
    return RedisMeasured(subscribers, at_once, round(used / (pieces * at_once) * 1e6, 3), size)


def _connected(stack: ExitStack, path: str) -> socket.socket:
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    connection.connect(path)
    return connection


class Connected:
    """A connection to the server at a Unix socket, for one who waits for each answer."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self._reader = hiredis.Reader()

    def __enter__(self) -> Connected:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, *words: str) -> Any:
        """The answer to one command."""
        return self.send([words])[0]

    def send(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """Send several at once; their answers."""
        self.socket.sendall(b"".join(map(hiredis.pack_command, commands)))
        answers: list[Any] = []
        while len(answers) < len(commands):
            while (answer := self._reader.gets()) is not False:
                answers.append(answer)
            if len(answers) < len(commands):
                self._reader.feed(self.socket.recv(1 << 20))
        return answers


def _take(connection: socket.socket, size: int) -> None:
    while size > 0:
        size -= len(connection.recv(min(size, 65536)))


def used_by_redis(connection: socket.socket) -> float:
    """Seconds of a processor that the server has used so far."""
    connection.sendall(hiredis.pack_command(("INFO", "cpu")))
    reader = hiredis.Reader()
    while (answer := reader.gets()) is False:
        reader.feed(connection.recv(65536))
    return sum(map(float, _CPU.findall(answer)))
