"""A connection to a Redis server on which much is published, for who waits for it and for other things in one place.

1. Making it blocks; then nothing here does. What the server does not take at once waits, in order.
2. A publication that is larger than all bounds is the caller's business: see `waiting`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator

import hiredis

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.tls import RedisTls, explain_refusal

__all__ = ["RedisFault", "RedisLink"]

_CONNECT_SECONDS = 10.0
_READ = 65536
_NO_FILES = RedisTls()
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class RedisFault(Exception):
    """It cannot go on; the message is one line, without a password."""


class RedisLink:
    """What is published through `link`, which is logged in. `waiting`: what the server has not taken yet."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link = link
        self._replies = hiredis.Reader()
        self.waiting = bytearray()

    @classmethod
    def connect(cls, address: RedisAddress, tls: RedisTls = _NO_FILES) -> RedisLink:
        """A link that is logged in; it blocks. Raises `RedisFault`."""
        try:
            link = _connect(address, tls)
        except OSError as fault:  # SSLError is one
            raise RedisFault(f"cannot reach {address}: {_explain(fault)}") from None
        reader = hiredis.Reader()
        try:
            if address.password is not None:
                user = (address.username,) if address.username else ()
                _ask(link, reader, "AUTH", *user, address.password)
            if address.database:
                _ask(link, reader, "SELECT", str(address.database))
            _ask(link, reader, "PING")
        except RedisFault as fault:
            link.close()
            raise RedisFault(f"{address}: {fault}") from None
        return cls(link)

    def fileno(self) -> int:
        return self._link.fileno()

    @staticmethod
    def head(channel: bytes, verb: bytes = b"PUBLISH") -> bytes:
        """What a publication on `channel` begins with."""
        return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(verb), verb, len(channel), channel)

    def publish(self, publications: Iterable[tuple[bytes, bytes]]) -> None:
        """Let them wait until the next `flush`, each with the `head` of its channel and its payload."""
        self.waiting += b"".join([b"%b$%d\r\n%b\r\n" % (head, len(data), data) for head, data in publications])

    def flush(self) -> None:
        """Send what waits, as far as the server takes it. Raises `RedisFault`."""
        try:
            while self.waiting:
                sent = self._link.send(self.waiting)
                del self.waiting[:sent]
        except _WOULD_BLOCK:
            pass
        except OSError as fault:
            raise _lost(fault) from None

    def replies(self) -> Iterator[object]:
        """What the server has said of each publication since the last time. Raises `RedisFault`."""
        try:
            while data := self._link.recv(_READ):
                self._replies.feed(data)
                while (reply := self._replies.gets()) is not False:
                    yield reply
        except _WOULD_BLOCK:
            return
        except OSError as fault:
            raise _lost(fault) from None
        except hiredis.ProtocolError:
            raise RedisFault("Redis' answer cannot be read") from None
        raise RedisFault("Redis has closed the connection")

    def close(self) -> None:
        self._link.close()


def _lost(fault: OSError) -> RedisFault:
    return RedisFault(f"the connection to Redis is lost: {fault.strerror or fault}")


def _connect(address: RedisAddress, tls: RedisTls) -> socket.socket:
    if address.path:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(_CONNECT_SECONDS)
        link.connect(address.path)
        return link
    link = socket.create_connection((address.host, address.port), _CONNECT_SECONDS)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.tls:
        return link
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context.wrap_socket(link, server_hostname=address.host)


def _ask(link: socket.socket, reader: hiredis.Reader, *command: str) -> None:
    try:
        _send(link, hiredis.pack_command(command))
        while (reply := reader.gets()) is False:
            data = link.recv(_READ)
            if not data:
                raise RedisFault("the connection was closed")
            reader.feed(data)
    except OSError as fault:
        raise RedisFault(_explain(fault)) from None
    except hiredis.ProtocolError:
        raise RedisFault("the answer is not in Redis' protocol, is it a Redis server?") from None
    if isinstance(reply, hiredis.ReplyError):
        raise RedisFault(str(reply))


def _send(link: socket.socket, data: bytes) -> None:
    try:
        link.sendall(data)
    except TimeoutError:
        raise
    except OSError:
        link.recv(_READ)  # which tells why, where the server has said it before it closed the connection
        raise


def _explain(fault: OSError) -> str:
    return explain_refusal(fault.strerror or str(fault))
