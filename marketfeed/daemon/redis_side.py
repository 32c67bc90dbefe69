"""The Redis side of the daemon put together: the server, what reads from it, and the simulated market."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import msgspec
from twisted.application.service import IService
from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Sink, Source
from marketfeed.candles.make import CandlePlan, make_candles
from marketfeed.candles.service import CandleService
from marketfeed.config.settings import Settings
from marketfeed.demo.embedded import EmbeddedServer, NoServerFound, find_server
from marketfeed.demo.market import INSTRUMENTS
from marketfeed.demo.simulator import MarketSimulation, SimulatedEngine
from marketfeed.hub.hub import Hub
from marketfeed.model.candle_store import KEEP, CandleKeys
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.markets import Market
from marketfeed.model.stream_globs import parse_glob
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.candle_reader import CandleReader
from marketfeed.redis.candle_states import CandlePlaces
from marketfeed.redis.candle_watch import CandleWatch
from marketfeed.redis.channel_sampler import ChannelSampler
from marketfeed.redis.endpoint import check_files
from marketfeed.redis.link_keeper import LinkKeeper, links_in
from marketfeed.redis.market_list import MarketList
from marketfeed.redis.per_node import PerNode
from marketfeed.redis.preload import Preload
from marketfeed.redis.publisher import RoutedPublisher
from marketfeed.redis.routed_appender import RoutedAppender
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.routed_source import RoutedSource
from marketfeed.redis.snapshots import RedisSnapshots, SnapshotPlaces
from marketfeed.redis.sources import source_of_channels, source_of_streams
from marketfeed.redis.split_source import SplitSource
from marketfeed.redis.stream_snapshots import StreamSnapshots
from marketfeed.redis.turn_flush import TurnFlush
from marketfeed.redis.where import Where, find_redis

__all__ = ["Feed", "StartFault", "check_redis_files", "declared_markets", "demo_globs", "make_feed", "make_market"]

_DEMO_HOURS = 6
"""For so long the simulated market has been open when it begins."""
_DEMO_ENTRIES = 10_000
"""Entries of each stream that the simulated market leaves in the server."""


class StartFault(Exception):
    """The daemon cannot start; the message is one line."""


class Feed(msgspec.Struct, frozen=True):
    """Services, in the order in which they start: a server of our own, what reads from it, a market of our own.

    `candles`: reads them; `heard`: the markets that were heard of, here or by others; `known`: waits until those are
    known; `maker`: what makes candles, if that is to be done here.
    """

    server: list[IService]
    readers: list[IService]
    market: list[IService]
    candles: CandleReader | None = None
    heard: Callable[[], frozenset[str]] = frozenset
    known: Callable[[], Deferred[None]] = lambda: succeed(None)
    maker: CandleService | None = None

    @property
    def maker_links(self) -> list[LinkKeeper[Any]]:
        """What keeps the links on which candles depend that are made here."""
        return [] if self.maker is None else list(links_in([self.maker]))

    @property
    def links(self) -> list[LinkKeeper[Any]]:
        """What keeps the links to Redis on which the daemon depends; the source's is the first."""
        return sorted(links_in(self.readers), key=lambda link: not link.is_of_source)


class _Redis(NamedTuple):
    """What is there whatever the source. `commands`: for keys; `roles`: to the servers on which channels are heard."""

    reactor: Any
    where: Where
    commands: RoutedCommands
    roles: RoutedCommands
    snapshots: RedisSnapshots


def _pubsub(redis: _Redis, settings: Settings, sink: Sink, kinds: StreamKinds, what: str = "") -> RoutedSource:
    """`what`: comes this way, behind the name of each link."""
    prefix, topology = settings.channel_prefix, redis.where.channels
    flush = TurnFlush(redis.reactor, sink.flush) if redis.where.is_sharded else None

    source = source_of_channels(
        redis.reactor,
        topology,
        sink,
        prefix,
        redis.roles,
        is_sharded=redis.where.is_sharded,
        flush=flush,
        snapshots=redis.snapshots,
        what=what,
    )
    if flush is not None:
        cast(IService, flush).setServiceParent(source)
    return source


def _streams(redis: _Redis, settings: Settings, sink: Sink, kinds: StreamKinds) -> SplitSource:
    prefix, topology = settings.channel_prefix, redis.where.keys
    archive = RedisArchive(redis.commands, prefix)
    snapshots = StreamSnapshots(
        redis.reactor,
        redis.snapshots,
        archive,
        kinds,
        channel_prefix=prefix,
        max_payload=settings.max_payload,
        max_levels=settings.max_book_levels,
    )

    has_slots = redis.where.has_slots
    engine = source_of_streams(redis.reactor, topology, sink, prefix, archive, has_slots=has_slots, snapshots=snapshots)
    candles = [kind.name for kind in kinds if kind.from_candles]
    return SplitSource(engine, partial(_pubsub, redis, settings, sink, kinds, " candles"), candles)


_SOURCES: dict[str, Callable[[_Redis, Settings, Sink, StreamKinds], RoutedSource | SplitSource]]
_SOURCES = {"pubsub": _pubsub, "streams": _streams}
"""What `--source` may be."""


def make_feed(reactor: Any, settings: Settings, hub: Hub, kinds: StreamKinds) -> Feed:
    """What feeds `hub`, which it tells. `kinds`: to which more may be added. Raises `StartFault`."""
    servers, where = _where(reactor, settings)
    commands = RoutedCommands(reactor, where.keys)
    roles = commands if where.keys is where.channels else RoutedCommands(reactor, where.channels, "roles")
    keys = CandleKeys(settings.channel_prefix)
    engines = SnapshotPlaces(settings.channel_prefix, settings.max_payload)
    snapshots = RedisSnapshots(reactor, commands, CandlePlaces(keys, Calendar(settings.day_offset), engines))
    redis = _Redis(reactor, where, commands, roles, snapshots)
    source = _SOURCES[settings.source](redis, settings, hub, kinds)
    hub.feed_from(source)
    watch = CandleWatch(reactor, commands, keys, lambda: hub.candle_streams, hub.candles_lost, hub.candles_found)
    markets = MarketList(reactor, commands, settings.channel_prefix, lambda: hub.overview.markets, time.time)
    links = dict.fromkeys((commands, roles))
    readers: list[IService] = [*where.services, *links, snapshots, source, watch, markets]
    if settings.warm or settings.demo:
        readers.append(_preload(redis, settings, hub, source))
    candles = CandleReader(commands, keys, Calendar(settings.day_offset))
    hub.know(candles)
    market, maker = _makers(reactor, where, settings)
    return Feed(servers, readers, market, candles, lambda: markets.markets, markets.known, maker)


def make_market(reactor: Any, settings: Settings) -> tuple[Feed, str | None]:
    """What there is once for all workers: a server of our own, with the path at which it is, a market, candles.

    Raises `StartFault`.
    """
    if not (settings.redis.embedded or settings.candles):
        return Feed([], [], []), None
    servers, where = _where(reactor, settings)
    market, maker = _makers(reactor, where, settings)
    if not servers:
        return Feed([], [], [*where.services, *market], maker=maker), None
    (node,) = where.keys.nodes
    return Feed(servers, [], market, maker=maker), node.address.path


def _where(reactor: Any, settings: Settings) -> tuple[list[IService], Where]:
    """A server of our own, if there is one, and where Redis is. Raises `StartFault`."""
    if settings.redis.embedded:
        try:
            server = EmbeddedServer(reactor, find_server())
        except NoServerFound as fault:
            raise StartFault(str(fault)) from None
        return [server], Where.only(server.address, server)
    try:
        return [], find_redis(reactor, settings.redis, settings.redis_tls, is_classic=settings.is_classic)
    except ValueError as fault:
        raise StartFault(str(fault)) from None


def check_redis_files(settings: Settings) -> None:
    """See that TLS to Redis can be made, by files that can be used now. Raises `StartFault`."""
    try:
        check_files(settings.redis, settings.redis_tls)
    except ValueError as fault:
        raise StartFault(str(fault)) from None


def _preload(redis: _Redis, settings: Settings, hub: Hub, source: Source) -> Preload:
    """What keeps streams ready without clients: those of `--warm`, and all of the demo's."""
    texts = (*settings.warm, *(demo_globs() if settings.demo else ()))
    return Preload(
        redis.reactor,
        redis.commands.each,
        hub.discovered,
        [parse_glob(text, settings.all_kinds) for text in texts],
        settings.channel_prefix,
        partial(_listen, redis) if source.archive is None else None,
    )


def demo_globs() -> tuple[str, ...]:
    """All streams of the simulated market, as `--warm` names them."""
    kinds = [kind for kind in BUILT_IN if kind.is_published]
    return tuple([f"{kind.name}@{each.market}" for each in INSTRUMENTS for kind in kinds])


def declared_markets(settings: Settings) -> tuple[Market, ...]:
    """What the operator declares, and what is traded in the simulated market, where there is one."""
    if not settings.demo:
        return settings.markets
    traded = (Market(each.market, each.base, each.quote, each.price_step, each.quantity_step) for each in INSTRUMENTS)
    return (*traded, *settings.markets)


def _listen(redis: _Redis, patterns: Sequence[bytes], heard: Callable[[bytes], None]) -> IService:
    """What listens now and then."""
    return PerNode(
        redis.where.channels,
        lambda node: ChannelSampler(redis.reactor, node.endpoint, node.address, patterns, heard),
    )


def _makers(reactor: Any, where: Where, settings: Settings) -> tuple[list[IService], CandleService | None]:
    """What publishes: a market of our own, and what makes candles of trades, which is told apart as well."""
    if not (settings.candles or settings.demo):
        return [], None
    engine = SimulatedEngine(hours=_DEMO_HOURS) if settings.demo else None
    plan = CandlePlan(
        source=settings.source,
        prefix=settings.channel_prefix,
        max_payload=settings.max_payload,
        patterns=settings.candle_trades or ("trade@*",),
        keep={**KEEP, **settings.candle_keep},
        late=settings.candle_late,
        offset=settings.day_offset,
    )
    maker = make_candles(reactor, where, plan, engine)
    market = [] if engine is None else _market(reactor, where, settings, engine, lambda: maker.is_ready)
    return [*market, cast(IService, maker)], maker


def _market(
    clock: Any, where: Where, settings: Settings, engine: SimulatedEngine, may_open: Callable[[], bool]
) -> list[IService]:
    """A market that publishes as an engine would for this source, on a server of our own."""
    prefix = settings.channel_prefix
    if settings.source == "streams":
        appender = RoutedAppender(clock, where.keys, _DEMO_ENTRIES)
        return [MarketSimulation(clock, appender, engine, channel_prefix=prefix, may_open=may_open), appender]
    publisher = RoutedPublisher(clock, where.keys, where.channels)
    simulation = MarketSimulation(clock, publisher, engine, channel_prefix=prefix, keeper=publisher, may_open=may_open)
    return [simulation, publisher]
