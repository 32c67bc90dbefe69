"""What Prometheus gets: the numbers that all parts keep, read as it asks (docs/operations/health.md#metrics).

1. No part knows this one. Each counts with whole numbers of its own, which cost next to nothing, and which nobody
   locks: the scrape is a call on the reactor, between two others.
2. What clients, engines and operators name is never a label: each has a bounded number of values.
3. A count that can be is there from the beginning, at 0, so that the first one of it is an increase.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import version
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from marketfeed import __version__
from marketfeed.access.refusals import Refusals
from marketfeed.api.clients import Register
from marketfeed.api.health import Health
from marketfeed.boundaries import Clock
from marketfeed.hub.counts import FAILED
from marketfeed.hub.hub import Hub
from marketfeed.model.publications import DropReason
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.file_limit import open_files
from marketfeed.runtime.garbage import GarbageCollector
from marketfeed.runtime.histogram import Histogram
from marketfeed.runtime.loop_delay import LoopDelay
from marketfeed.runtime.memory import MemoryGuard
from marketfeed.runtime.usage import process_usage
from marketfeed.wire.messages import ErrorCode, GapReason

__all__ = ["CONTENT_TYPE", "Metrics", "Parts"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_GAPS = (GapReason.SOURCE_DOWN, GapReason.SOURCE_REFUSED, GapReason.SEQUENCE, GapReason.ENGINE_SILENT)


class Reloaded(Protocol):
    """How the settings were read last. `succeeded`: without a fault; `last`: when, in s since 1970."""

    succeeded: bool
    last: float


@dataclass(frozen=True)
class Parts:
    """Those that count. `links`: the first one is the source's; `now`: the time, in s since 1970.

    `certificate_expiry`: of the one that clients are shown, in s since 1970; None where there is none. `files`: how
    many may be open. `started_at`: when the process began, in s since 1970.
    """

    clock: Clock
    now: Callable[[], float]
    _: KW_ONLY
    hub: Hub
    clients: Register
    refusals: Refusals
    requests: Counter[str]
    links: Sequence[LinkKeeper[Any]]
    health: Health
    memory: MemoryGuard
    collector: GarbageCollector
    loop: LoopDelay
    certificate_expiry: Callable[[], float | None]
    files: int
    started_at: float
    reload: Reloaded


class Metrics(Collector):
    """All of them, in a registry of their own."""

    def __init__(self, parts: Parts) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._parts = parts
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        parts = self._parts
        yield from _of_clients(parts)
        yield from _of_publications(parts)
        yield from _of_backlogs(parts)
        yield from _of_source(parts)
        yield from _of_process(parts)
        yield from _of_system(parts.files)


def _of_clients(parts: Parts) -> Iterator[Metric]:
    hub, clients = parts.hub, parts.clients
    yield _gauge("clients", "Clients that are connected.", len(clients))
    yield _gauge("clients_limit", "The most that may be, by --max-connections and open files.", clients.max_connections)
    yield _gauge("subscriptions", "Streams of clients, each counted for each of its clients.", hub.memberships)
    yield _gauge("streams", "Streams that have clients, or are kept ready.", hub.streams_held)
    yield _gauge("streams_limit", "The most that may be, by --max-distinct-streams.", hub.limits.max_distinct_streams)
    yield _counter("connections", "WebSockets that have been opened.", clients.opened)
    yield _counters("closes", "WebSockets that have ended, by code and by whom.", ("code", "by"), clients.closes)
    refusals = {(str(status), reason): count for (status, reason), count in parts.refusals.requests.items()}
    yield _counters("refusals", "Requests that were answered with an error of HTTP.", ("status", "reason"), refusals)
    yield _counters("requests", "Messages of clients, by method.", ("method",), parts.requests)
    errors = {str(int(code)): parts.refusals.errors[code] for code in ErrorCode}
    yield _counters("request_errors", "Errors that clients were answered.", ("code",), errors)


def _of_publications(parts: Parts) -> Iterator[Metric]:
    counts = parts.hub.counts
    kinds, traffic = counts.kinds, counts.traffic
    for name, text, values in (
        ("publications", "Publications of streams that are followed.", {k: v.published for k, v in kinds.items()}),
        ("deliveries", "The same, times the clients of each.", {k: v.delivered for k, v in kinds.items()}),
        (
            "conflated",
            "Deliveries that were left out, or merged, for who is slow.",
            {k: v.conflated for k, v in kinds.items()},
        ),
    ):
        yield _counters(name, text, ("kind",), values)
    yield _counter("sent_bytes", "Bytes that the sockets of clients took.", traffic.sent)
    yield _counter("received_bytes", "Bytes that came from clients.", traffic.received)
    dropped = {
        (kind, reason): each.dropped[reason] for kind, each in kinds.items() for reason in (*DropReason.ALL, FAILED)
    }
    yield _counters("dropped_publications", "Publications that nobody gets.", ("kind", "reason"), dropped)
    gaps = {reason: counts.gaps[reason] for reason in _GAPS}
    yield _counters("gaps", "Streams of which something may have been missed.", ("reason",), gaps)
    resumes = {str(whole).lower(): counts.resumes[whole] for whole in (True, False)}
    yield _counters("resumes", "Streams that clients asked to resume.", ("recovered",), resumes)
    last = {kind: each.last for kind, each in kinds.items() if each.last}
    name = "last_publication_timestamp_seconds"
    yield _gauges(name, "When something was published last.", ("kind",), last)
    yield _histograms(
        "lag_seconds", "Time on the way.", "stage", {"engine": counts.engine_lag, "fanout": counts.fanout_lag}
    )
    yield _counter("clock_skew", "Publications that were dated in the future.", counts.clock_skew)
    yield _histogram("flush_clients", "Clients that were sent something at once.", counts.flush_clients)


def _of_backlogs(parts: Parts) -> Iterator[Metric]:
    hub = parts.hub
    waiting = [each.waiting_bytes for each in hub.counts.traffic.backlogged]
    yield _gauge("backlogged_clients", "Clients for whom something waits.", len(waiting))
    yield _gauge("backlog_bytes", "What waits for all of them.", sum(waiting))
    yield _gauge("history_bytes", "What is kept of streams for those who come back.", hub.history_bytes)
    yield _gauge("history_bytes_limit", "The most that may be, by --history-bytes.", hub.limits.history_bytes)
    levels = hub.book_levels
    yield _gauge("books", "Order books that are known.", len(levels))
    yield _gauge("book_levels", "Their levels, of both sides.", sum(levels))


def _of_source(parts: Parts) -> Iterator[Metric]:
    up = {link.called: link.link is not None for link in parts.links}
    yield _gauges("source_up", "Whether a link to Redis is up.", ("link",), up)
    reconnects = {link.called: max(0, link.links - 1) for link in parts.links}
    yield _counters("source_reconnects", "Links to Redis that were made anew.", ("link",), reconnects)
    heard = parts.links[0].last_heard
    if heard is not None:
        text = "When Redis last sent anything on the link of the source."
        yield _gauge("source_last_message_timestamp_seconds", text, parts.now() - (parts.clock.seconds() - heard))


def _of_process(parts: Parts) -> Iterator[Metric]:
    yield _histogram("loop_delay_seconds", "How late what was due has come.", parts.loop.delays)
    yield _histogram("gc_pause_seconds", "How long the garbage collector took.", parts.collector.pauses)
    yield _gauge("ready", "Whether /readyz says so.", parts.health.is_ready)
    yield _gauge("draining", "Whether clients are being sent away.", parts.clients.draining)
    yield _gauge("memory_limit_bytes", "Above that nobody is let in, by --memory-limit; 0: none.", parts.memory.limit)
    yield _gauge("files_limit", "Files that may be open.", parts.files)
    expiry = parts.certificate_expiry()
    if expiry is not None:
        yield _gauge("certificate_expiry_timestamp_seconds", "When the certificate for clients ends.", expiry)
    yield _gauge(
        "last_reload_successful", "Whether the settings were last read without a fault.", parts.reload.succeeded
    )
    yield _gauge("last_reload_timestamp_seconds", "When they were.", parts.reload.last)
    build = (__version__, platform.python_version(), version("Twisted"))
    yield _gauges("build_info", "What runs.", ("version", "python", "twisted"), {build: 1})


def _of_system(files: int) -> Iterator[Metric]:
    """What the ProcessCollector of prometheus-client has, which lists all open files: with 15,000 it takes 13 ms."""
    try:
        usage = process_usage()
    except (OSError, ValueError, IndexError):  # no Linux
        return
    for name, text, value in (
        ("virtual_memory_bytes", "Virtual memory size in bytes.", usage.virtual),
        ("resident_memory_bytes", "Resident memory size in bytes.", usage.resident),
        ("start_time_seconds", "Start time of the process since unix epoch in seconds.", usage.started),
        ("open_fds", "Number of open file descriptors.", open_files()),
        ("max_fds", "Maximum number of open file descriptors.", files),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"process_{name}", text, value=value)
    text = "Total user and system CPU time spent in seconds."
    yield CounterMetricFamily("process_cpu_seconds", text, value=usage.cpu)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"marketfeed_{name}", text, value=value)


def _gauges(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    return _filled(GaugeMetricFamily(f"marketfeed_{name}", text, labels=labels), values)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"marketfeed_{name}", text, value=value)


def _counters(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    return _filled(CounterMetricFamily(f"marketfeed_{name}", text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Any, float]) -> Metric:
    for key, value in values.items():
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family


def _histogram(name: str, text: str, values: Histogram) -> Metric:
    return HistogramMetricFamily(f"marketfeed_{name}", text, buckets=_buckets(values), sum_value=values.sum)


def _histograms(name: str, text: str, label: str, values: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"marketfeed_{name}", text, labels=(label,))
    for key, each in values.items():
        family.add_metric((key,), _buckets(each), each.sum)
    return family


def _buckets(values: Histogram) -> list[tuple[str, float]]:
    """As Prometheus names them."""
    return list(zip([*map(floatToGoString, values.bounds), "+Inf"], values.counts, strict=True))
