"""What all services have in common that keep one link to Redis."""

from __future__ import annotations

from abc import ABC, abstractmethod

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.link import LinkKeeper, RedisLink

__all__ = ["LinkService"]


class LinkService(MultiService, ABC):
    """The owner of one link, which is made anew whenever it is lost. `name`: what the log calls it.

    The link's keeper is a child of this service, and so is whatever else runs for as long as it does.
    """

    def __init__(self, clock: Clock, endpoint: IStreamClientEndpoint, address: RedisAddress, name: str) -> None:
        MultiService.__init__(self)
        self._clock = clock
        self.add_child(LinkKeeper(clock, endpoint, address, self, name))

    def add_child(self, child: IService) -> None:
        """Let something start when this service does, behind what was added before it, and stop when it does."""
        child.setServiceParent(self)

    def startService(self) -> None:
        MultiService.startService(self)

    def stopService(self) -> Deferred[None]:
        stopped: Deferred[None] = MultiService.stopService(self).addCallback(lambda _: None)
        return stopped

    @abstractmethod
    def make_link(self) -> RedisLink:
        """A fresh link, not connected yet."""

    @abstractmethod
    def link_up(self, link: RedisLink) -> None:
        """The link is ready for use."""

    @abstractmethod
    def link_down(self, link: RedisLink | None) -> None:
        """The link is lost; None: none could be made."""
