"""What `marketfeed status` shows: the status of a daemon, spelled as lines. Pure.

1. The daemon is not trusted. What it answers is a `Status`, or nothing; and no line holds anything but printable
   characters.
2. First comes the daemon's own sentence. With it alone, an operator knows what is wrong, and why.
3. Figures are written as the status page writes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from marketfeed.api.clients import ClientFacts
from marketfeed.commands.status.asking import ELSEWHERE, NoAnswer
from marketfeed.model.kinds.columns import clean
from marketfeed.model.numbers import size

__all__ = ["Picture", "Status", "read_status"]

_KEPT = 900
_CELL = 60
"""Characters."""
_DASH = "\N{EN DASH}"


class _News(msgspec.Struct, frozen=True):
    level: str
    name: str


class _Limit(msgspec.Struct, frozen=True):
    value: int
    peak: int
    limit: int | None
    option: str


class _Link(msgspec.Struct, frozen=True):
    link: str
    address: str
    up: bool
    cause: str | None
    reconnects: int
    pinged: float | None


class _Worker(msgspec.Struct, frozen=True):
    worker: int
    pid: int
    since: int
    ready: bool
    reasons: list[str]
    limits: dict[str, _Limit]
    links: list[_Link]
    subscriptions: int
    slowest: list[ClientFacts]
    samples: list[list[float | None]]


class Status(msgspec.Struct, frozen=True):
    """What of /status.json is shown."""

    boot: str
    at: int
    version: str
    healthy: bool
    summary: str
    news: list[_News]
    fields: list[str]
    workers: list[_Worker]


def read_status(body: bytes) -> Status:
    """Raises `NoAnswer`."""
    try:
        return msgspec.json.decode(body, type=Status)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise NoAnswer(f"what it answers is no status; {ELSEWHERE}") from None


# Figures. None is what is not known.


def _or_dash(write: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: _DASH if value is None else write(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"


@_or_dash
def _rate(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 10 else _count(value)


@_or_dash
def _delay(value: float) -> str:
    """Seconds, of what is short."""
    if value >= 1:
        return f"{value:.1f} s"
    milliseconds = value * 1000
    if milliseconds >= 10 or milliseconds.is_integer():
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds + 1e-9:.1f} ms"  # 0.25, a bound of the histogram, is not rounded to even


def _share(value: float) -> str:
    return f"{value * 100:.0f} %"


def _span(value: float) -> str:
    """Seconds, of what is long."""
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


# Tables: each column has a heading and what stands in a cell; `>` before a heading: a column of figures.

_Columns = Sequence[tuple[str, Callable[[Any], str]]]


def _table(columns: _Columns, rows: Sequence[Any]) -> Iterator[str]:
    cells = [[heading.removeprefix(">") for heading, _ in columns]]
    cells += [[clean(write(row), _CELL) or _DASH for _, write in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [str.rjust if heading.startswith(">") else str.ljust for heading, _ in columns]
    for line in cells:
        yield "  ".join(side(cell, width) for cell, width, side in zip(line, widths, sides, strict=True)).rstrip()


def _limit(name: str) -> Callable[[float], str]:
    return size if name in ("memory", "history") else _count


_LIMITS: _Columns = (
    ("limited", lambda row: row[0]),
    (">now", lambda row: _limit(row[0])(row[1].value)),
    (">peak", lambda row: _limit(row[0])(row[1].peak)),
    (">limit", lambda row: "none" if row[1].limit is None else _limit(row[0])(row[1].limit)),
    (">in use", lambda row: _share(row[1].value / row[1].limit) if row[1].limit else _DASH),
    ("raised by", lambda row: row[1].option),
)
_RATES: Sequence[tuple[str, str, Callable[[float | None], str]]] = (
    ("publications a second", "publications", _rate),
    ("deliveries a second", "deliveries", _rate),
    ("fan-out p99", "fanout_p99", _delay),
    ("loop delay", "loop_delay", _delay),
    ("waiting for slow clients", "backlog", _or_dash(size)),
    ("CPU of one core", "cpu", _or_dash(_share)),
)
_SLOWEST: _Columns = (
    ("slowest client", lambda row: row.client),
    (">queue", lambda row: size(row.waiting)),
    (">at most", lambda row: size(row.limit)),
    (">conflated", lambda row: _count(row.conflated)),
    (">round trip", lambda row: _delay(row.rtt)),
    (">streams", lambda row: _count(row.streams)),
    (">here for", lambda row: _span(row.age)),
    ("address", lambda row: row.peer),
    ("user", lambda row: row.user),
)
_LINKS: _Columns = (
    ("connection", lambda row: row.link),
    ("state", lambda row: "up" if row.up else "down"),
    ("address", lambda row: row.address),
    (">made anew", lambda row: _count(row.reconnects)),
    (">owes an answer for", lambda row: _delay(row.pinged)),
    ("cause", lambda row: row.cause or ""),
)


class Picture:
    """Of one daemon, which answers again and again. `seq`: the number of the last sample that there is."""

    def __init__(self) -> None:
        self._boot = ""
        self._samples: dict[int, deque[dict[str, float | None]]] = {}
        self.seq = 0

    def lines(self, status: Status) -> Iterator[str]:
        """The sentence, and behind an empty line the rest."""
        self._keep(status)
        yield clean(status.summary)
        if len(status.news) > 1:
            yield clean("; ".join(f"{each.level}: {each.name}" for each in status.news))
        for worker in status.workers:
            yield ""
            yield clean(_process(status, worker))
            yield ""
            yield from _table(_LIMITS, list(worker.limits.items()))
            yield ""
            yield from self._rates(worker.worker)
            yield ""
            yield from _table(_SLOWEST, worker.slowest) if worker.slowest else ["nobody is connected"]
            yield ""
            yield from _table(_LINKS, worker.links)

    def _keep(self, status: Status) -> None:
        if status.boot != self._boot:
            self._boot, self._samples, self.seq = status.boot, {}, 0
        there = [worker.worker for worker in status.workers]
        self._samples = {number: self._samples.get(number, deque(maxlen=_KEPT)) for number in there}
        for worker in status.workers:
            kept = self._samples[worker.worker]
            last = _last(kept)
            rows = [dict(zip(status.fields, row, strict=False)) for row in worker.samples]
            kept.extend(row for row in rows if (row.get("seq") or 0) > last)
        self.seq = min((_last(kept) for kept in self._samples.values()), default=0)

    def _rates(self, worker: int) -> Iterator[str]:
        samples = self._samples[worker]
        last = samples[-1] if samples else {}

        def most(field: str) -> float | None:
            return max((value for each in samples if (value := each.get(field)) is not None), default=None)

        columns: _Columns = (
            ("in the last second", lambda row: row[0]),
            (">now", lambda row: row[2](last.get(row[1]))),
            (">most in 15 min", lambda row: row[2](most(row[1]))),
        )
        yield from _table(columns, _RATES)


def _last(samples: deque[dict[str, float | None]]) -> int:
    return int(samples[-1].get("seq") or 0) if samples else 0


def _process(status: Status, worker: _Worker) -> str:
    readiness = "ready" if worker.ready else f"not ready: {', '.join(worker.reasons)}"
    subscriptions = f"{_count(worker.subscriptions)} subscription{'' if worker.subscriptions == 1 else 's'}"
    up = _span((status.at - worker.since) / 1000)
    who = f"worker {worker.worker}, process {worker.pid}" if worker.worker else f"process {worker.pid}"
    return f"marketfeed {status.version}, {who}, up for {up}; {subscriptions}; {readiness}"
