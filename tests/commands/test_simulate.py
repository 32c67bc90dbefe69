"""`marketfeed simulate`: its options, its one line, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

import marketfeed
from marketfeed.commands import main
from marketfeed.demo.market import INSTRUMENTS, Publication
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.topology import Topology
from tests.commands.reactor import ShortReactor
from tests.guard import DEADLINE


class FakePublisher(Service):
    """Publishes into a list, which is the class's own."""

    made: list[FakePublisher] = []

    def __init__(self, reactor: Any, keys: Topology, channels: Topology, *, is_sharded: bool = False) -> None:
        self.topologies = keys, channels
        self.is_sharded = is_sharded
        for node in keys.nodes:  # where they are known
            self.address = node.address
            self.ca = node.endpoint
        self.ready = True
        self.publications: list[Publication] = []
        self.kept: dict[str, bytes] = {}
        self.started = False
        FakePublisher.made.append(self)

    def startService(self) -> None:
        Service.startService(self)
        self.started = True

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return succeed(None)

    def publish(self, batch: list[Publication]) -> None:
        self.publications += batch

    def keep(self, states: list[Publication]) -> None:
        self.kept |= dict(states)


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch, alone: None) -> ShortReactor:
    """The command's whole world, without real time either."""
    monkeypatch.setattr("marketfeed.redis.publisher.RoutedPublisher", FakePublisher)
    monkeypatch.setattr(FakePublisher, "made", [])
    return ShortReactor(monkeypatch, 2)


def simulated(*arguments: str) -> int:
    """Run the command with these arguments; returns its exit status."""
    return main(["simulate", *arguments])


def test_a_market_is_published_until_the_end(reactor: ShortReactor, capsys: pytest.CaptureFixture[str]) -> None:
    """The publisher is started, gets publications of the default markets at the default rate, and all is stopped."""
    assert simulated() == 0
    (publisher,) = FakePublisher.made
    assert publisher.started
    assert not publisher.running
    assert 90 <= len(publisher.publications) <= 110
    markets = {channel.partition("@")[2] for channel, _ in publisher.publications}
    assert markets == {instrument.market for instrument in INSTRUMENTS}
    assert publisher.kept.keys() == {f"snapshot:{kind}@{market}" for kind in ("depth", "ticker") for market in markets}
    assert reactor.hasStopped
    assert reactor.getDelayedCalls() == []
    output = capsys.readouterr()
    assert output.err == ""
    names = ", ".join(instrument.market for instrument in INSTRUMENTS)
    assert output.out == (f"simulating {names} on redis://localhost:6379, 50 publications a second, until Ctrl-C\n")


def test_streams(reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries instead of publications; no state is kept beside them, for the last snapshot is in the stream."""
    most: list[int] = []

    class FakeAppender(FakePublisher):
        def __init__(self, reactor: Any, topology: Topology, maxlen: int, *, has_slots: bool) -> None:
            super().__init__(reactor, topology, topology)
            most.append(maxlen)

    monkeypatch.setattr("marketfeed.redis.routed_appender.RoutedAppender", FakeAppender)
    assert simulated("--streams=5000") == 0
    (appender,) = FakePublisher.made
    assert isinstance(appender, FakeAppender)
    assert (most, appender.kept) == ([5000], {})
    assert 90 <= len(appender.publications) <= 110


def test_the_flags_are_obeyed(reactor: ShortReactor, capsys: pytest.CaptureFixture[str]) -> None:
    """Server, certificate, markets, rate and prefix are as given; the password is used but not shown."""
    assert (
        simulated(
            "--redis-url=rediss://me:secret@redis.example:7000/2",
            "--redis-ca=ca.pem",
            "--markets=INFY_INR, NEW_INR",
            "--rate=12.5",
            "--channel-prefix=live:",
        )
        == 0
    )
    (publisher,) = FakePublisher.made
    assert publisher.address == RedisAddress(
        host="redis.example", port=7000, tls=True, username="me", password="secret", database=2
    )
    assert publisher.ca == "ca.pem"
    assert 20 <= len(publisher.publications) <= 30
    channels = {channel for channel, _ in publisher.publications}
    assert {"live:depth@TATA_INR", "live:depth@INFY_INR", "live:depth@NEW_INR"} <= channels
    output = capsys.readouterr()
    assert output.out == (
        "simulating TATA_INR, INFY_INR, NEW_INR on rediss://me:***@redis.example:7000/2, "
        "12.5 publications a second, until Ctrl-C\n"
    )
    assert "use REDIS_URL" in output.err
    assert "secret" not in output.err


def test_the_seed_decides(reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed publishes the same books, another seed others."""
    first_books = []
    for seed in ("1", "1", "2"):
        ShortReactor(monkeypatch, 2)
        assert simulated(f"--seed={seed}") == 0
        first_books.append(FakePublisher.made[-1].publications[0])
    assert first_books[0] == first_books[1] != first_books[2]


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"REDIS_URL": "redis://one.example:7001"}, RedisAddress(host="one.example", port=7001)),
        ({"REDIS_HOST": "two.example", "REDIS_PORT": "7002"}, RedisAddress(host="two.example", port=7002)),
        ({"PORT": "what the daemon alone reads"}, RedisAddress()),
        ({"MARKETFEED_DEMO": "true", "REDIS_HOST": "three.example"}, RedisAddress(host="three.example")),
    ],
)
def test_the_server_is_the_daemons_without_a_flag(
    reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], address: RedisAddress
) -> None:
    """The daemon's variables for Redis count, its others do not."""
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)
    assert simulated() == 0
    assert FakePublisher.made[0].address == address


def test_the_daemons_file_counts_as_well(
    reactor: ShortReactor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A configuration file that the environment names says where the server is, whether or not it asks for a demo."""
    file = tmp_path / "marketfeed.toml"
    file.write_text('redis_url = "redis://file.example"\nchannel_prefix = "f:"\ndemo = true\n')
    monkeypatch.setenv("MARKETFEED_CONFIG", str(file))
    assert simulated() == 0
    assert FakePublisher.made[0].address == RedisAddress(host="file.example")
    assert FakePublisher.made[0].publications[0][0] == "f:depth@TATA_INR"


@pytest.mark.parametrize(
    ("argument", "accepted"),
    [
        ("--redis-url=http://localhost", "redis://[user:password@]host:port"),
        ("--redis-url=embedded:", "expected redis://, rediss:// or unix:///path"),
        ("--redis-ca=ca.pem", "expected together with a rediss:// URL"),
        ("--channel-prefix=a b", "expected at most 200 characters, none of them blank"),
        ("--markets=INFY INR", "expected names such as TATA_INR,INFY_INR"),
        ("--markets=INFY_INR,", "expected names such as TATA_INR,INFY_INR"),
        ("--markets=depth@INFY_INR", "expected names such as TATA_INR,INFY_INR"),
        ("--rate=0", "expected a number of publications per second, above 0"),
        ("--rate=fast", "expected a number of publications per second, above 0"),
        ("--rate=nan", "expected a number of publications per second, above 0"),
        ("--rate=1e9", "at most 100000"),
        ("--seed=x", "expected a whole number"),
        ("--streams=-1", "expected a whole number of entries, 0 to 100000000"),
        ("--streams=yes", "expected a whole number of entries, 0 to 100000000"),
    ],
)
def test_a_bad_value_is_one_line(
    reactor: ShortReactor, capsys: pytest.CaptureFixture[str], argument: str, accepted: str
) -> None:
    """It names the option and what would be accepted; nothing is started."""
    assert simulated(argument) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith(argument.partition("=")[0])
    assert accepted in output.err
    assert not reactor.hasRun


def test_a_bad_certificate_is_one_line(reactor: ShortReactor, capsys: pytest.CaptureFixture[str]) -> None:
    """What the publisher says about the file is said of the option."""
    assert simulated("--redis-url=rediss://localhost", "--redis-ca=broken.pem") == 2
    assert capsys.readouterr().err == "--redis-ca: broken.pem: expected certificates in PEM format\n"
    assert not reactor.hasRun


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_well(tmp_path: Path, number: signal.Signals) -> None:
    """A real process says its line, though its server does not exist, and exits with 0 when it is told to stop."""
    program = (
        "import argparse, sys\n"
        "from marketfeed.commands import simulate\n"
        "parser = argparse.ArgumentParser()\n"
        "simulate.add_parser(parser.add_subparsers())\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
        "sys.exit(simulate.run(parser.parse_args()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(marketfeed.__file__).parent.parent)}
    server = f"unix://{tmp_path}/nobody.sock"
    with subprocess.Popen(
        [sys.executable, "-c", program, "simulate", "--redis-url", server, "--markets", "TATA_INR"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(number)
        try:
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
    assert line == f"simulating TATA_INR on {server}, 50 publications a second, until Ctrl-C\n"


def test_streams_have_no_channels(reactor: ShortReactor, capsys: pytest.CaptureFixture[str]) -> None:
    """Of whichever sort."""
    assert simulated("--streams=5", "--pubsub=classic", "--redis-url=redis-cluster://h") == 2
    assert capsys.readouterr().err.startswith("--pubsub: expected without --streams")
    assert FakePublisher.made == []


def test_a_cluster(reactor: ShortReactor) -> None:
    """Its channels are sharded, unless it is said that they are not."""
    for more, is_sharded in (((), True), (("--pubsub=classic",), False)):
        assert simulated("--redis-url=redis-cluster://h", *more) == 0
        assert FakePublisher.made[-1].is_sharded is is_sharded
        keys, channels = FakePublisher.made[-1].topologies
        assert (keys is channels) is is_sharded
