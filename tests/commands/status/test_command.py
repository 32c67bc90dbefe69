"""`marketfeed status`: what it writes where, its exit status, and how it draws in place."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path

import pytest
import pytest_twisted

from marketfeed.commands import main
from marketfeed.commands.status import command
from marketfeed.commands.status.asking import NoAnswer
from marketfeed.commands.status.command import Look, Screen
from tests.commands.server import PlainServer, listening
from tests.commands.status.asked import Daemon, status

BODY = json.dumps(
    {"boot": "b", "at": 0, "version": "0", "healthy": True, "summary": "Healthy. \x9b 9 clients.", "news": []}
    | {"fields": ["seq"], "workers": []},
    ensure_ascii=False,
).encode()


# The exit status.


@pytest_twisted.ensureDeferred
async def test_it_is_healthy_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon()
    async with daemon.listening() as url:
        assert await status(url) == 1
        out, err = capsys.readouterr()
        assert (out.splitlines()[0], err) == (daemon.read()["summary"], "")
        assert "has not been reached" in out
        daemon.reach()
        assert await status(url) == 0
        assert capsys.readouterr().out.startswith("Healthy. 0 clients.\n\nmarketfeed ")


@pytest_twisted.ensureDeferred
async def test_for_another_program(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """The object as it came."""
    async with listening(PlainServer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY))) as port:
        assert await status("--json", f"http://127.0.0.1:{port}") == 0
    assert capsysbinary.readouterr().out == BODY + b"\n"


@pytest_twisted.ensureDeferred
async def test_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert await status("http://127.0.0.1:1") == 2
    out, err = capsys.readouterr()
    told = "http://127.0.0.1:1: Connection refused; expected the address of a daemon's --admin"
    assert (out, err) == ("", f"marketfeed status: {told}\n")


@pytest_twisted.ensureDeferred
async def test_somebody_else_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    async with listening(PlainServer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\x1b}")) as port:
        assert await status(f"http://127.0.0.1:{port}") == 2
    assert "what it answers is no status" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["ws://h"], ["http://h", "--token-file", "/nothing"]])
def test_what_cannot_be_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), "expected" in err) == ("", 1, True)


@pytest.mark.parametrize("by_variable", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_token(by_variable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option goes before the variable, which the daemon has, too."""
    (tmp_path / "right").write_text("0123456789abcdef\n")
    monkeypatch.setenv("MARKETFEED_ADMIN_TOKEN_FILE", str(tmp_path / ("right" if by_variable else "wrong")))
    server = PlainServer(b"HTTP/1.1 401 No\r\n\r\n")
    async with listening(server) as port:
        option = [] if by_variable else ["--token-file", str(tmp_path / "right")]
        assert await status(f"http://127.0.0.1:{port}", *option) == 2
        assert b"\r\nAuthorization: Bearer 0123456789abcdef\r\n" in await server.requests.next()


# On the screen.


class Shown:
    """A look at what `answers` has, one after the other, and what is written of it."""

    def __init__(
        self, *answers: bytes | None, is_terminal: bool = True, watch: bool = True, json: bool = False
    ) -> None:
        self.answers = list(answers)
        self.out = BytesIO()
        screen = Screen(self.out, "utf-8", is_terminal, watch, json)
        self.look = Look(self.answer, screen, "http://h:1")

    def answer(self, since: int) -> bytes:
        answer = self.answers.pop(0)
        if answer is None:
            raise NoAnswer("it is away")
        return answer

    def next(self) -> str:
        self.out.seek(0)
        self.out.truncate()
        self.look()
        return self.out.getvalue().decode()


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((12, 5)))


@pytest.mark.usefixtures("_small")
def test_in_place() -> None:
    """The screen is cleared once. No line is longer than the screen is wide, but for the sentence, which is broken."""
    seen = Shown(BODY, BODY)
    assert seen.next() == "\x1b[2J\x1b[HHealthy. \ufffd 9\x1b[K\nclients.\x1b[K\n\x1b[J"
    assert seen.next() == "\x1b[HHealthy. \ufffd 9\x1b[K\nclients.\x1b[K\n\x1b[J"


def test_a_daemon_that_goes_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said last stays, below the reason why it says nothing."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))
    seen = Shown(None, BODY, None, BODY)
    assert "http://h:1: it is away\x1b[K\n\x1b[J" in seen.next()
    assert seen.look.status == 2
    assert "Healthy" in seen.next()
    lines = seen.next().split("\x1b[K\n")
    assert lines[0] == "\x1b[Hhttp://h:1: it is away"
    assert (lines[2].startswith("The last answer, of "), lines[4]) == (True, "Healthy. \ufffd 9 clients.")
    assert seen.look.status == 2
    assert seen.next().startswith("\x1b[HHealthy.")
    assert seen.look.status == 0


@pytest.mark.usefixtures("_small")
def test_no_more_than_there_is_room_for() -> None:
    long = BODY.replace(b"Healthy.", b"a b c d e f g h i " * 20)
    assert Shown(long).next().count("\n") == 4


def test_once_nothing_is_drawn() -> None:
    """Nor for who has no terminal; there, pictures are apart by an empty line."""
    assert Shown(BODY, watch=False).next() == "Healthy. \ufffd 9 clients.\n"
    seen = Shown(BODY, None, BODY, is_terminal=False)
    assert [seen.next() for _ in range(3)] == ["Healthy. \ufffd 9 clients.\n", "", "\nHealthy. \ufffd 9 clients.\n"]


def test_a_terminal_gets_no_control_characters_in_json_either() -> None:
    assert Shown(BODY, json=True).next() == BODY.decode().replace("\x9b", "\ufffd") + "\n"
    assert Shown(BODY, json=True, is_terminal=False).next() == BODY.decode() + "\n"


def test_characters_that_the_terminal_lacks() -> None:
    out = BytesIO()
    Screen(out, "ascii").answer(b"", ["\N{EN DASH}"])
    assert out.getvalue() == b"\\u2013\n"


# Again and again.


class Times:
    """In place of `time`: so many seconds pass, and then somebody presses Ctrl-C."""

    def __init__(self, seconds: int) -> None:
        self.left = seconds

    def sleep(self, seconds: float) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= seconds


@pytest_twisted.ensureDeferred
async def test_watching(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Until Ctrl-C, with the status of the last answer."""
    monkeypatch.setattr(command, "time", Times(2))
    daemon = Daemon()
    async with daemon.listening() as url:
        assert await status(url, "--watch") == 1
        assert capsys.readouterr().out.count("has not been reached") == 3


@pytest_twisted.ensureDeferred
async def test_nobody_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, without a complaint."""
    reading, writing = os.pipe()
    os.close(reading)
    daemon = Daemon()
    daemon.reach()
    with os.fdopen(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        async with daemon.listening() as url:
            assert await status(url, "--watch") == 0
