"""What market data beyond the engine's publications cost, beside plain streams, in turn (A B A B).

    python -m benchmarks.costs [daemon] [process] [--rounds 3] [--seconds 8] [--clients 1000]

`daemon`: a real daemon with many clients, of whom those of a rate are compared with those who get everything, and those
of `depth20` with those of a plain stream of that size. The processor's time is the daemon's own, as Linux counts it.
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

__all__ = ["Engine", "main"]

_BOOK = 1000
"""Levels of the book, of both sides."""
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
                redis.ask("PUBLISH", "depth@HOT", engine.book().decode())
            begun, sent = time.monotonic(), 0
            while not self._over.wait(max(0.0, begun + sent / case.rate - time.monotonic())):
                sent += 1
                if case.levels:
                    redis.ask("PUBLISH", "depth@HOT", engine.update().decode())
                else:
                    redis.ask("PUBLISH", "trade@HOT", _plain(sent).decode())

    def stop(self) -> None:
        self._over.set()
        self.join()


def _plain(number: int) -> bytes:
    """A publication of about `_PLAIN_SIZE` bytes."""
    head = b'{"e":"trade","t":%d,"m":true,"p":"1000.50","q":"2","s":"HOT","x":"' % number
    return head + b"x" * (_PLAIN_SIZE - len(head) - 2) + b'"}'


def _run(case: _Case, clients: int, seconds: float) -> tuple[float, float]:
    """µs of the daemon's processor a second, and deliveries a second. Raises `Failed`."""
    with tempfile.TemporaryDirectory(prefix="marketfeed-costs-") as directory:
        stage = Stage(Path(directory), Cores.found())
        with stage.redis(), stage.server(SERVERS[0], "--warm", "depth@HOT") as (pid, port):
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
        everything, throttled = (_Case(f"depth@HOT{rate}", _RATE, levels) for rate in ("", "@1000ms"))
        pairs = [(_run(everything, clients, seconds)[0], _run(throttled, clients, seconds)[0]) for _ in range(rounds)]
        _say(
            f"@1000ms, {clients} clients, {_RATE} updates/s of {levels} levels: "
            f"{median(b for _, b in pairs) / 1e4:.1f} % of a core beside {median(a for a, _ in pairs) / 1e4:.1f} %: "
            f"{median(b / a for a, b in pairs):.3f} x"
        )
    for rate in (_RATE, 10):
        plain, partial = _Case("trade@HOT", 10, 0), _Case("depth20@HOT", rate, 40)
        ratios = []
        for _ in range(rounds):
            (a, delivered), (b, others) = _run(plain, clients, seconds), _run(partial, clients, seconds)
            ratios.append((a / delivered, b / others))
        _say(
            f"depth20, {clients} clients, {rate} updates/s of 40 levels: {median(b for _, b in ratios):.2f} us a "
            f"delivery beside {median(a for a, _ in ratios):.2f} us: {median(b / a for a, b in ratios):.3f} x"
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
        self.audience: Any = None
        self.groups: dict[str, Group] = {}

    def send(self, data: bytes) -> int:
        return len(data)

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


class _Running:
    """A hub with clients of some streams, to which `engine` publishes on `stream`."""

    def __init__(self, names: Sequence[str], stream: str, engine: Callable[[], bytes], *, on_paths: bool) -> None:
        self._clock = Clock()
        limits = msgspec.convert(Settings(), HubLimits, from_attributes=True)
        self._hub = Hub(self._clock, limits, self._clock.seconds)
        self._hub.feed_from(_Source(self._hub))
        self._hub.startService()
        kinds = StreamKinds(rebuilds=on_paths)
        for _ in range(_CLIENTS):
            client = _Client()
            subscriber: Subscriber = client
            streams = {name: kinds.parse(name, on_paths=on_paths) for name in names}
            self._hub.join(subscriber, Shape.ENVELOPE, streams, client)
        self._stream, self._engine = stream, engine
        if stream.startswith("depth"):
            self._hub.publish(stream, Engine(0).book())
            self._hub.flush()
        self.batch()

    def batch(self) -> float:
        """µs that a publication takes, of some."""
        data = [self._engine() for _ in range(_BATCH)]
        hub, stream, advance, step = self._hub, self._stream, self._clock.advance, 1 / _RATE
        began = time.thread_time_ns()
        for each in data:
            hub.publish(stream, each)
            hub.flush()
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
        plain = _Running([stream], stream, engine(), on_paths=False)
        made = _Running([stream], stream, engine(), on_paths=True)
        _compare(f"{title}: / and /stream", plain, made, rounds)
    for names in (["bookTicker"], ["depth5"], ["depth20"], ["bookTicker", "depth5", "depth10", "depth20"]):
        for levels in (4, 40):
            plain = _Running(["depth@HOT"], "depth@HOT", Engine(levels).update, on_paths=False)
            streams = ["depth@HOT", *[f"{name}@HOT" for name in names]]
            more = _Running(streams, "depth@HOT", Engine(levels).update, on_paths=False)
            _compare(f"{_BOOK} levels, updates of {levels}: besides {', '.join(names)}", plain, more, rounds)


def _compare(title: str, plain: _Running, other: _Running, rounds: int) -> None:
    pairs = [(plain.batch(), other.batch()) for _ in range(10 * rounds)]
    first, more = median(a for a, _ in pairs), median(b - a for a, b in pairs)
    _say(f"{title}: {first:.2f} us a publication, {more:+.2f} us")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description="Measure what market data cost.")
    parser.add_argument("what", nargs="*", choices=["daemon", "process", []], help="both, by default")
    parser.add_argument("--rounds", type=int, default=3, help="of each pair (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run of a daemon (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=1000, help="of the daemon (default: %(default)s)")
    arguments = parser.parse_args()
    if not arguments.what or "process" in arguments.what:
        _measure_process(arguments.rounds)
    if not arguments.what or "daemon" in arguments.what:
        _measure_daemon(arguments.rounds, arguments.clients, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
