"""`marketfeed simulate`: a simulated trading engine that publishes to a Redis server until it is interrupted.

A value that cannot be used is one line on stderr, which names the option and what would be accepted; status 2.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from marketfeed.commands.arguments import cannot_be_used, number, whole_number
from marketfeed.commands.redis_options import add_redis_options, redis_settings, where_redis_is
from marketfeed.config.settings import BadSetting, Settings
from marketfeed.demo.market import INSTRUMENTS
from marketfeed.demo.simulator import MOST_RATE, MarketSimulation, SimulatedEngine
from marketfeed.model.streams import BadStreamName, StreamKinds
from marketfeed.runtime.logs import log_to_stderr

if TYPE_CHECKING:
    from twisted.application.service import IService

__all__ = ["add_parser", "run"]

MOST_ENTRIES = 100_000_000
_ENTRIES = f"a whole number of entries, 0 to {MOST_ENTRIES}"
_LEAST_RATE = math.ulp(0.0)  # the least number above 0
_RATES = f"a number of publications per second, above 0 and at most {MOST_RATE}"
_DEFAULT_MARKETS = ",".join(instrument.market for instrument in INSTRUMENTS)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `simulate` to the commands."""
    parser = subparsers.add_parser(
        "simulate",
        help="publish a simulated market to a Redis server",
        description="Publish the trades, order books and tickers of a simulated trading engine to a Redis server, "
        "until Ctrl-C. Without --redis-url the server is the daemon's: REDIS_URL, or REDIS_HOST and REDIS_PORT.",
    )
    add_redis_options(parser)
    parser.add_argument(
        "--markets",
        metavar="NAMES",
        default=_DEFAULT_MARKETS,
        help=f"with commas between them; {INSTRUMENTS[0].market} is always one (default: %(default)s)",
    )
    parser.add_argument(
        "--rate", metavar="NUMBER", default="50", help="publications per second in all (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", metavar="NUMBER", default="1", help="the same seed makes the same market (default: %(default)s)"
    )
    parser.add_argument(
        "--streams",
        metavar="ENTRIES",
        default="0",
        help="add to Redis streams instead, and keep about so many entries of each; 0 publishes (default: 0)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Publish until SIGINT or SIGTERM; returns the exit status."""
    try:
        settings = redis_settings(arguments)
        rate = number("--rate", arguments.rate, _LEAST_RATE, MOST_RATE, _RATES)
        entries = whole_number("--streams", arguments.streams, 0, MOST_ENTRIES, _ENTRIES)
        if entries and arguments.pubsub is not None:
            raise BadSetting("--pubsub: expected without --streams, which nothing is published for")
        engine = SimulatedEngine(_markets(arguments.markets), _seed(arguments.seed))
        for warning in settings.warnings:
            print(warning, file=sys.stderr)
        _run(settings, engine, rate, entries)
    except BadSetting as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(settings: Settings, engine: SimulatedEngine, rate: float, entries: int) -> None:
    from twisted.internet import reactor as the_reactor
    from twisted.internet.defer import maybeDeferred

    from marketfeed.commands.running import run_until_ended
    from marketfeed.redis.publisher import RoutedPublisher
    from marketfeed.redis.routed_appender import RoutedAppender

    reactor: Any = the_reactor
    where = where_redis_is(reactor, settings)
    keeper = None if entries else RoutedPublisher(reactor, where.keys, where.channels, is_sharded=where.is_sharded)
    publisher = keeper or RoutedAppender(reactor, where.keys, entries, has_slots=where.has_slots)
    log_to_stderr(reactor, settings.log_format, settings.log_level)
    simulation = MarketSimulation(reactor, publisher, engine, rate, settings.channel_prefix, keeper=keeper)
    services: list[IService] = [*where.services, publisher, simulation]

    def start() -> None:
        markets = ", ".join(engine.markets)
        print(f"simulating {markets} on {settings.redis}, {rate:g} publications a second, until Ctrl-C", flush=True)
        for each in services:
            each.startService()

    async def stop() -> None:
        for service in reversed(services):
            await maybeDeferred(service.stopService)

    run_until_ended(reactor, start, stop)


def _markets(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        try:
            StreamKinds().parse(f"trade@{name}")
        except BadStreamName:
            raise cannot_be_used(
                "--markets",
                name,
                "names such as TATA_INR,INFY_INR, each of 1 to 64 of the characters A-Z a-z 0-9 . _ -",
            ) from None
    return names


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise cannot_be_used("--seed", text, "a whole number") from None
