"""What admission costs: handshakes and deliveries with tokens and all limits on, beside the default, in turn (A B A B).

    python -m benchmarks.admission [--rounds 3] [--clients 3000]

It prints a table in Markdown, and exits with 1 when the median of the rounds' own ratios of handshakes a second is
below 0.6.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.processes import Cores, Failed, Stage
from benchmarks.table import number
from benchmarks.workloads import SERVERS
from marketfeed.commands.bench.report import Report

__all__ = ["main"]

_LEAST = 0.6
_LIMITS = ("--max-connections-per-address", "100000", "--connect-rate", "1000000", "--memory-limit", "90%")
_ORIGINS = ("--allowed-origin", "https://*.example.com", "--trusted-proxy", "10.0.0.0/8")

_FAN_OUT = [
    "--clients",
    "1000",
    "--streams",
    "trade@HOT",
    "--rate",
    "100",
    "--seconds",
    "5",
    "--warm-up",
    "1",
    "--json",
]


class Round(msgspec.Struct, frozen=True):
    """The default, and with tokens and all limits: clients that connect, and clients that get publications."""

    idle: Report
    idle_limited: Report
    fan_out: Report
    fan_out_limited: Report


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description="Measure what admission costs.")
    parser.add_argument("--rounds", type=int, default=3, help="of the default and of all limits (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=3000, help="that connect (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        rounds = _measure(arguments.rounds, arguments.clients)
    except Failed as fault:
        sys.stderr.write(f"admission: {fault}\n")
        return 1
    ratio = median(each.idle_limited.connects_per_second / each.idle.connects_per_second for each in rounds)
    sys.stdout.write(_markdown(rounds, ratio))
    return 0 if ratio >= _LEAST else 1


def _measure(rounds: int, clients: int) -> list[Round]:
    idle = ["--clients", str(clients), "--streams", "trade@IDLE", "--seconds", "0.5", "--warm-up", "0", "--json"]
    with tempfile.TemporaryDirectory(prefix="marketfeed-admission-") as directory:
        key = Path(directory) / "token.key"
        token = ["--token", _token(key)]
        limits = ("--auth", "required", "--auth-key", str(key), *_LIMITS, *_ORIGINS)
        stage = Stage(Path(directory), Cores.found())
        with stage.redis():
            return [
                Round(
                    _one(stage, idle),
                    _one(stage, idle + token, *limits),
                    _one(stage, _FAN_OUT, publishes=True),
                    _one(stage, [*_FAN_OUT, *token], *limits, publishes=True),
                )
                for _ in range(rounds)
            ]


def _one(stage: Stage, load: Sequence[str], *options: str, publishes: bool = False) -> Report:
    with stage.server(SERVERS[0], *options) as (pid, port):
        return stage.load(port, pid, load, publishes=publishes)


def _token(key: Path) -> str:
    """A token of HS256, signed with a key that is made for it."""
    command = [sys.executable, "-m", "marketfeed", "token", "--new-key", str(key), "--user", "alice"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"marketfeed token: {done.stderr.strip()}")
    return done.stdout.strip()


def _markdown(rounds: Sequence[Round], ratio: float) -> str:
    lines = ["| round | | default | tokens and limits | ratio |", "|---|---|---:|---:|---:|"]
    for index, each in enumerate(rounds, 1):
        handshakes = (each.idle.connects_per_second, each.idle_limited.connects_per_second)
        lines.append(_row(index, "handshakes/s", *handshakes))
        lines.append(_row(index, "CPU µs per delivery", *map(_cpu, (each.fan_out, each.fan_out_limited))))
    return "\n".join([*lines, "", f"Median ratio of handshakes: {ratio:.2f}, at least {_LEAST} wanted.", ""])


def _row(index: int, title: str, default: float, limited: float) -> str:
    return f"| {index} | {title} | {number(default)} | {number(limited)} | {limited / default:.2f} |"


def _cpu(report: Report) -> float:
    assert report.server is not None
    assert report.server.cpu_per_delivery is not None
    return report.server.cpu_per_delivery


if __name__ == "__main__":
    sys.exit(main())
