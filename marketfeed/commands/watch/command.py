"""`marketfeed watch`: the live messages of some streams, on the terminal or, for other programs, as they come.

1. On stdout are messages and nothing else. What the watching itself has to say is on stderr.
2. Each line is flushed. When nobody reads stdout any more the watching is over, without a complaint.
3. The exit status is 0 for whoever ended it, 1 when the server refuses, 2 for a command line that cannot be used.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import Thread
from typing import Any, BinaryIO, TextIO
from urllib.parse import urlsplit

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogBeginner
from zope.interface import implementer

from marketfeed.commands.address import ServerAddress, check_token, parse_url
from marketfeed.commands.arguments import settle_stdout
from marketfeed.commands.messages import Event, Message, Publication
from marketfeed.commands.running import wake_for_signals
from marketfeed.commands.watch.display import show_event, show_publication
from marketfeed.commands.watch.ladder import Ladders
from marketfeed.model.kinds.columns import clean

__all__ = ["TextScreen", "add_parser", "run"]

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `watch` to the commands."""
    parser = subparsers.add_parser(
        "watch",
        help="show the live messages of some streams",
        description="Show the live messages of some streams, until Ctrl-C. A lost connection is made again.",
    )
    parser.add_argument("url", metavar="URL", help="of the server, such as ws://localhost:8080 or wss://host/stream")
    parser.add_argument("streams", metavar="STREAM", nargs="+", help="such as trade@TATA_INR")
    parser.add_argument("--token", metavar="TOKEN", help="to show to a server with --auth; see `marketfeed token`")
    parser.add_argument("--json", action="store_true", help="print each message as it was received, one a line")
    parser.add_argument("--no-color", action="store_true", help="no colours, as with the variable NO_COLOR")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Watch until SIGINT or SIGTERM, or until the server refuses; returns the exit status."""
    address, token = parse_url(arguments.url), check_token(arguments.token)
    is_terminal, colour = sys.stdout.isatty(), not arguments.no_color and wants_colour(os.environ)
    try:
        screen = TextScreen(
            sys.stdout.buffer,
            sys.stderr,
            encoding=sys.stdout.encoding,
            json=arguments.json,
            is_terminal=is_terminal,
            colour=colour,
            ladders=_ladders(colour=colour) if is_terminal and os.environ.get("TERM", "dumb") != "dumb" else None,
        )
        return _watch(address, token, list(dict.fromkeys(arguments.streams)), screen)
    except KeyboardInterrupt:  # before the signal had its handler
        return 0
    finally:
        settle_stdout()


@dataclass(frozen=True)
class TextScreen:
    """Shows messages on `out` and notes on `err`.

    `json`: messages as they came, in one line each, for which a line break in one becomes a blank. A terminal gets
    neither control characters nor, unless `colour`, colours. `ladders`: of a terminal that can be redrawn; without
    them, and for JSON, every publication is a line.
    """

    out: BinaryIO
    err: TextIO
    encoding: str = "utf-8"
    json: bool = False
    is_terminal: bool = False
    colour: bool = False
    now: Callable[[], float] = time.time
    ladders: Ladders | None = field(default=None)

    def message(self, payload: bytes, message: Message) -> None:
        """Raises OSError, such as BrokenPipeError when nobody reads `out`."""
        received = datetime.fromtimestamp(self.now()).astimezone()
        if self.json and not self.is_terminal:
            self._write(payload.translate(_LINE_BREAKS))
        elif self.json:
            self._write_text(clean(payload.translate(_LINE_BREAKS).decode("utf-8", "replace"), len(payload)))
        elif isinstance(message, Publication):
            if self.ladders is not None and self.ladders.take(message, f"{received:%H:%M:%S}"):
                self._draw(self.ladders.draw())
                return
            for each in message.each:
                self._write_text(show_publication(each, received, colour=self.colour and self.is_terminal))
        elif isinstance(message, Event):
            assert received.tzinfo is not None
            self.note(show_event(message, received.tzinfo))

    def note(self, line: str) -> None:
        with suppress(OSError):  # nobody reads them
            if self.ladders is not None:
                self._draw(self.ladders.erase())
            print(line, file=self.err, flush=True)
            if self.ladders is not None:
                self._draw(self.ladders.draw())

    def _write_text(self, line: str) -> None:
        if self.ladders is None:
            self._write(line.encode(self.encoding, "backslashreplace"))
        else:
            self._draw(f"{self.ladders.erase()}{line}\n{self.ladders.draw()}")

    def _draw(self, text: str) -> None:
        if text:
            self.out.write(text.encode(self.encoding, "backslashreplace"))
            self.out.flush()

    def _write(self, line: bytes) -> None:
        self.out.write(line + b"\n")
        self.out.flush()


def wants_colour(environment: Mapping[str, str]) -> bool:
    """What the environment says about colours (https://no-color.org)."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _ladders(*, colour: bool) -> Ladders:
    def size() -> tuple[int, int]:
        found = shutil.get_terminal_size()
        return found.columns, found.lines

    try:
        "\N{FULL BLOCK}".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return Ladders(size, colour=colour)
    return Ladders(size, block="\N{FULL BLOCK}", colour=colour)


def _watch(address: ServerAddress, token: str | None, streams: list[str], screen: TextScreen) -> int:
    from twisted.internet import reactor as the_reactor

    from marketfeed.commands.watch.connection import dial
    from marketfeed.commands.watch.watcher import Backoff, Watcher

    reactor: Any = the_reactor
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        reactor.crash()  # `stop` would wait for a name that is being resolved, in a thread

    def interrupt(number: int, frame: object) -> None:
        reactor.callFromThread(watcher.stop)

    watcher = Watcher(
        reactor,
        lambda it: dial(reactor, address, it, token=token),
        screen,
        address.shown,
        streams,
        Backoff(),
        asks_for_events=urlsplit(address.resource).path != "/",
    )
    globalLogBeginner.beginLoggingTo([_ErrorNotes(screen)], redirectStandardIO=False, discardBuffer=True)
    reactor.getThreadPool().threadFactory = partial(Thread, daemon=True)  # for the same reason
    wake_for_signals(reactor)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    reactor.callWhenRunning(lambda: watcher.start().addCallback(end))
    reactor.run(installSignalHandlers=False)
    return statuses[0]


@implementer(ILogObserver)
class _ErrorNotes:
    """Shows what was logged about a fault of our own."""

    def __init__(self, screen: TextScreen) -> None:
        self._screen = screen

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical:
            for line in eventAsText(event).splitlines():
                self._screen.note(clean(line))
