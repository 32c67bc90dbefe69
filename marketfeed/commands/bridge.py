"""`marketfeed bridge`: what is published on some channels, into Redis streams of the same names.

1. Every publication that is heard is appended once, in the order in which it came, or counted as lost.
2. What is published while no bridge listens is lost, and nobody can count it: that is said when it happens.
3. The end waits for what is under way. The exit status is 0 for whoever ended it, 1 when the server refuses a
   subscription, 2 for a command line that cannot be used, or a port of `--admin` that cannot be had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from marketfeed.commands.admin_port import add_admin_options, admin_settings, listen
from marketfeed.commands.arguments import note, whole_number
from marketfeed.commands.redis_options import add_redis_options, check_channels, redis_settings, where_redis_is
from marketfeed.commands.running import Hearing, end, run_until_ended
from marketfeed.config.settings import Settings
from marketfeed.demo.simulator import Publisher
from marketfeed.model.selection import BadSelection, StreamSelection, parse_selection
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.logs import Log, log_to_stderr

if TYPE_CHECKING:
    from twisted.application.service import IService

    from marketfeed.api.probes import Probes
    from marketfeed.redis.routed_appender import RoutedAppender

__all__ = ["Bridge", "add_parser", "run"]

END_SECONDS = 5.0
_MOST_ENTRIES = 10**15 - 1
_MOST_NAMES = 65536


class Bridge(Hearing):
    """Hands what a listener hears to `publisher`. `ended`: called when a subscription is refused.

    `heard` counts what was handed over, `skipped` what came on channels that no stream can have the name of.
    `was_listening`: every channel has been listened to, at least once.
    """

    log = Log()

    def __init__(
        self, selection: StreamSelection, prefix: str, publisher: Publisher, ended: Callable[[], None]
    ) -> None:
        super().__init__(selection, prefix.encode(), ended)
        self._key_prefix = prefix
        self._publisher = publisher
        self._keys: dict[bytes, str | None] = {}
        self._batch: list[tuple[str, bytes]] = []
        self.heard = 0
        self.skipped = 0
        self.was_listening = False

    @property
    def is_listening(self) -> bool:
        """Every channel is listened to."""
        return self._has_begun

    def arrived(self) -> None:
        """Nothing depends on when something came."""

    def _hear(self, stream: bytes, payload: bytes) -> None:
        if stream not in self._keys:
            if len(self._keys) >= _MOST_NAMES:
                self._keys.clear()
            self._keys[stream] = self._key(stream)
        key = self._keys[stream]
        if key is not None:
            self.heard += 1
            self._batch.append((key, payload))
        else:
            self.skipped += 1

    def flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self._publisher.publish(batch)

    def complete(self) -> None:
        self._has_begun = self.was_listening = True
        self.log.info("bridge: every channel is listened to")

    def lost(self, good_at: float) -> None:
        if self._has_begun:
            self._has_begun = False
            self.log.error("bridge: what is published from now on is lost, until every channel is listened to again")

    def _key(self, stream: bytes) -> str | None:
        """The key of a stream; None, and a line, where the channel has no name that a stream can have."""
        with suppress(UnicodeDecodeError, BadSelection):
            name = stream.decode()
            if "*" not in name and parse_selection([name], StreamKinds(())).texts == (name,):
                return self._key_prefix + name
        self.log.error(
            "bridge: the channel {channel} is skipped: expected a name such as trade@TATA_INR",
            channel=repr(stream[:80])[1:],
        )
        return None


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bridge` to the commands."""
    parser = subparsers.add_parser(
        "bridge",
        help="copy what is published on some channels into Redis streams",
        description="Copy what is published on some channels into Redis streams of the same names, for a daemon with "
        "--source streams, until Ctrl-C. Without --redis-url the server is the daemon's: REDIS_URL, or REDIS_HOST and "
        "REDIS_PORT. What is published while no bridge runs is lost; two of them copy everything twice. Put patterns "
        "into quotes, or the shell reads them.",
    )
    parser.add_argument("patterns", metavar="PATTERN", nargs="+", help="such as trade@TATA_INR, 'depth@*' or '*'")
    add_redis_options(parser)
    add_admin_options(parser)
    parser.add_argument(
        "--maxlen",
        metavar="N",
        default="100000",
        help="about so many entries are kept of each stream; 0 for all (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Copy until SIGINT or SIGTERM; returns the exit status."""
    settings = redis_settings(arguments)
    admin = admin_settings(arguments)
    selection = parse_selection(arguments.patterns, StreamKinds(settings.all_kinds))
    check_channels(settings, selection)
    maxlen = whole_number("--maxlen", arguments.maxlen, 0, _MOST_ENTRIES, "a whole number of entries, or 0 for all")
    for warning in settings.warnings:
        print(warning, file=sys.stderr)
    return _copy(settings, admin, selection, maxlen)


def _copy(settings: Settings, admin: Settings | None, selection: StreamSelection, maxlen: int) -> int:
    from twisted.internet import reactor as the_reactor
    from twisted.internet.defer import maybeDeferred

    from marketfeed.redis.routed_appender import RoutedAppender
    from marketfeed.redis.routed_listener import make_listener

    reactor: Any = the_reactor
    where = where_redis_is(reactor, settings)
    prefix = settings.channel_prefix
    appender = RoutedAppender(reactor, where.keys, maxlen, has_slots=where.has_slots)
    bridge = Bridge(selection, prefix, appender, lambda: end(reactor))
    commands = selection.commands(prefix.encode())
    listener = make_listener(reactor, where.channels, commands, bridge, is_sharded=where.is_sharded)
    services: list[IService] = [*where.services, appender, listener]
    log_to_stderr(reactor, settings.log_format, settings.log_level)
    port = None if admin is None else listen(reactor, admin, _probes(bridge, appender, services))

    def start() -> None:
        note("bridge", f"copying {', '.join(selection.texts)} on {settings.redis} into streams, until Ctrl-C")
        for each in services:
            each.startService()

    async def stop() -> None:
        await listener.stopService()
        await appender.all_answered().addTimeout(END_SECONDS, reactor, onTimeoutCancel=lambda *_: None)
        for service in (appender, *where.services):
            await maybeDeferred(service.stopService)
        if port is not None:
            await maybeDeferred(port.stopService)

    run_until_ended(reactor, start, stop)
    if bridge.fault:
        note("bridge", bridge.fault)
        return 1
    entries = appender.entries
    note("bridge", f"{bridge.heard} publications heard, {entries.added} of them added to streams, {entries.lost} lost")
    return 0


def _probes(bridge: Bridge, appender: RoutedAppender, services: Sequence[IService]) -> Probes:
    from marketfeed.api.bridge import BridgeHealth, BridgeMetrics
    from marketfeed.api.probes import Probes
    from marketfeed.redis.link_keeper import links_in

    return Probes(BridgeHealth(bridge, appender), BridgeMetrics(bridge, appender, lambda: list(links_in(services))))
