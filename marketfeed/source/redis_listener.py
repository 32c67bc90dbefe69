"""Listens to channels and patterns of a Redis server that never change, for a recorder.

1. Every subscription is a command of its own, so that the server says which of them it refuses.
2. The sink hears things in the order in which they happened on the link: `arrived` before what came in one read, and
   `flush` behind it.
3. The link is never paused: a subscriber with too much unread is cut off by the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import hiredis
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.redis_address import RedisAddress
from marketfeed.source.link_service import LinkService
from marketfeed.source.redis_link import RedisLink
from marketfeed.source.resp import pack
from marketfeed.source.subscriber_link import SubscriberLink

__all__ = ["ListenerSink", "RedisListener"]

_CONFIRMATIONS = (b"subscribe", b"psubscribe")


class ListenerSink(Protocol):
    """What is listened for."""

    def arrived(self) -> None:
        """Something has come on the link: it was good until now."""

    def publication(self, subscription: bytes, channel: bytes, payload: bytes) -> None:
        """A publication; as many times as there are subscriptions that cover its channel."""

    def flush(self) -> None:
        """All that arrived together has been said."""

    def complete(self) -> None:
        """Every subscription is confirmed: from now on nothing is missed."""

    def refused(self, subscription: bytes, why: str) -> bool:
        """The server does not permit a subscription. True: make the link anew, and ask again."""

    def lost(self) -> None:
        """The link is gone, or could not be made."""


class _ListenerLink(SubscriberLink):
    """A link that subscribes once it is up."""

    def __init__(self, clock: Clock, commands: Sequence[tuple[bytes, bytes]], sink: ListenerSink) -> None:
        super().__init__(clock)
        self._sink = sink
        self._commands = commands
        self._answered = 0

    def subscribe(self) -> None:
        """Ask for everything that is listened to."""
        self.transport.write(b"".join([pack(*command) for command in self._commands]))

    def read_begins(self) -> None:
        self._sink.arrived()

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        self._sink.publication(channel if pattern is None else pattern, channel, message)

    def read_ends(self) -> None:
        self._sink.flush()

    def heard(self, reply: Any) -> None:
        """Everything that is no publication: the server answers the commands in their order."""
        if isinstance(reply, hiredis.ReplyError):
            asked = self._commands[self._answered : self._answered + 1]
            if not asked or self._sink.refused(asked[0][1], str(reply)):
                self.fail(str(reply))
        elif type(reply) is list and reply[0] in _CONFIRMATIONS:
            self._answered += 1
            if self._answered == len(self._commands):
                self._sink.complete()


class RedisListener(LinkService):
    """Keeps the subscriptions that `commands` make, through whatever happens to the link."""

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        commands: Sequence[tuple[bytes, bytes]],
        sink: ListenerSink,
    ) -> None:
        super().__init__(clock, endpoint, address, "redis")
        self._commands = commands
        self._sink = sink

    def make_link(self) -> RedisLink:
        return _ListenerLink(self._clock, self._commands, self._sink)

    def link_up(self, link: RedisLink) -> None:
        assert isinstance(link, _ListenerLink)
        link.subscribe()

    def link_down(self, link: RedisLink | None) -> None:
        if self.running:
            self._sink.lost()
