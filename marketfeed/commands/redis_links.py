"""Connections to the servers on which channels are, for who waits for them and for other things in one place.

1. Where the servers are is found out at the beginning, which blocks. From then on a server that sends elsewhere for a
   channel (MOVED) is believed, and nobody else is asked.
2. A connection is made when something is published through it, which blocks; one that is lost is the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from marketfeed.commands.redis_link import RedisFault, RedisLink
from marketfeed.commands.redis_options import where_redis_is
from marketfeed.commands.running import end, run_until_ended
from marketfeed.config.settings import Settings
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.tls import RedisTls

if TYPE_CHECKING:
    from marketfeed.redis.where import Where

__all__ = ["FIND_SECONDS", "RedisLinks", "find_links"]

FIND_SECONDS = 10.0
"""For how long it is looked where the servers are."""
_LOOK_SECONDS = 0.02


class RedisLinks:
    """Links by their addresses. `place`: where a channel is; `moved`: what is done with a server's word that it is not.

    `verb`: the command that publishes.
    """

    def __init__(
        self,
        place: Callable[[bytes], RedisAddress | None],
        tls: RedisTls,
        *,
        verb: bytes = b"PUBLISH",
        moved: Callable[[str], None] | None = None,
    ) -> None:
        self._place = place
        self._tls = tls
        self._moved = moved
        self._links: dict[RedisAddress, RedisLink] = {}
        self.verb = verb

    def at(self, channel: bytes) -> RedisLink:
        """The link to the server that has a channel. Raises `RedisFault`."""
        address = self._place(channel)
        if address is None:
            raise RedisFault(f"no server has the channel {channel.decode(errors='replace')} at the moment")
        if address not in self._links:
            self._links[address] = self.connect(address)
        return self._links[address]

    def connect(self, address: RedisAddress) -> RedisLink:
        """A new link. Raises `RedisFault`."""
        return RedisLink.connect(address, self._tls)

    def has_moved(self, fault: str) -> bool:
        """Whether what was refused like this is to be published again, which may be elsewhere."""
        if self._moved is None or not fault.startswith("MOVED "):
            return False
        self._moved(fault)
        return True

    @property
    def each(self) -> list[RedisLink]:
        """All that there are."""
        return list(self._links.values())

    def close(self) -> None:
        for link in self._links.values():
            link.close()


def find_links(settings: Settings) -> RedisLinks:
    """Links to where channels are. Raises `RedisFault`, and KeyboardInterrupt for a signal.

    Afterwards signals mean what they mean to Python.
    """
    address = settings.redis
    if isinstance(address, RedisAddress):
        links = RedisLinks(lambda channel: address, settings.redis_tls)
        links.at(b"")
        return links
    where = _find(settings)

    def place(channel: bytes) -> RedisAddress | None:
        node = where.channels.node_for(channel)
        return None if node is None else node.address

    if where.is_sharded:
        return RedisLinks(place, settings.redis_tls, verb=b"SPUBLISH", moved=where.channels.doubt)
    return RedisLinks(place, settings.redis_tls)


def _find(settings: Settings) -> Where:
    """Where Redis is, as its servers or sentinels say within `FIND_SECONDS`."""
    from twisted.internet import reactor as the_reactor
    from twisted.internet.defer import maybeDeferred
    from twisted.internet.task import LoopingCall

    from marketfeed.redis.link_keeper import links_in

    reactor: Any = the_reactor
    where = where_redis_is(reactor, settings)
    until = reactor.seconds() + FIND_SECONDS
    causes: list[str] = []

    def look() -> None:
        if where.channels.nodes or reactor.seconds() >= until:
            causes.extend(link.cause for link in links_in(where.services) if link.cause)
            end(reactor)

    looking = LoopingCall(look)
    looking.clock = reactor

    def start() -> None:
        for service in where.services:
            service.startService()
        looking.start(_LOOK_SECONDS)

    async def stop() -> None:
        looking.stop()
        for service in where.services:
            await maybeDeferred(service.stopService)

    run_until_ended(reactor, start, stop)
    if where.channels.nodes:
        return where
    if reactor.seconds() < until:
        raise KeyboardInterrupt
    raise RedisFault(f"cannot reach {settings.redis}: {causes[0] if causes else 'nobody says where its servers are'}")
