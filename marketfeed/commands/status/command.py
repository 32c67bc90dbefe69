"""`marketfeed status`: what a daemon says of itself, for who looks at it, and for what watches over it.

1. The exit status is 0 when the daemon is healthy, 1 when it is not, 2 when it does not answer, and for a command line
   that cannot be used. With --watch it is that of the last answer.
2. --watch goes on until it is told to end, whatever becomes of the daemon: one that comes back is shown again.
3. A terminal gets no control characters but those that put the picture in its place.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from textwrap import wrap
from typing import BinaryIO

from marketfeed.commands.arguments import note, settle_stdout
from marketfeed.commands.status.asking import DEFAULT_URL, NoAnswer, ask, parse_place, read_token, shown
from marketfeed.commands.status.display import Picture, read_status
from marketfeed.model.kinds.columns import clean

__all__ = ["Look", "Screen", "add_parser", "run"]

_EVERY = 1.0
_CLEAR, _HOME, _END_OF_LINE, _BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `status` to the commands."""
    parser = subparsers.add_parser(
        "status",
        help="say whether a daemon is well, and what is wrong",
        description="Ask a daemon's admin port how it is. The exit status is 0: healthy, 1: not, 2: no answer.",
    )
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        default=DEFAULT_URL,
        help="of the daemon's --admin: http://host:port, https://host:port or unix:/path (default: %(default)s)",
    )
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print the daemon's answer as it came")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="with the token of a daemon on another host, its --admin-token-file "
        "(default: the variable MARKETFEED_ADMIN_TOKEN_FILE)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask once, or until Ctrl-C; returns the exit status."""
    place = parse_place(arguments.url)
    token = read_token(arguments.token_file or os.environ.get("MARKETFEED_ADMIN_TOKEN_FILE") or None)
    screen = Screen(
        sys.stdout.buffer,
        encoding=sys.stdout.encoding,
        is_terminal=sys.stdout.isatty(),
        watch=arguments.watch,
        json=arguments.json,
    )
    look = Look(partial(ask, place, token), screen, shown(place))
    try:
        look()
        while arguments.watch:
            time.sleep(_EVERY)
            look()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        settle_stdout()
    return look.status


class Look:
    """Looks at a daemon once, each time that it is called. `ask`: for an answer with the samples behind this one;
    `where`: that is. `status`: the exit status, as of the last time.
    """

    def __init__(self, ask: Callable[[int], bytes], screen: Screen, where: str) -> None:
        self._ask = ask
        self._screen = screen
        self._where = where
        self._picture = Picture()
        self._answered: datetime | None = None
        self._lines: list[str] = []
        self.status = 2

    def __call__(self) -> None:
        """Raises BrokenPipeError when nobody reads what is shown."""
        try:
            body = self._ask(self._picture.seq)
            status = read_status(body)
        except NoAnswer as fault:
            self.status = 2
            self._screen.fault(clean(f"{self._where}: {fault}"), self._before())
            return
        self.status = 0 if status.healthy else 1
        self._answered = datetime.now(UTC)
        self._lines = list(self._picture.lines(status))
        self._screen.answer(body, self._lines)

    def _before(self) -> list[str]:
        if self._answered is None:
            return []
        return ["", f"The last answer, of {self._answered:%H:%M:%S} UTC:", "", *self._lines]


@dataclass
class Screen:
    """Shows answers on `out`, and says on stderr why there is none. `watch`: in place, if it is a terminal."""

    out: BinaryIO
    encoding: str = "utf-8"
    is_terminal: bool = False
    watch: bool = False
    json: bool = False
    is_begun: bool = field(default=False, init=False)

    def answer(self, body: bytes, lines: list[str]) -> None:
        """What the daemon said, as it came and as lines, of which the first may be long."""
        if self.json and self.is_terminal:
            self._write(clean(body.decode("utf-8", "replace"), len(body)) + "\n")
        elif self.json:
            self._write_bytes(body + b"\n")
        elif self._is_in_place:
            self._draw(lines)
        else:
            self._write("\n" * self.is_begun + "".join(f"{line}\n" for line in lines))

    def fault(self, line: str, before: list[str]) -> None:
        """Why there is no answer; `before`: lines about what there was."""
        if self._is_in_place:
            self._draw([line, *before])
        else:
            note("status", line)

    @property
    def _is_in_place(self) -> bool:
        return self.watch and self.is_terminal and not self.json

    def _draw(self, lines: list[str]) -> None:
        """As much as there is room for: what is below the last row would move the picture."""
        columns, rows = shutil.get_terminal_size()
        shown = [*wrap(lines[0], columns), *(line[:columns] for line in lines[1:])][: rows - 1]
        text = "".join(f"{line}{_END_OF_LINE}\n" for line in shown)
        self._write(f"{'' if self.is_begun else _CLEAR}{_HOME}{text}{_BELOW}")

    def _write(self, text: str) -> None:
        self._write_bytes(text.encode(self.encoding, "backslashreplace"))

    def _write_bytes(self, data: bytes) -> None:
        self.out.write(data)
        self.out.flush()
        self.is_begun = True
