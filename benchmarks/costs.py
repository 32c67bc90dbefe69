"""What rates, what is made of books, and payloads for Binance's clients cost, beside plain streams, in turn (A B A B).

    python -m benchmarks.costs [--only daemon|process] [--rounds 3] [--seconds 8] [--clients 1000]

`daemon`: a real daemon with many clients. Those of a rate are compared with those who get everything; those of
`depth20` with those of a plain stream of that size, which is published ten times a second, or as often as the book is
changed. The processor's time is the daemon's own, as Linux counts it, all of it: what comes is read and checked, too.
`process`: what a publication takes in the hub, in this process, with a few clients who take everything at once.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from benchmarks.processes import Cores, Failed, Stage
from benchmarks.redis_cost import Connected
from benchmarks.workloads import SERVERS
from marketfeed.boundaries import Archive, Snapshots, Subscriber
from marketfeed.config.settings import Settings
from marketfeed.hub.groups import Group
from marketfeed.hub.hub import Hub, HubLimits
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Shape

__all__ = ["Engine", "Running", "main"]

_BOOK = 1000
"""Levels of the book, of both sides."""
_BASE, _PLAIN = "depth@HOT", "ticker@HOT"
_PLAIN_SIZE = 760
"""Bytes of a publication of `depth20`, about."""
_RATE = 100
"""Updates a second."""
_CLIENTS = 5
"""In this process."""
_BATCH = 300
"""Publications that are measured together."""


class Engine:
    """Writes depth messages of one market: a book of `_BOOK` levels, and updates of so many of them."""

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._number = 0

    def book(self) -> bytes:
        """All levels."""
        half = _BOOK // 2
        return b'{"e":"depth","snapshot":true,"a":[%b],"b":[%b]}' % (
            b",".join([self._level(step, 1) for step in range(half)]),
            b",".join([self._level(-1 - step, 1) for step in range(half)]),
        )

    def update(self) -> bytes:
        """Some of those that are near the best, the best among them."""
        self._number += 1
        half = self._levels // 2
        steps = [0, *[(self._number * 7 + place * 3) % 60 + 1 for place in range(half - 1)]]
        asks = b",".join([self._level(step, self._number + step) for step in steps])
        bids = b",".join([self._level(-1 - step, self._number + step) for step in steps])
        return b'{"e":"depth","a":[%b],"b":[%b]}' % (asks, bids)

    @staticmethod
    def _level(step: int, seed: int) -> bytes:
        price = 100_000 + 5 * step
        return b'["%d.%02d","%d"]' % (price // 100, price % 100, seed % 90 + 1)


# A real daemon.


class _Case(msgspec.Struct, frozen=True):
    """`streams`: what the clients want. `rate`: publications a second; `levels`: of each, or 0: a plain stream."""

    streams: str
    rate: float
    levels: int


class _Publisher(threading.Thread):
    """Publishes at a steady rate, until it is stopped."""

    def __init__(self, stage: Stage, case: _Case) -> None:
        super().__init__(daemon=True)
        self._path, self._case = stage.redis_path, case
        self._over = threading.Event()

    def run(self) -> None:
        case = self._case
        engine = Engine(case.levels)
        with Connected(self._path) as redis:
            if case.levels:
                redis.ask("PUBLISH", _BASE, engine.book().decode())
            begun, sent = time.monotonic(), 0
            while not self._over.wait(max(0.0, begun + sent / case.rate - time.monotonic())):
                sent += 1
                if case.levels:
                    redis.ask("PUBLISH", _BASE, engine.update().decode())
                else:
                    redis.ask("PUBLISH", _PLAIN, _plain(sent).decode())

    def stop(self) -> None:
        self._over.set()
        self.join()


def _plain(number: int) -> bytes:
    """A publication of about `_PLAIN_SIZE` bytes."""
    head = b'{"e":"ticker","c":"1000.50","n":%d,"s":"HOT","x":"' % number
    return head + b"x" * (_PLAIN_SIZE - len(head) - 2) + b'"}'


def _run(case: _Case, clients: int, seconds: float) -> tuple[float, float]:
    """µs of the daemon's processor a second, and deliveries a second. Raises `Failed`."""
    with tempfile.TemporaryDirectory(prefix="marketfeed-costs-") as directory:
        stage = Stage(Path(directory), Cores.found())
        with stage.redis(), stage.server(SERVERS[0], "--warm", _BASE) as (pid, port):
            publisher = _Publisher(stage, case)
            publisher.start()
            looks: list[tuple[float, float]] = []
            looker = threading.Thread(target=_look, args=(pid, 4.0 + clients / 500, seconds, looks), daemon=True)
            looker.start()
            options = ["--clients", str(clients), "--streams", case.streams, "--json", "--warm-up", "3"]
            report = stage.load(port, pid, [*options, "--seconds", f"{seconds + clients / 500 + 2:g}"], publishes=False)
            looker.join()
            publisher.stop()
            (first, began), (last, ended) = looks
            return (last - first) / (ended - began), report.deliveries_per_second


def _look(pid: int, begin: float, seconds: float, looks: list[tuple[float, float]]) -> None:
    time.sleep(begin)
    looks.append((_cpu(pid), time.monotonic()))
    time.sleep(seconds)
    looks.append((_cpu(pid), time.monotonic()))


def _cpu(pid: int) -> float:
    """µs of a processor that all threads of a process have used, as the scheduler counts them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


def _measure_daemon(rounds: int, clients: int, seconds: float) -> None:
    for levels in (40, 4):
        everything, throttled = (_Case(f"{_BASE}{rate}", _RATE, levels) for rate in ("", "@1000ms"))
        pairs = [(_run(everything, clients, seconds)[0], _run(throttled, clients, seconds)[0]) for _ in range(rounds)]
        _say(
            f"@1000ms, {clients} clients, {_RATE} updates/s of {levels} levels: "
            f"{median(b for _, b in pairs) / 1e4:.1f} % of a core beside {median(a for a, _ in pairs) / 1e4:.1f} %: "
            f"{median(b / a for a, b in pairs):.3f} x"
        )
    for rate, suffix in ((10, ""), (_RATE, ""), (_RATE, "@100ms")):
        plain, partial = _Case(f"{_PLAIN}{suffix}", rate if suffix else 10, 0), _Case("depth20@HOT", rate, 40)
        ratios = []
        for _ in range(rounds):
            (a, delivered), (b, others) = _run(plain, clients, seconds), _run(partial, clients, seconds)
            ratios.append((a / delivered, b / others))
        _say(
            f"depth20, {clients} clients, {rate} updates/s of 40 levels: {median(b for _, b in ratios):.2f} us a "
            f"delivery beside {median(a for a, _ in ratios):.2f} us of {plain.streams}, published {plain.rate:.0f} "
            f"times a second: {median(b / a for a, b in ratios):.3f} x"
        )


# In this process.


class _Client:
    """Takes everything at once."""

    direct = True
    window = 0
    hears_events = False
    share = None
    room = 1 << 20
    is_behind = False

    def __init__(self) -> None:
        self.sent = 0  # bytes
        self.audience: Any = None
        self.groups: dict[str, Group] = {}

    def send(self, data: bytes) -> int:
        size = len(data)
        self.sent += size
        return size

    def stalled(self, data: bytes, sent: int) -> bool:
        return True

    def failed(self) -> None: ...

    def wait(self, group: Group, frames: list[bytes]) -> bool:
        return True

    def write(self, frames: bytes) -> None: ...

    def tell(self, event: bytes) -> None: ...

    def forget(self, groups: Collection[Group]) -> None: ...

    def overflow(self) -> None: ...

    # What its session does about a join.

    def joined(
        self, groups: dict[str, Group], recovered: dict[str, bool] | None, rewound: dict[str, int] | None
    ) -> None:
        self.groups.update(groups)

    def refused(self, why: str) -> None:
        raise Failed(why)

    def settled(self) -> None: ...


class _Source:
    """Confirms whatever is wanted."""

    archive: Archive | None = None
    snapshots: Snapshots | None = None

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def want(self, stream: str) -> int | None:
        self._hub.confirmed(stream)
        return None

    def unwant(self, stream: str) -> None: ...

    def caught_up(self, stream: str) -> Deferred[str | None]:
        return succeed("server")


class Running:
    """A hub with clients of some streams, to which `engine` publishes on `stream`."""

    def __init__(
        self,
        names: Sequence[str],
        stream: str,
        engine: Callable[[], bytes],
        *,
        on_paths: bool = False,
        ticks: bool = False,
    ) -> None:
        self._clock = Clock()
        self._ticks = ticks
        limits = msgspec.convert(Settings(), HubLimits, from_attributes=True)
        self._hub = Hub(self._clock, limits, self._clock.seconds)
        self._hub.feed_from(_Source(self._hub))
        self._hub.startService()
        kinds = StreamKinds(rebuilds=on_paths)
        self._clients = [_Client() for _ in range(_CLIENTS)]
        for client in self._clients:
            subscriber: Subscriber = client
            streams = {name: kinds.parse(name, on_paths=on_paths) for name in names}
            self._hub.join(subscriber, Shape.ENVELOPE, streams, client)
        self._stream, self._engine = stream, engine
        if stream.startswith("depth"):
            self._hub.publish(stream, Engine(0).book())
            self._hub.flush()
        self.batch()

    @property
    def sent(self) -> int:
        """Bytes that all clients have got."""
        return sum(client.sent for client in self._clients)

    def batch(self) -> float:
        """µs that a publication takes, of some."""
        data = [self._engine() for _ in range(_BATCH)]
        hub, stream, ticks = self._hub, self._stream, self._ticks
        advance, step = self._clock.advance, 1 / _RATE
        began = time.thread_time_ns()
        for each in data:
            hub.publish(stream, each)
            hub.flush()
            if ticks:
                advance(step)
        return (time.thread_time_ns() - began) / len(data) / 1000


def _payloads(text: str) -> Callable[[], bytes]:
    numbers = iter(range(1, 1 << 40))
    return lambda: text.replace("NUMBER", str(next(numbers))).encode()


def _measure_process(rounds: int) -> None:
    gc.disable()  # as a daemon does while it has much to do
    engines: dict[str, tuple[str, Callable[[], Callable[[], bytes]]]] = {
        "trade": ("trade@HOT", lambda: _payloads('{"e":"trade","t":NUMBER,"m":true,"p":"1000.5","q":"2","s":"HOT"}')),
        "ticker": ("ticker@HOT", lambda: _payloads('{"e":"ticker","c":"1000.5","s":"HOT","n":NUMBER}')),
        **{
            f"depth of {levels} levels": ("depth@HOT", lambda levels=levels: Engine(levels).update)
            for levels in (4, 6, 10, 40)
        },
    }
    for title, (stream, engine) in engines.items():
        plain = Running([stream], stream, engine())
        made = Running([stream], stream, engine(), on_paths=True)
        _compare(f"{title}: / and /stream", plain, made, rounds)
    for names in (["bookTicker"], ["depth5"], ["depth20"], ["bookTicker", "depth5", "depth10", "depth20"]):
        for levels in (4, 40):
            plain = Running([_BASE], _BASE, Engine(levels).update, ticks=True)
            more = Running([_BASE, *[f"{name}@HOT" for name in names]], _BASE, Engine(levels).update, ticks=True)
            _compare(f"{_BOOK} levels, updates of {levels}: besides {', '.join(names)}", plain, more, rounds)


def _compare(title: str, plain: Running, other: Running, rounds: int) -> None:
    pairs = [(plain.batch(), other.batch()) for _ in range(10 * rounds)]
    first, more = median(a for a, _ in pairs), median(b - a for a, b in pairs)
    _say(f"{title}: {first:.2f} us a publication, {more:+.2f} us: {1 + more / first:.2f} x")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description="Measure what market data cost.")
    parser.add_argument("--only", choices=("daemon", "process"), help="one of the two parts")
    parser.add_argument("--rounds", type=int, default=3, help="of each pair (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run of a daemon (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=1000, help="of the daemon (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.only != "daemon":
        _measure_process(arguments.rounds)
    if arguments.only != "process":
        _measure_daemon(arguments.rounds, arguments.clients, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
