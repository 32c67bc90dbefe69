"""`marketfeed candles`: candles and statistics of 24 hours, of the trades in Redis, into Redis, for all daemons.

1. Of several that run one is at work, and the others wait for its end.
2. The exit status is 0 for whoever ended it, 2 for a command line that cannot be used, or a port of `--admin` that
   cannot be had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from marketfeed.commands.admin_port import add_admin_options, admin_settings, listen
from marketfeed.commands.arguments import cannot_be_used, number
from marketfeed.commands.redis_options import add_redis_options, check_channels, redis_settings, where_redis_is
from marketfeed.commands.running import run_until_ended
from marketfeed.config.settings import BadSetting, Settings
from marketfeed.model.candle_store import KEEP, parse_keep
from marketfeed.model.intervals import parse_offset
from marketfeed.model.selection import parse_selection
from marketfeed.model.stream_globs import BadGlob, parse_glob
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.logs import log_to_stderr

if TYPE_CHECKING:
    from twisted.application.service import IService

    from marketfeed.candles.make import CandlePlan

__all__ = ["add_parser", "run"]

Parsed = TypeVar("Parsed")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `candles` to the commands."""
    parser = subparsers.add_parser(
        "candles",
        help="make candles and statistics of the trades in Redis",
        description="Make candles of sixteen lengths and the statistics of 24 hours of the trades that an engine "
        "publishes, keep them in Redis, and publish them, until Ctrl-C. Several may run: one of them works. Without "
        "--redis-url the server is the daemon's: REDIS_URL, or REDIS_HOST and REDIS_PORT. Put patterns into quotes, or "
        "the shell reads them.",
    )
    parser.add_argument("patterns", metavar="PATTERN", nargs="*", help="of the trades' streams (default: 'trade@*')")
    add_redis_options(parser)
    parser.add_argument("--source", choices=("pubsub", "streams"), default="pubsub", help="how the engine publishes")
    parser.add_argument("--keep", metavar="I=N", default="", help="how many candles of an interval, such as 1m=527040")
    parser.add_argument("--late", metavar="SECONDS", default="3600", help="how old a trade may be (default: 3600)")
    parser.add_argument("--day-offset", metavar="+HH:MM", default="+00:00", help="of the clock by which days begin")
    add_admin_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make candles until SIGINT or SIGTERM; returns the exit status."""
    settings = redis_settings(arguments)
    admin = admin_settings(arguments)
    plan = _plan(arguments, settings)
    for warning in settings.warnings:
        print(warning, file=sys.stderr)
    return _make(settings, admin, plan)


def _plan(arguments: argparse.Namespace, settings: Settings) -> CandlePlan:
    from marketfeed.candles.make import CandlePlan

    patterns = tuple(arguments.patterns or ("trade@*",))
    kinds = StreamKinds()
    for pattern in patterns:
        if not pattern.startswith("trade@"):
            raise BadSetting(f"{pattern!r} cannot be used; expected streams of trades, such as trade@*")
    try:
        if arguments.source == "streams":
            for pattern in patterns:
                parse_glob(pattern, kinds)
        else:
            check_channels(settings, parse_selection(patterns, kinds))
    except BadGlob as fault:
        raise BadSetting(f"PATTERN: expected {fault}") from None
    keep = {**KEEP, **(_parse("--keep", arguments.keep, parse_keep) if arguments.keep else {})}
    offset = _parse("--day-offset", arguments.day_offset, parse_offset)
    late = number("--late", arguments.late, 0, 1e9, "a number of seconds, 0 or more")
    return CandlePlan(
        source=arguments.source,
        prefix=settings.channel_prefix,
        max_payload=settings.max_payload,
        patterns=patterns,
        keep=keep,
        late=late,
        offset=offset,
    )


def _parse(option: str, text: str, parse: Callable[[str], Parsed]) -> Parsed:
    try:
        return parse(text)
    except ValueError as fault:
        raise cannot_be_used(option, text, str(fault)) from None


def _make(settings: Settings, admin: Settings | None, plan: CandlePlan) -> int:
    from twisted.internet import reactor as the_reactor
    from twisted.internet.defer import maybeDeferred

    from marketfeed.api.candles import CandleHealth, CandleMetrics
    from marketfeed.api.probes import Probes
    from marketfeed.candles.make import make_candles
    from marketfeed.redis.link_keeper import links_in

    reactor: Any = the_reactor
    where = where_redis_is(reactor, settings)
    service = make_candles(reactor, where, plan)
    services: list[IService] = [*where.services, service]
    log_to_stderr(reactor, settings.log_format, settings.log_level)
    probes = Probes(CandleHealth(service), CandleMetrics(service, lambda: list(links_in(services))))
    port = None if admin is None else listen(reactor, admin, probes)

    def start() -> None:
        for each in services:
            each.startService()

    async def stop() -> None:
        for each in reversed(services):
            await maybeDeferred(each.stopService)
        if port is not None:
            await maybeDeferred(port.stopService)

    run_until_ended(reactor, start, stop)
    return 0
