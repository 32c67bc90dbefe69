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
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
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

    def __call__(self, event: LogEvent) -> None:
        if _is_silent(event):
            return
        when = datetime.fromtimestamp(event["log_time"], UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        self._out.write(f"{when}Z {event['log_level'].name:5} {_one_line(text)}\n")
        self._out.flush()


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


def make_observer(twistd: Mapping[str, Any], log_format: str, log_level: str) -> ILogObserver:
    """The observer that twistd is to use. `twistd`: its own options, of which it heeds `logfile` and `nodaemon`."""
    out = _open(twistd.get("logfile") or "", bool(twistd.get("nodaemon")))
    observer: ILogObserver = _Json(out) if log_format == "json" else _Text(out)
    level = LogLevel.lookupByName(log_level)
    return FilteringLogObserver(observer, [LogLevelFilterPredicate(defaultLogLevel=level)])


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
