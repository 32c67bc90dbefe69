"""Where log events go: text for people, one JSON object a line for machines, filtered by level.

Every event of ours carries its facts as fields (`client`, `peer`, `stream`, …); both formats are made from them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import msgspec
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    formatEvent,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

__all__ = ["make_observer"]


class _Out(Protocol):
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


@implementer(ILogObserver)
class _Text:
    def __init__(self, out: _Out) -> None:
        self._out = out
        self._second = -1
        self._stamp = ""  # of that second

    def __call__(self, event: LogEvent) -> None:
        if _is_silent(event):
            return
        text = _one_line(_text(event))
        when = event["log_time"]
        second = int(when)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self._out.write(f"{self._stamp}.{int((when - second) * 1000):03}Z {event['log_level'].name:5} {text}\n")
        self._out.flush()


def _text(event: LogEvent) -> str:
    """The message, with the traceback if there is one."""
    if "log_failure" not in event and "log_text" not in event and "log_flattened" not in event:
        try:
            return str(event["log_format"].format_map(event))  # what Twisted does too, in a tenth of the time
        except Exception:
            pass  # a format that only Twisted knows, or one that does not fit its event
    return eventAsText(event, includeTimestamp=False, includeSystem=False)


@implementer(ILogObserver)
class _Json:
    def __init__(self, out: _Out) -> None:
        self._out = out

    def __call__(self, event: LogEvent) -> None:
        if _is_silent(event):
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
        for name, value in event.items():
            if not name.startswith("log_") and name not in fields and name not in _NOT_FACTS:
                fields[name] = _plain(value)
        self._out.write(msgspec.json.encode(fields).decode() + "\n")
        self._out.flush()


def _plain(value: Any) -> Any:
    """A field as JSON: things are shown as text shows them, for only their `str` knows what to hide."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


_NOT_FACTS = frozenset(("message", "isError", "failure", "why", "system", "time", "printed", "format"))


def _is_silent(event: LogEvent) -> bool:
    """Twisted has events without a message, for other observers."""
    return event.get("log_format") is None and not event.get("log_failure")


def _one_line(text: str) -> str:
    """Nothing that a client sent can begin a line of its own, but a traceback keeps its lines, indented."""
    return text.rstrip().replace("\r", "\\r").replace("\n", "\n    ")


@implementer(ILogObserver)
class _FromLevel:
    """Passes events of a level and above; a fraction of the time that Twisted's filter by name space takes."""

    def __init__(self, observer: ILogObserver, least: Any) -> None:
        self._observer = observer
        self._levels = frozenset(level for level in LogLevel.iterconstants() if level >= least)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level", LogLevel.info) in self._levels:
            self._observer(event)


def make_observer(twistd: Mapping[str, Any], log_format: str, log_level: str) -> ILogObserver:
    """The observer that twistd is to use. `twistd`: its own options, of which it heeds `logfile` and `nodaemon`."""
    out = _open(twistd.get("logfile") or "", bool(twistd.get("nodaemon")))
    observer: ILogObserver = _Json(out) if log_format == "json" else _Text(out)
    return _FromLevel(observer, LogLevel.lookupByName(log_level))


def _open(path: str, in_front: bool) -> _Out:
    if path == "-" or (in_front and not path):
        if not in_front:
            raise SystemExit("twistd: a daemon cannot log to its standard output; use --logfile or -n")
        return sys.stdout
    file = LogFile.fromFullPath(path or "twistd.log", rotateLength=None)

    def rotate(*_: object) -> None:
        file.rotate()

    signal.signal(signal.SIGUSR1, rotate)
    return cast(_Out, file)
