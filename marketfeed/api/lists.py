"""Clients and streams, as the admin port lists them: who is slow, what is busy, and one of them by itself.

1. A list is made once a second at most, for all who look.
2. The streams of private kinds are for nobody but those whom they name: their markets are masked, and nothing that was
   published on them is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import nlargest
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed

from marketfeed.api.clients import ClientFacts, Register, Visitor
from marketfeed.boundaries import Clock, Entry
from marketfeed.hub.hub import Hub
from marketfeed.hub.overview import StreamFacts
from marketfeed.model.streams import BadStreamName, StreamKinds

__all__ = ["BY_CLIENT", "BY_STREAM", "CLIENT_ORDERS", "MOST_SUBSCRIBERS", "STREAM_ORDERS", "Lists"]

_FRESH_SECONDS = 1.0
_MASK = "…"
_LAST, _LAST_BYTES = 10, 65_536
MOST_SUBSCRIBERS = 50
_SLOWEST = 10

BY_CLIENT: dict[str, Callable[[ClientFacts], Any]] = {
    "queue": lambda each: (each.waiting, each.conflated),
    "conflated": lambda each: (each.conflated, each.waiting),
    "rtt": lambda each: each.rtt or 0.0,
    "streams": lambda each: each.streams,
    "age": lambda each: each.age,
}
"""What each order goes by."""
BY_STREAM: dict[str, Callable[[StreamFacts], Any]] = {
    "rate": lambda each: (each.rate or 0.0, each.clients),
    "clients": lambda each: (each.clients, each.rate or 0.0),
    "kept": lambda each: each.kept,
    "quiet": lambda each: -(each.heard or 0),
}
"""The same, of streams."""
CLIENT_ORDERS, STREAM_ORDERS = tuple(BY_CLIENT), tuple(BY_STREAM)


class Lists:
    """Of one process."""

    def __init__(self, clock: Clock, hub: Hub, clients: Register, kinds: StreamKinds) -> None:
        self._clients = _Kept(clock, lambda: [each.facts() for each in clients])
        self._slowest = _Kept(clock, lambda: [each.facts() for each in nlargest(_SLOWEST, clients, _backlog)])
        self._streams = _Kept(clock, lambda: [_masked(each) for each in hub.overview.streams()])
        self._register = clients
        self._hub = hub
        self._kinds = kinds

    @property
    def slowest(self) -> list[ClientFacts]:
        """The ten for whom most waits, or was left out, the slowest first."""
        return self._slowest()

    def clients(self, text: str, order: str, limit: int) -> list[ClientFacts]:
        """Those whose name, address or user has `text` in it, the largest of `order` first."""
        text = text.lower()
        rows: Iterable[ClientFacts] = self._clients()
        if text:
            rows = [each for each in rows if text in f"{each.client}\n{each.peer}\n{each.user}".lower()]
        return nlargest(limit, rows, BY_CLIENT[order])

    def streams(self, text: str, order: str, limit: int) -> list[StreamFacts]:
        """Those whose name has `text` in it, the largest of `order` first."""
        text = text.lower()
        rows: Iterable[StreamFacts] = self._streams()
        if text:
            rows = [each for each in rows if text in each.stream.lower()]
        return nlargest(limit, rows, BY_STREAM[order])

    def client(self, name: str) -> dict[str, Any] | None:
        """One client, with the names of its streams; None: it is not here."""
        connection = self._register.find(name)
        if connection is None:
            return None
        return {**msgspec.structs.asdict(connection.facts()), "names": [*map(self._shown, connection.streams())]}

    def stream(self, name: str) -> Deferred[dict[str, Any] | None]:
        """One stream, with who is in it and what was published on it last; None: nobody follows it."""
        try:
            parsed = self._kinds.parse(name)
        except BadStreamName:
            return succeed(None)
        found = self._hub.overview.stream(str(parsed))
        if found is None or parsed.kind.private:
            return succeed(None)
        facts, members = found
        subscribers = [each.facts() for each in self._register if each.outbox in members]
        slowest = nlargest(MOST_SUBSCRIBERS, subscribers, BY_CLIENT["queue"])
        answer = {**msgspec.structs.asdict(facts), "subscribers": slowest, "watch": f"marketfeed watch {parsed}"}
        return self._hub.history(parsed, _LAST, _LAST_BYTES).addCallback(_with_last, answer)

    def _shown(self, spelling: str) -> str:
        try:
            name = self._kinds.parse(spelling)
        except BadStreamName:  # of a kind that was declared when it was subscribed to
            return _MASK
        return f"{name.kind.name}@{_MASK}" if name.kind.private else spelling


class _Kept:
    """What `make` makes, for as long as it is fresh."""

    def __init__(self, clock: Clock, make: Callable[[], list[Any]]) -> None:
        self._clock = clock
        self._make = make
        self._made: list[Any] = []
        self._at = float("-inf")

    def __call__(self) -> list[Any]:
        now = self._clock.seconds()
        if now - self._at >= _FRESH_SECONDS:
            self._made, self._at = self._make(), now
        return self._made


def _backlog(visitor: Visitor) -> tuple[int, int]:
    return visitor.backlog()


def _masked(facts: StreamFacts) -> StreamFacts:
    return msgspec.structs.replace(facts, stream=f"{facts.kind}@{_MASK}", offset=None) if facts.is_private else facts


def _with_last(entries: list[Entry] | None, answer: dict[str, Any]) -> dict[str, Any]:
    """Publications that are no text are none that anybody could read."""
    last = [{"offset": offset, "data": data.decode("utf-8", "replace")} for offset, data in entries or ()]
    return {**answer, "last": last[::-1]}
