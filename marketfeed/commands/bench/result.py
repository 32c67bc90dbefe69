"""From what was counted to what is reported."""

from __future__ import annotations

import msgspec

from marketfeed.commands.bench.crowd import Crowd
from marketfeed.commands.bench.engine import NumberedEngine
from marketfeed.commands.bench.machine import Usage, core_share
from marketfeed.commands.bench.plan import Plan
from marketfeed.commands.bench.report import BUSY, Report, ServerReport

__all__ = ["Course", "Sample", "make_report"]

_NEARLY = 0.95
"""The share of the messages that should have been published, below which a paced test is not what it says."""

_TELLING_SECONDS = 0.5
"""A time that is long enough for a share of it to say something."""


class Sample(msgspec.Struct, frozen=True):
    """The state of all counters at one moment."""

    time: float
    usage: Usage
    published: int
    publications: int
    size: int


class Course(msgspec.Struct, frozen=True):
    """How a load test went: when it began, when all clients were open, the measuring; then memory, in KiB.

    `interruptions`: from the second on, what was on its way was not waited for. `stalled`: nothing arrived any more.
    """

    begun: Sample
    opened: Sample
    first: Sample
    last: Sample
    resident_before: int
    resident_connected: int
    resident_after: int
    interruptions: int
    stalled: bool

    @property
    def seconds(self) -> float:
        return self.last.time - self.first.time

    @property
    def published(self) -> int:
        return self.last.published - self.first.published

    @property
    def deliveries(self) -> int:
        return self.last.publications - self.first.publications


def _busy(first: Sample, last: Sample) -> float:
    """The share of its core that the load generator had no more of: what it used itself, or all used together."""
    own = _ratio(last.usage.own - first.usage.own, last.time - first.time)
    return min(max(own, core_share(first.usage, last.usage) or 0.0), 1.0)


def make_report(plan: Plan, crowd: Crowd, engine: NumberedEngine | None, course: Course) -> Report:
    """The report of a test that is over."""
    order = crowd.order
    connect_seconds = course.opened.time - course.begun.time
    return Report(
        url=plan.address.shown,
        publishes=engine is not None,
        clients=plan.clients,
        streams=len(plan.streams),
        per_client=plan.per_client,
        slow=plan.slow,
        compressed=crowd.deflated,
        opened=crowd.connects.total,
        connect_seconds=connect_seconds,
        connects_per_second=_ratio(crowd.connects.total, connect_seconds),
        connect_ms=crowd.connects.percentiles(),
        storm_seconds=connect_seconds if plan.storm else None,
        seconds=course.seconds,
        published=course.published,
        published_per_second=_ratio(course.published, course.seconds),
        deliveries=course.deliveries,
        deliveries_per_second=_ratio(course.deliveries, course.seconds),
        bytes_per_second=_ratio(course.last.size - course.first.size, course.seconds),
        latency_ms=crowd.latencies.percentiles(),
        timed=crowd.latencies.total,
        lost=crowd.lost(has_ended=course.interruptions < 2),
        duplicated=order.duplicated,
        out_of_order=order.out_of_order,
        unasked=order.unasked,
        merged=0 if engine is None else crowd.merged,
        events=dict(crowd.events),
        closed={str(code): count for code, count in sorted(crowd.closed.items())},
        slow_open=crowd.slow_open,
        slow_closed={str(code): count for code, count in sorted(crowd.slow_closed.items())},
        generator_cpu=_ratio(course.last.usage.own - course.first.usage.own, course.seconds),
        generator_busy=_busy(course.first, course.last),
        generator_busy_connecting=_busy(course.begun, course.opened),
        server=_server_report(crowd, course) if plan.server_pids else None,
        interrupted=course.interruptions > 0,
        warnings=_warnings(plan, crowd, engine, course),
    )


def _server_report(crowd: Crowd, course: Course) -> ServerReport:
    clients = max(crowd.connects.total, 1)
    used = course.last.usage.server - course.first.usage.server
    return ServerReport(
        cpu=_ratio(used, course.seconds),
        cpu_per_connect=(course.opened.usage.server - course.begun.usage.server) / clients * 1e6,
        cpu_per_delivery=used / course.deliveries * 1e6 if course.deliveries else None,
        resident_before=course.resident_before,
        resident_connected=course.resident_connected,
        resident_after=course.resident_after,
        resident_per_client=(course.resident_connected - course.resident_before) / clients,
    )


def _warnings(plan: Plan, crowd: Crowd, engine: NumberedEngine | None, course: Course) -> list[str]:
    found = []
    if course.interruptions:
        found.append("interrupted: this is the report so far")
    if course.stalled:
        found.append("the test was ended because nothing arrived any more")
    busy = _busy(course.first, course.last)
    if busy > BUSY and course.seconds >= _TELLING_SECONDS:
        found.append(
            f"the load generator's core was busy for {busy:.0%} of the time: it may be what limits the figures"
        )
    if plan.compression and crowd.deflated < crowd.connects.total:
        found.append("the server did not accept compression")
    if engine is None:
        return found
    if engine.unheard and not plan.storm:  # where streams have nobody in the beginning
        found.append(
            f"{engine.unheard:,} publications had no subscriber at {plan.redis}: is it the one that the server reads?"
        )
    if plan.rate is not None and plan.messages is None:
        wanted = int(plan.rate * course.seconds)
        if course.published < _NEARLY * wanted - 1:
            found.append(f"only {course.published:,} of {wanted:,} messages were published in time")
    return found


def _ratio(of: float, to: float) -> float:
    return of / to if to else 0.0
