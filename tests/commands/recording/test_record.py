"""`marketfeed record`: its options, its files, its lines, its end. Real ones: `tests/system/test_recording.py`."""

from __future__ import annotations

import gzip
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from marketfeed.commands import main
from marketfeed.commands.recording import record
from marketfeed.commands.recording.format import Begin, End, Publication, read_records
from marketfeed.commands.recording.recorder import Recorder
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.topology import Topology
from tests.commands.reactor import ShortReactor


class FakeListener(Service):
    """Hears one publication a second after it was started. What it was made with is the class's own."""

    made: list[FakeListener] = []
    refuses = False

    def __init__(
        self,
        reactor: Any,
        topology: Topology,
        commands: list[tuple[bytes, bytes]],
        sink: Recorder,
        now: Callable[[], float],
        *,
        is_sharded: bool,
    ) -> None:
        self.reactor = reactor
        self.is_sharded = is_sharded
        self.topology = topology
        for node in topology.nodes:  # where they are known
            self.ca = node.endpoint
            self.address = node.address
        self.commands = commands
        self.sink = sink
        FakeListener.made.append(self)

    def startService(self) -> None:
        Service.startService(self)
        if self.refuses:
            self.sink.refused(self.commands[0][1], "NOPERM no")
            return
        self.sink.arrived()
        self.sink.complete()
        self.reactor.callLater(1, self.hear)

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return succeed(None)

    def hear(self) -> None:
        name = self.commands[0][1]
        self.sink.arrived()
        self.sink.publication(name, name.replace(b"*", b"A"), b"1")
        self.sink.flush()


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch, alone: None) -> ShortReactor:
    """The command's whole world, without real time either."""
    monkeypatch.setattr("marketfeed.redis.routed_listener.make_listener", FakeListener)
    monkeypatch.setattr(FakeListener, "made", [])
    return ShortReactor(monkeypatch, 3)


def recorded(*arguments: str) -> int:
    """Run the command with these arguments; returns its exit status."""
    return main(["record", *arguments])


def content(path: Path) -> list[object]:
    return [record for _, record in read_records([path.read_bytes()])]


def test_a_recording(reactor: ShortReactor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The listener is asked for what the command line says, until a signal; then there are counts."""
    path = tmp_path / "market.jsonl.gz"
    assert recorded("depth@*", "a@trade", "--output", str(path)) == 0
    (listener,) = FakeListener.made
    assert not listener.running
    assert listener.commands == [(b"PSUBSCRIBE", b"depth@*"), (b"SUBSCRIBE", b"trade@A")]
    begin, publication, end = content(path)
    assert isinstance(begin, Begin)
    assert begin.patterns == ("depth@*", "trade@A")
    assert isinstance(publication, Publication)
    assert (publication.stream, publication.data) == (b"depth@A", b"1")
    assert isinstance(end, End)
    assert reactor.getDelayedCalls() == []
    assert reactor.handlers[signal.SIGTERM] is signal.SIG_DFL, "a second one ends it at once"
    assert reactor.handlers[signal.SIGINT] is not signal.SIG_DFL
    out, err = capsys.readouterr()
    assert out == ""
    first, last = err.splitlines()
    assert first == "marketfeed record: recording depth@*, trade@A from redis://localhost:6379, until Ctrl-C"
    assert last.startswith("marketfeed record: 1 publications of 1 bytes in ")
    assert last.endswith(f" s, no gaps; {path.stat().st_size} bytes in 1 file")


def test_the_server_of_the_flags(reactor: ShortReactor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The password is used but not shown; the prefix is before the pattern."""
    url = "rediss://me:secret@redis.example:7000/2"
    output = f"--output={tmp_path}"
    assert recorded(f"--redis-url={url}", "--redis-ca=ca.pem", "--channel-prefix=live:", output, "*") == 0
    (listener,) = FakeListener.made
    assert listener.address.password == "secret"
    assert listener.ca == "ca.pem"
    assert listener.commands == [(b"PSUBSCRIBE", b"live:*")]
    err = capsys.readouterr().err
    assert "use REDIS_URL" in err
    assert "secret" not in err


def test_the_server_by_name(reactor: ShortReactor, tmp_path: Path) -> None:
    """Host and port have flags of their own."""
    assert recorded("--redis-host=redis.example", "--redis-port=7000", f"--output={tmp_path}", "*") == 0
    assert FakeListener.made[0].address == RedisAddress(host="redis.example", port=7000)


def test_the_daemons_file_says_where_and_which_kinds(
    reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its private kinds can be recorded, whether or not the daemon's tokens are spoken of here."""
    file = tmp_path / "marketfeed.toml"
    file.write_text('redis_host = "file.example"\n[streams.orders]\nprivate = true\nloss = "keep"\n')
    monkeypatch.setenv("MARKETFEED_CONFIG", str(file))
    assert recorded("orders@alice", f"--output={tmp_path}/out/") == 0
    assert FakeListener.made[0].address == RedisAddress(host="file.example")
    assert FakeListener.made[0].commands == [(b"SUBSCRIBE", b"orders@alice")]


@pytest.mark.parametrize(("flags", "is_packed"), [((), True), (("--gzip",), True), (("--no-gzip",), False)])
def test_standard_output(
    reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], is_packed: bool
) -> None:
    """It is compressed unless it is a terminal, or as it is said; and it stays open."""
    reading, writing = os.pipe()
    monkeypatch.setattr(record, "_STDOUT", writing)
    assert recorded("trade@A", *flags) == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    assert data.startswith(b"\x1f\x8b") == is_packed
    lines = gzip.decompress(data) if is_packed else data
    assert lines.count(b"\n") == 3


def test_a_terminal_gets_text(reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being asked."""
    ours, theirs = os.openpty()
    monkeypatch.setattr(record, "_STDOUT", theirs)
    assert recorded("trade@A") == 0
    assert b'"stream":"trade@A","data":"1"' in os.read(ours, 10_000)
    os.close(theirs)
    os.close(ours)


def test_a_reader_that_is_gone(
    reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is a good end."""
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(record, "_STDOUT", writing)
    assert recorded("trade@A") == 0
    os.close(writing)
    assert "s, no gaps; 0 bytes in 1 file" in capsys.readouterr().err


def test_a_full_disk(
    reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is not; one line says so."""
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(record, "_STDOUT", full.fileno())
        assert recorded("trade@A") == 1
    assert capsys.readouterr().err.splitlines()[1:] == ["marketfeed record: standard output: No space left on device"]


def test_a_refusal(
    reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is that."""
    monkeypatch.setattr(FakeListener, "refuses", True)
    assert recorded("trade@A", f"--output={tmp_path}") == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        "marketfeed record: Redis refuses the subscription to trade@A: NOPERM no"
    ]


class Unread(io.StringIO):
    """What a pipe is whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_nobody_reads_stderr(reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The recording goes on without."""
    monkeypatch.setattr("sys.stderr", Unread())
    assert recorded("trade@A", f"--output={tmp_path}") == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trade"], "'trade' cannot be used; expected a stream such as trade@TATA_INR, or a pattern"),
        (["*", "--redis-url=http://h"], "--redis-url: the scheme is another; expected redis://"),
        (["*", "--redis-url=embedded:"], "--redis-url or REDIS_URL: embedded: is a daemon's own server"),
        (["*", "--redis-port=x"], "--redis-port: 'x' cannot be used; expected a port number"),
        (["*", "--channel-prefix=a b"], "--channel-prefix: 'a b' cannot be used; expected at most 200 characters"),
        (["*", "--rotate-seconds=5"], "--rotate-size and --rotate-seconds: expected together with --output"),
        (["*", "--rotate-size=1GiB"], "--rotate-size and --rotate-seconds: expected together with --output"),
        (["*", "--output=/", "--rotate-seconds=0"], "--rotate-seconds: '0' cannot be used; expected a whole number"),
        (["*", "--output=/", "--rotate-size=1"], "--rotate-size: '1' cannot be used; expected a size from 1MiB up"),
        (["*", "--output=/", "--rotate-size=50%"], "--rotate-size: '50%' cannot be used; expected a size from 1MiB up"),
        (["*", "--output=/", "--rotate-size=off"], "--rotate-size: 'off' cannot be used; expected a size from 1MiB up"),
        (["*", "--output=%q"], "--output: %q cannot be used; expected %Y %m %d"),
        (["*", "--output=a", "--rotate-seconds=5"], "--output: 'a' cannot be used; expected a directory, or a name"),
        (["*", "--output=a", "--gzip"], "--gzip and --no-gzip: expected for standard output"),
        (["*", "--output=/dev/null"], "--output: /dev/null: File exists"),
        (["*", "--output=/dev/null/a"], "--output: /dev/null: "),
        (["*", "--redis-url=rediss://h", "--redis-ca=broken.pem"], "--redis-ca: broken.pem: expected certificates"),
    ],
)
def test_a_bad_value_is_one_line(
    reactor: ShortReactor, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    """It names the option and what would be accepted; nothing is started."""
    assert recorded(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"marketfeed record: {line}")
    assert not reactor.hasRun
