"""What is measured, and what with. Data only.

The paced rates are such that neither the slowest server nor the load generator is near its limit. The windows are wide
enough for a client to find many messages at a time: else a server that is fast would have to wait for the generator.
"""

from __future__ import annotations

import msgspec

__all__ = ["OURS", "SERVERS", "WORKLOADS", "Climb", "Server", "Workload", "workload_options"]


class Climb(msgspec.Struct, frozen=True):
    """Clients are raised from `first`, to `most` if need be, while nobody misses anything and `p99_ms` holds."""

    first: int
    most: int
    p99_ms: float


class Workload(msgspec.Struct, frozen=True):
    """`options`: of `marketfeed bench`. `figures`: what its table shows, by the names in `table.FIGURES`; the first is
    what the servers are compared by. `publishes`: it needs the engine that `marketfeed bench` brings. `tls`: clients
    connect to `wss:`, and the server itself has the certificate. `climb`: the clients are how many it can have.
    `has_compiled`: what is compiled is a good part of it, so that it is measured with and without."""

    key: str
    title: str
    text: str
    options: tuple[str, ...]
    figures: tuple[str, ...]
    publishes: bool = True
    tls: bool = False
    climb: Climb | None = None
    has_compiled: bool = False

    @property
    def clients(self) -> int:
        """As its options have it."""
        return int(self._option("--clients"))

    @property
    def rate(self) -> float:
        """Messages that are published a second. Only where that is fixed."""
        return float(self._option("--rate"))

    def _option(self, name: str) -> str:
        return self.options[self.options.index(name) + 1]


class Server(msgspec.Struct, frozen=True):
    """`script`: a Node program in peers/; None for the daemon. `is_compiled`: with what a wheel has compiled."""

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
        "The same from a wheel that was built where a C compiler is, which `pip install` does by itself.",
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
_CAPACITY = ("most_clients", "deliveries", "cores", "cpu", "p50", "p99")
_CAPACITY_OPTIONS = ("--clients", "1000", "--stream-count", "1000", "--per-client", "20", "--rate", "500")
_CAPACITY_TEXT = (
    "1,000 trade streams, each of which changes every two seconds. Each client watches 20 of them, and so gets 10 "
    "messages a second. Clients are raised until one message in a hundred is later than 100 ms, or one is missing. "
    "Lightstreamer and Caplin publish what their servers do in these terms: a rate for each client, how many clients, "
    "how late; theirs are of machines with more cores, and of load generators on machines of their own."
)

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
        "capacity",
        "How many clients, each at a rate",
        _CAPACITY_TEXT,
        _CAPACITY_OPTIONS,
        _CAPACITY,
        climb=Climb(first=1000, most=64_000, p99_ms=100.0),
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
        "tls-20",
        "TLS, one hot stream, paced",
        "1,000 clients of one trade stream, by `wss:`, 20 messages a second: 20,000 deliveries.",
        ("--clients", "1000", "--rate", "20"),
        (*_PACED, "memory"),
        tls=True,
    ),
    Workload(
        "tls-50",
        "TLS, one hot stream, paced faster",
        "1,000 clients of one trade stream, by `wss:`, 50 messages a second: 50,000 deliveries.",
        ("--clients", "1000", "--rate", "50"),
        _PACED,
        tls=True,
    ),
    Workload(
        "tls-idle",
        "TLS, idle clients and handshakes",
        "2,000 clients connect by `wss:`, subscribe to a stream on which nothing happens, and stay.",
        ("--clients", "2000", "--streams", "trade@IDLE"),
        ("connect_cpu", "connects", "memory"),
        publishes=False,
        tls=True,
    ),
    Workload(
        "tls-capacity",
        "TLS, how many clients, each at a rate",
        "The same as without TLS: 1,000 trade streams, 10 messages a second to each client, by `wss:`, and clients are "
        "raised until one message in a hundred is later than 100 ms, or one is missing.",
        _CAPACITY_OPTIONS,
        _CAPACITY,
        tls=True,
        climb=Climb(first=1000, most=64_000, p99_ms=100.0),
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


def workload_options(workload: Workload, clients: int, *, seconds: float, warm_up: float) -> list[str]:
    """The options of `marketfeed bench`, with so many clients, but for where the servers are."""
    options = [*workload.options, "--json"]
    options[options.index("--clients") + 1] = str(clients)
    if not workload.publishes:
        seconds, warm_up = min(seconds, 1.0), 0.0
    return [*options, "--seconds", f"{seconds:g}", "--warm-up", f"{warm_up:g}"]
