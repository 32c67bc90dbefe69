"""What Prometheus gets: the numbers that all parts keep, read as it asks (docs/operations/health.md#metrics).

1. No part knows this one. Each counts with whole numbers of its own, which cost next to nothing, and which nobody
   locks: the scrape is a call on the reactor, between two others.
2. What clients, engines and operators name is never a label: each has a bounded number of values.
3. A count that can be is there from the beginning, at 0, so that the first one of it is an increase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

from prometheus_client.core import Metric

from marketfeed.access.refusals import Refusals
from marketfeed.api.candles import Candles, of_candles
from marketfeed.api.clients import Register
from marketfeed.api.exposition import (
    Exposition,
    counter,
    counters,
    gauge,
    gauges,
    histogram,
    histograms,
    of_build,
    of_links,
    of_system,
)
from marketfeed.api.health import Health
from marketfeed.boundaries import Clock
from marketfeed.hub.counts import FAILED
from marketfeed.hub.hub import Hub
from marketfeed.model.publications import DropReason
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.garbage import GarbageCollector
from marketfeed.runtime.loop_delay import LoopDelay
from marketfeed.runtime.memory import MemoryGuard
from marketfeed.wire.messages import ErrorCode, GapReason

__all__ = ["Metrics", "Parts"]

_GAPS = (GapReason.SOURCE_DOWN, GapReason.SOURCE_REFUSED, GapReason.SEQUENCE, GapReason.ENGINE_SILENT)


class Reloaded(Protocol):
    """How the settings were read last. `succeeded`: without a fault; `last`: when, in s since 1970."""

    succeeded: bool
    last: float


@dataclass(frozen=True)
class Parts:
    """Those that count. `links`: those to Redis at the moment, the source's first; `now`: the time, in s since 1970.

    `certificate_expiry`: of the one that clients are shown, in s since 1970; None where there is none. `files`: how
    many may be open. `started_at`: when the process began, in s since 1970. `candles`: a candle service in this
    process, with `candle_links`, its own to Redis.
    """

    clock: Clock
    now: Callable[[], float]
    _: KW_ONLY
    hub: Hub
    clients: Register
    refusals: Refusals
    requests: Counter[str]
    answered: Counter[tuple[str, int]]
    links: Callable[[], Sequence[LinkKeeper[Any]]]
    health: Health
    memory: MemoryGuard
    collector: GarbageCollector
    loop: LoopDelay
    certificate_expiry: Callable[[], float | None]
    files: int
    started_at: float
    reload: Reloaded
    candles: Candles | None = None
    candle_links: Callable[[], Sequence[LinkKeeper[Any]]] = tuple


class Metrics(Exposition):
    """All of them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        super().__init__()

    def collect(self) -> Iterator[Metric]:
        parts = self._parts
        yield from _of_clients(parts)
        yield from _of_publications(parts)
        yield from _of_backlogs(parts)
        yield from _of_source(parts)
        yield from _of_process(parts)
        if parts.candles is not None:
            yield from of_candles(parts.candles)
        yield from of_system(parts.files)


def _of_clients(parts: Parts) -> Iterator[Metric]:
    hub, clients = parts.hub, parts.clients
    yield gauge("clients", "Clients that are connected.", len(clients))
    yield gauge("clients_limit", "The most that may be, by --max-connections and open files.", clients.max_connections)
    yield gauge("subscriptions", "Streams of clients, each counted for each of its clients.", hub.overview.memberships)
    yield gauge("streams", "Streams that have clients, or are kept ready.", hub.overview.streams_held)
    yield gauge("streams_limit", "The most that may be, by --max-distinct-streams.", hub.limits.max_distinct_streams)
    yield counter("connections", "WebSockets that have been opened.", clients.opened)
    yield counters("closes", "WebSockets that have ended, by code and by whom.", ("code", "by"), clients.closes)
    refusals = {(str(status), reason): count for (status, reason), count in parts.refusals.requests.items()}
    yield counters("refusals", "Requests that were answered with an error of HTTP.", ("status", "reason"), refusals)
    yield counters("requests", "Messages of clients, by method.", ("method",), parts.requests)
    answered = {(path, str(status)): count for (path, status), count in parts.answered.items()}
    yield counters("rest_requests", "Requests for market data, by path and status.", ("path", "status"), answered)
    errors = {str(int(code)): parts.refusals.errors[code] for code in ErrorCode}
    yield counters("request_errors", "Errors that clients were answered.", ("code",), errors)


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
        yield counters(name, text, ("kind",), values)
    yield counter("sent_bytes", "Bytes that the sockets of clients took.", traffic.sent)
    yield counter("received_bytes", "Bytes that came from clients.", traffic.received)
    dropped = {
        (kind, reason): each.dropped[reason] for kind, each in kinds.items() for reason in (*DropReason.ALL, FAILED)
    }
    yield counters("dropped_publications", "Publications that nobody gets.", ("kind", "reason"), dropped)
    gaps = {reason: counts.gaps[reason] for reason in _GAPS}
    yield counters("gaps", "Streams of which something may have been missed.", ("reason",), gaps)
    resumes = {str(whole).lower(): counts.resumes[whole] for whole in (True, False)}
    yield counters("resumes", "Streams that clients asked to resume.", ("recovered",), resumes)
    last = {kind: each.last for kind, each in kinds.items() if each.last}
    name = "last_publication_timestamp_seconds"
    yield gauges(name, "When something was published last.", ("kind",), last)
    yield histograms(
        "lag_seconds", "Time on the way.", "stage", {"engine": counts.engine_lag, "fanout": counts.fanout_lag}
    )
    yield counter("clock_skew", "Publications that were dated in the future.", counts.clock_skew)
    yield histogram("flush_clients", "Clients that were sent something at once.", counts.flush_clients)


def _of_backlogs(parts: Parts) -> Iterator[Metric]:
    hub = parts.hub
    waiting = [each.waiting_bytes for each in hub.counts.traffic.backlogged]
    yield gauge("backlogged_clients", "Clients for whom something waits.", len(waiting))
    yield gauge("backlog_bytes", "What waits for all of them.", sum(waiting))
    yield gauge("history_bytes", "What is kept of streams for those who come back.", hub.overview.history_bytes)
    yield gauge("history_bytes_limit", "The most that may be, by --history-bytes.", hub.limits.history_bytes)
    levels = hub.overview.book_levels
    yield gauge("books", "Order books that are known.", len(levels))
    yield gauge("book_levels", "Their levels, of both sides.", sum(levels))


def _of_source(parts: Parts) -> Iterator[Metric]:
    links = parts.links()
    yield from of_links([*links, *parts.candle_links()])
    heard = [link.last_heard for link in links if link.is_of_source and link.last_heard is not None]
    if heard:
        text = "When Redis last sent anything on the link of the source; of several, on the one that is silent longest."
        yield gauge("source_last_message_timestamp_seconds", text, parts.now() - (parts.clock.seconds() - min(heard)))


def _of_process(parts: Parts) -> Iterator[Metric]:
    yield histogram("loop_delay_seconds", "How late what was due has come.", parts.loop.delays)
    yield histogram("gc_pause_seconds", "How long the garbage collector took.", parts.collector.pauses)
    yield gauge("ready", "Whether /readyz says so.", parts.health.is_ready)
    yield gauge("draining", "Whether clients are being sent away.", parts.clients.draining)
    yield gauge("memory_limit_bytes", "Above that nobody is let in, by --memory-limit; 0: none.", parts.memory.limit)
    yield gauge("files_limit", "Files that may be open.", parts.files)
    expiry = parts.certificate_expiry()
    if expiry is not None:
        yield gauge("certificate_expiry_timestamp_seconds", "When the certificate for clients ends.", expiry)
    yield gauge(
        "last_reload_successful", "Whether the settings were last read without a fault.", parts.reload.succeeded
    )
    yield gauge("last_reload_timestamp_seconds", "When they were.", parts.reload.last)
    yield of_build()
