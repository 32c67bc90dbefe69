"""Listens to an engine for `marketfeed check`: to channels as the recorder does, to Redis Streams as the daemon does.

1. The time begins once everything is subscribed, or, of Redis Streams, once a server is reached; and it is over after
   so many seconds.
2. What is lost on the way is a gap, and no fault of the engine's.
3. Before the end the states that a daemon would find are read, beside the streams or in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet.defer import Deferred, gatherResults

from marketfeed.boundaries import Clock, Snapshots, Subscriber
from marketfeed.commands.check.examination import Examination
from marketfeed.commands.running import Hearing
from marketfeed.config.settings import Settings
from marketfeed.model.selection import StreamSelection
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.commands import KeyedCommands
from marketfeed.redis.preload import Preload
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.routed_listener import make_listener
from marketfeed.redis.snapshots import RedisSnapshots, SnapshotPlaces
from marketfeed.redis.sources import source_of_streams
from marketfeed.redis.stream_snapshots import StreamSnapshots
from marketfeed.redis.where import Where

__all__ = ["ChannelsHeard", "StreamsHeard", "listen_to_channels", "listen_to_streams", "read_states"]

MOST_STATES = 2000


class ChannelsHeard(Hearing):
    """Hands what a listener hears to `examination`.

    `began`: called once everything is subscribed; `first`: as the first publication comes; `ended`: as it is refused.
    """

    def __init__(
        self,
        selection: StreamSelection,
        prefix: bytes,
        examination: Examination,
        began: Callable[[], None],
        first: Callable[[], None],
        ended: Callable[[], None],
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(selection, prefix, ended)
        self._examination = examination
        self._began = began
        self._first = first
        self._now = now
        self._time = 0
        self._is_lost = False

    def arrived(self) -> None:
        self._time = self._now() // 1000

    def _hear(self, stream: bytes, payload: bytes) -> None:
        if self._has_begun:
            if not self._examination.publications:
                self._first()
            self._examination.take(self._time, stream, payload)

    def flush(self) -> None:
        """Nothing waits."""

    def complete(self) -> None:
        self._is_lost = False
        if not self._has_begun:
            self._has_begun = True
            self._began()

    def lost(self, good_at: float) -> None:
        if self._has_begun and not self._is_lost:
            self._is_lost = True
            self._examination.lose()


class StreamsHeard:
    """The `Sink` of Redis Streams, which hands what is added to `examination`.

    `began`: called once a server is reached; `first`: as the first publication comes.
    """

    def __init__(
        self,
        examination: Examination,
        began: Callable[[], None],
        first: Callable[[], None],
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._examination = examination
        self._began = began
        self._first = first
        self._now = now

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        if not self._examination.publications:
            self._first()
        self._examination.take(self._now() // 1000, stream.encode(), payload)

    def reached(self, link: str) -> None:
        self._began()

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        """Nothing is missing: it is read on from where it was."""

    def missed(self, stream: str, seconds: float) -> None:
        self._examination.lose()

    def flush(self) -> None: ...
    def confirmed(self, stream: str, after: str | None = None) -> None: ...
    def refused(self, stream: str, why: str) -> None: ...
    def discovered(self, stream: str) -> None: ...
    def behind(self) -> list[Subscriber]:
        return []


class _Selected:
    """A pattern for `Preload`, of all streams that a selection has."""

    is_name = False

    def __init__(self, selection: StreamSelection) -> None:
        self._selection = selection

    def covers(self, name: str) -> bool:
        return self._selection.first(name.encode("latin-1")) is not None

    def behind(self, prefix: str) -> bytes:
        return StreamSelection(("*@*",)).commands(prefix.encode())[0][1]


def listen_to_channels(
    clock: Any, where: Where, selection: StreamSelection, prefix: str, heard: ChannelsHeard
) -> list[IService]:
    """The services that listen."""
    commands = selection.commands(prefix.encode())
    return [make_listener(clock, where.channels, commands, heard, is_sharded=where.is_sharded)]


def listen_to_streams(
    clock: Clock, where: Where, selection: StreamSelection, prefix: str, heard: StreamsHeard, commands: RoutedCommands
) -> list[IService]:
    """The services that find streams, and read what is added to them."""
    archive = RedisArchive(commands, prefix)

    source = source_of_streams(clock, where.keys, heard, prefix, archive, has_slots=where.has_slots)
    finding = Preload(clock, commands.each, source.want, [_Selected(selection)], prefix, None, called="check")
    return [cast(IService, source), finding]


def read_states(
    clock: Clock, settings: Settings, commands: KeyedCommands, examination: Examination, *, on_streams: bool
) -> Deferred[None]:
    """Let the states of what was heard be judged: those that are kept beside the streams, or are found in them."""
    prefix, max_payload = settings.channel_prefix, settings.max_payload
    keys = RedisSnapshots(clock, commands, SnapshotPlaces(prefix, max_payload))
    keys.startService()  # type: ignore[no-untyped-call]
    snapshots: Snapshots = keys
    if on_streams:
        snapshots = StreamSnapshots(
            clock,
            keys,
            RedisArchive(commands, prefix),
            StreamKinds(settings.all_kinds),
            channel_prefix=prefix,
            max_payload=max_payload,
            max_levels=settings.max_book_levels,
        )

    def take(stream: str, data: bytes | None) -> None:
        if data is not None:
            examination.seed(stream, data)

    streams = examination.with_states[:MOST_STATES]
    reads = [snapshots.read(stream).addCallback(partial(take, stream)) for stream in streams]

    def done(result: object) -> None:
        keys.stopService()

    return gatherResults(reads).addBoth(done)
