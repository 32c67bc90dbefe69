"""The command line: `marketfeed watch`, `simulate`, `record`, `replay`, `bridge`, `bench` and `token`.

The daemon has its own: `twistd marketfeed`.

A command is a module with `add_parser`, which sets `run` as the parser's default. Nothing heavy, and no reactor, is
imported before a command runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from marketfeed import __version__
from marketfeed.commands import bridge, simulate, token
from marketfeed.commands.bench.bench import add_parser as add_bench
from marketfeed.commands.recording.record import add_parser as add_record
from marketfeed.commands.recording.replay import add_parser as add_replay
from marketfeed.commands.watch.watch import add_parser as add_watch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; None means the process's own arguments. Returns the exit status.

    Raises SystemExit where argparse does: for a usage error with status 2, for --help and --version with 0.
    """
    parser = argparse.ArgumentParser(
        prog="marketfeed",
        description="Live market data over WebSocket.",
        epilog="The daemon is started with: twistd -n marketfeed (its options: twistd marketfeed --help)",
    )
    parser.add_argument("--version", action="version", version=f"marketfeed {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_watch(subparsers)
    simulate.add_parser(subparsers)
    add_record(subparsers)
    add_replay(subparsers)
    bridge.add_parser(subparsers)
    add_bench(subparsers)
    token.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    if "run" not in arguments:
        parser.print_help(sys.stderr)
        return 2
    status: int = arguments.run(arguments)
    return status
