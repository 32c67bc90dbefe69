"""A WebSocket server that does exactly what it is told, byte by byte: what it says, it says when a scenario says so.

1. It accepts nobody and answers nothing by itself; only a Close is answered, and a PING frame.
2. What a client sends is kept until it is asked for. Requests are taken by what they are, in whatever order they come.
3. `limit` is where a connection dies: so many bytes of what is being written are written, and then it ends.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.system.harness import DEADLINE, Harness

__all__ = ["BINARY", "CLOSE", "TEXT", "Peer", "ScriptedServer", "frame"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


def frame(payload: bytes, opcode: int = TEXT, is_last: bool = True) -> bytes:
    """A frame as a server sends it; of opcode 0, what goes on."""
    first = opcode | (0x80 if is_last else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


class Waiting:
    """Something that is looked for each time something has come."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._looks: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def until(self, find: Callable[[], Any]) -> Deferred[Any]:
        """What `find` returns, once that is anything but None."""
        done: Deferred[Any] = Deferred()
        found = find()
        if found is not None:
            done.callback(found)
            return done
        self._looks.append((find, done))
        return done.addTimeout(DEADLINE, self._reactor)

    def look(self) -> None:
        for entry in list(self._looks):
            if entry not in self._looks:
                continue
            find, done = entry
            found = find()
            if found is not None:
                self._looks.remove(entry)
                done.callback(found)


class Peer(Protocol):
    """The server's end of one connection. `requests`: those that nobody has asked for yet, as JSON."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._buffer = b""
        self._is_open = False
        self.head: bytes | None = None
        self.requests: list[dict[str, Any]] = []
        self.pongs = 0
        self.close_code: int | None = None
        self.is_gone = False
        self._has_closed = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self._server.peers.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_gone = True
        self._server.peers.discard(self)
        self._server.forget(self)
        self._server.waiting.look()

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if self.head is None:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self.head, self._buffer = head, rest
            self._server.arrived.append(self)
        while self._read_frame():
            pass
        self._server.waiting.look()

    def _read_frame(self) -> bool:
        data = self._buffer
        if len(data) < 2:
            return False
        size, start = data[1] & 0x7F, 2
        if size == 126:
            start = 4
            size = int.from_bytes(data[2:4], "big")
        elif size == 127:
            start = 10
            size = int.from_bytes(data[2:10], "big")
        end = start + 4 + size
        if len(data) < end:
            return False
        assert data[1] & 0x80, "a client's frame without a mask"
        mask, masked = data[start : start + 4], data[start + 4 : end]
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        self._take(data[0] & 15, (int.from_bytes(masked, "big") ^ key).to_bytes(size, "big"))
        self._buffer = data[end:]
        return True

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self.requests.append(json.loads(payload))
        elif opcode == PONG:
            self.pongs += 1
        elif opcode == PING:
            self.write(frame(payload, PONG))
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            if not self._has_closed:
                self.write(frame(payload, CLOSE))
            self.transport.loseConnection()  # type: ignore[union-attr]
        else:
            raise AssertionError(f"a client's frame of opcode {opcode}")

    # What a scenario lets it do.

    @property
    def token(self) -> str | None:
        """The one that its handshake offers as a subprotocol."""
        for name in self._header("sec-websocket-protocol").split(","):
            if name.strip().startswith("bearer."):
                return name.strip().removeprefix("bearer.")
        return None

    def handshake(self) -> bytes:
        """The answer to its handshake: 101."""
        accept = base64.b64encode(hashlib.sha1(self._header("sec-websocket-key").encode() + _GUID).digest())
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        lines.append(b"Sec-WebSocket-Accept: " + accept)
        if self.token is not None:
            lines.append(b"Sec-WebSocket-Protocol: marketfeed")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def write(self, data: bytes) -> None:
        if not self.is_gone:
            self.transport.write(data)  # type: ignore[union-attr]

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; the connection ends when the client has answered."""
        self._has_closed = True
        self.write(frame(code.to_bytes(2, "big") + reason.encode(), CLOSE))

    def end(self) -> None:
        """End the connection behind what was written, without a word."""
        self.transport.loseConnection()  # type: ignore[union-attr]

    def reset(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]

    def _header(self, name: str) -> str:
        assert self.head is not None
        for line in self.head.decode().split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return ""


class ScriptedServer:
    """Listens on a port that the system picks. `arrived`: whose handshake has come and is not answered yet."""

    def __init__(self, harness: Harness) -> None:
        self.reactor = harness.reactor
        self.waiting = Waiting(harness.reactor)
        self.peers: set[Peer] = set()
        self.arrived: deque[Peer] = deque()
        factory = Factory.forProtocol(lambda: Peer(self))  # type: ignore[arg-type, return-value]
        factory.noisy = False
        self._listening = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        harness.on_close(self._close)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._listening.getHost().port}/"

    def forget(self, peer: Peer) -> None:
        if peer in self.arrived:
            self.arrived.remove(peer)

    async def next(self) -> Peer:
        """The next connection whose handshake has come."""
        peer: Peer = await self.waiting.until(lambda: self.arrived.popleft() if self.arrived else None)
        return peer

    async def write_torn(self, peer: Peer, data: bytes, size: int) -> None:
        """Write so many bytes at a time, each time in a segment of its own as far as TCP lets one."""
        for start in range(0, len(data), size):
            peer.write(data[start : start + size])
            await self._turn()

    def _turn(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.reactor.callLater(0, done.callback, None)
        return done

    async def _close(self) -> None:
        await self._listening.stopListening()
        for peer in list(self.peers):
            peer.reset()
        await self.waiting.until(lambda: None if self.peers else True)
