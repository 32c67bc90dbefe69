"""What a worker answers when its parent's admin port is asked: its part of each page, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from marketfeed.api.news import News
from marketfeed.daemon.admin_port import Views
from marketfeed.daemon.workers.messages import Question

__all__ = ["Answers", "Family", "StatusPart"]


class Family(msgspec.Struct, frozen=True, array_like=True):
    """A metric of one process: its samples as (name, labels, value)."""

    name: str
    text: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


class StatusPart(msgspec.Struct, frozen=True):
    """`row`: the worker's own; `news`: what there is to say about it; `clients`: how many it has."""

    row: Any
    news: list[News]
    clients: int


class Answers:
    """Of one process, of which there is this to see."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._subjects: dict[str, Callable[[Question], Any]] = {
            "metrics": self._metrics,
            "status": self._status,
            "clients": lambda asked: views.lists.clients(asked.name, asked.order, asked.limit),
            "streams": lambda asked: views.lists.streams(asked.name, asked.order, asked.limit),
            "client": lambda asked: views.lists.client(asked.name),
            "stream": lambda asked: views.lists.stream(asked.name),
        }

    @property
    def reasons(self) -> list[str]:
        """Why no clients should come to it."""
        return self._views.health.reasons

    def to(self, question: Question) -> Any:
        """What is to be said, or a Deferred of that. Raises KeyError for a subject that there is not."""
        return self._subjects[question.subject](question)

    def _metrics(self, _: Question) -> list[Family]:
        return [
            Family(
                each.name,
                each.documentation,
                each.type,
                [(sample.name, sample.labels, float(sample.value)) for sample in each.samples],
            )
            for each in self._views.metrics.collect()
        ]

    def _status(self, asked: Question) -> StatusPart:
        row, news = self._views.status.of_worker(asked.since)
        return StatusPart(row, news, row["limits"]["clients"].value)
