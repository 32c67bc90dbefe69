"""The trading engine of a load test: it publishes trades and order books that are numbered and tell their time.

1. Each stream's numbers begin at 1 and have no holes. A trade's is its `t`, a depth update's both its `U` and its `u`.
2. `T` is the time at which a message was to be published, in ms since 1970 with three decimals.
3. What the Redis server does not take at once waits here, in order; whoever publishes asks `is_behind` first.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

import hiredis

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.tls import RedisTls, explain_refusal

__all__ = ["EngineFault", "NumberedEngine", "connect_to_redis", "depth_update", "trade"]

_CONNECT_SECONDS = 10.0
_READ = 65536
_NO_FILES = RedisTls()
_ENOUGH = 1 << 20
"""Bytes that wait for the Redis server, beyond which it is not keeping up."""


class EngineFault(Exception):
    """Nothing can be published; the message is one line, without a password."""


def trade(market: str, number: int, time: float) -> str:
    """A trade as JSON. `time`: ms since 1970."""
    price = f"{1000 + number % 50}.{number % 20 * 5:02}"
    maker = "true" if number & 1 else "false"
    return (
        f'{{"e":"trade","t":{number},"T":{time:.3f},"m":{maker},"p":"{price}","q":"{1 + number % 90}","s":"{market}"}}'
    )


def depth_update(market: str, number: int, time: float, levels: int) -> str:
    """So many changed levels on each side, as JSON. Over time they are some of four times as many, and never cross."""
    asks, bids = [], []
    for level in range(levels):
        step = (number * 3 + level * 4) % (4 * levels)
        quantity = (number * 7 + level * 13) % 90  # at times 0, which removes the level
        asks.append(f'["{1000 + step // 20}.{step % 20 * 5:02}","{quantity}"]')
        bids.append(f'["{999 - step // 20}.{95 - step % 20 * 5:02}","{quantity}"]')
    return (
        f'{{"e":"depth","U":{number},"u":{number},"T":{time:.3f},"s":"{market}",'
        f'"a":[{",".join(asks)}],"b":[{",".join(bids)}]}}'
    )


def connect_to_redis(address: RedisAddress, tls: RedisTls = _NO_FILES) -> socket.socket:
    """A connection that is logged in; it blocks. Raises `EngineFault`."""
    try:
        link = _connect(address, tls)
    except OSError as fault:  # SSLError is one
        raise EngineFault(f"cannot reach {address}: {_explain(fault)}") from None
    reader = hiredis.Reader()
    try:
        if address.password is not None:
            user = (address.username,) if address.username else ()
            _ask(link, reader, "AUTH", *user, address.password)
        if address.database:
            _ask(link, reader, "SELECT", str(address.database))
        _ask(link, reader, "PING")
    except EngineFault as fault:
        link.close()
        raise EngineFault(f"{address}: {fault}") from None
    return link


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
                raise EngineFault("the connection was closed")
            reader.feed(data)
    except OSError as fault:
        raise EngineFault(_explain(fault)) from None
    except hiredis.ProtocolError:
        raise EngineFault("the answer is not in Redis' protocol, is it a Redis server?") from None
    if isinstance(reply, hiredis.ReplyError):
        raise EngineFault(str(reply))


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


class NumberedEngine:
    """Publishes to `streams`, `<kind>@<market>` of the kinds trade and depth, in turn, through `link`.

    `levels`: of each side of a depth update. `payload_bytes`: what a payload has at least. `published`: how many each
    stream had, by index; `total`: all of them. `unheard`: publications that the Redis server had no subscriber for.
    """

    def __init__(
        self, link: socket.socket, streams: Sequence[str], prefix: str = "", levels: int = 10, payload_bytes: int = 0
    ) -> None:
        link.setblocking(False)
        self._link = link
        self._replies = hiredis.Reader()
        self._targets = [self._target(stream, prefix) for stream in streams]
        self._levels = levels
        self._payload_bytes = payload_bytes
        self._next = 0
        self._waiting = b""
        self.published = [0] * len(streams)
        self.total = 0
        self.unheard = 0

    @staticmethod
    def _target(stream: str, prefix: str) -> tuple[bytes, bool, str]:
        kind, _, market = stream.partition("@")
        channel = (prefix + stream).encode()
        return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n" % (len(channel), channel), kind == "depth", market

    @property
    def is_behind(self) -> bool:
        """The Redis server does not keep up: `flush` until it does."""
        return len(self._waiting) > _ENOUGH

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def fileno(self) -> int:
        return self._link.fileno()

    def publish(self, count: int, time: float, step: float = 0.0) -> list[int]:
        """Publish `count` messages, the first of `time`, in ms since 1970, each other `step` ms later than the last.

        Returns the stream of each. Raises `EngineFault`.
        """
        parts = [self._waiting]
        streams = []
        for place in range(count):
            stream = self._next
            self._next = (stream + 1) % len(self._targets)
            self.published[stream] += 1
            payload = self._payload(stream, self.published[stream], time + place * step)
            parts.append(b"%b$%d\r\n%b\r\n" % (self._targets[stream][0], len(payload), payload))
            streams.append(stream)
        self._waiting = b"".join(parts)
        self.total += count
        self.flush()
        return streams

    def _payload(self, stream: int, number: int, time: float) -> bytes:
        _, is_depth, market = self._targets[stream]
        text = depth_update(market, number, time, self._levels) if is_depth else trade(market, number, time)
        missing = self._payload_bytes - len(text)
        if missing > 0:
            text = f'{text[:-1]},"x":"{"x" * max(missing - 7, 0)}"}}'
        return text.encode()

    def flush(self) -> None:
        """Send what waits, as far as the server takes it. Raises `EngineFault`."""
        try:
            while self._waiting:
                sent = self._link.send(self._waiting)
                self._waiting = self._waiting[sent:]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as fault:
            raise EngineFault(f"the connection to Redis is lost: {fault.strerror or fault}") from None

    def read_replies(self) -> None:
        """Read what the server says of each publication. Raises `EngineFault` when it refuses one, or is gone."""
        try:
            data = self._link.recv(_READ)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as fault:
            raise EngineFault(f"the connection to Redis is lost: {fault.strerror or fault}") from None
        if not data:
            raise EngineFault("Redis has closed the connection")
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    raise EngineFault(f"Redis refuses a publication: {reply}")
                if reply == 0:
                    self.unheard += 1
        except hiredis.ProtocolError:
            raise EngineFault("Redis' answer cannot be read") from None

    def close(self) -> None:
        self._link.close()
