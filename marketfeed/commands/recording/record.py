"""`marketfeed record`: what is published on some streams, into a file or a row of files, until it is interrupted.

1. On stdout is the recording and nothing else. What the recording itself has to say is on stderr, counts at the end.
2. The exit status is 0 for whoever ended it, the reader of stdout included, 1 when the output cannot be written or
   the server refuses a subscription, 2 for a command line that cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from marketfeed.commands.arguments import cannot_be_used, note, whole_number
from marketfeed.commands.recording.output import BadOutput, FileNames, OutputFile
from marketfeed.commands.recording.recorder import Moments, Recorder, Rotation
from marketfeed.commands.redis_options import add_redis_options, check_channels, redis_settings, where_redis_is
from marketfeed.commands.running import end, run_until_ended
from marketfeed.config.settings import BadSetting, Settings
from marketfeed.model.selection import StreamSelection, parse_selection
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.logs import log_to_stderr
from marketfeed.runtime.memory import parse_memory_limit

if TYPE_CHECKING:
    from twisted.application.service import IService

__all__ = ["add_parser", "run"]

FLUSH_SECONDS = 1.0
_MOST_SECONDS = 366 * 86400
_STDOUT = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `record` to the commands."""
    parser = subparsers.add_parser(
        "record",
        help="record what is published on some streams",
        description="Record what is published on some streams, byte for byte and with its time, until Ctrl-C. Without "
        "--redis-url the server is the daemon's: REDIS_URL, or REDIS_HOST and REDIS_PORT. A lost connection is made "
        "again, and the recording says what it may have missed. Put patterns into quotes, or the shell reads them.",
    )
    parser.add_argument("patterns", metavar="PATTERN", nargs="+", help="such as trade@TATA_INR, 'depth@*' or '*'")
    add_redis_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        metavar="NAME",
        help="a directory, or the name of a file, compressed if it ends in .gz; in it %%Y %%m %%d %%H %%M %%S stand "
        "for the time at which the file begins, in UTC (default: standard output)",
    )
    output.add_argument("--rotate-size", metavar="SIZE", help="begin another file at this size, such as 100MiB")
    output.add_argument(
        "--rotate-seconds", metavar="N", help="begin another file every N seconds, such as 3600: on every full hour"
    )
    output.add_argument(
        "--gzip",
        action=argparse.BooleanOptionalAction,
        help="compress standard output, or not (default: unless it is a terminal)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record until SIGINT or SIGTERM; returns the exit status."""
    settings = redis_settings(arguments)
    selection = parse_selection(arguments.patterns, StreamKinds(settings.all_kinds))
    check_channels(settings, selection)
    rotation = _rotation(arguments)
    new_file = _files(arguments)
    for warning in settings.warnings:
        print(warning, file=sys.stderr)
    return _record(settings, selection, rotation, new_file)


def _record(
    settings: Settings, selection: StreamSelection, rotation: Rotation, new_file: Callable[[int], OutputFile]
) -> int:
    from twisted.internet import reactor as the_reactor
    from twisted.internet.defer import maybeDeferred
    from twisted.internet.task import LoopingCall

    from marketfeed.redis.routed_listener import make_listener

    reactor: Any = the_reactor
    where = where_redis_is(reactor, settings)
    prefix = settings.channel_prefix.encode()
    moments = Moments()
    try:
        recorder = Recorder(selection, prefix, new_file, rotation, moments, lambda: end(reactor))
    except OSError as error:
        raise BadSetting(f"--output: {error.filename}: {error.strerror}") from None
    commands = selection.commands(prefix)
    listener = make_listener(
        reactor, where.channels, commands, recorder, lambda: moments.now() / 1e6, is_sharded=where.is_sharded
    )
    services: list[IService] = [*where.services, listener]
    log_to_stderr(reactor, settings.log_format, settings.log_level)
    flushing = LoopingCall(recorder.tick)
    flushing.clock = reactor
    began = time.monotonic()

    def start() -> None:
        note("record", f"recording {', '.join(selection.texts)} from {settings.redis}, until Ctrl-C")
        for each in services:
            each.startService()
        flushing.start(FLUSH_SECONDS, now=False)

    async def stop() -> None:
        flushing.stop()
        for service in reversed(services):
            await maybeDeferred(service.stopService)
        recorder.close()

    run_until_ended(reactor, start, stop)
    if recorder.fault:
        note("record", recorder.fault)
        return 1
    note("record", _counts(recorder, time.monotonic() - began))
    return 0


def _counts(recorder: Recorder, seconds: float) -> str:
    files = f"{recorder.files} file{'s' * (recorder.files != 1)}"
    gaps = f"{recorder.gaps or 'no'} gap{'s' * (recorder.gaps != 1)}"
    return (
        f"{recorder.publications} publications of {recorder.payload_bytes} bytes in {seconds:.1f} s, {gaps}; "
        f"{recorder.written} bytes in {files}"
    )


# Options.


def _rotation(arguments: argparse.Namespace) -> Rotation:
    size, seconds = 0, 0
    if arguments.rotate_size is not None:
        with suppress(ValueError):
            size = parse_memory_limit(arguments.rotate_size).size
        if not size:
            raise cannot_be_used("--rotate-size", arguments.rotate_size, "a size from 1MiB up, such as 100MiB or 2GiB")
    if arguments.rotate_seconds is not None:
        accepted = f"a whole number of seconds from 1 to {_MOST_SECONDS}"
        seconds = whole_number("--rotate-seconds", arguments.rotate_seconds, 1, _MOST_SECONDS, accepted)
    return Rotation(size, seconds)


def _files(arguments: argparse.Namespace) -> Callable[[int], OutputFile]:
    """What opens the files. Raises `BadSetting`."""
    rotates = arguments.rotate_size is not None or arguments.rotate_seconds is not None
    if arguments.output is None:
        if rotates:
            raise BadSetting("--rotate-size and --rotate-seconds: expected together with --output")
        is_packed = not os.isatty(_STDOUT) if arguments.gzip is None else arguments.gzip
        return lambda now: OutputFile(_STDOUT, "standard output", is_packed=is_packed, owned=False)
    if arguments.gzip is not None:
        raise BadSetting("--gzip and --no-gzip: expected for standard output; a file is compressed if it ends in .gz")
    try:
        names = FileNames(arguments.output)
    except BadOutput as error:
        raise BadSetting(f"--output: {error}") from None
    if rotates and not names.is_many:
        raise cannot_be_used(
            "--output", arguments.output, "a directory, or a name with a time such as %Y%m%dT%H%M%S, for many files"
        )
    return names.open
