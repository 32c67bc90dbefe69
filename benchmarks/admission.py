"""What admission costs: handshakes a second with tokens and all limits on, beside the default, in turn (A B A B).

    python -m benchmarks.admission [--rounds 3] [--clients 3000]

It prints a table in Markdown, and exits with 1 when the median of the rounds' own ratios is below 0.6.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.processes import Cores, Failed, Stage
from benchmarks.table import number
from benchmarks.workloads import SERVERS
from marketfeed.commands.load_report import LoadReport

__all__ = ["main"]

_LEAST = 0.6
_LIMITS = ("--max-connections-per-address", "100000", "--connect-rate", "1000000", "--memory-limit", "90%")
_ORIGINS = ("--allowed-origin", "https://*.example.com", "--trusted-proxy", "10.0.0.0/8")


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
    ratio = median(limited.connects_per_second / default.connects_per_second for default, limited in rounds)
    sys.stdout.write(_markdown(rounds, ratio))
    return 0 if ratio >= _LEAST else 1


def _measure(rounds: int, clients: int) -> list[tuple[LoadReport, LoadReport]]:
    options = ["--clients", str(clients), "--streams", "trade@IDLE", "--seconds", "0.5", "--warm-up", "0", "--json"]
    with tempfile.TemporaryDirectory(prefix="marketfeed-admission-") as directory:
        key = Path(directory) / "token.key"
        token = _token(key)
        auth = ("--auth", "required", "--auth-key", str(key))
        stage = Stage(Path(directory), Cores.found())
        with stage.redis():
            return [
                (
                    _one(stage, options),
                    _one(stage, [*options, "--token", token], *auth, *_LIMITS, *_ORIGINS),
                )
                for _ in range(rounds)
            ]


def _one(stage: Stage, load: Sequence[str], *options: str) -> LoadReport:
    with stage.server(SERVERS[0], *options) as (pid, port):
        return stage.load(port, pid, load, publishes=False)


def _token(key: Path) -> str:
    """A token of HS256, signed with a key that is made for it."""
    command = [sys.executable, "-m", "marketfeed", "token", "--new-key", str(key), "--user", "alice"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"marketfeed token: {done.stderr.strip()}")
    return done.stdout.strip()


def _markdown(rounds: Sequence[tuple[LoadReport, LoadReport]], ratio: float) -> str:
    lines = ["| round | default/s | CPU µs | tokens and limits/s | CPU µs | ratio |", "|---|---:|---:|---:|---:|---:|"]
    for index, (default, limited) in enumerate(rounds, 1):
        quotient = limited.connects_per_second / default.connects_per_second
        lines.append(f"| {index} | {_figures(default)} | {_figures(limited)} | {quotient:.2f} |")
    return "\n".join([*lines, "", f"Median ratio: {ratio:.2f}, at least {_LEAST} wanted.", ""])


def _figures(report: LoadReport) -> str:
    assert report.server is not None
    return f"{number(report.connects_per_second)} | {number(report.server.cpu_per_connect)}"


if __name__ == "__main__":
    sys.exit(main())
