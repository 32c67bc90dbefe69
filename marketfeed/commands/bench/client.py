"""One client of a load test: a plain socket, from the connect through the handshake to its last frame.

1. A client blocks nowhere: it says what it waits for, and is called when that has come.
2. It asks for its streams as soon as it may, and is open once the server has confirmed them.
3. What it reads it hands over as it came. What it sends is so little that a socket takes it at once.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from marketfeed.commands.address import ServerAddress
from marketfeed.commands.frames import masked_frame
from marketfeed.commands.handshake import BadAnswer, Handshake

__all__ = ["Client", "ClientFault", "Meeting", "meet"]

_CONNECT_SECONDS = 10.0
_SEND_SECONDS = 10.0
_READ = 65536
_SLOW_BUFFER = 4096  # bytes of the kernel's, for a client that is not going to read


class ClientFault(Exception):
    """The server cannot be reached, or refuses; the message is one line."""


class Meeting(msgspec.Struct, frozen=True):
    """Where and how all clients meet the server."""

    address: ServerAddress
    family: int
    endpoint: tuple[Any, ...]
    tls: ssl.SSLContext | None
    handshake: Handshake


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
        return Meeting(address, family, endpoint, tls, Handshake(address, token=token, compression=compression))
    raise ClientFault(f"cannot reach {address.shown}: {trouble}")


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
            with suppress(BlockingIOError):
                self.socket.connect(self._meeting.endpoint)
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
        self.send(self._meeting.handshake.request)
        self.interest = selectors.EVENT_READ
        self._step = self._read_head
        return False

    def _read_head(self) -> bool:
        data = self.recv(_READ)
        if not data:
            raise ClientFault(f"{self._shown}: no answer to the handshake")
        self.rest += data
        try:
            answer = self._meeting.handshake.read(self.rest)
        except BadAnswer as fault:
            raise ClientFault(f"{self._shown} {fault}") from None
        if answer is None:
            return False
        if not answer.is_websocket:
            words = f": {answer.words}" if answer.words else ""
            raise ClientFault(f"{self._shown} answers {answer.said}{words}")
        self.is_deflated = answer.is_deflated
        self.rest = answer.rest
        self.send(masked_frame(msgspec.json.encode({"method": "SUBSCRIBE", "params": self._streams, "id": 1})))
        return True

    @property
    def _shown(self) -> str:
        return self._meeting.address.shown

    def _fault(self, fault: OSError) -> ClientFault:
        return ClientFault(f"{self._shown}, client {self.number + 1}: {fault.strerror or fault}")
