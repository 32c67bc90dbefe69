"""A daemon's admin port inside the test's process, and the command that asks it, in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from marketfeed.api.admin import AdminSite, Bounded
from marketfeed.api.pages import Pages
from marketfeed.api.viewers import Viewers
from marketfeed.commands import main
from tests.api.test_status import Shown

__all__ = ["Daemon", "status", "unix"]


class Daemon(Shown):
    """The parts of a daemon that the admin port shows. `hosts`, `token`: as `Viewers` has them."""

    def __init__(self, *hosts: str, token: bytes = b"") -> None:
        super().__init__()
        pages = Pages(self.parts.health, self.metrics, self.status, self.lists)
        self._site = Bounded(AdminSite(reactor, pages, Viewers(self.room.clock, hosts, token)))

    def reach(self) -> None:
        """Redis is there."""
        for link in self.links:
            link.link = object()
        self.room.source.sink.reached("redis")

    @asynccontextmanager
    async def listening(self, endpoint: Callable[[Any], IStreamServerEndpoint] | None = None) -> AsyncIterator[str]:
        """On a free port of the loopback interface, whose URL is the value; or where `endpoint` says."""
        make = endpoint or (lambda reactor: TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        port = await make(reactor).listen(self._site)
        try:
            yield f"http://127.0.0.1:{getattr(port.getHost(), 'port', 0)}"
        finally:
            await port.stopListening()
            while self._site.protocols:  # until who asked has gone
                await deferLater(reactor, 0.01)


def unix(path: object) -> Callable[[Any], IStreamServerEndpoint]:
    return lambda reactor: UNIXServerEndpoint(reactor, str(path))


def status(*arguments: str) -> Deferred[int]:
    """The exit status of the command, which waits for answers while the reactor gives them."""
    return deferToThread(main, ["status", *arguments])
