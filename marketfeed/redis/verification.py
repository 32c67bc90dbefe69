"""What is looked at again while a link lives, for the server says nothing of it: a little each second.

1. Every stream that is read has its turn once in `TURN_SECONDS`: whether what it was read up to is still there. A
   stream whose ids have gone backwards, or that was deleted, would be silent for ever without a loss of the link; and
   a book that lacks what was deleted with one is wrong until then. Where there are few, `LEAST_A_SECOND` have their
   turn all the same, and it comes sooner.
2. What the server has refused is asked for again once in `ROUND_SECONDS`: a permission that is given ends no link.
3. However many there are, no more than `MOST_A_SECOND` have their turn in a second: then a round takes longer.
"""

from __future__ import annotations

from marketfeed.redis.rotation import Rotation
from marketfeed.redis.stream_reads import Reading

__all__ = ["LEAST_A_SECOND", "LOOK_SECONDS", "MOST_A_SECOND", "ROUND_SECONDS", "TURN_SECONDS", "Rounds", "Verification"]

LOOK_SECONDS = 0.25
"""How often somebody may have a turn: all those of a second at once would hold up what is read."""
TURN_SECONDS = 5.0
ROUND_SECONDS = 30.0
MOST_A_SECOND = 200
LEAST_A_SECOND = 20


class Rounds:
    """How many have their turn, so that each of them has one in a round. `now`: when the first round begins, in s.

    `seconds`: how long a round is; `ROUND_SECONDS` if that is not given.
    """

    def __init__(
        self,
        now: float,
        most_a_second: float = MOST_A_SECOND,
        least_a_second: float = 0.0,
        seconds: float | None = None,
    ) -> None:
        self._most = most_a_second
        self._least = least_a_second
        self._seconds = ROUND_SECONDS if seconds is None else seconds
        self._last = now
        self._part = 0.0

    def due(self, members: int, now: float) -> int:
        """How many of so many have their turn now, since this was last asked."""
        passed, self._last = now - self._last, now
        turns = self._part + passed * min(self._most, max(self._least, members / self._seconds))
        self._part = turns % 1
        return min(int(turns), members, int(self._most))


class Verification:
    """The streams of a link, and whose turn it is. `now`: s of any clock."""

    def __init__(self, now: float) -> None:
        self._read = Rotation[Reading]()
        self._refused = Rotation[Reading]()
        self._faults: dict[Reading, str] = {}
        self.begin(now)

    def begin(self, now: float) -> None:
        """There is a new link, on which nothing is read yet, and nothing refused."""
        self._read.clear()
        self._refused.clear()
        self._faults.clear()
        self._rounds = Rounds(now, least_a_second=LEAST_A_SECOND, seconds=TURN_SECONDS)
        self._retries = Rounds(now)

    def flows(self, reading: Reading) -> None:
        """The stream is read."""
        self.forget(reading)
        self._read.add(reading)

    def is_refused(self, reading: Reading) -> bool:
        return reading in self._faults

    def refuse(self, reading: Reading, fault: str) -> bool:
        """The server does not permit the stream. True: that is news."""
        self._read.discard(reading)
        self._refused.add(reading)
        is_news = self._faults.get(reading) != fault
        self._faults[reading] = fault
        return is_news

    def forget(self, reading: Reading) -> None:
        """The stream is not wanted any more; nothing happens if it is not known."""
        self._read.discard(reading)
        self._refused.discard(reading)
        self._faults.pop(reading, None)

    def due(self, now: float) -> list[Reading]:
        """The streams that are to be checked."""
        turn = self._read.next(self._rounds.due(len(self._read), now))
        return turn + self._refused.next(self._retries.due(len(self._refused), now))
