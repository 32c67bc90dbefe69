"""`make bench`: measure marketfeed and its peers in turn, and write docs/benchmarks.md, its chart, README's table, and
results.json.

    python -m benchmarks.run [--rounds 3] [--seconds 10] [--only WORKLOAD …] [--server SERVER …] [--quick]
                             [--table-only]

With --quick, --only or --server, nothing is written: the page is printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec

from benchmarks.climb import climb
from benchmarks.processes import PEERS, ROOT, Cores, Failed, Stage, build_compiled, install_peers
from benchmarks.results import FIGURES, Results, Run
from benchmarks.table import chart, markdown, number, quote
from benchmarks.workloads import OURS, SERVERS, WORKLOADS, Server, Workload, clients_of, workload_options
from marketfeed import __version__
from marketfeed.commands.bench.report import Report
from marketfeed.demo.embedded import NoServerFound, find_server
from marketfeed.runtime.file_limit import raise_file_limit, room_for_connections

__all__ = ["machine", "main", "versions"]

COMMAND = "make bench"
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
CHART = ROOT / "docs" / "images" / "benchmarks.svg"

_BEGIN, _END = "<!-- benchmarks -->\n", "<!-- end of benchmarks -->"
_QUICK_CLIENTS = 100
_QUICK_SECONDS = 0.5
_STEP_SECONDS = 4.0
"""Of each step, where clients are raised."""
_PACKAGES = ("Twisted", "autobahn", "txredisapi", "hiredis", "msgspec")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _arguments(argv)
    try:
        results = Results.load(RESULTS) if arguments.table_only else _measure(arguments)
    except (Failed, NoServerFound, OSError, msgspec.DecodeError) as fault:
        _say(f"benchmarks: {fault}")
        return 1
    except KeyboardInterrupt:
        _say("benchmarks: interrupted, and nothing is written")
        return 130
    if arguments.quick or arguments.only or arguments.server:
        sys.stdout.write(markdown(results))
        return 0
    if not arguments.table_only:
        results.save(RESULTS)
    CHART.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(markdown(results), encoding="utf-8")
    CHART.write_text(chart(results), encoding="utf-8")
    README.write_text(quoted(README.read_text(encoding="utf-8"), results), encoding="utf-8")
    _say(f"written: {PAGE.relative_to(ROOT)}, {CHART.relative_to(ROOT)}, the table in {README.relative_to(ROOT)}")
    return 0


def quoted(text: str, results: Results) -> str:
    """README's text with the table of these results between its marks."""
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    return f"{head}{begin}{quote(results)}{end}{tail}" if end else text


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure marketfeed and its peers.")
    parser.add_argument("--rounds", type=int, default=3, help="over all servers (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default: %(default)g)")
    keys = [workload.key for workload in WORKLOADS]
    parser.add_argument("--only", action="append", choices=keys, help="this workload; may be repeated; prints the page")
    servers = [server.key for server in SERVERS]
    parser.add_argument("--server", action="append", choices=servers, help="this server; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a glance: few clients, one short round; prints the page")
    parser.add_argument("--table-only", action="store_true", help="write the page and the chart anew from results.json")
    return parser.parse_args(argv)


def _measure(arguments: argparse.Namespace) -> Results:
    complaint = install_peers()
    if complaint is not None:
        _say(f"without the peers: {complaint}")
    servers = [server for server in SERVERS if not arguments.server or server.key in arguments.server]
    if complaint is not None:
        servers = [server for server in servers if server.script is None]
    workloads = [workload for workload in WORKLOADS if not arguments.only or workload.key in arguments.only]
    if not any(workload.has_compiled for workload in workloads):
        servers = [server for server in servers if not server.is_compiled]
    if any(server.is_compiled for server in servers):
        complaint = build_compiled()
        if complaint is not None:
            _say(f"without the compiled one: {complaint}")
            servers = [server for server in servers if not server.is_compiled]
    cores = Cores.found()
    rounds = 1 if arguments.quick else max(arguments.rounds, 1)
    seconds = _QUICK_SECONDS if arguments.quick else arguments.seconds
    order = list(_order(rounds, workloads, servers))
    with tempfile.TemporaryDirectory(prefix="marketfeed-bench-") as directory:
        stage = Stage(Path(directory), cores)
        runs = []
        with stage.redis():
            for done, (round_number, workload, server) in enumerate(order, 1):
                run = _one(stage, round_number, workload, server, seconds, is_quick=arguments.quick)
                runs.append(run)
                _say(f"{done}/{len(order)} {workload.key}, {server.title}: {_told(run.report, workload)}")
    return Results(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        command=COMMAND,
        machine=machine(),
        versions=versions(servers),
        seconds=seconds,
        rounds=rounds,
        pinned=cores.pinned,
        runs=runs,
    )


def _order(
    rounds: int, workloads: Sequence[Workload], servers: Sequence[Server]
) -> Iterator[tuple[int, Workload, Server]]:
    for workload in workloads:
        for round_number in range(1, rounds + 1):
            for server in servers:
                if workload.has_compiled or not server.is_compiled:
                    yield round_number, workload, server


def _one(stage: Stage, round_number: int, workload: Workload, server: Server, seconds: float, *, is_quick: bool) -> Run:
    warm_up = 0.2 if is_quick else 1.0
    clients, most = clients_of(workload), _most_clients()
    if is_quick:
        clients, most = min(clients, _QUICK_CLIENTS), _QUICK_CLIENTS
    if workload.climbs:
        seconds = min(seconds, _STEP_SECONDS)

    def measure(clients: int) -> Report:
        """Of a fresh server."""
        options = workload_options(workload, clients=clients, seconds=seconds, warm_up=warm_up)
        with stage.server(server, tls=workload.tls) as (pid, port):
            report = stage.load(port, pid, options, publishes=workload.publishes, tls=workload.tls)
        if workload.climbs:
            _say(f"  {clients} clients: {_told(report, workload)}")
        return report

    report = climb(measure, clients, most) if workload.climbs else measure(clients)
    return Run(workload.key, server.key, round_number, report)


def _most_clients() -> int:
    """What a server lets in that has as many files as this process, from the one address that clients have."""
    files, _ = room_for_connections(raise_file_limit())
    ports = [int(text) for text in _read("/proc/sys/net/ipv4/ip_local_port_range").split()]
    return min(files, ports[1] - ports[0]) if len(ports) == 2 else files


def _told(report: Report, workload: Workload) -> str:
    figures = [(FIGURES[key], FIGURES[key].read(report)) for key in workload.figures]
    shown = ", ".join(f"{figure.title} {number(value)}" for figure, value in figures if value is not None)
    return shown + ("" if report.is_faultless else "; NOT EVERYTHING ARRIVED IN ORDER")


def machine() -> dict[str, str]:
    """What it is measured on."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    release = re.match(r"[\d.]+\d", platform.release())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "Processor": f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores",
        "Memory": f"{memory:.0f} GiB",
        "System": f"{platform.system()} {release[0] if release else ''}".strip(),
    }


def versions(servers: Sequence[Server]) -> dict[str, str]:
    """Of everything that is measured, and of what it is made of."""
    found = {OURS: __version__, platform.python_implementation(): platform.python_version()}
    found |= {package: metadata.version(package) for package in _PACKAGES}
    banner = _output(find_server(), "--version")
    version = re.search(r"v=(\S+)", banner)
    found["Redis-compatible server"] = f"{banner.split(' ')[0]} {version[1] if version else ''}".strip()
    if any(server.script is not None for server in servers):
        found["Node"] = _output(shutil.which("node") or "node", "--version").strip().removeprefix("v")
        manifest = msgspec.json.decode((PEERS / "package.json").read_bytes())
        found |= {f"{package} (npm)": text for package, text in manifest["dependencies"].items()}
    return found


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
