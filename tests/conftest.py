"""What every test has: it fails when it leaves a timer, an unhandled Deferred or a logged failure behind."""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import engine as hypothesis_engine
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from marketfeed.config.options import OPTIONS
from marketfeed.runtime.logs import Log
from tests.redis_servers.network import Network, no_network
from tests.rooms import Room
from tests.system.harness import Harness

# A shell's background job ignores SIGINT, and so would every process that a test starts. A handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: None)

settings.register_profile("unhurried", deadline=None)  # nothing may depend on speed
settings.load_profile("unhurried")
settings.register_profile("quick", settings.get_profile("unhurried"), max_examples=20)
settings.register_profile(  # draws the same each time: luck is not to decide whether a change is let in
    "brief", settings.get_profile("unhurried"), max_examples=8, derandomize=True
)
settings.register_profile(
    "fuzz",
    settings.get_profile("unhurried"),
    max_examples=30_000,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)

# Seconds in which a failure is made smaller: five minutes, as Hypothesis has it, are a quarter of what CI may take.
# There is no setting for this; Hypothesis says there that it may be assigned.
hypothesis_engine.MAX_SHRINKING_SECONDS = 60

_SEVERAL_SERVERS = ("redis_servers/", "system/test_cluster", "system/test_sentinel", "system/test_group_faults")
"""Where the tests are whose servers take seconds to agree on anything: a third of the time that all tests take."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those tests, so that `-m "not several_servers"` leaves them out."""
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(_SEVERAL_SERVERS):
            item.add_marker("several_servers")


@implementer(ILogObserver)
class LogCapture:
    """The events that were logged during one test."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def formats(self) -> list[str]:
        """The unformatted messages, in order."""
        return [str(event.get("log_format")) for event in self.events]

    def failures(self) -> list[dict[str, Any]]:
        """Those of both of Twisted's logging systems."""
        return [event for event in self.events if _failure(event) is not None]

    def flush_failures(self, kind: type[BaseException]) -> list[dict[str, Any]]:
        """Take out the failures of one type, which the test expected."""
        taken = [event for event in self.failures() if _failure(event).check(kind)]
        self.events = [event for event in self.events if event not in taken]
        return taken


def _failure(event: dict[str, Any]) -> Any:
    return event.get("log_failure") or (event.get("failure") if event.get("isError") else None)


@pytest.fixture(scope="session", autouse=True)
def started_reactor(twisted_greenlet: object) -> None:
    """The reactor takes its signals before any test, for the first one of a worker may have replaced `signal.signal`.

    A reactor without SIGCHLD hears of the end of a process by chance or never.
    """
    pytest_twisted.blockon(deferLater(reactor, 0))


@pytest.fixture(autouse=True)
def logged() -> Iterator[LogCapture]:
    """The log of this test, with what is of use for debugging; anything left over at its end is the test's failure."""
    before = set(reactor.getDelayedCalls())
    capture = LogCapture()
    Log.debugging = True  # an output of an earlier test may have wanted less
    globalLogPublisher.addObserver(capture)
    try:
        yield capture
        gc.collect(1)
    finally:
        globalLogPublisher.removeObserver(capture)
    leftover = [call for call in reactor.getDelayedCalls() if call not in before]
    for call in leftover:
        call.cancel()
    assert not leftover, f"timers left over: {leftover}"
    failures = [_failure(event).getTraceback() for event in capture.failures()]
    assert not failures, "failures logged:\n" + "\n".join(failures)


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option of the daemon has a value from where the tests run."""
    for option in OPTIONS:
        monkeypatch.delenv(option.environment, raising=False)


@pytest.fixture
def room() -> Iterator[Room]:
    yield (room := Room())
    room.source.calls.clear()
    room.hub.stopService()
    leftover = [call for call in room.clock.getDelayedCalls() if call.active()]
    assert not leftover, f"timers left over in the hub: {leftover}"


@pytest_twisted.async_yield_fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """Real parts, all ended with the test."""
    parts = Harness(reactor, tmp_path)
    try:
        yield parts
    finally:
        await parts.close()


@pytest.fixture
def network() -> Iterator[Network]:
    """A far side, for servers that are to be cut off."""
    if why := no_network():
        pytest.skip(why)
    with Network() as network:
        yield network
