"""Numbers as Prometheus reads them, and those that every process has (docs/operations/health.md#metrics)."""

from __future__ import annotations

import platform
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from marketfeed import __version__
from marketfeed.hub.publishing import IS_COMPILED
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.file_limit import open_files
from marketfeed.runtime.histogram import Histogram
from marketfeed.runtime.usage import process_usage

__all__ = [
    "Exposition",
    "counter",
    "counters",
    "gauge",
    "gauges",
    "histogram",
    "histograms",
    "of_build",
    "of_links",
    "of_system",
]


class Exposition(Collector):
    """What `collect` gives, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)

    @abstractmethod
    def collect(self) -> Iterator[Metric]:
        """All that there is at this moment."""


def of_links(links: Sequence[LinkKeeper[Any]]) -> Iterator[Metric]:
    """What is known of links to Redis."""
    up = {link.called: link.link is not None for link in links}
    yield gauges("source_up", "Whether a link to Redis is up.", ("link",), up)
    reconnects = {link.called: link.reconnects for link in links}
    yield counters("source_reconnects", "Links to Redis that were made anew.", ("link",), reconnects)


def of_build() -> Metric:
    """What runs."""
    build = (__version__, platform.python_version(), version("Twisted"), "yes" if IS_COMPILED else "no")
    return gauges("build_info", "What runs.", ("version", "python", "twisted", "compiled"), {build: 1})


def of_system(files: int) -> Iterator[Metric]:
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


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"marketfeed_{name}", text, value=value)


def gauges(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    return _filled(GaugeMetricFamily(f"marketfeed_{name}", text, labels=labels), values)


def counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"marketfeed_{name}", text, value=value)


def counters(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    return _filled(CounterMetricFamily(f"marketfeed_{name}", text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Any, float]) -> Metric:
    for key, value in values.items():
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family


def histogram(name: str, text: str, values: Histogram) -> Metric:
    return HistogramMetricFamily(f"marketfeed_{name}", text, buckets=_buckets(values), sum_value=values.sum)


def histograms(name: str, text: str, label: str, values: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"marketfeed_{name}", text, labels=(label,))
    for key, each in values.items():
        family.add_metric((key,), _buckets(each), each.sum)
    return family


def _buckets(values: Histogram) -> list[tuple[str, float]]:
    """As Prometheus names them."""
    return list(zip([*map(floatToGoString, values.bounds), "+Inf"], values.counts, strict=True))
