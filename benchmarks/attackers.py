"""One attack on a server of this machine, for a bounded time: a process that opens connections and misuses them.

    python -m benchmarks.attackers NAME PORT [--seconds 30 | --until-told] [--connections N] [--pieces N]
                                   [--at-once N] [--per-second N] [--pause SECONDS] [--tls]

1. It attacks 127.0.0.1 and nothing else, ends by itself, and keeps no more connections open than it was told.
2. It runs when nobody else wants to (where the system knows how), so that it takes nothing from those who measure;
   with --until-told, for those who measure nothing, like anybody else.
3. It says on stdout, in a line of JSON, how connections ended: with --connections once all of them have or wait for
   nothing but their end, and whenever that has changed since; without, at its own end.
"""

from __future__ import annotations

import argparse
import os
import re
import selectors
import signal
import socket
import ssl
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle, islice, repeat

import msgspec

__all__ = ["ATTACKS", "HEADS", "Attack", "main"]

_MOST_SECONDS = 300.0
_MOST_SECONDS_UNTIL_TOLD = 3600.0
_MAX_MESSAGE = 65536
_BOMB_SIZE = 10_000_000
_READ = 65536
_TAIL = 128  # a close frame and its reason
_TEXT, _PING, _PONG, _CONTINUATION, _MORE = 0x81, 0x89, 0x8A, 0x00, 0x01
_COMPRESSED_TEXT = 0xC1
_ESTABLISHED = b"\x01"  # of TCP_INFO

Script = Iterator[bytes]
"""What one connection sends, piece by piece; when it is over, nothing more until the server ends the connection."""


class Attack(msgspec.Struct, frozen=True):
    """`script`: of the connection with this number. `pause`: seconds between the pieces of one connection.

    `per_second`: new connections at most, after the first `at_once`: by default what ``--connect-rate`` permits ten
    addresses in the long run, as that spares this machine's own.
    `reads`: whether it takes what the server sends. `hangs_up`: it resets the connection when its script is over.
    """

    key: str
    title: str
    script: Callable[[int], Script]
    at_once: int = 20
    per_second: float = 10.0
    pause: float = 0.0
    reads: bool = True
    hangs_up: bool = False


def _opening(path: str = "/ws", *more: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def _frame(payload: bytes, first: int = _TEXT, announced: int | None = None) -> bytes:
    size = len(payload) if announced is None else announced
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload  # a mask that changes nothing


def _request(method: str, params: object) -> bytes:
    return _frame(msgspec.json.encode({"method": method, "params": params, "id": 1}))


def _deflated(payload: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


_DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def _slow_handshake(number: int) -> Script:
    """A byte at a time, and never the last."""
    return (bytes((byte,)) for byte in _opening()[:-1])


def _half_open(number: int) -> Script:
    """Nothing at all, or headers that have no end."""
    if number % 2:
        yield b"GET / HTTP/1.1\r\nA: " + b"a" * 16000


def _fragments(number: int) -> Script:
    yield _opening() + _frame(b"", _MORE)
    yield from repeat(_frame(b"", _CONTINUATION) * 1000 if number % 2 else _frame(b" ", _CONTINUATION) * 1000)


def _pings(number: int) -> Script:
    yield _opening()
    yield from repeat(_frame(b"", _PING if number % 2 else _PONG) * 1000)


def _deaf_pings(number: int) -> Script:
    yield _opening()
    yield from repeat(_frame(b"x" * 125, _PING) * 100)


def _storm(number: int) -> Script:
    """Streams that nobody else has, a thousand with each request."""
    yield _opening()
    for turn in count():
        streams = [f"trade@S{number}.{turn % 10}.{index}" for index in range(1000)]
        yield _request("SUBSCRIBE", streams) + _request("UNSUBSCRIBE", streams)


def _bombs(number: int) -> Script:
    """A message that is much too large once it is inflated."""
    yield _opening("/ws", _DEFLATE) + _frame(_BOMB, _COMPRESSED_TEXT)


def _full_messages(number: int) -> Script:
    """Messages that are just not too large, of some hundred bytes on the wire."""
    yield _opening("/ws", _DEFLATE)
    yield from repeat(_frame(_FULL, _COMPRESSED_TEXT) * 20)


def _heads(number: int) -> Script:
    yield HEADS[number % len(HEADS)]


def _lengths(number: int) -> Script:
    """A frame that is announced to be huge; or one of the largest size, a byte at a time."""
    if number % 2:
        yield _opening() + _frame(b"", announced=2**62)
        yield from repeat(b"x" * 65536)
    yield _opening() + _frame(b"", announced=_MAX_MESSAGE)
    for _ in range(1000):
        yield b" "


def _deaf(number: int) -> Script:
    """A client of the streams that are named in the environment, which takes nothing of them."""
    yield _opening("/ws")
    yield _request("SUBSCRIBE", os.environ.get("ATTACKED_STREAMS", "trade@TATA_INR").split(","))


def _churn(number: int) -> Script:
    yield _opening("/ws") + _request("SUBSCRIBE", [f"trade@C{number % 1000}"])


def _requests(number: int) -> Script:
    yield _opening()
    yield from cycle(map(_frame, _REQUESTS))


_BOMB = _deflated(b" " * _BOMB_SIZE)
_FULL = _deflated(b" " * (_MAX_MESSAGE - 17) + b'{"method":"PING"}')
HEADS = [
    b"GET / HTTP/1.1\r\nA: " + b"a" * 1_000_000,
    b"GET /" + b"a" * 1_000_000,
    b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 4000 + b"\r\n",
    _opening("/stream?" + "&".join(f"a={index % 10}" for index in range(3900))),
    _opening("/stream?streams=" + "/".join(f"trade@M{index % 10}" for index in range(1600))),
    _opening("/ws/" + "/".join(f"trade@M{index % 10}" for index in range(1600))),
    _opening("/stream?streams=" + "%41" * 5200),
    _opening("/" + "%41" * 5200),
    _opening("/ws", "Sec-WebSocket-Extensions: permessage-deflate" + ";a" * 7900),
    _opening("/ws", "Sec-WebSocket-Extensions: " + ",".join(["permessage-deflate;a=1"] * 690)),
    _opening("/ws", "Sec-WebSocket-Protocol: " + ",".join(f"{index:x}" for index in range(3400))),
    *(
        _opening("/ws", "Upgrade: " + ",".join(f"{index + number * 3000:x}" for index in range(3000)))
        for number in range(100)
    ),
]
_REQUESTS = [
    b'{"method":"PING","id":' + b"9" * 65000 + b"}",
    b'{"method":"PING","id":"' + b"9" * 65000 + b'"}',
    b"[" * 65000,
    b'{"method":"PING","params":' + b"[" * 32000 + b"]" * 32000 + b"}",
    b'{"method":"' + b"A" * 65000 + b'"}',
    b"{" + b",".join(b'"%d":1' % index for index in range(6000)) + b"}",
    msgspec.json.encode({"method": "SUBSCRIBE", "params": [f"trade@M{index}" for index in range(4500)]}),
    msgspec.json.encode({"method": "UNSUBSCRIBE", "params": [f"trade@M{index}" for index in range(4500)]}),
]

ATTACKS = (
    Attack(
        "slow-handshakes",
        "Handshakes a byte at a time that never end",
        _slow_handshake,
        at_once=500,
        per_second=500,
        pause=0.1,
    ),
    Attack("half-open", "Connections without a request", _half_open, at_once=3000, per_second=2000),
    Attack("fragments", "Endless fragments", _fragments),
    Attack("pings", "Ping and pong floods", _pings),
    Attack("deaf-pings", "Pings by clients that do not read", _deaf_pings, reads=False),
    Attack("storm", "Subscribe and unsubscribe storms", _storm),
    Attack("bombs", "Zip bombs", _bombs),
    Attack("full-messages", "Small frames that inflate to the largest message", _full_messages),
    Attack("heads", "Huge headers, many headers, paths and queries", _heads, per_second=100),
    Attack("lengths", "Huge announced lengths, and messages byte by byte", _lengths),
    Attack("deaf", "Clients of the hot stream that never read", _deaf, reads=False),
    Attack("churn", "Connections that come and go", _churn, per_second=500, hangs_up=True),
    Attack("requests", "Giant ids and params", _requests),
)


class _Connection:
    """One connection of the attack: what it has to send, and what it has last heard."""

    def __init__(self, script: Script, port: int, tls: ssl.SSLContext | None, *, reads: bool) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(tls is not None)
        if not reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # or the kernel would hold megabytes
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", port))
        if tls is not None:  # hands are shaken with the first that is sent or heard
            self.socket.setblocking(False)
            self.socket = tls.wrap_socket(self.socket, do_handshake_on_connect=False)
        self.script = script
        self.unsent = b""
        self.head = b""
        self.tail = b""
        self.next_piece = 0.0

    def hear(self, data: bytes) -> None:
        self.head = self.head or data[:16]
        self.tail = (self.tail + data)[-_TAIL:]

    @property
    def end(self) -> str:
        """How the server has ended it: the code of a close, or the status of a refusal."""
        if self.head.startswith(b"HTTP/1.1 ") and not self.head.startswith(b"HTTP/1.1 101"):
            return self.head[9:12].decode("latin-1")
        close = re.search(rb"\x88[\x02-\x7d](..)[ -~]*$", self.tail, re.DOTALL)
        return str(int.from_bytes(close[1], "big")) if close else "cut"


class _Attacker:
    """`connections`: after so many of them there are no new ones; None: until `stop`, or the end of its time.
    `pieces`: of each connection's script, None for all, or without end."""

    def __init__(
        self, attack: Attack, port: int, connections: int | None, pieces: int | None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._attack = attack
        self._tls = tls
        self._port = port
        self._most = connections
        self._pieces = pieces
        self._selector = selectors.DefaultSelector()
        self._open: set[_Connection] = set()
        self._waiting: set[_Connection] = set()
        """Those whose script is over."""
        self._begun = 0
        self._started = time.monotonic()
        self._ends: Counter[str] = Counter()
        self._stopped = False
        self._told = -1

    def stop(self) -> None:
        self._stopped = True

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopped and (now := time.monotonic()) < end:
            self._begin_some(now)
            if self._begun == self._most and self._open == self._waiting:
                self._tell()
            if self._attack.pause:
                self._wake(now)
            if not self._attack.reads:
                self._look_at_deaf()
            for key, events in self._selector.select(0.01):
                self._serve(key.data, events)
        self._tell()

    def _tell(self) -> None:
        if self._told != (ended := sum(self._ends.values())):
            self._told = ended
            report = {"connections": self._begun, "open": len(self._open), "ends": self._ends}
            sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
            sys.stdout.flush()

    def _begin_some(self, now: float) -> None:
        permitted = self._attack.at_once + (now - self._started) * self._attack.per_second
        if self._most is not None:
            permitted = min(permitted, self._most)
        while len(self._open) < self._attack.at_once and self._begun < permitted:
            self._begin()

    def _begin(self) -> None:
        script = islice(self._attack.script(self._begun), self._pieces)
        connection = _Connection(script, self._port, self._tls, reads=self._attack.reads)
        self._begun += 1
        self._open.add(connection)
        self._selector.register(connection.socket, self._interest(writes=True), connection)

    def _interest(self, *, writes: bool) -> int:
        """Those that do not read have no pauses either, and always want to write."""
        return (selectors.EVENT_READ if self._attack.reads else 0) | (selectors.EVENT_WRITE if writes else 0)

    def _wake(self, now: float) -> None:
        for connection in self._open - self._waiting:
            if connection.next_piece <= now:
                self._selector.modify(connection.socket, self._interest(writes=True), connection)

    def _serve(self, connection: _Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not self._hears(connection):
                return
            if events & selectors.EVENT_WRITE:
                self._send(connection)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self._over(connection)

    def _hears(self, connection: _Connection) -> bool:
        """False: the connection is over."""
        data = connection.socket.recv(_READ)
        if not data:
            self._over(connection)
            return False
        connection.hear(data)
        return True

    def _send(self, connection: _Connection) -> None:
        if not connection.unsent:
            piece = next(connection.script, None)
            if piece is None:
                self._finished(connection)
                return
            connection.unsent = piece
        sent = connection.socket.send(connection.unsent)
        connection.unsent = connection.unsent[sent:]
        if self._attack.pause and not connection.unsent:
            connection.next_piece = time.monotonic() + self._attack.pause
            self._selector.modify(connection.socket, self._interest(writes=False), connection)

    def _finished(self, connection: _Connection) -> None:
        if self._attack.hangs_up:
            self._ends["hung up"] += 1
            self._close(connection)
            return
        self._waiting.add(connection)
        if self._attack.reads:
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
        else:
            self._selector.unregister(connection.socket)

    def _over(self, connection: _Connection) -> None:
        self._ends[connection.end] += 1
        self._close(connection)

    def _look_at_deaf(self) -> None:
        """What they have not read hides the end of their connection from a selector."""
        for connection in list(self._waiting):
            if connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != _ESTABLISHED:
                self._over(connection)

    def _close(self, connection: _Connection) -> None:
        if connection not in self._waiting or self._attack.reads:
            self._selector.unregister(connection.socket)
        connection.socket.close()
        self._open.discard(connection)
        self._waiting.discard(connection)


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attackers", description="Attack a local server.")
    parser.add_argument("name", choices=[attack.key for attack in ATTACKS])
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument(
        "--until-told", action="store_true", help="whatever time it takes, and with a fair share of the processor"
    )
    parser.add_argument("--connections", type=int)
    parser.add_argument("--pieces", type=int)
    parser.add_argument("--at-once", type=int)
    parser.add_argument("--per-second", type=float)
    parser.add_argument("--pause", type=float)
    parser.add_argument("--tls", action="store_true", help="whatever certificate it is shown")
    arguments = parser.parse_args(argv)
    (attack,) = (attack for attack in ATTACKS if attack.key == arguments.name)
    said = {name: getattr(arguments, name) for name in ("at_once", "per_second", "pause")}
    attack = msgspec.structs.replace(attack, **{name: value for name, value in said.items() if value is not None})
    if hasattr(os, "SCHED_IDLE") and not arguments.until_told:  # of idle time a busy machine has none
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    attacker = _Attacker(
        attack, arguments.port, arguments.connections, arguments.pieces, _trusting_anybody() if arguments.tls else None
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: attacker.stop())
    attacker.run(_MOST_SECONDS_UNTIL_TOLD if arguments.until_told else min(arguments.seconds, _MOST_SECONDS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
