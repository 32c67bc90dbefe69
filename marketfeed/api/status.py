"""What the status page and `marketfeed status` show, as one JSON object (docs/operations/status.md#the-status-as-json).

A row of `workers` for each process that serves clients. Nothing in it is a secret, and of private streams there are
only numbers.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from marketfeed import __version__
from marketfeed.api.lists import Lists
from marketfeed.api.metrics import Parts
from marketfeed.api.news import News, Watch, summary
from marketfeed.api.samples import Sample, Samples
from marketfeed.redis.link_keeper import LinkKeeper

__all__ = ["Status", "status_of"]

_ROWS = 10


class Status:
    """Of this process. `boot`: what tells it from the one before it; `options`: gives those that differ from their
    defaults, as they are shown; `number`: of the worker that it is, 0: there are none.
    """

    def __init__(
        self,
        parts: Parts,
        samples: Samples,
        lists: Lists,
        boot: str,
        options: Callable[[], Mapping[str, str]],
        number: int = 0,
    ) -> None:
        self._number = number
        self._parts = parts
        self._samples = samples
        self._lists = lists
        self._boot = boot
        self._options = options
        self._watch = Watch(parts, samples)

    def json(self, since: int = 0) -> bytes:
        """All of it; of the samples, those behind the one of this number."""
        row, news = self.of_worker(since)
        at = int(self._parts.now() * 1000)
        return msgspec.json.encode(status_of(self._boot, at, news, len(self._parts.clients), [row]))

    def of_worker(self, since: int) -> tuple[dict[str, Any], list[News]]:
        """What there is of this process alone, and what there is to say about it."""
        slowest = self._lists.slowest
        return {**self._worker(since), "slowest": slowest}, self._watch.news(slowest)

    def _worker(self, since: int) -> dict[str, Any]:
        parts = self._parts
        clients, refusals, counts = parts.clients, parts.refusals, parts.hub.counts
        return {
            "worker": self._number,
            "pid": os.getpid(),
            "since": int(parts.started_at * 1000),
            "ready": parts.health.is_ready,
            "reasons": parts.health.reasons,
            "limits": self._samples.limits(),
            "links": [self._link(link) for link in parts.links()],
            "outages": list(parts.hub.overview.outages.recent),
            "kinds": {
                name: {
                    "publications": each.published,
                    "deliveries": each.delivered,
                    "conflated": each.conflated,
                    "dropped": each.dropped,
                    "last": int(each.last * 1000) or None,
                }
                for name, each in counts.kinds.items()
            },
            "subscriptions": parts.hub.overview.memberships,
            "connections": clients.opened,
            "sent_bytes": counts.traffic.sent,
            "received_bytes": counts.traffic.received,
            "gaps": counts.gaps,
            "closes": _rows(("code", "by"), clients.closes),
            "refusals": _rows(("status", "reason"), refusals.requests),
            "recent": {"closed": list(clients.departed), "refused": list(refusals.recent)},
            "busiest": self._lists.streams("", "rate", _ROWS),
            "options": self._options(),
            "samples": self._samples.since(since),
        }

    def _link(self, link: LinkKeeper[Any]) -> dict[str, Any]:
        return {
            "link": link.called,
            "address": str(link.address),
            "up": link.link is not None,
            "cause": link.cause or None,
            "reconnects": link.reconnects,
            "pinged": link.ping_age,
        }


def status_of(
    boot: str, at: int, news: list[News], clients: int, workers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All of it. `at`: ms since 1970; `news`: the worst first; `clients`: of all; `workers`: each one's own."""
    return {
        "boot": boot,
        "at": at,
        "version": __version__,
        "python": platform.python_version(),
        "healthy": not any(each.level == "bad" for each in news),
        "summary": summary(news, clients),
        "news": news,
        "fields": Sample.__struct_fields__,
        "workers": workers,
    }


def _rows(names: Iterable[str], counts: Mapping[tuple[Any, ...], int]) -> list[dict[str, Any]]:
    """Those counts that there are, each with what it is of."""
    names = tuple(names)
    return [{**dict(zip(names, key, strict=True)), "count": count} for key, count in counts.items() if count]
