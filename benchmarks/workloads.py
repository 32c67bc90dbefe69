"""What is measured, and what with. Data only.

The paced rates are such that neither the slowest server nor the load generator is near its limit. The windows are wide
enough for a client to find many messages at a time: else a server that is fast would have to wait for the generator.
"""

from __future__ import annotations

import msgspec

__all__ = ["OURS", "SERVERS", "WORKLOADS", "Server", "Workload", "clients_of", "workload_options"]


class Workload(msgspec.Struct, frozen=True):
    """`options`: of `marketfeed bench`. `figures`: what its table shows, by the names in `table.FIGURES`; the first is
    what the servers are compared by. `publishes`: it needs the engine that `marketfeed bench` brings. `tls`: clients
    connect to `wss:`, and the server itself has the certificate. `climbs`: clients are raised, from those that it
    names, until latency passes what is good (benchmarks.climb). `has_compiled`: what is compiled is a good part of it,
    so that it is measured with and without."""

    key: str
    title: str
    text: str
    options: tuple[str, ...]
    figures: tuple[str, ...]
    publishes: bool = True
    tls: bool = False
    climbs: bool = False
    has_compiled: bool = False


class Server(msgspec.Struct, frozen=True):
    """`script`: a Node program in peers/; None for the daemon. `is_compiled`: the daemon as a compiled wheel has it."""

    key: str
    title: str
    text: str
    script: str | None = None
    is_compiled: bool = False


OURS = "marketfeed"

SERVERS = (
    Server(OURS, "marketfeed", "`twistd marketfeed` with its default options, one process."),
    Server(
        "compiled",
        "marketfeed, compiled",
        "The same, from a wheel that was built where there is a C compiler: the same source, of which the way of a "
        "publication is compiled with mypyc.",
        is_compiled=True,
    ),
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
_CARRIED = ("clients", "deliveries", "cpu", "p50", "p99")
_OTHERS_TERMS = (
    "Caplin publishes its figures in these terms, and Lightstreamer's kit for load tests is made for them: every "
    "client has a fixed number of messages a second, and clients are added while latency is watched. As in Caplin's "
    "tests there are 1,000 streams, each has a message every two seconds, and each client watches some that are drawn "
    "for it: here 20, so that it has 10 messages a second. Clients are raised until the 99th percentile of latency "
    "passes 100 ms, and the figure is how many were carried before. What differs from Caplin's: theirs is the mean of "
    "latency, the server had all cores of its machine and batched for some 100 ms where they say so, and the clients "
    "had machines of their own; here the server has one core, and publisher, Redis and all clients share another. "
    "*load* is that of the step that was too much."
)
_MIX = ("--clients", "1000", "--stream-count", "1000", "--per-client", "20", "--mixed", "--rate", "500")

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
        has_compiled=True,
    ),
    Workload(
        "few-watch",
        "Many streams that few watch",
        "20 clients, each of 50 out of 1,000 trade streams: every stream has one. 2,000 messages are always under way.",
        ("--clients", "20", "--stream-count", "1000", "--per-client", "50", "--window", "2000"),
        ("cpu", "published", "p50", "p99"),
        has_compiled=True,
    ),
    Workload(
        "books",
        "Order books, paced",
        "1,000 clients of one depth stream, 40 changed levels a message, 50 messages a second: 50,000 deliveries.",
        ("--clients", "1000", "--depth", "20", "--rate", "50"),
        _PACED,
        has_compiled=True,
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
        "tls-paced-20",
        "TLS, one hot stream, 20 a second",
        "1,000 clients of one trade stream, by `wss:`, 20 messages a second: 20,000 deliveries.",
        ("--clients", "1000", "--rate", "20"),
        (*_PACED, "memory"),
        tls=True,
    ),
    Workload(
        "tls-paced-50",
        "TLS, one hot stream, 50 a second",
        "1,000 clients of one trade stream, by `wss:`, 50 messages a second: 50,000 deliveries.",
        ("--clients", "1000", "--rate", "50"),
        (*_PACED, "memory"),
        tls=True,
    ),
    Workload(
        "tls-idle",
        "TLS, handshakes and idle clients",
        "4,000 clients connect by `wss:`, subscribe to a stream on which nothing happens, and stay. None resumes an "
        "earlier session of TLS, so each handshake is a whole one. It is counted with that of WebSocket behind it.",
        ("--clients", "4000", "--streams", "trade@IDLE"),
        ("connect_cpu", "connects", "memory"),
        publishes=False,
        tls=True,
    ),
    Workload("carried", "Clients that a core carries", _OTHERS_TERMS, _MIX, _CARRIED, climbs=True),
    Workload(
        "tls-carried",
        "TLS, clients that a core carries",
        "The same, by `wss:`.",
        _MIX,
        _CARRIED,
        tls=True,
        climbs=True,
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


def clients_of(workload: Workload) -> int:
    """How many clients it names."""
    return int(workload.options[workload.options.index("--clients") + 1])


def workload_options(workload: Workload, *, clients: int, seconds: float, warm_up: float) -> list[str]:
    """The options of `marketfeed bench`, with so many clients, but for where the servers are."""
    options = [*workload.options, "--json"]
    options[options.index("--clients") + 1] = str(clients)
    if not workload.publishes:
        seconds, warm_up = min(seconds, 1.0), 0.0
    return [*options, "--seconds", f"{seconds:g}", "--warm-up", f"{warm_up:g}"]
