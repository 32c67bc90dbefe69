"""`marketfeed simulate`: a simulated trading engine that publishes to a Redis server until it is interrupted.

1. Where the server is comes from the flags, else from the daemon's own variables and file (`settings`).
2. A value that cannot be used is one line on stderr, which names the option and what would be accepted; status 2.
"""

from __future__ import annotations

import argparse
import sys

from marketfeed.commands.redis_options import add_redis_options, endpoint_of, redis_settings
from marketfeed.config.settings import BadSetting, Settings
from marketfeed.demo.simulator import INSTRUMENTS, MOST_RATE, MarketSimulation, SimulatedEngine
from marketfeed.model.streams import BadStreamName, StreamKinds
from marketfeed.runtime.logs import log_to_stderr

__all__ = ["add_parser", "run"]

MOST_ENTRIES = 100_000_000
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
        rate = _rate(arguments.rate)
        entries = _entries(arguments.streams)
        engine = SimulatedEngine(_markets(arguments.markets), _seed(arguments.seed))
        for warning in settings.warnings:
            print(warning, file=sys.stderr)
        _run(settings, engine, rate, entries)
    except BadSetting as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(settings: Settings, engine: SimulatedEngine, rate: float, entries: int) -> None:
    from twisted.internet import reactor

    from marketfeed.redis.appender import RedisAppender
    from marketfeed.redis.publisher import RedisPublisher

    endpoint = endpoint_of(reactor, settings)
    keeper = None if entries else RedisPublisher(reactor, endpoint, settings.redis)
    publisher = keeper or RedisAppender(reactor, endpoint, settings.redis, entries)
    log_to_stderr(reactor, settings.log_format, settings.log_level)
    simulation = MarketSimulation(reactor, publisher, engine, rate, settings.channel_prefix, keeper=keeper)

    def start() -> None:
        markets = ", ".join(engine.markets)
        print(f"simulating {markets} on {settings.redis}, {rate:g} publications a second, until Ctrl-C", flush=True)
        publisher.startService()
        simulation.startService()

    def stop() -> object:
        simulation.stopService()
        return publisher.stopService()

    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.run()


def _markets(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        try:
            StreamKinds().parse(f"trade@{name}")
        except BadStreamName:
            raise _bad(
                "--markets",
                name,
                "names such as TATA_INR,INFY_INR, each of 1 to 64 of the characters A-Z a-z 0-9 . _ -",
            ) from None
    return names


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MOST_RATE:
        raise _bad("--rate", text, f"a number of publications per second, above 0 and at most {MOST_RATE}")
    return rate


def _entries(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_ENTRIES):
        raise _bad("--streams", text, f"a whole number of entries, 0 to {MOST_ENTRIES}")
    return int(text)


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _bad("--seed", text, "a whole number") from None


def _bad(option: str, text: str, accepted: str) -> BadSetting:
    return BadSetting(f"{option}: {text[:80]!r} cannot be used; expected {accepted}")
