"""How many streams one address may have that the daemon would not follow without it.

1. Each stream that has clients is paid for by one of them, out of the share of its address; who joins a stream that is
   paid for pays nothing. So the sum of what is paid is the number of such streams, however many addresses conspire.
2. Who joins and has paid for less takes over: what everybody watches costs nobody much.
3. When who pays leaves, another who is in the stream pays: what it has left of its share does not matter then.
4. An address has a share as long as it has clients. A client without one, such as one of a proxy's own, pays nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from weakref import WeakValueDictionary

from marketfeed.boundaries import Subscriber
from marketfeed.hub.stream import LiveStream

__all__ = ["Share", "Shares", "hand_over", "keep", "pay", "stop_paying"]


class Share:
    """What the clients of one address pay for. `most`: streams."""

    __slots__ = ("__weakref__", "most", "paid", "reserved")

    def __init__(self, most: int) -> None:
        self.most = most
        self.paid = 0
        self.reserved: Counter[str] = Counter()  # names that nobody has yet, as often as they are asked for

    def has_room(self, count: int) -> bool:
        """Whether `count` more streams may be paid for."""
        return self.paid + len(self.reserved) + count <= self.most


class Shares:
    """The shares of all addresses that have clients; `most` of each, 0 for no limit, and then nobody has one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._shares: WeakValueDictionary[Hashable, Share] = WeakValueDictionary()

    def __len__(self) -> int:
        """How many addresses have one."""
        return len(self._shares)

    def of(self, key: Hashable) -> Share | None:
        """The share of an address, by its key; a client keeps it as long as it lives. None: it has none."""
        if key is None or not self._most:
            return None
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(self._most)
        return share


def pay(stream: LiveStream, subscriber: Subscriber) -> None:
    """`subscriber` is in `stream`, or on its way: it pays, where nobody does, or somebody who has paid for more."""
    share, present = subscriber.share, stream.share
    if stream.payer is None or (share is not None and present is not None and share.paid + 1 < present.paid):
        _set(stream, subscriber, share)


def hand_over(stream: LiveStream, subscriber: Subscriber) -> None:
    """`subscriber` has left: if it paid, another pays. One on its way will, when it is in."""
    if stream.payer is subscriber:
        stop_paying(stream)
        for group in stream.groups.values():
            for audience in group.audiences:
                heir = next(iter(audience.members))
                _set(stream, heir, heir.share)
                return


def keep(stream: LiveStream) -> None:
    """The operator has the stream, for good: no client pays for it."""
    _set(stream, keep, None)


def stop_paying(stream: LiveStream) -> None:
    """Nobody has the stream any more."""
    _set(stream, None, None)


def _set(stream: LiveStream, payer: object, share: Share | None) -> None:
    if stream.share is not None:
        stream.share.paid -= 1
    stream.payer, stream.share = payer, share
    if share is not None:
        share.paid += 1
