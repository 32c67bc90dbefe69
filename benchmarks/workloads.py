"""What is measured, and what with. Data only.

The paced rates are such that neither the slowest server nor the load generator is near its limit. The windows are wide
enough for a client to find many messages at a time: else a server that is fast would have to wait for the generator.
"""

from __future__ import annotations

import msgspec

__all__ = ["OURS", "SERVERS", "WORKLOADS", "Server", "Workload", "workload_options"]


class Workload(msgspec.Struct, frozen=True):
    """`options`: of `marketfeed bench`. `figures`: what its table shows, by the names in `table.FIGURES`; the first is
    what the servers are compared by. `publishes`: it needs the engine that `marketfeed bench` brings. `tls`: clients
    connect to `wss:`, and the server itself has the certificate."""

    key: str
    title: str
    text: str
    options: tuple[str, ...]
    figures: tuple[str, ...]
    publishes: bool = True
    tls: bool = False


class Server(msgspec.Struct, frozen=True):
    """`script`: a Node program in peers/; None for the daemon."""

    key: str
    title: str
    text: str
    script: str | None = None


OURS = "marketfeed"

SERVERS = (
    Server(OURS, "marketfeed", "`twistd marketfeed` with its default options, one process."),
    Server(
        "uws",
        "uWebSockets.js",
        "C++ behind a Node script of 40 lines, with the library's own topic tree. It splices the engine's bytes and "
        "does nothing else: no validation, no order books, no history, no policy for slow clients.",
        "uws.mjs",
    ),
    Server(
        "ws",
        "Node ws",
        "What most platforms run: a Node script of 50 lines with the package ws, one `JSON.stringify` per message and "
        "one `send` per client.",
        "ws.mjs",
    ),
)

_CLOSED = ("deliveries", "cpu", "p50", "p99")
_PACED = ("cpu", "p50", "p99", "p99_9", "max")

WORKLOADS = (
    Workload(
        "hot-closed",
        "One hot stream, as fast as it goes",
        "1,000 clients of one trade stream. 64 messages are always under way, so the figure is what the server can do.",
        ("--clients", "1000", "--window", "64"),
        _CLOSED,
    ),
    Workload(
        "hot-paced",
        "One hot stream, paced",
        "1,000 clients of one trade stream, 100 messages a second: 100,000 deliveries.",
        ("--clients", "1000", "--rate", "100"),
        _PACED,
    ),
    Workload(
        "many-closed",
        "Many streams, as fast as it goes",
        "1,000 clients, each of 10 out of 200 trade streams. 1,280 messages are always under way: 64 for each client.",
        ("--clients", "1000", "--stream-count", "200", "--per-client", "10", "--window", "1280"),
        _CLOSED,
    ),
    Workload(
        "many-paced",
        "Many streams, paced",
        "1,000 clients, each of 10 out of 200 trade streams, 2,000 messages a second: 100,000 deliveries.",
        ("--clients", "1000", "--stream-count", "200", "--per-client", "10", "--rate", "2000"),
        _PACED,
    ),
    Workload(
        "few-watch",
        "Many streams that few watch",
        "20 clients, each of 50 out of 1,000 trade streams: every stream has one. 2,000 messages are always under way.",
        ("--clients", "20", "--stream-count", "1000", "--per-client", "50", "--window", "2000"),
        ("cpu", "published", "p50", "p99"),
    ),
    Workload(
        "books",
        "Order books, paced",
        "1,000 clients of one depth stream, 40 changed levels a message, 50 messages a second: 50,000 deliveries.",
        ("--clients", "1000", "--depth", "20", "--rate", "50"),
        _PACED,
    ),
    Workload(
        "tls-closed",
        "TLS, one hot stream, as fast as it goes",
        "1,000 clients of one trade stream, by `wss:`. 16 messages are always under way.",
        ("--clients", "1000", "--window", "16"),
        _CLOSED,
        tls=True,
    ),
    Workload(
        "tls-paced",
        "TLS, one hot stream, paced",
        "1,000 clients of one trade stream, by `wss:`, 10 messages a second: 10,000 deliveries.",
        ("--clients", "1000", "--rate", "10"),
        (*_PACED, "memory"),
        tls=True,
    ),
    Workload(
        "connect",
        "Connect and subscribe",
        "2,000 clients connect, and each subscribes to 5 out of 500 trade streams.",
        ("--clients", "2000", "--stream-count", "500", "--per-client", "5", "--rate", "1"),
        ("connect_cpu", "connects"),
    ),
    Workload(
        "storm",
        "A storm: all clients come back at once",
        "The server has been restarted, and 15,000 clients connect to it, 500 at a time, each for 10 out of 1,000 "
        "trade streams, on which 200 messages a second are published meanwhile. It is over when the last client has "
        "had its first one.",
        ("--clients", "15000", "--stream-count", "1000", "--per-client", "10", "--rate", "200", "--storm"),
        ("storm", "connect_cpu"),
    ),
    Workload(
        "idle",
        "Idle clients and handshakes",
        "10,000 clients connect, subscribe to a stream on which nothing happens, and stay.",
        ("--clients", "10000", "--streams", "trade@IDLE"),
        ("memory", "connect_cpu", "connects"),
        publishes=False,
    ),
)


def workload_options(workload: Workload, *, seconds: float, warm_up: float, most_clients: int | None) -> list[str]:
    """The options of `marketfeed bench`, but for where the servers are."""
    options = [*workload.options, "--json"]
    if most_clients is not None:
        place = options.index("--clients") + 1
        options[place] = str(min(int(options[place]), most_clients))
    if not workload.publishes:
        seconds, warm_up = min(seconds, 1.0), 0.0
    return [*options, "--seconds", f"{seconds:g}", "--warm-up", f"{warm_up:g}"]
