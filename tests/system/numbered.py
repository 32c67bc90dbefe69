"""Numbered publications: an engine that goes on whatever happens to its servers, and one who counts what came of it.

1. Every publication of a stream has a number, and is sent once. What the server has acknowledged was published between
   two moments of the one clock that everybody here has.
2. What was acknowledged, and did not come, lies in time inside a gap of just that stream. What is kept in Redis comes:
   once, and in its order.
3. Within an open gap nothing comes, and gaps begin and end in turn.
4. What a node of a cluster had sent to its replica when the network was cut is with the kernel. It arrives there when
   the network is whole, and goes to whoever watches at what is the master by then: late, or a second time.
5. What a master publishes it passes on to its replicas. One that takes over at once may be listened to before that has
   arrived there: then it comes a second time, behind the gap.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from threading import Event, Thread
from typing import Any, Protocol

import hiredis
import msgspec

from tests.redis_servers.client import Connection, Word
from tests.redis_servers.process import ServerProcess
from tests.system.harness import trade
from tests.system.lean import LeanClient

__all__ = ["OTHERS", "AtServers", "Engine", "Follower", "Publisher", "Sent", "Span", "now_ms"]

OTHERS = 1 << 40
"""From here on numbers are of another engine."""
_MOST_WAIT = 0.5

Span = tuple[int, float]
"""Two moments, in ms since 1970."""

Sent = Mapping[str, Mapping[int, tuple[int, int]]]
"""Stream → number → between which two moments it was published, in ms since 1970."""


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Publisher(Protocol):
    """What brings commands to where they belong."""

    def commands(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Send them; their replies, or the errors that came instead."""

    def close(self) -> None: ...


class AtServers:
    """A `Publisher` at one server: the one that `find` names, which raises StopIteration where nobody knows.

    Nothing counts as acknowledged where it names another one afterwards.
    """

    def __init__(self, find: Callable[[], ServerProcess]) -> None:
        self._find = find
        self._server: ServerProcess | None = None
        self._connection: Connection | None = None

    def commands(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        try:
            if self._connection is None:
                self._server = self._named()
                if self._server is None:
                    raise ConnectionError("nobody knows where")
                self._connection = self._server.connect(_MOST_WAIT)
            replies = self._connection.replies(commands)
            if self._named() is self._server:
                return replies
            fault: Exception = ConnectionError("it is another server now")
        except (OSError, hiredis.HiredisError) as error:
            fault = error
        self.close()
        return [fault] * len(commands)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _named(self) -> ServerProcess | None:
        try:
            return self._find()
        except StopIteration:
            return self._server


class Engine:
    """Publishes on all its streams in turn, in a thread, and again after `pause` s.

    `words`: the command for a stream and a payload. `first`: the number of the first publications. `sent`: stream →
    number → between which two moments it was published, in ms since 1970. `count`: of all that was acknowledged.
    `share`: how many publications of each stream are sent together.
    """

    def __init__(
        self,
        publisher: Publisher,
        streams: Iterable[str],
        words: Callable[[str, bytes], Sequence[Word]],
        *,
        pause: float = 0.01,
        first: int = 1,
        share: int = 1,
    ) -> None:
        self._publisher = publisher
        self._streams = list(streams)
        self._words = words
        self._pause = pause
        self._share = share
        self._ended = Event()
        self._thread = Thread(target=self._run)
        self._faults: list[BaseException] = []
        self.number = first
        self.count = 0
        self.sent: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more is published; all that was is in `sent`. What has ended it before is raised."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._publisher.close()
        for fault in self._faults:
            raise fault

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._pause):
                self._publish()
        except BaseException as fault:
            self._faults.append(fault)

    def _publish(self) -> None:
        numbers = range(self.number, self.number + self._share)
        each = [(stream, number) for number in numbers for stream in self._streams]
        commands = [self._words(stream, _numbered(stream, number)) for stream, number in each]
        self.number += self._share
        begun = now_ms()
        replies = self._publisher.commands(commands)
        ended = now_ms()
        for (stream, number), reply in zip(each, replies, strict=True):
            if not isinstance(reply, Exception):
                self.sent[stream][number] = begun, ended
                self.count += 1


def _numbered(stream: str, number: int) -> bytes:
    return trade(stream.partition("@")[2], number)


class Follower(LeanClient):
    """A client of streams, at /stream.

    `got`: stream → the numbers that came. `gaps`: stream → when there were some. `open`: stream → since when there is
    one. `since`: when it had joined. `faults`: what was wrong by itself, as lines.
    """

    def __init__(self, streams: Iterable[str]) -> None:
        super().__init__()
        self.streams = list(streams)
        self.got: dict[str, list[int]] = {stream: [] for stream in self.streams}
        self.gaps: dict[str, list[Span]] = {stream: [] for stream in self.streams}
        self.open: dict[str, int] = {}
        self.replies: list[Any] = []
        self.faults: list[str] = []
        self.since = 0.0

    def join(self) -> None:
        """Subscribe to all."""
        self.send({"method": "SET_PROPERTY", "params": ["events", True], "id": 0})
        self.send({"method": "SUBSCRIBE", "params": self.streams, "id": 1})

    def text_received(self, text: bytes) -> None:
        message = msgspec.json.decode(text)
        if message.get("id") == 0:
            return
        if "id" in message:
            self.replies.append(message)
            self.since = now_ms()
        elif message["data"]["e"] == "gap":
            self._take_gap(message["data"])
        elif message["data"]["e"] == "trade":
            self._take(message["stream"], message["data"]["t"])

    def _take(self, stream: str, number: int) -> None:
        if stream in self.open:
            self.faults.append(f"{stream}: {number} inside of a gap since {self.open[stream]}")
        self.got[stream].append(number)

    def _take_gap(self, gap: dict[str, Any]) -> None:
        for stream in gap["streams"]:
            if gap["reason"] == "sequence":
                self.gaps[stream].append((gap["from"], gap["to"]))
            elif gap["to"] is None:
                if stream in self.open:
                    self.faults.append(f"{stream}: a second gap begins: {gap}")
                self.open[stream] = gap["from"]
            else:
                if self.open.pop(stream, None) != gap["from"] or gap["to"] < gap["from"]:
                    self.faults.append(f"{stream}: not the end of its gap: {gap}")
                self.gaps[stream].append((gap["from"], gap["to"]))

    def newest(self, below: int) -> int:
        """Up to which number, below some other, something of every stream has come."""
        return min(max((each for each in got[-50:] if each < below), default=0) for got in self.got.values())

    def spans(self, stream: str) -> list[Span]:
        """All gaps of a stream, also the one that is open."""
        return [*self.gaps[stream], *([(self.open[stream], float("inf"))] if stream in self.open else [])]

    def unexplained(self, sent: Sent, last: int, late_until: float = 0, *, is_passed_on: bool = False) -> list[str]:
        """What is wrong with what came of what was acknowledged, up to a number, as lines, where nothing is kept.

        `late_until`: what was published before this moment, in ms since 1970, may have come late, or once more.
        `is_passed_on`: what one node publishes others hear, at their own time, and behind a gap it may be one of them
        that is listened to.
        """
        found = list(self.faults)
        for stream, got in self.got.items():
            spans, seen, known = self.spans(stream), set(got), sent.get(stream, {})
            for number, (begun, ended) in known.items():
                if begun <= self.since or number in seen or number > last:
                    continue
                if not any(since <= ended and begun <= until for since, until in spans):
                    found.append(f"{stream}: {number}, published from {begun} to {ended}, is not in {spans}")
            late = max([late_until, *[end for _, end in self.gaps[stream]]]) if is_passed_on else late_until
            found += self._disorder(stream, _without_late(got, known, late), in_order=True)
        return found

    def unlike(self, expected: Mapping[str, Sequence[int]]) -> list[str]:
        """What is wrong with what came of what Redis holds, as lines."""
        found = list(self.faults)
        for stream, got in self.got.items():
            seen, there = set(got), set(expected[stream])
            missing = [number for number in expected[stream] if number not in seen]
            if missing:
                found.append(f"{stream}: {len(missing)} are missing, {missing[:5]}, gaps {self.spans(stream)}")
            elif [number for number in got if number in there] != list(expected[stream]):
                found.append(f"{stream}: not in the order of its entries")
            found += self._disorder(stream, got, in_order=False)
        return found

    def has_all(self, expected: Mapping[str, Sequence[int]]) -> bool:
        """The last of what is expected of each stream has come."""
        return all(expected[stream][-1] in got[-50:] for stream, got in self.got.items() if expected[stream])

    def forget(self) -> None:
        """What has come so far is judged."""
        for stream in self.streams:
            self.got[stream].clear()
            self.gaps[stream].clear()

    def touched(self) -> Collection[str]:
        """The streams that had a gap."""
        return {stream for stream in self.streams if self.spans(stream)}

    @staticmethod
    def _disorder(stream: str, got: list[int], *, in_order: bool) -> list[str]:
        lines = [f"{stream}: {len(got) - len(set(got))} came twice"] if len(set(got)) < len(got) else []
        if in_order:
            lines += [f"{stream}: {then} after {first}" for first, then in pairwise(got) if then < first][:3]
        return lines


def _without_late(got: Iterable[int], known: Mapping[int, tuple[int, int]], late_until: float) -> list[int]:
    """Those that are known, in the order in which they came, but for what was published before then and came late."""
    found: list[int] = []
    for number in got:
        if number in known and not (found and number <= found[-1] and known[number][0] <= late_until):
            found.append(number)
    return found
