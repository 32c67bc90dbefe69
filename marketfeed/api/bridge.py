"""What the admin port of `marketfeed bridge` tells of it: whether it copies, and what it has counted.

The names are those of docs/streams.md#how-a-bridge-is-watched. The rules for numbers are those of `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from prometheus_client.core import Metric

from marketfeed.api.exposition import Exposition, counter, counters, gauge, of_build, of_links, of_system
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.redis.routed_appender import RoutedAppender
from marketfeed.runtime.file_limit import file_limit

__all__ = ["BridgeHealth", "BridgeMetrics", "Copied"]

_NO_STREAM = "no-stream"
"""Why a publication is dropped that no stream could take, besides those of `Loss`."""


class Copied(Protocol):
    """What is heard. `heard`: publications that are to be appended; `skipped`: those of no stream.

    `was_listening`: every channel has been listened to, at least once.
    """

    heard: int
    skipped: int
    was_listening: bool

    @property
    def is_listening(self) -> bool:
        """Every channel is listened to."""


class BridgeHealth:
    """Whether what is published comes into streams at this moment, and why not."""

    def __init__(self, copied: Copied, appender: RoutedAppender) -> None:
        self._copied = copied
        self._appender = appender

    @property
    def reasons(self) -> list[str]:
        """Why it does not."""
        copied, appender = self._copied, self._appender
        reasons = {
            "source-never-reached": not copied.was_listening,
            "source-down": copied.was_listening and not copied.is_listening,
            "target-down": appender.is_down,
        }
        return [reason for reason, holds in reasons.items() if holds]


class BridgeMetrics(Exposition):
    """All that a scrape has. `links`: those to Redis at the moment."""

    def __init__(
        self, copied: Copied, appender: RoutedAppender, links: Callable[[], Sequence[LinkKeeper[Any]]]
    ) -> None:
        self._copied = copied
        self._appender = appender
        self._links = links
        super().__init__()

    def collect(self) -> Iterator[Metric]:
        copied, appender = self._copied, self._appender
        yield counter("bridge_publications", "Publications that were heard.", copied.heard + copied.skipped)
        dropped = {**appender.entries.losses, _NO_STREAM: copied.skipped}
        yield counters("bridge_dropped", "Those that came into no stream, or may not have.", ("reason",), dropped)
        yield gauge("bridge_lag_seconds", "Age of the oldest one that Redis has not confirmed.", appender.lag)
        yield from of_links(self._links())
        yield of_build()
        yield from of_system(file_limit())
