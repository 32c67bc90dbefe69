"""How the cost of one daemon grows with clients, streams, rate, payload, and what each subscribes to; what a
publication costs the Redis-compatible server, by how many daemons it has.

    python -m benchmarks.scaling [--rounds 3] [--only LOAD …] [--workers 1,2]

Measured is the real daemon with its default options, under `marketfeed bench`. Everything goes into scaling.json, from
which `python -m benchmarks.simulate` makes the model, the tables and the plots of docs/scaling.md. With --only some
loads are measured anew, and what the file has of the others stays. With --workers some loads are put on so many
workers, too.
"""

from __future__ import annotations

import argparse
import http.client
import re
import socket
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.loads import LOADS, WORKER_LOADS, Load
from benchmarks.measured import Measured, Scaling
from benchmarks.processes import ROOT, Cores, Failed, Stage
from benchmarks.redis_cost import measure_redis
from benchmarks.run import machine, versions
from benchmarks.watch import Watch
from benchmarks.workloads import SERVERS
from marketfeed.commands.bench.report import Report
from marketfeed.demo.embedded import NoServerFound

__all__ = ["main"]

RESULTS = ROOT / "benchmarks" / "scaling.json"

_SUBSCRIBERS = (1, 4, 16, 64)
_AT_ONCE = (1, 100)
_TRIES = 3
_DISTURBED = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _arguments(argv)
    try:
        _measure(arguments)
    except (Failed, NoServerFound, OSError, msgspec.DecodeError) as fault:
        sys.stderr.write(f"scaling: {fault}\n")
        return 1
    sys.stderr.write(f"written: {RESULTS.relative_to(ROOT)}\n")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description="Measure how cost grows.")
    parser.add_argument("--rounds", type=int, default=3, help="over all loads (default: %(default)s)")
    parser.add_argument(
        "--only", action="append", choices=[load.key for load in LOADS], help="this load; may be repeated"
    )
    parser.add_argument(
        "--workers",
        type=_counts,
        default=[],
        metavar="N,…",
        help="besides, so many workers, which the daemon has to know",
    )
    return parser.parse_args(argv)


def _counts(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used; expected numbers such as 1,2")
    return [int(number) for number in text.split(",")]


def _measure(arguments: argparse.Namespace) -> None:
    """All rounds; each one is written when it is over."""
    loads = [load for load in LOADS if not arguments.only or load.key in arguments.only]
    cores = Cores.found()
    facts = f"{datetime.now(UTC):%Y-%m-%d}", machine(), versions(SERVERS[:1]), cores.pinned
    found = Scaling(*facts, [], [])
    if arguments.only:
        kept = Scaling.load(RESULTS)
        found = Scaling(*facts, [run for run in kept.runs if run.load not in arguments.only], kept.redis)
    with tempfile.TemporaryDirectory(prefix="marketfeed-scaling-") as directory:
        stage = Stage(Path(directory), cores)
        with stage.redis():
            for round_number in range(1, max(arguments.rounds, 1) + 1):
                for load in loads:
                    for workers in [None, *(arguments.workers if load.key in WORKER_LOADS else [])]:
                        found.runs.append(_one(stage, Path(directory), load, round_number, workers))
                        _told(found.runs[-1])
                if not arguments.only:
                    path = stage.redis_url.removeprefix("unix://")
                    found.redis.extend(
                        measure_redis(path, each, at_once) for each in _SUBSCRIBERS for at_once in _AT_ONCE
                    )
                found.save(RESULTS)


def _one(stage: Stage, directory: Path, load: Load, round_number: int, workers: int | None) -> Measured:
    """The least disturbed of at most `_TRIES`; the first that is hardly disturbed at all will do."""
    tries: list[Measured] = []
    while len(tries) < _TRIES and all(_disturbed(run) > _DISTURBED for run in tries):
        tries.append(_try(stage, directory, load, round_number, workers))
    return min(tries, key=_disturbed)


def _disturbed(run: Measured) -> float:
    return run.disturbed or 0.0


def _try(stage: Stage, directory: Path, load: Load, round_number: int, workers: int | None) -> Measured:
    admin = directory / "admin.sock"
    admin.unlink(missing_ok=True)
    options = [f"--admin=unix:{admin}", *([] if workers is None else [f"--workers={workers}"])]
    with stage.server(SERVERS[0], *options) as (pid, port):
        before = _counters(admin)
        with Watch(Cores.found(), pid, stage.redis_url.removeprefix("unix://")) as watch:
            report = stage.load(port, pid, load.options, publishes=load.publishes)
        after = _counters(admin)
    counted = {name: after[name] - before[name] for name in after} | {"wakes": watch.wakes}
    return _measured(load, round_number, workers, report, counted, watch.disturbed)


_COUNTERS = {
    "publications": re.compile(r"^marketfeed_publications_total\{[^}]*\} (\S+)$", re.MULTILINE),
    "deliveries": re.compile(r"^marketfeed_deliveries_total\{[^}]*\} (\S+)$", re.MULTILINE),
    "flushes": re.compile(r"^marketfeed_flush_clients_count(?:\{[^}]*\})? (\S+)$", re.MULTILINE),
    "writes": re.compile(r"^marketfeed_flush_clients_sum(?:\{[^}]*\})? (\S+)$", re.MULTILINE),
}


def _counters(admin: Path) -> dict[str, float]:
    """What the daemon has counted so far, all kinds and all workers together."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(admin))
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return {name: sum(map(float, pattern.findall(text))) for name, pattern in _COUNTERS.items()}


def _measured(
    load: Load, round_number: int, workers: int | None, report: Report, counted: dict[str, float], disturbed: float
) -> Measured:
    """What is counted is of the whole run, the warm-up included: as shares of what was published it holds for both."""
    server, latency = report.server, report.latency_ms
    assert server is not None
    shares = {name: counted[name] / counted["publications"] if counted["publications"] else 0.0 for name in counted}
    published = report.published_per_second
    return Measured(
        load=load.key,
        round_number=round_number,
        workers=workers,
        cpu=round(server.cpu, 5),
        published=round(published, 1),
        deliveries=round(report.deliveries_per_second, 1),
        bytes_sent=round(report.bytes_per_second),
        flushes=round(shares["flushes"] * published, 1),
        writes=round(shares["writes"] * published, 1),
        wakes=round(shares["wakes"] * published, 1),
        disturbed=round(disturbed, 3),
        p50=None if latency is None else round(latency.p50, 3),
        p99=None if latency is None else round(latency.p99, 3),
        generator_busy=round(report.generator_busy, 3),
        connect_cpu=round(server.cpu_per_connect, 2),
        resident_before=server.resident_before,
        resident_connected=server.resident_connected,
        is_faultless=report.is_faultless,
    )


def _told(run: Measured) -> None:
    each = f", {run.cpu / run.deliveries * 1e6:.2f} µs a delivery" if run.deliveries else ""
    workers = "" if run.workers is None else f", {run.workers} workers"
    fault = "" if run.is_faultless else "; NOT EVERYTHING ARRIVED IN ORDER"
    sys.stderr.write(
        f"{run.round_number} {run.load}{workers}: {run.cpu:.1%} of a core, {run.published:,.0f} published, "
        f"{run.deliveries:,.0f} delivered in {run.writes:,.0f} writes of {run.flushes:,.0f} flushes{each}, "
        f"{run.disturbed or 0.0:.0%} disturbed{fault}\n"
    )
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
