"""What log lines look like, and where they go."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.logger import LogEvent, Logger, LogLevel, globalLogBeginner
from twisted.logger._legacy import publishToNewObserver
from twisted.python.failure import Failure
from twisted.python.log import textFromEventDict

import marketfeed.runtime.logs
from marketfeed.runtime.logs import Log, log_to_stderr, make_observer


class Reactor:
    """As much of a reactor as an observer needs."""

    def __init__(self, *, running: bool = False) -> None:
        self.running = running
        self.later: list[Callable[[], None]] = []
        self.in_a_second: list[Callable[[], None]] = []
        self.at_the_end: list[Callable[[], None]] = []

    def callLater(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds in (0, 1)
        (self.in_a_second if seconds else self.later).append(call)

    def callFromThread(self, call: Callable[[], None]) -> None:
        self.later.append(call)

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], None]) -> None:
        assert (phase, event) == ("after", "shutdown")
        self.at_the_end.append(call)

    def turn(self) -> None:
        """The end of a turn."""
        later, self.later = self.later, []
        for call in later:
            call()

    def second(self) -> None:
        """A second, and the turn in which it ends."""
        calls, self.in_a_second = self.in_a_second, []
        for call in calls:
            call()
        self.turn()


class Destination:
    """A logger that writes into a file in memory, and what it wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log_format: str, log_level: str = "info") -> None:
        self.out = io.StringIO()
        monkeypatch.setattr(sys, "stdout", self.out)
        self.reactor = Reactor()
        self.output = make_observer(self.reactor, {"nodaemon": 1}, log_format, log_level)
        self.observe: Callable[[LogEvent], None] = self.output
        self.log = Logger("marketfeed.part", observer=self.observe)  # type: ignore[arg-type]

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> Destination:
    return Destination(monkeypatch, "text")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Destination:
    return Destination(monkeypatch, "json")


class TestText:
    def test_a_line_has_the_time_the_level_and_the_message(self, text: Destination) -> None:
        """The time in UTC to the millisecond."""
        text.log.info("client {client} connected from {peer}", client=7, peer="tcp4:192.0.2.7:5")
        text.log.error("no")
        first, second = text.lines
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info  client 7 connected from tcp4:192.0.2.7:5", first
        )
        assert second.endswith("Z error no")

    def test_what_a_client_sent_begins_no_line(self, text: Destination) -> None:
        """A line break in a field is seen as one."""
        text.log.info("asked for {name}", name="x\n2030-01-01T00:00:00.000Z error forged\rtoo")
        first, second = text.lines
        assert first.endswith(" info  asked for x")
        assert second == r"    2030-01-01T00:00:00.000Z error forged\rtoo"

    def test_a_failure_has_its_traceback(self, text: Destination) -> None:
        """Indented, so that each line of the file that is not belongs to the one above."""
        try:
            raise ZeroDivisionError("by nothing")
        except ZeroDivisionError:
            text.log.failure("client {client}: internal error", client=7)
        first, *rest = text.lines
        assert first.endswith("Z critical client 7: internal error")
        assert rest[-1] == "    builtins.ZeroDivisionError: by nothing"
        assert all(line.startswith("    ") for line in rest)

    def test_what_twisted_says_of_itself_is_for_debugging(
        self, text: Destination, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its warnings are not; a stranger cannot read the rest, as `ClientFactory starting on 8080`."""
        all_of_it = Destination(monkeypatch, "text", "debug")
        for destination, shown in (text, 1), (all_of_it, 3):
            event = {"message": ("Factory starting on 8080",), "isError": 0, "time": 0.0}
            publishToNewObserver(destination.observe, event, textFromEventDict)
            theirs = Logger("twisted.scripts.part", observer=destination.observe)  # type: ignore[arg-type]
            theirs.info("Server Shut Down.")
            theirs.warn("careful")
            assert len(destination.lines) == shown
        assert all_of_it.lines[0] == "1970-01-01T00:00:00.000Z info  Factory starting on 8080"
        assert text.lines[0].endswith("warn  careful")

    def test_errors_of_the_old_kind_are_shown(self, text: Destination) -> None:
        """As a library logs one."""
        event = {"message": ("no way",), "isError": 1, "time": 0.0}
        publishToNewObserver(text.observe, event, textFromEventDict)
        assert text.lines == ["1970-01-01T00:00:00.000Z critical no way"]

    def test_a_failure_without_a_message_is_shown(self, text: Destination) -> None:
        """It is what an unhandled Deferred logs."""
        text.log.failure("", failure=Failure(ZeroDivisionError("by nothing")))
        assert "by nothing" in text.lines[-1]


class TestJson:
    def test_a_line_is_an_object_with_the_facts(self, machine: Destination) -> None:
        """The message for people, every field for machines."""
        machine.log.info("client {client} disconnected: {reason}", client=7, reason="closed\nby é", age=1.5, more=[1])
        (event,) = machine.objects
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", event.pop("time"))
        assert event == {
            "level": "info",
            "logger": "marketfeed.part",
            "message": "client 7 disconnected: closed\nby é",
            "client": 7,
            "reason": "closed\nby é",
            "age": 1.5,
            "more": [1],
        }

    def test_facts_that_json_does_not_have_are_texts(self, machine: Destination) -> None:
        """Bytes, whatever they hold, and objects of any kind."""
        machine.log.info("x", asked=b'{"a":"\xc3\xa9"}', binary=b"\xff\x00", address=Path("/x"), kind=ValueError)
        (event,) = machine.objects
        assert event["asked"] == '{"a":"é"}'
        assert event["binary"] == "\\xff\x00"
        assert event["address"] == "/x"
        assert event["kind"] == "<class 'ValueError'>"

    def test_no_fact_hides_what_every_line_has(self, machine: Destination) -> None:
        """Nor do Twisted's own fields appear."""
        machine.observe(
            {"log_format": "x", "log_time": 0.0, "log_level": LogLevel.info, "log_namespace": "marketfeed.part"}
            | {"level": "fake", "message": "fake", "system": "fake", "time": 0, "isError": 1}
        )
        (event,) = machine.objects
        assert (event["level"], event["message"]) == ("info", "x")
        assert event.keys() == {"time", "level", "logger", "message"}

    def test_a_failure_has_its_traceback_in_a_field(self, machine: Destination) -> None:
        """All on one line."""
        try:
            raise ZeroDivisionError("by nothing")
        except ZeroDivisionError:
            machine.log.failure("client {client}: internal error", client=7)
        (event,) = machine.objects
        assert event["level"] == "critical"
        assert event["message"] == "client 7: internal error"
        assert "ZeroDivisionError: by nothing" in event["traceback"]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
def test_a_level_shows_itself_and_what_is_worse(
    monkeypatch: pytest.MonkeyPatch, log_format: str, level: str, shown: int
) -> None:
    """In both formats."""
    destination = Destination(monkeypatch, log_format, level)
    for name in ("debug", "info", "warn", "error"):
        getattr(destination.log, name)("x")
    assert len(destination.lines) == shown


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_events_without_a_message_are_left_out(monkeypatch: pytest.MonkeyPatch, log_format: str) -> None:
    """Twisted has such, for other observers."""
    destination = Destination(monkeypatch, log_format)
    event = {"eventType": "start", "message": (), "isError": 0, "time": 0.0}
    publishToNewObserver(destination.observe, event, textFromEventDict)
    destination.log.info(None)
    assert not destination.lines


class TestLog:
    def test_an_event_is_as_twisted_makes_it(self) -> None:
        """All the fields of one, whatever the method; a failure has its own."""
        events: list[LogEvent] = []
        for kind in (Log, Logger):
            log = kind("marketfeed.part", source=self, observer=events.append)  # type: ignore[arg-type]
            log.info("client {client}", client=7)
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                log.failure("no")
        for ours, theirs in zip(events[:2], events[2:], strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours.keys() - {"log_time", "log_logger", "log_failure"}:
                assert ours[name] == theirs[name]

    @pytest.mark.parametrize(("level", "count"), [("debug", 1), ("info", 0)])
    def test_what_nobody_hears_is_not_said(self, level: str, count: int) -> None:
        """The observer of the daemon says whether it is for debugging."""
        events: list[LogEvent] = []
        make_observer(Reactor(), {"nodaemon": 1}, "text", level)
        Log("marketfeed.part", observer=events.append).debug("x")  # type: ignore[arg-type]
        assert len(events) == count

    def test_the_level_may_change(self, text: Destination) -> None:
        """While it is written."""
        text.log.debug("1")
        text.output.set_level("debug")
        assert Log.debugging
        text.log.debug("2")
        text.output.set_level("error")
        assert not Log.debugging
        text.log.warn("3")
        text.log.error("4")
        assert [line[-1] for line in text.lines] == ["2", "4"]

    def test_a_log_of_a_class_is_named_after_it(self) -> None:
        """As Twisted's is."""

        class Part:
            log = Log()

        assert Part.log.namespace == f"{__name__}.Part"
        assert Part().log is Part.log  # to make another one each time would take longer than to log
        assert type(Part().log) is Log


class TestTurns:
    """What is logged in one turn of the reactor is written at its end."""

    def test_lines_of_a_turn_are_written_together(self, text: Destination) -> None:
        """In their order; one call is enough for all of them."""
        text.reactor.running = True
        text.log.info("one")
        text.log.info("two")
        assert not text.lines
        assert len(text.reactor.later) == 1
        text.reactor.turn()
        assert [line[-3:] for line in text.lines] == ["one", "two"]
        text.log.info("three")
        text.reactor.turn()
        assert text.lines[2].endswith("three")

    def test_what_is_left_at_the_end_is_written(self, text: Destination) -> None:
        """When the reactor has stopped, and what comes after that at once, behind it."""
        text.reactor.running = True
        text.log.info("one")
        text.reactor.running = False
        text.log.info("two")
        assert [line[-3:] for line in text.lines] == ["one", "two"]
        text.reactor.running = True
        text.log.info("three")
        for call in text.reactor.at_the_end:
            call()
        assert text.lines[2].endswith("three")

    def test_a_line_of_another_thread_wakes_the_reactor(
        self, text: Destination, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It would wait for the next event of the reactor otherwise."""
        text.reactor.running = True
        monkeypatch.setattr(marketfeed.runtime.logs, "isInIOThread", lambda: False)
        monkeypatch.setattr(text.reactor, "callLater", None)
        text.log.info("one")
        text.reactor.turn()
        assert text.lines[0].endswith("one")


class TestUnwritable:
    """A disk that is full, a pipe that nobody reads."""

    @pytest.fixture(autouse=True)
    def _all_is_logged_here(self, text: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the log says of itself, too."""
        monkeypatch.setattr(marketfeed.runtime.logs.Out.log, "observer", text.observe)

    def breaks(self, text: Destination, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """From now on nothing can be written; what was tried."""
        tried: list[str] = []

        def write(lines: str) -> None:
            tried.append(lines)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(text.out, "write", write)
        return tried

    def test_it_is_tried_once_a_second(self, text: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
        """However much there is to say; nothing is kept, and nothing fails."""
        text.reactor.running = True
        tried = self.breaks(text, monkeypatch)
        for number in range(1, 6):
            for _ in range(100):
                text.log.info("x")
                text.reactor.turn()
            assert len(tried) == number
            assert len(text.reactor.in_a_second) == 1
            text.reactor.second()
        assert sum(map(len, tried)) < 1000

    def test_what_was_lost_is_told(self, text: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
        """As soon as something can be written, and once."""
        text.reactor.running = True
        with monkeypatch.context() as broken:
            self.breaks(text, broken)
            for _ in range(50):
                text.log.info("x")
                text.reactor.turn()
            text.reactor.second()
            text.reactor.second()
        text.log.info("lost, too")
        text.reactor.second()
        text.log.info("y")
        text.reactor.turn()
        assert [line[25:] for line in text.lines] == [
            "warn  51 lines of the log were lost: No space left on device",
            "info  y",
        ]
        assert not text.reactor.in_a_second

    def test_when_the_reactor_does_not_run(self, text: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line is lost, and no more."""
        tried = self.breaks(text, monkeypatch)
        text.log.info("x")
        text.log.info("x")
        assert len(tried) == 2
        assert not text.reactor.in_a_second


def test_a_command_logs_to_stderr_as_the_daemon_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same format, without what Twisted says of itself; nothing of it is on standard output."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    begun: list[Callable[[LogEvent], None]] = []
    monkeypatch.setattr(globalLogBeginner, "beginLoggingTo", lambda observers, **_: begun.extend(observers))
    for log_format in ("text", "json"):
        log_to_stderr(Reactor(), log_format, "info")
        Logger("marketfeed.part", observer=begun[-1]).info("redis: connected")  # type: ignore[arg-type]
        Logger("twisted.part", observer=begun[-1]).info("Main loop terminated.")  # type: ignore[arg-type]
    text, machine = err.getvalue().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info  redis: connected", text)
    assert json.loads(machine)["message"] == "redis: connected"
    assert not out.getvalue()


class TestJournal:
    def _logger(self, path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str, stream: str = "") -> Logger:
        """Logs to standard output, of which systemd says that it is journald's, or that `stream` is."""
        file = path.open("w")
        status = os.fstat(file.fileno())
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setenv("JOURNAL_STREAM", stream or f"{status.st_dev}:{status.st_ino}")
        return Logger("part", observer=make_observer(Reactor(), {"nodaemon": 1}, log_format, "debug"))  # type: ignore[arg-type]

    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_each_line_has_its_priority(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str) -> None:
        """As `journalctl --priority` filters by it; of a traceback all lines have it."""
        log = self._logger(tmp_path / "journal", monkeypatch, log_format)
        for level in LogLevel.iterconstants():
            log.emit(level, "two\nlines")
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            log.failure("no")
        priorities = [line[:3] for line in (tmp_path / "journal").read_text().splitlines()]
        each = 2 if log_format == "text" else 1
        expected = [priority for priority in ("<7>", "<6>", "<4>", "<3>", "<2>") for _ in range(each)]
        assert priorities[: 5 * each] == expected
        assert set(priorities[5 * each :]) == {"<2>"}

    def test_other_streams_have_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pipe behind a unit, or a shell: it may be anybody's."""
        self._logger(tmp_path / "pipe", monkeypatch, "text", "1:2").info("x")
        assert re.match(r"\d{4}-", (tmp_path / "pipe").read_text())


class TestDestination:
    @pytest.fixture(autouse=True)
    def _signals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The handlers that are set, without setting them."""
        self.handlers: dict[int, Callable[..., None]] = {}
        # The reactor that runs these tests goes on using the real module.
        module = SimpleNamespace(SIGUSR1=signal.SIGUSR1, signal=self.handlers.__setitem__)
        monkeypatch.setattr(marketfeed.runtime.logs, "signal", module)

    def _log(self, twistd: dict[str, object]) -> None:
        Logger(observer=make_observer(Reactor(), twistd, "text", "info")).info("hello")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "twistd", [{"nodaemon": 1}, {"nodaemon": 1, "logfile": "-"}, {"nodaemon": 1, "logfile": None}]
    )
    def test_in_front_it_is_the_standard_output(
        self, twistd: dict[str, object], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Unless a file is named."""
        self._log(twistd)
        assert capsys.readouterr().out.endswith("info  hello\n")

    @pytest.mark.parametrize("nodaemon", [0, 1])
    def test_a_file_that_is_named(self, tmp_path: Path, nodaemon: int) -> None:
        """In front as well."""
        path = tmp_path / "named.log"
        self._log({"nodaemon": nodaemon, "logfile": str(path)})
        assert path.read_text().endswith("info  hello\n")

    def test_a_daemon_has_a_file_by_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """twistd's own name for it."""
        monkeypatch.chdir(tmp_path)
        self._log({})
        assert (tmp_path / "twistd.log").read_text().endswith("info  hello\n")

    def test_a_daemon_has_no_standard_output(self) -> None:
        """One line says what to do."""
        with pytest.raises(SystemExit) as caught:
            make_observer(Reactor(), {"logfile": "-"}, "text", "info")
        assert "use --logfile or -n" in str(caught.value.code)

    def _file(self, path: Path) -> tuple[Logger, Reactor]:
        reactor = Reactor()
        observe = make_observer(reactor, {"logfile": str(path)}, "text", "info")
        return Logger(observer=observe), reactor  # type: ignore[arg-type]

    def _reopen(self, reactor: Reactor) -> None:
        self.handlers[signal.SIGUSR1](signal.SIGUSR1, None)
        reactor.turn()

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o600])
    def test_a_file_that_was_moved_is_begun_anew_at_sigusr1(self, tmp_path: Path, mode: int) -> None:
        """Under its name and with its mode, whatever the umask is now; what was written stays where it was moved to."""
        path, moved = tmp_path / "named.log", tmp_path / "named.log.1"
        log, reactor = self._file(path)
        path.chmod(mode)
        log.info("before")
        path.rename(moved)
        log.info("moved")
        self.handlers[signal.SIGUSR1](signal.SIGUSR1, None)
        assert not path.exists()  # not within the handler, which may interrupt anything
        old = os.umask(0o077)  # as twistd's is once it is in the background
        try:
            reactor.turn()
        finally:
            os.umask(old)
        log.info("after é")
        assert [line[31:] for line in moved.read_text().splitlines()] == ["before", "moved"]
        assert [line[31:] for line in path.read_text().splitlines()] == ["after é"]
        assert path.stat().st_mode & 0o777 == mode

    def test_a_file_that_is_there_already_keeps_what_it_has(self, tmp_path: Path) -> None:
        """logrotate's `create` says which mode it has; one that was not moved is gone on with."""
        path = tmp_path / "named.log"
        log, reactor = self._file(path)
        log.info("before")
        self._reopen(reactor)
        log.info("after")
        assert [line[31:] for line in path.read_text().splitlines()] == ["before", "after"]
        path.rename(tmp_path / "named.log.1")
        path.touch(0o620)
        path.chmod(0o620)
        self._reopen(reactor)
        log.info("again")
        assert [line[31:] for line in path.read_text().splitlines()] == ["again"]
        assert path.stat().st_mode & 0o777 == 0o620

    def test_a_file_that_cannot_be_opened_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The log goes on where it was, and says why."""
        path = tmp_path / "logs" / "named.log"
        path.parent.mkdir()
        log, reactor = self._file(path)
        monkeypatch.setattr(marketfeed.runtime.logs.Out.log, "observer", log.observer)
        path.parent.rename(tmp_path / "moved")
        self._reopen(reactor)
        log.info("after")
        assert [line[25:] for line in (tmp_path / "moved" / "named.log").read_text().splitlines()] == [
            f"error the log goes on in the file that was moved, for {path} cannot be opened: No such file or directory",
            "info  after",
        ]

    def test_a_file_that_is_cut_is_gone_on_with_at_its_beginning(self, tmp_path: Path) -> None:
        """As logrotate's `copytruncate` does: no hole is left."""
        path = tmp_path / "named.log"
        log, _ = self._file(path)
        log.info("before")
        os.truncate(path, 0)
        log.info("after")
        assert [line[31:] for line in path.read_text().splitlines()] == ["after"]

    def test_a_file_that_cannot_be_opened_at_all(self, tmp_path: Path) -> None:
        """One line says so."""
        with pytest.raises(SystemExit) as caught:
            self._file(tmp_path / "no" / "named.log")
        assert caught.value.code == f"twistd: --logfile: {tmp_path}/no/named.log: No such file or directory"
