"""What an operator should know, in plain words, the worst of it first (docs/operations/status.md#the-status-as-json).

1. `bad`: clients do not get what they should, or nobody may come in. `warn`: that may come, or one client, one engine
   is not well. `note`: it is over.
2. Each has a name of its own, under which the alerts and docs know it, and a sentence that names the cause, the figure,
   and the option that has to do with it.
3. Times are UTC. What is of late is of the last minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from marketfeed.api.clients import ClientFacts, Departed
from marketfeed.api.metrics import Parts
from marketfeed.api.samples import Samples
from marketfeed.hub.outages import Outage
from marketfeed.model.numbers import size
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.wire.close_codes import SLOW_CONSUMER

__all__ = ["News", "Watch", "reload_failed", "summary", "worst_first"]

_LATE = 60
"""Seconds."""
_NEAR = 0.8
"""Of a limit."""
_DAY = 86_400
_EXPIRES_SOON = 14 * _DAY
_LOOP_SECONDS = 0.25
_ORDER = {"bad": 0, "warn": 1, "note": 2}


class News(msgspec.Struct, frozen=True):
    """One piece. `name`: the same for the same cause."""

    level: Literal["bad", "warn", "note"]
    name: str
    text: str


def worst_first(pieces: Iterable[News]) -> list[News]:
    """As they are told."""
    return sorted(pieces, key=lambda each: _ORDER[each.level])


class Watch:
    """Looks at all parts of one process."""

    def __init__(self, parts: Parts, samples: Samples) -> None:
        self._parts = parts
        self._samples = samples

    def news(self, slowest: list[ClientFacts]) -> list[News]:
        """All that there is to say, the worst first. `slowest`: clients, the one for whom most waits first."""
        pieces = [*self._source(), *self._engine(), *self._slow(slowest), *self._limits(), *self._process()]
        return worst_first(pieces)

    def _source(self) -> Iterator[News]:
        parts, overview = self._parts, self._parts.hub.overview
        links, outages = {link.called: link for link in parts.links()}, overview.outages
        away = next((link for link in links.values() if link.link is None), None)
        if not overview.source_reached and away is not None:
            text = f"Redis at {away.address} has not been reached yet{_cause(away)}."
            yield News("bad", "source-never-reached", text)
        elif outages.present:
            for each in outages.present:
                told = f"; {_clients(each.told)} told" if each.told else ""
                text = f"{_redis(each)} is away since {_time(each.since)}{_cause(links.get(each.link))}{told}."
                yield News("bad", "source-down", text)
        elif outages.recent:
            last = outages.recent[-1]
            if last.until is not None and parts.now() * 1000 - last.until < 1000 * _DAY and last.told:
                text = (
                    f"{_redis(last)} was away {_time(last.since)} to {_time(last.until)}; {_clients(last.told)} told."
                )
                yield News("note", "source-was-down", text)

    def _process(self) -> Iterator[News]:
        parts = self._parts
        if parts.clients.draining:
            yield News("bad", "draining", "This daemon is shutting down: its clients are being sent to others.")
        if parts.memory.is_full:
            last = self._samples.last
            used = "" if last is None else f"{size(last.memory)} of "
            limit = f"{used}{size(parts.memory.limit)}, --memory-limit"
            yield News("bad", "memory", f"Memory is short ({limit}): nobody is let in.")
        expiry = parts.certificate_expiry()
        if expiry is not None and expiry - parts.now() < _EXPIRES_SOON:
            left = expiry - parts.now()
            when = "has expired" if left <= 0 else f"expires in {int(left // _DAY)} days"
            yield News("bad" if left <= 0 else "warn", "certificate", f"The certificate that clients are shown {when}.")
        if not parts.reload.succeeded:
            yield reload_failed(parts.reload.last)
        delays = [each.loop_delay or 0.0 for each in self._samples.newest(_LATE)]
        if delays and max(delays) >= _LOOP_SECONDS:
            text = f"Something was done {max(delays):g} s late in the last minute: the core of this daemon is too busy."
            yield News("warn", "loop-delay", text)

    def _limits(self) -> Iterator[News]:
        for name, limit in self._samples.limits().items():
            if name == "history" or (name == "memory" and self._parts.memory.is_full):
                continue  # history is full in daily work: the oldest goes; full memory has been told
            if not limit.limit or limit.value < _NEAR * limit.limit:
                continue
            is_full = limit.value >= limit.limit and name in ("clients", "streams")
            shown = size if name == "memory" else _number
            text = f"{shown(limit.value)} of {shown(limit.limit)} {_LIMITED[name]}"
            end = ": nobody else is let in" if is_full and name == "clients" else ""
            yield News("bad" if is_full else "warn", f"near-limit-{name}", f"{text} ({limit.option}){end}.")

    def _engine(self) -> Iterator[News]:
        parts, overview, newest = self._parts, self._parts.hub.overview, self._samples.newest(_LATE)
        bad = sum(each.bad for each in newest)
        last = overview.last_bad
        if bad and last is not None:
            what = "dropped" if last.is_dropped else "forwarded as they are"
            text = f"The engine writes what is not right: {_number(bad)} publications in the last minute, {what}; "
            yield News("warn", "bad-publications", f"{text}last on {last.shown}: {last.reason}: {last.fault}.")
        for kind, since in overview.silent_kinds.items():
            text = f"The engine is silent: nothing of {kind} has come since {_time(since)} ([streams.{kind}] silence)."
            yield News("bad", "engine-silent", text)
        heard = max((each.last for each in parts.hub.counts.kinds.values()), default=0.0)
        is_told = bool(overview.silent_kinds) or bool(overview.outages.present)
        if heard and parts.now() - heard >= _LATE and not is_told:
            yield News("note", "quiet", f"Nothing has been published since {_time(int(heard * 1000))}.")

    def _slow(self, slowest: list[ClientFacts]) -> Iterator[News]:
        now = self._parts.now() * 1000
        behind = [each for each in slowest if 2 * each.waiting >= each.limit]
        if behind:
            first = behind[0]
            count = "One client is" if len(behind) == 1 else f"{_number(len(behind))} clients are"
            waiting = f"{size(first.waiting)} of {size(first.limit)} (--client-queue)"
            yield News("warn", "slow-clients", f"{count} slow: {waiting} wait for {_who(first)}.")
        closed = [
            each
            for each in self._parts.clients.departed
            if each.code == SLOW_CONSUMER.code and now - each.at < 1000 * _LATE
        ]
        if closed and not behind:
            last = closed[-1]
            text = f"{_clients(len(closed))} too slow and closed in the last minute, with 4008, the last {_who(last)}."
            yield News("warn", "slow-clients", text)


def reload_failed(at: float) -> News:
    """`at`: s since 1970."""
    text = f"The reload at {_time(int(at * 1000))} found a fault, which is in the log: nothing was changed."
    return News("warn", "reload", text)


_LIMITED = {
    "clients": "clients are connected",
    "streams": "streams are followed",
    "memory": "of memory is in use",
    "files": "files are open",
}


def summary(news: list[News], clients: int) -> str:
    """One sentence or some: what is wrong first, or that nothing is."""
    worst = [each.text for each in news if each.level != "note"]
    notes = [each.text for each in news if each.level == "note"]
    count = f"{_number(clients)} client{'' if clients == 1 else 's'}."
    return " ".join([*(worst or ["Healthy."]), count, *notes])


def _number(count: float) -> str:
    return f"{count:,.0f}"


def _clients(count: int) -> str:
    return f"{_number(count)} client{' was' if count == 1 else 's were'}"


def _redis(outage: Outage) -> str:
    """Links are called `redis`, and by their server where there are several."""
    return outage.link.capitalize()


def _cause(link: LinkKeeper[Any] | None) -> str:
    return f": {link.cause}" if link is not None and link.cause else ""


def _who(facts: ClientFacts | Departed) -> str:
    return f"{facts.client} at {facts.peer}" + (f", user {facts.user}" if facts.user else "")


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%H:%M:%S} UTC"
