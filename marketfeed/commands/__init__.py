"""The command line: `marketfeed watch`, `check`, `simulate`, `record` and the others.

The daemon has its own: `twistd marketfeed`.

A command is a module with `add_parser`, which sets `run` as the parser's default. That returns the exit status, or
raises `BadSetting` or `BadSelection`, which become one line and status 2. Nothing heavy, and no reactor, is
imported before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from marketfeed import __version__
from marketfeed.commands import bridge, candles, simulate, token
from marketfeed.commands.arguments import note
from marketfeed.commands.bench import command as bench_command
from marketfeed.commands.check import command as check_command
from marketfeed.commands.recording import record, replay
from marketfeed.commands.status import command as status_command
from marketfeed.commands.watch import command as watch_command
from marketfeed.config.settings import BadSetting
from marketfeed.model.kinds.columns import clean
from marketfeed.model.selection import BadSelection

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
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in (
        watch_command,
        check_command,
        simulate,
        record,
        replay,
        bridge,
        candles,
        bench_command,
        token,
        status_command,
    ):
        command.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    if "run" not in arguments:
        parser.print_help(sys.stderr)
        return 2
    try:
        status: int = arguments.run(arguments)
    except (BadSetting, BadSelection) as error:
        note(arguments.command, clean(str(error)))
        return 2
    return status
