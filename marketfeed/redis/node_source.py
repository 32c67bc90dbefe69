"""One server of a source: the link on which publications come, what is wanted from there, who is told of its loss.

1. The sink hears `reached` when the link is up, and `lost`, with all streams that are wanted from here, when it ends
   and whenever none can be made: since the last moment at which the server was known to have told all that it had.
2. What is wanted while there is no link is known to be out of reach at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock, Sink
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import Commands
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.redis.server_role import RoleLink, RoleWatch
from marketfeed.redis.stream_reads import Reading

__all__ = ["FeedLink", "NodeSource"]


class FeedLink(RoleLink):
    """A link on which publications come. `good_at`: when it was last known good, in s since 1970."""

    good_at: float


_Link = TypeVar("_Link", bound=FeedLink)


class NodeSource(LinkKeeper[_Link], ABC):
    """Keeps the link, and tells `sink`.

    `commands`: another link to the server, which is asked for its role; `name`: what the log, the metrics and the sink
    call the link; `now`: the time, in s since 1970; `certain_at`: when the server was last known to be the one that has
    its streams, in s since 1970.
    """

    is_of_source = True

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        sink: Sink,
        commands: Commands,
        now: Callable[[], float],
        name: str,
        certain_at: Callable[[], float] = lambda: math.inf,
    ) -> None:
        super().__init__(clock, endpoint, address, name)
        self._now = now
        self._certain_at = certain_at
        self._role = RoleWatch(clock, commands, now)
        self.sink = sink
        self.down_since: int | None = None
        """Since when there is no link, in ms since 1970; None: there is one, or none was tried."""

    @abstractmethod
    def want(self, stream: str, position: Reading | None = None) -> int | None:
        """See `Source`. `position`: where the stream goes on that was wanted from another server."""

    @abstractmethod
    def unwant(self, stream: str) -> Reading | None:
        """Deliver this stream no longer. Returns its position, where it has one."""

    @abstractmethod
    def catch_up(self, stream: str) -> Deferred[bool]:
        """Wait until all that has been published on a stream by now was delivered.

        False: that is not to be known any more. It never fails.
        """

    @property
    @abstractmethod
    def wanted(self) -> Collection[str]:
        """The streams that are wanted from here."""

    @property
    def server(self) -> str | None:
        """Who is at the other end of the link."""
        return None if self.link is None else str(self.link.transport.getPeer())

    @property
    def good_at(self) -> int:
        """When all that was published had been told, as far as is known, in ms since 1970."""
        if self.link is None:
            return int(self._now() * 1000) if self.down_since is None else self.down_since
        return self._good_at(self.link)

    def link_up(self, link: _Link) -> None:
        self._role.begin(link)
        self.down_since = None
        self.sink.reached(self.called)

    def link_down(self, link: _Link | None) -> None:
        self._role.end()
        if not self.running:
            return
        if link is not None:
            self.down_since = self._good_at(link)
        elif self.down_since is None:
            self.down_since = int(self._now() * 1000)
        self.sink.lost(self.down_since, list(self.wanted), self.called)

    def _good_at(self, link: _Link) -> int:
        return int(min(link.good_at, self._role.good_at, self._certain_at()) * 1000)
