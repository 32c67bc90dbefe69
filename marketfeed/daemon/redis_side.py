"""The Redis side of the daemon put together: the server, what reads from it, and the simulated market."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import msgspec
from twisted.application.service import IService, MultiService
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.boundaries import Sink, Source
from marketfeed.config.settings import Settings
from marketfeed.demo.embedded import EmbeddedServer, NoServerFound, find_server
from marketfeed.demo.market import INSTRUMENTS
from marketfeed.demo.simulator import MarketSimulation, SimulatedEngine
from marketfeed.hub.hub import Hub
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.stream_globs import parse_glob
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.appender import RedisAppender
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.endpoint import redis_endpoint
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.redis.preload import Preload
from marketfeed.redis.publisher import RedisPublisher
from marketfeed.redis.pubsub import RedisPubSub
from marketfeed.redis.snapshots import RedisSnapshots
from marketfeed.redis.stream_snapshots import StreamSnapshots
from marketfeed.redis.streams import RedisStreams

__all__ = ["Feed", "StartFault", "endpoint_of", "make_feed"]

_DEMO_ENTRIES = 10_000
"""Entries of each stream that the simulated market leaves in the server."""


class StartFault(Exception):
    """The daemon cannot start; the message is one line."""


class Feed(msgspec.Struct, frozen=True):
    """Services, in the order in which they start: a server of our own, what reads from it, a market of our own."""

    server: list[IService]
    readers: list[IService]
    market: list[IService]

    @property
    def links(self) -> list[LinkKeeper[Any]]:
        """What keeps the links to Redis on which the daemon depends; the source's is the first."""
        return sorted(_links(self.readers), key=lambda link: not isinstance(link, RedisPubSub | RedisStreams))


def _links(services: Iterable[IService]) -> Iterator[LinkKeeper[Any]]:
    for service in services:
        if isinstance(service, LinkKeeper):
            yield service
        if isinstance(service, MultiService):
            yield from _links(service)


class _Redis(NamedTuple):
    """What is there whatever the source. `where`: the reactor, how to connect to the server, and its address."""

    where: tuple[Any, IStreamClientEndpoint, RedisAddress]
    commands: RedisCommands
    snapshots: RedisSnapshots


def _pubsub(redis: _Redis, settings: Settings, sink: Sink, kinds: StreamKinds) -> Source:
    return RedisPubSub(*redis.where, sink, redis.commands, settings.channel_prefix, snapshots=redis.snapshots)


def _streams(redis: _Redis, settings: Settings, sink: Sink, kinds: StreamKinds) -> Source:
    archive = RedisArchive(redis.commands, settings.channel_prefix)
    snapshots = StreamSnapshots(
        redis.where[0],
        redis.snapshots,
        archive,
        kinds,
        channel_prefix=settings.channel_prefix,
        max_payload=settings.max_payload,
        max_levels=settings.max_book_levels,
    )
    return RedisStreams(*redis.where, sink, settings.channel_prefix, archive=archive, snapshots=snapshots)


_SOURCES: dict[str, Callable[[_Redis, Settings, Sink, StreamKinds], Source]] = {"pubsub": _pubsub, "streams": _streams}
"""What `--source` may be. Each is a service, too."""


def make_feed(reactor: Any, settings: Settings, hub: Hub, kinds: StreamKinds) -> Feed:
    """What feeds `hub`, which it tells. `kinds`: to which more may be added. Raises `StartFault`."""
    server, endpoint, address = _server(reactor, settings)
    commands = RedisCommands(reactor, endpoint, address)
    snapshots = RedisSnapshots(reactor, commands, settings.channel_prefix, settings.max_payload)
    redis = _Redis((reactor, endpoint, address), commands, snapshots)
    source = _SOURCES[settings.source](redis, settings, hub, kinds)
    hub.feed_from(source)
    readers = [commands, snapshots, cast(IService, source)]
    if settings.warm or settings.demo:
        readers.append(_preload(redis, settings, hub, source))
    return Feed(server, readers, _market(redis, settings, source) if settings.demo else [])


def _server(reactor: Any, settings: Settings) -> tuple[list[IService], IStreamClientEndpoint, RedisAddress]:
    """Where Redis is: the services that it needs of us, how to connect, and its address."""
    if settings.redis.embedded:
        try:
            server = EmbeddedServer(reactor, find_server())
        except NoServerFound as fault:
            raise StartFault(str(fault)) from None
        return [server], server, server.address
    return [], endpoint_of(reactor, settings), settings.redis


def endpoint_of(reactor: Any, settings: Settings) -> IStreamClientEndpoint:
    """How to connect to a server that is not ours, by files that can be used now. Raises `StartFault`."""
    try:
        return redis_endpoint(reactor, settings.redis, settings.redis_tls)
    except ValueError as fault:
        raise StartFault(str(fault)) from None


def _preload(redis: _Redis, settings: Settings, hub: Hub, source: Source) -> Preload:
    """What keeps streams ready without clients: those of `--warm`, and all of the demo's."""
    markets = [instrument.market for instrument in INSTRUMENTS] if settings.demo else []
    texts = (*settings.warm, *[f"{kind.name}@{market}" for market in markets for kind in BUILT_IN])
    return Preload(
        *redis.where,
        redis.commands,
        hub.discovered,
        [parse_glob(text, settings.all_kinds) for text in texts],
        settings.channel_prefix,
        by_streams=source.archive is not None,
    )


def _market(redis: _Redis, settings: Settings, source: Source) -> list[IService]:
    """A market that publishes as an engine would for this source."""
    clock, engine, prefix = redis.where[0], SimulatedEngine(), settings.channel_prefix
    if source.archive is not None:
        appender = RedisAppender(*redis.where, _DEMO_ENTRIES)
        return [MarketSimulation(clock, appender, engine, channel_prefix=prefix), appender]
    publisher = RedisPublisher(*redis.where)
    return [MarketSimulation(clock, publisher, engine, channel_prefix=prefix, keeper=publisher), publisher]
