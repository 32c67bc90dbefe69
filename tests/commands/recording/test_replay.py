"""`marketfeed replay`: its options, what it publishes, what it says. A real one: `tests/system/test_recording.py`."""

from __future__ import annotations

import io
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest

from marketfeed.commands import main
from marketfeed.commands.recording import replay
from marketfeed.commands.recording.format import Begin, End, Gap, Publication, write_record
from marketfeed.commands.redis_link import RedisFault, RedisLink
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.tls import RedisTls
from tests.certificates import Authority
from tests.commands.recording.test_record import Unread
from tests.guard import DEADLINE

RECORDS = [
    Begin(1_000_000, 1, ("*",)),
    Publication(1_000_000, b"trade@A", b"1"),
    Publication(1_000_001, b"depth@A", b"\xff"),
    Gap(1_000_002, 1_000_001, 1_000_002),
    Publication(1_000_002, b"trade@B", b"3"),
    End(1_000_003, 3),
]


class Server:
    """Takes publications at the other end of a pair of sockets. `answer`: what it says to each."""

    def __init__(self) -> None:
        self.answer = b":1\r\n"
        self.published: list[tuple[bytes, bytes]] = []
        self.addresses: list[tuple[RedisAddress, RedisTls]] = []
        self.on_publication: Callable[[], None] = lambda: None
        self._threads: list[threading.Thread] = []

    def connect(self, address: RedisAddress, tls: RedisTls) -> RedisLink:
        self.addresses.append((address, tls))
        if address.host == "nowhere.example":
            raise RedisFault(f"cannot reach {address}: no such host")
        link, other = socket.socketpair()
        thread = threading.Thread(target=self._serve, args=(other,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return RedisLink(link)

    def _serve(self, link: socket.socket) -> None:
        reader = hiredis.Reader()
        with link:
            while data := link.recv(65536):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    assert command[0] == b"PUBLISH"
                    self.published.append((command[1], command[2]))
                    self.on_publication()
                    try:
                        link.sendall(self.answer)
                    except OSError:
                        return

    def close(self) -> None:
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, no_variables: None) -> Iterator[Server]:
    """The server that the command meets; the signals' handlers are put back."""
    server = Server()
    monkeypatch.setattr(RedisLink, "connect", server.connect)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield server
    for number, handler in before.items():
        signal.signal(number, handler)
    server.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recording."""
    path = tmp_path / "market.jsonl"
    path.write_bytes(b"".join(map(write_record, RECORDS)))
    return path


def replayed(*arguments: str | Path) -> int:
    """Run the command with these arguments; returns its exit status."""
    return main(["replay", *map(str, arguments)])


@pytest.mark.parametrize("flags", [(), ("--fast",), ("--speed=0.5",)])
def test_a_replay(server: Server, file: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    """All publications, in order and byte for byte, and counts at the end."""
    assert replayed(file, *flags) == 0
    assert server.published == [(b"trade@A", b"1"), (b"depth@A", b"\xff"), (b"trade@B", b"3")]
    assert server.addresses == [(RedisAddress(), RedisTls())]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("marketfeed replay: 3 publications of 3 bytes; 1 gap in the recording in ")
    assert err.count("\n") == 1


def test_streams_and_prefix(server: Server, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some of them, under other names, to another server, whose password is not shown; nobody listens there."""
    server.answer = b":0\r\n"
    flags = ["--streams=trade@*", "--streams", "a@depth", "--channel-prefix=again:", "--redis-url=rediss://:secret@h"]
    authority = Authority()
    ca = authority.write(tmp_path / "ca.pem")
    certificate, key = authority.issue("feed").write(tmp_path)
    flags += [f"--redis-ca={ca}", f"--redis-certificate={certificate}", f"--redis-key={key}"]
    assert replayed(*flags, file) == 0
    assert [channel for channel, _ in server.published] == [b"again:trade@A", b"again:depth@A", b"again:trade@B"]
    tls = RedisTls(str(ca), str(certificate), str(key))
    assert server.addresses == [(RedisAddress(host="h", tls=True, password="secret"), tls)]
    err = capsys.readouterr().err
    assert "secret" not in err
    assert "use REDIS_URL" in err
    assert "3 publications of 3 bytes, 3 of them to nobody; 1 gap" in err


def test_again_and_again(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Until a signal, which is a good end. What is odd about a file is said once."""
    path = tmp_path / "cut"
    path.write_bytes(b"".join(map(write_record, RECORDS[:2])))

    def end() -> None:
        if len(server.published) == 10:
            signal.raise_signal(signal.SIGTERM)

    server.on_publication = end
    assert replayed("--loop", path) == 0
    assert len(server.published) >= 10
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "its last line is missing" in lines[0]
    assert lines[1].startswith("marketfeed replay: interrupted: ")


def test_again_and_again_without_a_publication(server: Server, tmp_path: Path) -> None:
    """Nothing would ever come."""
    path = tmp_path / "empty"
    path.write_bytes(write_record(RECORDS[0]) + write_record(RECORDS[-1]))
    assert replayed("--loop", path) == 0
    assert server.published == []


def test_an_interruption_before_there_is_anything(server: Server, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an end like others."""

    def connect(address: RedisAddress, tls: RedisTls) -> RedisLink:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("unreachable")

    monkeypatch.setattr(RedisLink, "connect", connect)
    assert replayed(file) == 0


def test_a_bad_line(server: Server, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file and the line are named, and what came before it was published."""
    file.write_bytes(file.read_bytes() + b"nonsense\n")
    assert replayed(file) == 1
    assert len(server.published) <= 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"marketfeed replay: {file}:7: expected a line that marketfeed record has written")
    assert lines[1].startswith("marketfeed replay: ended early: 3 publications of 3 bytes")


def test_a_refused_publication(server: Server, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its place is named."""
    server.answer = b"-NOPERM no\r\n"
    assert replayed(file) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"marketfeed replay: {file}:2: Redis refuses the publication: NOPERM no"
    assert ", 2 not answered" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--redis-url=redis://nowhere.example", "{file}"], "cannot reach redis://nowhere.example:6379: no such host"),
        (["{file}", "missing"], "missing: No such file or directory"),
    ],
)
def test_what_is_not_there(
    server: Server, file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    """It is one line, and nothing is published."""
    assert replayed(*[argument.replace("{file}", str(file)) for argument in arguments]) == 1
    assert capsys.readouterr().err == f"marketfeed replay: {line}\n"
    assert server.published == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--streams=trade"], "--streams: 'trade' cannot be used; expected a stream such as"),
        (["--redis-url=rediss://h", "--redis-ca=none.pem"], "--redis-ca: none.pem: No such file or directory"),
        (["--redis-url=rediss://h", "--redis-key=k"], "--redis-key: expected together with --redis-certificate"),
        (["--speed=0"], "--speed: '0' cannot be used; expected a number of times, 1e-06 to 1e+06"),
        (["--max-pause=-1"], "--max-pause: '-1' cannot be used; expected a number of seconds, 0 to 1e+06"),
        (["--loop", "-"], "--loop: expected with files; standard input can be read once"),
        (["--redis-url=embedded:"], "--redis-url or REDIS_URL: embedded: is a daemon's own server"),
    ],
)
def test_a_bad_value_is_one_line(
    server: Server, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    """It names the option and what would be accepted; nothing is published."""
    assert replayed(*arguments, "file") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"marketfeed replay: {line}")


def test_one_pace_at_a_time(server: Server) -> None:
    """The two flags do not go together."""
    with pytest.raises(SystemExit):
        replayed("file", "--fast", "--speed=2")


class Screen(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress(server: Server, file: Path, monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    """On a terminal it is one line, written anew, which makes room for those that stay; elsewhere there is none."""
    screen = Screen(is_terminal)
    monkeypatch.setattr("sys.stderr", screen)
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("marketfeed.commands.recording.replay.Player", _player_with(lambda: float(next(clock))))
    assert replayed(file, "--fast") == 0
    if not is_terminal:
        assert screen.getvalue().count("\n") == 1
        return
    first, *_, last = screen.getvalue().split("\r\x1b[K")[1:]
    assert first.startswith("0 publications of 0 bytes")
    assert last.startswith("marketfeed replay: 3 publications")
    assert last.endswith("\n")


def _player_with(clock: Callable[[], float]) -> Callable[..., Any]:
    player = replay.Player
    return lambda *arguments, **keywords: player(*arguments, clock=clock, **keywords)


def test_nobody_reads_stderr(server: Server, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay goes on without."""
    monkeypatch.setattr("sys.stderr", Unread())
    assert replayed(file) == 0
