"""The settings read again: what can change does, all of it or nothing, and what takes a restart is named."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.logger import formatEvent

import marketfeed.daemon.build
import marketfeed.daemon.checks
from marketfeed.access.admission import Admitted
from marketfeed.config.settings import Settings, load
from marketfeed.daemon.build import build
from marketfeed.daemon.reload import RELOADED
from marketfeed.daemon.root import Daemon
from marketfeed.hub.hub import Hub
from marketfeed.runtime.listener import Listener
from marketfeed.runtime.memory import MemoryGuard, MemoryLimit
from marketfeed.websocket.connection import ClientFactory
from marketfeed.websocket.connections import UserManager
from tests.certificates import Authority
from tests.conftest import LogCapture
from tests.daemon.fakes import FakeReactor
from tests.daemon.test_build import IN_FRONT, _surroundings, admit, asked, part, status
from tests.docs_runner import ROOT
from tests.fakes import FakeTransport
from tests.tokens import SECRET, signed

__all__ = ["_surroundings"]

PEER = IPv4Address("TCP", "203.0.113.7", 5)


class FakeOutput:
    """Where the log goes, as far as a reload has to do with it."""

    def __init__(self) -> None:
        self.levels: list[str] = []
        self.reopened = 0

    def reopen(self) -> None:
        self.reopened += 1

    def set_level(self, level: str) -> None:
        self.levels.append(level)


class Running:
    """A daemon that was started with this file, these flags and these variables."""

    def __init__(self, directory: Path, text: str = "", variables: dict[str, str] | None = None, **flags: str) -> None:
        self.file = directory / "marketfeed.toml"
        self.file.write_text(text)
        again = partial(load, {"config": str(self.file), **flags}, variables or {})
        self.daemon: Daemon = build(FakeReactor(), again(), IN_FRONT, again)
        told: Any = self.daemon.reload
        (self.reload,) = told.args  # systemd is told of what this does

    def says(self, text: str) -> None:
        """The file does, from now on."""
        self.file.write_text(text)
        self.daemon.reload()

    @property
    def settings(self) -> Settings:
        settings: Settings = self.reload.settings
        return settings

    @property
    def clients(self) -> ClientFactory:
        factory: ClientFactory = part(self.daemon, Listener)._factory
        return factory

    def connect(self) -> Any:
        protocol: Any = self.clients.buildProtocol(PEER)
        protocol.makeConnection(FakeTransport())
        return protocol


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> FakeOutput:
    output = FakeOutput()
    monkeypatch.setattr(marketfeed.daemon.checks, "make_observer", lambda *_: output)
    return output


pytestmark = pytest.mark.usefixtures("output")


def said(logged: LogCapture) -> list[str]:
    """The lines of reloads since the last time."""
    events, logged.events = logged.events, []
    return [
        f"{event['log_level'].name} {formatEvent(event)}"
        for event in events
        if str(event["log_namespace"]).startswith("marketfeed.daemon.reload")
    ]


class TestChanges:
    def test_origins(self, tmp_path: Path, logged: LogCapture) -> None:
        """Those that were listed are not any more."""
        running = Running(tmp_path, 'allowed_origin = "https://a.example"')
        running.says('allowed_origin = ["https://b.example", "https://c.example"]')
        origins = ("https://a.example", "https://b.example", "https://c.example")
        assert [status(running.daemon, origin=each) for each in origins] == [403, 101, 101]
        assert said(logged) == ["info reloaded: allowed_origin"]

    def test_limits_of_a_client_are_for_new_ones(self, tmp_path: Path) -> None:
        """Who is connected keeps what it came with."""
        running = Running(tmp_path)
        old = running.connect()
        context = running.clients.context
        running.says("client_queue = 8192\nmax_streams = 3\nrequest_rate = 4\nrequest_burst = 5\nmax_message = 100\n")
        new = running.connect()
        assert (old.outbox.limit, new.outbox.limit) == (1048576, 8192)
        assert (old.maxMessagePayloadSize, new.maxMessagePayloadSize, new.maxFramePayloadSize) == (65536, 100, 100)
        limits = running.clients.context.limits
        assert (limits.max_streams, limits.request_rate, limits.request_burst) == (3, 4.0, 5)
        assert context.limits.max_streams == 1024
        assert new.throttle._rate != old.throttle._rate
        for each in (old, new):
            each._handshake.end()

    def test_limits_of_the_process(self, tmp_path: Path, logged: LogCapture) -> None:
        """From then on; as many clients as there are files at most, which is said."""
        running = Running(tmp_path, "max_connections = 10")
        running.says(
            "max_connections = 5000\nmax_distinct_streams = 7\nmax_distinct_streams_per_address = 8\n"
            'drain_seconds = 1.5\nmemory_limit = "12MiB"\n'
        )
        assert part(running.daemon, UserManager).max_connections == 763
        assert part(running.daemon, UserManager).drain_seconds == 1.5
        assert part(running.daemon, Hub)._registry.max_distinct == 7
        shares = running.clients.admission.shares
        assert shares is not None
        assert shares._most == 8
        assert part(running.daemon, MemoryGuard)._wanted == MemoryLimit(size=12 << 20)
        assert said(logged) == [
            "warn --max-connections is lowered from 5000 to 763: no more files may be open at once",
            "info reloaded: drain_seconds, max_connections, max_distinct_streams, max_distinct_streams_per_address, "
            "memory_limit",
        ]

    def test_limits_of_an_address(self, tmp_path: Path) -> None:
        """Who came while there was none is not counted, and leaves without a trace."""
        running = Running(tmp_path)
        assert status(running.daemon) == 101
        running.says("max_connections_per_address = 1")
        first = admit(running.daemon)
        assert isinstance(first, Admitted)
        assert status(running.daemon) == 429
        running.clients.admission.leave(first)
        assert status(running.daemon) == 101
        running.says("")
        assert [status(running.daemon) for _ in range(3)] == [101] * 3

    def test_the_connect_rate(self, tmp_path: Path) -> None:
        """One that is given spares nobody; who has tried too often may try again. Another reload leaves it alone."""
        running = Running(tmp_path)
        running.says("connect_rate = 2")
        assert [status(running.daemon, "127.0.0.1") for _ in range(3)] == [101, 101, 429]
        running.says("connect_rate = 2\nmax_streams = 1")
        assert status(running.daemon, "127.0.0.1") == 429
        running.says("max_streams = 1")
        assert status(running.daemon, "127.0.0.1") == 101

    def test_new_kinds(self, tmp_path: Path, logged: LogCapture) -> None:
        """For requests and paths at once."""
        running = Running(tmp_path, "[streams.orders]\nloss = 'keep'\n")
        running.says("[streams.orders]\nloss = 'keep'\n[streams.funding]\nloss = 'latest'\n")
        assert str(running.clients.context.kinds.parse("x@funding")) == "funding@X"
        assert asked(running.daemon, "/ws/funding@X").streams == ["funding@X"]
        assert part(running.daemon, Hub)._upstream._kinds is running.clients.context.kinds
        assert said(logged) == ["info reloaded: streams.funding"]

    def test_the_log(self, tmp_path: Path, output: FakeOutput) -> None:
        """It is opened again, whatever else there is, and has another level."""
        running = Running(tmp_path)
        running.says('log_level = "debug"')
        running.says("nonsense")
        assert (output.reopened, output.levels) == (2, ["debug"])

    def test_without_a_file(self, logged: LogCapture) -> None:
        """There is nothing to read but the keys."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        daemon.reload()
        assert said(logged) == ["info reloaded: no option has changed"]

    def test_where_twistd_has_another_log(self, tmp_path: Path) -> None:
        """That is its own."""
        daemon = build(FakeReactor(), Settings(), {**IN_FRONT, "syslog": 1})
        daemon.reload()

    def test_when_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """For the metrics: the last one, whether it succeeded or not."""
        monkeypatch.setattr(marketfeed.daemon.build.time, "time", lambda: 5.0)
        running = Running(tmp_path)
        assert (running.reload.last, running.reload.succeeded) == (5.0, True)
        running.reload._now = lambda: 7.0
        running.says("nonsense")
        assert (running.reload.last, running.reload.succeeded) == (7.0, False)
        running.says("")
        assert running.reload.succeeded


class TestKeys:
    @pytest.fixture(autouse=True)
    def _now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(marketfeed.daemon.build.time, "time", lambda: 1_700_000_000.0)

    def _daemon(self, directory: Path) -> Running:
        (directory / "one").write_bytes(SECRET)
        (directory / "other").write_bytes(b"another secret of thirty-two bytes")
        return Running(directory, f'auth = "required"\nauth_key = "{directory}/one"')

    def _admits(self, running: Running) -> bool:
        return status(running.daemon, authorization=f"Bearer {signed()}") == 101

    def test_another_file(self, tmp_path: Path) -> None:
        """A token that is known to be good by the old keys is not good any more."""
        running = self._daemon(tmp_path)
        assert self._admits(running)
        running.says(f'auth = "required"\nauth_key = "{tmp_path}/other"')
        assert not self._admits(running)
        running.says(f'auth = "required"\nauth_key = "{tmp_path}/one"\nauth_audience = "feed"')
        assert not self._admits(running)
        running.says(f'auth = "required"\nauth_key = "{tmp_path}/one"')
        assert self._admits(running)

    def test_a_file_that_has_changed(self, tmp_path: Path) -> None:
        """At once."""
        running = self._daemon(tmp_path)
        (tmp_path / "one").write_bytes((tmp_path / "other").read_bytes())
        running.daemon.reload()
        assert not self._admits(running)

    def test_whether_tokens_are_needed_takes_a_restart(self, tmp_path: Path, logged: LogCapture) -> None:
        """And with it all that belongs to it."""
        running = self._daemon(tmp_path)
        running.says("")
        assert said(logged) == [
            "info reloaded: no option has changed",
            "warn it takes a restart to change auth, auth_key",
        ]
        assert status(running.daemon) == 401
        assert self._admits(running)


class TestRestart:
    def test_what_cannot_change_is_named(self, tmp_path: Path, logged: LogCapture) -> None:
        """Each time, until it is as it was; what can does."""
        running = Running(tmp_path, 'port = 8080\nredis_host = "a"\n')
        for _ in range(2):
            running.says('port = 8081\nredis_host = "b"\nwarm = "depth@*"\nmax_streams = 5\n')
        line = "warn it takes a restart to change port, redis_url, redis_host or redis_port, warm"
        nothing = "info reloaded: no option has changed"
        assert said(logged) == ["info reloaded: max_streams", line, nothing, line]
        assert (running.settings.port, running.settings.warm, running.settings.max_streams) == ("8080", (), 5)
        running.says('port = 8080\nredis_host = "a"\nmax_streams = 5\n')
        assert said(logged) == [nothing]

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("[streams.orders]\nloss = 'latest'\n", "streams.orders"),
            ("", "streams.orders"),
            ("[streams.orders]\nloss = 'keep'\n[streams.trade]\nids = 't'\n", "streams.trade"),
        ],
    )
    def test_a_kind_stays_as_it_is(self, tmp_path: Path, logged: LogCapture, text: str, named: str) -> None:
        """Its clients, their queues and what is kept of it were made by what it was."""
        running = Running(tmp_path, "[streams.orders]\nloss = 'keep'\n")
        kinds = running.clients.context.kinds
        before = kinds.parse("orders@X"), kinds.parse("trade@X")
        running.says(text)
        assert said(logged)[-1] == f"warn it takes a restart to change {named}"
        assert (kinds.parse("orders@X"), kinds.parse("trade@X")) == before

    def test_what_flags_and_variables_say_stays(self, tmp_path: Path, logged: LogCapture) -> None:
        """It is said when the file says something else from now on."""
        running = Running(
            tmp_path, "max_streams = 9", variables={"MARKETFEED_CLIENT_QUEUE": "5000"}, max_streams="2", redis_host="a"
        )
        for _ in range(2):
            running.says('max_streams = 9\nclient_queue = 6000\nredis_url = "redis://user:secret@b"\n')
        limits = running.clients.context.limits
        assert (limits.max_streams, limits.client_queue) == (2, 5000)
        nothing = "info reloaded: no option has changed"
        assert said(logged) == [
            nothing,
            "warn client_queue of the file is not used: the variable MARKETFEED_CLIENT_QUEUE says otherwise, until a "
            "restart",
            "warn redis_url of the file is not used: --redis-host says otherwise, until a restart",
            nothing,
        ]


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (
                "max_streams = 5\nclient_queue = 1",
                "client_queue in {file}: '1' cannot be used; expected a whole ",
            ),
            ("max_streams = 5\nclient_que = 1", "client_que in {file}: unknown; expected streams, markets or one of "),
            ("max_streams = ", "--config: {file} is not TOML: "),
            ("max_streams = 5\n[streams.x]\nloss = 'no'", "streams.x in {file}: loss is missing or unknown; expected "),
            ("max_streams = 5\nauth = 'required'", "auth in {file}: expected together with --auth-key or --auth-jwks"),
        ],
    )
    def test_on_a_bad_value_nothing_changes(
        self, tmp_path: Path, logged: LogCapture, output: FakeOutput, text: str, fault: str
    ) -> None:
        """The line says which it is, where, and what would be accepted."""
        running = Running(tmp_path)
        before = running.settings
        running.says(text)
        (line,) = said(logged)
        assert line.startswith("error nothing is reloaded: " + fault.format(file=running.file))
        assert running.settings is before
        assert running.clients.context.limits.max_streams == 1024
        assert output.levels == []

    def test_a_file_that_is_gone(self, tmp_path: Path, logged: LogCapture) -> None:
        """Everything stays."""
        running = Running(tmp_path, "max_streams = 5")
        running.file.unlink()
        running.daemon.reload()
        assert said(logged) == [f"error nothing is reloaded: --config: {running.file}: No such file or directory"]
        assert running.settings.max_streams == 5

    def test_keys_that_cannot_be_used(self, tmp_path: Path, logged: LogCapture) -> None:
        """What else is in the file does not change either."""
        (tmp_path / "key").write_bytes(SECRET)
        running = Running(tmp_path, f'auth = "required"\nauth_key = "{tmp_path}/key"')
        running.says(f'auth = "required"\nauth_key = "{tmp_path}/none"\nmax_streams = 5')
        assert said(logged) == [f"error nothing is reloaded: --auth-key: {tmp_path}/none: No such file or directory"]
        assert running.settings.max_streams == 1024

    def test_a_certificate_that_cannot_be_used(self, tmp_path: Path, logged: LogCapture) -> None:
        """Whether of the port or for Redis."""
        certificate, key = Authority().issue("localhost").write(tmp_path)
        port = f'port = "ssl:8443:privateKey={key}:certKey={certificate}"\n'
        redis = f'redis_url = "rediss://r"\nredis_certificate = "{certificate}"\nredis_key = "{key}"\n'
        for text, option in ((port, "--port: .*certKey"), (redis, "redis-certificate")):
            certificate, key = Authority().issue("localhost").write(tmp_path)
            running = Running(tmp_path, text)
            certificate.write_text("nonsense")
            running.says(text + "max_streams = 5")
            (line,) = said(logged)
            assert re.match(rf"error nothing is reloaded: .*{option}.*: no certificates can be read; expected ", line)
            assert running.settings.max_streams == 1024


def test_names_count_from_where_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """twistd goes to another directory, and the file may name others by where it stands."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "file.toml").write_text('auth = "required"\nauth_key = "key"')
    again = partial(load, {"config": "file.toml"}, {})
    daemon = build(FakeReactor(), again(), IN_FRONT, again)
    os.chdir(elsewhere)
    (tmp_path / "file.toml").write_text('auth = "required"\nauth_key = "key"\nmax_streams = 5')
    daemon.reload()
    assert part(daemon, Listener)._factory.context.limits.max_streams == 5
    assert Path.cwd() == elsewhere


def test_the_docs_name_what_can_change() -> None:
    """All of it, and nothing else."""
    section = (ROOT / "docs/operations/signals.md").read_text().partition("\n## Reload\n")[2].partition("\n## ")[0]
    listed = section.partition("\n\n| ")[2].partition("\n\n")[0]
    assert {name.replace("-", "_") for name in re.findall(r"`--([a-z-]+)`", listed)} == RELOADED
