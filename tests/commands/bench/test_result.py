"""From what was counted to what is reported: quotients that exist, and warnings that are deserved."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from marketfeed.commands.address import parse_url
from marketfeed.commands.bench.client import Meeting
from marketfeed.commands.bench.crowd import Crowd
from marketfeed.commands.bench.engine import NumberedEngine
from marketfeed.commands.bench.machine import Usage
from marketfeed.commands.bench.plan import Plan
from marketfeed.commands.bench.report import Report
from marketfeed.commands.bench.result import Course, Sample, make_report
from marketfeed.commands.handshake import Handshake
from marketfeed.redis.address import RedisAddress

ADDRESS = parse_url("ws://h")
PLAN = Plan(ADDRESS, ["trade@A"], clients=10, redis=RedisAddress(path="/s"), server_pids=[1])


def sample(time: float, own: float, server: float, published: int = 0, publications: int = 0, size: int = 0) -> Sample:
    return Sample(time, Usage(own, server, None), published, publications, size)


COURSE = Course(
    begun=sample(0, 0, 1),
    opened=sample(2, 1, 1.5),
    first=sample(10, 2, 2, 100, 1000, 5000),
    last=sample(20, 7, 6, 1100, 11000, 25000),
    resident_before=1000,
    resident_connected=1100,
    resident_after=1300,
    interruptions=0,
    stalled=False,
)


@pytest.fixture
def crowd() -> Crowd:
    """Ten clients have connected; nothing came wrong."""
    meeting = Meeting(ADDRESS, socket.AF_INET, ("127.0.0.1", 1), None, Handshake(ADDRESS))
    made = Crowd(selectors.DefaultSelector(), meeting, ["trade@A"], lambda: 0, per_client=1, slow=0, first_number=1)
    made.connects.add(1000, 10)
    return made


@pytest.fixture
def engine() -> Iterator[NumberedEngine]:
    """One that has published."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield NumberedEngine(ours, ["trade@A"])


def reported(crowd: Crowd, engine: NumberedEngine | None, plan: Plan = PLAN, **course: Any) -> Report:
    return make_report(plan, crowd, engine, msgspec.structs.replace(COURSE, **course))


def test_figures(crowd: Crowd, engine: NumberedEngine) -> None:
    """Each is of its own phase: the connecting, the measuring."""
    report = reported(crowd, engine)
    assert (report.connect_seconds, report.connects_per_second) == (2, 5)
    assert (report.published, report.published_per_second) == (1000, 100)
    assert (report.deliveries, report.deliveries_per_second, report.bytes_per_second) == (10_000, 1000, 2000)
    assert (report.generator_cpu, report.generator_busy, report.generator_busy_connecting) == (0.5, 0.5, 0.5)
    assert report.server is not None
    assert (report.server.cpu, report.server.cpu_per_connect, report.server.cpu_per_delivery) == (0.4, 50_000, 400)
    assert (report.server.resident_per_client, report.server.resident_after) == (10, 1300)
    assert (report.is_faultless, report.interrupted, report.warnings) == (True, False, [])


def test_nothing_happened(crowd: Crowd) -> None:
    """Nothing is divided by nothing."""
    report = reported(crowd, None, last=COURSE.first)
    assert (report.seconds, report.deliveries_per_second, report.generator_cpu) == (0, 0, 0)
    assert report.server is not None
    assert report.server.cpu_per_delivery is None
    assert not report.publishes


def test_without_the_servers_process_nothing_is_said_of_it(crowd: Crowd) -> None:
    """None is not zero."""
    assert reported(crowd, None, msgspec.structs.replace(PLAN, server_pids=[])).server is None


@pytest.mark.parametrize(
    ("plan", "course", "warning"),
    [
        ({}, {"interruptions": 1}, "interrupted: this is the report so far"),
        ({}, {"stalled": True}, "the test was ended because nothing arrived any more"),
        ({}, {"last": sample(20, 11.5, 6, 1100)}, "the load generator's core was busy for 95% of the time"),
        ({"compression": True}, {}, "the server did not accept compression"),
        ({"rate": 200.0}, {}, "only 1,000 of 2,000 messages were published in time"),
    ],
)
def test_warnings(
    crowd: Crowd, engine: NumberedEngine, plan: dict[str, Any], course: dict[str, Any], warning: str
) -> None:
    """One line for what makes the figures say something else than they seem to."""
    (found,) = reported(crowd, engine, msgspec.structs.replace(PLAN, **plan), **course).warnings
    assert found.startswith(warning)


@pytest.mark.parametrize("plan", [{"rate": 100.0}, {"rate": 104.0}, {"rate": 500.0, "messages": 5}])
def test_a_rate_that_was_kept_is_no_warning(crowd: Crowd, engine: NumberedEngine, plan: dict[str, Any]) -> None:
    """Nor one that no time was set for."""
    assert reported(crowd, engine, msgspec.structs.replace(PLAN, **plan)).warnings == []
