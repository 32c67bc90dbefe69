"""What a load test found, as one object and as lines for a human reader. Pure."""

from __future__ import annotations

import msgspec

from marketfeed.commands.bench.tally import Percentiles

__all__ = ["BUSY", "Report", "ServerReport", "lines"]

BUSY = 0.9
"""The share of a core above which the load generator itself may be what limits a figure."""

_KIB = 1024


class ServerReport(msgspec.Struct, frozen=True):
    """What the server's processes took. Times in µs of a processor, memory in KiB.

    `cpu`: cores that were busy. The rest is None where nothing happened to divide by.
    """

    cpu: float
    cpu_per_connect: float
    cpu_per_delivery: float | None
    resident_before: int
    resident_connected: int
    resident_after: int
    resident_per_client: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds and, where named so, in ms; rates per second. What is measured excludes the warm-up.

    `lost`, `duplicated`, `out_of_order`, `unasked`: numbers, over the whole test, each for each client. `closed`: how
    many connections the server ended, by close code; `slow_closed`: the same of the slow clients, of whom `slow_open`
    were left. `timed`: how many deliveries told when they were due, which `latency_ms` is of; None in a report of an
    earlier version, which left out the last ones. `generator_cpu`: the share of a core that this program used;
    `generator_busy`: the same, or where it may use one core only, what anybody used of that.
    """

    url: str
    publishes: bool
    clients: int
    streams: int
    per_client: int
    slow: int
    compressed: int
    opened: int
    connect_seconds: float
    connects_per_second: float
    connect_ms: Percentiles | None
    storm_seconds: float | None = None
    """In a storm, from its beginning until the last client had its first message: the same as `connect_seconds`."""
    seconds: float
    published: int
    published_per_second: float
    deliveries: int
    deliveries_per_second: float
    bytes_per_second: float
    latency_ms: Percentiles | None
    timed: int | None = None
    lost: int
    duplicated: int
    out_of_order: int
    unasked: int
    merged: int
    events: dict[str, int]
    closed: dict[str, int]
    slow_open: int = 0
    slow_closed: dict[str, int] = {}
    generator_cpu: float
    generator_busy: float
    generator_busy_connecting: float
    server: ServerReport | None
    interrupted: bool
    warnings: list[str]

    @property
    def is_faultless(self) -> bool:
        """Every client got everything once and in order, and kept its connection."""
        return not (self.lost or self.duplicated or self.out_of_order or self.unasked or self.closed)


def lines(report: Report) -> list[str]:
    """The report for a human reader."""
    told = [
        ("clients", _clients(report)),
        ("storm", _storm(report.storm_seconds)),
        ("published", f"{report.published:,} messages, {_number(report.published_per_second)}/s"),
        (
            "delivered",
            f"{report.deliveries:,} messages in {report.seconds:.1f} s, {_number(report.deliveries_per_second)}/s, "
            f"{_number(report.bytes_per_second / 1e6)} MB/s",
        ),
        ("latency", _percentiles(report.latency_ms)),
        ("order", _order(report)),
        ("closed", _closed(report.closed) or "none"),
        ("slow", _slow(report)),
        ("events", ", ".join(f"{count:,} {name}" for name, count in report.events.items())),
        ("generator", f"{report.generator_cpu:.0%} of a core"),
        ("server", "" if report.server is None else _server(report.server)),
    ]
    if not report.publishes:
        told = [(name, text) for name, text in told if name != "published"]
    shown = [f"{name:10}{text}" for name, text in told if text]
    return [report.url, *shown, *(f"warning: {warning}" for warning in report.warnings)]


def _clients(report: Report) -> str:
    slow = f", {report.slow:,} of them slow" if report.slow else ""
    compressed = ", compressed" if report.compressed else ""
    return (
        f"{report.opened:,} on {report.per_client:,} of {report.streams:,} streams each{slow}{compressed}; "
        f"{_number(report.connects_per_second)} connects/s, {_percentiles(report.connect_ms)}"
    )


def _storm(seconds: float | None) -> str:
    return "" if seconds is None else f"the last client had its first message after {_number(seconds)} s"


def _order(report: Report) -> str:
    merged = f"; {report.merged:,} updates merged into others" if report.merged else ""
    counts = {
        "lost": report.lost,
        "duplicated": report.duplicated,
        "out of order": report.out_of_order,
        "of streams that were not asked for": report.unasked,
    }
    wrong = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return (wrong or "nothing lost, duplicated or out of order") + merged


def _closed(by_code: dict[str, int]) -> str:
    return ", ".join(f"{count:,} with {code}" for code, count in by_code.items())


def _slow(report: Report) -> str:
    """How the clients ended that did not read; nothing where there were none."""
    open_still = f"{report.slow_open:,} still open" if report.slow_open else ""
    closed = f"closed: {_closed(report.slow_closed)}" if report.slow_closed else ""
    return "; ".join(filter(None, (closed, open_still)))


def _server(server: ServerReport) -> str:
    each = "" if server.cpu_per_delivery is None else f", {_number(server.cpu_per_delivery)} µs per delivery"
    return (
        f"{server.cpu:.0%} of a core{each}, {_number(server.cpu_per_connect)} µs per connect; "
        f"{_number(server.resident_after / _KIB)} MiB, {_number(server.resident_per_client)} KiB per client"
    )


def _percentiles(found: Percentiles | None) -> str:
    if found is None:
        return "unknown: no message told its time"
    named = {"p50": found.p50, "p90": found.p90, "p99": found.p99, "p99.9": found.p99_9, "max": found.max}
    return "  ".join(f"{name} {_number(value)}" for name, value in named.items()) + " ms"


def _number(value: float) -> str:
    """Three figures, and all those before the point."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:#.3g}".removesuffix(".")
