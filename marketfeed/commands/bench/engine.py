"""The trading engine of a load test: it publishes trades and order books that are numbered and tell their time.

1. Each stream's numbers begin at 1 and have no holes. A trade's is its `t`, a depth update's both its `U` and its `u`.
2. `T` is the time at which a message was to be published, in ms since 1970 with three decimals.
3. What the Redis server does not take at once waits here, in order; whoever publishes asks `is_behind` first.
"""

from __future__ import annotations

from collections.abc import Sequence

import hiredis

from marketfeed.commands.redis_link import RedisFault, RedisLink

__all__ = ["NumberedEngine", "depth_update", "trade"]

_ENOUGH = 1 << 20
"""Bytes that wait for the Redis server, beyond which it is not keeping up."""


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


class NumberedEngine:
    """Publishes to `streams`, `<kind>@<market>` of the kinds trade and depth, in turn, through `link`.

    `levels`: of each side of a depth update. `payload_bytes`: what a payload has at least. `published`: how many each
    stream had, by index; `total`: all of them. `unheard`: publications that the Redis server had no subscriber for.
    """

    def __init__(
        self, link: RedisLink, streams: Sequence[str], prefix: str = "", levels: int = 10, payload_bytes: int = 0
    ) -> None:
        self._link = link
        self._targets = [self._target(stream, prefix) for stream in streams]
        self._levels = levels
        self._payload_bytes = payload_bytes
        self._next = 0
        self.published = [0] * len(streams)
        self.total = 0
        self.unheard = 0

    @staticmethod
    def _target(stream: str, prefix: str) -> tuple[bytes, bool, str]:
        kind, _, market = stream.partition("@")
        return RedisLink.head((prefix + stream).encode()), kind == "depth", market

    @property
    def is_behind(self) -> bool:
        """The Redis server does not keep up: `flush` until it does."""
        return len(self._link.waiting) > _ENOUGH

    @property
    def has_waiting(self) -> bool:
        return bool(self._link.waiting)

    def fileno(self) -> int:
        return self._link.fileno()

    def publish(self, count: int, time: float, step: float = 0.0) -> list[int]:
        """Publish `count` messages, the first of `time`, in ms since 1970, each other `step` ms later than the last.

        Returns the stream of each. Raises `RedisFault`.
        """
        streams, publications = [], []
        for place in range(count):
            stream = self._next
            self._next = (stream + 1) % len(self._targets)
            self.published[stream] += 1
            payload = self._payload(stream, self.published[stream], time + place * step)
            publications.append((self._targets[stream][0], payload))
            streams.append(stream)
        self._link.publish(publications)
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
        """Send what waits, as far as the server takes it. Raises `RedisFault`."""
        self._link.flush()

    def read_replies(self) -> None:
        """Read what the server says of each publication. Raises `RedisFault` when it refuses one, or is gone."""
        for reply in self._link.replies():
            if isinstance(reply, hiredis.ReplyError):
                raise RedisFault(f"Redis refuses a publication: {reply}")
            if reply == 0:
                self.unheard += 1
