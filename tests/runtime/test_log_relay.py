"""Lines of one process in the log of another: nothing is lost but what the pipe does not take, and that is said."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from marketfeed.runtime.log_relay import make_relay, relay
from marketfeed.runtime.logs import Out, _Json, _Text
from tests.conftest import LogCapture


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


def event(text: str, level: LogLevel = LogLevel.info, **fields: Any) -> dict[str, Any]:
    return {"log_level": level, "log_format": text, "log_time": 1.5, "log_namespace": "marketfeed.a.B", **fields}


class Lines:
    """A file, as a log is written to it."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_a_line_comes_with_its_facts_and_whose_it_is(pipe: tuple[int, int], logged: LogCapture) -> None:
    reactor: Any = MemoryReactorClock()
    reactor.running = False
    output = make_relay(reactor, pipe[1], "info")
    output(event("client {client} came", client="7-1", peer=b"x"))
    output(event("nobody hears this", LogLevel.debug))
    relay(os.read(pipe[0], 65536).rstrip(b"\n"), 2)
    (found,) = logged.events
    assert formatEvent(found) == "worker 2: client 7-1 came"
    assert (found["worker"], found["client"], found["peer"], found["log_time"]) == (2, "7-1", "x", 1.5)
    assert (found["log_level"], found["log_namespace"]) == (LogLevel.info, "marketfeed.a.B")


def test_a_traceback_comes_too(pipe: tuple[int, int], logged: LogCapture) -> None:
    """In both formats, as this process's own would."""
    reactor: Any = MemoryReactorClock()
    reactor.running = False
    try:
        raise ValueError("gone")
    except ValueError:
        make_relay(reactor, pipe[1], "info")(event("it failed", LogLevel.critical, log_failure=Failure()))
    relay(os.read(pipe[0], 65536).rstrip(b"\n"), 1)
    (found,) = logged.events
    text, as_json = Lines(), Lines()
    _Text(Out(text, reactor, {}))(found)
    _Json(Out(as_json, reactor, {}))(found)
    assert "worker 1: it failed\n" in text.text
    assert "ValueError: gone" in text.text
    line = json.loads(as_json.text)
    assert line["message"] == "worker 1: it failed"
    assert "ValueError: gone" in line["traceback"]


def test_what_the_pipe_does_not_take_is_lost_and_nobody_waits(pipe: tuple[int, int], logged: LogCapture) -> None:
    """Whole lines only; the first one that gets through says how many there were."""
    reactor: Any = MemoryReactorClock()
    reactor.running = False
    output = make_relay(reactor, pipe[1], "info")
    for number in range(4000):
        output(event("line {number}", number=number, filling="x" * 1000))
    read = b""
    for _ in range(100):
        read += os.read(pipe[0], 1 << 20)
        output(event("another"))
    numbers = [line["facts"]["number"] for line in map(json.loads, read.splitlines()) if "number" in line["facts"]]
    assert numbers == list(range(len(numbers)))
    assert 100 < len(numbers) < 4000


def test_what_is_no_line_is_refused() -> None:
    """By the parent, which goes on."""
    for line in (b"", b"{}", b'{"at":1,"level":"loud","logger":"","said":"","traceback":null,"facts":{}}'):
        with pytest.raises((msgspec.DecodeError, ValueError)):
            relay(line, 1)
