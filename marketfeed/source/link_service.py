"""What all services have in common that keep one link to Redis."""

from __future__ import annotations

from abc import ABC, abstractmethod

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.redis_address import RedisAddress
from marketfeed.source.redis_link import LinkKeeper, RedisLink

__all__ = ["LinkService"]


class LinkService(Service, ABC):
    """The owner of one link, which is made anew whenever it is lost. `name`: what the log calls it."""

    def __init__(self, clock: Clock, endpoint: IStreamClientEndpoint, address: RedisAddress, name: str) -> None:
        self._clock = clock
        self._keeper = LinkKeeper(clock, endpoint, address, self, name)

    def startService(self) -> None:
        Service.startService(self)
        self._keeper.startService()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return self._keeper.stopService()

    @abstractmethod
    def make_link(self) -> RedisLink:
        """A fresh link, not connected yet."""

    @abstractmethod
    def link_up(self, link: RedisLink) -> None:
        """The link is ready for use."""

    @abstractmethod
    def link_down(self, link: RedisLink | None) -> None:
        """The link is lost; None: none could be made."""
