"""`marketfeed watch`: what it writes where, and the command as a process of its own."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import marketfeed
from marketfeed.commands import main
from marketfeed.commands.messages import Message, read_message
from marketfeed.commands.watch.command import TextScreen, wants_colour
from tests.commands.server import CONFIRMED, TRADE, Happenings, PlainServer, WatchedServer, listening

EVENT = b'{"stream":"!expiring","data":{"e":"expiring","E":1}}'
NOW = 1772625600.125


class Written:
    """A screen, and what it has written."""

    def __init__(self, **options: Any) -> None:
        self.out, self.err = io.BytesIO(), io.StringIO()
        self.screen = TextScreen(self.out, self.err, now=lambda: NOW, **options)

    def show(self, payload: bytes) -> Written:
        message: Message = read_message(payload)
        self.screen.message(payload, message)
        return self


# What is written where.


def test_publications_are_on_stdout() -> None:
    """A publication is a line on stdout, with the time when it was received."""
    written = Written().show(TRADE)
    line = rb"\d\d:\d\d:\d\d\.125  TATA_INR +trade +712\.350 +4  sell\n"
    assert re.fullmatch(line, written.out.getvalue())
    assert written.err.getvalue() == ""


def test_events_are_on_stderr() -> None:
    """An event is a line on stderr."""
    written = Written().show(EVENT)
    assert written.out.getvalue() == b""
    assert written.err.getvalue() == 'event expiring: {"e":"expiring","E":1}\n'


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        (TRADE, TRADE),
        (EVENT, EVENT),
        (b'{"e":\r\n"x"}', b'{"e":  "x"}'),
        (b"no \x1b\xff json", b"no \x1b\xff json"),
        (b"", b""),
    ],
)
def test_json(payload: bytes, line: bytes) -> None:
    """With --json every message is a line on stdout, as it came but for its line breaks."""
    written = Written(json=True).show(payload)
    assert written.out.getvalue() == line + b"\n"
    assert written.err.getvalue() == ""


def test_json_on_a_terminal() -> None:
    """A terminal gets no control characters, whatever the format, and a message of any length whole."""
    written = Written(json=True, is_terminal=True).show(b'{"e":"x","long":"%s"}\n\x1b[2J\xff' % (b"x" * 5000))
    assert written.out.getvalue().decode() == '{"e":"x","long":"%s"} \ufffd[2J\ufffd\n' % ("x" * 5000)


@pytest.mark.parametrize(
    ("is_terminal", "colour", "is_coloured"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_colours(is_terminal: bool, colour: bool, is_coloured: bool) -> None:
    """Colours are for terminals, where they are wanted."""
    written = Written(is_terminal=is_terminal, colour=colour).show(TRADE)
    assert (b"\x1b" in written.out.getvalue()) is is_coloured


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, True),
        ({"TERM": "xterm"}, True),
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_environment(environment: dict[str, str], wanted: bool) -> None:
    """NO_COLOR with any value but the empty one, and a dumb terminal, mean no colours."""
    assert wants_colour(environment) is wanted


def test_characters_that_the_terminal_lacks() -> None:
    """A character that the terminal's encoding lacks is written as its number."""
    written = Written(encoding="ascii").show('{"e":"₹"}'.encode())
    assert written.out.getvalue().endswith(b'{"e":"\\u20b9"}\n')


def test_stderr_that_is_gone() -> None:
    """That nobody reads the notes does not end the watching."""
    written = Written()
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", buffering=1) as pipe:
        TextScreen(written.out, pipe).note("a note")
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, writing)
        os.close(devnull)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ftp://localhost\x1b"], "ws://host[:port]"),
        (["ws://h", "--token=secret\r\nX: y"], "--token: expected a signed token, as `marketfeed token` prints it\n"),
    ],
)
def test_what_cannot_be_used(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Is one line that says what would be accepted, and status 2; what may be a secret is not repeated."""
    assert main(["watch", *arguments, "trade@A"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.rstrip("\n").isprintable()
    assert err.startswith("marketfeed watch: ")
    assert told in err
    assert "secret" not in err


# The command as a process.


class Command(ProcessProtocol):
    """`python -m marketfeed watch …`: its lines, and at last its status, or minus the signal that killed it.

    `unread`: which of its outputs nobody reads any more. `before`: what its Python does first. `terminal`: it has one,
    of that sort, and all that it writes there is in `told`.
    """

    def __init__(self, *arguments: str, before: str = "", terminal: str = "") -> None:
        self.out, self.err, self.status = Happenings(), Happenings(), Happenings()
        self.unread = Happenings()
        self.is_over = False
        self.told = b""
        self._rest = {1: b"", 2: b""}
        environment = {**os.environ, "PYTHONPATH": str(Path(marketfeed.__file__).parent.parent)}
        environment.pop("PYTHONUNBUFFERED", None)
        program = f"import sys; {before}; from marketfeed.commands import main; sys.exit(main())"
        start = ["-c", program] if before else ["-m", "marketfeed"]
        command = [sys.executable, *start, "watch", *arguments]
        environment |= {"TERM": terminal} if terminal else {}
        self._is_terminal = bool(terminal)
        self.heard = Happenings()
        reactor.spawnProcess(self, sys.executable, command, environment, usePTY=bool(terminal))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == 2 or self._is_terminal:
            self.told += data
            self.heard.add(data)
        *lines, self._rest[childFD] = (self._rest[childFD] + data).split(b"\n")
        for line in lines:
            (self.out if childFD == 1 else self.err).add(line)

    def childConnectionLost(self, childFD: int) -> None:
        self.unread.add(childFD)

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.is_over = True
        self.status.add(value.exitCode if value.signal is None else -value.signal)


@asynccontextmanager
async def running(*arguments: str, before: str = "", terminal: str = "") -> AsyncIterator[Command]:
    """A command that does not outlive the test."""
    command = Command(*arguments, before=before, terminal=terminal)
    try:
        yield command
    finally:
        if not command.is_over:
            command.transport.signalProcess("KILL")
            await command.status.next()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("signal", ["INT", "TERM"])
async def test_watch_until_a_signal(signal: str) -> None:
    """It subscribes, prints what is published, and at Ctrl-C leaves with a close frame: status 0, and no traceback."""
    server = WatchedServer()
    async with (
        listening(server) as port,
        running(f"ws://127.0.0.1:{port}", "trade@TATA_INR", "depth@TATA_INR", "trade@TATA_INR") as command,
    ):
        connection = await server.opened.next()
        subscribe = {"method": "SUBSCRIBE", "params": ["trade@TATA_INR", "depth@TATA_INR"], "id": 1}
        assert await server.received.next() == subscribe
        connection.say(CONFIRMED, TRADE)
        assert (await command.out.next()).split()[1:] == [b"TATA_INR", b"trade", b"712.350", b"4", b"sell"]
        command.transport.signalProcess(signal)
        assert await server.closed.next() == 1000
        assert await command.status.next() == 0
        assert command.told == b"connected to ws://127.0.0.1:%d/\n" % port


@pytest_twisted.ensureDeferred
async def test_watch_for_another_program() -> None:
    """With --json each message is passed on as it came, at once; when nobody reads on, it ends: status 0, no word."""
    server = WatchedServer()
    async with listening(server) as port, running("--json", f"ws://127.0.0.1:{port}", "trade@TATA_INR") as command:
        connection = await server.opened.next()
        connection.say(CONFIRMED, TRADE)
        assert await command.out.next() == TRADE
        command.transport.closeStdout()
        assert await command.unread.next() == 1  # closed in truth, or the next message would only be lost
        connection.say(TRADE)
        assert await server.closed.next() == 1000
        assert await command.status.next() == 0
        assert command.told == b"connected to ws://127.0.0.1:%d/\n" % port


@pytest_twisted.ensureDeferred
async def test_watch_refused_path() -> None:
    """A path that the server does not have: status 1."""
    async with (
        listening(PlainServer(b"HTTP/1.1 404 Not Found\r\n\r\n")) as port,
        running(f"ws://127.0.0.1:{port}/nothing", "trade@A") as command,
    ):
        assert await command.status.next() == 1
        assert command.told == b"cannot watch ws://127.0.0.1:%d/nothing: the server answers 404 Not Found\n" % port


@pytest_twisted.ensureDeferred
async def test_signal_between_attempts() -> None:
    """Ctrl-C while it waits for the next attempt ends it at once."""
    async with (
        listening(PlainServer(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\n\r\n")) as port,
        running(f"ws://127.0.0.1:{port}", "trade@A") as command,
    ):
        assert b"503" in await command.err.next()
        command.transport.signalProcess("INT")
        assert await command.status.next() == 0
        assert command.told.count(b"\n") == 1


BOOKS = [
    b'{"stream":"depth20@A","data":{"e":"depth20","s":"A","bids":[["1.00","%d"]],"asks":[["1.10","5"]]}}' % number
    for number in (71, 72)
]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("terminal", "is_redrawn"), [("xterm", True), ("dumb", False)])
async def test_a_ladder_on_a_terminal(terminal: str, is_redrawn: bool) -> None:
    """It is redrawn in place where the terminal can do that; otherwise each publication is a line."""
    server = WatchedServer()
    async with (
        listening(server) as port,
        running("--no-color", f"ws://127.0.0.1:{port}", "depth20@A", terminal=terminal) as command,
    ):
        connection = await server.opened.next()
        for payload in (CONFIRMED, *BOOKS):
            connection.say(payload)
        while not re.search(rb"72[^\n]*\n", command.told):
            await command.heard.next()
        assert (b"\x1b[4A" in command.told) is is_redrawn
        assert (b"bid 1.00 x 72" in command.told) is not is_redrawn
        command.transport.signalProcess("INT")
        assert await command.status.next() == 0


@pytest_twisted.ensureDeferred
async def test_streams_for_another_program_than_a_terminal() -> None:
    """Without a terminal a book is a line, and so is each of many markets."""
    server = WatchedServer()
    async with listening(server) as port, running(f"ws://127.0.0.1:{port}", "depth20@A", "!miniTicker@arr") as command:
        connection = await server.opened.next()
        row = b'{"e":"24hrMiniTicker","s":"%b","c":"1","o":"1","h":"2","l":"1","v":"3","q":"4"}'
        connection.say(CONFIRMED, BOOKS[0], b'{"stream":"!miniTicker@arr","data":[%b,%b]}' % (row % b"A", row % b"B"))
        lines = [(await command.out.next()).split()[1:] for _ in range(3)]
        assert lines[0][:6] == [b"A", b"depth20", b"bid", b"1.00", b"x", b"71"]
        assert [line[:3] for line in lines[1:]] == [[b"A", b"miniTicker", b"1"], [b"B", b"miniTicker", b"1"]]
        command.transport.signalProcess("INT")
        assert await command.status.next() == 0


RESOLVES_FOR_EVER = "import socket, threading; socket.getaddrinfo = lambda *_: print('?') or threading.Event().wait()"


@pytest_twisted.ensureDeferred
async def test_signal_while_a_name_is_resolved() -> None:
    """Ctrl-C does not wait for the resolver."""
    before = f"{RESOLVES_FOR_EVER}; sys.stdout.reconfigure(line_buffering=True)"
    async with running("ws://localhost:8080", "trade@A", before=before) as command:
        assert await command.out.next() == b"?"
        command.transport.signalProcess("INT")
        assert await command.status.next() == 0
        assert command.told == b""
