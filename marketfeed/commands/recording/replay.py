"""`marketfeed replay`: recorded publications, byte for byte, to a Redis server again.

1. The exit status is 0 for a replay that is over and for whoever ended it, 1 when a file cannot be read or the server
   does not take what it holds, 2 for a command line that cannot be used.
2. Everything that it has to say is on stderr: a line about each odd file, counts at the end.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from marketfeed.commands.arguments import number
from marketfeed.commands.recording.files import BadRecording, Place, check, recorded
from marketfeed.commands.recording.format import Publication, Record
from marketfeed.commands.recording.player import Pace, Player
from marketfeed.commands.redis_options import add_redis_options, check_redis_files, redis_settings
from marketfeed.config.settings import BadSetting, Settings
from marketfeed.model.selection import BadSelection, StreamSelection, parse_selection
from marketfeed.model.streams import StreamKinds

if TYPE_CHECKING:
    from marketfeed.commands.recording.publisher import ReplayPublisher

__all__ = ["add_parser", "run"]

_MOST_SPEED = 1e6
_CLEAR = "\r\x1b[K"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay` to the commands."""
    parser = subparsers.add_parser(
        "replay",
        help="publish again what was recorded",
        description="Publish what marketfeed record has recorded to a Redis server, in order and byte for byte, at the "
        "pace at which it was recorded. Without --redis-url the server is the daemon's: REDIS_URL, or REDIS_HOST and "
        "REDIS_PORT.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="in this order, compressed or not; - for stdin")
    add_redis_options(parser)
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--speed", metavar="N", default="1", help="so many times as fast as recorded, such as 10 or 0.5")
    pace.add_argument("--fast", action="store_true", help="as fast as the server takes it")
    parser.add_argument("--max-pause", metavar="SECONDS", help="make longer pauses of the recording this short")
    parser.add_argument(
        "--streams",
        metavar="PATTERN",
        action="append",
        help="only these, such as trade@TATA_INR or 'depth@*'; may be repeated (default: all)",
    )
    parser.add_argument("--loop", action="store_true", help="begin again at the end, until Ctrl-C")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay until the end, or until SIGINT or SIGTERM; returns the exit status."""
    settings = redis_settings(arguments)
    selection = _selection(arguments.streams, settings)
    pace = _pace(arguments)
    if arguments.loop and "-" in arguments.files:
        raise BadSetting("--loop: expected with files; standard input can be read once")
    check_redis_files(settings)
    for warning in settings.warnings:
        print(warning, file=sys.stderr)
    _heed_signals()
    try:
        return _replay(arguments, settings, selection, pace)
    except KeyboardInterrupt:  # before there was anything to count
        return 0


def _heed_signals() -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _replay(
    arguments: argparse.Namespace, settings: Settings, selection: StreamSelection | None, pace: Pace | None
) -> int:
    from marketfeed.commands.recording.publisher import ReplayPublisher
    from marketfeed.commands.redis_link import RedisFault
    from marketfeed.commands.redis_links import find_links

    notes = _Notes()
    try:
        check(arguments.files)
        links = find_links(settings)
        _heed_signals()
    except (BadRecording, RedisFault) as error:
        notes.line(str(error))
        return 1
    publisher = ReplayPublisher(links)
    prefix = settings.channel_prefix.encode()
    player = Player(
        publisher, pace, prefix=prefix, selection=selection, tell=lambda: notes.progress(_counts(player, publisher))
    )
    records = _again_and_again(arguments.files, notes) if arguments.loop else recorded(arguments.files, notes.line)
    began = time.monotonic()
    how = ""
    try:
        player.play(records)
    except KeyboardInterrupt:
        how = "interrupted: "
    except (BadRecording, RedisFault) as error:
        notes.line(str(error))
        how = "ended early: "
    finally:
        links.close()
    late = f", at most {player.latest:.1f} s late" if player.latest >= 1 else ""
    notes.line(f"{how}{_counts(player, publisher)} in {time.monotonic() - began:.1f} s{late}")
    return 1 if how == "ended early: " else 0


def _again_and_again(paths: list[str], notes: _Notes) -> Iterator[tuple[Place, Record]]:
    """The recordings without end, unless there is no publication in them. What is odd is said once."""
    warn: Callable[[str], None] = notes.line
    while True:
        is_empty = True
        for place, record in recorded(paths, warn):
            is_empty = is_empty and not isinstance(record, Publication)
            yield place, record
        if is_empty:
            return
        warn = _ignore


def _ignore(line: str) -> None:
    pass


class _Notes:
    """Lines on stderr, and where that is a terminal one line of progress below them."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()

    def line(self, text: str) -> None:
        self._write(f"{_CLEAR if self._is_terminal else ''}marketfeed replay: {text}\n")

    def progress(self, text: str) -> None:
        if self._is_terminal:
            self._write(f"{_CLEAR}{text}")

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError):  # nobody reads them
            sys.stderr.write(text)
            sys.stderr.flush()


def _counts(player: Player, publisher: ReplayPublisher) -> str:
    unheard = f", {publisher.unheard} of them to nobody" if publisher.unheard else ""
    unanswered = f", {publisher.in_flight} not answered" if publisher.in_flight else ""
    gaps = f"; {player.gaps} gap{'s' * (player.gaps != 1)} in the recording" if player.gaps else ""
    return f"{player.published} publications of {player.payload_bytes} bytes{unheard}{unanswered}{gaps}"


# Options.


def _selection(patterns: list[str] | None, settings: Settings) -> StreamSelection | None:
    try:
        return None if patterns is None else parse_selection(patterns, StreamKinds(settings.all_kinds))
    except BadSelection as error:
        raise BadSetting(f"--streams: {error}") from None


def _pace(arguments: argparse.Namespace) -> Pace | None:
    longest, pauses = math.inf, f"a number of seconds, 0 to {_MOST_SPEED:g}"
    if arguments.max_pause is not None:
        longest = number("--max-pause", arguments.max_pause, 0, _MOST_SPEED, pauses)
    least = 1 / _MOST_SPEED
    speed = number("--speed", arguments.speed, least, _MOST_SPEED, f"a number of times, {least:g} to {_MOST_SPEED:g}")
    return None if arguments.fast else Pace(speed, longest)
