"""What one client was told, held against what an engine has published: the verdict where publications can be lost.

1. A publication that the server has acknowledged is seen, or there was a word about it: a gap, or `recovered: false`.
2. `recovered: true` takes back what was said before: nothing behind the offset is missing.
3. A word that comes behind the publication that shows the hole is one, too, on the same connection: a stream that
   jumps more than once a second is told about once a second.
4. A book that the client has no reason to doubt is the engine's, as it was at the same publication. Where words may be
   late, a word that comes behind it on the same connection counts.
5. What was not acknowledged may be there or not. So a verdict is found when the engine has its answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

__all__ = ["Account", "Book", "EngineBooks", "Truth"]

Span = tuple[float, float]


class Truth(Protocol):
    """What an engine has published, whose numbers are given to its streams in turn.

    `sent`: the first number that it has not begun with. `acknowledged`: stream → number → between which two moments it
    was published, in ms since 1970.
    """

    sent: int

    @property
    def acknowledged(self) -> Mapping[str, Mapping[int, tuple[int, int]]]: ...


class Book:
    """An order book. `digest`: the same for two books that have the same levels."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[str, str]] = {"a": {}, "b": {}}
        self.digest = 0

    def apply(self, side: str, levels: Iterable[Iterable[str]]) -> None:
        """Change one side."""
        places = self.sides[side]
        for price, quantity in levels:
            before = places.pop(price, None)
            if before is not None:
                self.digest ^= hash((side, price, before))
            if quantity != "0":
                places[price] = quantity
                self.digest ^= hash((side, price, quantity))


class EngineBooks:
    """The engine's own books. `digests`: stream → number → the book then, and the number of the last whole one.

    Every other stream has ids. An engine that does not know what became of its last publications goes on with a whole
    book: `failures` counts up then.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._books: dict[str, Book] = {}
        self._known: dict[str, tuple[int, int, int]] = {}  # failures, last whole one, id
        self.digests: dict[str, dict[int, tuple[int, int]]] = {}

    def next(self, stream: str, number: int, failures: int) -> bytes:
        """The data of one more publication, whose number is in it as `n`."""
        rng = self._rng
        book = self._books.setdefault(stream, Book())
        known, whole, last = self._known.get(stream, (-1, number, 0))
        message: dict[str, Any] = {"e": "depthUpdate", "n": number, "s": stream.partition("@")[2]}
        changes = {side: [self._level(sign) for _ in range(rng.randrange(3))] for side, sign in (("a", 1), ("b", -1))}
        for side, levels in changes.items():
            book.apply(side, levels)
        if known != failures or not rng.randrange(10):
            whole = number
            changes = {side: list(levels.items()) for side, levels in book.sides.items()}
            message["snapshot"] = True
        if has_ids(stream):
            message |= {"U": last + 1, "u": last + 1}
        self._known[stream] = failures, whole, last + 1
        self.digests.setdefault(stream, {})[number] = book.digest, whole
        return msgspec.json.encode({**message, **changes})

    def _level(self, sign: int) -> tuple[str, str]:
        price = 1000 + sign * self._rng.randrange(1, 20)
        return str(price), str(self._rng.choice((0, self._rng.randrange(1, 100))))


def has_ids(stream: str) -> bool:
    """Whether the engine numbers the depth messages of this stream."""
    return int(stream[-1]) % 2 == 0


@dataclass(slots=True)
class _Hole:
    """Numbers that were not seen between two that were. `claimed`: the client had been told that nothing is missing."""

    stream: str
    after: int
    before: int
    words: list[Span]
    claimed: bool
    shown_at: int


@dataclass(slots=True)
class _Doubt:
    """A book that was not the engine's. `good`: the last number at which it was."""

    stream: str
    good: int
    number: int
    shown_at: int


@dataclass(slots=True)
class _Stream:
    last: int = -1
    floor: int | None = None  # what had been begun when a reply said that nothing old comes
    offset: str | None = None
    book: Book | None = None
    good: int = -1  # the last number at which the book was the engine's
    is_doubtful: bool = False  # the book, unless nothing turns out to be missing
    claimed: bool = False
    words: list[Span] = field(default_factory=list)  # since the last publication
    open: dict[str, int] = field(default_factory=dict)  # reason → from


class Account:
    """What one client was told about some streams. `step`: between two numbers of one stream.

    `lies`: what was wrong by itself, as lines. `is_timed`: the spans of gaps have to hold what is missing in them.
    `is_late`: a book may be wrong until there is a word about it, which is owed.
    """

    def __init__(
        self,
        truth: Truth,
        digests: Mapping[str, Mapping[int, tuple[int, int]]],
        streams: Iterable[str],
        step: int,
        *,
        is_timed: bool = False,
        is_late: bool = False,
    ) -> None:
        self._truth = truth
        self._digests = digests
        self._step = step
        self._is_timed = is_timed
        self._is_late = is_late
        self._streams = {stream: _Stream() for stream in streams}
        self._holes: list[_Hole] = []
        self._waiting: list[_Hole] = []  # for a word that may come yet
        self._doubts: list[_Doubt] = []
        self._owed: list[_Doubt] = []  # a word may come yet
        self.lies: list[str] = []
        self.recovered = {True: 0, False: 0}

    # What the client is told.

    def away(self) -> None:
        """The connection is gone, and what was announced on it with it."""
        for stream in self._streams.values():
            stream.open.clear()
        self._holes += self._waiting
        self._waiting.clear()
        self._doubts += self._owed
        self._owed.clear()

    def replied(self, name: str, recovered: bool | None, now: int) -> None:
        """It has joined; None: without an offset. `now`: ms since 1970."""
        stream = self._streams[name]
        stream.open.clear()
        stream.words.clear()
        stream.claimed = recovered is True
        stream.is_doubtful = not stream.claimed
        if recovered is not None:
            self.recovered[recovered] += 1
        stream.floor = None if recovered else self._truth.sent - 1
        if recovered is None:
            stream.last, stream.book = -1, None

    def gap(self, names: Iterable[str], reason: str, since: int, until: int | None) -> None:
        for name in names:
            stream = self._streams[name]
            if until is None:
                if reason in stream.open:
                    self.lies.append(f"{name}: a second gap begins in a gap, {reason} from {since}")
                stream.open[reason] = since
                continue
            stream.is_doubtful = True
            if reason == "sequence":
                stream.offset = stream.book = None
                self._excuse(name, since)
            elif (began := stream.open.pop(reason, None)) != since:
                self.lies.append(f"{name}: a gap ends that began at {since}, not at {began}")
            if until < since:
                self.lies.append(f"{name}: a gap ends before it began: {since} to {until}")
            stream.words.append((since, until))

    def publication(self, name: str, number: int, data: Mapping[str, Any], offset: str | None, now: int) -> None:
        """A publication has come, or a state."""
        stream = self._streams[name]
        is_book = name.startswith("depth@")
        if stream.open:
            self.lies.append(f"{name}: {number} inside of a gap")
        if stream.is_doubtful:
            stream.book = None
        if stream.floor is None and number <= stream.last and not (is_book and data.get("snapshot") is True):
            self.lies.append(f"{name}: {number} after {stream.last}")
        if is_book:
            self._take_depth(name, stream, number, data, now)
        else:
            self._look_for_hole(name, stream, number, now)
        stream.last, stream.offset = number, offset
        stream.floor, stream.claimed, stream.is_doubtful = None, False, False
        stream.words.clear()

    def _look_for_hole(self, name: str, stream: _Stream, number: int, now: int) -> None:
        after = stream.last if stream.floor is None else stream.floor
        if number - self._step <= after or (stream.words and not self._is_timed):
            return
        hole = _Hole(name, after, number, list(stream.words), stream.claimed, now)
        (self._holes if hole.words or hole.claimed else self._waiting).append(hole)

    def _excuse(self, name: str, since: int) -> None:
        """A jump was told behind the publication that showed it."""
        self._waiting = [hole for hole in self._waiting if hole.stream != name or hole.shown_at < since]
        self._owed = [doubt for doubt in self._owed if doubt.stream != name or doubt.shown_at < since]

    def _take_depth(self, name: str, stream: _Stream, number: int, data: Mapping[str, Any], now: int) -> None:
        if data.get("snapshot") is True:
            stream.book, stream.good = Book(), -1
        book = stream.book
        if book is None:
            return
        for side in ("a", "b"):
            book.apply(side, data[side])
        if book.digest == self._digests[name][number][0]:
            stream.good = number
        else:
            (self._owed if self._is_late else self._doubts).append(_Doubt(name, stream.good, number, now))
            stream.book = None

    # What has come of it.

    def offset(self, name: str) -> str | None:
        """The last one, behind which the client goes on."""
        return self._streams[name].offset

    def last(self, name: str) -> int:
        """The number of the last publication."""
        return self._streams[name].last

    @property
    def is_in_gap(self) -> bool:
        """A gap is open in every stream."""
        return all(stream.open for stream in self._streams.values())

    @property
    def is_whole(self) -> bool:
        """No gap is open, and no word is owed."""
        is_owed = any(map(self._missing, self._waiting)) or any(map(self._is_wrong, self._owed))
        return not is_owed and not any(stream.open for stream in self._streams.values())

    def verdict(self) -> list[str]:
        """All that was wrong, as lines. The engine has all its answers by now."""
        found = list(self.lies)
        for hole in [*self._holes, *self._waiting]:
            missing = self._missing(hole)
            if missing:
                what = (
                    "was said to be recovered" if hole.claimed else f"told of {hole.words}" if hole.words else "silent"
                )
                found.append(f"{hole.stream}: {len(missing)} between {hole.after} and {hole.before}: {what}")
        wrong = filter(self._is_wrong, [*self._doubts, *self._owed])
        found += [
            f"{each.stream}: the book at {each.number} is not the engine's; it was at {each.good}" for each in wrong
        ]
        return found

    def _is_wrong(self, doubt: _Doubt) -> bool:
        """The server had acknowledged all that makes up the engine's own book."""
        name, number = doubt.stream, doubt.number
        whole = self._digests[name][number][1]
        return all(each in self._truth.acknowledged[name] for each in range(number, whole - 1, -self._step))

    def _missing(self, hole: _Hole) -> list[int]:
        """What was published in the hole, and that no word is about."""
        acknowledged = self._truth.acknowledged[hole.stream]
        missing = []
        for number in range(hole.before - self._step, hole.after, -self._step):
            moments = acknowledged.get(number)
            if moments is not None and not any(
                since <= moments[1] and moments[0] <= until for since, until in hole.words
            ):
                missing.append(number)
        return missing
