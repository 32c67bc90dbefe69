"""Where log events go: text for people, one JSON object a line for machines, filtered by level.

1. Every event of ours carries its facts as fields (`client`, `peer`, `stream`, …); both formats are made from them.
2. What one turn of the reactor logs is written at its end, in one call: the writing of one line by itself would cost
   as much as all else that a client's arrival does. Before the reactor runs, and after, a line is written at once.
3. Lines that cannot be written, for the disk is full or nobody reads the pipe any more, are counted and lost. It is
   tried again once a second; the first line that gets through says how many there were, and why.
4. At SIGUSR1 a log file is opened again by its name, which may be another file by then: one of the same mode, if it is
   not there yet. One that cannot be opened leaves the log where it was.
5. What goes to journald has its priority before each line, as sd-daemon(3) has it; journald takes it off again.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time
from typing import Any, ClassVar, Protocol, TextIO

import msgspec
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText, formatEvent, globalLogBeginner
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

__all__ = ["Log", "LogOutput", "Out", "facts", "is_silent", "log_to_stderr", "make_observer", "message"]

_REST_SECONDS = 1.0
_PRIORITIES = {
    LogLevel.debug: "<7>",
    LogLevel.info: "<6>",
    LogLevel.warn: "<4>",
    LogLevel.error: "<3>",
    LogLevel.critical: "<2>",
}


class Log(Logger):
    """Twisted's `Logger`, in a third of the time: it looks for neither a wrong level nor a trace of itself.

    Every client that comes and goes is worth some lines, and they are to cost little beside what it costs itself.
    """

    debugging: ClassVar[bool] = True
    """Whether anybody hears what is of use for debugging only; it is not even composed otherwise."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.namespace = f"{owner.__module__}.{owner.__name__}"

    def __get__(self, instance: object, owner: type | None = None) -> Log:
        """Twisted's makes another logger each time that one is asked for, which takes longer than to log."""
        return self

    def emit(self, level: Any, format: str | None = None, **fields: object) -> None:
        fields["log_logger"] = self
        fields["log_level"] = level
        fields["log_namespace"] = self.namespace
        fields["log_source"] = self.source
        fields["log_format"] = format
        fields["log_time"] = time()
        self.observer(fields)

    def debug(self, format: str | None = None, **fields: object) -> None:
        if Log.debugging:
            self.emit(LogLevel.debug, format, **fields)


class _File(Protocol):
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class _LogFile:
    """A file that is written to at its end, wherever that is by then, and keeps nothing back."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # the process may go elsewhere
        self._number = self._open(0o666)

    def _open(self, mode: int) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)

    def write(self, text: str) -> None:
        rest = text.encode(errors="backslashreplace")
        while rest:
            rest = rest[os.write(self._number, rest) :]

    def flush(self) -> None:
        """Nothing waits."""

    def reopen(self) -> None:
        """Go on in the file that has the name now. One that is made for it gets the mode of the old one."""
        mode = stat.S_IMODE(os.fstat(self._number).st_mode)
        umask = os.umask(0)  # twistd's in the background would leave the file to its owner alone
        try:
            number = self._open(mode)
        finally:
            os.umask(umask)
        os.close(self._number)
        self._number = number


class Out:
    """Lines on their way to a file. `reactor`: tells when a turn ends. `priorities`: what stands before each line."""

    log = Log()

    def __init__(self, file: _File, reactor: Any, priorities: Mapping[Any, str]) -> None:
        self._file = file
        self._priorities = priorities
        self._reactor = reactor
        self._lines: list[str] = []
        self._lost = 0
        self._fault = ""
        self._is_resting = False
        self._is_reporting = False
        reactor.addSystemEventTrigger("after", "shutdown", self.flush)

    def write(self, text: str, level: Any) -> None:
        """`text`: a line, or several of one event; all end with a newline."""
        if self._is_resting:
            self._lost += 1
            return
        if self._priorities:
            priority = self._priorities[level]
            text = priority + text[:-1].replace("\n", f"\n{priority}") + "\n"
        self._lines.append(text)
        if not self._reactor.running:
            self.flush()
        elif len(self._lines) == 1:
            if isInIOThread():
                self._reactor.callLater(0, self.flush)
            else:
                self._reactor.callFromThread(self.flush)

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._file.write("".join(lines))
            self._file.flush()
        except (OSError, ValueError) as error:  # to log it would be another line
            self._lost += len(lines) - self._is_reporting
            self._fault = getattr(error, "strerror", None) or str(error)
            if self._reactor.running and not self._is_resting:
                self._is_resting = True
                self._reactor.callLater(_REST_SECONDS, self._try_again)
        else:
            if self._is_reporting:
                self._lost = 0
        self._is_reporting = False

    def reopen(self) -> None:
        """Go on in the file that has the name by now, where it is a file."""
        if not isinstance(self._file, _LogFile):
            return
        self.flush()
        try:
            self._file.reopen()
        except OSError as error:
            line = "the log goes on in the file that was moved, for {path} cannot be opened: {fault}"
            self.log.error(line, path=self._file.path, fault=error.strerror)

    def _try_again(self) -> None:
        self._is_resting = False
        self._is_reporting = True
        self.log.warn("{count} lines of the log were lost: {fault}", count=self._lost, fault=self._fault)


@implementer(ILogObserver)
class _Text:
    def __init__(self, out: Out) -> None:
        self._out = out
        self._second = -1
        self._stamp = ""  # of that second

    def __call__(self, event: LogEvent) -> None:
        if is_silent(event):
            return
        text = _one_line(_text(event))
        when = event["log_time"]
        second = int(when)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        level = event["log_level"]
        self._out.write(f"{self._stamp}.{int((when - second) * 1000):03}Z {level.name:5} {text}\n", level)


def _text(event: LogEvent) -> str:
    """The message, with the traceback if there is one."""
    if "log_failure" not in event and "log_text" not in event and "log_flattened" not in event:
        text = message(event)
        return f"{text}\n{event['log_traceback']}" if "log_traceback" in event else text
    return eventAsText(event, includeTimestamp=False, includeSystem=False)


def message(event: LogEvent) -> str:
    """What it says, without a traceback."""
    try:
        return str(event["log_format"].format_map(event))  # what Twisted does too, in a tenth of the time
    except Exception:  # a format that only Twisted knows, or one that does not fit its event
        return formatEvent(event)


@implementer(ILogObserver)
class _Json:
    def __init__(self, out: Out) -> None:
        self._out = out

    def __call__(self, event: LogEvent) -> None:
        if is_silent(event):
            return
        fields = {
            "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(),
            "level": event["log_level"].name,
            "logger": event.get("log_namespace", ""),
            "message": formatEvent(event),
        }
        failure = event.get("log_failure")
        if failure is not None:
            fields["traceback"] = failure.getTraceback()
        elif "log_traceback" in event:
            fields["traceback"] = event["log_traceback"]
        for name, value in facts(event).items():
            fields.setdefault(name, value)
        self._out.write(msgspec.json.encode(fields).decode() + "\n", event["log_level"])


def facts(event: LogEvent) -> dict[str, Any]:
    """What the message was made of, by name."""
    return {
        name: _plain(value) for name, value in event.items() if not name.startswith("log_") and name not in _NOT_FACTS
    }


def _plain(value: Any) -> Any:
    """A field as JSON: things are shown as text shows them, for only their `str` knows what to hide."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


_NOT_FACTS = frozenset(("message", "isError", "failure", "why", "system", "time", "printed", "format"))


def is_silent(event: LogEvent) -> bool:
    """Twisted has events without a message, for other observers."""
    return event.get("log_format") is None and not event.get("log_failure")


def _one_line(text: str) -> str:
    """Nothing that a client sent can begin a line of its own, but a traceback keeps its lines, indented."""
    return text.rstrip().replace("\r", "\\r").replace("\n", "\n    ")


@implementer(ILogObserver)
class LogOutput:
    """Where the log goes: events of a level and above, in a fraction of the time that Twisted's filter takes.

    What Twisted says of itself is there from a warning on, or all of it for debugging.
    """

    def __init__(self, observer: ILogObserver, out: Out, level: str) -> None:
        self._observer = observer
        self.reopen = out.reopen
        """Go on in the file that has the log's name by now, where it is a file."""
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Pass events from this level on: debug, info, warn or error."""
        least = LogLevel.lookupByName(level)
        Log.debugging = level == "debug"
        self._levels = frozenset(each for each in LogLevel.iterconstants() if each >= least)
        self._of_twisted = self._levels if Log.debugging else self._levels - {LogLevel.info}

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level in self._levels and (
            level in self._of_twisted or not event.get("log_namespace", "").startswith(_TWISTED)
        ):
            self._observer(event)


_TWISTED = ("twisted.", "log_legacy")


def make_observer(reactor: Any, twistd: Mapping[str, Any], log_format: str, log_level: str) -> LogOutput:
    """The observer that twistd is to use. `twistd`: its own options, of which it heeds `logfile` and `nodaemon`."""
    return _observer(_open(reactor, twistd.get("logfile") or "", bool(twistd.get("nodaemon"))), log_format, log_level)


def log_to_stderr(reactor: Any, log_format: str, log_level: str) -> None:
    """What a command logs from now on is on its standard error, as the daemon's log has it."""
    observer = _observer(_out(sys.stderr, reactor), log_format, log_level)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def _observer(out: Out, log_format: str, log_level: str) -> LogOutput:
    return LogOutput(_Json(out) if log_format == "json" else _Text(out), out, log_level)


def _out(file: TextIO, reactor: Any) -> Out:
    """A stream of the process; systemd says which one is journald's (systemd.exec(5))."""
    try:
        status = os.fstat(file.fileno())
        is_journal = os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    except (OSError, ValueError):  # no file at all
        is_journal = False
    return Out(file, reactor, _PRIORITIES if is_journal else {})


def _open(reactor: Any, path: str, in_front: bool) -> Out:
    if path == "-" or (in_front and not path):
        if not in_front:
            raise SystemExit("twistd: a daemon cannot log to its standard output; use --logfile or -n")
        return _out(sys.stdout, reactor)
    try:
        file = _LogFile(path or "twistd.log")
    except OSError as error:
        raise SystemExit(f"twistd: --logfile: {path or 'twistd.log'}: {error.strerror}") from None
    out = Out(file, reactor, {})
    # A handler may interrupt anything, also the writing of a line.
    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(out.reopen))
    return out
