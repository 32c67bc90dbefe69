"""The history of a stream whose source knows no offsets: this process counts."""

from __future__ import annotations

from hashlib import blake2b

from marketfeed.hub.histories import US, WHOLE, Histories, is_epoch
from marketfeed.hub.history import History, Note
from marketfeed.model.numbers import whole

__all__ = ["CountedHistory", "digest"]

_DIGITS = 20  # of the largest number in 64 bits

_ENDS = 1024  # bytes at either end of a publication that count for its digest: it takes the same time for all


def digest(data: bytes) -> bytes:
    """Sixteen bytes that are the same for the same publication, and for others hardly ever."""
    read = data if len(data) <= 2 * _ENDS else b"%d %b%b" % (len(data), data[:_ENDS], data[-_ENDS:])
    return blake2b(read, digest_size=16).digest()


class CountedHistory(History):
    """Offsets are `<epoch>-<number of the publication>`, and hold in their epoch only. The numbers that clients see are
    the times in µs.
    """

    __slots__ = ("_before", "_count", "_head", "_last", "_previous")

    is_counted = True

    def __init__(self, histories: Histories, epoch: str | None = None) -> None:
        super().__init__(histories)
        self._count = 0
        self._head = f"{histories.new_epoch() if epoch is None else epoch}-"
        self._last: float | None = None  # with which the chain goes on; None: it is broken
        self._previous: float | None = None  # the same, before the newest publication
        self._before: float | None = None  # the same, before the first of the lists

    @property
    def latest(self) -> str:
        return self.at(self._count)

    @property
    def has_begun(self) -> bool:
        return self._count > 0

    @property
    def epoch(self) -> str:
        """What offsets begin with, which are those of this epoch."""
        return self._head[:-1]

    @property
    def count(self) -> int:
        """How many publications there have been in this epoch; the number of the newest."""
        return self._count

    def at(self, number: int) -> str:
        """The offset of the publication of this number."""
        return f"{self._head}{number}"

    def foreign(self, offset: str) -> tuple[str, int] | None:
        """The epoch and the number of an offset that another process may have given; None: none has."""
        epoch, _, text = offset.rpartition("-")
        number = whole(text, _DIGITS) if epoch != self.epoch and is_epoch(epoch) else None
        return None if number is None else (epoch, number)

    def newest_digests(self, most: int) -> list[bytes]:
        """Of the newest publications that are kept, `most` at most, oldest first: equal ones have equal ones."""
        return [digest(data) for data in self._data[max(self._start, len(self._data) - most) :]]

    def add(self, data: bytes, now: float, offset: str | None = None) -> None:
        self._count += 1
        time = now * US + WHOLE - WHOLE
        if time <= self.time:
            time = self.time + 1
        self._previous = self._last
        self._last = self.time = time
        if self._limit:
            self._keep(data, time)

    def jump(self) -> None:
        self.time += 1
        self._last = self.time
        if self._limit:
            self._times[-1] = self.time

    @property
    def newest_at(self) -> int:
        return int(self.time) // 1000

    @property
    def newest_place(self) -> tuple[int, int, int | None]:
        number, previous = int(self.time), self._previous
        return number // 1000, number, None if previous is None else int(previous)

    def number(self, now: float, seeded: int | None = None) -> int:
        if self._last is None:
            self.time = max(self.time + 1, now * US + WHOLE - WHOLE)
            self._last = self._before = self.time if seeded is None else float(seeded)
        return int(self._last)

    def _number_before(self, at: int) -> int | None:
        before = self._times[at - 1] if at else self._before
        return None if before is None else int(before)

    def _note(self, at: int) -> Note:
        time = int(self._times[at])
        return Note(time // 1000, time, self._beside.get(self._gone + at, b""))

    def _number_of(self, offset: str) -> int | None:
        return whole(offset.removeprefix(self._head), _DIGITS) if offset.startswith(self._head) else None

    def count_from(self, offset: str) -> int | None:
        number = self._number_of(offset)
        return None if number is None or number > self._count else self._count - number + 1

    def _behind(self, offset: str) -> int | None:
        number = self._number_of(offset)
        if number is None:
            return None
        missed = self._count - number
        return len(self._data) - missed if 0 <= missed <= self.kept else None

    def confirm(self, after: str | None) -> bool:
        """Drop everything, in any case: no offset from before holds any more."""
        if self._data:
            self.drop(self.kept)
        self._last = self._before = None
        self.time += 1  # what comes next is not the next number, whatever the clock says
        self._count = 0
        self._head = self._histories.new_epoch() + "-"
        return True

    def fail(self, offset: str | None) -> None:
        self.confirm(None)

    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        first = self._count - len(self._data) + at + 1
        return [(f"{self._head}{number}", data) for number, data in enumerate(self._data[at:], first)]

    def _move(self, count: int) -> None:
        if count:
            self._before = self._times[count - 1]
        super()._move(count)
