"""How many streams one address may have that the daemon would not follow without it.

1. Each stream that has clients is paid for by one of them, out of the share of its address; who joins a stream that is
   paid for pays nothing. So the sum of what is paid is the number of such streams, however many addresses conspire.
2. Who joins and has paid for less takes over: what everybody watches costs nobody much.
3. When who pays leaves, another who is in the stream pays: what it has left of its share does not matter then.
4. An address has a share as long as it has clients. A client without one, such as one of a proxy's own, pays nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable
from weakref import WeakValueDictionary

import msgspec

__all__ = ["Share", "Shares"]


class Share(msgspec.Struct, eq=False, weakref=True):
    """What the clients of one address pay for. `most`: streams."""

    most: int
    paid: int = 0
    reserved: Counter[str] = msgspec.field(default_factory=Counter)  # names that nobody has, as often as asked for

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

    def grant(self, most: int) -> None:
        """Let this be what each may have, those that have clients too."""
        self._most = most
        for share in self._shares.values():
            share.most = most or sys.maxsize

    def of(self, key: Hashable) -> Share | None:
        """The share of an address, by its key; a client keeps it as long as it lives. None: it has none."""
        if key is None or not self._most:
            return None
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(self._most)
        return share
