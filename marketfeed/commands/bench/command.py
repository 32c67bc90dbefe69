"""`marketfeed bench`: a load test of a deployment, by clients that count, and at wish by an engine that numbers.

1. Without --redis-url nothing is published: an existing market is watched.
2. stdout has the report and nothing else, also after Ctrl-C. What cannot be used is one line on stderr.
3. The exit status is 0 when every client got everything once and in order, 1 when not, or when there was no test, and
   2 for a command line that cannot be used.
"""

from __future__ import annotations

import argparse
import secrets
import signal
from urllib.parse import urlsplit

from marketfeed.commands.address import ServerAddress, check_token, parse_url
from marketfeed.commands.arguments import cannot_be_used, note, number, whole_number
from marketfeed.commands.bench.plan import DEFAULTS, Plan
from marketfeed.commands.redis_options import add_server_options, check_redis_files, one_server
from marketfeed.config.settings import BadSetting, Settings, load
from marketfeed.model.kinds.columns import clean
from marketfeed.model.streams import BadStreamName, StreamKinds, StreamName
from marketfeed.redis.tls import REDIS_TLS, RedisTls

__all__ = ["add_parser", "run"]

_MOST_CLIENTS = 60_000
_MOST_STREAMS = 50_000
_MOST_PER_CLIENT = 1024
_MOST_LEVELS = 2000
_MOST_BYTES = 1 << 20
_MOST_SECONDS = 86_400.0
_MOST_RATE = 1_000_000.0
_SHOWN = 80
_PUBLISHED_KINDS = ("trade", "depth")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bench` to the commands."""
    parser = subparsers.add_parser(
        "bench",
        help="put a server under load, and count what arrives",
        description="Open many clients, and count what arrives, how late, and whether it is complete and in order. "
        "With --redis-url, numbered messages are published to the Redis server that the WebSocket server reads, by "
        "default on streams of their own; without it, the streams of an existing market are watched.",
    )
    parser.add_argument("url", metavar="URL", help="of the server, such as ws://localhost:8080 or wss://host/stream")
    clients = parser.add_argument_group("clients")
    clients.add_argument("--clients", metavar="N", default=DEFAULTS["clients"], help="how many (default: %(default)s)")
    clients.add_argument("--streams", metavar="NAMES", help="with commas between them, as in trade@TATA_INR")
    clients.add_argument(
        "--stream-count", metavar="N", help="instead of --streams: so many made-up ones, to publish on (default: 1)"
    )
    clients.add_argument(
        "--per-client", metavar="K", help="streams of each client (default: 1, with --streams all of them)"
    )
    clients.add_argument(
        "--mixed",
        action="store_true",
        help="draw the K streams for each client, instead of those that come behind the last client's",
    )
    clients.add_argument(
        "--slow",
        metavar="N",
        default=DEFAULTS["slow"],
        help="clients among them that subscribe and then never read (default: %(default)s)",
    )
    how = clients.add_mutually_exclusive_group()
    how.add_argument("--raw", action="store_true", help="connect to /ws, where messages have no envelope")
    how.add_argument("--path", metavar="PATH", help="connect to this path, instead of the URL's")
    clients.add_argument("--token", metavar="TOKEN", help="of all of them, for a server with --auth")
    clients.add_argument("--compression", action="store_true", help="offer permessage-deflate")
    published = parser.add_argument_group("publishing")
    add_server_options(published, has_default=False)
    pace = published.add_mutually_exclusive_group()
    pace.add_argument(
        "--window", metavar="W", help=f"as fast as it goes, with W messages under way (default: {DEFAULTS['window']})"
    )
    pace.add_argument("--rate", metavar="R", help="R messages a second, over all streams")
    published.add_argument(
        "--storm",
        action="store_true",
        help="publish, at the --rate, while the clients connect, and tell when the last had its first message",
    )
    published.add_argument("--depth", metavar="LEVELS", help="order books, so many levels changed on each side")
    published.add_argument(
        "--payload-bytes", metavar="N", default=DEFAULTS["payload_bytes"], help="that a message has at least"
    )
    published.add_argument("--messages", metavar="N", help="publish N in all, for as long as it takes")
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument(
        "--seconds", metavar="S", default=DEFAULTS["seconds"], help="for how long (default: %(default)s)"
    )
    measuring.add_argument(
        "--warm-up", metavar="S", default=DEFAULTS["warm_up"], help="seconds before (default: %(default)s)"
    )
    measuring.add_argument(
        "--server-pid",
        metavar="PID",
        action="append",
        default=[],
        help="a process of the server, on this machine, whose time and memory are reported; may be repeated",
    )
    measuring.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do the load test; returns the exit status."""
    plan = _plan(arguments, secrets.token_hex(3).upper())
    try:
        return _test(plan, as_json=arguments.json)
    except KeyboardInterrupt:  # before the signal had its handler
        return 1


def _test(plan: Plan, *, as_json: bool) -> int:
    import msgspec

    from marketfeed.commands.bench.client import ClientFault
    from marketfeed.commands.bench.load import LoadTest
    from marketfeed.commands.bench.report import lines
    from marketfeed.commands.redis_link import RedisFault

    test = LoadTest(plan)
    before = {each: signal.signal(each, lambda *_: test.interrupt()) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        report = test.run()
    except (ClientFault, RedisFault) as fault:
        note("bench", clean(str(fault)))
        return 1
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    print(msgspec.json.encode(report).decode() if as_json else "\n".join(lines(report)), flush=True)
    return 0 if report.is_faultless else 1


def _plan(arguments: argparse.Namespace, tag: str) -> Plan:
    """What the options ask for. `tag`: what the markets that are made up for this test have in their names."""
    from marketfeed.commands.bench.machine import is_known

    redis = None if arguments.redis_url is None else _redis(arguments)
    if redis is None:
        for name in (*REDIS_TLS, "window", "rate", "depth", "messages", "stream_count"):
            if getattr(arguments, name) is not None:
                raise BadSetting(f"--{name.replace('_', '-')} is for publishing, which needs --redis-url")
    if arguments.storm and arguments.rate is None:
        raise BadSetting("--storm: expected a --rate with it, at which is published while the clients connect")
    clients = whole_number("--clients", arguments.clients, 1, _MOST_CLIENTS)
    streams = _streams(arguments, tag, is_published=redis is not None)
    most = min(len(streams), _MOST_PER_CLIENT)
    per_client = 1 if arguments.streams is None else most
    pids = [whole_number("--server-pid", text, 1, 1 << 31) for text in arguments.server_pid]
    for pid in pids:
        if not is_known(pid):
            raise BadSetting(f"--server-pid: there is nothing known of a process {pid} here")
    return Plan(
        address=_address(arguments),
        streams=streams,
        clients=clients,
        per_client=whole_number("--per-client", arguments.per_client, 1, most, default=per_client),
        mixed=arguments.mixed,
        slow=whole_number("--slow", arguments.slow, 0, clients),
        seconds=number("--seconds", arguments.seconds, 0.1, _MOST_SECONDS),
        warm_up=number("--warm-up", arguments.warm_up, 0.0, _MOST_SECONDS),
        messages=None if arguments.messages is None else whole_number("--messages", arguments.messages, 1, 1 << 40),
        token=check_token(arguments.token),
        compression=arguments.compression,
        redis=one_server(redis) if redis else None,
        redis_tls=redis.redis_tls if redis else RedisTls(),
        channel_prefix=redis.channel_prefix if redis else "",
        window=whole_number("--window", arguments.window, 1, 1_000_000, default=int(DEFAULTS["window"])),
        rate=None if arguments.rate is None else number("--rate", arguments.rate, 0.01, _MOST_RATE),
        storm=arguments.storm,
        levels=whole_number("--depth", arguments.depth, 1, _MOST_LEVELS, default=int(DEFAULTS["levels"])),
        payload_bytes=whole_number("--payload-bytes", arguments.payload_bytes, 0, _MOST_BYTES),
        server_pids=pids,
    )


def _address(arguments: argparse.Namespace) -> ServerAddress:
    address = parse_url(arguments.url)
    path = "/ws" if arguments.raw else arguments.path
    if path is None:
        return address
    if not path.startswith("/"):
        raise cannot_be_used("--path", path, "one that begins with /, such as /stream")
    parts = urlsplit(arguments.url)
    return parse_url(f"{parts.scheme}://{parts.netloc}{path}")


def _redis(arguments: argparse.Namespace) -> Settings:
    """Where to publish: what the daemon would make of these flags, and of nothing else."""
    fields = ("redis_url", *REDIS_TLS, "channel_prefix")
    settings = load({field: text for field in fields if (text := getattr(arguments, field)) is not None}, {}, fields)
    if settings.redis.embedded:
        raise BadSetting(
            "--redis-url: embedded: is a daemon's own server; expected redis://, rediss:// or unix:///path"
        )
    check_redis_files(settings)
    return settings


def _streams(arguments: argparse.Namespace, tag: str, *, is_published: bool) -> list[str]:
    if arguments.streams is None:
        if not is_published:
            raise BadSetting("--streams: expected names such as trade@TATA_INR,depth@TATA_INR, or else a --redis-url")
        kind = "trade" if arguments.depth is None else "depth"
        count = whole_number("--stream-count", arguments.stream_count, 1, _MOST_STREAMS, default=1)
        return [f"{kind}@BENCH-{tag}-{number}" for number in range(count)]
    if arguments.stream_count is not None:
        raise BadSetting("--stream-count: expected either this or --streams")
    names = list(dict.fromkeys(name.strip() for name in arguments.streams.split(",")))
    for name in names:
        if not name:
            raise BadSetting("--streams: a name is empty; expected names such as trade@TATA_INR,depth@TATA_INR")
        if is_published:
            _check_published(name)
    return names


def _check_published(name: str) -> None:
    try:
        stream: StreamName | None = StreamKinds().parse(name)
    except BadStreamName:
        stream = None
    if stream is None or str(stream) != name or stream.kind.name not in _PUBLISHED_KINDS:
        raise BadSetting(f"--streams: {name[:_SHOWN]!r} cannot be published; expected trade@ or depth@ and a market")
