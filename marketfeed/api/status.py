"""What the status page and `marketfeed status` show, as one JSON object (docs/operations/status.md#the-status-as-json).

A row of `workers` for each process: today there is one. Nothing in it is a secret, and of private streams there are
only numbers.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from marketfeed import __version__
from marketfeed.api.lists import Lists
from marketfeed.api.metrics import Parts
from marketfeed.api.news import Watch, summary
from marketfeed.api.samples import Sample, Samples
from marketfeed.redis.link_keeper import LinkKeeper

__all__ = ["Status"]

_ROWS = 10


class Status:
    """Of this process. `boot`: what tells it from the one before it; `options`: gives those that differ from their
    defaults, as they are shown.
    """

    def __init__(
        self, parts: Parts, samples: Samples, lists: Lists, boot: str, options: Callable[[], Mapping[str, str]]
    ) -> None:
        self._parts = parts
        self._samples = samples
        self._lists = lists
        self._boot = boot
        self._options = options
        self._watch = Watch(parts, samples)

    def json(self, since: int = 0) -> bytes:
        """All of it; of the samples, those behind the one of this number."""
        slowest = self._lists.slowest
        news = self._watch.news(slowest)
        return msgspec.json.encode(
            {
                "boot": self._boot,
                "at": int(self._parts.now() * 1000),
                "version": __version__,
                "python": platform.python_version(),
                "healthy": not any(each.level == "bad" for each in news),
                "summary": summary(news, len(self._parts.clients)),
                "news": news,
                "fields": Sample.__struct_fields__,
                "workers": [{**self._worker(since), "slowest": slowest}],
            }
        )

    def _worker(self, since: int) -> dict[str, Any]:
        parts = self._parts
        clients, refusals, counts = parts.clients, parts.refusals, parts.hub.counts
        return {
            "worker": 0,
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


def _rows(names: Iterable[str], counts: Mapping[tuple[Any, ...], int]) -> list[dict[str, Any]]:
    """Those counts that there are, each with what it is of."""
    names = tuple(names)
    return [{**dict(zip(names, key, strict=True)), "count": count} for key, count in counts.items() if count]
