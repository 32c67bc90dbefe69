"""The tree of services: what it is made of, how it starts and stops, what it says when it cannot."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, IService, Service
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver

import marketfeed.daemon
from marketfeed.client.users import UserManager
from marketfeed.client.websocket import ClientFactory, ClientProtocol
from marketfeed.daemon import Daemon, StartFault, build
from marketfeed.hub import Hub
from marketfeed.listener import CannotServe, Listener
from marketfeed.redis_address import EMBEDDED, parse_redis_url
from marketfeed.settings import Settings
from marketfeed.source.embedded import EmbeddedServer, NoServerFound
from marketfeed.source.redis_publisher import RedisPublisher
from marketfeed.source.redis_pubsub import RedisPubSub
from marketfeed.source.simulator import MarketSimulation
from tests.conftest import LogCapture

IN_FRONT = {"nodaemon": 1, "pidfile": ""}
FILES = 1000


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a daemon would change of its process stays as it is."""
    monkeypatch.setattr(marketfeed.daemon, "raise_file_limit", lambda: FILES)
    monkeypatch.setattr(marketfeed.daemon, "find_server", lambda: "/bin/server")
    monkeypatch.setattr(marketfeed.daemon, "make_observer", lambda *arguments: arguments)
    monkeypatch.setattr(marketfeed.daemon, "signal", SignalModule({}))
    monkeypatch.setattr("txaio.tx.config.loop", Clock())


class FakeReactor(MemoryReactorClock):
    """Runs what is to be called from a thread at once, as nothing else runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)

    def stop(self) -> None:
        self.stops += 1


class Part(Service):
    """A service that notes when it starts and stops, and stops when the test says so."""

    def __init__(self, name: str, notes: list[str], stopped: Deferred[None] | Exception | None = None) -> None:
        self.setName(name)
        self.notes = notes
        self.stopped = stopped

    def startService(self) -> None:
        self.notes.append(f"start {self.name}")

    def stopService(self) -> Deferred[None] | None:
        self.notes.append(f"stop {self.name}")
        if isinstance(self.stopped, Exception):
            raise self.stopped
        return self.stopped


class FakeUsers(UserManager):
    """A drain that ends when the test says so."""

    def __init__(self) -> None:
        super().__init__(Clock(), 1, 0.0, lambda: 0.0)
        self.hurried = 0
        self.drained: Deferred[None] = Deferred()

    def hurry(self) -> None:
        self.hurried += 1

    async def drain(self) -> None:
        await self.drained


class Rig:
    """A daemon without parts, and what is around it."""

    def __init__(self, *, in_front: bool = True, pid_file: str = "") -> None:
        self.reactor = FakeReactor()
        self.users = FakeUsers()
        self.daemon = Daemon(self.reactor, self.users, in_front, pid_file)


class SignalModule:
    """What the daemon uses of the module; the reactor that runs these tests goes on using the real one."""

    SIGTERM, SIGINT, SIGHUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    Signals = signal.Signals

    def __init__(self, handlers: dict[int, Callable[..., None]]) -> None:
        self.signal = handlers.__setitem__


class TestSignals:
    @pytest.fixture
    def rig(self, monkeypatch: pytest.MonkeyPatch) -> Rig:
        """A daemon that runs, and the handlers that it set."""
        rig = Rig()
        self.handlers: dict[int, Callable[..., None]] = {}
        monkeypatch.setattr(marketfeed.daemon, "signal", SignalModule(self.handlers))
        rig.daemon.privilegedStartService()
        self.early = dict(self.handlers)
        rig.daemon.startService()
        self.handlers.clear()  # as the reactor sets its own
        for call, args, kwargs in rig.reactor.whenRunningHooks:
            call(*args, **kwargs)
        return rig

    def _send(self, number: int) -> None:
        self.handlers[number](number, None)

    def test_once_it_runs_it_takes_the_signals(self, rig: Rig) -> None:
        """The reactor set its own as it began to run."""
        assert self.handlers.keys() == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

    def test_a_signal_may_come_before_it_runs(self, rig: Rig) -> None:
        """As soon as the log says that clients may come."""
        assert self.early.keys() == self.handlers.keys()
        self.early[signal.SIGTERM](signal.SIGTERM, None)
        assert rig.reactor.stops == 1

    def test_sigterm_drains(self, rig: Rig) -> None:
        """The reactor stops, without hurry."""
        self._send(signal.SIGTERM)
        assert (rig.reactor.stops, rig.users.hurried) == (1, 0)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
    def test_others_end_at_once(self, rig: Rig, number: int) -> None:
        """Hurry comes first."""
        self._send(number)
        assert (rig.reactor.stops, rig.users.hurried) == (1, 1)

    @pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_signal_hurries(self, rig: Rig, first: int, second: int, logged: LogCapture) -> None:
        """The reactor is stopped once; the log has both."""
        self._send(first)
        self._send(second)
        assert rig.reactor.stops == 1
        assert rig.users.hurried == (1 if first == signal.SIGTERM else 2)
        names = [event["signal"] for event in logged.events]
        assert names == [signal.Signals(first).name, signal.Signals(second).name]


class TestOrder:
    def test_parts_start_in_order_and_stop_one_after_the_other(self) -> None:
        """Clients are sent away first, while everything still works."""
        rig, notes = Rig(), []
        slow: Deferred[None] = Deferred()
        first, second, third = Part("first", notes), Part("second", notes, slow), Part("third", notes)
        rig.daemon.add_in_order(first, second, third)
        rig.daemon.stop_in_order(second, third, first)
        rig.daemon.startService()
        assert notes == ["start first", "start second", "start third"]
        notes.clear()
        stopped = rig.daemon.stopService()
        assert not notes
        rig.users.drained.callback(None)
        assert notes == ["stop second"]
        slow.callback(None)
        assert notes == ["stop second", "stop third", "stop first"]
        assert stopped.called
        assert not rig.daemon.running

    def test_a_part_that_fails_to_stop_does_not_keep_the_others(self, logged: LogCapture) -> None:
        """A child process, for one, must be ended whatever happens before."""
        rig, notes = Rig(), []
        later: Deferred[None] = Deferred()
        parts = [Part("a", notes, ZeroDivisionError()), Part("b", notes, later), Part("c", notes)]
        rig.daemon.stop_in_order(*parts)
        rig.users.drained.callback(None)
        stopped = rig.daemon.stopService()
        later.errback(ZeroDivisionError())
        assert notes == ["stop a", "stop b", "stop c"]
        assert stopped.called
        assert len(logged.flush_failures(ZeroDivisionError)) == 2


class TestNoPort:
    class Taken(Service):
        def privilegedStartService(self) -> None:
            raise CannotServe("port 8080 is taken")

    @pytest.mark.parametrize("exists", [True, False])
    def test_in_front_it_is_the_last_line(self, tmp_path: Path, exists: bool) -> None:
        """With status 1, and without the file of the process id, which twistd would leave."""
        pid_file = tmp_path / "twistd.pid"
        if exists:
            pid_file.write_text("1")
        rig = Rig(pid_file=str(pid_file))
        rig.daemon.add_in_order(self.Taken())
        with pytest.raises(SystemExit) as caught:
            rig.daemon.privilegedStartService()
        assert caught.value.code == "marketfeed: port 8080 is taken"
        assert not pid_file.exists()

    def test_in_the_background_it_is_left_to_twistd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which shows it in the foreground. SystemExit would leave that waiting for ever."""
        monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)
        rig = Rig(in_front=False)
        rig.daemon.add_in_order(self.Taken())
        with pytest.raises(OSError, match=r"^port 8080 is taken$"):
            rig.daemon.privilegedStartService()
        assert sys.tracebacklimit == 0


def report(daemon: Daemon) -> None:
    """Let a daemon's last service say what it has to say."""
    last = list(daemon)[-1]
    last.startService()
    for call, args, kwargs in last._reactor.whenRunningHooks:
        call(*args, **kwargs)


def names(services: list[IService]) -> list[str]:
    return [service.__class__.__name__ for service in services]


def part(daemon: Daemon, kind: type) -> Any:
    (found,) = [service for service in daemon if isinstance(service, kind)]
    return found


class TestBuild:
    def test_the_parts_of_a_daemon(self) -> None:
        """In the order of ARCHITECTURE: what is needed starts before what needs it, and stops after it."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        assert names(list(daemon)) == [
            *("Collector", "Hub", "UserManager", "Heartbeat", "RedisPubSub", "Listener", "_Report"),
        ]
        assert names(daemon._stops) == [
            *("Heartbeat", "RedisPubSub", "Hub", "UserManager", "Listener", "_Report", "Collector"),
        ]

    def test_the_parts_of_a_demo(self) -> None:
        """The server is there first and last; the market ends before the link that brings it."""
        daemon = build(FakeReactor(), Settings(demo=True, redis=EMBEDDED), IN_FRONT)
        assert names(list(daemon)) == [
            *("EmbeddedServer", "Collector", "Hub", "UserManager", "Heartbeat", "RedisPubSub"),
            *("MarketSimulation", "RedisPublisher", "Listener", "_Report"),
        ]
        assert names(daemon._stops) == [
            *("Heartbeat", "MarketSimulation", "RedisPublisher", "RedisPubSub", "Hub"),
            *("UserManager", "Listener", "_Report", "Collector", "EmbeddedServer"),
        ]
        assert part(daemon, UserManager).drain_seconds == 0
        for kind in (EmbeddedServer, MarketSimulation, RedisPublisher):
            assert part(daemon, kind)

    def test_an_embedded_server_without_a_market(self) -> None:
        """For an engine on the same machine."""
        daemon = build(FakeReactor(), Settings(redis=EMBEDDED), IN_FRONT)
        assert names(list(daemon))[:3] == ["EmbeddedServer", "Collector", "Hub"]
        assert not any(isinstance(service, MarketSimulation) for service in daemon)
        assert part(daemon, UserManager).drain_seconds == 20

    def test_every_part_is_stopped(self) -> None:
        """None is forgotten in the second list."""
        for settings in (Settings(), Settings(demo=True, redis=EMBEDDED)):
            daemon = build(FakeReactor(), settings, IN_FRONT)
            assert set(daemon._stops) == set(daemon)

    def test_the_settings_reach_the_parts(self) -> None:
        """Each where it is used."""
        settings = Settings(
            port="0",
            channel_prefix="p:",
            max_streams=3,
            request_rate=4.0,
            request_burst=5,
            max_message=6,
            client_queue=7000,
            validate="warn",
            max_payload=8,
            max_distinct_streams=9,
            linger=1.5,
            max_connections=10,
            drain_seconds=11.0,
        )
        reactor = FakeReactor()
        daemon = build(reactor, settings, IN_FRONT)
        limits = part(daemon, Hub)._limits
        assert (limits.channel_prefix, limits.strict, limits.max_payload) == ("p:", False, 8)
        assert (limits.max_distinct_streams, limits.linger) == (9, 1.5)
        assert part(daemon, RedisPubSub)._prefix == b"p:"
        assert part(daemon, UserManager).drain_seconds == 11
        factory = part(daemon, Listener)._factory
        assert isinstance(factory, ClientFactory)
        limits = factory.session_limits
        assert (limits.max_streams, limits.request_rate, limits.request_burst) == (3, 4.0, 5)
        assert factory.client_queue == 7000
        protocol = factory.buildProtocol(IPv6Address("TCP", "::1", 5))
        assert isinstance(protocol, ClientProtocol)
        assert protocol.maxMessagePayloadSize == protocol.maxFramePayloadSize == 6

    def test_ready_is_who_was_reached_and_does_not_drain(self) -> None:
        """Losing the source again changes nothing."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        is_ready = part(daemon, Listener)._factory.is_ready
        hub = part(daemon, Hub)
        assert not is_ready()
        hub.reached()
        assert is_ready()
        hub.lost(None)
        assert is_ready()
        part(daemon, UserManager).draining = True
        assert not is_ready()

    @pytest.mark.parametrize(("asked", "granted"), [(872, 872), (873, 872), (20000, 872)])
    def test_there_are_no_more_clients_than_files(self, asked: int, granted: int, logged: LogCapture) -> None:
        """Less those for other things; that it was lowered is said once it runs."""
        daemon = build(FakeReactor(), Settings(max_connections=asked), IN_FRONT)
        users = part(daemon, UserManager)
        assert users._max_connections == granted
        report(daemon)
        warnings = [event["note"] for event in logged.events if event["log_level"].name == "warn"]
        lowered = f"--max-connections is lowered from {asked} to 872: no more files may be open at once"
        assert warnings == ([] if asked == granted else [lowered])

    def test_at_least_one_client_fits(self, monkeypatch: pytest.MonkeyPatch, logged: LogCapture) -> None:
        """However few files there are, and the line says so."""
        monkeypatch.setattr(marketfeed.daemon, "raise_file_limit", lambda: 64)
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        assert part(daemon, UserManager)._max_connections == 1
        report(daemon)
        assert "from 20000 to 1:" in logged.events[0]["note"]

    @pytest.mark.parametrize("demo", [True, False])
    def test_what_it_is_is_said_at_the_start(
        self, monkeypatch: pytest.MonkeyPatch, demo: bool, logged: LogCapture
    ) -> None:
        """Where, from which Redis without its password, the warnings; in a demo also what to do next."""
        monkeypatch.setattr(sys, "argv", ["/opt/env/bin/twistd"])
        redis = EMBEDDED if demo else parse_redis_url("redis://:secret@example.com:6380/1")
        daemon = build(
            FakeReactor(), Settings(demo=demo, redis=redis, max_connections=1, warnings=("careful",)), IN_FRONT
        )
        part(daemon, Listener).privilegedStartService()
        report(daemon)
        _, warning, banner, *hint = logged.events
        assert warning["note"] == "careful"
        assert banner["redis"] == redis
        assert "secret" not in repr(logged.events)
        assert len(hint) == demo
        if demo:
            assert hint[0]["command"] == "/opt/env/bin/marketfeed"
            assert hint[0]["url"] == f"ws://localhost:{part(daemon, Listener).port_number}"

    def test_the_log_is_ours_unless_twistd_was_told(self) -> None:
        """The application, which twistd asks for it, gets it."""
        settings = Settings(log_format="json", log_level="warn")
        application = Application("x")
        reactor = FakeReactor()
        build(reactor, settings, IN_FRONT).setServiceParent(application)
        assert application.getComponent(ILogObserver) == (reactor, IN_FRONT, "json", "warn")  # type: ignore[attr-defined]
        for told in ({"logger": "x.y"}, {"syslog": 1}):
            application = Application("x")
            build(FakeReactor(), settings, told).setServiceParent(application)
            assert application.getComponent(ILogObserver, None) is None  # type: ignore[attr-defined]

    def test_it_can_be_a_part_of_another_service(self) -> None:
        """Which is no application, and is asked for nothing."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        other = Daemon(FakeReactor(), FakeUsers(), True, "")
        daemon.setServiceParent(other)
        assert list(other) == [daemon]


class TestFaults:
    def test_no_server_to_embed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The line says what to install."""

        def find_server() -> str:
            raise NoServerFound("install one")

        monkeypatch.setattr(marketfeed.daemon, "find_server", find_server)
        with pytest.raises(StartFault, match=r"^install one$"):
            build(FakeReactor(), Settings(redis=EMBEDDED), IN_FRONT)

    def test_a_ca_that_cannot_be_read(self) -> None:
        """The line names the option."""
        settings = Settings(redis=parse_redis_url("rediss://x"), redis_ca="/nonexistent")
        with pytest.raises(StartFault, match=r"^--redis-ca: /nonexistent: No such file or directory$"):
            build(FakeReactor(), settings, IN_FRONT)

    def test_a_port_that_cannot_be_read(self) -> None:
        """The line names the option and what would be accepted."""
        with pytest.raises(StartFault, match=r"^--port: .*endpoint description.*nonsense"):
            build(FakeReactor(), Settings(port="nonsense:"), IN_FRONT)
