"""`marketfeed check`: listens to an engine for a minute, or reads recordings, and says what can be made of it.

1. On stdout is the report and nothing else, once, at the end; Ctrl-C brings it sooner.
2. The exit status is 0 where all that was heard is good, 1 where there is a fault or nothing was heard, 2 where it
   could not be looked: a bad command line, a server that is out of reach or refuses, a file that cannot be read.
3. Nothing is written to Redis.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from marketfeed.commands.arguments import note, number, settle_stdout
from marketfeed.commands.check.examination import Examination
from marketfeed.commands.check.report import as_json, lines, status, width
from marketfeed.commands.recording.files import BadRecording, check, recorded
from marketfeed.commands.recording.format import Gap, Publication
from marketfeed.commands.redis_options import add_redis_options, check_channels, redis_settings, where_redis_is
from marketfeed.commands.running import end, run_until_ended
from marketfeed.config.settings import Settings
from marketfeed.model.selection import StreamSelection, parse_selection
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.logs import log_to_stderr

if TYPE_CHECKING:
    from twisted.application.service import IService

__all__ = ["add_parser", "run"]

FIND_SECONDS = 10.0
"""For how long it is waited until everything is subscribed."""
STATE_SECONDS = 5.0
_MOST_SECONDS = 86_400.0
_CANNOT_LOOK = 2


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `check` to the commands."""
    parser = subparsers.add_parser(
        "check",
        help="say what an engine publishes, what can be made of it, and what is missing for the rest",
        description="Listen to an engine for a minute and say what it publishes, what can be made of that, what is "
        "missing for the rest, and what is wrong, with examples. Without --redis-url the server is the daemon's: "
        "REDIS_URL, or REDIS_HOST and REDIS_PORT. Put patterns into quotes, or the shell reads them.",
    )
    parser.add_argument(
        "patterns",
        metavar="PATTERN",
        nargs="*",
        help="which streams, such as trade@TATA_INR or 'depth@*' (default: all, which a cluster's sharded channels "
        "do not permit)",
    )
    parser.add_argument("--seconds", metavar="N", default="60", help="how long to listen (default: %(default)s)")
    parser.add_argument(
        "--source",
        choices=("pubsub", "streams"),
        default="pubsub",
        help="whether the engine publishes on channels, or adds to Redis Streams (default: %(default)s)",
    )
    parser.add_argument(
        "--recording",
        metavar="FILE",
        action="append",
        help="read this, which marketfeed record has written, instead of listening; may be given several times; - is "
        "standard input",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    parser.add_argument("--no-color", action="store_true", help="no colours, as with the variable NO_COLOR")
    add_redis_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, and report; returns the exit status."""
    settings = redis_settings(arguments)
    selection = parse_selection(arguments.patterns or ["*"], StreamKinds(settings.all_kinds))
    seconds = number("--seconds", arguments.seconds, 0.1, _MOST_SECONDS)
    if arguments.recording:
        examination = Examination(settings.all_kinds, settings.channel_prefix, settings.max_payload)
        found = _read(arguments.recording, selection, examination)
    else:
        on_streams = arguments.source == "streams"
        if not on_streams:
            check_channels(settings, selection)
        examination = Examination(
            settings.all_kinds, settings.channel_prefix, settings.max_payload, on_streams=on_streams
        )
        found = _listen(settings, selection, seconds, examination, on_streams=on_streams)
    if found is None:
        return _CANNOT_LOOK
    examination.finish()
    _report(arguments, examination, *found)
    return status(examination)


_Found = tuple[str, float]
"""What was looked at, and for how many seconds."""


def _report(arguments: argparse.Namespace, examination: Examination, source: str, seconds: float) -> None:
    if arguments.json:
        text = as_json(examination, source, seconds) + b"\n"
    else:
        colour = sys.stdout.isatty() and not arguments.no_color and not os.environ.get("NO_COLOR")
        colour = colour and os.environ.get("TERM") != "dumb"
        shown = lines(examination, source, seconds, columns=width(), colour=colour)
        text = "".join(f"{line}\n" for line in shown).encode(sys.stdout.encoding, "backslashreplace")
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    except OSError:  # nobody reads it
        settle_stdout()


def _read(paths: list[str], selection: StreamSelection, examination: Examination) -> _Found | None:
    """Let recordings be judged."""
    first = last = 0
    try:
        check(paths)
        for _, record in recorded(paths, lambda line: note("check", line)):
            first, last = first or record.time, max(last, record.time)
            if isinstance(record, Publication) and selection.first(record.stream) is not None:
                examination.take(record.time, record.stream, record.data)
            elif isinstance(record, Gap):
                examination.lose()
    except BadRecording as fault:
        note("check", str(fault))
        return None
    except KeyboardInterrupt:  # what was read until then is judged
        pass
    return ", ".join("standard input" if path == "-" else path for path in paths), (last - first) / 1e6


def _listen(
    settings: Settings, selection: StreamSelection, seconds: float, examination: Examination, *, on_streams: bool
) -> _Found | None:
    """Let what is published be judged."""
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    listening = _Listening(reactor, settings, selection, seconds, examination, on_streams=on_streams)
    log_to_stderr(reactor, settings.log_format, "warn" if settings.log_level == "info" else settings.log_level)
    run_until_ended(reactor, listening.start, listening.stop)
    if listening.fault:
        note("check", listening.fault)
        return None
    return f"{settings.redis}, {'Redis Streams' if on_streams else 'channels'}", listening.took


def _say_it_comes() -> None:
    note("check", "the first publication is here")


class _Listening:
    """From the first connection to the last answer. `fault`: why nothing could be heard, if that is so."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        selection: StreamSelection,
        seconds: float,
        examination: Examination,
        *,
        on_streams: bool,
    ) -> None:
        from marketfeed.commands.check.listening import (
            ChannelsHeard,
            StreamsHeard,
            listen_to_channels,
            listen_to_streams,
        )
        from marketfeed.redis.routed_commands import RoutedCommands

        self._reactor = reactor
        self._settings = settings
        self._selection = selection
        self._seconds = seconds
        self._examination = examination
        self._until: Any = None
        self._began_at: float | None = None
        self.took = 0.0
        self.fault = ""
        prefix = settings.channel_prefix
        where = where_redis_is(reactor, settings)
        self._commands = RoutedCommands(reactor, where.keys)
        self._heard: ChannelsHeard | None = None
        if on_streams:
            sink = StreamsHeard(examination, self._begin, _say_it_comes)
            listeners = listen_to_streams(reactor, where, selection, prefix, sink, self._commands)
        else:
            self._heard = ChannelsHeard(
                selection, prefix.encode(), examination, self._begin, _say_it_comes, self._give_up
            )
            listeners = listen_to_channels(reactor, where, selection, prefix, self._heard)
        self._listeners = listeners
        self._services: list[IService] = [*where.services, self._commands, *listeners]

    def start(self) -> None:
        texts = ", ".join(self._selection.texts)
        note("check", f"listening to {texts} on {self._settings.redis} for {self._seconds:g} s, or until Ctrl-C")
        self._until = self._reactor.callLater(FIND_SECONDS, self._give_up)
        for service in self._services:
            service.startService()

    def _begin(self) -> None:
        if self._began_at is None:
            self._began_at = time.monotonic()
            self._until.cancel()
            self._until = self._reactor.callLater(self._seconds, end, self._reactor)

    def _give_up(self) -> None:
        from marketfeed.redis.link_keeper import links_in

        if self._heard is not None and self._heard.fault:
            self.fault = self._heard.fault
        else:
            causes = [link.cause for link in links_in(self._services) if link.cause]
            self.fault = f"cannot listen to {self._settings.redis}: {causes[0] if causes else 'no answer'}"
        end(self._reactor)

    async def stop(self) -> None:
        from twisted.internet.defer import maybeDeferred

        from marketfeed.commands.check.listening import read_states

        if self._until.active():
            self._until.cancel()
        if self._began_at is not None:
            self.took = time.monotonic() - self._began_at
        elif not self.fault:
            self.fault = "ended before anything could be heard"
        for listener in reversed(self._listeners):
            await maybeDeferred(listener.stopService)
        if not self.fault:
            reading = read_states(
                self._reactor, self._settings, self._commands, self._examination, on_streams=self._heard is None
            )
            await reading.addTimeout(STATE_SECONDS, self._reactor, onTimeoutCancel=lambda *_: None)
        for service in reversed(self._services[: -len(self._listeners)]):
            await maybeDeferred(service.stopService)
