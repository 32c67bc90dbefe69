"""How the report of a load test reads."""

from __future__ import annotations

import msgspec

from marketfeed.commands.bench.report import Report, ServerReport, lines
from marketfeed.commands.bench.tally import Percentiles

REPORT = Report(
    url="ws://localhost:8080/",
    publishes=True,
    clients=1000,
    streams=200,
    per_client=10,
    slow=0,
    compressed=0,
    opened=1000,
    connect_seconds=0.2,
    connects_per_second=5000.0,
    connect_ms=Percentiles(1.0, 2.0, 3.0, 4.0, 5.0),
    seconds=10.0,
    published=40_000,
    published_per_second=4000.0,
    deliveries=2_000_000,
    deliveries_per_second=200_000.0,
    bytes_per_second=22e6,
    latency_ms=Percentiles(1.234, 5.678, 12.34, 123.4, 1234.5),
    timed=2_000_000,
    lost=0,
    duplicated=0,
    out_of_order=0,
    unasked=0,
    merged=0,
    events={},
    closed={},
    slow_open=0,
    slow_closed={},
    generator_cpu=0.5,
    generator_busy=0.6,
    generator_busy_connecting=0.7,
    server=ServerReport(0.4, 100.0, 2.0, 40_000, 48_000, 50_000, 8.0),
    interrupted=False,
    warnings=[],
)


def test_all_of_it() -> None:
    """One line for each thing that a reader wants to know."""
    assert lines(REPORT) == [
        "ws://localhost:8080/",
        "clients   1,000 on 10 of 200 streams each; 5,000 connects/s, "
        "p50 1.00  p90 2.00  p99 3.00  p99.9 4.00  max 5.00 ms",
        "published 40,000 messages, 4,000/s",
        "delivered 2,000,000 messages in 10.0 s, 200,000/s, 22.0 MB/s",
        "latency   p50 1.23  p90 5.68  p99 12.3  p99.9 123  max 1,234 ms",
        "order     nothing lost, duplicated or out of order",
        "closed    none",
        "generator 50% of a core",
        "server    40% of a core, 2.00 µs per delivery, 100 µs per connect; 48.8 MiB, 8.00 KiB per client",
    ]


def test_a_storm() -> None:
    told = lines(msgspec.structs.replace(REPORT, storm_seconds=7.25))
    assert "storm     the last client had its first message after 7.25 s" in told


def test_what_went_wrong() -> None:
    """Faults are named with their counts, and what is not known is not guessed."""
    report = msgspec.structs.replace(
        REPORT,
        publishes=False,
        slow=5,
        compressed=1000,
        lost=1234,
        out_of_order=2,
        merged=7,
        events={"gap": 3},
        closed={"1006": 1, "4008": 5},
        slow_open=2,
        slow_closed={"1006": 1, "4008": 2},
        latency_ms=None,
        server=None,
        warnings=["interrupted"],
    )
    shown = lines(report)
    assert "published" not in "".join(shown)
    assert shown[1].startswith("clients   1,000 on 10 of 200 streams each, 5 of them slow, compressed; ")
    assert shown[3:] == [
        "latency   unknown: no message told its time",
        "order     1,234 lost, 2 out of order; 7 updates merged into others",
        "closed    1 with 1006, 5 with 4008",
        "slow      closed: 1 with 1006, 2 with 4008; 2 still open",
        "events    3 gap",
        "generator 50% of a core",
        "warning: interrupted",
    ]
