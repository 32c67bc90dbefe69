"""One client of a load test: a plain socket, from the connect through the handshake to its last frame.

1. A client blocks nowhere: it says what it waits for, and is called when that has come.
2. It asks for its streams as soon as it may, and is open once the server has confirmed them.
3. What it reads it hands over as it came. What it sends is so little that a socket takes it at once.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import msgspec

from marketfeed import __version__
from marketfeed.commands.address import ServerAddress
from marketfeed.commands.bench.frames import masked_frame
from marketfeed.model.kinds.columns import clean

__all__ = ["Client", "ClientFault", "Meeting", "meet"]

_CONNECT_SECONDS = 10.0
_SEND_SECONDS = 10.0
_READ = 65536
_SLOW_BUFFER = 4096  # bytes of the kernel's, for a client that is not going to read
_MAX_HEAD = 65536
_SHOWN = 200
_KEY = "bWFya2V0ZmVlZCBiZW5jaA=="
_ACCEPT = re.compile(rb"\r\nsec-websocket-accept:[ \t]*3k3xaIDsimMH0HAfLToBvD6aKbs=[ \t]*\r\n", re.IGNORECASE)
_DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
_DEFLATES = re.compile(rb"\r\nsec-websocket-extensions:[^\r\n]*permessage-deflate([^\r\n]*)\r\n", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3} ?[^\r\n]*)")


class ClientFault(Exception):
    """The server cannot be reached, or refuses; the message is one line."""


class Meeting(msgspec.Struct, frozen=True):
    """Where and how all clients meet the server. `request`: the whole handshake of each."""

    address: ServerAddress
    family: int
    endpoint: tuple[Any, ...]
    tls: ssl.SSLContext | None
    request: bytes


def meet(address: ServerAddress, *, compression: bool, token: str | None = None) -> Meeting:
    """Find out which of the host's addresses answers; it blocks. `token`: to be shown. Raises `ClientFault`."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as fault:
        raise ClientFault(f"cannot reach {address.shown}: {fault.strerror}") from None
    trouble = "the host has no address"
    for family, kind, _, _, endpoint in found:
        with socket.socket(family, kind) as probe:
            probe.settimeout(_CONNECT_SECONDS)
            try:
                probe.connect(endpoint)
            except OSError as fault:
                trouble = fault.strerror or str(fault)
                continue
        tls = ssl.create_default_context() if address.is_secure else None
        return Meeting(address, family, endpoint, tls, _request(address, compression, token))
    raise ClientFault(f"cannot reach {address.shown}: {trouble}")


def _request(address: ServerAddress, compression: bool, token: str | None) -> bytes:
    lines = [
        f"GET {address.resource} HTTP/1.1",
        f"Host: {address.host_in_header}:{address.port}",
        f"User-Agent: marketfeed/{__version__}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {_KEY}",
    ]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if compression:
        lines.append(f"Sec-WebSocket-Extensions: {_DEFLATE}")
    return "\r\n".join([*lines, "", ""]).encode()


class Client:
    """One client, which asks for `streams` by their names.

    `waits_for`: the next number of each stream, by index. `rest`: what has come of a message that is not whole yet.
    `interest`: the selector's events to wait for. `is_slow`: once its streams are confirmed it will not read any more.
    """

    def __init__(
        self, number: int, meeting: Meeting, streams: Sequence[str], waits_for: dict[int, int], *, is_slow: bool
    ) -> None:
        self.number = number
        self.waits_for = waits_for
        self.is_slow = is_slow
        self.is_open = False
        self.is_deflated = False
        self.rest = b""
        self.started = 0.0
        self.interest = selectors.EVENT_WRITE
        self.socket = socket.socket(meeting.family, socket.SOCK_STREAM)
        self.recv = self.socket.recv
        self._meeting = meeting
        self._streams = streams
        self._step = self._connected

    def connect(self, now: float) -> None:
        """Begin. Raises `ClientFault`."""
        self.started = now
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.is_slow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        try:
            self.socket.connect(self._meeting.endpoint)
        except BlockingIOError:
            pass
        except OSError as fault:
            raise self._fault(fault) from None

    def advance(self) -> bool:
        """What `interest` waits for has come. True: this is a WebSocket now. Raises `ClientFault`."""
        try:
            return self._step()
        except ssl.SSLWantReadError:
            self.interest = selectors.EVENT_READ
        except (ssl.SSLWantWriteError, BlockingIOError):
            self.interest = selectors.EVENT_WRITE
        except OSError as fault:
            raise self._fault(fault) from None
        return False

    def send(self, data: bytes) -> None:
        """Raises OSError."""
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        if sent < len(data):
            self.socket.settimeout(_SEND_SECONDS)
            self.socket.sendall(data[sent:])
            self.socket.setblocking(False)

    # From the connect to the WebSocket.

    def _connected(self) -> bool:
        fault = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if fault:
            raise OSError(fault, os.strerror(fault))
        tls = self._meeting.tls
        if tls is None:
            return self._greet()
        self.socket = tls.wrap_socket(
            self.socket, server_hostname=self._meeting.address.host, do_handshake_on_connect=False
        )
        self.recv = self.socket.recv
        self._step = self._shake_hands
        return self._shake_hands()

    def _shake_hands(self) -> bool:
        assert isinstance(self.socket, ssl.SSLSocket)
        self.socket.do_handshake()
        return self._greet()

    def _greet(self) -> bool:
        self.send(self._meeting.request)
        self.interest = selectors.EVENT_READ
        self._step = self._read_head
        return False

    def _read_head(self) -> bool:
        data = self.recv(_READ)
        head, end, rest = (self.rest + data).partition(b"\r\n\r\n")
        if not data or len(head) > _MAX_HEAD:
            raise ClientFault(f"{self._shown}: no answer to the handshake")
        if not end:
            self.rest = head
            return False
        self._check(head + b"\r\n", rest)
        self.rest = rest
        self.send(masked_frame(msgspec.json.encode({"method": "SUBSCRIBE", "params": self._streams, "id": 1})))
        return True

    def _check(self, head: bytes, body: bytes) -> None:
        status = _STATUS.match(head)
        if status is None:
            raise ClientFault(f"{self._shown} does not speak HTTP")
        if not status[1].startswith(b"101"):
            words = body[: 4 * _SHOWN].decode("utf-8", "replace").strip().partition("\n")[0]
            answer = status[1].decode("latin-1").strip() + (f": {words}" if words else "")
            raise ClientFault(f"{self._shown} answers {clean(answer, _SHOWN)}")
        if not _ACCEPT.search(head):
            raise ClientFault(f"{self._shown} does not speak WebSocket")
        deflates = _DEFLATES.search(head)
        self.is_deflated = deflates is not None
        if deflates is not None and b"server_no_context_takeover" not in deflates[1].lower():
            raise ClientFault(f"{self._shown} compresses with a context, which this cannot read")

    @property
    def _shown(self) -> str:
        return self._meeting.address.shown

    def _fault(self, fault: OSError) -> ClientFault:
        return ClientFault(f"{self._shown}, client {self.number + 1}: {fault.strerror or fault}")
