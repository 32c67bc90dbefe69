"""The root of the tree: the signals, the order in which its parts start and stop, a port that cannot be had."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred

import marketfeed.daemon.root
from marketfeed.daemon.root import Daemon
from marketfeed.runtime.listener import CannotServe
from tests.conftest import LogCapture
from tests.daemon.fakes import FakeReactor, FakeUsers, SignalModule


@pytest.fixture(autouse=True)
def _signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that runs these tests goes on heeding its own."""
    monkeypatch.setattr(marketfeed.daemon.root, "signal", SignalModule({}))


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


class Rig:
    """A daemon without parts, and what is around it."""

    def __init__(self, *, in_front: bool = True, pid_file: str = "") -> None:
        self.reactor = FakeReactor()
        self.users = FakeUsers()
        self.daemon = Daemon(self.reactor, self.users, in_front, pid_file)


class TestSignals:
    @pytest.fixture
    def rig(self, monkeypatch: pytest.MonkeyPatch) -> Rig:
        """A daemon that runs, and the handlers that it set."""
        rig = Rig()
        self.handlers: dict[int, Callable[..., None]] = {}
        monkeypatch.setattr(marketfeed.daemon.root, "signal", SignalModule(self.handlers))
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
        assert self.handlers.keys() == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2}

    def test_a_signal_may_come_before_it_runs(self, rig: Rig) -> None:
        """As soon as the log says that clients may come."""
        assert self.early.keys() == self.handlers.keys()
        self.early[signal.SIGTERM](signal.SIGTERM, None)
        assert rig.reactor.stops == 1

    def test_sigterm_drains(self, rig: Rig) -> None:
        """The reactor stops, without hurry."""
        self._send(signal.SIGTERM)
        assert (rig.reactor.stops, rig.users.hurried) == (1, 0)

    def test_sigint_ends_at_once(self, rig: Rig) -> None:
        """Hurry comes first."""
        self._send(signal.SIGINT)
        assert (rig.reactor.stops, rig.users.hurried) == (1, 1)

    def test_sighup_reloads(self, rig: Rig, logged: LogCapture) -> None:
        """Nothing ends, whatever comes of it."""
        reloads: list[int] = []
        rig.daemon.reload = lambda: reloads.append(1)
        self._send(signal.SIGHUP)
        rig.daemon.reload = lambda: reloads.append(1 // 0)
        self._send(signal.SIGHUP)
        assert len(logged.flush_failures(ZeroDivisionError)) == 1
        assert reloads == [1]
        assert (rig.reactor.stops, rig.users.hurried) == (0, 0)

    def test_sigusr2_is_ignored_where_there_are_no_workers(self, rig: Rig, logged: LogCapture) -> None:
        """With a line, or an operator would wait."""
        self._send(signal.SIGUSR2)
        assert logged.formats() == ["SIGUSR2 is ignored: there are no workers to be replaced without --workers"]
        rolls: list[int] = []
        rig.daemon.roll = lambda: rolls.append(1)
        self._send(signal.SIGUSR2)
        assert (rolls, rig.reactor.stops) == ([1], 0)

    def test_a_worker_heeds_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A terminal sends them to all processes; its parent says what comes of it."""
        handlers: dict[int, Any] = {}
        monkeypatch.setattr(marketfeed.daemon.root, "signal", SignalModule(handlers))
        Daemon(FakeReactor(), FakeUsers(), in_front=True, heeds_signals=False).privilegedStartService()
        every = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        assert handlers == dict.fromkeys(every, signal.SIG_IGN)

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
        for part in (first, second, third):
            part.setServiceParent(rig.daemon)
        rig.daemon.stops = (second, third, first)
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
        rig.daemon.stops = tuple(parts)
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
        self.Taken().setServiceParent(rig.daemon)
        with pytest.raises(SystemExit) as caught:
            rig.daemon.privilegedStartService()
        assert caught.value.code == "marketfeed: port 8080 is taken"
        assert not pid_file.exists()

    def test_in_the_background_it_is_left_to_twistd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which shows it in the foreground. SystemExit would leave that waiting for ever."""
        monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)
        rig = Rig(in_front=False)
        self.Taken().setServiceParent(rig.daemon)
        with pytest.raises(OSError, match=r"^port 8080 is taken$"):
            rig.daemon.privilegedStartService()
        assert sys.tracebacklimit == 0
