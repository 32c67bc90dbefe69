"""What the tests of Redis streams share: a sink that keeps what it hears, and a source that reads a real server."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Sink, Subscriber
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.streams import RedisStreams
from marketfeed.redis.topology import Node, OneServer
from tests.system.harness import Harness, RedisServer

__all__ = ["Heard", "address_of", "commands_on", "endpoint_of", "source_on"]


class Heard:
    """A sink. `events` holds (what, stream, …) of everything but the flushes. `unwants`: one publication is enough."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.source: RedisStreams
        self.unwants = False

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        self.events.append(("publish", stream, payload.decode(), offset or ""))
        if self.unwants:
            self.source.unwant(stream)

    def flush(self) -> None:
        """Nothing to keep."""

    def behind(self) -> list[Subscriber]:
        return []

    def missed(self, stream: str, seconds: float) -> None:
        self.events.append(("missed", stream))

    def confirmed(self, stream: str, after: str | None = None) -> None:
        self.events.append(("confirmed", stream, after or ""))

    def discovered(self, stream: str) -> None:
        raise AssertionError("nothing is to be discovered")

    def refused(self, stream: str, why: str) -> None:
        self.events.append(("refused", stream, why.split()[0]))

    def reached(self, link: str) -> None:
        self.events.append(("reached",))

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        self.events.append(("lost",))

    def of(self, what: str, stream: str | None = None) -> list[tuple[str, ...]]:
        """The rest of each event of one sort, of one stream where it is named."""
        return [event[2:] for event in self.events if event[0] == what and stream in (None, event[1])]

    def count(self, what: str) -> int:
        return sum(event[0] == what for event in self.events)


if TYPE_CHECKING:
    _sink: Sink = Heard()


def endpoint_of(harness: Harness, server: RedisServer) -> IStreamClientEndpoint:
    return UNIXClientEndpoint(harness.reactor, server.path)


def address_of(server: RedisServer, user: str = "") -> RedisAddress:
    """`user`: logs in with the password `x`."""
    return RedisAddress(path=server.path, username=user or None, password="x" if user else None)


def source_on(
    harness: Harness,
    server: RedisServer,
    user: str = "",
    prefix: str = "",
    *,
    archive: RedisArchive | None = None,
) -> tuple[RedisStreams, Heard]:
    """A source that runs until the test ends."""
    heard = Heard()
    where = harness.reactor, endpoint_of(harness, server), address_of(server, user)
    source = RedisStreams(*where, heard, prefix, archive=archive)
    heard.source = source
    source.startService()
    harness.on_close(source.stopService)
    return source, heard


async def commands_on(harness: Harness, server: RedisServer) -> RoutedCommands:
    """A link for commands that is up."""
    node = Node("redis", address_of(server), endpoint_of(harness, server))
    commands = RoutedCommands(harness.reactor, OneServer(node))
    commands.startService()
    harness.on_close(commands.stopService)
    await harness.eventually(lambda: commands.at(node).ready)
    return commands
