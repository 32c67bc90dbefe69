"""The admin port of a daemon with workers: one answer for all of them (docs/operations/workers.md#the-admin-port).

1. A worker that does not answer in time is left out, and that is said: in the news of the status, by
   `marketfeed_worker_up`, and by a header of the lists.
2. Lists are sorted and limited over all workers, and each row has the number of its worker.
3. What all workers say is said once; what some say is said of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from typing import Any, Literal, Protocol

import msgspec
from prometheus_client.core import Metric
from twisted.internet.defer import Deferred

from marketfeed.api.candles import Candles, of_candles
from marketfeed.api.clients import ClientFacts
from marketfeed.api.exposition import Exposition, counters, gauge, gauges, of_build, of_links, of_system
from marketfeed.api.lists import BY_CLIENT, BY_STREAM, MOST_SUBSCRIBERS
from marketfeed.api.metrics import Reloaded
from marketfeed.api.news import News, worst_first
from marketfeed.api.pages import Partial
from marketfeed.api.status import status_of
from marketfeed.daemon.workers.answers import Family, StatusPart
from marketfeed.daemon.workers.messages import Question
from marketfeed.daemon.workers.slots import SlotFacts, State
from marketfeed.hub.overview import StreamFacts
from marketfeed.redis.link_keeper import LinkKeeper

__all__ = ["Answering", "CrewLists", "CrewMetrics", "CrewStatus"]

PARENT = "parent"
"""What stands for the parent process where others have the number of a worker."""

_Facts = dict[str, Any]


class Answering(Protocol):
    """Who asks the workers."""

    @property
    def facts(self) -> list[SlotFacts]:
        """How each worker is."""

    def ask_all(self, question: Question) -> Deferred[list[tuple[int, bytes | None]]]:
        """What each of those who serve clients says, by its number, as JSON; None: it has not answered in time."""


def _parts(crew: Answering, question: Question, kind: Any) -> Deferred[tuple[list[tuple[int, Any]], list[int]]]:
    """The answers, by the number of the worker, and the numbers of those who have not answered."""

    def read(answers: list[tuple[int, bytes | None]]) -> tuple[list[tuple[int, Any]], list[int]]:
        given = [(number, msgspec.json.decode(body, type=kind)) for number, body in answers if body is not None]
        there = {number for number, _ in given}
        return given, [each.number for each in crew.facts if each.number not in there]

    return crew.ask_all(question).addCallback(read)


class CrewMetrics:
    """The metrics of all processes. `own`: how the settings were read last; `files`: that the parent may have open;
    `candles`: a candle service in it, with `candle_links`, its own to Redis.
    """

    def __init__(
        self,
        crew: Answering,
        own: Reloaded,
        files: int,
        candles: Candles | None = None,
        candle_links: Callable[[], Sequence[LinkKeeper[Any]]] = tuple,
    ) -> None:
        self._crew = crew
        self._own = own
        self._files = files
        self._candles = candles
        self._candle_links = candle_links

    def text(self) -> Deferred[bytes]:
        """As Prometheus reads it."""
        found = _parts(self._crew, Question(0, "metrics"), list[Family])
        return found.addCallback(lambda parts: _Merged([*self._of_parent(parts[1]), *_labelled(parts[0])]).text())

    def _of_parent(self, left_out: list[int]) -> Iterator[Metric]:
        facts = self._crew.facts
        yield gauge("workers", "Workers that there should be, by --workers.", len(facts))
        up = {str(each.number): each.number not in left_out for each in facts}
        yield gauges("worker_up", "Whether a worker serves clients, and answers.", ("worker",), up)
        restarts = {str(each.number): each.restarts for each in facts}
        yield counters("worker_restarts", "Processes of a worker that have ended by themselves.", ("worker",), restarts)
        own = self._own
        yield from _of(
            PARENT,
            (
                gauge("last_reload_successful", "Whether the settings were last read without a fault.", own.succeeded),
                gauge("last_reload_timestamp_seconds", "When they were.", own.last),
                of_build(),
                *of_system(self._files),
            ),
        )
        if self._candles is not None:
            yield from _of(PARENT, (*of_candles(self._candles), *of_links(self._candle_links())))


class _Merged(Exposition):
    """Metrics of which several may have the same name."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._merged: dict[str, Metric] = {}
        for each in metrics:
            self._merged.setdefault(each.name, Metric(each.name, each.documentation, each.type)).samples += each.samples
        super().__init__()

    def collect(self) -> Iterator[Metric]:
        return iter(self._merged.values())


def _of(worker: str, metrics: Iterable[Metric]) -> Iterator[Metric]:
    """A family with one label more, which says whose samples these are."""
    for each in metrics:
        labelled = Metric(each.name, each.documentation, each.type)
        for sample in each.samples:
            labelled.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
        yield labelled


def _labelled(parts: Iterable[tuple[int, list[Family]]]) -> Iterator[Metric]:
    for number, families in parts:
        for each in families:
            metric = Metric(each.name, each.text, each.kind)
            for name, labels, value in each.samples:
                metric.add_sample(name, {**labels, "worker": str(number)}, value)
            yield metric


class CrewStatus:
    """The status of all workers. `boot`: what tells this run from the one before; `now`: s since 1970; `options`: gives
    those that differ from their defaults; `news`: gives what there is to say of the parent.
    """

    def __init__(
        self,
        crew: Answering,
        boot: str,
        now: Callable[[], float],
        options: Callable[[], dict[str, str]],
        news: Callable[[], list[News]],
    ) -> None:
        self._crew = crew
        self._boot = boot
        self._now = now
        self._options = options
        self._news = news

    def json(self, since: int = 0) -> Deferred[bytes]:
        """As `Status` has it; `since`: of the samples of each worker."""
        return _parts(self._crew, Question(0, "status", since=since), StatusPart).addCallback(self._made)

    def _made(self, found: tuple[list[tuple[int, StatusPart]], list[int]]) -> bytes:
        parts, left_out = found
        of_workers = _together([(number, part.news) for number, part in parts])
        news = worst_first([*self._of_crew(left_out), *self._news(), *of_workers])
        rows = [{**part.row, "options": self._options()} for _, part in parts]
        clients = sum(part.clients for _, part in parts)
        return msgspec.json.encode(status_of(self._boot, int(self._now() * 1000), news, clients, rows))

    def _of_crew(self, left_out: list[int]) -> Iterator[News]:
        facts = self._crew.facts
        level: Literal["bad", "warn"] = "bad" if len(left_out) == len(facts) else "warn"
        for each in facts:
            if each.state is State.WAITING:
                text = f"Worker {each.number} has ended again and again; it is started in {each.due or 0:.0f} s."
                yield News(level, "worker-down", text)
            elif each.state is State.STARTING and each.number in left_out:
                yield News(level, "worker-down", f"Worker {each.number} is starting.")
            elif each.number in left_out:
                yield News(level, "worker-silent", f"Worker {each.number} does not answer.")


def _together(news: Sequence[tuple[int, list[News]]]) -> Iterator[News]:
    """What all say once, and of what some say, of whom it is."""
    said: dict[News, list[int]] = {}
    for number, pieces in news:
        for piece in pieces:
            said.setdefault(piece, []).append(number)
    for piece, numbers in said.items():
        if len(numbers) == len(news):
            yield piece
        else:
            who = f"Worker {numbers[0]}" if len(numbers) == 1 else f"Workers {', '.join(map(str, numbers))}"
            yield msgspec.structs.replace(piece, text=f"{who}: {piece.text}")


class CrewLists:
    """The clients and streams of all workers. The arguments are those of `Lists`."""

    def __init__(self, crew: Answering) -> None:
        self._crew = crew

    def clients(self, text: str, order: str, limit: int) -> Deferred[Partial]:
        """Those of all, the largest of `order` first."""
        return self._rows(Question(0, "clients", text, order, limit), ClientFacts, BY_CLIENT[order])

    def streams(self, text: str, order: str, limit: int) -> Deferred[Partial]:
        """A row for each worker that follows it."""
        return self._rows(Question(0, "streams", text, order, limit), StreamFacts, BY_STREAM[order])

    def client(self, name: str) -> Deferred[_Facts | None]:
        """The one that there is."""
        found = _parts(self._crew, Question(0, "client", name), _Facts | None)
        return found.addCallback(
            lambda parts: next(({**facts, "worker": number} for number, facts in parts[0] if facts is not None), None)
        )

    def stream(self, name: str) -> Deferred[_Facts | None]:
        """What the worker with most of its clients knows of it, with the clients of all."""
        return _parts(self._crew, Question(0, "stream", name), _Facts | None).addCallback(_one_stream)

    def _rows(self, question: Question, kind: Any, order: Callable[[Any], Any]) -> Deferred[Partial]:
        def merged(found: tuple[list[tuple[int, list[Any]]], list[int]]) -> Partial:
            rows = [(number, row) for number, rows in found[0] for row in rows]
            first = nlargest(question.limit, rows, lambda each: order(each[1]))
            return Partial([_row(number, row) for number, row in first], found[1])

        return _parts(self._crew, question, list[kind]).addCallback(merged)


def _row(number: int, facts: Any) -> _Facts:
    return {**msgspec.structs.asdict(facts), "worker": number}


def _one_stream(found: tuple[list[tuple[int, _Facts | None]], list[int]]) -> _Facts | None:
    parts = [(number, facts) for number, facts in found[0] if facts is not None]
    if not parts:
        return None
    _, most = max(parts, key=lambda part: part[1]["clients"])
    subscribers = [
        (number, msgspec.convert(each, ClientFacts)) for number, facts in parts for each in facts["subscribers"]
    ]
    slowest = nlargest(MOST_SUBSCRIBERS, subscribers, lambda each: BY_CLIENT["queue"](each[1]))
    return {
        **most,
        "clients": sum(facts["clients"] for _, facts in parts),
        "subscribers": [_row(number, facts) for number, facts in slowest],
    }
