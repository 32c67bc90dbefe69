"""The Redis side of the daemon put together: the server, what reads from it, and the simulated market."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.application.service import IService
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.config.settings import Settings
from marketfeed.demo.embedded import EmbeddedServer, NoServerFound, find_server
from marketfeed.demo.simulator import INSTRUMENTS, MarketSimulation, SimulatedEngine
from marketfeed.hub.hub import Hub
from marketfeed.model.stream_globs import parse_glob
from marketfeed.model.streams import BUILT_IN, StreamKinds
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.appender import RedisAppender
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.channel_sampler import ChannelSampler
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.endpoint import redis_endpoint
from marketfeed.redis.preload import Preload
from marketfeed.redis.publisher import RedisPublisher
from marketfeed.redis.pubsub import RedisPubSub
from marketfeed.redis.snapshots import RedisSnapshots
from marketfeed.redis.stream_snapshots import StreamSnapshots
from marketfeed.redis.streams import RedisStreams

__all__ = ["CannotFeed", "Feed", "make_feed"]

_DEMO_ENTRIES = 10_000
"""Entries of each stream that the simulated market leaves in the server."""


class CannotFeed(Exception):
    """The Redis side cannot be made; the message is one line."""


class Feed(msgspec.Struct, frozen=True):
    """Services, in the order in which they start: a server of our own, what reads from it, a market of our own."""

    server: list[IService]
    readers: list[IService]
    market: list[IService]


def make_feed(reactor: Any, settings: Settings, hub: Hub) -> Feed:
    """What feeds `hub`, which it tells. Raises `CannotFeed`."""
    server, endpoint, address = _redis(reactor, settings)
    prefix = settings.channel_prefix
    commands = RedisCommands(reactor, endpoint, address)
    snapshots = RedisSnapshots(reactor, commands, prefix, settings.max_payload)
    source: RedisStreams | RedisPubSub
    if settings.source == "streams":
        source = RedisStreams(reactor, endpoint, address, hub, prefix)
        archive = RedisArchive(commands, prefix)
        in_streams = StreamSnapshots(
            reactor,
            snapshots,
            archive,
            StreamKinds(settings.all_kinds),
            channel_prefix=prefix,
            max_payload=settings.max_payload,
            max_levels=settings.max_book_levels,
        )
        hub.feed_from(source, archive, in_streams)
    else:
        source = RedisPubSub(reactor, endpoint, address, hub, commands, prefix)
        hub.feed_from(source, snapshots=snapshots)
    warm = _warm(reactor, endpoint, address, commands, hub, settings) if settings.warm or settings.demo else []
    market = _market(reactor, endpoint, address, settings) if settings.demo else []
    return Feed(server, [commands, snapshots, source, *warm], market)


def _redis(reactor: Any, settings: Settings) -> tuple[list[IService], IStreamClientEndpoint, RedisAddress]:
    """Where Redis is: the services that it needs of us, how to connect, and its address."""
    if settings.redis.embedded:
        try:
            server = EmbeddedServer(reactor, find_server())
        except NoServerFound as fault:
            raise CannotFeed(str(fault)) from None
        return [server], server.endpoint, server.address
    try:
        return [], redis_endpoint(reactor, settings.redis, settings.redis_tls), settings.redis
    except ValueError as fault:
        raise CannotFeed(str(fault)) from None


def _warm(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    address: RedisAddress,
    commands: RedisCommands,
    hub: Hub,
    settings: Settings,
) -> list[IService]:
    """What keeps streams ready without clients."""
    markets = [instrument.market for instrument in INSTRUMENTS] if settings.demo else []
    texts = (*settings.warm, *[f"{kind.name}@{market}" for market in markets for kind in BUILT_IN])
    globs = [parse_glob(text, settings.all_kinds) for text in texts]
    by_streams = settings.source == "streams"
    preload = Preload(reactor, commands, hub.discovered, globs, settings.channel_prefix, by_streams=by_streams)
    if not preload.channels:
        return [preload]
    return [preload, ChannelSampler(reactor, endpoint, address, preload.channels, preload.heard)]


def _market(reactor: Any, endpoint: IStreamClientEndpoint, address: RedisAddress, settings: Settings) -> list[IService]:
    """Its markets are kept ready: who comes has the book at once."""
    prefix = settings.channel_prefix
    if settings.source == "streams":
        appender = RedisAppender(reactor, endpoint, address, _DEMO_ENTRIES)
        return [MarketSimulation(reactor, appender, SimulatedEngine(), channel_prefix=prefix), appender]
    publisher = RedisPublisher(reactor, endpoint, address)
    return [MarketSimulation(reactor, publisher, SimulatedEngine(), channel_prefix=prefix, keeper=publisher), publisher]
