"""The log of one process, written by another: each line of it is one of the other's, and says where it comes from.

1. A line goes over a pipe as a JSON object, with its facts. The process that writes the log has its format, its file,
   its rotation, or syslog; the one that logs has only the level.
2. Nobody waits for the pipe. What it does not take is counted and lost, as what a full disk does not.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import implementer

from marketfeed.runtime.logs import LogOutput, Out, facts, is_silent, message

__all__ = ["make_relay", "relay"]

_MOST_WAITING = 1 << 20


class _Pipe:
    """A file that is never waited for."""

    def __init__(self, number: int) -> None:
        os.set_blocking(number, False)
        self._number = number
        self._rest = b""

    def write(self, text: str) -> None:
        """Raises OSError when there is no room, and nothing of `text` is written."""
        self._flush()
        if len(self._rest) > _MOST_WAITING:
            raise BlockingIOError(0, "the process that writes the log does not read")
        self._rest += text.encode(errors="backslashreplace")
        self._flush()

    def flush(self) -> None:
        """As much as it takes has been written."""

    def _flush(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._number, self._rest) :]
        except BlockingIOError:
            pass


@implementer(ILogObserver)
class _Relayed:
    def __init__(self, out: Out) -> None:
        self._out = out

    def __call__(self, event: LogEvent) -> None:
        if is_silent(event):
            return
        failure = event.get("log_failure")
        line = {
            "at": event["log_time"],
            "level": event["log_level"].name,
            "logger": event.get("log_namespace", ""),
            "said": message(event),
            "traceback": None if failure is None else failure.getTraceback(),
            "facts": facts(event),
        }
        self._out.write(msgspec.json.encode(line).decode() + "\n", event["log_level"])


class _Line(msgspec.Struct, frozen=True):
    at: float
    level: str
    logger: str
    said: str
    traceback: str | None
    facts: dict[str, Any]


_line = msgspec.json.Decoder(_Line)


def make_relay(reactor: Any, number: int, log_level: str) -> LogOutput:
    """Where a process logs whose log another one writes. `number`: of the file that leads there."""
    out = Out(_Pipe(number), reactor, {})
    return LogOutput(_Relayed(out), out, log_level)


def relay(line: bytes, worker: int) -> None:
    """Log what came over the pipe. Raises msgspec.DecodeError, and ValueError for a level that there is not."""
    said = _line.decode(line)
    event: LogEvent = {
        **said.facts,
        "worker": worker,
        "log_format": "worker {worker}: {log_said}",
        "log_said": said.said,
        "log_level": LogLevel.lookupByName(said.level),
        "log_namespace": said.logger,
        "log_time": said.at,
    }
    if said.traceback is not None:
        event["log_traceback"] = said.traceback
    globalLogPublisher(event)
